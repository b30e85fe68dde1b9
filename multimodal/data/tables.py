"""Captions as people keep them: a text, a row of JSON or of a table in; captions, or why they cannot be used, out.

A table (CSV, TSV, JSON lines) is read line by line and a row that is wrong costs that row only. Columns are found by
their names, in any order.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from multimodal.data.report import Unread

# "File Name", "file_name" and "filename" are one column
IMAGE_COLUMNS = ("image", "file_name", "filepath", "file", "path", "image_path", "image_file", "image_name",
                 "image_filename", "img", "img_path", "picture", "photo")  # fmt: skip
CAPTION_COLUMNS = ("caption", "text", "title", "description", "captions", "prompt", "sentence", "comment")
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv")
MAX_CAPTION = 10_000  # characters; a longer one is a document, not a caption
MAX_LINE = 1_000_000  # characters of a line of a table
UNDECODED = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, as Python keeps them
MAX_TABLE_BYTES = 4_000_000_000


@dataclass(frozen=True)
class Row:
    """A row of a table: the picture as it names it, and its captions."""

    where: str
    """Table and line."""
    picture: str
    captions: tuple[str, ...]


def of_text(data: bytes, where: str) -> tuple[str, ...] | Unread:
    """The captions in a text file: each line that is not blank is one."""
    if len(data) > MAX_CAPTION * 4:
        return Unread(Path(where), f"it has more than {MAX_CAPTION:,} characters, a caption is shorter", "too large")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return Unread(Path(where), "it is not UTF-8; save it as UTF-8", "not text")
    return _captions(lines, where) or Unread(Path(where), "it holds no caption", "empty caption")


def of_json(row: dict, where: str, wanted: bool = True) -> tuple[str, ...] | Unread:
    """The captions in an object of JSON or a row of a table, a text or a list of texts. Where none are `wanted`, the
    caption may be missing and is then ""."""
    cells = {_compact(name): value for name, value in row.items()}
    given = [cells[column] for column in map(_compact, CAPTION_COLUMNS) if column in cells]
    for texts in ([value] if isinstance(value, str) else value for value in given if isinstance(value, (str, list))):
        if found := _captions([text for text in texts if isinstance(text, str)], where):
            return found
    if not wanted:
        return ("",)
    sentence = f"no caption is given; {_expected(row, CAPTION_COLUMNS)}"
    return Unread(Path(where), sentence, "empty caption" if given else "no caption")


def _captions(texts: list[str], where: str) -> tuple[str, ...] | Unread:
    """Each once, in its order; none of them if one is no caption."""
    found = dict.fromkeys(" ".join(text.split()) for text in texts if not text.isspace())
    for text in found:
        if len(text) > MAX_CAPTION:
            sentence = f"its caption has {len(text):,} characters; at most {MAX_CAPTION:,} are read"
            return Unread(Path(where), sentence, "too large")
        if "\0" in text:
            return Unread(Path(where), "its caption holds a NUL byte, so it is no text", "not text")
        if UNDECODED.search(text):
            return Unread(Path(where), "its caption is not UTF-8; save the table as UTF-8", "not text")
    return tuple(text for text in found if text)


def rows(path: Path, wanted: bool = True) -> Iterator[Row | Unread]:
    """What a table names. `wanted`: whether a row without a caption is of no use."""
    try:
        size = path.stat().st_size
        if not size or size > MAX_TABLE_BYTES:
            large = f"it has more than {MAX_TABLE_BYTES // 10**9} GB; split it"
            yield Unread(path, *((large, "too large") if size else ("it is empty", "empty table")))
            return
        with open(path, "rb") as file:
            wide = file.read(2) in (b"\xff\xfe", b"\xfe\xff")  # "Unicode text" of a spreadsheet
        encoding, errors = ("utf-16", "strict") if wide else ("utf-8-sig", "surrogateescape")
        with open(path, encoding=encoding, errors=errors, newline="") as file:
            read = _json_rows if path.suffix.lower() in (".jsonl", ".ndjson") else _csv_rows
            empty = True
            for number, found in read(file, path, wanted):
                empty = False
                yield found if isinstance(found, Unread) else _row(found, f"{path}:{number}", wanted)
        if empty:
            yield Unread(path, "it has no rows; each line after the first is a picture and a caption", "empty table")
    except (OSError, UnicodeError) as error:
        yield Unread(path, f"the rest of the table could not be read: {error}", "not readable")


def _row(row: dict, where: str, wanted: bool) -> Row | Unread:
    cells = {_compact(name): value for name, value in row.items()}
    given = [cells[column] for column in map(_compact, IMAGE_COLUMNS) if column in cells]
    picture = next((value.strip() for value in given if isinstance(value, str) and value.strip()), None)
    if picture is None:
        sentence = f"no picture is named; {_expected(row, IMAGE_COLUMNS)}"
        return Unread(Path(where), sentence, "no picture" if given else "wrong columns")
    captions = of_json(row, where, wanted)
    return captions if isinstance(captions, Unread) else Row(where, picture, captions)


@lru_cache(1000)
def _compact(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _expected(names, columns: tuple[str, ...]) -> str:
    there = [name for name in names if _compact(str(name)) in set(map(_compact, columns))]
    if there:
        return f"what stands in its column {there[0]} is empty or no text"
    found = ", ".join(str(name)[:40] for name in list(names)[:12]) or "none"
    return f"its columns are {found}: name one of them {', '.join(columns[:5])} or the like"


def _lines(file: io.TextIOBase) -> Iterator[str | None]:
    """Line by line; None for one that is longer than any row."""
    while line := file.readline(MAX_LINE):
        if len(line) < MAX_LINE or line.endswith(("\n", "\r")):
            yield line
            continue
        while (rest := file.readline(MAX_LINE)) and not rest.endswith(("\n", "\r")):
            pass
        yield None


def _too_long(path: Path, number: int) -> Unread:
    return Unread(Path(f"{path}:{number}"), f"the line has more than {MAX_LINE:,} characters", "too large")


def _json_rows(file: io.TextIOBase, path: Path, wanted: bool) -> Iterator[tuple[int, dict | Unread]]:
    for number, line in enumerate(_lines(file), 1):
        if line is None:
            yield number, _too_long(path, number)
        elif line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            odd = Unread(Path(f"{path}:{number}"), "the line is not a JSON object", "not a row")
            yield number, row if isinstance(row, dict) else odd


def _csv_rows(file: io.TextIOBase, path: Path, wanted: bool) -> Iterator[tuple[int, dict | Unread]]:
    head = file.readline(MAX_LINE)
    # "CSV" files of some tools are separated by tabs or semicolons: the first line tells
    delimiter = max("\t,;|" if path.suffix.lower() == ".tsv" else ",\t;|", key=head.count)
    file.seek(0)
    too_long: list[int] = []

    def fed() -> Iterator[str]:
        for number, line in enumerate(_lines(file), 1):
            if line is None:
                too_long.append(number)
            yield "\n" if line is None else line

    reader = csv.DictReader(fed(), delimiter=delimiter, skipinitialspace=True)
    checked = False
    while True:
        try:
            columns = reader.fieldnames or []
            for needed in () if checked else (IMAGE_COLUMNS, CAPTION_COLUMNS)[: 2 if wanted else 1]:
                if not {_compact(column) for column in needed} & set(map(_compact, columns)):
                    what = "picture" if needed is IMAGE_COLUMNS else "caption"
                    yield 1, Unread(path, f"no column is the {what}; {_expected(columns, needed)}", "wrong columns")
                    return
            checked = True
            row = next(reader)
        except StopIteration:
            row = None
        except csv.Error:
            sentence = f"a cell has more than {csv.field_size_limit():,} characters; is a quote before it not closed?"
            row = Unread(Path(f"{path}:{reader.reader.line_num}"), sentence, "too large")
        while too_long:
            yield 0, _too_long(path, too_long.pop(0))
        number = reader.reader.line_num
        if row is None:
            return
        if isinstance(row, dict) and row.pop(None, None) is not None:
            odd = "it has more cells than the first line has names; a text with commas stands in double quotes"
            row = Unread(Path(f"{path}:{number}"), odd, "ragged row")
        yield number, row
