"""What pictures really show, as people have it: one label for all, the names of their folders, or a table with a file and
a label a line; a function from a picture's path to the place of its class out, or None where nothing is known.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from clip.labels import TABLES, Label, find_column, finder, read_table
from multimodal import cli
from multimodal.cli import UserError
from multimodal.data.report import printable
from multimodal.data.tables import IMAGE_COLUMNS

FOLDERS = "folders"
LABEL_COLUMNS = ("label", "labels", "class", "truth", "target", "classname")
MAX_TRUTH_BYTES = 100_000_000
FEW = 5  # unknown names that are told


class Truth:
    """Calls give the place of a picture's class. What was asked for in vain is remembered, and told by `tell`."""

    def __init__(self, asked: str, labels: Sequence[Label]):
        self.asked = asked
        self.unknown: dict[str, int] = {}
        self._find = finder(labels)
        self._count = len(labels)
        place = self._find(asked)
        if place is not None:
            self._of: Callable[[Path], int | None] = lambda path: place
        elif asked == FOLDERS:
            self._of = self._folder
        elif os.path.splitext(asked)[1].lower() in TABLES:
            self._read(Path(asked))
            self._of = self._row
        else:
            raise UserError(
                f"--truth {asked!r} is none of the {len(labels)} labels; it must be spelled as there, or be "
                f"{FOLDERS!r} for the names of the pictures' folders, or the name of a CSV file."
            )

    def __call__(self, path: Path) -> int | None:
        return self._of(path)

    def tell(self, judged: int) -> None:
        """Which names were no labels, on stderr; `judged` is how many pictures had a truth."""
        if not self.unknown:
            return
        names = ", ".join(f"{name!r}" for name in list(self.unknown)[:FEW])
        more = ", ..." if len(self.unknown) > FEW else ""
        what = "names of their folders" if self.asked == FOLDERS else f"labels in {self.asked}"
        cli.say(
            printable(
                f"{sum(self.unknown.values()):,} pictures have no truth, since the {what} are none of the {self._count} "
                f"labels: {names}{more}. A table with the columns label and names (--labels-file) tells what they mean."
            )
        )
        if not judged:
            cli.say("so nothing could be judged.")

    def _known(self, name: str) -> int | None:
        place = self._find(name)
        if place is None:
            self.unknown[name] = self.unknown.get(name, 0) + 1
        return place

    def _folder(self, path: Path) -> int | None:
        return self._known(os.path.basename(os.path.dirname(os.path.abspath(path))))

    def _row(self, path: Path) -> int | None:
        there = os.path.abspath(path)
        name = self._rows.get(there) or self._rows.get(os.path.realpath(there)) or self._names.get(path.name)
        return None if name is None else self._known(name)

    def _read(self, path: Path) -> None:
        columns, rows = read_table(path, "--truth", MAX_TRUTH_BYTES)
        file, label = find_column(columns, IMAGE_COLUMNS), find_column(columns, LABEL_COLUMNS)
        if file is None or label is None:
            missing = "file" if file is None else "label"
            raise UserError(
                f"--truth {path} has no column {missing}; its columns are {', '.join(columns[:12])}: the first line names "
                "them, file and label."
            )
        self._rows: dict[str, str] = {}
        self._names: dict[str, str | None] = {}  # of rows that name no folder; None where two differ
        for number, cells in rows:
            picture, name = cells[file].strip(), cells[label].strip()
            if not picture or not name:
                raise UserError(f"--truth {path}: line {number} needs a file and a label.")
            for place in {os.path.abspath(os.path.join(path.parent, picture)), os.path.abspath(picture)}:
                if self._rows.setdefault(place, name) != name:
                    raise UserError(
                        f"--truth {path}: line {number} says {picture!r} is {name!r}, an earlier one "
                        f"{self._rows[place]!r}."
                    )
            if os.path.basename(picture) == picture:
                self._names[picture] = name if self._names.get(picture, name) == name else None
        if all(self._find(name) is None for name in set(self._rows.values())):
            first = next(iter(self._rows.values()))
            raise UserError(f"--truth {path}: none of its labels is one of the {self._count}; the first is {first!r}.")
