"""Vectors of many pictures in one file: pictures in, vectors (n d) and the names of the pictures out, each computed once.

An index is a safetensors file that is memory-mapped to be read and replaced in one step: `vectors` (n d) in fp32; `lines`,
JSON lines of what is known of the files, first of the n pictures with a vector, by name, then of those that cannot be
read, with the reason; `ends`, where each line ends. Its header names the model by its digest. A picture is known again by
name, size and time of its file, else by its content, so that what was moved is not embedded again. While pictures are
embedded, parts of the same format grow beside the index: a run killed at any moment loses a minute of work.
"""

import contextlib
import hashlib
import json
import os
import stat
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clip.encoder import Encoder
from multimodal import checkpoint, cli, images
from multimodal.cli import UserError

try:
    import fcntl
except ImportError:  # Windows: two processes at once then do some work twice, and the last one's index stays
    fcntl = None

T, R = TypeVar("T"), TypeVar("R")
KIND, VERSION = "clip.index", "1"
BATCH = 64  # pictures of one forward pass
PART, PART_SECONDS = 4096, 60.0  # a part is written after so many vectors, or so long
WORKERS = 4  # threads that read and decode
ROWS = 8192  # rows that are copied at once


class File(NamedTuple):
    """A picture's file, as a folder lists it."""

    name: str
    size: int
    time: int
    """Of its last change, in nanoseconds."""


class Entry(NamedTuple):
    """What is known of a picture."""

    size: int
    time: int
    content: str
    """Digest of its bytes."""
    source: int
    """Where its vector is: in which of the files, and in which row. -1 for a picture that cannot be read."""
    row: int
    error: str = ""
    """Why it cannot be read."""


@dataclass(frozen=True)
class Changes:
    """What an update found."""

    pictures: int
    """With a vector, now."""
    new: int = 0
    changed: int = 0
    moved: int = 0
    deleted: int = 0
    unreadable: tuple[tuple[str, str], ...] = ()
    """Name and reason of each picture that could not be read now."""
    remembered: int = 0
    """Pictures that could not be read before, and have not changed: they were not tried again."""


@dataclass(frozen=True)
class Index:
    """An index that is open for reading; its tensors are views of the file."""

    path: Path
    about: dict[str, str]
    """The header: kind, version, digest and name of the model, and the folder if the index lies elsewhere."""
    vectors: Float[Tensor, "n d"]
    lines: UInt8[Tensor, "bytes"]
    ends: Int[Tensor, "m"]

    def __len__(self) -> int:
        return len(self.vectors)

    def entry(self, i: int) -> dict:
        """The line of row i; those from n on are of pictures that cannot be read."""
        start, end = int(self.ends[i - 1]) if i else 0, int(self.ends[i])
        return self._parse(self.lines[start:end].numpy().tobytes())

    def entries(self) -> Iterator[dict]:
        """All lines in order."""
        start, data = 0, memoryview(self.lines.numpy())
        for end in self.ends.tolist():
            yield self._parse(bytes(data[start:end]))
            start = end

    def _parse(self, line: bytes) -> dict:
        try:
            found = json.loads(line)
            kinds = {"name": str, "size": int, "time": int, "content": str}
            if all(isinstance(found.get(key), kind) for key, kind in kinds.items()):
                return found
        except (ValueError, RecursionError, AttributeError):
            pass
        raise damaged(self.path, "a line is not what an index holds")


def damaged(path: Path, why: object) -> UserError:
    return UserError(f"the index {path} is damaged ({why}): delete it, and the pictures are embedded anew.")


