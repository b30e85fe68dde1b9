"""Claims about the dVAE, the transformer on its codes, and drawing."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dalle import dvae, judge, model, sample, train, train_dvae
from dalle.drawing import NOTHING, Canvas, draw, draw_each, paint, sample_codes
from dalle.dvae import DVAE
from dalle.model import DALLE, PADDING, Artist, corrupt, encode_captions, to_blocks, to_raster
from dalle.presets import DALLE_PRESETS, DVAE_PRESETS, DALLEConfig, DVAEConfig
from dalle.quantize import FSQ, Gumbel
from multimodal import images
from multimodal.cli import UserError
from multimodal.config import modern
from multimodal.data.sources import captioned
from multimodal.sampling import Sampling, guide
from multimodal.tokenizer import Tokenizer

SMALL = DVAEConfig(size=16, grid=4, width=16, depth=1, levels=(4, 3, 5))
GUMBEL = replace(SMALL, quantizer="gumbel", codes=12)
CAPTIONS = ["a cat", "a dog on a red background", "two apples", "a cat to the left of a dog"]


def tokenizer() -> Tokenizer:
    return Tokenizer.bpe(CAPTIONS, 300)


def artist(block: int = 1) -> Artist:
    """A tiny DALL·E with weights away from their start, where heads are 0 and everything would be equal."""
    torch.manual_seed(0)
    words = tokenizer()
    config = DALLEConfig(modern(24, 2, 2, rotary_axes=3), words.vocab_size, 8, 4, SMALL.vocabulary, block)
    network = DALLE(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return Artist(network.eval(), DVAE(SMALL).eval(), words)


def pictures(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("config", [SMALL, GUMBEL, replace(SMALL, grid=2), replace(GUMBEL, grid=3)])
def test_pictures_become_codes_within_the_codebook_and_codes_become_pictures_in_0_to_1(config):
    network = DVAE(config)
    codes = network.encode(pictures())
    assert codes.shape == (2, config.length) and codes.min() >= 0 and codes.max() < config.vocabulary
    drawn = network.decode(codes * 7 % config.vocabulary)
    assert drawn.shape == (2, 3, 16, 16) and drawn.min() >= 0 and drawn.max() <= 1


@pytest.mark.parametrize("config", [SMALL, GUMBEL])
def test_a_picture_has_the_same_codes_alone_and_in_a_batch(config):
    network, image = DVAE(config), pictures(3)
    assert torch.equal(network.encode(image)[1:2], network.encode(image[1:2]))


@pytest.mark.parametrize("levels", [(4, 3, 5), (8, 5, 5, 5), (2, 7)])
def test_fsq_codes_and_what_the_decoder_saw_while_training_are_the_same(levels):
    quantizer, features = FSQ(6, levels), 5 * torch.randn(3, 6, 4, 4)
    codes = quantizer.codes(features)
    assert codes.min() >= 0 and codes.max() < math.prod(levels)
    torch.testing.assert_close(quantizer(features, 1.0)[0], quantizer.lookup(codes))


def test_every_fsq_code_has_its_own_point():
    quantizer, points = FSQ(3, (4, 2, 8)), torch.arange(64).view(1, 8, 8)
    quantizer.up.weight.data, quantizer.up.bias.data = torch.eye(3)[..., None, None], torch.zeros(3)
    numbers = quantizer.lookup(points)
    assert len(set(map(tuple, numbers[0].flatten(1).T.tolist()))) == 64
    assert numbers.abs().max() <= 1


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_the_kl_is_that_of_one_picture_whatever_the_batch(batch):
    torch.manual_seed(0)
    quantizer, one = Gumbel(6, 10), torch.randn(1, 6, 4, 4)
    expected = quantizer(one, 1.0)[1]
    assert expected > 0
    torch.testing.assert_close(quantizer(one.expand(batch, -1, -1, -1), 1.0)[1], expected)


def test_the_kl_is_zero_for_uniform_logits_and_positions_times_ln_codes_for_certain_ones():
    quantizer = Gumbel(6, 10)
    nn.init.zeros_(quantizer.logits.weight)
    nn.init.zeros_(quantizer.logits.bias)
    assert quantizer(torch.randn(2, 6, 4, 4), 0.5)[1].abs() < 1e-4
    quantizer.logits.bias.data[3] = 100.0
    assert quantizer(torch.randn(2, 6, 4, 4), 0.5)[1].item() == pytest.approx(16 * math.log(10), rel=1e-4)


def test_relaxed_codes_become_hard_ones_as_the_temperature_falls():
    torch.manual_seed(0)
    quantizer, features = Gumbel(6, 10), torch.randn(2, 6, 4, 4)
    nn.init.normal_(quantizer.logits.weight, std=50.0)
    torch.testing.assert_close(
        quantizer(features, 1e-3)[0], quantizer.lookup(quantizer.codes(features)), atol=1e-3, rtol=1e-3
    )


def test_the_temperature_follows_a_cosine_from_one_to_its_end_and_stays():
    at = [dvae.temperature_at(step, 100, 1 / 16) for step in (0, 50, 100, 150)]
    assert at == pytest.approx([1.0, (1 + 1 / 16) / 2, 1 / 16, 1 / 16])


@pytest.mark.parametrize("config", [SMALL, GUMBEL])
def test_a_dvae_memorises_one_batch_and_every_parameter_gets_a_gradient(config):
    torch.manual_seed(0)
    network, image = DVAE(config), pictures(4).round()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    errors = []
    for step in range(150):
        loss, metrics = dvae.loss(network, image, dvae.temperature_at(step, 100, 1 / 16), 0.01)
        optimizer.zero_grad()
        loss.backward()
        if step == 3:  # the second map of a residual block starts at 0, and with it the gradient of the first
            assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
        optimizer.step()
        errors.append(metrics["mse"].item())
    assert errors[-1] < 0.6 * errors[0]


def test_psnr_of_a_known_error():
    assert dvae.psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1)).item() == pytest.approx(20.0)


@pytest.mark.parametrize("block", [1, 2])
def test_block_order_is_a_reordering_that_is_undone(block):
    codes = torch.arange(32).view(2, 16)
    ordered = to_blocks(codes, 4, block)
    assert torch.equal(to_raster(ordered, 4, block), codes)
    assert ordered[0, : block**2].tolist() == ([0] if block == 1 else [0, 1, 4, 5])


@pytest.mark.parametrize("block", [1, 2])
def test_a_code_depends_on_the_caption_and_the_codes_before_it_only(block):
    network = artist(block).model
    text, codes = encode_captions(tokenizer(), CAPTIONS[:1], 8), torch.randint(0, 60, (1, 16))
    text_logits, logits = network(text, codes)
    for place in (0, 5, 10, 15):
        changed = codes.clone()
        changed[0, place] = (codes[0, place] + 1) % 60
        other_text, other = network(text, changed)
        moved = ~torch.isclose(other, logits, atol=1e-5).all(-1)[0]
        assert not moved[: place + 1].any() and moved[place + 1 :].all()
        assert torch.equal(other_text, text_logits)
    assert not torch.isclose(network(encode_captions(tokenizer(), ["a dog"], 8), codes)[1], logits).all(-1).any()


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_guided_drawing_with_a_cache_equals_two_independent_full_forwards_at_every_step(block, guidance):
    drawer = artist(block)
    seeds, greedy = [3, 4], Sampling(temperature=0.0)
    *_, canvas = sample_codes(drawer, ["a cat"], seeds, guidance, greedy)
    codes = canvas.blocks()
    text = encode_captions(drawer.tokenizer, ["a cat"] * 2, 8)
    with torch.no_grad():
        conditional = drawer.model(text, codes)[1]
        unconditional = drawer.model(torch.full_like(text, PADDING), codes)[1]
    guided = guide(conditional.flatten(0, 1), unconditional.flatten(0, 1), guidance).view_as(conditional)
    chosen = guided.gather(-1, codes[..., None])[..., 0]
    torch.testing.assert_close(chosen, guided.max(-1).values, atol=1e-3, rtol=1e-3)


def test_a_drawing_depends_on_its_seed_and_not_on_what_it_is_drawn_beside():
    drawer = artist()
    together = draw_each(drawer, ["a cat"], [1, 2, 3])
    for i, seed in enumerate((1, 2, 3)):
        torch.testing.assert_close(draw_each(drawer, ["a cat"], [seed])[0], together[i])
    assert not torch.equal(together[0], together[1])


def test_several_prompts_in_one_batch_equal_each_alone():
    drawer = artist(2)
    together = draw_each(drawer, CAPTIONS, [5] * 4)
    for i, caption in enumerate(CAPTIONS):
        torch.testing.assert_close(draw_each(drawer, [caption], [5])[0], together[i])


@pytest.mark.parametrize("block", [1, 2])
def test_a_drawing_fills_in_and_ends_whole(block):
    drawer = artist(block)
    shares, steps = zip(*draw(drawer, "a cat", [1], every=4), strict=True)
    assert shares == (0.25, 0.5, 0.75, 1.0)
    grey = [torch.isclose(picture, torch.tensor(0.92)).float().mean() for picture in steps]
    assert grey[0] > grey[1] > grey[2] > grey[3]
    torch.testing.assert_close(steps[-1], draw_each(drawer, ["a cat"], [1]))


def test_what_is_painted_of_a_part_is_what_those_codes_paint():
    drawer, codes = artist(), torch.randint(0, 60, (1, 16))
    canvas = Canvas(codes, drawer.model.raster())
    assert torch.equal(paint(drawer, canvas), drawer.dvae.decode(codes))
    upper = Canvas(torch.where(torch.arange(16) < 8, codes, NOTHING), canvas.order)
    assert torch.isclose(paint(drawer, upper)[..., 8:, :], torch.tensor(0.92)).all()


@pytest.mark.parametrize("block", [1, 2])
def test_captions_and_codes_of_one_batch_can_be_memorised_and_every_parameter_gets_a_gradient(block):
    torch.manual_seed(0)
    words = tokenizer()
    network = DALLE(DALLEConfig(modern(24, 2, 2, rotary_axes=3), words.vocab_size, 8, 4, 60, block))
    text, codes = encode_captions(words, CAPTIONS, 8), torch.randint(0, 60, (4, 16))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(200):
        loss, metrics = model.loss(network, text, codes, 0.0, 0.0)
        optimizer.zero_grad()
        loss.backward()
        if step == 5:
            silent = [n for n, p in network.named_parameters() if p.numel() and not p.grad.abs().sum() > 0]
            assert silent == []
        optimizer.step()
    assert metrics["code_loss"] < 0.1 and metrics["text_loss"] < 0.3


def test_a_dropped_caption_is_empty_and_does_not_count():
    torch.manual_seed(0)
    drawer = artist()
    text, codes = encode_captions(drawer.tokenizer, CAPTIONS, 8), torch.randint(0, 60, (4, 16))
    loss, metrics = model.loss(drawer.model, text, codes, 1.0, 0.0)
    expected = nn.functional.cross_entropy(
        drawer.model(torch.full_like(text, PADDING), codes)[1].flatten(0, 1), codes.flatten()
    )
    assert metrics["text_loss"] == 0
    torch.testing.assert_close(loss, 7 / 8 * expected)


def test_corruption_replaces_up_to_its_part_and_leaves_the_given_codes_alone():
    codes = torch.arange(4000).view(40, 100)
    before = codes.clone()
    changed = (corrupt(codes, 0.5) != codes).float().mean(1)
    assert torch.equal(codes, before)
    assert changed.max() <= 0.7 and 0.15 < changed.mean() < 0.35
    assert torch.equal(corrupt(codes, 0.0), codes)


def test_captions_are_lower_cased_end_with_the_end_token_and_long_ones_are_cut():
    words = tokenizer()
    rows = encode_captions(words, ["A  Cat", "a cat", "a dog " * 50], 8)
    assert torch.equal(rows[0], rows[1])
    assert (rows[0] == words.end).sum() == 1 and rows[0, -1] == PADDING
    assert rows[2, -1] == words.end and (rows[2] != PADDING).all()


def test_a_saved_dalle_draws_the_same_and_a_mixed_up_one_gets_its_sentence(tmp_path):
    drawer = artist(2)
    model.save(tmp_path / "good", drawer)
    loaded = model.load(tmp_path / "good")
    torch.testing.assert_close(draw_each(loaded, ["a cat"], [1]), draw_each(drawer, ["a cat"], [1]))
    dvae.save(tmp_path / "good" / "dvae", DVAE(replace(SMALL, levels=(4, 4))))
    with pytest.raises(UserError, match="do not belong together"):
        model.load(tmp_path / "good")


@pytest.mark.parametrize("prompt, guidance, seeds, sentence", [
    ("  ", 1.0, [1], "prompt is empty"), ("a cat", -1.0, [1], "guidance -1.0"), ("a cat", 1.0, [], "0 seeds"),
])  # fmt: skip
def test_impossible_wishes_get_a_sentence(prompt, guidance, seeds, sentence):
    with pytest.raises(UserError, match=sentence):
        list(draw(artist(), prompt, seeds, guidance))


def test_the_judge_ranks_the_nearest_real_rendering_first():
    references = torch.stack([torch.full((3, 16, 16), v) for v in (0.0, 0.5, 1.0, 0.9)])
    names = ["black", "grey", "white", "white"]
    ranks = judge.ranks(torch.full((2, 3, 16, 16), 0.92), references, names, ["white", "black"])
    assert ranks.tolist() == [1, 3]


@pytest.mark.parametrize(
    "settings", [{"grid": 99}, {"patch": 5}, {"levels": (1, 4)}, {"levels": (99,) * 4}, {"width": 0}]
)
def test_impossible_dvaes_get_a_sentence(settings):
    with pytest.raises(ValueError, match="allowed|must be|out of range"):
        replace(SMALL, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten captioned pictures of two kinds, one that is none and one without a caption."""
    where = tmp_path_factory.mktemp("pictures")
    for i in range(10):
        shade = torch.full((3, 20, 24), i / 10)
        images.to_pil(shade).save(where / f"{i}.png")
        (where / f"{i}.txt").write_text(f"{'a dark' if i < 5 else 'a light'} square")
    (where / "broken.png").write_bytes(b"no picture")
    (where / "broken.txt").write_text("a broken picture")
    images.to_pil(torch.zeros(3, 8, 8)).save(where / "silent.png")
    return where


