"""Token files: documents in, one memory-mapped file of ids out; and its windows as batches for training.

A file is a JSON line of 256 bytes (dtype, counts), then every document's ids in a row, each document opened
by <|endoftext|>, so that a text of any size trains in the memory of a batch. Which windows make batch i is a
pure function of i: every epoch visits all of a file's windows once, in its own order and from its own first
token.
"""

import json
from collections.abc import Callable, Iterable, Sequence
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


@dataclass(frozen=True)
class TokenFile:
    """An open token file; `ids` is the memory map."""

    path: Path
    ids: np.ndarray
    documents: int
    """How many documents it holds."""
    text_bytes: int
    """Length of their text in UTF-8, by which bits per byte are counted."""


def write(path: Path, texts: Iterable[str], tokenizer: Tokenizer) -> TokenFile:
    """Encodes the texts into a token file, written aside and renamed, and opens it."""
    path = Path(path)
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 65_536 else "<u4")
    header = {"format": FORMAT, "dtype": dtype.str, "vocabulary": tokenizer.vocab_size}
    header |= {"tokens": 0, "documents": 0, "text_bytes": 0}
    with checkpoint.replacing(path) as aside, open(aside, "wb") as file:
        file.write(b" " * HEADER_BYTES)
        for text in texts:
            file.write(np.array([tokenizer.end], dtype).tobytes())
            header["tokens"] += 1
            header["documents"] += 1
            for piece in pieces(text):
                ids = np.array(tokenizer.encode(piece), dtype)
                file.write(ids.tobytes())
                header["tokens"] += len(ids)
                header["text_bytes"] += len(piece.encode("utf-8", "replace"))
        file.seek(0)
        file.write(json.dumps(header).encode().ljust(HEADER_BYTES - 1) + b"\n")
    return read(path)


def read(path: Path) -> TokenFile:
    """Opens a token file. Raises UserError where it is none, or cut off."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(HEADER_BYTES))
        if header["format"] != FORMAT or header["dtype"] not in ("<u2", "<u4"):
            raise ValueError(f"format {header['format']!r}, ids {header['dtype']!r}")
        ids = np.memmap(path, header["dtype"], "r", offset=HEADER_BYTES)
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
    texts = [np.tile(f.ids, -(-(2 * context + 1) // len(f.ids))) if len(f.ids) <= 2 * context else f.ids for f in files]
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
