"""Captioned pictures of the user: folders, tables and tar archives in, (picture, caption) items out, and a report.

Read are folders of pictures with a same-stem .txt (each line a caption), tables (tables.py), WebDataset archives
(shards.py), and, where a folder has no captions at all, folders of classes ("a picture of a <folder>"). A source, here
or made up (drawings.py), has a length and gives item i the same way every time: what `training.shuffled` asks for is a
true shuffle, whatever lies where.
"""

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from multimodal import cli, images
from multimodal.cli import UserError
from multimodal.data import shards, tables
from multimodal.data.report import FEW, Report, Tally, Unread, printable
from multimodal.data.shards import Archive, Found

T = TypeVar("T")
TABLES = ("metadata", "captions")  # a table of one of these names in a folder describes its pictures
WORKERS = 4  # threads that decode; more wait for Python's lock


@dataclass(frozen=True)
class Item:
    """A captioned picture; items that share one of their identities match each other in a contrastive loss."""

    image: UInt8[Tensor, "3 s s"]
    caption: str
    identity: tuple[int, ...]


@runtime_checkable
class PairSource(Protocol):
    def __len__(self) -> int: ...

    def item(self, index: int, size: int = 64) -> Item: ...

    def fingerprint(self) -> str:
        """Tells what the items are from all others, as far as it can be told without reading the pictures."""
        ...


@dataclass(frozen=True)
class Pair:
    """A picture with all its captions. The path of a picture in an archive is archive/name, and opens nothing."""

    path: Path
    captions: tuple[str, ...]


class Strings(Sequence[str]):
    """Many strings in one block of memory: their bytes and 8 more each, where objects take 60."""

    def __init__(self):
        self._bytes, self._ends = bytearray(), array("q", [0])

    def append(self, text: str) -> None:
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogatepass")


class Store:
    """Every picture and caption that was found, in blocks of memory: a pair takes about 100 bytes besides its words."""

    def __init__(self):
        self.places: list[Path | Archive] = []
        self._numbers: dict[Path | Archive, int] = {}
        self._where = array("q")  # of every picture: number of its place, offset, size
        self._names, self._captions = Strings(), Strings()
        self._owners = array("q")  # of every caption: number of its picture
        self.broken: set[int] = set()  # pictures that could not be read when they were wanted

    def __len__(self) -> int:
        return len(self._names)

    def picture(self, place: Path | Archive, name: str, offset: int, size: int) -> int:
        """Adds a picture, and tells its number."""
        if place not in self._numbers:
            self._numbers[place] = len(self.places)
            self.places.append(place)
        self._where.extend((self._numbers[place], offset, size))
        self._names.append(name)
        return len(self) - 1

    def caption(self, picture: int, caption: str) -> None:
        self._owners.append(picture)
        self._captions.append(caption)

    def sort(self) -> None:
        """Once, when all is found: brings the captions of each picture together."""
        owners = np.array(self._owners, np.int64)
        self._owners = array("q")
        self._order = np.argsort(owners, kind="stable")
        self.first = np.searchsorted(owners[self._order], np.arange(len(self) + 1))
        """Captions of picture i: first[i] to first[i + 1]."""

    def said(self, picture: int, which: int) -> str:
        return self._captions[int(self._order[self.first[picture] + which])]

    def captions(self, picture: int) -> tuple[str, ...]:
        return tuple(self.said(picture, which) for which in range(int(self.first[picture + 1] - self.first[picture])))

    def path(self, picture: int) -> Path:
        place = self.places[self._where[3 * picture]]
        # of an archive's member the name is a label, which must not lead elsewhere if it begins with /
        return place / self._names[picture] if isinstance(place, Path) else Path(f"{place.path}/{self._names[picture]}")

    def identity(self, picture: int) -> int:
        """Equal for one picture: names in an archive may occur twice."""
        offset = self._where[3 * picture + 1]
        return _number(f"{self.path(picture)}{'' if offset < 0 else f':{offset}'}")

    def stamp(self, picture: int) -> tuple:
        """Name, place, size and time of a picture's file: another if it was changed."""
        number, offset, _ = self._where[3 * picture : 3 * picture + 3]
        place, path = self.places[number], self.path(picture)
        try:
            seen = os.stat(path if isinstance(place, Path) else place.path)
        except OSError:
            return str(path), offset
        return str(path), offset, seen.st_size, seen.st_mtime_ns

    def read(self, picture: int, size: int) -> Image.Image:
        number, offset, length = self._where[3 * picture : 3 * picture + 3]
        place = self.places[number]
        if isinstance(place, Path):
            return images.read(self.path(picture), size)
        return images.read(place.read(offset, length), size, str(self.path(picture)))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 2


