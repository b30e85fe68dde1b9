"""Claims about `clip.classify`: the contract that scripts rely on, and a sentence for everything that is wrong."""

import csv
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from clip import cache, encoder, model, templates, zeroshot
from clip import classify as command
from clip.classify import main
from clip.labels import Label, given
from clip.presets import CLIPConfig
from multimodal import images
from multimodal.config import modern
from multimodal.data import named
from multimodal.tokenizer import Tokenizer

LABELS = ["cat", "dog", "a red square", "pizza"]


def saved(place: Path, seed: int = 0, scores: str = "softmax") -> str:
    """A small model that was never trained: its words mean nothing, its contract is that of any other."""
    torch.manual_seed(seed)
    image, text = modern(32, 1, 2, causal=False, rotary_axes=2), modern(32, 1, 2)
    sizes = {"size": 16, "patch": 4, "vocabulary": 257, "context": 32, "embedding": 16}
    clip = model.CLIP(CLIPConfig(image, text, **sizes, scores=scores))
    for parameter in clip.parameters():  # blocks begin as the identity, by which all captions look alike
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    model.save(place, clip, Tokenizer.bytes())
    return str(place)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    return saved(tmp_path_factory.mktemp("run"))


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch) -> Path:
    """Where the vectors of classes are kept: nobody's home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    return cache.folder()


@pytest.fixture
def pictures(tmp_path) -> Path:
    """b.png and c/a.jpg are pictures, broken.png and notes.txt are none, .hidden.png is nobody's business."""
    place = tmp_path / "pictures"
    (place / "c").mkdir(parents=True)
    Image.new("RGB", (40, 20), (200, 30, 30)).save(place / "b.png")
    Image.new("RGB", (20, 50), (30, 30, 200)).save(place / "c" / "a.jpg")
    (place / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    (place / ".hidden.png").write_bytes(b"")
    (place / ".thumbnails").mkdir()
    Image.new("RGB", (4, 4)).save(place / ".thumbnails" / "b.png")
    (place / "notes.txt").write_text("nothing to see")
    return place


def classify(capsys, *arguments: object) -> tuple[int, list[dict], str]:
    status = main([*map(str, arguments), "--json", "--device", "cpu"])
    output = capsys.readouterr()
    return status, [json.loads(line) for line in output.out.splitlines()], output.err


def test_every_picture_gets_a_line_in_order_and_a_bad_one_makes_the_status_1(run, pictures, capsys):
    status, found, talk = classify(capsys, pictures, pictures / "missing.png", "--labels", *LABELS, "--model", run)
    assert status == 1
    names = [Path(line["image"]).name for line in found]
    assert names == ["b.png", "broken.png", "a.jpg", "missing.png"]
    for line in found:
        assert set(line) == ({"image", "error"} if "error" in line else {"image", "predictions", "scores"})
    assert "damaged" in found[1]["error"] or "not a picture" in found[1]["error"]
    assert "does not exist" in found[3]["error"]
    assert found[0]["image"] == str(pictures / "b.png") and talk == ""


def test_predictions_are_ranked_probabilities(run, pictures, capsys):
    status, (line,), _ = classify(capsys, pictures / "b.png", "--labels", *LABELS, "--top-k", 9, "--model", run)
    assert status == 0
    predictions = line["predictions"]
    assert all(set(entry) == {"label", "probability", "rank"} for entry in predictions)
    assert [entry["rank"] for entry in predictions] == [1, 2, 3, 4]
    probabilities = [entry["probability"] for entry in predictions]
    assert probabilities == sorted(probabilities, reverse=True) and abs(sum(probabilities) - 1) < 1e-4
    assert {entry["label"] for entry in predictions} == set(LABELS)
    _, (shorter,), _ = classify(capsys, pictures / "b.png", "--labels", *LABELS, "--top-k", 2, "--model", run)
    assert shorter["predictions"] == predictions[:2]


def test_the_order_of_labels_and_the_company_of_other_pictures_change_nothing(run, pictures, capsys):
    common = ["--top-k", 9, "--model", run]
    _, (alone,), _ = classify(capsys, pictures / "c", "--labels", *LABELS, *common)
    _, together, _ = classify(capsys, pictures, "--labels", *LABELS[::-1], *common)
    other = next(line for line in together if line["image"] == alone["image"])
    for one, two in zip(alone["predictions"], other["predictions"], strict=True):
        assert one["label"] == two["label"] and one["probability"] == pytest.approx(two["probability"], abs=1e-4)


def test_the_truth_adds_its_rank(run, pictures, capsys):
    arguments = [pictures / "b.png", "--labels", *LABELS, "--model", run, "--top-k"]
    _, (line,), _ = classify(capsys, *arguments, 9)
    for entry in line["predictions"]:
        _, (judged,), _ = classify(capsys, *arguments, 1, "--truth", entry["label"])
        assert judged["truth"] == entry and len(judged["predictions"]) == 1


def test_people_get_bars_marks_and_the_rank(run, pictures, capsys):
    common = [str(pictures / "b.png"), "--model", run, "--labels", *LABELS]
    assert main([*common, "--truth", "dog", "--top-k", "1"]) == 0
    shown = capsys.readouterr().out
    assert "✓ dog" in shown and "out of 4 labels" in shown and "█" in shown
    assert main(common) == 0
    shown = capsys.readouterr().out
    assert "✓" not in shown and "✗" not in shown and all(label in shown for label in LABELS)


def test_people_hear_of_bad_pictures_on_stderr(run, pictures, capsys):
    assert main([str(pictures), "--labels", *LABELS, "--model", run]) == 1
    output = capsys.readouterr()
    assert "broken.png" in output.err and "broken.png" not in output.out and "a.jpg" in output.out


def test_labels_come_from_a_file_too(run, pictures, tmp_path, capsys):
    listed = tmp_path / "labels.txt"
    listed.write_bytes("\ufeff".encode() + "\r\n".join(["cat", "", " dog ", "a red square", "pizza", ""]).encode())
    _, one, _ = classify(capsys, pictures / "b.png", "--labels-file", listed, "--model", run)
    _, two, _ = classify(capsys, pictures / "b.png", "--labels", *LABELS, "--model", run)
    assert one == two


def test_several_templates_are_averaged_and_other_braces_are_literal(run, pictures, capsys):
    common = [pictures / "b.png", "--labels", *LABELS, "--model", run, "--top-k", 9]
    one, two, both = (
        classify(capsys, *common, *(word for template in templates for word in ("--template", template)))[1][0]
        for templates in (["a {}"], ["{} {x} {0}"], ["a {}", "{} {x} {0}"])
    )
    assert one != two != both != one


def test_too_long_prompts_are_counted_in_one_sentence(run, pictures, capsys):
    status, _, talk = classify(
        capsys,
        pictures / "b.png",
        pictures / "c",
        "--labels",
        "cat",
        "dog" * 20,
        "bird" * 20,
        "--template",
        "{}",
        "--model",
        run,
    )
    assert status == 0 and talk.count("\n") == 1 and "2 of 3 prompts are longer than the 32 tokens" in talk


def test_a_folder_without_pictures_is_an_error_of_its_own(run, pictures, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    status, found, _ = classify(capsys, empty, pictures / "b.png", "--labels", *LABELS, "--model", run)
    assert status == 1 and "without pictures" in found[0]["error"] and "predictions" in found[1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--labels", "cat"], "always 1"),
        (["--labels", "cat", "dog", "cat"], "given twice"),
        (["--labels", "cat", ""], "empty"),
        (["--labels", "cat", "dog", "--template", "a photo"], "no {}"),
        ([], "--labels"),
        (["--labels", "cat", "dog", "--labels-file", "x"], "--labels-file"),
        (["--labels-file", "nowhere.txt"], "could not be read"),
        (["--labels", "cat", "dog", "--truth", "cow"], "none of the 2 labels"),
        (["--labels", "cat", "dog", "--top-k", "0"], "at least 1"),
        (["--labels", "cat", "dog", "--model", "nowhere"], "nowhere"),
        (["--labels", "cat,dog"], "was meant as 2 classes, put spaces between them"),
        (["--labels", "cat", "Cat"], "means the same"),
        (["--labels", "   ", "cat"], "empty"),
        (["--labels", "cat", "dog", "--templates", "food"], "Did you mean"),
        (["--labels", "cat", "dog", "--templates", "food101", "--template", "a {}"], "give one of the two"),
        (["--labels", "cat", "dog", "--template", "{label}"], "no {}"),
        (["--labels", "cat", "dog", "--none", "0"], "no probability"),
        (["--labels", "cat", "dog", "--none", "nan"], "no probability"),
        (["--labels", "cat", "dog", "--confusion", "m.png"], "give --truth too"),
        (["--labels", "cat", "dog", "--truth", "cat", "--confusion", "m.jpg"], "ends with .png"),
        (["--labels", "cat", "dog", "--csv", "nowhere/x.csv"], "folder nowhere does not exist"),
        (["--labels", "cat", "dog", "--html", "."], "is a folder"),
        (["--labels", "cat", "dog", "--csv", "/dev/null"], "is a device"),
        (["--labels", "cat", __file__], "pictures stand before --labels"),
        (["--labels", "cat", "dog", "--truth", "nowhere.csv"], "could not be read"),
        (["--labels-from", "nowhere"], "could not be read"),
        (["--labels", "cat", "dog", "--precision", "fp8"], "precision"),
    ],
)
def test_wrong_use_is_one_sentence_and_status_2(run, pictures, capsys, arguments, word):
    model_of_ours = [] if "--model" in arguments else ["--model", run]
    try:
        assert main([str(pictures / "b.png"), *arguments, *model_of_ours]) == 2
    except SystemExit as end:  # a value that is none of those allowed
        assert end.code == 2
    output = capsys.readouterr()
    assert output.out == "" and word in output.err and output.err.count("\n") == 1


@pytest.mark.parametrize("flag", ["--csv", "--html", "--confusion"])
def test_a_file_that_cannot_be_written_is_one_sentence_and_status_1(run, pictures, tmp_path, capsys, flag):
    out = tmp_path / ("x" * 245 + ".png")  # its name may be so long, but no longer while it is being written
    arguments = [str(pictures / "b.png"), "--labels", "cat", "dog", "--truth", "cat", "--model", run, "--json"]
    assert main([*arguments, flag, str(out)]) == 1
    assert f"{flag} {out} could not be written: File name too long.\n" in capsys.readouterr().err


def test_without_pictures_it_asks_for_some(run, capsys):
    assert main(["--labels", "cat", "dog", "--model", run]) == 2
    assert "no picture was given" in capsys.readouterr().err


# ---- scores


def test_by_sigmoid_other_labels_change_nothing_and_one_is_enough(run, pictures, capsys):
    common = ["--scores", "sigmoid", "--top-k", 9, "--model", run, "--precision", "fp32"]
    _, (many,), _ = classify(capsys, pictures / "b.png", "--labels", *LABELS, *common)
    status, (one,), _ = classify(capsys, pictures / "b.png", "--labels", "pizza", *common)
    assert status == 0 and one["scores"] == many["scores"] == "sigmoid"
    assert [entry["label"] for entry in one["predictions"]] == ["pizza"]
    alone = next(entry["probability"] for entry in many["predictions"] if entry["label"] == "pizza")
    assert one["predictions"][0]["probability"] == pytest.approx(alone, abs=1e-5) != 1.0


def test_both_ways_of_scoring_rank_alike(run, pictures, capsys):
    common = [pictures / "b.png", "--labels", *LABELS, "--top-k", 9, "--model", run]
    ranked = [
        [entry["label"] for entry in classify(capsys, *common, "--scores", scores)[1][0]["predictions"]]
        for scores in ("softmax", "sigmoid")
    ]
    assert ranked[0] == ranked[1]


def test_a_sigmoid_of_a_model_trained_by_softmax_is_against_sentences_about_nothing(run):
    clip = encoder.find(run)
    against = zeroshot.neutral(clip, ["a {}"])
    picture = clip.embed_images((torch.rand(1, 3, 16, 16) * 255).byte())
    nothing = torch.nn.functional.normalize(clip.embed_texts(["a something", "a picture"]).mean(0), dim=0)
    both = torch.stack([clip.embed_texts(["a cat"])[0], nothing])
    two = zeroshot.probabilities(clip, picture, both, "softmax")  # a choice between the label and nothing
    one = zeroshot.probabilities(clip, picture, both[:1], "sigmoid", against)
    assert one[0, 0].item() == pytest.approx(two[0, 0].item(), abs=1e-5)


def test_a_model_trained_by_sigmoid_is_scored_so_with_its_own_bias(tmp_path, pictures, capsys):
    siglip = saved(tmp_path / "siglip", scores="sigmoid")
    status, (line,), _ = classify(
        capsys, pictures / "b.png", "--labels", "cat", "--template", "a {}", "--model", siglip, "--precision", "fp32"
    )
    assert status == 0 and line["scores"] == "sigmoid"
    clip = encoder.find(siglip)
    logit = (
        clip.scale
        * clip.embed_images(clip.prepare(images.read(pictures / "b.png"))[None])
        @ clip.embed_texts(["a cat"]).T
        + clip.bias
    )
    assert clip.bias != 0
    assert line["predictions"][0]["probability"] == pytest.approx(logit.sigmoid().item(), abs=1e-5)
    _, (line,), _ = classify(capsys, pictures / "b.png", "--labels", *LABELS, "--scores", "softmax", "--model", siglip)
    assert sum(entry["probability"] for entry in line["predictions"]) == pytest.approx(1, abs=1e-4)


def test_which_scores_and_sentences_were_used_is_said(run, pictures, capsys):
    common = [str(pictures / "b.png"), "--model", run, "--labels", *LABELS]
    assert main(common) == 0
    talk = capsys.readouterr().err
    assert "sum to 1 (softmax)" in talk and "sentences: '{}', 'a drawing of a {}'." in talk
    assert main([*common, "--scores", "sigmoid", "--templates", "food101"]) == 0
    talk = capsys.readouterr().err
    assert "(sigmoid); the model has learned to choose among labels, so this is coarse" in talk
    assert "'a photo of {}, a type of food.', as published for Food101 (OpenAI," in talk


def test_none_of_these_is_said_below_the_threshold_and_only_there(run, pictures, capsys):
    common = [pictures / "b.png", "--labels", *LABELS, "--model", run]
    _, (plain,), _ = classify(capsys, *common)
    best = plain["predictions"][0]["probability"]
    for threshold, none in ((best * 0.99, False), (min(1.0, best * 1.01), True)):
        _, (line,), _ = classify(capsys, *common, "--none", threshold)
        assert line == plain | {"none": none}
    assert main([*map(str, common), "--none", "1"]) == 0
    assert "none of these: no label is probable enough" in capsys.readouterr().out


# ---- labels and templates


def test_a_label_of_several_names_is_the_normalised_mean_of_all_its_prompts(run):
    clip = encoder.find(run)
    found = zeroshot.class_embeddings(
        clip, [Label("pet", ("cat", "dog")), Label("own", ("x",), ("a tree",))], ["a {}", "{}"]
    )
    wanted = [["a cat", "cat", "a dog", "dog"], ["a tree"]]
    for vector, prompts in zip(found, wanted, strict=True):
        mean = torch.nn.functional.normalize(clip.embed_texts(prompts).mean(0), dim=0)
        assert torch.allclose(vector, mean, atol=1e-5)


def test_classes_are_embedded_in_parts_as_in_one(run, monkeypatch):
    clip, labels = encoder.find(run), given([f"thing number {i}" for i in range(50)])
    whole = zeroshot.class_embeddings(clip, labels, ["a {}", "{}", "the {}"])
    monkeypatch.setattr(zeroshot, "CHUNK", 7)
    assert torch.allclose(zeroshot.class_embeddings(clip, labels, ["a {}", "{}", "the {}"]), whole, atol=1e-5)


def test_a_table_of_classes_is_used_and_its_keys_are_what_is_printed(run, pictures, tmp_path, capsys):
    listed = tmp_path / "classes.csv"
    listed.write_text(
        "label,names,prompts\nAnnualCrop,annual crop land|crop field,\nSeaLake,,a photo of the sea|a lake\n"
    )
    status, (line,), talk = classify(capsys, pictures / "b.png", "--labels-file", listed, "--model", run)
    assert status == 0 and {entry["label"] for entry in line["predictions"]} == {"AnnualCrop", "SeaLake"}
    assert "name of a folder" not in talk  # they are no names for the model
    clip = encoder.find(run)
    classes = torch.stack([
        torch.nn.functional.normalize(clip.embed_texts(prompts).mean(0), dim=0)
        for prompts in (
            [t.replace("{}", n) for n in ("annual crop land", "crop field") for t in zeroshot.TEMPLATES],
            ["a photo of the sea", "a lake"],
        )
    ])  # fmt: skip
    shares = zeroshot.classify(clip, clip.prepare(images.read(pictures / "b.png"))[None], classes)[0]
    found = {entry["label"]: entry["probability"] for entry in line["predictions"]}
    assert found["AnnualCrop"] == pytest.approx(shares[0].item(), abs=2e-2)


def test_names_of_folders_given_as_labels_are_remarked(run, pictures, capsys):
    status, found, talk = classify(capsys, pictures / "b.png", "--labels", "AnnualCrop", "SeaLake", "--model", run)
    assert status == 0 and len(found) == 1
    assert "2 labels, 'AnnualCrop' being the first, are each the name of a folder" in talk


def test_a_set_of_templates_brings_its_classes_unless_labels_are_given(run, pictures, capsys):
    _, (line,), _ = classify(capsys, pictures / "b.png", "--templates", "food101", "--top-k", 500, "--model", run)
    assert (
        len(line["predictions"]) == 101
        and {"label": "sushi"}.items()
        <= next(entry for entry in line["predictions"] if entry["label"] == "sushi").items()
    )
    common = [pictures / "b.png", "--labels", *LABELS, "--model", run]
    _, by_name, _ = classify(capsys, *common, "--templates", "food101")
    _, by_hand, _ = classify(capsys, *common, "--template", "a photo of {}, a type of food.")
    assert by_name == by_hand


def test_classes_that_the_source_calls_alike_are_both_there(run, pictures, capsys):
    _, (line,), talk = classify(capsys, pictures / "b.png", "--templates", "imagenet7", "--top-k", 1000, "--model", run)
    labels = [entry["label"] for entry in line["predictions"]]
    assert len(set(labels)) == 1000 and {"missile (n03773504)", "missile (n04008634)"} <= set(labels)
    assert "'missile', 'sunglasses' to two classes each" in talk


def test_a_label_may_be_longer_than_any_name_of_a_file(run, pictures, capsys):
    long = "a dog. " * 100
    status, (line,), _ = classify(capsys, pictures / "b.png", "--labels", long, "cat", "--model", run)
    assert status == 0 and {entry["label"] for entry in line["predictions"]} == {long, "cat"}


def test_thousands_of_labels_are_ranked(run, pictures, tmp_path, capsys):
    listed = tmp_path / "many.txt"
    listed.write_text("\n".join(f"thing {i}" for i in range(5000)))
    status, (line,), _ = classify(
        capsys, pictures / "b.png", "--labels-file", listed, "--template", "{}", "--top-k", 5000, "--model", run
    )
    assert status == 0 and [entry["rank"] for entry in line["predictions"]] == list(range(1, 5001))
    assert sum(entry["probability"] for entry in line["predictions"]) == pytest.approx(1, abs=5e-3)


def test_a_published_model_is_asked_about_photographs():
    tokenizer = Tokenizer.bytes()
    clip = model.CLIP(CLIPConfig(modern(32, 1, 2, causal=False, rotary_axes=2), modern(32, 1, 2), vocabulary=257))
    ours = encoder.Ours(clip, tokenizer)
    assert zeroshot.templates_for(ours) == zeroshot.TEMPLATES
    tokenizer.pipeline.add_special_tokens([model.START])
    assert zeroshot.templates_for(ours) == zeroshot.PHOTOGRAPHS


def test_a_published_model_gives_the_probabilities_of_open_clips_own_zero_shot_classifier(pictures, tmp_path, capsys):
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    from safetensors.torch import save_file

    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    network = open_clip.CLIP(**config).eval()
    for parameter in network.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    place = tmp_path / "published"
    place.mkdir()
    save_file(network.state_dict(), place / "open_clip_model.safetensors")
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))

    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{place}")
    cifar = templates.find("cifar10")
    with torch.inference_mode():
        classes = open_clip.build_zero_shot_classifier(
            network.eval(), open_clip.get_tokenizer(f"local-dir:{place}"),
            [label.key for label in cifar.classes], list(cifar.templates),
        )  # fmt: skip
        with Image.open(pictures / "b.png") as picture:
            seen = network.encode_image(preprocess(picture)[None], normalize=True)
        theirs = (network.logit_scale.exp() * seen @ classes).softmax(dim=-1)[0]

    _, (line,), _ = classify(
        capsys, pictures / "b.png", "--templates", "cifar10", "--top-k", 10, "--model", place, "--precision", "fp32"
    )
    ours = {entry["label"]: entry["probability"] for entry in line["predictions"]}
    assert [ours[label.key] for label in cifar.classes] == pytest.approx(theirs.tolist(), abs=1e-5)


