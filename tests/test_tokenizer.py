"""Claims about tokenizers and token files: nothing of a text is lost, in a piece or in a stream."""

import json

import numpy as np
import pytest

from multimodal.cli import UserError
from multimodal.data import tokens
from multimodal.tokenizer import MAX_FILE_BYTES, Tokenizer, pieces

TEXT = "héllo 😀\n\tx"
KINDS = {
    "bpe": lambda: Tokenizer.bpe([TEXT * 5, "hello there, hello world. " * 20], 300),
    "characters": lambda: Tokenizer.characters([TEXT]),
    "bytes": Tokenizer.bytes,
}
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_a_text_comes_back_whole(kind):
    tokenizer = KINDS[kind]()
    ids = tokenizer.encode(TEXT)
    assert tokenizer.decode(ids) == TEXT
    assert all(0 < i < tokenizer.vocab_size for i in ids)


@kinds
def test_a_stream_shows_whole_characters_only_and_equals_decode(kind):
    tokenizer = KINDS[kind]()
    ids = tokenizer.encode(TEXT + "😀é")
    stream = tokenizer.stream()
    shown = [stream.push(i) for i in ids]
    assert "\ufffd" not in "".join(shown)
    assert "".join(shown) + stream.flush() == tokenizer.decode(ids) == TEXT + "😀é"


@pytest.mark.parametrize("kind", ["bpe", "bytes"])
def test_a_stream_of_arbitrary_tokens_equals_decode(kind):
    tokenizer = KINDS[kind]()
    for seed in range(20):
        ids = np.random.default_rng(seed).integers(tokenizer.vocab_size, size=50).tolist()
        stream = tokenizer.stream()
        assert "".join(stream.push(i) for i in ids) + stream.flush() == tokenizer.decode(ids)


@kinds
def test_a_saved_tokenizer_is_the_same(kind, tmp_path):
    tokenizer = KINDS[kind]()
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT)
    assert loaded.vocab_size == tokenizer.vocab_size
    assert loaded.token_bytes == tokenizer.token_bytes


@kinds
def test_text_that_spells_the_end_of_a_document_does_not_end_it(kind):
    tokenizer = KINDS[kind]()
    assert tokenizer.end == 0
    assert 0 not in tokenizer.encode("a<|endoftext|>b")


def test_bpe_and_bytes_hold_any_text_and_characters_show_what_they_do_not_know():
    other = "Ünïcode ÿ 漢字 <|endoftext|>\r\n\x00"
    assert KINDS["bpe"]().decode(KINDS["bpe"]().encode(other)) == other
    assert KINDS["bytes"]().decode(KINDS["bytes"]().encode(other)) == other
    assert KINDS["characters"]().decode(KINDS["characters"]().encode("h漢x")) == "h\ufffdx"


def test_a_byte_is_its_id_less_one():
    assert Tokenizer.bytes().encode("hé") == [ord("h") + 1, 0xC3 + 1, 0xA9 + 1]


def test_half_a_surrogate_pair_is_replaced_not_fatal():
    assert Tokenizer.bytes().decode(Tokenizer.bytes().encode("a\ud800b")) == "a?b"


def test_bpe_makes_frequent_words_one_token():
    tokenizer = KINDS["bpe"]()
    assert len(tokenizer.encode(" hello hello")) == 2


def test_pieces_of_a_long_text_encode_as_the_whole():
    text = "Line one  \n\n  and\ttwo\nthree four\n" * 200
    assert "".join(pieces(text, 100)) == text
    assert len(list(pieces(text, 100))) > 20
    tokenizer = KINDS["bpe"]()
    assert [i for piece in pieces(text, 100) for i in tokenizer.encode(piece)] == tokenizer.encode(text)
    assert "".join(pieces("x" * 1000, 100)) == "x" * 1000


def test_a_published_byte_level_tokenizer_with_its_end_elsewhere_is_read(tmp_path):
    made = KINDS["bpe"]()
    made.save(tmp_path / "tokenizer.json")
    found = json.loads((tmp_path / "tokenizer.json").read_text())
    last = made.vocab_size
    found["model"]["vocab"] = {k: v for k, v in found["model"]["vocab"].items() if v} | {"!unused!": 0}
    found["added_tokens"][0]["id"] = last
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.end == last
    assert loaded.decode([*loaded.encode(TEXT), last]) == TEXT


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": 1}', "\x00\x01"])
def test_a_broken_tokenizer_file_gets_a_sentence(content, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_a_missing_or_a_huge_tokenizer_file_gets_a_sentence(tmp_path):
    with pytest.raises(UserError, match="not a file"):
        Tokenizer.load(tmp_path / "none.json")
    with open(tmp_path / "huge.json", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(UserError, match="bytes"):
        Tokenizer.load(tmp_path / "huge.json")


def test_a_vocabulary_too_small_for_the_bytes_gets_a_sentence():
    with pytest.raises(UserError, match="257"):
        Tokenizer.bpe(["x"], 100)


def test_a_token_file_holds_every_document_behind_its_end_token(tmp_path):
    tokenizer = Tokenizer.bytes()
    file = tokens.write(tmp_path / "a.tokens", ["one", "", TEXT], tokenizer)
    assert file.documents == 3
    assert file.text_bytes == len(("one" + TEXT).encode())
    assert file.ids.tolist() == [0, *tokenizer.encode("one"), 0, 0, *tokenizer.encode(TEXT)]
    assert file.ids.dtype == np.uint16
    assert tokens.read(tmp_path / "a.tokens").ids.tolist() == file.ids.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tokens"]


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-3], lambda raw: b"x" + raw, lambda raw: b"", lambda raw: raw[:256]]
)
def test_a_damaged_token_file_gets_a_sentence(damage, tmp_path):
    path = tmp_path / "a.tokens"
    tokens.write(path, ["some text"], Tokenizer.bytes())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="token file"):
        tokens.read(path)


def test_batches_depend_on_their_index_alone_and_an_epoch_visits_every_window_once(tmp_path):
    tokenizer = Tokenizer.bytes()
    text = "".join(chr(33 + i % 90) for i in range(1000))
    file = tokens.write(tmp_path / "a.tokens", [text], tokenizer)
    batches = tokens.batches([file], [1.0], 4, 10, seed=5)
    assert batches(7)["tokens"].equal(tokens.batches([file], [1.0], 4, 10, seed=5)(7)["tokens"])
    assert not batches(7)["tokens"].equal(batches(8)["tokens"])
    rows = np.concatenate([batches(i)["tokens"].numpy() for i in range(25)])  # 99 windows an epoch
    assert rows.shape == (100, 11)
    assert sorted(map(tuple, rows[:99])) == sorted(tuple(file.ids[i * 10 : i * 10 + 11]) for i in range(99))


def test_every_text_gives_its_share_of_the_rows(tmp_path):
    files = [tokens.write(tmp_path / f"{c}.tokens", [c * 5000], Tokenizer.bytes()) for c in "ab"]
    rows = np.concatenate([tokens.batches(files, [3.0, 1.0], 8, 16, 0)(i)["tokens"].numpy() for i in range(50)])
    first = (rows[:, 1] == ord("a") + 1).mean()
    assert abs(first - 0.75) < 0.01


def test_a_text_shorter_than_a_window_still_fills_one(tmp_path):
    file = tokens.write(tmp_path / "a.tokens", ["hi"], Tokenizer.bytes())
    assert tokens.batches([file], [1.0], 2, 64, 0)(3)["tokens"].shape == (2, 65)