@dataclass(frozen=True, eq=False)
class Pairs:
    """The user's pairs: an item for each caption of each picture. Items match by their picture or by their caption. A
    picture that fails when it is wanted is replaced by the next, and named once."""

    store: Store
    chosen: Int[np.ndarray, " pictures"]
    """Numbers of the pictures of this part."""
    ends: Int[np.ndarray, " pictures"]
    """How many items there are up to and with each of them."""

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def pairs(self) -> Sequence[Pair]:
        """The pictures with their captions; each is made when it is asked for."""
        return _View(self)

    def item(self, index: int, size: int = 64) -> Item:
        if not 0 <= index < len(self):
            raise IndexError(index)
        for offset in range(len(self)):
            wanted = (index + offset) % len(self)
            place = int(np.searchsorted(self.ends, wanted, "right"))
            picture = int(self.chosen[place])
            caption = self.store.said(picture, wanted - (int(self.ends[place - 1]) if place else 0))
            try:
                image = images.square(self.store.read(picture, size), size)
            except images.ImageError as error:
                self._name(picture, error)
                continue
            return Item(image, caption, (self.store.identity(picture), _number(caption)))
        raise UserError(f"none of the {len(self.chosen):,} pictures could be read.")

    def fingerprint(self) -> str:
        found = hashlib.sha256()
        for picture in self.chosen.tolist():
            found.update(repr((self.store.stamp(picture), self.store.captions(picture))).encode())
        return found.hexdigest()

    def _name(self, picture: int, error: images.ImageError) -> None:
        broken = self.store.broken
        if picture not in broken:
            broken.add(picture)
            if len(broken) <= FEW:
                cli.say(printable(f"not used: {error}"))
            elif len(broken) == FEW + 1:
                cli.say("not used: more pictures that cannot be read, which are not named.")

    def split(self, part: str) -> "Pairs":
        """`train`, or `held_out`: about one in twenty files, always the same, at least one of each."""
        held = np.array([_number(pair.path.name + pair.captions[0]) % 20 == 0 for pair in self.pairs], bool)
        if not held.any():
            held[-1] = True
        if held.all():
            held[0] = False
        return _part(self.store, self.chosen[held == (part == "held_out")])


def _part(store: Store, chosen: np.ndarray) -> Pairs:
    return Pairs(store, chosen, np.cumsum(store.first[chosen + 1] - store.first[chosen]))


class _View(Sequence[Pair]):
    def __init__(self, source: Pairs):
        self._source = source

    def __len__(self) -> int:
        return len(self._source.chosen)

    def __getitem__(self, index: int) -> Pair:
        picture = int(self._source.chosen[index])
        return Pair(self._source.store.path(picture), self._source.store.captions(picture))


@cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1), "pictures")


def batch(source: PairSource, indices: Sequence[int], size: int) -> dict:
    """Items of a source as {"image": uint8 (b 3 size size), "caption": list of b, "identity": int64 (b k)}. The user's
    files are decoded by several threads: Pillow works outside of Python's lock."""
    apply = _workers().map if isinstance(source, Pairs) else map
    items = list(apply(lambda index: source.item(index, size), indices))
    return {
        "image": torch.stack([item.image for item in items]),
        "caption": [item.caption for item in items],
        "identity": torch.tensor([item.identity for item in items]),
    }