def test_the_whole_road_on_the_users_own_pictures_from_training_to_a_drawing(folder, tmp_path, capsys):
    common = ["--data", str(folder), "--device", "cpu"]
    few = ["--train.steps", "6", "--train.save-every", "3", "--train.evaluate-every", "6"]
    assert train_dvae.main(["tiny", *common, *few, "--out", str(tmp_path / "v")]) == 0
    talk = capsys.readouterr()
    assert "broken.png (it is not a picture" in talk.err and "silent.png" not in talk.err  # a dVAE needs no captions
    assert json.loads(talk.out)["val_psnr"] > 0
    assert train.main(["tiny", *common, *few, "--dvae", str(tmp_path / "v"), "--out", str(tmp_path / "d")]) == 0
    assert "silent.png (it has no caption" in capsys.readouterr().err
    assert (tmp_path / "d" / "samples.png").exists() and "python -m dalle.train" in (
        tmp_path / "d" / "README.md"
    ).read_text()
    capsys.readouterr()
    arguments = ["a dark square", "--model", str(tmp_path / "d"), "--device", "cpu"]
    assert sample.main([*arguments, "-o", str(tmp_path / "many"), "--n", "3", "--seed", "5", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seed"] for line in lines] == [5, 6, 7] and lines[0].keys() == {"image", "seed", "score"}
    assert images.read(lines[1]["image"]).size == (32, 32) and (tmp_path / "many" / "grid.png").exists()
    assert sample.main([*arguments, "-o", str(tmp_path / "one.png"), "--seed", "6"]) == 0
    assert images.read(tmp_path / "one.png").tobytes() == images.read(lines[1]["image"]).tobytes()


def test_a_card_counts_the_users_pictures_and_not_their_views_and_says_what_judged_them(folder, tmp_path):
    few = ["--data", str(folder), "--device", "cpu", "--train.steps", "1"]
    assert train_dvae.main(["tiny", *few, "--out", str(tmp_path / "v")]) == 0
    pictures = len(captioned((folder,), 0, "all")[0])
    assert train.main(["tiny", *few, "--dvae", str(tmp_path / "v"), "--views", "2", "--out", str(tmp_path / "d")]) == 0
    card = (tmp_path / "d" / "README.md").read_text(encoding="utf-8")
    assert pictures in (8, 9) and f"**Data.** {pictures} captioned pictures" in card
    assert "on pictures that were held out" in card and "concept" not in card


def darkest(name, device):
    """A scorer that likes dark pictures."""
    return lambda pictures, prompt: -pictures.mean((1, 2, 3))


def test_any_scorer_ranks_and_grid_files_and_scores_are_written_best_first(models, tmp_path, capsys):
    settings = sample.Settings(prompt="a cat", out=tmp_path, n=5, rerank=True, model=str(models / "dalle"), seed=3)
    assert sample.sample(settings, darkest) == 0
    records = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    said = capsys.readouterr().out.splitlines()
    assert said == [f"{r['score']:.4f}  seed {r['seed']}  {r['image']}" for r in records] + [str(tmp_path / "grid.png")]
    assert sorted(record["seed"] for record in records) == [3, 4, 5, 6, 7]
    shades = [np.asarray(images.read(record["image"])).mean() / 255 for record in records]
    assert shades == sorted(shades) and shades == pytest.approx([-record["score"] for record in records], abs=2e-3)
    assert sample.sample(replace(settings, out=tmp_path / "grid2.png", json=True), darkest) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["seed"], line["score"]) for line in lines] == [(r["seed"], r["score"]) for r in records]
    assert (tmp_path / "grid2.png").read_bytes() == (tmp_path / "grid.png").read_bytes()


