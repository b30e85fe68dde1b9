"""Class names of strangers: words, a list or table in a file, a folder of folders in; `Label`s or a sentence out. No torch.

A class has a key, by which results and truth call it, and one or more names, by which prompts call it: what is good for
a program (AnnualCrop) says little to a model, which has read sentences (annual crop land).
"""

import csv
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from multimodal.cli import UserError
from multimodal.tokenizer import caption

MAX_LABELS = 100_000
MAX_TABLE_BYTES = 10_000_000
TABLES = (".csv", ".tsv")
SEPARATOR = "|"  # between several names or prompts in a cell
UNDECODED = re.compile("[\ud800-\udfff]")  # bytes that are no UTF-8, as Python keeps them
COLUMNS = {
    "label": ("label", "labels", "class", "classname", "key"),
    "names": ("names", "name", "synonyms"),
    "prompts": ("prompts", "prompt"),
}


@dataclass(frozen=True)
class Label:
    """A class."""

    key: str
    """How results and truth call it."""
    names: tuple[str, ...]
    """How prompts call it; several are averaged, as templates are."""
    prompts: tuple[str, ...] = ()
    """Sentences of its own, instead of the templates; {} stands for each name."""
    aliases: tuple[str, ...] = ()
    """What else truth may call it, such as a data set's name for its folder."""


def given(words: Sequence[str]) -> list[Label]:
    """A class for each of the words. Raises UserError for what cannot be told apart."""
    return checked([Label(word, (word,)) for word in words])


def checked(labels: Sequence[Label]) -> list[Label]:
    """The same labels. Raises UserError where one is empty or no text, or two are the same."""
    labels = list(labels)
    if not labels:
        raise UserError("no labels were given: name at least two classes, such as --labels cat dog.")
    if len(labels) > MAX_LABELS:
        raise UserError(f"{len(labels):,} labels were given; at most {MAX_LABELS:,} are taken.")
    seen: dict[tuple[str, ...], Label] = {}
    keys: dict[str, None] = {}
    for number, label in enumerate(labels, 1):
        if not all(name.strip() for name in label.names) or not label.names:
            raise UserError(f"label {number} of {len(labels)} is empty: give every class a name.")
        if any(UNDECODED.search(text) for text in (*label.names, *label.prompts)):
            raise UserError(f"label {number} of {len(labels)} ({label.key!a}) is not text in UTF-8.")
        if label.key in keys:
            raise UserError(f"label {label.key!r} is given twice: labels must differ, leave one out.")
        keys[label.key] = None
        means = tuple(sorted({caption(text) for text in label.prompts or label.names}))
        if label.prompts and any("{}" in prompt for prompt in label.prompts):
            means += tuple(sorted({caption(name) for name in label.names}))
        if (other := seen.get(means)) is not None:
            raise UserError(
                f"label {label.key!r} means the same as {other.key!r} to the model: labels must differ, leave one out."
            )
        seen[means] = label
    return labels


# ---- from files and folders


def from_file(path: Path) -> list[Label]:
    """The classes of a text, one a line, or of a table with the column label and, as wanted, names and prompts."""
    if path.suffix.lower() not in TABLES:
        lines = read_text(path, "--labels-file").splitlines()
        return given([line.strip() for line in lines if line.strip()])
    columns, rows = read_table(path, "--labels-file")
    places = {what: find_column(columns, names) for what, names in COLUMNS.items()}
    if places["label"] is None:
        raise UserError(
            f"--labels-file {path} has no column label; its columns are {_shown(columns)}: the first line names them, "
            "label and, as wanted, names and prompts."
        )
    found: dict[str, tuple[list[str], list[str]]] = {}
    for number, row in rows:
        cells = {what: "" if place is None else row[place].strip() for what, place in places.items()}
        if not cells["label"]:
            raise UserError(f"--labels-file {path}: line {number} names no label.")
        more = [_parts(cells[what]) for what in ("names", "prompts")]
        if cells["label"] in found and not any(more):
            raise UserError(f"--labels-file {path}: label {cells['label']!r} is given twice, again in line {number}.")
        mine = found.setdefault(cells["label"], ([], []))
        for kept, new in zip(mine, more, strict=True):
            kept += [text for text in new if text not in kept]
    return checked([Label(key, tuple(names) or (key,), tuple(prompts)) for key, (names, prompts) in found.items()])