def share(items: Sequence[T], rank: int, world: int) -> Sequence[T]:
    """What process `rank` of `world` takes of a batch, which every process knows whole (`training.shuffled` is a pure
    function): the shares are disjoint, together all of it, and equally long. A share can be shared again, to workers.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is not one of {world} processes, which count from 0.")
    if len(items) % world:
        raise UserError(
            f"a batch of {len(items)} pictures does not divide among {world} processes; give a multiple of {world}."
        )
    return items[rank::world]


def read_pairs(paths: Iterable[Path | str], captions: bool = True) -> tuple[Pairs, Report]:
    """Every captioned picture below the paths (folders, tables, archives, "shards-{000..012}.tar"), and what is not used;
    with `captions` False also those without, which then have the caption "". Raises UserError for a path that does not
    exist."""
    store, tally = Store(), Tally()
    numbers: dict[str, int] = {}  # file -> number of the picture
    seen: set[int] = set()
    archives: set[Path] = set()
    with cli.bar(unit="picture", desc="finding") as shown:
        for path in dict.fromkeys(_named(paths, tally)):
            for entry in _entries(path, captions, archives):
                if isinstance(entry, Unread):
                    tally.add(entry)
                    continue
                place, name, texts, file, offset, size = entry
                number = numbers.get(file)
                if number is None:
                    number = store.picture(place, name, offset, size)
                    shown.update()
                for text in texts:
                    if file and hash((number, text)) in seen:
                        tally.add(Unread(place / name, f"it is there already as {text[:80]!r}", "duplicate"))
                        continue
                    if file:  # in an archive every picture occurs once
                        numbers[file] = number
                        seen.add(hash((number, text)))
                    store.caption(number, text)
    store.sort()
    return _part(store, np.arange(len(store))), tally.report(len(store), int(store.first[-1]))


def _named(paths: Iterable[Path | str], tally: Tally) -> Iterator[Path]:
    """The paths that exist, patterns written out."""
    for path in map(Path, paths):
        if path.exists():
            yield path
            continue
        names = shards.expand(str(path))
        there, missing = [], []
        for name in names:
            (there if Path(name).exists() else missing).append(Path(name))
        if not there:
            many = f": none of {len(names):,} files is there, {names[0]} being the first" if len(names) > 1 else ""
            raise UserError(f"--data {path} does not exist{many}.")
        for name in missing:
            tally.add(Unread(name, f"it does not exist, but {path} names it", "missing"))
        yield from there


def _entries(path: Path, captions: bool, archives: set[Path]) -> Iterator[Found | Unread]:
    """What a path holds; of the `archives`, which it adds to, each is read once."""
    if path.is_dir():
        yield from _folder(path, captions, archives)
    elif path.name.lower().endswith(shards.COMPRESSED):
        yield Unread(path, shards.PACKED)
    elif path.suffix.lower() == ".tar":
        if path.resolve() in archives:
            yield Unread(path, "it was read already", "duplicate")
        else:
            archives.add(path.resolve())
            yield from shards.index(path, captions)
    elif path.suffix.lower() in tables.SUFFIXES:
        yield from _table(path, captions)
    else:
        suffix = path.suffix.lower() or "files without a suffix"
        raise UserError(f"--data {path}: folders, .tar, .jsonl, .csv and .tsv are read, not {suffix}.")


def hidden(path: Path, folder: Path) -> bool:
    """Whether the file, or a folder on the way to it, is one that programs keep for themselves: .git, .thumbnails."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _files(folder: Path, closed: list[Unread]) -> Iterator[str]:
    """Names, relative to the folder, of the files below it that are not hidden."""

    def note(error: OSError) -> None:
        closed.append(Unread(Path(error.filename), f"the folder could not be read ({error.strerror})"))

    for root, inner, names in os.walk(folder, onerror=note):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        below = os.path.relpath(root, folder).replace(os.sep, "/")
        for name in sorted(names):
            if not name.startswith(".") and os.path.isfile(os.path.join(root, name)):
                yield name if below == "." else f"{below}/{name}"


