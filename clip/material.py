"""What a CLIP is trained on and judged by: settings in, a source of captioned pictures, and what is held out of it.

The default drawings are judged by those of an artist that is not trained on, beside nearest neighbours in pixels; folders of
classes by naming their held-out pictures; all by retrieval among held-out pairs.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from clip import judge
from clip.augment import mirrored
from clip.encoder import Encoder
from clip.presets import TrainCLIP
from clip.zeroshot import TEMPLATES
from multimodal import cards, cli
from multimodal.cli import UserError
from multimodal.data import classes, pairs
from multimodal.data.art import STYLES, concepts_of
from multimodal.data.drawings import Drawings
from multimodal.data.sources import captioned
from multimodal.tokenizer import caption

JUDGED = 1000  # held-out pairs, among which each must find its own; held-out pictures of classes
EXAMPLES = 256  # training pictures, which show of what kind all are
CAPTIONS = 20_000  # of the default drawings, from which the vocabulary is learned


@dataclass(frozen=True)
class Named:
    """Pictures to be named: picture i shows names[right[i]]."""

    kind: str
    """What the figures are called."""
    names: Sequence[str]
    pictures: UInt8[Tensor, "b 3 h w"]
    right: Tensor
    templates: Sequence[str] = TEMPLATES

    def measured(self, encoder: Encoder) -> dict[str, float]:
        found = judge.classified(encoder, self.pictures, self.right, self.names, self.templates)
        return {f"{self.kind}_{name}": value for name, value in found.items()}


@dataclass(frozen=True)
class Material:
    """What is trained on, and what is held out."""

    source: pairs.PairSource
    captions: list[str]
    """All, or enough of them to learn the vocabulary from."""
    judged: dict[str, Any]
    """A batch of held-out pairs."""
    named: Named | None
    about: str
    """What it is, for the card."""
    floor: dict[str, float] = field(default_factory=dict)
    """What the baselines reach."""
    opposite: Callable[[int, pairs.Item], pairs.Item | None] = mirrored
    """Of a training item and its number: the one that differs in no more than a word of place, if there is one."""

    def measured(self, encoder: Encoder) -> dict[str, float]:
        found = judge.retrieval(encoder, self.judged["image"], self.judged["caption"], self.judged["identity"])
        return found | (self.named.measured(encoder) if self.named is not None else {}) | self.floor


def examples(source: pairs.PairSource, size: int) -> UInt8[Tensor, "b 3 size size"]:
    """Some of the pictures that are trained on: those held out may be of another kind, as pairs are among drawings."""
    return pairs.batch(source, spread(len(source), EXAMPLES), size)["image"]


def spread(count: int, most: int = JUDGED) -> list[int]:
    """At most so many of `count` items, from the first to the last."""
    return [i * count // min(count, most) for i in range(min(count, most))]


def drawn(concepts, styles: Sequence[str], size: int) -> UInt8[Tensor, "b 3 size size"]:
    """Every concept alone in every style, style by style."""
    source = Drawings(concepts=concepts)
    pictures = [torch.from_numpy(source.canonical(c, style, size)) for style in styles for c in concepts]
    return rearrange(torch.stack(pictures), "b h w c -> b c h w").contiguous()


def drawings(settings: TrainCLIP, size: int, length: int = 10**6) -> Material:
    """The default drawings of some artists; where one is left out, his judge the model."""
    styles = settings.styles
    source, held_out = captioned((), settings.seed, settings.concepts)
    source = replace(source, styles=styles, mixture=settings.mixture, languages=settings.languages, length=length)
    held_out = replace(held_out, styles=styles)
    names, count = [concept.name for concept in source.concepts], len(source.concepts)
    unseen = tuple(style for style in STYLES if style not in styles)
    shown, floor = drawn(source.concepts, unseen or styles, size), {}
    if unseen:
        known = drawn(source.concepts, styles, size)
        floor = {"unseen_style_pixels_top1": judge.nearest_pixels(known, shown, count)}
    kind = "unseen_style" if unseen else "trained_drawings"
    return Material(
        source,
        [concept.phrase for concept in source.concepts] + [source.scene(i).caption for i in range(CAPTIONS)],
        pairs.batch(held_out, list(range(min(JUDGED, len(held_out)))), size),
        Named(kind, names, shown, torch.arange(len(shown)) % count),
        f"{cards.DRAWINGS} {count:,} concepts, styles {' and '.join(styles)}.",
        floor,
        lambda number, item: source.opposite(number, size),
    )


def given(
    data: tuple[Path, ...], folders: tuple[Path, ...], templates: tuple[str, ...], size: int, run: Path | None
) -> Material:
    """The user's captioned pictures, or folders of classes. What is not used is told, and written to the folder `run`."""
    if data and folders:
        raise UserError("--data and --classes were both given: one kind of data at a time.")
    if templates and not folders:
        raise UserError("--template is for --classes: captioned pictures have their captions.")
    named = None
    if folders:
        whole, report = classes.read_classes(folders, templates or classes.TEMPLATES)
        report.tell()
        if run is not None:
            report.write(run / "report.json")
        source, held_out = whole.split("train"), readable(whole.split("held_out"), whole.split("train"))
        shown = pairs.batch(held_out.pictures, spread(len(held_out.pictures)), size)
        right = torch.tensor([whole.names.index(name) for name in shown["caption"]])
        named = Named("classes", whole.names, shown["image"], right, whole.templates)
        about = f"{len(whole.pictures):,} pictures of {len(whole.names):,} classes of the user, each with {len(whole.templates)} "
        about += "captions."
    else:
        source, held_out = captioned(data, 0, "all", run=run)
        held_out = readable(held_out, source)
        about = f"{len(source):,} captioned pictures of the user."
    captions = [text for pair in source.pairs for text in pair.captions]
    return Material(source, captions, pairs.batch(held_out, spread(len(held_out)), size), named, about)


def readable(held_out, source):
    """What is held out; the source itself where nothing held out can be read, which of a few pictures may happen."""
    try:
        held_out.item(0, 1)
        return held_out
    except UserError:
        cli.say("no held-out picture can be read: the figures below are of pictures that are trained on.")
        return source


def other_classes(folder: Path | None, captions: Sequence[str], size: int) -> Named | None:
    """What shows whether a model still knows what its captions do not name: pictures in a folder of classes, or the default
    drawings, without the classes that the captions name. None where no two classes are at hand."""
    if folder is not None:
        found, report = classes.read_classes([folder])
        if report.unused:
            cli.say(f"--guard {folder}:")
            report.tell()
        source = found.pictures
        shown = pairs.batch(source, spread(len(source)), size)
        pictures, names = shown["image"], shown["caption"]
    else:
        try:
            concepts = concepts_of("all")
            pictures, names = drawn(concepts, STYLES, size), [c.name for c in concepts] * len(STYLES)
        except (UserError, ImportError):  # the drawings are not installed
            return None
    said = "|".join(map(words, captions))
    other = [name for name in sorted(set(names)) if words(name) not in said]
    numbers = {name: i for i, name in enumerate(other)}
    kept = [i for i, name in enumerate(names) if name in numbers]
    if len(other) < 2:
        return None
    return Named("other_classes", other, pictures[kept], torch.tensor([numbers[names[i]] for i in kept]))


def words(text: str) -> str:
    """As people mean them: lower case, without punctuation, a space on both sides."""
    return " " + " ".join(re.sub(r"\W+", " ", caption(text)).split()) + " "
