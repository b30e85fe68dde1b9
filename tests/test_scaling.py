"""Claims about several sizes trained by one command."""

import json

import pytest

from gpt import scaling
from multimodal.images import read

pytest.importorskip("matplotlib", reason="the picture needs matplotlib (the extra bench)")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("texts")
    for i in range(40):
        (folder / f"{i}.txt").write_text(f"The {i}. letter: dear friend, all is well with {i + 3} sheep.\n" * 20)
    out = str(tmp_path_factory.mktemp("runs") / "scaling")
    settings = ["--train.batch-size", "4", "--train.evaluate-every", "4", "--vocabulary", "300", "--context", "32"]
    return ["--data", str(folder), "--out", out, "--tokens", "1024", "--device", "cpu", *settings]


def test_every_size_is_a_run_on_the_same_tokens_and_the_picture_shows_them(arguments, capsys):
    assert scaling.main([*arguments, "--widths", "64", "32", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["width"] for row in rows] == [32, 64]
    assert rows[0]["parameters"] < rows[1]["parameters"] and rows[0]["flops"] < rows[1]["flops"]
    out = scaling.Path(arguments[3])
    for row in rows:
        lines = [
            json.loads(line) for line in (out / f"width-{row['width']}" / "metrics.jsonl").read_text().splitlines()
        ]
        assert lines[-1]["step"] == 1024 // (4 * 32) and lines[-1]["val_loss"] == row["val_loss"]
        assert (out / f"width-{row['width']}" / "model.safetensors").is_file()
    assert read(out / "scaling.png").size[0] > 600
    assert len((out / "scaling.jsonl").read_text().splitlines()) == 2
    # what is finished stays, and another size comes beside it
    before = (out / "width-32" / "state" / "last.pt").stat().st_mtime_ns
    assert scaling.main([*arguments, "--widths", "32", "96", "--resume"]) == 0
    table = capsys.readouterr().out
    assert "96" in table and "loss = " in table and table.rstrip().endswith("scaling.png")
    assert (out / "width-32" / "state" / "last.pt").stat().st_mtime_ns == before


def test_a_power_law_is_found_where_there_is_one(tmp_path):
    rows = [
        {"parameters": n, "val_loss": 8 * n**-0.05, "curve": [(n, 3.0), (2 * n, 2.0)]} for n in (10**5, 10**6, 10**7)
    ]
    assert scaling.plot(rows, tmp_path / "picture.png") == "loss = 8 * parameters^-0.050"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--widths", "50"], "--widths 50: give multiples of 32"),
        (["--widths"], "give multiples of 32"),
        (["--tokens", "5"], "--tokens 5 are less than one step's"),
    ],
)
def test_impossible_sizes_get_a_sentence(arguments, more, sentence, capsys):
    assert scaling.main([*arguments, *more]) == 2
    assert sentence in capsys.readouterr().err