def from_folder(folder: Path) -> list[Label]:
    """A class for each folder in the folder, in the order of their names; their names in words."""
    try:
        inside = sorted(entry.name for entry in os.scandir(folder) if _is_class(entry.path, os.path.realpath(folder)))
    except OSError as error:
        raise UserError(f"--labels-from {folder} could not be read: {error.strerror}.") from None
    if not inside:
        raise UserError(f"--labels-from {folder} has no folders in it: each of them would be a class.")
    return checked([Label(name, (words(UNDECODED.sub("?", name)) or name,)) for name in inside])


def _is_class(path: str, inside: str) -> bool:
    """Whether this is a folder, and not a hidden one or a link that leads back to the folder it is in or to one around it."""
    if os.path.basename(path).startswith(".") or not os.path.isdir(path):
        return False
    where = os.path.realpath(path)
    return os.path.commonpath((where, inside)) != where


def words(name: str) -> str:
    """The name of a folder or a variable as people would say it: AnnualCrop, 001.Laysan_Albatross, hot_dog."""
    name = re.sub(r"^\d+\.(?=\D)", "", name)
    apart = re.sub(r"(?<=[a-z][a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z][a-z])", " ", name)
    name = name if apart == name else apart.lower()
    return " ".join(re.sub(r"_+|(?<=\w)\+(?=\w)", " ", name).split())


def finder(labels: Sequence[Label]) -> Callable[[str], int | None]:
    """What tells the place of the class that a text means: by its key or alias, or, where only one class fits, by any of
    its names however they are written."""
    exact: dict[str, int] = {}
    loose: dict[str, int | None] = {}
    for i, label in enumerate(labels):
        for text in (label.key, *label.aliases):
            exact.setdefault(text, i)
        for text in {_loose(text) for text in (label.key, *label.names, *label.aliases)} - {""}:
            loose[text] = i if loose.get(text, i) == i else None
    return lambda text: exact[text] if text in exact else loose.get(_loose(text))


def _loose(text: str) -> str:
    return "".join(character for character in words(text).lower() if character.isalnum())


def _parts(cell: str) -> list[str]:
    return [part.strip() for part in cell.split(SEPARATOR) if part.strip()]


# ---- files with a bound


def read_text(path: Path, flag: str, limit: int = MAX_TABLE_BYTES) -> str:
    """A text in UTF-8, or in UTF-16 as spreadsheets write it. Raises UserError that names the flag."""
    try:
        with open(path, "rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{flag} {path} could not be read: {error.strerror}.") from None
    if len(raw) > limit:
        raise UserError(f"{flag} {path} is larger than {limit:,} bytes: is it the right file?")
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{flag} {path} is not text in UTF-8.") from None
    if "\0" in text:
        raise UserError(f"{flag} {path} is not text: it holds zero bytes.")
    return text


def read_table(path: Path, flag: str, limit: int = MAX_TABLE_BYTES) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """(columns, [(line, cells), ...]) of a table whose first line names the columns. Raises UserError that names the
    flag, and the line that is wrong."""
    text = read_text(path, flag, limit)
    head = text.partition("\n")[0]
    # "CSV" files of some tools are separated by tabs or semicolons: the first line tells
    delimiter = max("\t,;" if path.suffix.lower() == ".tsv" else ",\t;", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows: list[tuple[int, list[str]]] = []
    columns: list[str] | None = None
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if columns is None:
                columns = [cell.strip() for cell in row]
            elif len(row) > len(columns):
                raise UserError(
                    f"{flag} {path}: line {reader.line_num} has {len(row)} cells, but the first line names "
                    f"{len(columns)}; a text with commas stands in double quotes."
                )
            else:
                rows.append((reader.line_num, row + [""] * (len(columns) - len(row))))
    except csv.Error as error:
        raise UserError(f"{flag} {path}: line {reader.line_num} could not be read as CSV: {error}.") from None
    if not rows:
        raise UserError(f"{flag} {path} has no rows: the first line names the columns, the others hold a row each.")
    return columns or [], rows


def find_column(columns: Sequence[str], names: Sequence[str]) -> int | None:
    """Where the first of these names stands, however it is written."""
    compact = [_loose(column) for column in columns]
    return next((compact.index(_loose(name)) for name in names if _loose(name) in compact), None)


def _shown(columns: Sequence[str]) -> str:
    return ", ".join(column[:40] for column in columns[:12]) or "none"
