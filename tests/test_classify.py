"""Claims about `clip.classify`: the contract that scripts rely on, and a sentence for everything that is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from clip import model
from clip.classify import main
from clip.presets import CLIPConfig
from multimodal.config import modern
from multimodal.tokenizer import Tokenizer

LABELS = ["cat", "dog", "a red square", "pizza"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    """A small model that was never trained: its words mean nothing, its contract is that of any other."""
    torch.manual_seed(0)
    image, text = modern(32, 1, 2, causal=False, rotary_axes=2), modern(32, 1, 2)
    clip = model.CLIP(CLIPConfig(image, text, size=16, patch=4, vocabulary=257, context=32, embedding=16))
    for parameter in clip.parameters():  # blocks begin as the identity, by which all captions look alike
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    place = tmp_path_factory.mktemp("run")
    model.save(place, clip, Tokenizer.bytes())
    return str(place)


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
        assert set(line) == ({"image", "error"} if "error" in line else {"image", "predictions"})
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
    ],
)
def test_wrong_use_is_one_sentence_and_status_2(run, pictures, capsys, arguments, word):
    model_of_ours = [] if "--model" in arguments else ["--model", run]
    assert main([str(pictures / "b.png"), *arguments, *model_of_ours]) == 2
    output = capsys.readouterr()
    assert output.out == "" and word in output.err and output.err.count("\n") == 1


def test_without_pictures_it_asks_for_some(run, capsys):
    assert main(["--labels", "cat", "dog", "--model", run]) == 2
    assert "no picture was given" in capsys.readouterr().err


def test_commands_and_presets_load_no_torch():
    code = "import sys, clip, clip.presets, clip.train, clip.classify; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