def _folder(folder: Path, wanted: bool, archives: set[Path]) -> Iterator[Found | Unread]:
    closed: list[Unread] = []
    files = dict.fromkeys(_files(folder, closed))
    yield from closed
    place, described = folder.resolve(), set()
    named = {f"{name}{suffix}" for name in TABLES for suffix in tables.SUFFIXES}
    described_by = [name for name in files if name.rpartition("/")[2] in named]
    for name in files:
        if name.lower().endswith((".tar", *shards.COMPRESSED)):
            yield from _entries(folder / name, wanted, archives)
    for name in described_by:
        for entry in _table(folder / name, wanted):
            if isinstance(entry, Found):
                described.add(entry.file)
            yield entry
    pictures = {
        name: os.path.realpath(place / name) for name in files if os.path.splitext(name)[1].lower() in images.SUFFIXES
    }
    texts = {f"{os.path.splitext(name)[0]}.txt" for name in pictures}
    with_text = bool(texts & files.keys())
    classes = not described_by and not with_text and all("/" in name for name in pictures)
    for name, file in pictures.items():
        if file in described:
            continue
        text = f"{os.path.splitext(name)[0]}.txt"
        if bad := _fault(folder / name):
            yield Unread(folder / name, *bad)
        elif text in files and wanted:
            yield _captioned(place, name, file, folder / text)
        elif classes:
            kind = name.split("/")[-2].replace("_", " ").replace("-", " ")
            article = "an" if kind[:1].lower() in set("aeiou") else "a"
            yield Found(place, name, (f"a picture of {article} {kind}",), file)
        elif not wanted:
            yield Found(place, name, ("",), file)
        else:
            sentence = f"it has no caption: no {text.rpartition('/')[2]} beside it and no line in a table"
            yield Unread(folder / name, sentence, "no caption")
    if with_text and wanted and not described_by:
        for name in files:
            if name.endswith(".txt") and name not in texts:
                yield Unread(folder / name, "no picture of the same name is beside it", "no picture")


def _fault(path: Path) -> tuple[str, str] | None:
    """Why a picture cannot be used, by its header, and under what that counts; its pixels are decoded when wanted."""
    try:
        images.check(path)
    except images.TooLarge as error:
        return str(error).rstrip("."), "too large"
    except images.ImageError:
        return "it is not a picture that can be read", "not decodable"
    return None


def _captioned(place: Path, name: str, file: str, text: Path) -> Found | Unread:
    try:
        with open(text, "rb") as opened:
            captions = tables.of_text(opened.read(4 * tables.MAX_CAPTION + 1), str(text))
    except OSError as error:
        return Unread(text, f"its text could not be read ({error.strerror or error})")
    return captions if isinstance(captions, Unread) else Found(place, name, captions, file)


def _table(path: Path, wanted: bool) -> Iterator[Found | Unread]:
    folder, sound = path.parent.resolve(), set()
    for row in tables.rows(path, wanted):
        yield row if isinstance(row, Unread) else _beside(folder, row, sound)


def _beside(folder: Path, row: tables.Row, sound: set[str]) -> Found | Unread:
    """The picture that a row names, which must lie in the table's folder. One that is `sound` is not looked at again."""
    where = Path(row.where)
    shown = row.picture if len(row.picture) <= 80 else f"{row.picture[:80]}..."
    if row.picture.startswith(("http://", "https://")):
        return Unread(where, f"{shown} is an address; download the pictures first", "missing")
    inside = str(folder / "_")[:-1]
    try:
        file = os.path.realpath(inside + row.picture if not os.path.isabs(row.picture) else row.picture)
        there = file in sound or os.path.isfile(file)
    except (OSError, ValueError):  # longer than any name, with a zero in it
        return Unread(where, f"{shown!r} does not exist and is no name of a file", "missing")
    if not f"{file}{os.sep}".startswith(inside):
        sentence = f"{shown} lies outside the table's folder {folder}"
        return Unread(where, sentence, "absolute path" if os.path.isabs(row.picture) else "outside the folder")
    if not there:
        return Unread(where, f"{shown} does not exist", "missing")
    if file not in sound and (bad := _fault(Path(file))):
        return Unread(where, f"{shown}: {bad[0]}", bad[1])
    sound.add(file)
    return Found(folder, file[len(inside) :].replace(os.sep, "/"), row.captions, file)
