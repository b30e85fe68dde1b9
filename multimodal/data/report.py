"""What of the user's data is used and what is not: counts by kind, and the first few of each by name with the reason.
Told in a few lines before a training, and kept as JSON in its run directory."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from multimodal import checkpoint, cli

FEW = 5  # of each kind, so many are named; the others are counted
KINDS = frozenset((
    "no caption", "empty caption", "no picture", "missing", "not decodable", "too large", "outside the folder",
    "absolute path", "duplicate", "wrong columns", "ragged row", "not a row", "not text", "empty table",
    "link or special member", "damaged archive", "not readable",
))  # fmt: skip


@dataclass(frozen=True)
class Unread:
    """What was not used, and why."""

    path: Path
    reason: str
    kind: str = "not readable"
    """Under which of the KINDS it is counted."""


@dataclass(frozen=True)
class Report:
    """What of the user's pictures and captions is used, and what is not."""

    pictures: int
    """Pictures that are used."""
    pairs: int
    """Pairs that are used: a picture has one for each of its captions."""
    unused: dict[str, int]
    """How much is not used, by kind."""
    unread: tuple[Unread, ...]
    """The first few of each kind, in the order in which they were found."""

    def tell(self) -> None:
        """A line in all, and one for each kind, on stderr."""
        rest = sum(self.unused.values())
        cli.say(f"data: pairs: {self.pairs:,}, pictures: {self.pictures:,}, not used: {rest:,}.")
        for kind, count in self.unused.items():
            few = [entry for entry in self.unread if entry.kind == kind]
            named = ", ".join([f"{few[0].path} ({few[0].reason})", *(str(entry.path) for entry in few[1:])])
            more = ", ..." if count > len(few) else ""
            cli.say(printable(f"not used: {count:,} x {kind}: {named}{more}"))

    def write(self, path: Path) -> None:
        """The same as JSON: {pictures, pairs, unused: {kind: count}, unread: [{path, reason, kind}, ...]}."""
        checkpoint.write_text(path, json.dumps(asdict(self), indent=2, default=str) + "\n")


class Tally:
    """Counts what is not used while the data is read; what it keeps does not grow with the data."""

    def __init__(self):
        self.counts: Counter[str] = Counter()
        self.unread: list[Unread] = []

    def add(self, entry: Unread) -> None:
        self.counts[entry.kind] += 1
        if self.counts[entry.kind] <= FEW:
            self.unread.append(entry)

    def report(self, pictures: int, pairs: int) -> Report:
        return Report(pictures, pairs, dict(self.counts), tuple(self.unread))


def printable(text: str) -> str:
    """The names of files and columns are a stranger's: what would steer a terminal becomes "?"."""
    return "".join(character if character.isprintable() else "?" for character in text)
