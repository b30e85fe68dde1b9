"""Token files: documents in, memory-mapped files of ids out; and their windows as batches for training.

A file is a JSON line of 256 bytes (dtype, counts), then every document's ids in a row, each document opened
by <|endoftext|>, so that a text of any size trains in the memory of a batch. A long text fills several files
(NAME, NAME.00001, ...) that are read as one; each appears when it is whole, and writing that was interrupted
goes on after the last. Which windows make batch i is a pure function of i: every epoch visits all of a text's
windows once, in its own order and from its own first token.
"""

import glob
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from multimodal import checkpoint
from multimodal.cli import UserError
from multimodal.tokenizer import Tokenizer, pieces
from multimodal.training import shuffled

HEADER_BYTES = 256
FORMAT = "tokens 1"
CYCLE = 100  # rows after which the mixture of several files repeats: weights are kept to a hundredth
SHARD = 100_000_000  # tokens of a file, about: it ends with the piece that reaches them
BATCH = 1_000_000  # characters that are encoded at once
REMEMBERED = 4_000_000  # characters of words whose ids are kept: some hundred thousand words, 100 MB


@dataclass(frozen=True)
class TokenFile:
    """An open text of one or several token files."""

    path: Path
    ids: "np.ndarray | Joined"
    """The memory map."""
    documents: int
    """How many documents it holds."""
    text_bytes: int
    """Length of their text in UTF-8, by which bits per byte are counted."""