def test_a_clip_of_the_user_ranks_and_one_that_is_missing_is_told_before_anything_is_drawn(models, tmp_path, capsys):
    common = ["a cat", "--model", str(models / "dalle"), "--n", "2", "--rerank", "-o", str(tmp_path / "drawn")]
    assert sample.main([*common, "--ranker", "nowhere"]) == 2
    assert "nowhere: no run directory" in capsys.readouterr().err and not (tmp_path / "drawn").exists()
    assert sample.main([*common, "--ranker", str(models / "clip"), "--json"]) == 0
    assert all(-1 <= json.loads(line)["score"] <= 1 for line in capsys.readouterr().out.splitlines())


def test_the_paper_preset_has_twelve_billion_parameters_and_fits_the_paper_s_dvae():
    settings, pictures = DALLE_PRESETS["paper"][1], DVAE_PRESETS["paper"][1].model
    config = DALLEConfig(
        settings.transformer, settings.text_vocabulary, settings.text_length, pictures.grid, pictures.vocabulary
    )
    assert (config.text_length, config.length, settings.transformer.head_width) == (256, 1024, 64)
    with torch.device("meta"):
        network = DALLE(config)
    assert 12.0e9 < sum(p.numel() for p in network.transformer.parameters()) < 12.2e9
    assert sum(p.numel() for p in network.parameters()) < 12.5e9
    assert settings.train.batch_size * settings.train.accumulate == 1024


