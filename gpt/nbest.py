"""N-best lists of a speech recogniser and what was really said: files in; {utterance: hypotheses}, {utterance: text} out.

A line of a list is `utterance TAB score TAB text` (a first line that names the columns is passed over), or a JSON object
with utterance, score and text, or one with utterance and a list `nbest` of objects with score and text. References are
`utterance TAB text`, `utterance text` as Kaldi has them, or JSON objects. What a line lacks is named with its number, and
the others are read. Scores are log-probabilities: larger is better.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multimodal.cli import UserError

MAX_LINE_BYTES = 10_000_000
MAX_LETTERS = 100_000  # of one text: two hours of speech
MAX_ROWS = 1_000_000  # hypotheses or references of one file
MAX_LIST = 10_000  # hypotheses of one utterance
MAX_SCORE = 1e100
MAX_PROBLEMS = 1_000  # lines of one file that cannot be read, before it is taken for something else
# what the fields of JSON lines are called, by us and by others
UTTERANCE = ("utterance", "id", "utt", "utt_id", "utterance_id", "key")
SCORE = ("score", "acoustic", "acoustic_score", "am_score")
TEXT = ("text", "hyp", "hypothesis", "reference", "ref", "transcript")
LIST = ("nbest", "n_best", "hypotheses", "hyps")


@dataclass(frozen=True)
class Hypothesis:
    """One of the texts that an utterance may have been."""

    text: str
    """With single spaces between the words."""
    acoustic: float
    """The recogniser's score, a log-probability in a unit of its own: larger is better."""


def read_lists(path: Path, costs: bool = False) -> tuple[dict[str, list[Hypothesis]], list[str]]:
    """({utterance: hypotheses}, what could not be used), in the order of the file.

    With `costs` the file's scores are better when smaller; they change their sign here. Raises UserError when nothing
    could be read.
    """
    lists: dict[str, list[Hypothesis]] = {}
    problems: list[str] = []
    count, first = 0, True
    for place, line in _lines(path, problems):
        header, first = first and _is_header(line), False
        if header:
            continue
        try:
            utterance, found = _hypotheses(line, costs, lambda why, at=place: problems.append(f"{at}, {why}."))
            hypotheses = lists.setdefault(utterance, [])
            if len(hypotheses) + len(found) > MAX_LIST:
                raise ValueError(f"{utterance!r} has more than {MAX_LIST:,} hypotheses, which are too many")
        except ValueError as error:
            problems.append(f"{place}: {error}.")
            continue
        hypotheses += found
        count += len(found)
        if count > MAX_ROWS:
            raise UserError(f"{path} has more than {MAX_ROWS:,} hypotheses; split it.")
    if not count:
        raise UserError(problems[0] if problems else f"{path} is empty: there are no hypotheses in it.")
    return {utterance: hypotheses for utterance, hypotheses in lists.items() if hypotheses}, problems


def read_references(path: Path) -> tuple[dict[str, str], list[str]]:
    """({utterance: text}, what could not be used). Of an utterance that comes twice the first text is kept.

    Raises UserError when nothing could be read.
    """
    references: dict[str, str] = {}
    problems: list[str] = []
    for place, line in _lines(path, problems):
        try:
            if line.lstrip().startswith("{"):
                record = _object(line)
                utterance, text = _identity(_field(record, UTTERANCE)), _text(_field(record, TEXT))
            else:
                # an utterance in which nothing was said stands alone
                name, _, rest = line.partition("\t") if "\t" in line else line.strip().partition(" ")
                utterance, text = _identity(name), _text(rest)
            if references.setdefault(utterance, text) != text:
                raise ValueError(f"{utterance!r} has another text above, which is kept")
        except ValueError as error:
            problems.append(f"{place}: {error}.")
        if len(references) > MAX_ROWS:
            raise UserError(f"{path} has more than {MAX_ROWS:,} references; split it.")
    if not references:
        raise UserError(problems[0] if problems else f"{path} is empty: there are no references in it.")
    return references, problems


