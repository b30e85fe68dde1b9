"""Claims about codes that are kept: they are those of the pictures, they are found again, and never mistaken for others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dalle import dvae
from dalle.codes import cropped, digest, encoded
from dalle.dvae import DVAE
from dalle.presets import DVAEConfig
from multimodal import images
from multimodal.cli import Failed
from multimodal.data import pairs
from multimodal.data.drawings import Drawings

PICTURES = DVAEConfig(size=16, grid=4, width=16, depth=1, levels=(4, 3, 5))


@pytest.fixture
def kept(tmp_path):
    """A saved tokenizer, a folder of captioned pictures, and what encodes and counts."""
    torch.manual_seed(0)
    network = DVAE(PICTURES).eval()
    dvae.save(tmp_path / "dvae", network)
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (20, 16, 3), np.uint8)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"picture {i}")
    seen = []

    def encode(pictures):
        seen.append(len(pictures))
        with torch.no_grad():
            return network.encode(pictures)

    def run(source=None, views=1, seed=0, count=12):
        seen.clear()
        source = source or pairs.read_pairs([folder])[0]
        found = encoded(source, network, tmp_path / "dvae", count, tmp_path / "cache", encode, views, seed)
        return found, sum(seen)

    run.folder, run.network, run.dvae, run.tmp = folder, network, tmp_path / "dvae", tmp_path
    return run


def test_kept_codes_are_those_of_the_pictures_with_their_captions(kept):
    found, _ = kept()
    source = pairs.read_pairs([kept.folder])[0]
    batch = pairs.batch(source, list(range(12)), 16)
    with torch.no_grad():
        assert torch.equal(found[list(range(12))], kept.network.encode(images.to_float(batch["image"])))
    assert found.captions == batch["caption"] and len(found) == 12
    assert (found.folder / "preview.png").stat().st_size > 0


def test_the_second_run_encodes_no_more_than_the_preview(kept):
    first, work = kept()
    second, again = kept()
    assert second.folder == first.folder and (work, again) == (12 + 8, 8)


def test_other_pictures_captions_tokenizers_views_or_counts_have_other_codes(kept):
    source = pairs.read_pairs([kept.folder])[0]
    names = {digest(kept.dvae, source, 16, 12, views, seed) for views, seed in ((1, 0), (2, 0), (2, 1))}
    names |= {digest(kept.dvae, source, 16, 11, 1, 0), digest(kept.dvae, source, 32, 12, 1, 0)}
    assert digest(kept.dvae, source, 16, 12, 1, 5) in names  # without crops the seed changes nothing
    (kept.folder / "3.txt").write_text("another caption")
    names.add(digest(kept.dvae, pairs.read_pairs([kept.folder])[0], 16, 12, 1, 0))
    Image.new("RGB", (9, 9)).save(kept.folder / "3.png")
    names.add(digest(kept.dvae, pairs.read_pairs([kept.folder])[0], 16, 12, 1, 0))
    torch.manual_seed(1)
    dvae.save(kept.tmp / "other", DVAE(PICTURES))
    names.add(digest(kept.tmp / "other", source, 16, 12, 1, 0))
    assert len(names) == 8


def test_default_drawings_of_another_seed_or_mixture_have_other_codes():
    plain = Drawings()
    others = [replace(plain, seed=1), replace(plain, mixture={"single": 1.0}), replace(plain, split="pairs")]
    assert len({source.fingerprint() for source in (plain, *others)}) == 4
    assert Drawings().fingerprint() == plain.fingerprint()


@pytest.mark.parametrize("codes, captions", [(-1, None), (-30, None), (0, -3), (-33, -40)])
def test_a_run_that_was_killed_goes_on_where_both_files_are_whole(kept, codes, captions):
    whole, _ = kept()
    wanted, said = whole[list(range(12))].clone(), list(whole.captions)
    for name, cut in (("codes.u16", codes), ("captions.jsonl", captions)):
        path = whole.folder / name
        if cut:
            path.write_bytes(path.read_bytes()[:cut])
    found, work = kept()
    assert torch.equal(found[list(range(12))], wanted) and found.captions == said
    assert 8 < work < 12 + 8


def test_codes_that_are_not_those_of_the_pictures_are_refused(kept):
    found, _ = kept()
    path = found.folder / "codes.u16"
    path.write_bytes(np.roll(np.frombuffer(path.read_bytes(), np.uint16), 5).tobytes())
    with pytest.raises(Failed, match="delete the folder"):
        kept()


def test_a_view_is_a_square_of_the_picture_and_the_first_is_the_whole(kept):
    picture = torch.arange(3 * 16 * 16, dtype=torch.int64).view(3, 16, 16).remainder(251).to(torch.uint8)
    assert torch.equal(cropped(picture, 3, 0, 0), picture)
    views = [cropped(picture, 3, view, 0) for view in (1, 2, 3)]
    assert all(view.shape == picture.shape for view in views)
    assert not torch.equal(views[0], views[1]) and torch.equal(views[0], cropped(picture, 3, 1, 0))
    assert not torch.equal(views[0], cropped(picture, 4, 1, 0))
    flat = torch.full((3, 16, 16), 77, dtype=torch.uint8)
    assert torch.equal(cropped(flat, 0, 5, 0), flat)
    found, _ = kept(views=3, seed=2)
    assert len(found) == 36 and found.captions[:12] == found.captions[12:24]
    assert not torch.equal(found[[0]], found[[12]])
