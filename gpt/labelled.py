"""Labelled texts, to fine-tune and to probe with: a CSV, TSV or JSON-lines table in, examples out; and sets made here.

The four kinds are those of GPT-1 (Radford et al. 2018): a text; a premise and a hypothesis; two texts that are or are
not alike; a context and its possible continuations. What cannot be used is listed with its line, and the rest is used.
What is held out is told by a hash of the text, never by its position, so that a table may be sorted or grow.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimodal import cli
from multimodal.cli import UserError
from multimodal.data.pairs import Unread

# the columns that each kind reads, each with other names that are in use for it
COLUMNS = {
    "classification": (("text", "sentence", "review"),),
    "entailment": (("premise", "sentence1"), ("hypothesis", "sentence2")),
    "similarity": (("first", "sentence1", "text1", "question1"), ("second", "sentence2", "text2", "question2")),
    "multiple-choice": (("context", "question"),),
}
LABEL_COLUMNS = ("label", "class", "sentiment", "answer", "gold_label")
CHOICE = re.compile(r"(?:choice|ending)[ _-]?(\d+)")
MAX_TABLE_BYTES, MAX_CELL = 500_000_000, 10_000_000
MAX_LABELS, MAX_CHOICES = 1000, 26
HELD = 5  # one in so many texts is held out
NAMED = 10  # rows that are not used and are named; more are counted


@dataclass(frozen=True)
class Row:
    """The texts of one example, and its label as the table has it ("" where it has none)."""

    texts: tuple[str, ...]
    label: str = ""
    where: str = ""
    """File and line."""
    group: str = ""
    """Rows of one group are never divided between training and judging; without one, those of one text are not."""


@dataclass(frozen=True)
class Example:
    """The texts, and the place of the right label among the labels, or among its own choices."""

    texts: tuple[str, ...]
    label: int


def read(path: Path, kind: str, labelled: bool = True) -> tuple[list[Row], list[Unread]]:
    """The rows of a table, and those that cannot be used. Raises UserError where the table as a whole cannot.

    Without `labelled` a row may lack its label, and a .txt file is a text a line.
    """
    path = Path(path)
    suffixes = (".csv", ".tsv", ".jsonl", *([".txt"] if not labelled and kind == "classification" else []))
    if path.suffix.lower() not in suffixes:
        raise UserError(
            f"{path}: tables are read as {', '.join(suffixes)}, not as {path.suffix or 'a file without a suffix'}."
        )
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise UserError(f"{path} has more than {MAX_TABLE_BYTES // 10**6} MB; split it.")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} could not be read: {error.strerror}.") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")  # as spreadsheets write it
    if path.suffix.lower() == ".txt":
        lines = [(number, {"text": line}) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    elif path.suffix.lower() == ".jsonl":
        lines = list(_json_lines(text))
    else:
        lines = list(_csv_lines(text, "\t" if path.suffix.lower() == ".tsv" else None))
    rows: list[Row] = []
    unread: list[Unread] = []
    for number, line in lines:
        where = f"{path}:{number}"
        found = _row(line, kind, labelled, where) if isinstance(line, dict) else line
        if isinstance(found, str):
            unread.append(Unread(Path(where), found))
        else:
            rows.append(found)
    if not rows:
        raise UserError(_nothing(path, kind, labelled, lines, unread))
    return rows, unread


def _json_lines(text: str) -> Iterator[tuple[int, dict | str]]:
    for number, line in enumerate(text.split("\n"), 1):  # JSON may hold other characters that end lines
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield number, row if isinstance(row, dict) else "the line is not a JSON object"


def _csv_lines(text: str, delimiter: str | None) -> Iterator[tuple[int, dict | str]]:
    if delimiter is None:  # spreadsheets separate by semicolons or tabs, too: the first line tells
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
    before = csv.field_size_limit(MAX_CELL)  # a setting of the whole process
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        for row in reader:
            extra = row.pop(None, None)
            odd = "it has more cells than the first line has names; a text with commas stands in double quotes"
            yield reader.line_num, odd if extra else row
    except csv.Error as error:
        yield reader.line_num, f"the rest of the table could not be read ({error})"
    finally:
        csv.field_size_limit(before)


def _row(line: dict[str, Any], kind: str, labelled: bool, where: str) -> Row | str:
    """The row, or why it cannot be used."""
    cells = {str(name).strip().lower(): value for name, value in line.items()}
    texts = []
    for names in COLUMNS[kind]:
        name = next((n for n in names if n in cells), names[0])
        text = _word(cells.get(name))
        if not text:
            return f"its {name} is empty" if name in cells else f"it has no {name}"
        texts.append(text)
    if kind == "multiple-choice":
        numbered = sorted((int(m[1]), v) for name, v in cells.items() if (m := CHOICE.fullmatch(name)))
        given = cells.get("choices", cells.get("endings"))
        choices = [_word(v) for v in (given if isinstance(given, list) else [v for _, v in numbered])]
        while choices and not choices[-1]:
            choices.pop()
        if not 2 <= len(choices) <= MAX_CHOICES or not all(choices):
            return f"it has {sum(map(bool, choices))} choices; from 2 to {MAX_CHOICES} are needed, none of them empty"
        texts += choices
    label = next((word for name in LABEL_COLUMNS if (word := _word(cells.get(name)))), "")
    if labelled and not label:
        return "it has no label"
    return Row(tuple(texts), label, where)


def _word(value: Any) -> str:
    """A cell as text: numbers of JSON as they would be written, 1.0 as 1; what is no text or number is empty."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, (str, int, float)) else ""


