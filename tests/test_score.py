"""Claims about scoring text: the command's figures are the model's own, and whatever comes as a text gets an answer."""

import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt import model as gpt
from gpt import score as command
from gpt.presets import GPTConfig
from gpt.scoring import continuations, encode_pair
from gpt.scoring import score as judge
from multimodal.cli import UserError
from multimodal.config import modern
from multimodal.tokenizer import Tokenizer

TEXT = "To be, or not to be, that is the question. In the beginning God created the heaven and the earth. "

TEXTS = ("To be, or not to be", "In the beginning", "naïve 😀", "a<|endoftext|>b", "x", " \n\t ")


@pytest.fixture(scope="module")
def directory(models) -> Path:
    return models / "gpt"


@pytest.fixture(scope="module")
def loaded(directory):
    return gpt.load(directory, "cpu")


@pytest.fixture
def run(directory, capsys):
    """The command on the tiny model: (exit status, stdout, stderr)."""

    def call(*arguments: str):
        status = command.main([*arguments, "--model", str(directory), "--device", "cpu"])
        return status, *capsys.readouterr()

    return call


def texts(*some: str) -> list[str]:
    return [part for text in some for part in ("--text", text)]


def test_every_tokens_probability_is_the_models_given_those_before_it(run, loaded):
    model, tokenizer = loaded
    status, out, _ = run("--json", *texts(*TEXTS))
    records = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [record["source"] for record in records] == list(TEXTS)
    for text, record in zip(TEXTS, records, strict=True):
        assert set(record) == {"source", "tokens", "token_logprobs", "logprob", "perplexity", "bits_per_byte"}
        ids = tokenizer.encode(text)
        assert record["tokens"] == [tokenizer.show(i) for i in ids]
        seen = torch.tensor([[tokenizer.end, *ids]])
        wanted = model(seen)[0, :-1].log_softmax(-1).gather(1, seen[0, 1:, None])[:, 0].tolist()
        assert record["token_logprobs"] == pytest.approx(wanted, abs=1e-4)
        assert record["logprob"] == pytest.approx(sum(wanted), abs=1e-3)
        assert record["perplexity"] == pytest.approx(math.exp(-sum(wanted) / len(wanted)), rel=1e-4)
        assert record["bits_per_byte"] == pytest.approx(-sum(wanted) / math.log(2) / len(text.encode()), rel=1e-4)


def test_text_that_spells_the_end_of_a_document_is_text(run, loaded):
    _, out, _ = run("--json", "--text", "a<|endoftext|>b")
    record = json.loads(out)
    assert "".join(record["tokens"]) == "a<|endoftext|>b" and len(record["tokens"]) > 3


def test_a_file_longer_than_the_context_scores_as_training_judges_it(run, loaded, tmp_path):
    model, tokenizer = loaded
    text = "To be, or not to be, that is the question.\nIn the beginning God created the heaven. " * 30
    (tmp_path / "long.txt").write_text(text)
    _, out, _ = run("--json", str(tmp_path / "long.txt"))
    record = json.loads(out)
    ids = [tokenizer.end, *tokenizer.encode(text)]
    assert len(ids) > 5 * model.config.context
    assert "".join(record["tokens"]) == text
    assert record["bits_per_byte"] == pytest.approx(judge(model, tokenizer, np.array(ids))["bpb"], rel=1e-5)
    (wanted,) = continuations(model, tokenizer.end, [([], ids[1:])])
    assert record["token_logprobs"] == pytest.approx(wanted.logprobs, abs=1e-4)


@pytest.mark.parametrize("repeats", [1, 4, 20])  # the text takes little of the context, most, or more than all
@pytest.mark.parametrize("context", ["In the", "In the ", "In the beginning God " * 40])
def test_a_context_is_read_and_not_counted(context, repeats, run, loaded):
    model, tokenizer = loaded
    text = "heaven and the earth " * repeats
    _, out, _ = run("--json", "--context", context, "--text", text)
    record = json.loads(out)
    (wanted,) = continuations(model, tokenizer.end, [encode_pair(tokenizer, context, text)])
    assert record["token_logprobs"] == pytest.approx(wanted.logprobs, abs=1e-4)
    (without,) = continuations(model, tokenizer.end, [([], wanted.tokens)])
    assert abs(wanted.logprobs[0] - without.logprobs[0]) > 0.01
    assert "".join(record["tokens"]) == " " * context.endswith(" ") + text


