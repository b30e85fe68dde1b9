"""The user's own text, of any size: files, folders, JSON lines, gzip, standard input in; what to train on, what is held
out, and a list of what is not used out.

A file is a document, and so is a row of JSON lines. Text that spells <|endoftext|> is text, and separates nothing.
Everything is read in parts, so that a file of any size takes a few megabytes: once by `survey`, which finds what is text
and counts it, and again whenever `Half.read` is called.
"""

import codecs
import contextlib
import gzip
import hashlib
import json
import os
import shutil
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from multimodal import cli
from multimodal.cli import UserError
from multimodal.data.pairs import Unread
from multimodal.data.text import Document, Half, tidied
from multimodal.tokenizer import END

MAX_FILES = 1_000_000
MAX_ROW = 16_000_000  # bytes of a row of JSON lines: it is held in memory, where JSON may take twenty times as many
BLOCK = 1_000_000  # bytes that are read at once
UNPACKED, RATIO = 100_000_000, 200  # gzip that gives more bytes than the first and than so many times its own: no text
NAMED = 20  # rows of a file that are not used and named, each with its reason; more are counted
EVERY = 20  # of so many documents, about one is held out
SPOOL = ".spool"
ROWS = (".jsonl", ".ndjson")
FIELDS = ("text", "content", "body", "article", "document")  # of a row, the first of them that holds a text
ODD = bytes(c for c in range(32) if c not in b"\t\n\f\r\x1b")  # control characters that text does not have


@dataclass(frozen=True)
class Survey:
    """What the user's paths hold."""

    train: Half
    held: Half
    unread: list[Unread]
    """What is not used, and why."""
    remarks: list[str]
    """What is read otherwise than one may expect."""
    digest: str
    """Of all the text in its order: equal for equal text, wherever it lies."""


def survey(paths: Sequence[Path | str], run: Path) -> Survey:
    """Reads everything once. Held out is about one document in EVERY, by what it says: always the same ones. Where that
    leaves nothing on one side, or more held out than trained on, it is the smallest document alone; of a single document
    it is the last tenth.

    "-" is standard input. It and pipes can be read once only, and are kept in the folder `run` until `forget`; of that
    folder nothing else is read. Raises UserError for a path that is not there.
    """
    files: list[TextFile] = []
    unread: list[Unread] = []
    remarks: list[str] = []
    tally = _Tally()
    roots = _roots(paths, run)
    with cli.bar(unit="B", unit_scale=True, desc="reading") as shown:
        for path in _files(roots, run):
            if isinstance(path, Unread):
                unread.append(path)
                continue
            try:
                stamp = _stamp(path)
                examine = _examine_rows if _is_rows(path, run) else _examine_text
                encoding, held = examine(path, tally, unread, remarks, shown.update)
            except (_NoText, OSError) as error:
                unread.append(Unread(path, getattr(error, "strerror", None) or str(error)))
            else:
                files.append(TextFile(path, encoding, stamp, held))
    train, held_out = _halves(files, tally)
    return Survey(train, held_out, unread, remarks, tally.digest.hexdigest())


def forget(run: Path) -> None:
    """Deletes what `survey` kept of standard input and pipes."""
    for path in run.glob(f"*{SPOOL}"):
        path.unlink()


class _NoText(Exception):
    """Why a file is not used."""


@dataclass(frozen=True)
class TextFile:
    """A file that was found to hold text, and how it is read again."""

    path: Path
    encoding: str
    """utf-8 or cp1252; of JSON lines, "rows"."""
    stamp: tuple[int, int]
    """Size and time of the last change: by them a change between two readings is noticed."""
    held: bool = False
    """Whether its text is to be held out; of JSON lines, each row has its own say."""

    def documents(self) -> Iterator[tuple[Document, bool]]:
        """Its documents, each with whether it is to be held out."""
        try:
            same = _stamp(self.path) == self.stamp
        except OSError:
            same = False
        if not same:
            raise UserError(f"{self.path} changed while it was being prepared; give the same command again.")
        if self.encoding == "rows":
            for row in _rows(self.path):
                if not isinstance(row, Unread):
                    yield Document(str(self.path), (row[1],)), _measured((row[1],)).held
        else:
            yield Document(str(self.path), tidied(_decoded(self.path, self.encoding))), self.held


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


# ---- which files


def _roots(paths: Sequence[Path | str], run: Path) -> list[Path]:
    """The paths, in place of standard input and pipes the file that keeps what came from them."""
    if [str(path) for path in paths].count("-") > 1:
        raise UserError("--data - is given twice, but standard input can be read once only.")
    forget(run)
    roots = []
    for number, path in enumerate(map(Path, paths)):
        if str(path) == "-" or path.is_fifo():
            roots.append(run / f"{'stdin' if str(path) == '-' else f'pipe-{number}'}{SPOOL}")
            run.mkdir(parents=True, exist_ok=True)
            if str(path) == "-" and sys.stdin.isatty():
                cli.say("reading from the terminal; Ctrl-D on a line of its own ends the text.")
            with open(roots[-1], "wb") as kept:
                if str(path) == "-":
                    shutil.copyfileobj(sys.stdin.buffer, kept, BLOCK)
                else:
                    with open(path, "rb") as pipe:
                        shutil.copyfileobj(pipe, kept, BLOCK)
        elif path.is_file() or path.is_dir():
            roots.append(path)
        else:
            raise UserError(f"--data {path} {'is neither a file nor a folder' if path.exists() else 'does not exist'}.")
    return roots