class Joined:
    """The ids of several files as one array, of which slices are taken; a slice copies what it takes."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self._arrays, self._ends = arrays, np.cumsum([len(array) for array in arrays])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, where: slice) -> np.ndarray:
        begin, end, _ = where.indices(len(self))
        taken = []
        for number in range(int(np.searchsorted(self._ends, begin, "right")), len(self._arrays)):
            array, first = self._arrays[number], int(self._ends[number]) - len(self._arrays[number])
            if first >= end:
                break
            taken.append(array[max(begin - first, 0) : end - first])
        return np.concatenate(taken) if taken else self._arrays[0][:0]


def write(
    path: Path,
    texts: Iterable[str | Iterable[str]],
    tokenizer: Tokenizer,
    resume: bool = False,
    tell: Callable[[int], object] = lambda size: None,
) -> TokenFile:
    """Encodes the texts, each whole or in parts, into token files, each written aside and renamed, and opens them.

    `resume` keeps the whole files of an earlier call with the same texts and tokenizer. `tell` is called with the bytes
    of text that were done.
    """
    path = Path(path)
    for aside in path.parent.glob(f".{glob.escape(path.name)}*.part"):  # of a process that was killed
        aside.unlink()
    kept = _files(path)
    if not resume:
        for file in kept:
            file.unlink()
        kept = []
    before = [_open(file) for file in kept]
    steps = _after(_steps(texts), sum(b.documents for b in before), sum(b.text_bytes for b in before), tell)
    encoded = _encoded(steps, tokenizer)
    number, step = len(kept), next(encoded, None)
    while step is not None or number == 0:
        step = _write(_name(path, number), step, encoded, tokenizer, tell)
        number += 1
    return read(path)


def _write(path: Path, step, steps: Iterator[tuple[bool, int, bytes]], tokenizer: Tokenizer, tell):
    """One file, of `step` and those after it; gives the step that no longer goes into it, or None after the last."""
    dtype = _dtype(tokenizer)
    header = {"format": FORMAT, "dtype": dtype.str, "vocabulary": tokenizer.vocab_size}
    header |= {"tokens": 0, "documents": 0, "text_bytes": 0}
    with checkpoint.replacing(path) as aside, open(aside, "wb") as file:
        file.write(b" " * HEADER_BYTES)
        while step is not None and header["tokens"] < SHARD:
            begins, size, ids = step
            if begins:
                ids = np.array([tokenizer.end], dtype).tobytes() + ids
            file.write(ids)
            header["tokens"] += len(ids) // dtype.itemsize
            header["documents"] += begins
            header["text_bytes"] += size
            tell(size)
            step = next(steps, None)
        file.seek(0)
        file.write(json.dumps(header).encode().ljust(HEADER_BYTES - 1) + b"\n")
    return step


def _dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype("<u2" if tokenizer.vocab_size <= 65_536 else "<u4")


def _steps(texts: Iterable[str | Iterable[str]]) -> Iterator[tuple[bool, str]]:
    """The texts in pieces of bounded size, each with whether a text begins with it."""
    for text in texts:
        begins, held = True, ""
        for part in [text] if isinstance(text, str) else text:
            *whole, held = pieces(held + part)  # the last may grow by the next part; the others are what they would be
            for piece in whole:
                yield begins, piece
                begins = False
        yield begins, held


def _after(steps, documents: int, size: int, tell) -> Iterator[tuple[bool, str]]:
    """The steps without the first ones, which begin so many documents and have so many bytes."""
    for begins, piece in steps:
        if not documents and not size:
            yield begins, piece
            continue
        length = len(piece.encode("utf-8", "replace"))
        if begins > documents or length > size:
            break
        documents, size = documents - begins, size - length
        tell(length)
    if documents or size:
        raise UserError("the token files are of another text: delete the run's folder tokens, or choose another --out.")


def _encoded(steps: Iterable[tuple[bool, str]], tokenizer: Tokenizer) -> Iterator[tuple[bool, int, bytes]]:
    """(whether a document begins, bytes of text, ids) of each step."""
    encode = _encoder(tokenizer)
    batch: list[tuple[bool, bytes]] = []
    characters = 0

    def done() -> Iterator[tuple[bool, int, bytes]]:
        found = encode([raw.decode() for _, raw in batch])
        return ((begins, len(raw), ids) for (begins, raw), ids in zip(batch, found, strict=True))

    for begins, piece in steps:
        batch.append((begins, piece.encode("utf-8", "replace")))  # half surrogate pairs become "?"
        characters += len(piece)
        if characters >= BATCH:
            yield from done()
            batch, characters = [], 0
    yield from done()


def _encoder(tokenizer: Tokenizer) -> Callable[[list[str]], list[bytes]]:
    """texts -> the ids of each as bytes, equal to those of `tokenizer.encode`.

    GPT-2's pattern never joins what stands before white space with what follows, so the ids of a text are those of its
    words, each with the white space before it; words come again and again, and looking one up takes a tenth of the time
    of encoding it. Other tokenizers get the text, cut after lines, on all cores.
    """
    pipeline, dtype = tokenizer.pipeline, _dtype(tokenizer)

    def encode(texts: Iterable[str]) -> list[bytes]:
        found = pipeline.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype).tobytes() for one in found]

    def by_lines(texts: list[str]) -> list[bytes]:
        lines = [list(_lines(text)) for text in texts]
        ids = iter(encode(line for text in lines for line in text))
        return [b"".join(next(ids) for _ in text) for text in lines]

    known: dict[str, bytes] = {}
    characters = 0

    def by_words(texts: list[str]) -> list[bytes]:
        nonlocal characters
        words = [WORD.findall(text) for text in texts]
        new = list(set().union(*words) - known.keys())
        known.update(zip(new, encode(new), strict=True))
        ids = [b"".join(map(known.__getitem__, text)) for text in words]
        characters += sum(map(len, new))
        if characters > REMEMBERED:
            known.clear()
            characters = 0
        return ids

    return by_words if _splits_before_space(pipeline) else by_lines


# white space as Unicode has it; Python's own \s also counts four control characters, with which GPT-2's pattern may join
SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
WORD = re.compile(f"[{SPACE}]*[^{SPACE}]+|[{SPACE}]+")
LINE = re.compile(r"(?<=\S\n)(?=\S)")


def _splits_before_space(pipeline) -> bool:
    """Whether the tokenizer is byte-level by GPT-2's pattern, or takes single characters, with nothing before or after."""
    found = json.loads(pipeline.to_str())
    first = found["pre_tokenizer"] or {}
    gpt2 = first.get("type") == "ByteLevel" and first["use_regex"] and not first["add_prefix_space"]
    characters = first.get("type") == "FixedLength" and first["length"] == 1
    plain = not found["normalizer"] and not found["model"].get("dropout")
    return (gpt2 or characters) and plain and all(token["special"] for token in found["added_tokens"])


