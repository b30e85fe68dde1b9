"""Labelled pictures to judge a model on: folders of classes and tables in, files with class and split out.

A folder holds a folder for each class, or train/, validation/ and test/ with those in them; a table has the columns file,
label and, as wanted, split. Classes are in the order of their names, whatever came first: a place is never a class.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from clip.index import File, walk
from clip.labels import TABLES, find_column, read_table
from clip.truth import LABEL_COLUMNS, MAX_TRUTH_BYTES
from multimodal import cli, images
from multimodal.cli import UserError
from multimodal.data.report import printable
from multimodal.data.tables import IMAGE_COLUMNS

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
SPLIT_COLUMNS = ("split", "subset", "partition", "part")
PARTS = 5  # where nothing is said, one picture in five is to judge on, and one in five to choose by
NAMED = 5  # pictures that are not used and are named; more are counted


@dataclass(frozen=True)
class Labelled:
    """Pictures whose classes are known."""

    files: tuple[File, ...]
    """Named by their absolute paths."""
    labels: Int[Tensor, "b"]
    """Places of their classes."""
    classes: tuple[str, ...]
    """As the data calls them, sorted."""
    splits: tuple[str, ...]
    """Of each picture: train, validation, test, or "" where the data does not say."""


@dataclass(frozen=True)
class Division:
    """Which pictures are for what."""

    train: Int[Tensor, "t"]
    validation: Int[Tensor, "v"]
    test: Int[Tensor, "s"]
    sentence: str
    """How it came about."""


def captioned(folder: Path) -> bool:
    """Whether a folder says of its pictures more than their classes: texts beside them, a table of captions, archives."""
    for _, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        stems = {os.path.splitext(name) for name in names}
        texts = {stem for stem, suffix in stems if suffix == ".txt"}
        if any(stem in texts and suffix.lower() in images.SUFFIXES for stem, suffix in stems):
            return True
        if any(stem in ("metadata", "captions") or suffix.lower() == ".tar" for stem, suffix in stems):
            return True
    return False


def has_labels(path: Path) -> bool:
    """Whether a path is a folder of classes, or a table with labels. Raises UserError for one that does not exist."""
    if path.is_dir():
        return not captioned(path) and any("/" in file.name for file in walk(path)[0])
    if path.suffix.lower() in TABLES and path.is_file():
        columns, _ = read_table(path, "the table", MAX_TRUTH_BYTES)
        return all(find_column(columns, wanted) is not None for wanted in (IMAGE_COLUMNS, LABEL_COLUMNS))
    return False


def read(paths: Sequence[Path]) -> tuple[Labelled, int]:
    """(the pictures below the paths, how many were left out and told on stderr)."""
    found: dict[str, tuple[File, str, str]] = {}
    odd: list[str] = []
    for path in paths:
        for name, label, split in _folder(path, odd) if path.is_dir() else _table(path, odd):
            file = name if isinstance(name, File) else _stat(name, odd)
            if file is None:
                continue
            if found.setdefault(file.name, (file, label, split))[1] != label:
                odd.append(f"{file.name} is {found[file.name][1]!r} and {label!r}: the first counts")
    for sentence in odd[:NAMED]:
        cli.say(printable(f"not used: {sentence}."))
    if len(odd) > NAMED:
        cli.say(f"not used: {len(odd) - NAMED:,} more.")
    classes = tuple(sorted({label for _, label, _ in found.values()}))
    if len(classes) < 2:
        given = ", ".join(map(str, paths))
        raise UserError(f"{given}: pictures of {len(classes)} classes were found; at least 2 are needed to tell apart.")
    rows = [found[name] for name in sorted(found)]
    place = {label: i for i, label in enumerate(classes)}
    labels = torch.tensor([place[label] for _, label, _ in rows])
    return Labelled(tuple(row[0] for row in rows), labels, classes, tuple(row[2] for row in rows)), len(odd)


def _folder(folder: Path, odd: list[str]):
    files, closed = walk(folder)
    odd += [f"{folder / name} could not be read ({why})" for name, why in closed.items()]
    tops = {file.name.partition("/")[0] for file in files if "/" in file.name}
    splits = bool(tops) and all(top.lower() in SPLITS for top in tops) and all(f.name.count("/") > 1 for f in files)
    for file in files:
        parts = file.name.split("/")
        if len(parts) < 2:
            odd.append(f"{folder / file.name} lies in no class's folder")
            continue
        name = os.path.join(os.path.abspath(folder), file.name)
        split = SPLITS[parts[0].lower()] if splits else ""
        yield File(name, file.size, file.time), parts[1 if splits else 0], split


def _table(path: Path, odd: list[str]):
    columns, rows = read_table(path, "the table", MAX_TRUTH_BYTES)
    where = [find_column(columns, names) for names in (IMAGE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS)]
    for number, cells in rows:
        picture, label, split = ("" if place is None else cells[place].strip() for place in where)
        if not picture or not label:
            odd.append(f"{path}:{number} needs a file and a label")
        elif split and split.lower() not in SPLITS:
            odd.append(f"{path}:{number} names the split {split!r}; known are {', '.join(SPLITS)}")
        else:
            yield os.path.abspath(os.path.join(path.parent, picture)), label, SPLITS.get(split.lower(), "")


def _stat(name: str, odd: list[str]) -> File | None:
    try:
        status = os.stat(name)
    except (OSError, ValueError) as error:
        odd.append(f"{name} could not be read ({getattr(error, 'strerror', None) or error})")
        return None
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without an end
        odd.append(f"{name} is no file")
        return None
    return File(name, status.st_size, status.st_mtime_ns)


def chosen(found: Labelled, places: Sequence[int]) -> Labelled:
    """Some of the pictures."""
    files, splits = ([of[i] for i in places] for of in (found.files, found.splits))
    return Labelled(tuple(files), found.labels[torch.tensor(places)], found.classes, tuple(splits))


def divide(found: Labelled, seed: int) -> Division:
    """Pictures to learn from, to choose settings by and to judge on, as the data says; what it does not say is drawn class
    by class by the seed."""
    splits = found.splits
    of = {name: torch.tensor([i for i, s in enumerate(splits) if s == name], dtype=torch.int64) for name in set(splits)}
    none = torch.empty(0, dtype=torch.int64)
    train, validation, test = (of.get(name, none) for name in ("train", "validation", "test"))
    if not len(test) and not len(validation):
        rest = of.get("", none) if not len(train) else train
        test, rest = _drawn(rest, found.labels, seed)
        validation, train = _drawn(rest, found.labels, seed + 1, PARTS - 1)
        said = f"drawn by seed {seed}, class by class: a fifth to judge on (test), a fifth to choose by (validation)"
        return Division(train, validation, test, said)
    said = "as in the data"
    if not len(test):
        validation, test = none, validation
        said += ", whose validation pictures are those to judge on"
    if not len(validation) and len(train):
        validation, train = _drawn(train, found.labels, seed)
        said += f"; validation: a fifth of the training pictures, drawn by seed {seed} class by class"
    return Division(train, validation, test, said)


def _drawn(
    rows: Int[Tensor, "r"], labels: Int[Tensor, "b"], seed: int, parts: int = PARTS
) -> tuple[Int[Tensor, "a"], Int[Tensor, "c"]]:
    """One in so many of each class, at least one where there are two, and the others."""
    order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    taken = []
    for label in labels[rows].unique():
        mine = order[labels[order] == label]
        taken.append(mine[: max(round(len(mine) / parts), 1) if len(mine) > 1 else 0])
    chosen = torch.cat(taken).sort().values if taken else rows
    return chosen, rows[~torch.isin(rows, chosen)]