def test_no_letter_is_lost_where_a_token_lies_across_the_end_of_the_context():
    tokenizer = Tokenizer.bpe(["hello hello hello"], 262)
    assert len(tokenizer.encode("hello")) < len(tokenizer.encode("he")) + len(tokenizer.encode("llo"))
    before, after = command.encode(tokenizer, "he", "llo you")
    assert (tokenizer.decode(before), tokenizer.decode(after)) == ("he", "llo you")


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(run, tmp_path):
    (tmp_path / "plain.txt").write_bytes("één\ntwee\n".encode())
    (tmp_path / "windows.txt").write_bytes("\ufefféén\r\ntwee\r\n".encode())
    _, out, _ = run("--json", str(tmp_path / "plain.txt"), str(tmp_path / "windows.txt"))
    plain, windows = (json.loads(line) for line in out.splitlines())
    assert plain["token_logprobs"] == windows["token_logprobs"] and plain["bits_per_byte"] == windows["bits_per_byte"]


def test_standard_input_is_a_file_named_by_a_dash(run, monkeypatch):
    _, expected, _ = run("--json", "--text", "In the beginning\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"In the beginning\n")))
    status, out, _ = run("--json", "-")
    assert status == 0
    assert json.loads(out) == {**json.loads(expected), "source": "-"}


BAD = {
    "missing.txt": (None, "No such file"),
    "empty.txt": (b"", "is empty"),
    "latin1.txt": ("café".encode("latin-1"), "not text in UTF-8: byte 4 is 0xe9"),
    "binary.bin": (bytes(range(128, 256)), "not text in UTF-8"),
    "utf16.txt": ("ab".encode("utf-16-le"), "zero bytes"),
    "large.txt": (b"x" * 1001, "more than 1,000 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_read_is_named_and_the_others_still_come(name, run, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "MAX_BYTES", 1000)
    data, sentence = BAD[name]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    (tmp_path / "good.txt").write_text("In the beginning")
    files = [str(tmp_path / name), str(tmp_path / "good.txt")]
    status, out, err = run(*files, "--show", "totals")
    assert status == 1
    assert len(err.splitlines()) == 1 and name in err and sentence in err
    assert out.count("\n") == 1 and out.startswith(files[1])
    status, out, _ = run("--json", *files)
    bad, good = (json.loads(line) for line in out.splitlines())
    assert status == 1
    assert set(bad) == {"source", "error"} and bad["source"] == files[0] and sentence in bad["error"]
    assert good["source"] == files[1] and good["tokens"]


def test_a_folder_and_an_empty_text_get_a_sentence(run, tmp_path):
    status, out, err = run(str(tmp_path), *texts("", "a"), "--show", "totals")
    assert status == 1
    assert "Is a directory" in err and "--text is empty" in err and out.startswith("'a': ")


def test_a_long_line_is_shown_while_it_is_scored(loaded, monkeypatch):
    import gpt.scoring

    model, tokenizer = loaded
    line = tokenizer.encode("To be, or not to be, that is the question. " * 2500)
    passes = []
    original = gpt.scoring.judged

    def counted(model, spans):
        passes.append(len(spans))
        return original(model, spans)

    monkeypatch.setattr(gpt.scoring, "judged", counted)
    rows = command.scored(model, [tokenizer.end], line)
    first = next(rows)
    assert first[0] == line[0] and passes == [command.TOGETHER]
    assert [token for token, _, _ in rows] == line[1:]
    assert len(passes) > 3 and max(passes) == command.TOGETHER


def test_the_table_has_a_line_for_every_token_and_marks_the_likeliest(run, loaded):
    model, tokenizer = loaded
    best = [tokenizer.end]  # what the model writes by itself, which no other token is likelier than
    for _ in range(6):
        best.append(int(model(torch.tensor([best]))[0, -1].argmax()))
    rows = command.scored(model, best[:1], [*best[1:], tokenizer.encode("z")[0]])
    lines = list(command.listed(tokenizer, rows))[1:]
    assert len(lines) == 7
    assert ["*" in line[:40] for line in lines] == [True] * 6 + [False]
    _, out, _ = run(*texts("be\x1b[2J", "To be"))
    assert "\x1b" not in out and "perplexity" in out and "all 2: " in out


@pytest.mark.parametrize("text", ["To be, or not\n\nto be\n", "naïve 😀 end", "tab\tand   spaces"])
def test_colours_leave_the_text_as_it_is(text, run):
    _, out, err = run("--show", "colours", "--text", text)
    shown = out.rsplit("\n", 2)[0]  # without the totals
    assert re.sub(r"\x1b\[[\d;]*m", "", shown).replace("↵", "") == text
    assert err.count("\x1b[0m") == len(command.SHADES)  # the legend


def test_a_terminal_is_not_moved_by_what_is_scored(run):
    _, out, _ = run("--show", "colours", "--text", "a\x1b[2Jb\rc\x07\u202ed")
    assert set(re.findall(r"\x1b\[[^m]*m", out)) <= {"\x1b[0m", *(f"\x1b[38;5;16;48;5;{s}m" for _, s in command.SHADES)}
    assert not set("\r\x07\u202e") & set(out)
    assert out.count("\x1b") == len(re.findall(r"\x1b\[[\d;]+m", out))


def test_a_token_more_probable_has_a_greener_shade():
    tokenizer = Tokenizer.bytes()
    rows = [(tokenizer.encode("a")[0], math.log(p), False) for p in (0.9, 0.2, 0.05, 0.005, 1e-9)]
    shades = [
        int(re.search(r"48;5;(\d+)m", piece)[1]) for piece in command.coloured(tokenizer, iter(rows)) if "a" in piece
    ]
    assert shades == [shade for _, shade in command.SHADES]


def test_totals_leave_the_tokens_out_and_add_up(run):
    _, out, _ = run(*texts("To be", "or not"), "--show", "totals", "--json")
    each = [json.loads(line) for line in out.splitlines()]
    assert all(set(record) == {"source", "logprob", "perplexity", "bits_per_byte"} for record in each)
    _, out, _ = run(*texts("To be", "or not"), "--show", "totals")
    assert len(out.splitlines()) == 3
    together = float(re.search(r"^all 2: .*log-probability (-[\d.]+)", out, re.MULTILINE)[1])
    assert together == pytest.approx(sum(record["logprob"] for record in each), abs=0.01)


def test_more_tokens_than_a_record_may_list_get_a_sentence(run, monkeypatch):
    monkeypatch.setattr(command, "MAX_LISTED", 3)
    status, out, _ = run("--json", "--text", "In the beginning, one two three")
    assert status == 1 and "--show totals" in json.loads(out)["error"]
    assert run("--json", "--show", "totals", "--text", "In the beginning, one two three")[0] == 0


def test_characters_that_the_tokenizer_lacks_are_told(tmp_path, capsys):
    tokenizer = Tokenizer.characters(["abc "])
    gpt.save(gpt.GPT(GPTConfig(tokenizer.vocab_size, 16, modern(32, 1, 2))), tokenizer, tmp_path)
    arguments = ["--model", str(tmp_path), "--device", "cpu", "--show", "totals"]
    assert command.main([*arguments, "--text", "a bäd cäb"]) == 0
    assert "3 characters are unknown" in capsys.readouterr().err
    assert command.main([*arguments, "--text", "a bac"]) == 0
    assert capsys.readouterr().err == ""


def test_a_name_that_no_file_can_have_gets_a_sentence():
    with pytest.raises(UserError, match="could not be read"):
        command.read("a\0b")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nothing to score"),
        (["--text", "a", "--model", "no-such-model"], "no-such-model"),
        (["--text", "a", "--device", "abacus"], "abacus"),
    ],
)
def test_wrong_use_gets_a_sentence_and_status_2(arguments, sentence, directory, capsys):
    given = [] if "--model" in arguments else ["--model", str(directory)]
    assert command.main([*arguments, *given]) == 2
    out, err = capsys.readouterr()
    assert out == "" and sentence in err and len(err.strip().splitlines()) == 1
