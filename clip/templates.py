"""Prompts by data set: the sentences and class names with which CLIP's zero-shot figures are measured. No torch.

Radford et al. 2021, Table 9 and section 3.1.4: a data set's templates tell what its pictures are ("a type of food"), and
its class names are edited by hand. Both are in data/prompts.json, as OpenAI published them, with their source and licence.
"""

import difflib
import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from clip.labels import Label
from multimodal.cli import UserError

FILE = Path(__file__).with_name("data") / "prompts.json"


@dataclass(frozen=True)
class PromptSet:
    """What is known of a data set."""

    name: str
    """As --templates takes it."""
    title: str
    """As the source writes it."""
    templates: tuple[str, ...]
    """Sentences with {} where the class belongs."""
    classes: tuple[Label, ...]
    """In the order of the source."""
    metric: str
    """What the paper reports for it."""
    source: str
    """Where templates and classes are from."""


def names() -> list[str]:
    return list(_read())


def find(name: str) -> PromptSet:
    """The set of that name, however it is written. Raises UserError with those that there are."""
    known = {_compact(text): key for key, entry in _read().items() for text in (key, entry["title"], *entry["also"])}
    key = known.get(_compact(name))
    if key is None:
        near = difflib.get_close_matches(_compact(name), known, 1)
        meant = f" Did you mean {known[near[0]]}?" if near else ""
        raise UserError(
            f"--templates {name!r} is not known: it is one of {', '.join(names())}, and --templates list shows them; a "
            f"sentence of your own is --template.{meant}"
        )
    entry = _read()[key]
    return PromptSet(key, entry["title"], tuple(entry["templates"]), _classes(entry), entry["metric"], entry["source"])


def table() -> str:
    """All sets, for people."""
    rows = [("name", "templates", "classes", "the paper's metric", "source")]
    for name in names():
        found = find(name)
        rows.append((name, str(len(found.templates)), str(len(found.classes)), found.metric, found.source))
    wide = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{row[0]:<{wide[0]}}  {row[1]:>{wide[1]}}  {row[2]:>{wide[2]}}  {row[3]:<{wide[3]}}  {row[4]}" for row in rows
    )


@cache
def _read() -> dict[str, dict]:
    return json.loads(FILE.read_text(encoding="utf-8"))["sets"]


def _compact(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _classes(entry: dict) -> tuple[Label, ...]:
    """Two classes that the source calls alike, as ImageNet's two missiles, keep their own keys: none is lost."""
    holder = _read()[entry["classes_of"]] if "classes_of" in entry else entry
    which = entry.get("indices", range(len(holder["classes"])))
    said = [holder["classes"][i] for i in which]
    said = [(name,) if isinstance(name, str) else tuple(name) for name in said]
    folders = [holder["folders"][i] for i in which] if "folders" in holder else [None] * len(said)
    often = Counter(names[0] for names in said)
    return tuple(
        Label(
            names[0] if often[names[0]] == 1 else f"{names[0]} ({folder or number})",
            names,
            aliases=(folder,) if folder else (),
        )
        for number, (names, folder) in enumerate(zip(said, folders, strict=True))
    )