def _files(roots: Sequence[Path], run: Path) -> Iterator[Path | Unread]:
    """The files among the roots and below them, folder by folder in the order of names, without what programs keep for
    themselves (.git, .thumbnails) and without the folder `run`."""
    count, apart = 0, run.resolve()
    for root in roots:
        waiting = [os.fspath(root)]
        while waiting:
            path = waiting.pop()
            inside = path != os.fspath(root)
            if os.path.isdir(path) and not (inside and os.path.islink(path)):
                if inside and os.path.basename(path) == apart.name and Path(path).resolve() == apart:
                    continue
                try:
                    names = sorted((name for name in os.listdir(path) if not name.startswith(".")), reverse=True)
                except OSError as error:
                    yield Unread(Path(path), error.strerror or str(error))
                    continue
                waiting += [os.path.join(path, name) for name in names]
            elif os.path.isfile(path):
                count += 1
                if count > MAX_FILES:
                    raise UserError(f"--data {root} holds more than {MAX_FILES:,} files; join them first.")
                yield Path(path)


# ---- what they say


class _Tally:
    """The documents so far; of each pair, the first is of those to train on, the second of those held out."""

    def __init__(self):
        self.documents, self.characters, self.text_bytes = [0, 0], [0, 0], [0, 0]
        self.smallest: tuple[int, int, int] = (sys.maxsize, -1, 0)  # characters, number, bytes
        self.digest = hashlib.blake2b(digest_size=16)

    def add(self, one: "_Measured") -> None:
        self.smallest = min(self.smallest, (one.characters, sum(self.documents), one.text_bytes))
        self.documents[one.held] += 1
        self.characters[one.held] += one.characters
        self.text_bytes[one.held] += one.text_bytes
        self.digest.update(one.digest)


@dataclass(frozen=True)
class _Measured:
    """A document that was read to its end."""

    characters: int
    text_bytes: int
    digest: bytes
    spells_end: bool

    @property
    def held(self) -> bool:
        """Whether it is to be held out: by its text, so that neither its name nor its neighbours matter, and copies of
        it stay together."""
        return int.from_bytes(self.digest[:4], "big") % EVERY == 0


def _measured(parts: Iterable[str], tell: Callable[[int], object] = lambda size: None) -> _Measured:
    characters, size, digest, spells_end = 0, 0, hashlib.blake2b(digest_size=16), False
    for part in parts:
        data = part.encode("utf-8", "replace")
        tell(len(data))
        digest.update(data)
        characters, size, spells_end = characters + len(part), size + len(data), spells_end or END in part
    return _Measured(characters, size, digest.digest(), spells_end)


def _examine_text(path: Path, tally: _Tally, unread, remarks: list[str], tell) -> tuple[str, bool]:
    """(encoding, whether it is to be held out) of a file that is a document. Raises _NoText with the reason."""
    encoding = "utf-8"
    try:
        one = _measured(tidied(_decoded(path, encoding, "strict")), tell)
    except UnicodeDecodeError:
        encoding, remark = _guess(path)
        remarks.append(f"{path}: {remark}")
        one = _measured(tidied(_decoded(path, encoding)), tell)
    if not one.characters:
        raise _NoText("it is empty")
    if one.spells_end:
        remarks.append(f"{path}: it spells {END}, which is text; for several documents in a file give JSON lines")
    tally.add(one)
    return encoding, one.held


def _examine_rows(path: Path, tally: _Tally, unread: list[Unread], remarks: list[str], tell) -> tuple[str, bool]:
    fields: Counter[str] = Counter()
    bad: list[Unread] = []
    more = 0
    for row in _rows(path):
        if not isinstance(row, Unread):
            fields[row[0]] += 1
            tally.add(_measured((row[1],), tell))
        elif len(bad) < NAMED:
            bad.append(row)
        else:
            more += 1
    if not fields:
        raise _NoText(f"none of its rows can be used; the first: {bad[0].reason}" if bad else "it is empty")
    unread += bad
    if more:
        unread.append(Unread(path, f"{more:,} more of its rows cannot be used"))
    said = ", ".join(f"{count:,} from the field {field!r}" for field, count in fields.most_common())
    remarks.append(f"{path}: a document a row, {said}")
    return "rows", False


