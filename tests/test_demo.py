"""The page without a browser: what it answers, what it shows, and what it says where it cannot."""

import base64
import io
import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from apps import answers, demo, markup
from multimodal.cli import UserError
from multimodal.sampling import Sampling

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Image.new("RGB", (40, 30), (200, 30, 30))


@pytest.fixture(scope="module")
def parts(models):
    settings = demo.Demo(gpt=str(models / "gpt"), dalle=str(models / "dalle"), clip=str(models / "clip"))
    return demo.load(settings)


def call(address: str, name: str, *data) -> tuple[str, list]:
    """What an HTTP client gets from the page's API: the last event and its data."""
    body = json.dumps({"data": list(data)}).encode()
    request = urllib.request.Request(f"{address}/gradio_api/call/{name}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        event = json.load(reply)["event_id"]
    with urllib.request.urlopen(f"{address}/gradio_api/call/{name}/{event}", timeout=60) as reply:
        lines = reply.read().decode().strip().splitlines()
    return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))


# what it answers


def test_the_same_seed_writes_the_same_and_another_seed_something_else(parts):
    def text(seed):
        *_, last = answers.written(parts["gpt"].model, "To be", 20, Sampling(), seed)
        return last

    assert text(3) == text(3) != text(4)


def test_a_model_whose_files_are_broken_leaves_a_sentence_and_the_others_work(models, tmp_path, capsys):
    shutil.copytree(models / "gpt", tmp_path / "gpt")
    settings = demo.Demo(gpt=str(tmp_path / "gpt"), dalle=str(models / "dalle"), clip=str(models / "clip"))
    (tmp_path / "gpt" / "tokenizer.json").write_text('{"decoder": {"type": "ByteLevel"}}')
    parts = demo.load(settings)
    assert parts["gpt"].model is None and "tokenizer.json" in parts["gpt"].problem
    assert parts["dalle"].model is not None and parts["clip"].model is not None
    import gpt.model

    def failing(directory, device):
        raise RuntimeError("out of\nmemory")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpt.model, "load", failing)
        assert demo.load(settings)["gpt"].problem.endswith("could not be loaded: out of memory")


def test_an_image_of_any_length_is_refused_before_it_is_decoded():
    with pytest.raises(UserError, match="letters of base64"):
        answers.file_of("A" * (answers.images.MAX_BYTES * 3 // 2 + 1))


def test_a_prompt_longer_than_the_drawer_reads_is_told(parts):
    artist = parts["dalle"].model
    assert answers.unseen_words(artist, "a cat") == ""
    assert f"only the first {artist.model.config.text_length - 1} tokens" in answers.unseen_words(artist, "a cat " * 50)


def test_text_comes_in_pieces_each_longer_than_the_one_before(parts):
    turns = list(answers.written(parts["gpt"].model, "To be", 20, Sampling(), 0))
    assert len(turns) > 5
    assert all(later.startswith(earlier) and later > earlier for earlier, later in zip(turns, turns[1:], strict=False))


def test_drawings_fill_in_row_by_row_and_keep_their_seeds(parts):
    turns = list(answers.drawn(parts["dalle"].model, "a cat", 3, 2, Sampling(), 7))
    assert [done for done, _ in turns] == [0.25, 0.5, 0.75, 1.0]
    assert all([seed for seed, _ in drawings] == [7, 8, 9] for _, drawings in turns)
    *_, (_, alone) = answers.drawn(parts["dalle"].model, "a cat", 1, 2.0, Sampling(), 8)
    assert alone[0][1].tobytes() == turns[-1][1][1][1].tobytes()  # the second drawing, whatever was drawn beside it


def test_a_ranking_names_every_label_once_the_likeliest_first(parts):
    ranked = answers.ranked(parts["clip"].model, PICTURE, ["cat", "dog", "pizza"], ["a {}"])
    assert sorted(label for label, _ in ranked) == ["cat", "dog", "pizza"]
    assert sum(share for _, share in ranked) == pytest.approx(1)
    assert [share for _, share in ranked] == sorted((share for _, share in ranked), reverse=True)


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda p: answers.written(p["gpt"].model, "x" * 20_001, 5, Sampling(), 0), "at most 20,000"),
        (lambda p: answers.written(p["gpt"].model, 5, 5, Sampling(), 0), "must be a text"),
        (lambda p: answers.written(p["gpt"].model, "x", "many", Sampling(), 0), "the length is many"),
        (lambda p: answers.written(p["gpt"].model, "x", float("nan"), Sampling(), 0), "allowed is 1 to 1,000"),
        (lambda p: answers.written(p["gpt"].model, "x", 10**9, Sampling(), 0), "allowed is 1 to 1,000"),
        (lambda p: answers.drawn(p["dalle"].model, "a cat", 10**6, 3, Sampling(), 0), "allowed is 1 to 9"),
        (lambda p: answers.drawn(p["dalle"].model, " ", 1, 3, Sampling(), 0), "empty"),
        (lambda p: answers.ranked(p["clip"].model, PICTURE, ["cat"], []), "2 to 1,000"),
        (lambda p: answers.ranked(p["clip"].model, PICTURE, "cat", []), "lists of texts"),
        (lambda p: answers.ranked(p["clip"].model, PICTURE, ["cat", "dog"], ["a photo"]), "{}"),
    ],
)
def test_what_is_out_of_bounds_gets_a_sentence(parts, ask, words):
    with pytest.raises(UserError, match=words.replace("{", r"\{")):
        list(ask(parts))


# what it shows


