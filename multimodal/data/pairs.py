"""Captioned pictures of the user: folders and tables in, (picture, caption) items out, and a list of what is not used.

Read are folders of pictures with a same-stem .txt (each line a caption), `metadata.jsonl` (file_name, text), CSV and
TSV tables, and, where a folder has no captions at all, folders of classes ("a picture of a <folder>"). A source, here
or made up (drawings.py), has a length and gives item i the same way every time.
"""

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from torch import Tensor

from multimodal import cli, images
from multimodal.cli import UserError

IMAGE_COLUMNS = ("image", "file_name", "filename", "filepath", "file", "path")
CAPTION_COLUMNS = ("caption", "text", "title", "description")
MAX_CAPTION = 10_000  # characters; a longer one is a document, not a caption
MAX_TABLE_BYTES = 4_000_000_000


@dataclass(frozen=True)
class Item:
    """A captioned picture; items that share one of their identities match each other in a contrastive loss."""

    image: UInt8[Tensor, "3 s s"]
    caption: str
    identity: tuple[int, ...]


@dataclass(frozen=True)
class Unread:
    """What was not used, and why."""

    path: Path
    reason: str


@runtime_checkable
class PairSource(Protocol):
    def __len__(self) -> int: ...

    def item(self, index: int, size: int = 64) -> Item: ...


@dataclass(frozen=True)
class Pair:
    path: Path
    captions: tuple[str, ...]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 2


@cache
def _say_once(sentence: str) -> None:
    cli.say(sentence)


@dataclass(frozen=True)
class FolderPairs:
    """The user's pairs: an item for each caption of each picture. Items match by their picture or by their caption. A
    picture that fails when it is wanted is replaced by the next, and named once."""

    pairs: tuple[Pair, ...]

    def __len__(self) -> int:
        return len(self._items)

    @cached_property
    def _items(self) -> list[tuple[int, int]]:
        """(picture, caption) numbers."""
        return [(i, k) for i, pair in enumerate(self.pairs) for k in range(len(pair.captions))]

    def item(self, index: int, size: int = 64) -> Item:
        for offset in range(len(self)):
            number, which = self._items[(index + offset) % len(self)]
            pair = self.pairs[number]
            try:
                picture = images.square(images.read(pair.path), size)
            except images.ImageError as error:
                _say_once(f"not used: {error}")
                continue
            return Item(picture, pair.captions[which], (_number(str(pair.path)), _number(pair.captions[which])))
        raise UserError(f"none of the {len(self.pairs)} pictures could be read.")

    def split(self, part: str) -> "FolderPairs":
        """`train`, or `held_out`: about one in twenty files, always the same, at least one of each."""
        held = [_number(pair.path.name + pair.captions[0]) % 20 == 0 for pair in self.pairs]
        if not any(held):
            held[-1] = True
        if all(held):
            held[0] = False
        return replace(self, pairs=tuple(p for p, h in zip(self.pairs, held, strict=True) if h == (part == "held_out")))


def batch(source: PairSource, indices: Sequence[int], size: int) -> dict:
    """Items of a source as {"image": uint8 (b 3 size size), "caption": list of b, "identity": int64 (b k)}."""
    items = [source.item(index, size) for index in indices]
    return {
        "image": torch.stack([item.image for item in items]),
        "caption": [item.caption for item in items],
        "identity": torch.tensor([item.identity for item in items]),
    }


def read_pairs(paths: Sequence[Path | str], captions: bool = True) -> tuple[FolderPairs, list[Unread]]:
    """Every captioned picture below the paths; with `captions` False also those without, which then have the caption "".
    Raises UserError for a path that does not exist."""
    pairs: dict[Path, Pair] = {}
    unread: list[Unread] = []
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"--data {path} does not exist.")
        found = _folder(path, captions) if path.is_dir() else _table(path, captions)
        for entry in found:
            if isinstance(entry, Unread):
                unread.append(entry)
            elif entry.path in pairs:  # named by two tables, or twice in one: all its captions
                known = pairs[entry.path]
                pairs[entry.path] = Pair(entry.path, tuple(dict.fromkeys((*known.captions, *entry.captions))))
            else:
                pairs[entry.path] = entry
    return FolderPairs(tuple(pairs.values())), unread


