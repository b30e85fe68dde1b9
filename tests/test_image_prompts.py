"""Claims about pictures given to a DALL·E: in any order, in part, to be varied, and to be captioned."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from dalle import caption, model, sample, train
from dalle.captioning import captions
from dalle.drawing import NOTHING, border, draw, keep, mask_places, sample_codes, variations
from dalle.dvae import DVAE
from dalle.model import DALLE, PADDING, Artist, encode_captions, orders, to_blocks, to_raster
from dalle.presets import DALLEConfig, DVAEConfig
from multimodal.cli import UserError
from multimodal.config import gpt2, modern, sparse
from multimodal.sampling import Sampling, guide
from multimodal.tokenizer import Tokenizer
from multimodal.transformer import KVCache

PICTURES = DVAEConfig(size=16, grid=4, width=16, depth=1, levels=(4, 3, 5))
CAPTIONS = ["a cat", "a dog on a red background", "two apples", "a cat to the left of a dog"]
ROTARY = modern(24, 2, 2, rotary_axes=3)
GREEDY = Sampling(temperature=0.0)


def artist(block: int = 1, any_order: bool = True, blocks=ROTARY) -> Artist:
    torch.manual_seed(0)
    words = Tokenizer.bpe(CAPTIONS, 300)
    config = DALLEConfig(
        blocks, words.vocab_size, 8, 4, PICTURES.vocabulary, block, any_order, captions=not blocks.side
    )
    network = DALLE(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return Artist(network.eval(), DVAE(PICTURES).eval(), words)


def finished(drawer: Artist, given, seeds=(1, 2), guidance=1.0, sampling=GREEDY, prompts=("a cat",)):
    *_, canvas = sample_codes(drawer, list(prompts), list(seeds), guidance, sampling, given)
    return canvas.blocks()


def some_given(kept: float = 0.5, rows: int = 1):
    torch.manual_seed(3)
    codes = torch.randint(0, 60, (rows, 16))
    return torch.where(torch.rand(rows, 16) < kept, codes, NOTHING)


@pytest.mark.parametrize("block", [1, 2])
def test_in_any_order_a_code_depends_on_the_codes_before_it_in_that_order_only(block):
    network = artist(block).model
    text, codes = encode_captions(artist().tokenizer, CAPTIONS[:1], 8), torch.randint(0, 60, (1, 16))
    order = torch.randperm(16 // block**2)[None]
    k = block**2
    in_order = (order[0, :, None] * k + torch.arange(k)).flatten().tolist()  # places of the codes as they come
    logits = network(text, codes, order)[1]
    for turn in (0, 5, 15):
        changed = codes.clone()
        changed[0, in_order[turn]] = (codes[0, in_order[turn]] + 1) % 60
        moved = ~torch.isclose(network(text, changed, order)[1], logits, atol=1e-5).all(-1)[0]
        assert not moved[in_order[: turn + 1]].any() and moved[in_order[turn + 1 :]].all()


def test_the_raster_order_is_the_plain_forward():
    network, codes = artist().model, torch.randint(0, 60, (3, 16))
    text = encode_captions(artist().tokenizer, CAPTIONS[:3], 8)
    torch.testing.assert_close(network(text, codes, network.raster(3)), network(text, codes))


def test_orders_are_permutations_of_which_about_the_asked_part_is_not_the_raster():
    found = orders(400, 16, 0.25, "cpu")
    assert torch.equal(found.sort(1).values, torch.arange(16).expand(400, -1))
    assert 0.15 < (found != torch.arange(16)).any(1).float().mean() < 0.35
    assert torch.equal(orders(5, 16, 0.0, "cpu"), torch.arange(16).expand(5, -1))


@pytest.mark.parametrize("any_order", [False, True])
@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("kept", [0.0, 0.4, 0.9, 1.0])
def test_what_is_given_stays_code_for_code_and_all_else_is_drawn(any_order, block, kept):
    given = some_given(kept)
    codes = finished(artist(block, any_order), given, sampling=Sampling())
    assert codes.shape == (2, 16) and codes.min() >= 0
    assert torch.equal(codes[:, given[0] >= 0], given[:, given[0] >= 0].expand(2, -1))
    if kept == 0:
        assert not torch.equal(codes[0], codes[1])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("any_order", [False, True])
@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("each", [False, True])
def test_completing_with_a_cache_equals_full_forwards_in_the_order_of_painting(guidance, any_order, block, each):
    drawer, given = artist(block, any_order), some_given(0.6, rows=2 if each else 1)
    if not each:
        given[0, : 2 * block**2] = 7  # blocks that are known, and read at once
    *_, canvas = sample_codes(drawer, ["a cat"], [1, 2], guidance, GREEDY, given)
    codes, order, free = canvas.blocks(), canvas.order, (given < 0).expand(2, -1)
    text = encode_captions(drawer.tokenizer, ["a cat"] * 2, 8)
    with torch.no_grad():
        conditional = drawer.model(text, codes, order)[1]
        unconditional = drawer.model(torch.full_like(text, PADDING), codes, order)[1]
    guided = guide(conditional.flatten(0, 1), unconditional.flatten(0, 1), guidance).view_as(conditional)
    chosen = guided.gather(-1, codes[..., None])[..., 0]
    assert free.any()
    torch.testing.assert_close(chosen[free], guided.max(-1).values[free], atol=1e-3, rtol=1e-3)


def test_in_any_order_what_is_given_below_is_read_before_what_is_above_and_in_raster_order_it_is_not():
    """The first code drawn of an upper half: with another lower half its logits are others, or not."""
    for any_order, wanted in ((True, False), (False, True)):
        drawer, drawn = artist(1, any_order), []
        for seed in range(12):
            lower = torch.randint(0, 60, (1, 8), generator=torch.Generator().manual_seed(seed))
            given = torch.cat((torch.full((1, 8), NOTHING), lower), 1)
            drawn.append(tuple(finished(drawer, given, seeds=(1,))[0, :8].tolist()))
        assert (len(set(drawn)) == 1) == wanted


def test_a_completion_depends_on_its_seed_and_not_on_what_it_is_drawn_beside():
    drawer, given = artist(2), some_given(0.5, rows=3)
    together = finished(drawer, given, seeds=(1, 2, 3), sampling=Sampling())
    for i, seed in enumerate((1, 2, 3)):
        assert torch.equal(finished(drawer, given[i : i + 1], seeds=(seed,), sampling=Sampling())[0], together[i])


def test_without_a_caption_guidance_changes_nothing():
    drawer, given = artist(), some_given(0.5)
    assert torch.equal(finished(drawer, given, prompts=[""]), finished(drawer, given, guidance=4.0, prompts=[" "]))


@pytest.mark.parametrize("side, places", [
    ("top", (slice(0, 1), slice(None))), ("bottom", (slice(3, 4), slice(None))),
    ("left", (slice(None), slice(0, 1))), ("right", (slice(None), slice(3, 4))),
])  # fmt: skip
def test_a_border_is_whole_rows_or_columns_and_its_pixels_stay(side, places):
    drawer = artist(1)
    picture, mask = torch.rand(3, 16, 16), border(side, 1, 4)
    assert mask[places].all() and mask.sum() == 4
    given = keep(drawer, picture, mask)
    whole = drawer.dvae.encode(picture[None]).view(4, 4)
    assert torch.equal(to_raster(given, 4, 1).view(4, 4)[mask], whole[mask])
    assert torch.equal(to_raster(given, 4, 1).view(4, 4)[~mask], torch.full((12,), NOTHING))
    *_, (_, drawn) = draw(drawer, "a cat", [1], given=given)
    assert drawn.shape == (1, 3, 16, 16)


def test_a_code_is_kept_only_if_all_its_pixels_are():
    mask, drawer = Image.new("RGB", (16, 16), "black"), artist()
    mask.putpixel((9, 5), (255, 255, 255))
    kept = mask_places(drawer, mask, Image.new("RGB", (16, 16)))
    assert not kept[1, 2] and kept.sum() == 15
    wide = mask.resize((32, 16), Image.Resampling.NEAREST)  # of which the middle is seen
    assert not mask_places(drawer, wide, wide)[1, 2] and mask_places(drawer, wide, wide).sum() == 15
    with pytest.raises(UserError, match="mask is 16x16, the picture 32x16"):
        mask_places(drawer, mask, wide)


def test_variations_take_another_part_of_the_blocks_from_every_seed():
    given = torch.arange(16)[None]
    found = variations(given, 2, 0.5, [1, 2, 3, 4])
    gone = (to_blocks(to_raster(found, 4, 2), 4, 2) == NOTHING).view(4, 4, 4)
    assert (gone.all(-1).sum(1) == 2).all() and (gone.any(-1) == gone.all(-1)).all()
    assert len({tuple(row.tolist()) for row in gone.flatten(1)}) > 1
    assert torch.equal(variations(given, 2, 0.5, [3])[0], found[2])


@pytest.mark.parametrize("wish, sentence", [
    (lambda: border("top", 0, 4), "rows 0 is out of range: 1 to 3"), (lambda: border("left", 4, 4), "rows 4"),
    (lambda: variations(torch.arange(16)[None], 2, 0.01, [1]), "blocks is none"),
    (lambda: keep(artist(), torch.rand(3, 16, 16), torch.ones(5, 5, dtype=torch.bool)), "mask has"),
])  # fmt: skip
def test_impossible_image_prompts_get_a_sentence(wish, sentence):
    with pytest.raises(UserError, match=sentence):
        wish()


@pytest.mark.parametrize("block", [1, 2])
def test_captioning_with_a_cache_equals_the_full_forward_and_reads_the_whole_picture(block):
    drawer = artist(block)
    text, codes = encode_captions(drawer.tokenizer, CAPTIONS, 8), torch.randint(0, 60, (4, 16))
    text = text.clamp(min=0)
    wanted, none = drawer.model(text, codes, None, 4)
    assert none.shape == (0, 16, 60)
    cache = KVCache(ROTARY, 4, drawer.model.config.blocks + 8)
    found = [drawer.model.read(codes, cache)]
    found += [drawer.model.write(text[:, i], cache) for i in range(7)]
    torch.testing.assert_close(torch.stack(found, 1), wanted, atol=1e-4, rtol=1e-4)
    for place in (0, 15):
        changed = codes.clone()
        changed[:, place] = (codes[:, place] + 1) % 60
        assert not torch.isclose(drawer.model(text, changed, None, 4)[0], wanted, atol=1e-5).all(-1).any()


def test_rows_that_are_captioned_change_nothing_for_the_rows_that_are_drawn():
    drawer = artist(2)
    text, codes = encode_captions(drawer.tokenizer, CAPTIONS, 8), torch.randint(0, 60, (4, 16))
    both, alone = drawer.model(text, codes, None, 1), drawer.model(text[:3], codes[:3])
    torch.testing.assert_close((both[0][:3], both[1]), alone, atol=1e-5, rtol=1e-5)


def test_pictures_and_captions_of_one_batch_are_memorised_both_ways_and_in_any_order():
    torch.manual_seed(0)
    words = Tokenizer.bpe(CAPTIONS, 300)
    network = DALLE(DALLEConfig(modern(32, 2, 2, rotary_axes=3), words.vocab_size, 8, 4, 60, 2, True, True))
    text, codes = encode_captions(words, CAPTIONS, 8), torch.randint(0, 60, (4, 16))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(300):
        both = model.loss(network, text.repeat(2, 1), codes.repeat(2, 1), 0.0, 0.0, orders(8, 4, 0.5, "cpu"), 4)
        optimizer.zero_grad()
        both[0].backward()
        optimizer.step()
    assert both[1]["caption_loss"] < 0.1 and both[1]["code_loss"] < 0.2


@pytest.mark.parametrize("blocks", [gpt2(24, 2, 2), sparse(24, 4, 2, prefix=9, side=4)])
def test_the_published_transformer_draws_the_same_with_its_cache(blocks):
    drawer = artist(1, False, blocks)
    codes = finished(drawer, None)
    with torch.no_grad():
        logits = drawer.model(encode_captions(drawer.tokenizer, ["a cat"] * 2, 8), codes)[1]
    chosen = logits.gather(-1, codes[..., None])[..., 0]
    torch.testing.assert_close(chosen, logits.max(-1).values, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("change, sentence", [
    ({"transformer": sparse(24, 4, 2, prefix=8, side=4)}, "needs prefix 9 and side 4"),
    ({"transformer": sparse(24, 4, 2, prefix=9, side=4), "any_order": True}, "raster order"),
    ({"transformer": modern(24, 2, 2)}, "3 rotary axes"),
])  # fmt: skip
def test_impossible_transformers_get_a_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(DALLEConfig(ROTARY, 300, 8, 4, 60), **change)


def test_a_memorised_picture_is_captioned_with_its_own_caption_alone_and_in_a_batch():
    torch.manual_seed(0)
    words = Tokenizer.bpe(CAPTIONS, 300)
    drawer = Artist(
        DALLE(DALLEConfig(modern(32, 2, 2, rotary_axes=3), words.vocab_size, 8, 4, 60, 2, captions=True)),
        DVAE(PICTURES).eval(),
        words,
    )
    pictures = torch.rand(4, 3, 16, 16)
    text, codes = encode_captions(words, CAPTIONS, 8), to_blocks(drawer.dvae.encode(pictures), 4, 2)
    optimizer = torch.optim.Adam(drawer.model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = model.loss(drawer.model, text.repeat(2, 1), codes.repeat(2, 1), 0.0, 0.0, None, 4)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = captions(drawer, pictures, GREEDY, [0] * 4)
    learned = [words.decode([t for t in row if t not in (PADDING, words.end)]).strip() for row in text.tolist()]
    assert [each.text for each in found] == learned and learned[0] == "a cat"
    with torch.no_grad():
        logits = drawer.model(text, codes, None, 4)[0].log_softmax(-1)
    each = logits.gather(-1, text.clamp(min=0)[..., None])[..., 0]
    wanted = (each * (text != PADDING)).sum(1) / (text != PADDING).sum(1)
    assert [each.mean_logprob for each in found] == pytest.approx(wanted.tolist(), abs=1e-3)
    for i in range(4):
        assert captions(drawer, pictures[i : i + 1], GREEDY, [0])[0].text == found[i].text


def test_a_model_that_only_draws_says_that_it_does():
    drawer = artist()
    only = Artist(DALLE(replace(drawer.model.config, captions=False)), drawer.dvae, drawer.tokenizer)
    with pytest.raises(UserError, match="draws only"):
        captions(only, torch.rand(1, 3, 16, 16), GREEDY, [0])


def test_a_run_in_any_order_with_captions_draws_completes_and_captions_from_the_command_line(tmp_path, capsys):
    run, picture = tmp_path / "run", tmp_path / "drawing.png"
    assert train.main(["tiny", "--out", str(run), "--any-order", "0.5", "--captions", "0.25"]) == 0
    assert model.load(run).model.config.any_order and "val_caption_loss" in (run / "README.md").read_text()
    assert sample.main(["a cat", "--model", str(run), "-o", str(picture)]) == 0
    prompted = ["a cat", "--model", str(run), "--image", str(picture), "-o", str(tmp_path / "more.png")]
    for wish in (["--rows", "4"], ["--side", "right"], ["--vary", "0.5", "--n", "2"], ["--mask", str(picture)]):
        assert sample.main([*prompted, *wish]) == 0
    (tmp_path / "broken.png").write_bytes(b"no picture")
    capsys.readouterr()
    assert caption.main([str(picture), str(tmp_path / "broken.png"), "--model", str(run), "--n", "2", "--json"]) == 1
    told = capsys.readouterr()
    rows = [json.loads(line) for line in told.out.splitlines()]
    assert [row["seed"] for row in rows[:2]] == [0, 1] and all(row["image"] == str(picture) for row in rows[:2])
    assert len(rows) == 3 and "broken.png is not a picture" in rows[2]["error"]
    assert caption.main([str(tmp_path / "broken.png"), "--model", str(run)]) == 1
    assert "broken.png is not a picture" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, sentence", [
    (["a cat", "--rows", "3"], "--rows tells what stays"),
    (["a cat", "--image", "PICTURE", "--rows", "3", "--vary", "0.5"], "give one of them"),
    (["a cat", "--image", "PICTURE", "--rows", "16"], "rows 16 is out of range: 1 to 15"),
    (["a cat", "--image", "PICTURE", "--vary", "0"], "blocks is none"),
    (["a cat", "--image", "missing.png"], "missing.png does not exist"),
    (["a cat", "--image", "PICTURE", "--mask", "OTHER"], "they must be alike"),
    (["", "--rerank"], "the prompt, which is empty"),
    (["a cat", "--side", "left"], "--side tells what stays"),
    (["a cat", "--image", "PICTURE", "--side", "left", "--vary", "0.5"], "--side and --vary both tell"),
    (["a cat", "--image", "PICTURE", "--vary", "nan"], "a share of nan"),
    (["a cat", "--image", "PICTURE", "--vary", "2"], "or too many"),
])  # fmt: skip
def test_wrong_image_prompts_are_one_sentence_and_status_2(arguments, sentence, tmp_path, capsys):
    Image.new("RGB", (20, 30), "red").save(tmp_path / "p.png")
    Image.new("RGB", (30, 30), "red").save(tmp_path / "o.png")
    names = {"PICTURE": str(tmp_path / "p.png"), "OTHER": str(tmp_path / "o.png")}
    arguments = [names.get(argument, argument) for argument in arguments]
    assert sample.main([*arguments, "-o", str(tmp_path / "out.png")]) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("out", ["5.png", ""])
def test_a_picture_that_is_given_is_never_overwritten(out, tmp_path, capsys):
    picture = tmp_path / "5.png"
    Image.new("RGB", (30, 30), "red").save(picture)
    before = picture.read_bytes()
    assert sample.main(["a cat", "--image", str(picture), "--seed", "5", "-o", str(tmp_path / out)]) == 2
    assert f"would overwrite {picture}" in capsys.readouterr().err and picture.read_bytes() == before