def _halves(files: Sequence[TextFile], tally: _Tally) -> tuple[Half, Half]:
    """What to train on, and what is held out."""
    if sum(tally.documents) == 1:
        length, size = sum(tally.characters), sum(tally.text_bytes)

        def part(held: bool) -> Iterator[Document]:
            ((document, _),) = files[0].documents()
            yield Document(f"{document.name} (end)" if held else document.name, _cut(document.parts, length, held))

        return (
            Half(lambda: part(False), 1, length - length // 10, size - size // 10),
            Half(lambda: part(True), 1, length // 10, size // 10),
        )

    characters, alone, size = tally.smallest
    held = [tally.documents[1], tally.characters[1], tally.text_bytes[1]]
    both = [sum(tally.documents), sum(tally.characters), sum(tally.text_bytes)]
    by_text = 0 not in tally.documents and tally.characters[1] <= tally.characters[0]
    if not by_text and files:
        held = [1, characters, size]

    def read(side: bool) -> Iterator[Document]:
        number = 0
        for file in files:
            for document, says in file.documents():
                if (says if by_text else number == alone) == side:
                    yield document
                number += 1

    rest = [a - b for a, b in zip(both, held, strict=True)]
    return Half(lambda: read(False), *rest), Half(lambda: read(True), *held)


def _cut(parts: Iterable[str], length: int, held: bool) -> Iterator[str]:
    """Of a text of `length` characters the first nine tenths or, `held`, the rest; a line that is short stays whole."""
    at, begin, cut = length * 9 // 10, 0, length
    for part in parts:
        if begin <= at < begin + len(part):
            line = begin + part.find("\n", at - begin) + 1
            cut = line if at < line <= length * 19 // 20 else at
        inside = min(max(cut - begin, 0), len(part))
        if kept := part[inside:] if held else part[:inside]:
            yield kept
        begin += len(part)


# ---- bytes to text


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The file, unpacked where it is gzip, and the most bytes that are read of it."""
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not packed:
            yield raw, sys.maxsize
            return
        try:
            with gzip.open(raw) as file:
                yield file, max(UNPACKED, RATIO * path.stat().st_size)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise _NoText("its gzip data is damaged or cut off") from None


def _decoded(path: Path, encoding: str, errors: str = "replace") -> Iterator[str]:
    """A file's text in parts. Raises _NoText where it is none, and UnicodeDecodeError where `errors` are strict."""
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    with _opened(path) as (file, most):
        size = 0
        while block := file.read(BLOCK):
            if b"\0" in block:
                wide = size == 0 and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
                raise _NoText("it is not text: it holds zero bytes" + ("; if it is UTF-16, save it as UTF-8" * wide))
            head = block[:65_536]
            if size == 0 and len(head) - len(head.translate(None, ODD)) > 0.05 * len(head):
                raise _NoText("it is not text: it is full of control characters")
            size += len(block)
            _check(size, most)
            yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def _check(size: int, most: int) -> None:
    if size > most:
        raise _NoText(f"its gzip data unpacks to more than {RATIO} times its size, which no text does")


def _guess(path: Path) -> tuple[str, str]:
    """(encoding, remark) of what is not UTF-8 throughout: it is, with damages, if most of its characters are."""
    bad = good = 0
    for text in _decoded(path, "utf-8"):
        wrong = text.count("\ufffd")
        bad, good = bad + wrong, good + len(text) - len(text.encode("ascii", "ignore")) - wrong
    if bad > good:
        return "cp1252", "it is not UTF-8, and read as Windows-1252"
    return "utf-8", f"what is not UTF-8 in it ({bad:,} {'places' if bad > 1 else 'place'}) is read as U+FFFD"


def _is_rows(path: Path, run: Path) -> bool:
    """Whether it holds JSON lines: by its name; what was piped has none, and says so itself."""
    if path.parent == run and path.suffix == SPOOL:
        return not isinstance(next(_rows(path), None), Unread | None)
    return path.name.lower().removesuffix(".gz").endswith(ROWS)


def _rows(path: Path) -> Iterator[tuple[str, str] | Unread]:
    """(field, text) of each row of JSON lines, or why it is not used. Empty lines are no rows."""
    number = size = 0
    try:
        with _opened(path) as (file, most):
            while line := file.readline(MAX_ROW + 1):
                number, size, first = number + 1, size + len(line), line
                while len(first) > MAX_ROW and not line.endswith(b"\n") and (line := file.readline(BLOCK)):
                    size += len(line)  # the rest of a row that is too long
                    _check(size, most)
                _check(size, most)
                if first.strip():
                    found = _row(first)
                    yield Unread(Path(f"{path}:{number}"), found) if isinstance(found, str) else found
    except (_NoText, OSError) as error:
        yield Unread(Path(f"{path}:{number + 1}"), f"from here on it cannot be read: {error}")


def _row(line: bytes) -> tuple[str, str] | str:
    """(field, text) of a row, or why there is none."""
    if len(line) > MAX_ROW:
        return f"it has more than {MAX_ROW // 10**6} MB; give it as a file of its own"
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "it is not UTF-8"
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        return "it is not a JSON object"
    lower = {name.strip().lower(): value for name, value in row.items()}
    field = next((name for name in FIELDS if isinstance(lower.get(name), str)), None)
    if field is None:
        return f"it has no text; expected a field {', '.join(FIELDS)}"
    text = "".join(tidied((lower[field],)))
    return (field, text) if text else "its text is empty"
