"""Captioned pictures in tar archives (WebDataset): archives in, the place of every picture and its captions out.

A pair is KEY.jpg (.png, .webp ...) and KEY.txt, each line a caption, or KEY.json with a caption in it. An archive is read
through once, header by header; from then on a picture is read where it lies, by offset and size. Nothing is unpacked,
and the name of a member is never a path to anything: it pairs pictures with captions, and tells which is meant.
"""

import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import BinaryIO, NamedTuple

from multimodal import images
from multimodal.cli import UserError
from multimodal.data import tables
from multimodal.data.report import Unread

BLOCK = 512
HEAD = 16_384  # bytes of a picture that are looked at first; its size stands in them nearly always
MAX_EXTENSION = 65_536  # bytes of a header's extension, which holds a long name
MAX_JSON = 1_000_000  # bytes
MAX_SHARDS = 100_000  # archives of one pattern
PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
EXTENSIONS = (*PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
RECORD = re.compile(rb"(\d{1,6}) ([^=]{1,100})=")
COMPRESSED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
PACKED = "it is compressed, so that no picture can be found without unpacking all before it; unpack it to .tar first"


@dataclass(frozen=True)
class Archive:
    """A tar archive, as it was when it was read through."""

    path: Path
    stamp: tuple[int, int]
    """Its size and the time of its last change."""

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of a member. It opens the file each time: 10 microseconds, and threads and processes are free of care."""
        try:
            with open(self.path, "rb", buffering=0) as file:
                if _stamp(file) != self.stamp:
                    raise UserError(f"{self.path} has changed since it was read through; start anew.")
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise images.ImageError(f"{self.path} could not be read: {error.strerror or error}.") from None


class Found(NamedTuple):
    """A captioned picture: in a folder, or, with offset and size, in an archive."""

    place: Path | Archive
    name: str
    captions: tuple[str, ...]
    file: str = ""
    """Its real path, by which a picture is known again; in an archive it has none."""
    offset: int = -1
    size: int = -1


def expand(pattern: str) -> list[str]:
    """The names for which "shards-{000..012}.tar" or "{a,b}/c.tar" stands; of a name without braces itself."""
    parts: list[list[str]] = []
    for literal, braced in re.findall(r"([^{}]+)|\{([^{}]*)\}", pattern):
        numbers = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", braced)
        if numbers:
            first, last = sorted(map(int, numbers.groups()))
            width = max(map(len, numbers.groups())) if any(n.startswith("0") for n in numbers.groups()) else 0
            parts.append([str(n).zfill(width) for n in range(first, min(last, first + MAX_SHARDS) + 1)])
        else:
            parts.append([literal] if literal else braced.split(","))
    count = 1
    for part in parts:
        count *= len(part)
    if count > MAX_SHARDS:
        raise UserError(
            f"--data {pattern} stands for more than {MAX_SHARDS:,} files; give a folder or a narrower range."
        )
    return ["".join(chosen) for chosen in product(*parts)]


def index(path: Path, wanted: bool = True) -> Iterator[Found | Unread]:
    """Every pair of an archive; if captions are not `wanted`, every picture."""
    try:
        with open(path, "rb") as file:
            yield from _paired(Archive(path.resolve(), _stamp(file)), file, path, wanted)
    except OSError as error:
        yield Unread(path, f"it could not be read ({error.strerror or error})")


def _stamp(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


@dataclass(slots=True)
class _Group:
    """What was found under one key."""

    picture: tuple[str, int, int] | None = None
    """Name, offset and size."""
    text: tuple[str, ...] | None = None
    json: tuple[str, ...] | None = None
    spoiled: bool = False
    """Whether a part of it cannot be used, which was said."""


def _paired(archive: Archive, file: BinaryIO, label: Path, wanted: bool) -> Iterator[Found | Unread]:
    """Members of one key are together as WebDataset writes them, or anywhere: those that lack a part wait for it."""
    groups: dict[str, _Group] = {}
    last = ""

    def done(key: str) -> Iterator[Found]:
        group = groups.get(key)
        captions = (group.text or group.json or (() if wanted else ("",))) if group else ()
        if captions and group.picture and not group.spoiled:
            del groups[key]
            name, offset, size = group.picture
            yield Found(archive, name, captions, offset=offset, size=size)

    for member in _members(file, label):
        if isinstance(member, Unread):
            yield member
            continue
        name, offset, size = member
        key, _, suffix = name.rpartition(".")
        suffix = suffix.lower()
        if not key or suffix not in ("txt", "json") and f".{suffix}" not in images.SUFFIXES:
            continue
        if name.rpartition("/")[2].startswith("."):  # what a Mac adds: ._picture.jpg
            continue
        if key != last:
            yield from done(last)
            last = key
        group = groups.setdefault(key, _Group())
        where = f"{label}/{name}"
        if suffix in ("txt", "json"):
            found = _captions(file, offset, size, where, suffix, wanted)
            if not isinstance(found, Unread):
                setattr(group, "text" if suffix == "txt" else "json", found)
            elif wanted and not (
                suffix == "json" and found.kind in ("no caption", "empty caption")
            ):  # a .txt may follow
                group.spoiled = True
                yield found
        elif group.picture:
            yield Unread(Path(where), f"it is the second picture of this name; {group.picture[0]} is used", "duplicate")
        elif bad := _fault(file, offset, size, where):
            group.spoiled = True
            yield bad
        else:
            group.picture = (name, offset, size)
    for key in list(groups):
        yield from done(key)
    for key, group in groups.items():
        if group.picture and not group.spoiled:
            sentence = f"it has no caption: the archive has no {key}.txt, and no {key}.json with a caption"
            yield Unread(Path(f"{label}/{group.picture[0]}"), sentence, "no caption")
        elif wanted and not group.spoiled and (group.text or group.json):
            yield Unread(Path(f"{label}/{key}"), "it is a caption without a picture", "no picture")


def _captions(
    file: BinaryIO, offset: int, size: int, where: str, suffix: str, wanted: bool
) -> tuple[str, ...] | Unread:
    limit = MAX_JSON if suffix == "json" else 4 * tables.MAX_CAPTION
    if size > limit:
        return Unread(Path(where), f"it has {size:,} bytes; of a caption at most {limit:,} are read", "too large")
    file.seek(offset)
    data = file.read(size)
    if suffix == "txt":
        return tables.of_text(data, where)
    try:
        row = json.loads(data)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        return Unread(Path(where), "it is not a JSON object", "not a row")
    return tables.of_json(row, where, wanted)


def _fault(file: BinaryIO, offset: int, size: int, where: str) -> Unread | None:
    """Why a picture cannot be used, by its size and its header."""
    if size > images.MAX_BYTES:
        return Unread(Path(where), f"it has more than {images.MAX_BYTES // 10**6} MB", "too large")
    file.seek(offset)
    head = file.read(min(size, HEAD))
    for data in (head, None):
        try:
            images.check(head + file.read(size - len(head)) if data is None else data, where)
        except images.TooLarge as error:
            return Unread(Path(where), str(error), "too large")
        except images.ImageError as error:
            reason = str(error)
            if size <= HEAD:
                break
        else:
            return None
    return Unread(Path(where), reason, "not decodable")


def _members(file: BinaryIO, label: Path) -> Iterator[tuple[str, int, int] | Unread]:
    """(name, offset, size) of every plain file. What an archive says of itself is checked against what is there."""
    end, position = os.fstat(file.fileno()).st_size, 0
    extended: dict[str, str] = {}  # what the header before said of this one: path, size, sparse
    while True:
        file.seek(position)
        block = file.read(BLOCK)
        if len(block) < BLOCK or not block.strip(b"\0"):
            if position == 0:
                yield Unread(label, "it is empty: no archive, or one without members", "damaged archive")
            return
        try:
            name, kind, size = _header(block)
            if kind not in EXTENSIONS:
                name, size = extended.get("path", name), int(extended.get("size", size))
        except ValueError:
            sentence = f"from byte {position:,} on it is damaged" if position else "it is no tar archive"
            if block.startswith(b"\x1f\x8b"):
                sentence = PACKED
            yield Unread(label, sentence, "damaged archive")
            return
        offset = position + BLOCK
        more = kind == tarfile.GNUTYPE_SPARSE and block[482]
        while more:  # blocks that tell where the holes of a sparse file are
            file.seek(offset)
            holes = file.read(BLOCK)
            more, offset = len(holes) == BLOCK and holes[504], offset + BLOCK
        size = 0 if kind in WITHOUT_DATA else size
        position = offset + -(-size // BLOCK) * BLOCK
        if size < 0 or offset + size > end:
            yield Unread(label, f"it is cut off within {name[:200]}", "damaged archive")
            return
        if kind in EXTENSIONS:
            file.seek(offset)
            extended |= _extension(file.read(min(size, MAX_EXTENSION)), kind)
            continue
        sparse = kind == tarfile.GNUTYPE_SPARSE or "sparse" in extended
        extended = {}
        if kind in tarfile.REGULAR_TYPES and not sparse and not name.endswith("/"):
            yield name, offset, size
        elif kind != tarfile.DIRTYPE and not name.endswith("/"):
            sentence = "it is a link, a device or a file with holes; plain files are read"
            yield Unread(Path(f"{label}/{name}"), sentence, "link or special member")


def _header(block: bytes) -> tuple[str, bytes, int]:
    """(name, type, size) of a member. Raises ValueError if the sum of the header's bytes is not what it says."""
    # the sum is taken as if its own place held spaces
    if int(block[148:156].strip(b" \0"), 8) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise ValueError("the sum is wrong")
    name, size = block[:100].split(b"\0", 1)[0], block[124:136]
    if block[257:263] == b"ustar\0" and block[345]:
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    # of 8 GB and more the size does not fit as octal digits: GNU's tar then writes bytes, with a mark before
    number = int.from_bytes(size[1:], "big") if size[0] == 0x80 else int(size.strip(b" \0") or b"0", 8)
    return name.decode("utf-8", "surrogateescape"), block[156:157], number


def _extension(data: bytes, kind: bytes) -> dict[str, str]:
    """What an extension says of the header that follows: a long name (GNU), or records "LENGTH KEY=VALUE" (pax), of which
    those are read that are well formed and matter here."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")}
    found: dict[str, str] = {}
    place = 0
    while kind in PAX and (record := RECORD.match(data, place)):
        after = place + int(record[1])
        if not record.end() < after <= len(data):
            break
        if record[2] in (b"path", b"size"):
            found[record[2].decode()] = data[record.end() : after - 1].decode("utf-8", "surrogateescape")
        elif record[2].startswith(b"GNU.sparse"):
            found["sparse"] = "yes"
        place = after
    return found
