"""Default drawings: an unlimited, exactly captioned set of scenes made of Twemoji and OpenMoji drawings.

In: (split, seed, index). Out: a picture, a caption and what both show, always the same for the same three. A scene is of
one kind: one thing, plain, on a colour, painted, on a coloured shape, somewhere, in a size, in a look, in another
language; several of one; two or three with a relation. One in ten pairs of concepts, relations of two, colours of a
concept and numbers of it never occurs in the training split: they are what generalisation is measured on.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8

from multimodal.cli import UserError
from multimodal.data import art, everyday, phrases
from multimodal.data.art import COLOURS, LOOKS, STYLES, Concept, concepts_of, foreign_names, sized
from multimodal.data.everyday import MASS
from multimodal.data.pairs import Item

LATTICE = 16  # things stand on a lattice of 16 x 16 places, so that the codes of a patchwise dVAE move with them
# (column, row, side) of the things of a scene, in lattice units
Place = tuple[int, int, int]
STANDARD: Place = (1, 1, 14)
ON_SHAPE: Place = (4, 4, 8)  # the shape itself is as large as a plain thing
SIZES: dict[str, Place] = {"tiny": (6, 6, 4), "small": (4, 4, 8), "large": (0, 0, 16)}
PLACES: dict[str, Place] = {
    "top left": (0, 0, 8), "top right": (8, 0, 8), "bottom left": (0, 8, 8), "bottom right": (8, 8, 8),
    "top": (4, 0, 8), "bottom": (4, 8, 8), "left": (0, 4, 8), "right": (8, 4, 8),
}  # fmt: skip
GROUPS: dict[int, tuple[Place, ...]] = {
    1: (STANDARD,),
    2: ((0, 4, 8), (8, 4, 8)),
    3: ((4, 0, 8), (0, 8, 8), (8, 8, 8)),
    4: ((0, 0, 8), (8, 0, 8), (0, 8, 8), (8, 8, 8)),
    5: ((0, 0, 5), (11, 0, 5), (5, 5, 5), (0, 11, 5), (11, 11, 5)),
}
ROW: tuple[Place, ...] = ((0, 6, 5), (5, 5, 6), (11, 6, 5))
LAYOUTS: dict[str, tuple[Place, ...]] = {
    "beside": ((0, 4, 8), (8, 4, 8)), "left": ((0, 4, 8), (8, 4, 8)), "above": ((4, 0, 8), (4, 8, 8)),
    "bigger": ((0, 3, 10), (10, 7, 6)), "smaller": ((0, 7, 6), (6, 3, 10)),
    "row": ROW, "between": ROW, "above both": GROUPS[3], "below both": ((0, 0, 8), (8, 0, 8), (4, 8, 8)),
}  # fmt: skip
MIXTURE = {
    "single": 0.2, "colour": 0.12, "painted": 0.08, "shape": 0.05, "place": 0.06, "size": 0.08, "count": 0.08,
    "pair": 0.08, "relation": 0.13, "three": 0.03, "style": 0.05, "language": 0.04,
}  # fmt: skip
HELD_OUT = {  # what each split beside the training one shows
    "pairs": ("pair", "relation"), "relations": ("pair", "relation"), "colours": ("colour", "painted", "shape"),
    "counts": ("count",),
}  # fmt: skip
STYLE_NAMED = 0.3  # share of the captions that say whose drawings are meant
TRIES = 10_000


@dataclass(frozen=True)
class Thing:
    """One drawing in a scene; the place is (column, row, side) in lattice units."""

    concept: Concept
    style: str
    """The artist."""
    place: Place
    colour: str = ""
    """The colour it is painted in; empty: its own."""
    look: str = ""
    """One of LOOKS; empty: as the artist drew it."""


@dataclass(frozen=True)
class Scene:
    """A picture to be rendered, its caption, and part by part what the caption says of it."""

    kind: str
    things: tuple[Thing, ...]
    """From left to right or from top to bottom, whichever is spoken of first; their number is the count."""
    background: str
    caption: str
    identity: int
    """Equal for scenes whose captions could be exchanged: same concepts, relation, colour and place; style aside."""
    relation: str = ""
    """How the things stand (see LAYOUTS), or where one stands (see PLACES); empty: nothing is said."""
    size: str = ""
    """tiny, small, large, or of two things whether the first is bigger or smaller; empty: nothing is said."""
    shape: tuple[str, str] | None = None
    """What is below the things: (circle or square, colour)."""
    style: str = ""
    """The artist whom the caption names; empty: whoever drew it is right."""
    language: str = "en"


def _stable(*parts: str) -> int:
    """A number of 62 bits that is the same in every process."""
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big") >> 2


def held_out_pair(a: Concept, b: Concept) -> bool:
    """Never together in training, however they stand."""
    return _stable("pair", *sorted((a.key, b.key))) % 10 == 0


def held_out_relation(relation: str, a: Concept, b: Concept) -> bool:
    """Never in training with a to the `left` of, or `above`, b; the two may stand otherwise."""
    return _stable("relation", relation, a.key, b.key) % 10 == 0


def held_out_colour(concept: Concept, colour: str) -> bool:
    """Never together in training, whether the colour is the background's, a shape's or the concept's own paint."""
    return _stable("colour", concept.key, colour) % 10 == 0