def header(path: Path) -> dict[str, str]:
    """What the file says about itself. Raises UserError where it is no index of this version."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from None
    if about.get("kind") != KIND or "digest" not in about:
        raise UserError(f"{path} is no index of pictures: name another place by --index, or move it away.")
    if about.get("version") != VERSION:
        raise UserError(
            f"the index {path} is of version {str(about.get('version'))[:20]!r}, and {VERSION!r} is read: delete it, and "
            "the pictures are embedded anew."
        )
    return about


def read(path: Path, digest: str) -> Index:
    """The index of the model with that digest. Raises UserError with what is wrong."""
    about = header(path)
    if about["digest"] != digest:
        raise UserError(
            f"the index {path} is of the model {about.get('model', '?')[:80]} ({about['digest'][:40]}), not {digest}."
        )
    try:
        with safe_open(path, "pt") as file:
            vectors, lines, ends = (file.get_tensor(name) for name in ("vectors", "lines", "ends"))
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from None
    kinds = ((vectors, torch.float32, 2), (lines, torch.uint8, 1), (ends, torch.int64, 1))
    if any(tensor.dtype != dtype or tensor.ndim != axes for tensor, dtype, axes in kinds):
        raise damaged(path, "its tensors are not those of an index")
    whole = (
        not len(lines) if not len(ends) else bool(ends[0] > 0 and (ends.diff() > 0).all() and ends[-1] == len(lines))
    )
    if not whole or len(ends) < len(vectors):
        raise damaged(path, "it has fewer lines than vectors")
    return Index(path, about, vectors, lines, ends)


def write(
    path: Path, about: dict[str, str], lines: Sequence[bytes], shape: tuple[int, int], vectors: Iterable[Tensor]
) -> None:
    """An index of `shape` (n d), its vectors chunk by chunk: an index larger than memory is written as well."""
    n, d = shape
    ends = torch.tensor([len(line) for line in lines], dtype=torch.int64).cumsum(0)
    sizes = {"ends": ("I64", [len(lines)], 8 * len(lines)), "vectors": ("F32", [n, d], 4 * n * d)}
    sizes["lines"] = ("U8", [sum(map(len, lines))], sum(map(len, lines)))
    described, start = {"__metadata__": {"kind": KIND, "version": VERSION, **about}}, 0
    for name, (dtype, size, length) in sizes.items():
        described[name] = {"dtype": dtype, "shape": size, "data_offsets": [start, start + length]}
        start += length
    head = json.dumps(described).encode()
    head += b" " * (-len(head) % 8)
    with checkpoint.replacing(path) as aside, open(aside, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.write(ends.numpy().tobytes())
        for chunk in vectors:
            file.write(chunk.contiguous().numpy().data)
        file.writelines(lines)


def walk(folder: Path) -> tuple[list[File], dict[str, str]]:
    """Every picture below a folder, but what is hidden; and the folders in it that could not be read, with the reason."""
    found: list[File] = []
    closed: dict[str, str] = {}

    def relative(path: str) -> str:
        return os.path.relpath(path, folder).replace(os.sep, "/")

    def note(error: OSError) -> None:
        closed[relative(error.filename)] = error.strerror or str(error)

    for root, inner, names in os.walk(folder, onerror=note):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        below = relative(root)
        for name in names:
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in images.SUFFIXES:
                continue
            with contextlib.suppress(OSError):  # a link that leads nowhere, or a file that has just gone
                status = os.stat(os.path.join(root, name))
                if stat.S_ISREG(status.st_mode):
                    name = name if below == "." else f"{below}/{name}"
                    found.append(File(name, status.st_size, status.st_mtime_ns))
    return found, closed


def contents(path: str | Path) -> bytes:
    """The bytes of a picture's file, no more than a picture may have."""
    with open(path, "rb") as file:
        return file.read(images.MAX_BYTES + 1)