def _lines(text: str, size: int = 20_000) -> Iterator[str]:
    """The text in parts of at least `size` characters, cut where `pieces` may cut."""
    begin = 0
    while cut := LINE.search(text, begin + size):
        yield text[begin : cut.start()]
        begin = cut.start()
    yield text[begin:]


def read(path: Path) -> TokenFile:
    """Opens a text's token files. Raises UserError where one is none, cut off or missing."""
    files = _files(path := Path(path)) or [path]
    if files != [_name(path, number) for number in range(len(files))]:
        raise UserError(f"some of the token files {path}, {path}.00001, ... are missing; start the run anew.")
    opened = [_open(file) for file in files]
    ids = opened[0].ids if len(opened) == 1 else Joined([file.ids for file in opened])
    return TokenFile(path, ids, sum(file.documents for file in opened), sum(file.text_bytes for file in opened))


def _name(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number:05}") if number else path


def _files(path: Path) -> list[Path]:
    """The token files of a text that are there, in order."""
    return [path] * path.exists() + sorted(path.parent.glob(f"{glob.escape(path.name)}.{'[0-9]' * 5}"))


def _open(path: Path) -> TokenFile:
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(HEADER_BYTES))
        if header["format"] != FORMAT or header["dtype"] not in ("<u2", "<u4"):
            raise ValueError(f"format {header['format']!r}, ids {header['dtype']!r}")
        whole = path.stat().st_size > HEADER_BYTES
        ids = np.memmap(path, header["dtype"], "r", offset=HEADER_BYTES) if whole else np.zeros(0, header["dtype"])
        if len(ids) != header["tokens"]:
            raise ValueError(f"{len(ids):,} ids instead of {header['tokens']:,}")
        return TokenFile(path, ids, int(header["documents"]), int(header["text_bytes"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} could not be read as a token file: {error}; start the run anew.") from None


def batches(
    files: Sequence[TokenFile], weights: Sequence[float], batch_size: int, context: int, seed: int
) -> Callable[[int], dict[str, Tensor]]:
    """index -> {"tokens": Int "b context+1"}, inputs and successors; each file gives its weight of the rows.

    A file shorter than a window is laid end to end until it fills one.
    """
    least = 2 * context + 1
    texts = [f.ids if len(f.ids) >= least else np.tile(f.ids[:], -(-least // len(f.ids))) for f in files]
    # the last window leaves room for the largest first token: all epochs have the same number of windows
    windows = [(len(ids) - context - 1) // context for ids in texts]
    turns = _cycle(weights)
    share = [turns.count(source) for source in range(len(files))]

    def row(number: int) -> Tensor:
        round_, turn = divmod(number, CYCLE)
        source = turns[turn]
        item = round_ * share[source] + turns[:turn].count(source)
        window = shuffled(item, 1, windows[source], seed + source)[0]
        epoch = item // windows[source]
        first = np.random.default_rng([seed, source, epoch]).integers(context) if epoch else 0
        begin = first + window * context
        return torch.from_numpy(texts[source][begin : begin + context + 1].astype(np.int64))

    return lambda index: {"tokens": torch.stack([row(index * batch_size + i) for i in range(batch_size)])}


def _cycle(weights: Sequence[float]) -> list[int]:
    """CYCLE turns, source i having its weight of them, spread as evenly as they go."""
    total, given, turns = sum(weights), [0] * len(weights), []
    for turn in range(1, CYCLE + 1):
        source = max(range(len(weights)), key=lambda i: weights[i] / total * turn - given[i])
        given[source] += 1
        turns.append(source)
    return turns