def held_out_count(concept: Concept, count: int) -> bool:
    return count > 1 and _stable("count", concept.key, str(count)) % 10 == 0


def stand(places: tuple[Place, ...]) -> tuple[tuple[int, int, str], ...]:
    """How every two of the places stand to each other: (first, second, "left" or "above")."""
    found = []
    for i, (x, y, side) in enumerate(places):
        for j, (other_x, other_y, _) in enumerate(places[i + 1 :], i + 1):
            found.append((i, j, "left" if x + side <= other_x and y < other_y + side else "above"))
    return tuple(found)


def render(scene: Scene, size: int = 64) -> UInt8[np.ndarray, "size size 3"]:
    """The scene's picture: each thing composited on the background by its opacity. Alone it has the artist's margin,
    in any other place it fills that."""
    canvas = _empty(scene.background, scene.shape, size).copy()
    for thing in scene.things:
        x, y, side = (round(value * size / LATTICE) for value in thing.place)
        art = sized(thing.concept.key, thing.style, side, thing.look, thing.colour, thing.place == STANDARD)
        below, opacity = canvas[y : y + side, x : x + side], art[..., 3:].astype(np.uint16)
        below[:] = (art[..., :3] * opacity + below * (255 - opacity) + 127) // 255
    return canvas


@lru_cache(maxsize=64)
def _empty(background: str, shape: tuple[str, str] | None, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The background, with the shape on it, which is as large as a plain thing."""
    canvas = np.empty((size, size, 3), np.uint8)
    canvas[:] = COLOURS[background]
    if shape is None:
        return canvas
    form, colour = shape
    fine = (np.arange(size * 4) + 0.5) / (size * 4) - 0.5  # each pixel is 4 x 4 points, inside or outside
    x, y, half = fine[None], fine[:, None], STANDARD[2] / LATTICE / 2
    inside = x**2 + y**2 <= half**2 if form == "circle" else np.maximum(abs(x), abs(y)) <= half
    part = inside.reshape(size, 4, size, 4).mean((1, 3))[..., None]
    return (np.array(COLOURS[colour]) * part + canvas * (1 - part)).round().astype(np.uint8)


@dataclass(frozen=True)
class Drawings:
    """A source of captioned scenes: item `index` is a pure function of the fields here and the index."""

    split: Literal["train", "pairs", "relations", "colours", "counts"] = "train"
    """train, or what it never shows: pairs of concepts, relations of two concepts, colours of a concept, numbers of it."""
    seed: int = 0
    concepts: Literal["everyday", "all"] | tuple[Concept, ...] = "everyday"
    styles: tuple[str, ...] = STYLES
    length: int = 100_000
    """How many different indices count as one pass."""
    mixture: dict[str, float] = field(default_factory=lambda: dict(MIXTURE))
    """How often each kind of scene comes; a split of what is held out shows those of its kinds."""
    languages: tuple[str, ...] = ("fr", "de", "es", "it", "pt")
    """Besides English, in scenes of the kind language."""

    def __post_init__(self):
        if self.split != "train" and self.split not in HELD_OUT:
            raise UserError(f"split {self.split!r} is unknown: allowed are train, {', '.join(HELD_OUT)}.")
        if not self.styles or set(self.styles) - set(STYLES):
            raise UserError(f"styles {self.styles} are unknown: allowed are {', '.join(STYLES)}.")
        weights = self.mixture.values()
        if set(self.mixture) - set(MIXTURE) or not sum(weights) > 0 or min(weights) < 0:
            raise UserError(f"mixture {self.mixture} is off: weights of {', '.join(MIXTURE)} are wanted.")
        if not self.languages or set(self.languages) - set(phrases.LANGUAGES):
            raise UserError(f"languages {self.languages} are off: allowed are {', '.join(phrases.LANGUAGES)}.")
        if isinstance(self.concepts, str):
            object.__setattr__(self, "concepts", concepts_of(self.concepts))

    def __len__(self) -> int:
        return self.length

    def fingerprint(self) -> str:
        """Tells these drawings from all others, those of another version of this toolkit included."""
        sources = [Path(module.__file__).read_bytes() for module in (art, phrases, everyday)] + [
            Path(__file__).read_bytes()
        ]
        concepts = ",".join(concept.name for concept in self.concepts)
        fields = (self.split, self.seed, concepts, self.styles, sorted(self.mixture.items()), self.languages)
        return hashlib.sha256(repr(fields).encode() + b"".join(sources)).hexdigest()

    def _start(self, index: int) -> tuple[np.random.Generator, str]:
        """What scene `index` is made of: random numbers, and its kind."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, index, _stable(self.split) % 2**32]))
        kinds, ends = _shares(tuple(self.mixture.items()), self.split)
        return rng, kinds[int(np.searchsorted(ends, rng.random(), side="right"))]

    def scene(self, index: int) -> Scene:
        rng, kind = self._start(index)
        return _SCENES[kind](self, rng)

    def item(self, index: int, size: int = 64) -> Item:
        return self._item(self.scene(index), size)

    def opposite(self, index: int, size: int = 64) -> Item | None:
        """Item `index` with its two things exchanged, or its thing in the opposite place, and words that differ in no more
        than that; None where there is no such thing, or training may not show it."""
        rng, kind = self._start(index)
        if kind not in _OPPOSITES or self.split != "train":
            return None
        scene = _OPPOSITES[kind](self, rng)
        concepts = [thing.concept for thing in scene.things]
        if len(concepts) == 2 and held_out_relation(scene.relation, *concepts):
            return None
        return self._item(scene, size)

    def _item(self, scene: Scene, size: int) -> Item:
        picture = torch.from_numpy(render(scene, size)).permute(2, 0, 1).contiguous()
        return Item(picture, scene.caption, (scene.identity,))

    def canonical(self, concept: Concept, style: str, size: int = 64) -> UInt8[np.ndarray, "size size 3"]:
        """The concept alone, as a plain scene shows it."""
        return render(Scene("single", (Thing(concept, style, STANDARD),), "white", "", 0), size)

    def _pick(self, rng: np.random.Generator, wanted: Callable[[Concept], bool] = lambda concept: True) -> Concept:
        for _ in range(TRIES):
            if wanted(concept := self.concepts[int(rng.integers(len(self.concepts)))]):
                return concept
        raise UserError(
            f"among {len(self.concepts)} concepts there is none for such a scene of {self.split}; give more."
        )

    def _style(self, rng: np.random.Generator) -> str:
        return self.styles[int(rng.integers(len(self.styles)))]

    def _coloured(self, rng: np.random.Generator, wanted=lambda concept: True) -> tuple[Concept, str]:
        """A concept and a colour that this split may show together."""
        for _ in range(TRIES):
            concept, colour = self._pick(rng, wanted), _one_of(rng, phrases.COLOUR_ORDER)
            if held_out_colour(concept, colour) == (self.split == "colours"):
                return concept, colour
        raise UserError(f"among {len(self.concepts)} concepts none has a colour of {self.split}; give more.")

    def _together(self, rng: np.random.Generator, layout: str, wanted=lambda concept: True) -> list[Concept]:
        """Different concepts, one for each place of the layout, that this split may show so."""
        standing = _STAND[layout]
        for _ in range(TRIES):
            chosen = [self._pick(rng, wanted) for _ in LAYOUTS[layout]]
            pairs = [(relation, chosen[i], chosen[j]) for i, j, relation in standing]
            if any(a.name == b.name for _, a, b in pairs):
                continue
            if any(held_out_pair(a, b) for _, a, b in pairs) != (self.split == "pairs"):
                continue
            if self.split == "pairs" or any(held_out_relation(*p) for p in pairs) == (self.split == "relations"):
                return chosen
        raise UserError(f"among {len(self.concepts)} concepts none stand together in {self.split}; give more.")


@cache
def _shares(mixture: tuple[tuple[str, float], ...], split: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The kinds that a split shows, and where each one's part of 0..1 ends."""
    shown = [(kind, share) for kind, share in mixture if split == "train" or kind in HELD_OUT[split]]
    if not sum(share for _, share in shown) > 0:  # none of the mixture is held out here: all that are
        shown = [(kind, 1.0) for kind in HELD_OUT[split]]
    kinds, shares = zip(*shown, strict=True)
    ends = np.cumsum(shares) / sum(shares)
    ends[-1] = 1.0
    return kinds, ends


_STAND = {layout: stand(places) for layout, places in LAYOUTS.items()}


def _one_of(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]


def _name(rng: np.random.Generator, concept: Concept) -> str:
    """The concept's name, or one time in four, where there is one, another word for it."""
    names = concept.names
    return names[0] if len(names) == 1 or rng.random() < 0.75 else _one_of(rng, names[1:])


def _noun(rng: np.random.Generator, concept: Concept, bare: float = 0.1) -> str:
    """A name with its article; sometimes without."""
    name, chance = _name(rng, concept), rng.random()
    if chance < bare:
        return name
    return f"the {name}" if chance > 0.96 else phrases.with_article(name, name in MASS)


def _colour_word(rng: np.random.Generator, colour: str) -> str:
    return _one_of(rng, phrases.COLOUR_WORDS.get(colour, (colour,)))


def _worded(rng: np.random.Generator, phrase: str, style: str, named: float = STYLE_NAMED) -> tuple[str, str]:
    """A caption of the phrase, and the artist if it names him."""
    chance = rng.random()
    if chance < named:
        words = phrases.said(_one_of(rng, phrases.STYLED), phrase, style=style)
        return words, style
    if chance < named + (1 - named) / 3:
        return phrases.said(_one_of(rng, phrases.OPENINGS), phrase), ""
    return phrase, ""


def _single(source: Drawings, rng: np.random.Generator) -> Scene:
    concept, style = source._pick(rng), source._style(rng)
    caption, said = _worded(rng, _noun(rng, concept, bare=0.3), style)
    things = (Thing(concept, style, STANDARD),)
    return Scene("single", things, "white", caption, _stable("single", concept.key), style=said)


def _colour(source: Drawings, rng: np.random.Generator) -> Scene:
    (concept, colour), style = source._coloured(rng), source._style(rng)
    phrase = phrases.said(_one_of(rng, phrases.BACKGROUND), a=_noun(rng, concept), colour=_colour_word(rng, colour))
    caption, said = _worded(rng, phrase, style)
    identity = _stable("colour", concept.key, colour)
    return Scene("colour", (Thing(concept, style, STANDARD),), colour, caption, identity, style=said)


def _paintable(concept: Concept) -> bool:
    """No red red apple."""
    return not any(colour in concept.name.split() for colour in COLOURS)


def _painted(source: Drawings, rng: np.random.Generator) -> Scene:
    (concept, colour), style = source._coloured(rng, _paintable), source._style(rng)
    name, word = _name(rng, concept), _colour_word(rng, colour)
    plain = phrases.with_article(name, name in MASS)
    whole = f"{word} {name}" if name in MASS or phrases.is_plural(name) else f"a {word} {name}"
    phrase = phrases.said(_one_of(rng, phrases.PAINTED), a=plain, painted=whole, name=name, colour=word)
    caption, said = _worded(rng, phrase, style)
    things = (Thing(concept, style, STANDARD, colour),)
    return Scene("painted", things, "white", caption, _stable("painted", concept.key, colour), style=said)


def _shaped(source: Drawings, rng: np.random.Generator) -> Scene:
    (concept, colour), style = source._coloured(rng), source._style(rng)
    shape = _one_of(rng, tuple(phrases.SHAPES))
    words = _one_of(rng, phrases.SHAPES[shape])
    caption, said = _worded(rng, phrases.said(words, a=_noun(rng, concept), colour=_colour_word(rng, colour)), style)
    identity = _stable("shape", concept.key, shape, colour)
    things = (Thing(concept, style, ON_SHAPE),)
    return Scene("shape", things, "white", caption, identity, shape=(shape, colour), style=said)


def _place(source: Drawings, rng: np.random.Generator, opposite: bool = False) -> Scene:
    concept, style, where = source._pick(rng), source._style(rng), _one_of(rng, tuple(PLACES))
    if opposite:
        where = _across(where)
    caption, said = _worded(rng, phrases.said(_one_of(rng, phrases.PLACES[where]), a=_noun(rng, concept)), style)
    things = (Thing(concept, style, PLACES[where]),)
    return Scene("place", things, "white", caption, _stable("place", concept.key, where), relation=where, style=said)


def _across(where: str) -> str:
    """The place at the other side, of a corner at the other side of the same height."""
    turns = ("left", "right") if {"left", "right"} & set(where.split()) else ("top", "bottom")
    return where.replace(turns[0], "-").replace(turns[1], turns[0]).replace("-", turns[1])


def _countable(concept: Concept) -> bool:
    return concept.countable


def _one_name(rng: np.random.Generator, concept: Concept) -> str:
    """A name that has a plural."""
    name = _name(rng, concept)
    return concept.name if name in MASS or phrases.is_plural(name) else name


def _size(source: Drawings, rng: np.random.Generator) -> Scene:
    """One thing, or half of the time two."""
    style = source._style(rng)
    if rng.random() < 0.5:
        concept, size = source._pick(rng, _countable), _one_of(rng, tuple(SIZES))
        phrase = phrases.said(_one_of(rng, phrases.SIZES[size]), name=_one_name(rng, concept))
        things = (Thing(concept, style, SIZES[size]),)
    else:
        size = _one_of(rng, ("bigger", "smaller"))
        pair = source._together(rng, size, _countable)
        first, second = (_one_name(rng, concept) for concept in pair)
        words = phrases.BIGGER if size == "bigger" else phrases.SMALLER
        phrase = phrases.said(_one_of(rng, words), first=first, second=second)
        things = tuple(Thing(c, style, place) for c, place in zip(pair, LAYOUTS[size], strict=True))
    caption, said = _worded(rng, phrase, style)
    identity = _stable("size", size, *(thing.concept.key for thing in things))
    return Scene("size", things, "white", caption, identity, size=size, style=said)


def _count(source: Drawings, rng: np.random.Generator) -> Scene:
    style, held_out = source._style(rng), source.split == "counts"
    for _ in range(TRIES):
        concept, count = source._pick(rng, _countable), int(rng.integers(1, len(GROUPS) + 1))
        if held_out_count(concept, count) == held_out:
            break
    else:
        raise UserError(f"among {len(source.concepts)} concepts none has a number of {source.split}; give more.")
    words = {1: phrases.ONE, 2: phrases.COUNTS + phrases.TWO}.get(count, phrases.COUNTS)
    name = _one_name(rng, concept)
    phrase = phrases.said(
        _one_of(rng, words), number=phrases.NUMBERS[count], digit=count, name=name, plural=phrases.plural(name)
    )
    caption, said = _worded(rng, phrase, style)
    things = tuple(Thing(concept, style, place) for place in GROUPS[count])
    identity = _stable("count", concept.key, str(count)) if count > 1 else _stable("single", concept.key)
    return Scene("count", things, "white", caption, identity, style=said)


def _arranged(
    source: Drawings,
    rng: np.random.Generator,
    kind: str,
    layout: str,
    templates: tuple[str, ...],
    *,
    ordered: bool,
    opposite: bool = False,
) -> Scene:
    """Different things in a layout; unordered ones match in whichever order they are named. Of the `opposite` the first two
    are exchanged: the words are the same with the things in the other order, or of a template and its neighbour, which names
    them in the other order, the same but for the word of the relation."""
    concepts, style = source._together(rng, layout), source._style(rng)
    nouns = {letter: _noun(rng, concept) for letter, concept in zip("abc", concepts, strict=False)}
    which = int(rng.integers(len(templates)))
    if opposite:
        concepts[:2], nouns["a"], nouns["b"] = concepts[1::-1], nouns["b"], nouns["a"]
        which ^= int(_stable(*sorted(c.key for c in concepts[:2]), style) % 2)
    caption, said = _worded(rng, phrases.said(templates[which], **nouns), style)
    things = tuple(Thing(c, style, place) for c, place in zip(concepts, LAYOUTS[layout], strict=True))
    keys = [concept.key for concept in concepts]
    identity = _stable(kind, layout, *(keys if ordered else sorted(keys)))
    return Scene(kind, things, "white", caption, identity, relation=layout, style=said)


def _pair(source: Drawings, rng: np.random.Generator) -> Scene:
    return _arranged(source, rng, "pair", "beside", phrases.TOGETHER, ordered=False)


def _relation(source: Drawings, rng: np.random.Generator, opposite: bool = False) -> Scene:
    relation = _one_of(rng, tuple(phrases.RELATIONS))
    return _arranged(source, rng, "relation", relation, phrases.RELATIONS[relation], ordered=True, opposite=opposite)


def _three(source: Drawings, rng: np.random.Generator) -> Scene:
    layout = _one_of(rng, tuple(phrases.THREE))
    return _arranged(source, rng, "three", layout, phrases.THREE[layout], ordered=True)


def _styled(source: Drawings, rng: np.random.Generator) -> Scene:
    """One thing in a look, or drawn by an artist whom the caption names."""
    looks = [look for look in ("", *LOOKS) if look != "outline" or "openmoji" in source.styles]
    concept, look = source._pick(rng), _one_of(rng, looks)
    style = "openmoji" if look == "outline" else source._style(rng)
    if look:
        name, said = _name(rng, concept), ""
        phrase = phrases.said(_one_of(rng, phrases.LOOKS[look]), phrases.with_article(name, name in MASS), name=name)
    else:
        phrase, said = _worded(rng, _noun(rng, concept), style, named=1.0)
    things = (Thing(concept, style, STANDARD, look=look),)
    identity = _stable("style", concept.key, look) if look else _stable("single", concept.key)
    return Scene("style", things, "white", phrase, identity, style=said)


def _language(source: Drawings, rng: np.random.Generator) -> Scene:
    """One thing in another language, on white or, one time in three, on a colour."""
    code, style, background = _one_of(rng, source.languages), source._style(rng), "white"
    language, names = phrases.LANGUAGES[code], foreign_names(code)
    if rng.random() < 1 / 3:
        concept, background = source._coloured(rng, lambda c: c.key in names)
        phrase = language.on.format(a=names[concept.key], c=language.colour(background))
        identity = _stable("colour", concept.key, background)
    else:
        concept = source._pick(rng, lambda c: c.key in names)
        phrase, identity = names[concept.key], _stable("single", concept.key)
    said = style if rng.random() < STYLE_NAMED else ""
    caption = language.styled.format(a=phrase, style=style) if said else phrase
    things = (Thing(concept, style, STANDARD),)
    return Scene("language", things, background, caption, identity, style=said, language=code)


_SCENES = {
    "single": _single, "colour": _colour, "painted": _painted, "shape": _shaped, "place": _place, "size": _size,
    "count": _count, "pair": _pair, "relation": _relation, "three": _three, "style": _styled, "language": _language,
}  # fmt: skip
_OPPOSITES = {"relation": partial(_relation, opposite=True), "place": partial(_place, opposite=True)}