def _lines(path: Path, problems: list[str]) -> Iterator[tuple[str, str]]:
    """("PATH:NUMBER", line) of every line with something on it; those that are no text are added to the problems."""
    try:
        with open(path, "rb") as file:
            number = 0
            while raw := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                place = f"{path}:{number}"
                if len(problems) > MAX_PROBLEMS:
                    raise UserError(f"{path}: over {MAX_PROBLEMS:,} lines cannot be read; the first: {problems[0]}")
                if len(raw) > MAX_LINE_BYTES:
                    problems.append(f"{place}: it is longer than {MAX_LINE_BYTES:,} bytes.")
                    while raw and not raw.endswith(b"\n"):
                        raw = file.readline(MAX_LINE_BYTES)
                    continue
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    problems.append(f"{place}: it is not text in UTF-8.")
                    continue
                if "\0" in line:
                    problems.append(f"{place}: it is not text: it holds zero bytes.")
                elif line.strip():
                    yield place, line
    except OSError as error:
        raise UserError(f"{path} could not be read: {error.strerror or error}.") from None


def _is_header(line: str) -> bool:
    columns = [column.strip().lower() for column in line.split("\t")]
    return len(columns) == 3 and columns[0] in UTTERANCE and columns[1] in SCORE and columns[2] in TEXT


def _hypotheses(line: str, costs: bool, problem: Callable[[str], None]) -> tuple[str, list[Hypothesis]]:
    """Utterance and hypotheses of one line. Raises ValueError with what is wrong; of one in a list `problem` is told."""
    if not line.lstrip().startswith("{"):
        columns = line.split("\t")
        if len(columns) == 1 and line.lstrip().startswith("["):
            raise ValueError("it is a JSON list; JSON lines are read, an object a line")
        if len(columns) != 3:
            raise ValueError(f"it has {len(columns)} columns, but 3 separated by tabs are read: utterance, score, text")
        return _identity(columns[0]), [Hypothesis(_text(columns[2]), _acoustic(columns[1], costs))]
    record = _object(line)
    utterance = _identity(_field(record, UTTERANCE))
    if not any(name in record for name in LIST):
        return utterance, [Hypothesis(_text(_field(record, TEXT)), _acoustic(_field(record, SCORE), costs))]
    entries, found = _field(record, LIST), []
    if not isinstance(entries, list):
        raise ValueError("its hypotheses are not a list")
    for number, entry in enumerate(entries, 1):
        try:
            if not isinstance(entry, dict):
                raise ValueError(f"it is not an object: {_short(entry)}")
            found.append(Hypothesis(_text(_field(entry, TEXT)), _acoustic(_field(entry, SCORE), costs)))
        except ValueError as error:
            problem(f"hypothesis {number}: {error}")
    if not entries:
        raise ValueError("its list of hypotheses is empty")
    return utterance, found


def _object(line: str) -> dict:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it could not be read as JSON, an object a line ({error})") from None
    return record  # a line that opens with a brace holds an object or nothing


def _field(record: Mapping, names: Sequence[str]) -> object:
    for name in names:
        if name in record:
            return record[name]
    raise ValueError(f"it has no {names[0]!r} (nor {', '.join(map(repr, names[1:]))})")


def _identity(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"its utterance is no name: {_short(value)}")
    return " ".join(str(value).split())


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"its text is not a string: {_short(value)}")
    if len(value) > MAX_LETTERS:
        raise ValueError(f"its text has {len(value):,} characters, at most {MAX_LETTERS:,} are read")
    return " ".join(value.split())


def _acoustic(value: object, costs: bool) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"its score is not a number: {_short(value)}") from None
    if not abs(score) < MAX_SCORE:  # nor what is no number
        raise ValueError(f"its score is {score}, with which nothing can be compared")
    return -score if costs else score


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