def _nothing(path: Path, kind: str, labelled: bool, lines: Sequence, unread: Sequence[Unread]) -> str:
    """Why a table gives no row."""
    if not lines:
        return f"{path} has no rows; the first line names the columns, each further line is an example."
    needed = [names[0] for names in COLUMNS[kind]] + (["choice1, choice2, ..."] if kind == "multiple-choice" else [])
    first = next((line for _, line in lines if isinstance(line, dict)), {})
    found = ", ".join(str(name)[:40] for name in list(first)[:20]) or "none"
    return (
        f"{path}: none of its {len(lines):,} rows can be used (the first: {unread[0].reason}); {kind} needs the columns "
        f"{', '.join(needed)}{' and label' if labelled else ''}, and its columns are {found}."
    )


def labels_of(rows: Iterable[Row], kind: str, source: str) -> tuple[str, ...]:
    """The labels that occur, numbers in their order; of multiple choice, the way in which labels name a choice."""
    rows = list(rows)
    if kind == "multiple-choice":
        return (max(CONVENTIONS, key=lambda way: sum(_choice(row, way) is not None for row in rows)),)
    found = {row.label for row in rows}
    if len(found) < 2:
        raise UserError(
            f"{source}: every row to train on has the label {next(iter(found), '')!r}; two or more different ones are needed."
        )
    if len(found) > MAX_LABELS:
        raise UserError(
            f"{source}: {len(found):,} different labels in {len(rows):,} rows; at most {MAX_LABELS:,} are classes "
            "(is the label column a text or a measurement?)."
        )
    return tuple(sorted(found, key=_in_order))


def _in_order(label: str) -> tuple[float, str]:
    try:
        return float(label), label
    except ValueError:
        return float("inf"), label


CONVENTIONS = ("text", "letter", "number from 1", "number from 0")


def _choice(row: Row, way: str) -> int | None:
    """Which of the row's choices its label names, in one of four ways; None where it names none."""
    choices, label = row.texts[1:], row.label
    if way == "text":
        return choices.index(label) if choices.count(label) == 1 else None
    if way == "letter":
        place = ord(label.upper()) - ord("A") if len(label) == 1 else -1
    else:
        digits = label.lower().removeprefix("choice").removeprefix("ending").strip(" _-")
        place = (
            int(digits) - (way == "number from 1") if digits.isascii() and digits.isdigit() and len(digits) < 9 else -1
        )
    return place if 0 <= place < len(choices) else None