def test_the_paper_preset_trains_and_draws_when_all_its_sizes_are_small(folder, tmp_path):
    common = ["--data", str(folder), "--device", "cpu", "--train.steps", "2"]
    train_dvae.main(["tiny", *common, "--out", str(tmp_path / "v")])
    small = (
        "--transformer.width 24 --transformer.depth 5 --transformer.heads 2 --transformer.prefix 9 --transformer.side 8"
    )
    small += " --text-length 8 --train.accumulate 2 --train.evaluate-every 2 --train.save-every 2"
    run = tmp_path / "d"
    assert train.main(["paper", *small.split(), *common, "--dvae", str(tmp_path / "v"), "--out", str(run)]) == 0
    artist = model.load(run)
    assert artist.model.config.transformer.side == 8 and artist.model.config.block == 1
    (picture,) = draw_each(artist, ["a dark square"], [3])
    assert picture.shape == (3, 32, 32) and picture.isfinite().all()


@pytest.mark.parametrize(("prompt", "said"), [
    ("a cat", []), ("a cat " * 5000, ["only the first 7 tokens"]), ("\N{CAT FACE}", ["hardly ever seen"]),
    ("\u732b", ["captions with \u732b were"]), ("ein Käse " * 99, ["only the first", "captions with ä were"]),
    ("\0\ud83d\n", []),
])  # fmt: skip
def test_any_prompt_is_drawn_and_what_of_it_is_not_understood_is_said(prompt, said):
    drawer = artist()
    (picture,) = draw_each(drawer, [prompt], [0])
    assert picture.isfinite().all()
    told = model.remarks(drawer.tokenizer, prompt, 8)
    assert len(told) == len(said) and all(part in whole for part, whole in zip(said, told, strict=True)), told