def hidden(path: Path, folder: Path) -> bool:
    """Whether the file, or a folder on the way to it, is one that programs keep for themselves: .git, .thumbnails."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _folder(folder: Path, captions: bool) -> Iterator[Pair | Unread]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not hidden(path, folder))
    tables = [
        f for f in files if f.name in ("metadata.jsonl", "metadata.csv", "metadata.tsv", "captions.csv", "captions.tsv")
    ]
    pictures = [f for f in files if f.suffix.lower() in images.SUFFIXES]
    if tables:
        described = set()
        for table in tables:
            for entry in _table(table, captions):
                described.add(entry.path)
                yield entry
        pictures = [p for p in pictures if p.resolve() not in described and p not in described]
    with_text = [p for p in pictures if p.with_suffix(".txt").is_file()]
    classes = not tables and not with_text and all(p.parent != folder for p in pictures)
    for picture in pictures:
        text = picture.with_suffix(".txt")
        if not _opens(picture):
            yield Unread(picture, "it is not a picture that can be read")
        elif text.is_file() and captions:
            yield _captioned(picture, text)
        elif classes:
            name = picture.parent.name.replace("_", " ").replace("-", " ")
            yield Pair(
                picture.resolve(),
                (f"a picture of {'an' if name[:1].lower() in set('aeiou') else 'a'} {name}",),
            )
        elif not captions:
            yield Pair(picture.resolve(), ("",))
        else:
            yield Unread(picture, f"it has no caption: no {text.name} beside it and no line in a table")


def _opens(path: Path) -> bool:
    """Whether the header is a picture's: cheap, the pixels are decoded when they are wanted."""
    from PIL import Image

    try:
        with Image.open(path, formats=images.FORMATS) as image:
            return image.size[0] * image.size[1] <= images.MAX_PIXELS
    except Exception:  # whatever a damaged header raises, the answer is no
        return False


def _captioned(picture: Path, text: Path) -> Pair | Unread:
    try:
        if text.stat().st_size > MAX_CAPTION * 4:
            return Unread(text, f"it has more than {MAX_CAPTION} characters, a caption is shorter")
        lines = [" ".join(line.split()) for line in text.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        return Unread(text, f"its text could not be read ({error.__class__.__name__})")
    captions = tuple(line for line in lines if line)
    return Pair(picture.resolve(), captions) if captions else Unread(text, "it holds no caption")


def _table(path: Path, wanted: bool) -> Iterator[Pair | Unread]:
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise UserError(f"--data {path} has more than {MAX_TABLE_BYTES // 10**9} GB; split it.")
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".csv", ".tsv"):
        raise UserError(
            f"--data {path}: folders, .jsonl, .csv and .tsv are read, not {suffix or 'files without a suffix'}."
        )
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = _json_rows(file) if suffix == ".jsonl" else _csv_rows(file, "\t" if suffix == ".tsv" else None)
            yield from (_row(path, number, row, wanted) for number, row in rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        yield Unread(path, f"the rest of the table could not be read: {error}")


def _json_rows(file) -> Iterator[tuple[int, dict | None]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield number, row if isinstance(row, dict) else None


def _csv_rows(file, delimiter: str | None) -> Iterator[tuple[int, dict | None]]:
    if delimiter is None:  # "CSV" files of some tools are separated by tabs or semicolons: the first line tells
        head = file.readline()
        file.seek(0)
        delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(file, delimiter=delimiter)
    for row in reader:
        yield reader.line_num, row


def _row(table: Path, number: int, row: dict | None, wanted: bool) -> Pair | Unread:
    where = Path(f"{table}:{number}")
    if row is None:
        return Unread(where, "the line is not a JSON object")
    lower = {str(name).strip().lower(): value for name, value in row.items() if name is not None}
    name = next((lower[c] for c in IMAGE_COLUMNS if lower.get(c)), None)
    texts = next((lower[c] for c in CAPTION_COLUMNS if lower.get(c)), None)
    if not isinstance(name, str):
        return Unread(where, f"no picture is named; expected a column {', '.join(IMAGE_COLUMNS)}")
    texts = texts if isinstance(texts, list) else [texts]
    captions = tuple(" ".join(text.split())[:MAX_CAPTION] for text in texts if isinstance(text, str) and text.strip())
    if not captions and not wanted:
        captions = ("",)
    if not captions:
        return Unread(where, f"no caption is given; expected a column {', '.join(CAPTION_COLUMNS)}")
    folder = table.parent.resolve()
    try:
        picture = (folder / name).resolve()
        there = picture.is_file()
    except (OSError, ValueError, RuntimeError):  # longer than any name, with a zero in it, a link to itself
        return Unread(where, f"{name[:80]!r} does not exist and is no name of a file")
    if not picture.is_relative_to(folder):
        return Unread(where, f"{name} lies outside the table's folder {table.parent}")
    if not there:
        return Unread(where, f"{name} does not exist")
    return Pair(picture, captions) if _opens(picture) else Unread(where, f"{name} is not a picture that can be read")