def examples(rows: Iterable[Row], kind: str, labels: Sequence[str]) -> tuple[list[Example], list[Unread]]:
    """The rows whose label is among the `labels` (see `labels_of`), and the others."""
    found: list[Example] = []
    unread: list[Unread] = []
    for row in rows:
        if kind == "multiple-choice":
            label, allowed = _choice(row, labels[0]), f"the {labels[0]} of one of its {len(row.texts) - 1} choices"
        else:
            label = labels.index(row.label) if row.label in labels else None
            allowed = f"one of {', '.join(labels[:10])}{', ...' * (len(labels) > 10)}"
        if label is None:
            unread.append(Unread(Path(row.where), f"its label {row.label[:40]!r} is not {allowed}"))
        else:
            found.append(Example(row.texts, label))
    return found, unread


def split(rows: Sequence[Row], kind: str, every: int = HELD) -> tuple[list[Row], list[Row]]:
    """(training, held-out) rows: one group or text in `every` by its hash, with all its rows; of pairs the first text
    decides, of similar ones the one that is first in the alphabet, since they come in either order."""

    def first(row: Row) -> str:
        return row.group or (min(row.texts) if kind == "similarity" else row.texts[0])

    # a question that all have in common cannot decide
    own = first if len({first(row) for row in rows}) >= 2 * every else lambda row: "\n".join(row.texts)
    held = {key for key in map(own, rows) if number(key) % every == 0} or {min(map(own, rows), key=number)}
    return [row for row in rows if own(row) not in held], [row for row in rows if own(row) in held]


def tell(unread: Sequence[Unread]) -> None:
    """Names what is not used, and why."""
    for item in unread[:NAMED]:
        cli.say(f"not used: {item.path}: {item.reason}")
    if len(unread) > NAMED:
        cli.say(f"not used: {len(unread) - NAMED:,} more rows.")


def halves(paths: Sequence[Path], valid: Path | None, kind: str) -> tuple[list[Row], list[Row]]:
    """(rows to train on, rows to judge on) of the user's tables; what is not used is told."""
    rows: list[Row] = []
    for path in paths:
        found, unread = read(path, kind)
        tell(unread)
        rows += found
    if valid is None:
        return split(rows, kind)
    held, unread = read(valid, kind)
    tell(unread)
    known = {row.texts for row in rows}
    if both := sum(row.texts in known for row in held):
        cli.say(f"{both:,} of the {len(held):,} rows of {valid} are also trained on: the figures flatter.")
    return rows, held


def prepared(
    both: Sequence[Sequence[Row]], kind: str, source: str
) -> tuple[tuple[str, ...], list[Example], list[Example]]:
    """(labels, examples to train on, examples to judge on) of two lists of rows; what is not used is told."""

    def enough(lists: Sequence[Sequence]) -> None:
        if not all(lists):
            raise UserError(
                f"{source}: {len(lists[0]):,} examples to train on and {len(lists[1]):,} to judge on are left; both are needed."
            )

    enough(both)
    labels = labels_of(both[0], kind, source)
    found = []
    for rows in both:
        usable, unread = examples(rows, kind, labels)
        tell(unread)
        found.append(usable)
    enough(found)
    return labels, *found


def record(row: Row, kind: str) -> dict[str, Any]:
    """The row as an object of JSON lines that `read` takes."""
    names = [columns[0] for columns in COLUMNS[kind]]
    found: dict[str, Any] = dict(zip(names, row.texts, strict=False))
    if kind == "multiple-choice":
        found["choices"] = list(row.texts[1:])
    return found | ({"label": row.label} if row.label else {})


def number(text: str) -> int:
    """The text's hash, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