# ---- the cache


def test_the_vectors_of_classes_are_computed_once(run, pictures, kept, capsys, monkeypatch):
    common = [pictures / "b.png", "--labels", *LABELS, "dog" * 20, "--model", run]
    first = classify(capsys, *common)
    assert len(list(kept.iterdir())) == 1 and "2 of 10 prompts are longer" in first[2]
    monkeypatch.setattr(zeroshot, "embed_classes", None)  # whoever calls it fails
    assert classify(capsys, *common) == first
    status, _, talk = classify(capsys, *common, "--no-cache")
    assert status == 1 and "TypeError" in talk


def test_other_prompts_and_other_models_are_other_vectors(run, pictures, kept, tmp_path, capsys):
    other = saved(tmp_path / "other", seed=1)
    asked = [
        (["--labels", *LABELS], run), (["--labels", *LABELS[::-1]], run), (["--labels", *LABELS], other),
        (["--labels", *LABELS, "--template", "{}"], run), (["--labels", *LABELS, "--precision", "fp32"], run),
        (["--labels", *LABELS, "--precision", "bf16"], run),
    ]  # fmt: skip
    for arguments, which in asked:
        fresh = classify(capsys, pictures / "b.png", *arguments, "--model", which, "--no-cache")
        for _ in range(2):
            assert classify(capsys, pictures / "b.png", *arguments, "--model", which) == fresh
    assert len(list(kept.iterdir())) == 5  # auto is one of fp32 and bf16


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "shape", "not a number", "not unit"])
def test_damaged_vectors_are_computed_anew(run, pictures, kept, capsys, damage):
    from safetensors.torch import save_file

    common = [pictures / "b.png", "--labels", *LABELS, "--model", run]
    right = classify(capsys, *common)
    (path,) = kept.iterdir()
    data = path.read_bytes()
    if damage in ("cut", "empty", "noise"):
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "noise": os.urandom(500)}[damage])
    else:
        bad = {"shape": torch.ones(2, 2), "not a number": torch.full((4, 16), torch.nan), "not unit": torch.ones(4, 16)}
        save_file({"classes": bad[damage]}, path, metadata={"cut": "0"})
    assert classify(capsys, *common) == right
    assert path.read_bytes() == data