def update(
    path: Path,
    files: Sequence[File],
    read_file: Callable[[str], bytes],
    encoder: Encoder,
    folder: str = "",
    closed: Sequence[str] = (),
) -> Changes:
    """Brings the index at `path` up to date with `files`, of which `read_file` gives the bytes by name.

    What is known of pictures below `closed` folders is kept. Interrupted, it keeps what was done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        return _Update(path, encoder, folder).run(files, read_file, closed)


class _Update:
    """An index while it is brought up to date."""

    def __init__(self, path: Path, encoder: Encoder, folder: str):
        self.path, self.encoder = path, encoder
        self.about = {"digest": encoder.digest, "model": encoder.name, "folder": folder}
        for left in path.parent.glob(f".{path.name}*.part"):  # of a process that was killed while writing
            left.unlink(missing_ok=True)
        self.sources: list[Index] = []
        self.known: dict[str, Entry] = {}
        if path.exists():
            self._add(read(path, encoder.digest))
        self.before = dict(self.known)
        for part in _parts(path):
            try:
                self._add(read(part, encoder.digest))
            except UserError as error:
                cli.say(f"not used: {error}")
        self.contents = {e.content: (e.source, e.row) for e in self.known.values() if e.row >= 0}
        self.now: dict[str, Entry] = {}
        self.pending: list[tuple[File, str, Tensor]] = []  # pictures of the part that grows, and their vectors
        self.since = time.monotonic()

    def _add(self, source: Index) -> None:
        number = len(self.sources)
        self.sources.append(source)
        for row, line in enumerate(source.entries()):
            where = (number, row) if row < len(source) else (-1, -1)
            self.known[line["name"]] = Entry(
                line["size"], line["time"], line["content"], *where, str(line.get("error", ""))
            )

    def run(self, files: Sequence[File], read_file: Callable[[str], bytes], closed: Sequence[str]) -> Changes:
        todo = []
        for file in files:
            entry = self.known.get(file.name)
            if entry is not None and (entry.size, entry.time) == (file.size, file.time):
                self.now[file.name] = entry
            else:
                todo.append(file)
        remembered = sum(entry.row < 0 for entry in self.now.values())
        below = tuple(f"{name}/" for name in closed)
        listed = {file.name for file in files}
        for name, entry in self.known.items():
            if name not in listed and name.startswith(below):
                self.now[name] = entry
        unreadable: list[tuple[str, str]] = []
        try:
            self._embed(todo, read_file, unreadable)
        except BaseException:  # Ctrl-C above all: what was not reached stays as it was known
            self.now = self.known | self.now
            raise
        finally:
            self._flush()
            if self.now != self.before or len(self.sources) > 1 or not self.path.exists():
                self._write()
            for part in _parts(self.path):
                part.unlink(missing_ok=True)
        return self._changes(tuple(unreadable), remembered)

    def _embed(self, todo: Sequence[File], read_file: Callable[[str], bytes], unreadable: list) -> None:
        batch: list[tuple[File, str, Tensor]] = []

        def embed() -> None:
            if batch:
                vectors = self.encoder.embed_images(torch.stack([picture for *_, picture in batch]))
                rows = zip(batch, vectors.float().cpu(), strict=True)
                self.pending += [(file, content, vector) for (file, content, _), vector in rows]
                batch.clear()
            if len(self.pending) >= PART or (self.pending and time.monotonic() - self.since > PART_SECONDS):
                self._flush()

        look = partial(_look, read_file, self.encoder, self.contents)
        with cli.bar(total=len(todo), unit="picture", desc="embedding", leave=False) as shown:
            for file, (content, outcome) in ahead(look, todo, WORKERS, 2 * BATCH):
                shown.update()
                if isinstance(outcome, Tensor):
                    batch.append((file, content, outcome))
                elif isinstance(outcome, str):
                    unreadable.append((file.name, outcome))
                    if content:
                        self.now[file.name] = Entry(file.size, file.time, content, -1, -1, outcome)
                else:
                    self.now[file.name] = Entry(file.size, file.time, content, *self.contents[content])
                if len(batch) >= BATCH:
                    embed()
            embed()

    def _flush(self) -> None:
        """Writes what was embedded since the last time as a part."""
        if self.pending:
            part = self.path.with_name(f"{self.path.stem}.part-{time.time_ns()}.safetensors")
            vectors = torch.stack([vector for *_, vector in self.pending])
            lines = [_line(file.name, Entry(file.size, file.time, content, 0, 0)) for file, content, _ in self.pending]
            write(part, self.about, lines, tuple(vectors.shape), [vectors])
            self.sources.append(read(part, self.encoder.digest))
            for row, (file, content, _) in enumerate(self.pending):
                where = (len(self.sources) - 1, row)
                self.now[file.name] = Entry(file.size, file.time, content, *where)
                self.contents[content] = where
            self.pending = []
        self.since = time.monotonic()

    def _write(self) -> None:
        """The whole index, by name, in place of the old one."""
        names = sorted(self.now)
        good = [name for name in names if self.now[name].row >= 0]
        bad = [name for name in names if self.now[name].row < 0]
        widths = {source.vectors.shape[1] for source in self.sources if len(source)} or {self.encoder.width}
        if len(widths) > 1:
            raise damaged(self.path, f"its vectors have {min(widths)} and {max(widths)} features")

        def chunks() -> Iterator[Tensor]:
            for start in range(0, len(good), ROWS):
                part = [self.now[name] for name in good[start : start + ROWS]]
                source, row = (torch.tensor([entry[i] for entry in part]) for i in (3, 4))
                out = torch.empty(len(part), *widths)
                for number in source.unique().tolist():
                    out[source == number] = self.sources[number].vectors[row[source == number]]
                yield out

        lines = [_line(name, self.now[name]) for name in good + bad]
        write(self.path, self.about, lines, (len(good), *widths), chunks())

    def _changes(self, unreadable: tuple[tuple[str, str], ...], remembered: int) -> Changes:
        gone = Counter(entry.content for name, entry in self.before.items() if name not in self.now)
        counts = Counter(deleted=sum(gone.values()))
        for name, entry in self.now.items():
            if name in self.before:
                counts["changed"] += self.before[name].content != entry.content
            elif gone[entry.content] > 0:
                gone[entry.content] -= 1
                counts["moved"] += 1
                counts["deleted"] -= 1
            else:
                counts["new"] += entry.row >= 0
        pictures = sum(entry.row >= 0 for entry in self.now.values())
        return Changes(pictures, **counts, unreadable=unreadable, remembered=remembered)


def _line(name: str, entry: Entry) -> bytes:
    about = {"name": name, "size": entry.size, "time": entry.time, "content": entry.content}
    return json.dumps(about | ({"error": entry.error} if entry.error else {})).encode() + b"\n"


def _parts(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}.part-*.safetensors"))


def _look(
    read_file: Callable[[str], bytes], encoder: Encoder, known: dict[str, tuple[int, int]], file: File
) -> tuple[str, Tensor | str | None]:
    """(digest of the content, the prepared picture; or None where it is known; or why it cannot be read). Without a digest
    it could not even be opened, and is tried again next time."""
    try:
        data = read_file(file.name)
    except OSError as error:
        return "", f"{file.name} could not be read: {error.strerror or error}."
    except images.ImageError as error:
        return "", str(error)
    content = hashlib.sha256(data).hexdigest()[:32]
    if content in known:
        return content, None
    try:
        return content, encoder.prepare(images.read(data, encoder.size, file.name))
    except images.ImageError as error:
        return content, str(error)
    except (ValueError, MemoryError) as error:  # of what the model does with it
        return content, f"{file.name} could not be used: {error or type(error).__name__}."


def ahead(function: Callable[[T], R], items: Iterable[T], workers: int, most: int) -> Iterator[tuple[T, R]]:
    """Every item with what the function makes of it, in order; threads are at most `most` items ahead of the reader."""
    pool, coming = ThreadPoolExecutor(workers, "pictures"), deque()
    try:
        for item in items:
            coming.append((item, pool.submit(function, item)))
            if len(coming) >= most:
                item, future = coming.popleft()
                yield item, future.result()
        while coming:
            item, future = coming.popleft()
            yield item, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keeps other processes from updating the index. Raises UserError where one does."""
    with open(path.with_suffix(".lock"), "ab") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is updating the index {path}: wait for it.") from None
        except OSError:  # a file system without locks
            pass
        yield