@pytest.mark.parametrize("begun", [False, True])
def test_a_resumed_dalle_equals_an_uninterrupted_one(folder, models, tmp_path, begun):
    common = ["tiny", "--data", str(folder), "--device", "cpu", "--train.save-every", "2"]
    train_dvae.main([*common, "--train.steps", "2", "--out", str(tmp_path / "v")])
    common += ["--model", str(models / "dalle")] if begun else ["--dvae", str(tmp_path / "v")]
    common += ["--train.schedule", "cosine", "--train.warmup", "0"]
    # the schedule follows the length of the run: both runs are four steps long, one is stopped in the middle
    train.main([*common, "--train.steps", "4", "--out", str(tmp_path / "whole")])
    import dalle.model as network

    original, calls = network.loss, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 3 + begun:  # what is held out is judged once before
            raise KeyboardInterrupt
        return original(*arguments)

    network.loss = stopping
    try:
        assert train.main([*common, "--train.steps", "4", "--out", str(tmp_path / "run")]) == 1
    finally:
        network.loss = original
    assert train.main([*common, "--train.steps", "4", "--out", str(tmp_path / "run"), "--resume"]) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "run")]
    assert weights[0] == weights[1]


def test_a_folder_called_png_and_a_file_without_an_ending_are_no_place_for_drawings(tmp_path, capsys):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("kept")
    for name in ("folder.png", "file"):
        assert sample.main(["a cat", "-o", str(tmp_path / name)]) == 2
        assert f"{name}: drawings are written as .png, or into a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("arguments, sentence", [
    (["a cat", "--model", "nowhere"], "no run directory"), (["a cat", "--n", "0"], "--n 0 is out of range"),
    (["a cat", "-o", "cat.jpg"], "written as .png"), (["a cat", "--top-p", "2"], "top_p 2.0 is out of range"),
    (["a cat", "--ranker", "bundled"], "has nothing to rank: add --rerank"),
])  # fmt: skip
def test_wrong_use_of_sample_is_one_sentence_and_status_2(arguments, sentence, capsys):
    assert sample.main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_a_trained_dalle_goes_on_with_other_pictures_with_its_own_blocks_dvae_and_tokenizer(
    folder, models, tmp_path, capsys
):
    arguments = ["finetune", "--model", str(models / "dalle"), "--data", str(folder), "--device", "cpu"]
    arguments += ["--train.steps", "60", "--train.batch-size", "4", "--train.ema", "0", "--any-order", "0"]
    assert train.main([*arguments, "--block", "2", "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    figures, before, after = json.loads(out), model.load(models / "dalle"), model.load(tmp_path / "run")
    assert after.model.config == before.model.config  # whatever --block says
    assert after.tokenizer.token_bytes == before.tokenizer.token_bytes
    same = zip(before.dvae.state_dict().values(), after.dvae.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    assert "before training, on what is held out: text_loss" in err
    assert figures["val_code_loss"] < figures["before_code_loss"] - 0.1
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert abs(lines[0]["code_loss"] - figures["before_code_loss"]) < 0.5  # it began where the other had ended
    assert f"It went on from {models / 'dalle'}" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "none/at/all"], "no run directory"),
        (["--model", "bundled", "--dvae", "runs/dvae"], "draws with its own dVAE: leave out --dvae"),
        (["--seed", "-1"], "seed -1 is out of range"),
    ],
)
def test_wrong_use_of_training_is_one_sentence_and_status_2(arguments, sentence, folder, tmp_path, capsys):
    try:
        status = train.main(["tiny", "--data", str(folder), "--out", str(tmp_path / "run"), *arguments])
    except SystemExit as end:
        status = end.code
    assert status == 2 and sentence in capsys.readouterr().err