def test_the_cache_is_bounded_and_forgets_what_was_used_longest_ago(run, pictures, kept, capsys, monkeypatch):
    monkeypatch.setattr(cache, "MOST", 3)
    for number in range(5):
        classify(capsys, pictures / "b.png", "--labels", "cat", f"thing {number}", "--model", run)
        newest = max(kept.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    assert sorted(round(path.stat().st_mtime) for path in kept.iterdir()) == [2, 3, 4]
    monkeypatch.setattr(cache, "MOST_BYTES", 2 * newest.stat().st_size)
    classify(capsys, pictures / "b.png", "--labels", "cat", "a new thing", "--model", run)
    assert len(list(kept.iterdir())) == 2


def test_a_place_that_cannot_be_written_to_is_no_reason_to_stop(run, pictures, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    status, found, talk = classify(capsys, pictures / "b.png", "--labels", *LABELS, "--model", run)
    assert status == 0 and len(found) == 1 and talk == ""


# ---- folders and files


def png(path: Path, colour="red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), colour).save(path, "PNG")
    return path


def test_folders_are_walked_in_the_order_of_names_and_odd_things_in_them_are_told(tmp_path):
    place = tmp_path / "walk"
    for name in ("b.png", "a/z.png", "a.png", "c.PNG", "folder.png/inside.jpg", "a/.hidden/x.png", "._a.png"):
        png(place / name)
    (place / "d.png").symlink_to("nowhere.png")
    (place / "e.png").symlink_to("e.png")
    (place / "f.png").symlink_to("b.png")
    (place / "loop").symlink_to(place)
    (place / "a" / "up").symlink_to("..")
    os.mkfifo(place / "g.png")
    (place / "readme.txt").write_text("no picture")
    found = list(named.pictures_in([place]))
    paths = [path for path, _ in found]
    assert [str(path.relative_to(place)) for path in paths] == [
        "a/z.png", "a.png", "b.png", "c.PNG", "d.png", "e.png", "f.png", "folder.png/inside.jpg", "g.png",
    ]  # fmt: skip
    assert paths == sorted(paths)
    assert {path.name: problem.removeprefix(str(path)) for path, problem in found if problem} == {
        "d.png": " is a link to nothing.", "e.png": " is a link to nothing.", "g.png": " is no file.",
    }  # fmt: skip


def test_a_folder_of_links_to_folders_says_that_they_are_not_followed(tmp_path):
    png(tmp_path / "real" / "a.png")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "one").symlink_to(tmp_path / "real")
    ((path, problem),) = named.pictures_in([tmp_path / "links"])
    assert path == tmp_path / "links" and "1 links to folders in it are not followed" in problem
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert list(named.pictures_in([tmp_path / "link"])) == [(tmp_path / "link" / "a.png", None)]  # it was named


def test_a_very_deep_folder_is_walked(tmp_path):
    place = tmp_path
    for _ in range(300):
        place = place / "d"
    png(place / "a.png")
    assert [path for path, _ in named.pictures_in([tmp_path])] == [place / "a.png"]


def test_names_with_newlines_and_bytes_that_are_no_text_come_through_whole(run, tmp_path):
    place = tmp_path / "names"
    odd = [b"a\nb.png", b"caf\xe9.png", "\u202egnp.png".encode(), b" .png", b"x\x1b[31m.png", b"zero.png"]
    for name in odd:
        png(place / "x.png").rename(os.path.join(os.fsencode(place), name).decode("utf-8", "surrogateescape"))
    (place / "zero.png").write_bytes(b"")
    options = ["--labels", "cat", "dog", "--model", run, "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "clip.classify", place, *options, "--json", "--csv", tmp_path / "out.csv"],
        cwd=Path(__file__).parents[1], capture_output=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert len(lines) == len(odd) and ["error" in line for line in lines].count(True) == 1
    assert {os.fsencode(line["image"]) for line in lines} == {os.path.join(os.fsencode(place), name) for name in odd}
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(odd) and rows[[os.path.basename(row["image"]) for row in rows].index("a\nb.png")]["label_1"]


def test_what_steers_a_terminal_is_not_printed_for_people(run, tmp_path, capsys):
    png(tmp_path / "names" / "x\x1b[31m\n.png")
    (tmp_path / "names" / "y\x1b.png").write_bytes(b"")
    assert main([str(tmp_path / "names"), "--labels", "cat\x1b[0m", "dog", "--model", run]) == 1
    output = capsys.readouterr()
    assert "\x1b" not in output.out + output.err and "x?[31m?.png" in output.out and "y?.png" in output.err


def test_every_kind_of_bad_picture_is_a_sentence_and_the_others_come_in_order(run, tmp_path, capsys):
    place = tmp_path / "bad"
    good = png(place / "a.png").read_bytes()
    giant = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", b"\0" * 99))
    )
    wide = tmp_path / "wide.png"
    Image.new("RGB", (30_000, 1), "red").save(wide)
    for name, data in {
        "b-empty.png": b"",
        "c-text.jpg": b"I am no picture",
        "d-cut.png": good[:-30],
        "e-giant.png": giant,
        "f-misnamed.jpg": good,
        "g-html.gif": b"<html></html>",
        "h-wide.png": wide.read_bytes(),
        "i-noise.webp": os.urandom(2000),
        "j-good.png": good,
    }.items():
        (place / name).write_bytes(data)
    status, found, _ = classify(capsys, place, "--labels", *LABELS, "--model", run)
    assert status == 1 and [Path(line["image"]).name for line in found] == sorted(path.name for path in place.iterdir())
    bad = {Path(line["image"]).name[0]: line["error"] for line in found if "error" in line}
    assert set(bad) == set("bcdegi") and all("\n" not in sentence for sentence in bad.values())
    assert "0 bytes" in bad["b"] and "not a picture" in bad["c"] and "pixels" in bad["e"]
    same = [line["predictions"] for line in found if Path(line["image"]).name[0] in "afj"]
    for other in same[1:]:
        assert [row["label"] for row in other] == [row["label"] for row in same[0]]
        for one, two in zip(same[0], other, strict=True):
            assert one["probability"] == pytest.approx(two["probability"], abs=1e-4)


def test_devices_and_sockets_are_not_read_and_pipes_are(run, pictures, tmp_path, capsys):
    pipe, plug = tmp_path / "pipe", tmp_path / "plug"
    os.mkfifo(pipe)
    data = (pictures / "b.png").read_bytes()
    writer = threading.Thread(target=lambda: pipe.write_bytes(data))
    writer.start()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(plug))
        status, found, _ = classify(
            capsys, "/dev/zero", plug, pipe, pictures / "b.png", "--labels", *LABELS, "--model", run
        )
    writer.join()
    assert status == 1 and "is no file, but a device" in found[0]["error"] and "is no file" in found[1]["error"]
    assert found[2]["predictions"] == found[3]["predictions"]


def test_a_picture_that_the_model_cannot_prepare_is_a_sentence(pictures):
    def use(picture: Image.Image) -> int:
        if picture.height > 30:
            raise ValueError("too tall\nfor me")
        return picture.width

    found = list(named.read_ahead(named.pictures_in([pictures]), use))
    assert found[0] == (pictures / "b.png", 40) and "not a picture" in found[1][1]
    assert found[2] == (pictures / "c" / "a.jpg", f"{pictures / 'c' / 'a.jpg'} could not be used: too tall for me.")


def test_pictures_are_read_a_bounded_number_ahead_and_in_order(tmp_path, monkeypatch):
    path, asked, used = png(tmp_path / "a.png"), [], []
    monkeypatch.setattr(named, "AHEAD", 5)

    def many():
        for number in range(1000):
            asked.append(number)
            yield path, None if number % 3 else f"problem {number}"

    coming = named.read_ahead(many(), lambda picture: used.append(1) or "used")
    found = [next(coming)[1] for _ in range(20)]
    assert found == [f"problem {i}" if i % 3 == 0 else "used" for i in range(20)]
    assert len(asked) <= 20 + 5 and len(used) <= 20 + 5
    coming.close()


def test_the_first_pictures_come_before_the_last_are_asked_for(run, tmp_path, capsys, monkeypatch):
    path, asked = png(tmp_path / "a.png"), []

    def endless(paths):
        while True:
            asked.append(1)
            yield path, None

    shown = []

    def enough(record, count, as_json):
        shown.append(record)
        if len(shown) == 100:
            raise KeyboardInterrupt

    monkeypatch.setattr(named, "pictures_in", endless)
    monkeypatch.setattr(command, "_print", enough)
    assert main([str(path), "--labels", *LABELS, "--model", run, "--csv", str(tmp_path / "t.csv"), "--html",
                 str(tmp_path / "t.html")]) == 1  # fmt: skip
    assert len(asked) < 100 + command.CHUNK + named.AHEAD + 1
    assert "interrupted after 100 pictures" in capsys.readouterr().err
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 101
    assert "100 pictures classified" in (tmp_path / "t.html").read_text()


def test_parts_grow_and_lose_nothing():
    parts = list(command.in_parts(iter(range(500))))
    assert [len(part) for part in parts][:5] == [8, 16, 32, 64, 64] and sum(parts, []) == list(range(500))


# ---- truth


@pytest.fixture
def classes(tmp_path) -> Path:
    """Folders of classes: Red_Things with 3 pictures, BlueThings with 2, and other with 1."""
    place = tmp_path / "classes"
    for number in range(3):
        png(place / "Red_Things" / f"{number}.png", (200 + number, 0, 0))
    for number in range(2):
        png(place / "BlueThings" / f"{number}.png", (0, 0, 200 + number))
    png(place / "other" / "x.png", "white")
    return place


def test_folders_are_labels_and_truth(run, classes, tmp_path, capsys):
    table, page, matrix = tmp_path / "t.csv", tmp_path / "t.html", tmp_path / "m.png"
    status, found, talk = classify(
        capsys, classes, "--labels-from", classes, "--truth", "folders", "--model", run,
        "--csv", table, "--html", page, "--confusion", matrix,
    )  # fmt: skip
    assert status == 0
    assert [line["truth"]["label"] for line in found] == ["BlueThings"] * 2 + ["Red_Things"] * 3 + ["other"]
    right = sum(line["predictions"][0]["label"] == line["truth"]["label"] for line in found)
    assert f"6 pictures with truth: {100 * right / 6:.1f} % right" in talk
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [line["image"] for line in found]
    for row, line in zip(rows, found, strict=True):
        assert row["label_1"] == line["predictions"][0]["label"] and row["label_3"] and "label_4" not in row
        assert float(row["probability_1"]) == line["predictions"][0]["probability"]
        assert (row["truth"], int(row["truth_rank"])) == (line["truth"]["label"], line["truth"]["rank"])
    text = page.read_text(encoding="utf-8")
    assert text.count("<article") == 6 and text.count("data:image/jpeg") == 6 and "out of 3 labels" in text
    with Image.open(matrix) as picture:
        assert picture.format == "PNG"


def test_names_of_folders_are_said_to_the_model_in_words(run, classes, capsys):
    _, by_folder, _ = classify(capsys, classes, "--labels-from", classes, "--model", run)
    _, by_hand, _ = classify(capsys, classes, "--labels", "blue things", "Red Things", "other", "--model", run)
    for one, two in zip(by_folder, by_hand, strict=True):
        assert [e["probability"] for e in one["predictions"]] == [e["probability"] for e in two["predictions"]]


def test_people_get_the_figures_with_the_results_and_programs_beside_them(run, classes, capsys):
    common = [str(classes), "--labels-from", str(classes), "--truth", "folders", "--model", run]
    assert main(common) == 0
    output = capsys.readouterr()
    assert "6 pictures with truth" in output.out and "6 pictures with truth" not in output.err
    assert main([*common, "--json"]) == 0
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 6 and "6 pictures with truth" in output.err


@pytest.mark.parametrize("how", ["beside the table", "bare names", "absolute", "from here"])
def test_a_table_tells_the_truth_of_its_files(run, classes, tmp_path, capsys, how):
    files = sorted(classes.rglob("*.png"))[:4]
    names = {
        "beside the table": [str(path.relative_to(tmp_path)) for path in files],
        "bare names": [path.name for path in files[:1]] + ["y.png", "z.png", "2.png"],
        "absolute": [str(path) for path in files],
        "from here": [os.path.relpath(path) for path in files],
    }[how]
    place = tmp_path if how == "beside the table" else tmp_path / "elsewhere"
    place.mkdir(exist_ok=True)
    rows = zip(names, ["cat", "DOG", "cat", "pizza"], strict=True)
    (place / "truth.csv").write_text("class,file_name\n" + "".join(f"{label},{name}\n" for name, label in rows))
    status, found, _ = classify(capsys, classes, "--labels", *LABELS, "--truth", place / "truth.csv", "--model", run)
    truths = [line["truth"]["label"] if "truth" in line else None for line in found]
    expected = (
        ["cat", None, "cat", None, "pizza", None] if how == "bare names" else ["cat", "dog", "cat", "pizza", None, None]
    )
    assert status == 0 and truths == expected


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("file,label\n", "has no rows"),
        ("file,what\na.png,cat\n", "has no column label; its columns are file, what"),
        ("what,label\na.png,cat\n", "has no column file"),
        ("file,label\na.png,\n", "line 2 needs a file and a label"),
        ("file,label\na.png,cat\na.png,dog\n", "line 3 says 'a.png' is 'dog', an earlier one 'cat'"),
        ("file,label\na.png,cow\nb.png,horse\n", "none of its labels is one of the 4; the first is 'cow'"),
    ],
)
def test_a_bad_table_of_truth_is_a_sentence(run, pictures, tmp_path, capsys, table, sentence):
    (tmp_path / "truth.csv").write_text(table)
    arguments = [pictures, "--labels", *LABELS, "--truth", tmp_path / "truth.csv", "--model", run]
    assert main([*map(str, arguments)]) == 2
    output = capsys.readouterr()
    assert output.out == "" and sentence in output.err and output.err.count("\n") == 1


