"""Claims about what a language model trains on: tokens of text of any size, and preparing them."""

import gzip
import io
import json
import math
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from gpt import data, train
from gpt import model as gpt
from gpt.presets import PRESETS, TrainGPT
from multimodal.cli import UserError
from multimodal.data import text, tokens
from multimodal.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
WORDS = "the king and queen of hearts was in her house, where all things were; they said: 'Who's there?'".split()


def prose(characters: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    lines = []
    while characters > 0:
        lines.append(" ".join(rng.choices(WORDS, k=rng.randrange(1, 12))) + "\n" * rng.randrange(1, 3))
        characters -= len(lines[-1])
    return "".join(lines)


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return Tokenizer.bpe([prose(20_000)], 400)


def foreign() -> Tokenizer:
    """A tokenizer whose pattern is not GPT-2's: it keeps a line's end with the punctuation before it."""
    pattern = tokenizers.Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
    learned = json.loads(Tokenizer.bpe([prose(20_000), ";\n" * 50], 400).pipeline.to_str())["model"]
    pipeline = tokenizers.Tokenizer(models.BPE(learned["vocab"], [tuple(pair) for pair in learned["merges"]]))
    split = pre_tokenizers.Split(pattern, "isolated")
    pipeline.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    pipeline.decoder = decoders.ByteLevel()
    return Tokenizer(pipeline)


KINDS = {
    "bpe": lambda: Tokenizer.bpe([prose(20_000)], 400),
    "bytes": Tokenizer.bytes,
    "characters": lambda: Tokenizer.characters([prose(1000)]),
    "foreign": foreign,
}

# ---- encoding

BITS = [
    *map(chr, range(34)), "\x7f", "\x85", "\xa0", "\xad", "\u1680", "\u180e", *map(chr, range(0x2000, 0x2010)), "\u2028",
    "\u2029", "\u202f", "\u205f", "\u2060", "\u3000", "\ufeff", "e\u0301", "🧀", "王", "²", "Ⅷ", "é", "ß", "\ufffd",
    "<|endoftext|>", "'s", "'S", "'ll", " the", " in", "king", "1", "23", "!", "...", "  ", "\n\n", "\r\n", " '", "_",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_words_that_are_looked_up_give_the_ids_of_the_text(kind):
    tokenizer, rng = KINDS[kind](), random.Random(0)
    encode, dtype = tokens._encoder(tokenizer), tokens._dtype(tokenizer)
    made = ["".join(rng.choices(BITS, k=rng.randrange(1, 40))) for _ in range(1500)] + ["", prose(70_000)]
    for said, ids in zip(made, encode(made), strict=True):
        assert np.frombuffer(ids, dtype).tolist() == tokenizer.encode(said), repr(said)


def test_only_gpt2s_pattern_and_single_characters_are_taken_apart_at_words():
    assert {kind: tokens._splits_before_space(make().pipeline) for kind, make in KINDS.items()} == {
        "bpe": True, "bytes": True, "characters": True, "foreign": False,
    }  # fmt: skip
    added = Tokenizer.bytes()
    added.pipeline.add_tokens(["a b"])  # no special one: text that spells it becomes it
    assert not tokens._splits_before_space(added.pipeline)


def test_words_that_were_forgotten_are_learned_again(bpe, monkeypatch):
    monkeypatch.setattr(tokens, "REMEMBERED", 30)
    encode = tokens._encoder(bpe)
    for seed in range(20):
        said = prose(300, seed % 5)
        assert np.frombuffer(encode([said])[0], "<u2").tolist() == bpe.encode(said)


def test_a_text_in_parts_gives_the_tokens_of_the_whole(bpe, tmp_path):
    whole, rng = prose(1_300_000) + "x" * 1_200_000 + prose(100_000), random.Random(1)
    cuts = sorted(rng.sample(range(len(whole)), 20))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    file = tokens.write(tmp_path / "a", [iter(parts), iter([]), "end"], bpe)
    assert file.documents == 3 and file.text_bytes == len(whole) + 3
    assert np.array_equal(file.ids, [bpe.end, *bpe.encode(whole), bpe.end, bpe.end, *bpe.encode("end")])


def test_text_that_spells_special_tokens_or_holds_half_characters_stays_text(bpe, tmp_path):
    said = ["a<|endoftext|>b", "half \ud83d of a pair"]
    file = tokens.write(tmp_path / "a", said, bpe)
    assert file.ids[:].tolist().count(bpe.end) == file.documents == 2
    assert bpe.decode(file.ids[:].tolist()) == "a<|endoftext|>bhalf ? of a pair"
    assert file.text_bytes == len("a<|endoftext|>bhalf ? of a pair")


# ---- several files as one


@pytest.fixture
def small(monkeypatch):
    """Files of few tokens, made of small pieces."""
    monkeypatch.setattr(tokens, "SHARD", 2000)
    monkeypatch.setattr(tokens, "BATCH", 700)


DOCUMENTS = [prose(random.Random(i).randrange(900), i) for i in range(60)]


def test_a_long_text_fills_several_files_that_are_read_as_one(bpe, tmp_path, small):
    told = []
    many = tokens.write(tmp_path / "many", DOCUMENTS, bpe, tell=told.append)
    tokens.SHARD = 10**9
    one = tokens.write(tmp_path / "one", DOCUMENTS, bpe)
    files = sorted(tmp_path.glob("many*"))
    assert [file.name for file in files] == ["many", *(f"many.{i:05}" for i in range(1, len(files)))] and len(files) > 3
    assert isinstance(one.ids, np.memmap) and np.array_equal(many.ids[:], one.ids)
    assert (many.documents, many.text_bytes) == (one.documents, one.text_bytes) == (60, sum(map(len, DOCUMENTS)))
    assert sum(told) == one.text_bytes
    each = [tokens.read(file) for file in files[1:]]  # each is a token file by itself
    assert all(2000 <= len(file.ids) < 2600 for file in each[:-1])
    for begin, end in ((0, 1), (0, 0), (1999, 2001), (10, 9000), (5000, 10**9), (-50, None), (len(one.ids), None)):
        assert np.array_equal(many.ids[begin:end], one.ids[begin:end])


def test_batches_over_several_files_are_those_over_one(bpe, tmp_path, small):
    many = tokens.write(tmp_path / "many", DOCUMENTS, bpe)
    tokens.SHARD = 10**9
    one, other = tokens.write(tmp_path / "one", DOCUMENTS, bpe), tokens.write(tmp_path / "other", ["short"], bpe)
    of_many, of_one = (tokens.batches([file, other], [0.7, 0.3], 8, 32, seed=3) for file in (many, one))
    for index in (0, 1, 7, 50, 200):  # the first epoch, and later ones that begin elsewhere
        assert torch.equal(of_many(index)["tokens"], of_one(index)["tokens"])
    assert torch.equal(of_many(1)["tokens"], of_one(1)["tokens"]), "a batch depends on what was asked before"


def test_a_missing_and_a_damaged_file_among_several_get_a_sentence(bpe, tmp_path, small):
    tokens.write(tmp_path / "a", DOCUMENTS, bpe)
    second = tmp_path / "a.00002"
    whole = second.read_bytes()
    second.write_bytes(whole[:-2])
    with pytest.raises(UserError, match=r"a\.00002 could not be read as a token file"):
        tokens.read(tmp_path / "a")
    second.unlink()
    with pytest.raises(UserError, match="missing"):
        tokens.read(tmp_path / "a")


def test_a_shorter_text_leaves_nothing_of_a_longer_one(bpe, tmp_path, small):
    tokens.write(tmp_path / "a", DOCUMENTS, bpe)
    (tmp_path / ".a.00001.7.part").write_bytes(b"what a killed process left")
    assert tokens.write(tmp_path / "a", ["short"], bpe).documents == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert len(tokens.write(tmp_path / "none", [], bpe).ids) == 0


@pytest.mark.parametrize("kept", [0, 1, 3, 100])
def test_writing_goes_on_after_the_whole_files(bpe, tmp_path, small, kept):
    documents = ["", *DOCUMENTS, "", ""]
    whole = tokens.write(tmp_path / "whole", documents, bpe)
    tokens.write(tmp_path / "a", documents, bpe)
    files = sorted(tmp_path.glob("a*"))
    for late in files[kept:]:
        late.unlink()
    before = {file: file.stat().st_mtime_ns for file in files[:kept]}
    told = []
    again = tokens.write(tmp_path / "a", documents, bpe, resume=True, tell=told.append)
    assert np.array_equal(again.ids[:], whole.ids[:]) and again.documents == whole.documents
    assert sorted(tmp_path.glob("a*")) == files and sum(told) == whole.text_bytes
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_writing_does_not_go_on_with_another_text(bpe, tmp_path, small):
    tokens.write(tmp_path / "a", DOCUMENTS, bpe)
    sorted(tmp_path.glob("a*"))[-1].unlink()
    with pytest.raises(UserError, match="another text"):
        tokens.write(tmp_path / "a", DOCUMENTS[::-1], bpe, resume=True)
    with pytest.raises(UserError, match="another text"):
        tokens.write(tmp_path / "a", DOCUMENTS[:20], bpe, resume=True)


# ---- preparing a run


def settings(out: Path, *paths: Path | str, **changes) -> TrainGPT:
    return replace(PRESETS["tiny"][1], data=tuple(map(Path, paths)), out=out, **changes)


def rows(path: Path, documents) -> Path:
    path.write_text("".join(json.dumps({"text": said}) + "\n" for said in documents))
    return path


def content(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


KILLED = """
import os, signal, sys
from pathlib import Path
from gpt import data
from multimodal.data import tokens
import test_tokens

tokens.SHARD = 2000
source, run, kind, left = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
real = os.replace

def replace(aside, path):
    global left
    if ".tokens" in Path(path).name:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    real(aside, path)

os.replace = replace
data.prepare(test_tokens.settings(Path(run), source, tokenizer=kind), {"text": 1.0})
"""


@pytest.mark.parametrize("kind, left", [("bpe", 2), ("characters", 7)])
def test_a_preparation_that_is_killed_goes_on_after_the_last_whole_file(tmp_path, monkeypatch, capsys, kind, left):
    source, run, whole = rows(tmp_path / "a.jsonl", DOCUMENTS), tmp_path / "run", tmp_path / "whole"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(source), str(run), kind, str(left)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    monkeypatch.setattr(tokens, "SHARD", 2000)
    before = {path: path.stat().st_mtime_ns for path in (run / "tokens").glob("[!.]*.tokens*")}
    learned = (run / "tokenizer.json").stat().st_mtime_ns
    assert len(before) == left and len(list((run / "tokens").glob(".*.part"))) == 1
    data.prepare(settings(run, source, tokenizer=kind), {"text": 1.0})
    assert f"{left} token files of the same text are there, and stay" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (run / "tokenizer.json").stat().st_mtime_ns == learned
    data.prepare(settings(whole, source, tokenizer=kind), {"text": 1.0})
    assert content(run) == content(whole) and len(content(run)) > left + 4


def test_another_text_or_another_tokenizer_is_prepared_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "SHARD", 2000)
    source, run = rows(tmp_path / "a.jsonl", DOCUMENTS), tmp_path / "run"
    changes = [{}, {"tokenizer": "characters"}, {"tokenizer": "bytes"}, {"tokenizer": str(tmp_path / "given.json")}]
    Tokenizer.bpe([prose(3000)], 300).save(tmp_path / "given.json")
    for change in changes:
        data.prepare(settings(run, source, **change), {"text": 1.0})
        data.prepare(settings(tmp_path / "fresh", source, **change), {"text": 1.0})
        assert content(run) == content(tmp_path / "fresh")
    rows(source, DOCUMENTS[:9])
    data.prepare(settings(run, source), {"text": 1.0})
    data.prepare(settings(tmp_path / "short", source), {"text": 1.0})
    assert content(run) == content(tmp_path / "short")


def test_a_tokenizer_learns_from_pieces_of_the_whole_and_no_more_than_asked(monkeypatch, capsys):
    documents = [text.Document(f"{i}", (f"word{i} " * 9000,)) for i in range(30)]  # about 2,000,000 characters
    half = text.Half.of(documents)
    whole = list(data._sample(half, half.characters, False))
    assert "".join(whole) == "".join(document.text for document in documents)
    spread = list(data._sample(half, 500_000, True))
    assert abs(sum(map(len, spread)) - 500_000) < 100_000
    numbers = [int(piece.split()[1][4:]) for piece in spread]
    assert numbers[0] < 4 and numbers[-1] > 26 and max(np.diff(numbers)) < 6
    monkeypatch.setattr(data, "SAMPLE", 100_000)
    data.make_tokenizer(settings(Path("run")), {"text": half}, {"text": 1.0})
    assert f"learned from 100,000 of the {half.characters:,} characters" in capsys.readouterr().err


def test_default_texts_are_learned_from_in_their_shares_from_the_beginning():
    halves = {name: text.Half.of([text.Document(name, (name * 1000,))]) for name in "ab"}
    assert list(data._sample(halves["a"], 300, False)) == ["a" * 300]


def test_letters_without_end_do_not_take_time_without_end():
    documents = [text.Document("", ("x" * 3_000_000 + " and words\n",))]
    pieces = list(data._sample(text.Half.of(documents), 3_000_011, False))
    assert max(map(len, pieces)) <= data.LONGEST and "".join(pieces) == documents[0].text
    assert Tokenizer.bpe(pieces, 300).vocab_size <= 300  # in one piece it takes hours


MEMORY = """
import sys
from pathlib import Path
import torch
from gpt import data
import test_tokens

def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

for name in ("little.txt", "much.txt"):  # the first takes what is taken once
    open("/proc/self/clear_refs", "w").write("5")
    before = kilobytes("VmHWM")
    folder = Path(sys.argv[1])
    data.prepare(test_tokens.settings(folder / name[:4], folder / name, tokenizer="bytes"), {"text": 1.0})
print(kilobytes("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read as Linux tells it")
def test_a_large_file_is_prepared_in_little_memory(tmp_path):
    line = "a line of words that come again and again\n"
    (tmp_path / "little.txt").write_text(line * 50_000)
    (tmp_path / "much.txt").write_text(line * 1_200_000)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1000 < len(line) * 1_200_000, "more than the file"


# ---- the command

SHORT = ["--train.steps", "3", "--train.evaluate-every", "3", "--context", "32", "--device", "cpu"]


@pytest.fixture(autouse=True)
def few_windows(monkeypatch):
    monkeypatch.setattr(train, "FINAL", 20)
    monkeypatch.setattr(train, "PERIODIC", 5)


def run_train(run: Path, *arguments: str) -> int:
    return train.main(["tiny", "--out", str(run), *SHORT, *arguments])


def standard_input(monkeypatch, said: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said)))


@pytest.mark.parametrize("kind", ["folder", "rows", "gzip", "stdin", "line"])
def test_training_takes_text_of_every_kind(tmp_path, monkeypatch, capsys, kind):
    source, packed, whole = tmp_path / "source", tmp_path / "a.txt.gz", prose(30_000)
    packed.write_bytes(gzip.compress(whole.encode()))
    source.mkdir()
    (source / "good.txt").write_text(whole)
    (source / "windows.txt").write_bytes("Größe und Güte\n".encode("cp1252"))
    (source / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    (source / "empty.txt").write_text("")
    (tmp_path / "line.txt").write_text("word " * 600_000)
    standard_input(monkeypatch, whole.encode())
    paths = {"folder": source, "rows": rows(tmp_path / "a.jsonl", DOCUMENTS), "gzip": packed, "stdin": "-"}
    path = paths.get(kind, tmp_path / "line.txt")
    assert run_train(tmp_path / "run", "--data", str(path)) == 0
    out, err = capsys.readouterr()
    assert math.isfinite(json.loads(out)["val_bpb"])
    assert not list((tmp_path / "run").glob("*.spool"))
    sizes = {"folder": 2, "rows": 60}
    assert sum(tokens.read(file).documents for file in (tmp_path / "run" / "tokens").glob("*.tokens")) == sizes.get(
        kind, 2
    )
    if kind == "folder":
        assert "picture.png: it is not text: it holds zero bytes" in err and "empty.txt: it is empty" in err
        assert "windows.txt: it is not UTF-8, and read as Windows-1252" in err


def test_training_from_several_token_files_is_resumed_without_the_text(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tokens, "SHARD", 2000)
    source = rows(tmp_path / "a.jsonl", DOCUMENTS)
    assert run_train(tmp_path / "run", "--data", str(source)) == 0
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "tokens").iterdir()}
    assert len(made) > 5
    source.unlink()
    assert run_train(tmp_path / "run", "--data", str(source), "--resume", "--train.steps", "5") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 5
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "tokens").iterdir()} == made


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_bits_per_byte_are_the_nats_of_the_held_out_end_over_its_bytes(tmp_path, capsys, kind):
    whole = prose(1500) + "Größe – “so” 🧀\n" * 3
    (tmp_path / "a.txt").write_text(whole)
    arguments = ["--data", str(tmp_path / "a.txt"), "--tokenizer", kind, "--context", "256"]
    assert run_train(tmp_path / "run", *arguments) == 0
    told = json.loads(capsys.readouterr().out)
    network, tokenizer = gpt.load(tmp_path / "run", "cpu")
    at = whole.index("\n", len(whole) * 9 // 10) + 1  # after the line in which the last tenth begins
    held = whole[at:]
    ids = torch.tensor([[tokenizer.end, *tokenizer.encode(held)]])
    assert ids.shape[1] <= 257
    logprobs = network(ids[:, :-1]).log_softmax(-1).gather(-1, ids[:, 1:, None])
    nats = -logprobs.double().sum().item()
    assert told["val_bpb"] == pytest.approx(nats / math.log(2) / len(held.encode()), rel=1e-4)
    assert told["val_loss"] == pytest.approx(nats / (ids.shape[1] - 1), rel=1e-4)


BAD = {
    "one character": (b"a", "the text has 1 character; at least 10 are needed"),
    "nine characters": (b"123456789", "the text has 9 characters; at least 10"),
    "empty": (b"", "no text could be read there"),
    "binary": (bytes(range(256)), "no text could be read there"),
    "UTF-16": ("some text of two bytes a letter".encode("utf-16"), "no text could be read there"),
}


@pytest.mark.parametrize("kind", BAD)
def test_text_that_is_none_or_too_short_gets_a_sentence_and_status_2(tmp_path, capsys, kind):
    said, sentence = BAD[kind]
    (tmp_path / "a.txt").write_bytes(said)
    assert run_train(tmp_path / "run", "--data", str(tmp_path / "a.txt")) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence in last and str(tmp_path / "a.txt") in last and last.startswith("gpt.train: ")


def test_ten_characters_are_enough(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("0123456789")
    assert run_train(tmp_path / "run", "--data", str(tmp_path / "a.txt"), "--tokenizer", "characters") == 0


def test_a_tokenizer_that_is_not_there_is_missed_before_the_text_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("multimodal.data.textfiles.survey", lambda *_: pytest.fail("the text was read"))
    (tmp_path / "a.txt").write_text(prose(100))
    assert run_train(tmp_path / "run", "--data", str(tmp_path / "a.txt"), "--tokenizer", "no.json") == 2
    assert "--tokenizer no.json" in capsys.readouterr().err


def test_of_many_files_that_are_not_used_some_are_named_and_the_others_counted(tmp_path, capsys):
    for i in range(50):
        (tmp_path / f"{i:02}.png").write_bytes(b"\0" if i % 2 else b"")
    (tmp_path / "a.txt").write_text(prose(500))
    data.read_texts(settings(tmp_path / "run", tmp_path), {"text": 1.0})
    said = [line for line in capsys.readouterr().err.splitlines() if "not used" in line]
    assert len(said) == data.NAMED + 1
    assert "30 more" in said[-1] and "it is empty (15)" in said[-1] and "zero bytes (15)" in said[-1]