def test_words_of_visitors_and_models_are_never_markup():
    rude = '<img src=x onerror="alert(1)">&"'
    for shown in (
        markup.paper(rude, rude, writing=True),
        markup.sheet(rude, [(0, PICTURE)], done=True),
        markup.ranking([(rude, 0.7), ("b", 0.3)], f"{rude} {{}}", rude),
        markup.hint(rude),
        markup.note(rude),
    ):
        assert "<img src=x" not in shown and 'onerror="' not in shown
        assert "&lt;img src=x" in shown or "img-src-x" in shown


def test_the_right_label_is_marked_and_its_rank_told_even_below_the_bars():
    ranked = [(f"label {i}", 0.3 - i / 100) for i in range(10)]
    shown = markup.ranking(ranked, "a {}", "label 8")
    assert "ranked 9 out of 10 labels" in shown
    assert shown.count("✓") == 1 and shown.count("✗") == markup.SHOWN
    assert "✓" not in markup.ranking(ranked, "a {}", None)


def test_only_a_finished_drawing_can_be_downloaded():
    assert "download" not in markup.sheet("a cat", [(5, PICTURE)], done=False)
    done = markup.sheet("a cat?", [(5, PICTURE)], done=True)
    assert 'download="a-cat-5.png"' in done
    raw = base64.b64decode(done.partition("base64,")[2].partition('"')[0])
    assert Image.open(io.BytesIO(raw)).tobytes() == PICTURE.tobytes()


def test_class_names_are_lines_or_parts_between_commas():
    from apps.page import names_in

    assert names_in("cat, dog ,,cat") == ["cat", "dog"]
    assert names_in("a cat, sleeping\na dog\n\n") == ["a cat, sleeping", "a dog"]
    assert names_in(" \n ") == []


def test_the_example_pictures_exist_and_are_attributed():
    from apps.page import HERE, PICTURES, names_in

    attribution = (HERE / "examples" / "ATTRIBUTION.md").read_text(encoding="utf-8")
    files = {path.name for path in (HERE / "examples").glob("*.png")}
    assert files == {file for file, *_ in PICTURES}
    assert all(f"`{file}`" in attribution for file in files)
    assert all(right in names_in(names) and "{}" in template for _, names, right, template in PICTURES)
    assert sum(path.stat().st_size for path in (HERE / "examples").iterdir()) < 100_000


# what it says where it cannot


def test_a_missing_model_leaves_a_sentence_and_the_others_work(models, tmp_path):
    # in a process of its own, with stale settings of gradio as errors: building a page opens event loops
    code = f"""
import json, warnings
from apps import demo
warnings.simplefilter("error", UserWarning)
settings = demo.Demo(gpt={str(tmp_path / "nowhere")!r}, dalle={str(models / "dalle")!r}, clip={str(models / "clip")!r})
parts = demo.load(settings)
from apps.page import build, theme
theme()
print(json.dumps([parts["gpt"].problem, build(parts).get_config_file()]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    problem, config = json.loads(done.stdout)
    assert "--gpt" in problem and "nowhere" in problem
    shown = json.dumps(config)
    assert "Write has no model" in shown
    assert "write-go" not in shown and "draw-go" in shown and "classify-go" in shown
    assert not (ROOT / "apps" / "page.pyi").exists()  # gradio writes one beside a component of one's own


def test_errors_become_sentences_and_surprises_do_not_show_their_insides(capsys):
    import gradio as gr

    from apps.page import spoken

    def asked_too_much():
        yield 1
        raise UserError("the prompt is empty: say what to draw.")

    def broken():
        yield 1
        raise RuntimeError("secret /path")

    with pytest.raises(gr.Error, match="The prompt is empty: say what to draw."):
        list(spoken(asked_too_much)())
    with pytest.raises(gr.Error) as found:
        list(spoken(broken)())
    assert "secret" not in str(found.value)
    assert "secret" in capsys.readouterr().err  # whoever runs the page finds it in the terminal


def test_a_port_in_use_is_said_before_any_model_is_loaded(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert demo.main(["--port", str(taken.getsockname()[1])]) == 2
    said = capsys.readouterr().err
    assert "--port" in said and "loading" not in said


# the running page, by HTTP


def test_the_pages_api_writes_draws_and_classifies(page_url):
    event, (text,) = call(page_url, "write", "To be", 10, 0.8, 0, 0.95, 3)
    assert event == "complete" and text
    event, (drawings,) = call(page_url, "draw", "a cat", 2, 3.0, 1.0, 100, 5)
    assert event == "complete" and [drawing["seed"] for drawing in drawings] == [5, 6]
    assert drawings[0]["image"].startswith("data:image/png;base64,")
    event, (shares,) = call(page_url, "classify", drawings[0]["image"], ["cat", "dog"], ["a {}"])
    assert event == "complete" and set(shares) == {"cat", "dog"} and sum(shares.values()) == pytest.approx(1)


def test_a_file_that_is_no_picture_gets_a_sentence_over_http(page_url):
    for image in ("not base64!", base64.b64encode(b"no picture").decode()):
        event, told = call(page_url, "classify", image, ["cat", "dog"], None)
        assert event == "error"
        assert "base64" in str(told) or "not a picture" in str(told)


def test_the_page_hands_out_no_files_of_the_machine(page_url):
    for path in ("/etc/hostname", str(demo.__file__)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{page_url}/gradio_api/file={path}", timeout=30)
        with refused.value as reply:
            assert reply.code in (403, 404)


def test_prompts_of_a_stranger_are_bounded_before_they_are_made(parts):
    for labels, templates in (
        (["a" * 20_000, "b"], ["{}" * 10_000]),
        ([f"{i}" * 5_000 for i in range(2)], ["{}"] * 5_000),
    ):
        with pytest.raises(UserError, match="too long together"):
            answers.ranked(parts["clip"].model, PICTURE, labels, templates)