def test_folders_that_are_no_labels_are_told_and_judged_by_nothing(run, classes, capsys):
    common = [classes, "--truth", "folders", "--model", run]
    status, found, talk = classify(capsys, *common, "--labels", "other", "cat")
    assert status == 0 and ["truth" in line for line in found] == [False] * 5 + [True]
    assert "5 pictures have no truth" in talk and "'BlueThings', 'Red_Things'" in talk
    status, found, talk = classify(capsys, *common, "--labels", "dog", "cat")
    assert status == 1 and len(found) == 6 and "so nothing could be judged" in talk


def test_no_matrix_without_anything_to_judge(run, classes, tmp_path, capsys):
    arguments = [classes, "--truth", "folders", "--model", run, "--labels", "dog", "cat"]
    status, found, talk = classify(capsys, *arguments, "--confusion", tmp_path / "m.png")
    assert status == 1 and len(found) == 6 and "no matrix can be drawn" in talk and not (tmp_path / "m.png").exists()


def test_a_label_called_folders_is_a_label(run, pictures, capsys):
    _, (line,), _ = classify(
        capsys, pictures / "b.png", "--labels", "folders", "files", "--truth", "folders", "--model", run
    )
    assert line["truth"]["label"] == "folders"


def test_commands_and_presets_load_no_torch():
    code = "import sys, clip, clip.presets, clip.train, clip.classify; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
