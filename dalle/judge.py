"""An independent judge of drawings: which real rendering is nearest in pixels? Pictures (n 3 s s) in [0, 1] in.

`ranks` looks for whole pictures among references. `verdicts` judges drawings of scenes part by part: of all scenes of the
kind that was asked for (every concept in every place, on every colour, in every number ...) it finds the nearest one. Where
things do not overlap, a scene's distance is a sum over their places, so that all pairs of 404 concepts in all
arrangements are searched exactly by looking at each place alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.data.art import COLOURS, LOOKS, STYLES, Concept
from multimodal.data.drawings import (
    GROUPS,
    LATTICE,
    LAYOUTS,
    ON_SHAPE,
    PLACES,
    SIZES,
    STANDARD,
    Place,
    Scene,
    Thing,
    render,
)

SIDE = 32  # pixels of a side at which scenes are compared: two for each place of their lattice
CHUNK = 512  # pictures judged at a time


def distances(
    pictures: Float[Tensor, "n 3 s s"], references: Float[Tensor, "r 3 s s"], side: int = 16
) -> Float[Tensor, "n r"]:
    """Root mean squared distance of every picture to every reference, both scaled to `side` pixels."""
    small = [
        rearrange(F.interpolate(x, (side, side), mode="area"), "b c h w -> b (c h w)") for x in (pictures, references)
    ]
    return torch.cdist(*small) / small[0].shape[-1] ** 0.5


def ranks(
    pictures: Float[Tensor, "n 3 s s"],
    references: Float[Tensor, "r 3 s s"],
    names: list[str],
    wanted: list[str],
) -> Int[Tensor, "n"]:
    """Rank (1 is best) of the wanted name of each picture among the names by their nearest reference."""
    distinct = sorted(set(names))
    index = torch.tensor([distinct.index(name) for name in names])
    best = torch.full((len(pictures), len(distinct)), float("inf"))
    best.scatter_reduce_(1, index.expand(len(pictures), -1), distances(pictures, references).cpu(), "amin")
    own = best.gather(1, torch.tensor([[distinct.index(name)] for name in wanted]))
    return (best < own).sum(1) + 1


@dataclass(frozen=True)
class Frame:
    """A scene but for which things are in it."""

    places: tuple[Place, ...]
    background: str = "white"
    shape: tuple[str, str] | None = None
    colour: str = ""
    look: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the judge says of one drawing."""

    parts: tuple[tuple[str, bool], ...]
    """(part of the caption, whether it is right); a part may come more than once, for each thing."""
    found: str
    """The scene of this kind that is nearest, in words."""


ATTRIBUTES = {  # what beside its things tells the scenes of a kind apart
    "colour": "colour", "language": "colour", "painted": "paint", "shape": "shape", "place": "place", "size": "size",
    "count": "count", "pair": "arrangement", "relation": "arrangement", "three": "arrangement", "style": "look",
}  # fmt: skip


def frames(scene: Scene) -> tuple[dict[str, Frame], str]:
    """All frames that a scene of this kind may have, by what the caption calls them, and the name of the scene's own."""
    alone, kind, several = (STANDARD,), scene.kind, len(scene.things) > 1
    if kind in ("colour", "language"):
        return {colour: Frame(alone, colour) for colour in COLOURS}, scene.background
    if kind == "painted":
        paints = {colour: Frame(alone, colour=colour) for colour in COLOURS if colour != "white"}
        return {"": Frame(alone), **paints}, scene.things[0].colour
    if kind == "shape":
        shapes = [(shape, colour) for shape in ("circle", "square") for colour in COLOURS if colour != "white"]
        assert scene.shape is not None
        return {" ".join(shape): Frame((ON_SHAPE,), shape=shape) for shape in shapes}, " ".join(scene.shape)
    if kind == "place":
        return {"": Frame(alone), **{name: Frame((place,)) for name, place in PLACES.items()}}, scene.relation
    if kind == "size" and not several:
        return {"": Frame(alone), **{name: Frame((place,)) for name, place in SIZES.items()}}, scene.size
    if kind == "count":
        return {str(count): Frame(places) for count, places in GROUPS.items()}, str(len(scene.things))
    if kind == "style":
        return {"": Frame(alone), **{look: Frame(alone, look=look) for look in LOOKS}}, scene.things[0].look
    layouts = {
        "size": ("bigger", "smaller", "beside"), "pair": ("beside", "above"), "relation": ("left", "above"),
        "three": ("row", "above both", "below both"),
    }  # fmt: skip
    if kind in layouts:
        own = scene.size or {"between": "row"}.get(scene.relation, scene.relation)
        return {layout: Frame(LAYOUTS[layout]) for layout in layouts[kind]}, own
    return {"": Frame(alone)}, ""


def verdicts(pictures: Float[Tensor, "n 3 s s"], scenes: Sequence[Scene], concepts: Sequence[Concept]) -> list[Verdict]:
    """Drawings of scenes, all of one kind, judged part by part against the renderings of the concepts.

    `all` is right when the scene asked for is the nearest of all scenes of its kind. Of one thing, the thing is right when
    the nearest of all scenes has it, and an attribute when that scene has it, whatever the other is. Of different things,
    each is right when it is the nearest of all in its place, and the arrangement when these very things stand nowhere
    nearer. The style counts where the caption names one, with the things that were asked for.
    """
    found: dict[int, Verdict] = {}
    for several in (False, True):  # a scene of sizes has one or two things
        every = [i for i, scene in enumerate(scenes) if _several(scene) == several]
        for start in range(0, len(every), CHUNK):
            rows = every[start : start + CHUNK]
            judged = _several_judged if several else _single_judged
            found |= zip(rows, judged(pictures[rows], [scenes[i] for i in rows], concepts), strict=True)
    return [found[i] for i in range(len(scenes))]


def chances(scene: Scene, concepts: int) -> dict[str, float]:
    """How often each part of such a scene would be right by guessing."""
    names, _ = frames(scene)
    things = len(scene.things) if _several(scene) else 1
    orders = len(list(permutations(range(things)))) // (2 if scene.kind == "pair" else 1)
    found = {"thing": 1 / concepts, "all": 1 / (concepts**things * len(names))}
    if things > 1:
        found |= {"all things": concepts**-things}
    if scene.kind in ATTRIBUTES:
        found[ATTRIBUTES[scene.kind]] = 1 / (len(names) * orders)
    if scene.kind == "pair":  # in either order
        found = {name: chance * (2 if name.startswith("all") else 1) for name, chance in found.items()}
    if scene.style:
        found |= {"style": 1 / len(STYLES), "all": found["all"] / len(STYLES)}
    return found


def _several(scene: Scene) -> bool:
    """Whether different things are in it; several of one are judged as one."""
    return len({thing.concept for thing in scene.things}) > 1


def _tables(
    pictures: Float[Tensor, "n 3 s s"], choices: dict[str, Frame], concepts: Sequence[Concept]
) -> tuple[Float[Tensor, "f n"], list[list[Float[Tensor, "t n c"]]]]:
    """Squared distances of pictures to scenes with each frame, in two parts that add up: outside of its places, and for
    each place to every concept drawn there by each artist (t)."""
    n, size = len(pictures), pictures.shape[-1]
    side = SIDE if size >= SIDE else LATTICE

    def shrunk(x: Tensor) -> Tensor:
        return F.interpolate(x, (side, side), mode="area").double()

    def rendered(frame: Frame, things: Sequence[Thing]) -> Tensor:
        """A picture of each of the things, alone; without any, of the frame."""
        scenes = [
            Scene("", each, frame.background, "", 0, shape=frame.shape) for each in ([(t,) for t in things] or [()])
        ]
        pictures = torch.stack([torch.from_numpy(render(scene, size)) for scene in scenes])
        return shrunk(rearrange(pictures, "b h w c -> b c h w").float() / 255)

    def box(x: Tensor, place: Place) -> Tensor:
        left, top, width = (value * side // LATTICE for value in place)
        return rearrange(x[..., top : top + width, left : left + width], "b c h w -> b (c h w)")

    small = shrunk(pictures)
    known: dict[tuple[str, int], Tensor] = {}  # by artist and side: on plain ground a thing looks the same everywhere
    ground = None
    outside, inside = [], []
    for frame in choices.values():
        if ground != (ground := replace(frame, places=())):
            known.clear()
        off = (small - rendered(frame, ())).square()
        outside.append(off.sum((1, 2, 3)) - sum(box(off, place).sum(1) for place in frame.places))
        parts = []
        for place in frame.places:
            seen, table = box(small, place), torch.full((len(STYLES), n, len(concepts)), torch.inf, dtype=torch.double)
            for t, style in enumerate(STYLES):
                if frame.look == "outline" and style != "openmoji":
                    continue
                if (style, place[2]) not in known:
                    things = [Thing(concept, style, place, frame.colour, frame.look) for concept in concepts]
                    known[style, place[2]] = box(rendered(frame, things), place)
                real = known[style, place[2]]
                table[t] = (seen.square().sum(1)[:, None] + real.square().sum(1) - 2 * seen @ real.T).clamp(min=0)
            parts.append(table)
        inside.append(parts)
    return torch.stack(outside), inside


EPSILON = 1e-6  # two ways to the same sum differ by this much


def _single_judged(
    pictures: Float[Tensor, "n 3 s s"], scenes: Sequence[Scene], concepts: Sequence[Concept]
) -> list[Verdict]:
    """Scenes of one thing, or of several of one."""
    choices, _ = frames(scenes[0])
    names, rows = list(choices), {concept: row for row, concept in enumerate(concepts)}
    outside, inside = _tables(pictures, choices, concepts)
    # (frame, artist, picture, concept)
    total = torch.stack([rest[None, :, None] + sum(parts) for rest, parts in zip(outside, inside, strict=True)])
    found = []
    for i, scene in enumerate(scenes):
        table, thing = total[:, :, i], rows[scene.things[0].concept]
        frame, artists = names.index(frames(scene)[1]), range(len(STYLES))
        if scene.style:
            artists = [STYLES.index(scene.style)]
        own, nearest = min(table[frame, t, thing] for t in artists), table.min() + EPSILON
        of_things, of_frames = table.amin((0, 1)), table.amin((1, 2))
        parts = [("thing", bool(of_things[thing] <= of_things.min() + EPSILON))]
        if scene.kind in ATTRIBUTES:
            parts.append((ATTRIBUTES[scene.kind], bool(of_frames[frame] <= of_frames.min() + EPSILON)))
        if scene.style:
            by = table[:, :, thing].amin(0)
            parts.append(("style", bool(by[artists[0]] <= by.min() + EPSILON)))
        best, concept = int(of_frames.argmin()), int(of_things.argmin())
        said = " ".join(word for word in (names[best], concepts[concept].name) if word)
        found.append(Verdict((*parts, ("all", bool(own <= nearest))), said))
    return found


def _several_judged(
    pictures: Float[Tensor, "n 3 s s"], scenes: Sequence[Scene], concepts: Sequence[Concept]
) -> list[Verdict]:
    """Scenes of different things."""
    choices, _ = frames(scenes[0])
    names, rows = list(choices), {concept: row for row, concept in enumerate(concepts)}
    outside, inside = _tables(pictures, choices, concepts)
    found = []
    for i, scene in enumerate(scenes):
        asked, frame = [rows[thing.concept] for thing in scene.things], names.index(frames(scene)[1])
        orders = list(permutations(range(len(asked))))
        allowed = orders if scene.kind == "pair" else orders[:1]
        artists = [STYLES.index(scene.style)] if scene.style else range(len(STYLES))

        def cost(f: int, order: Sequence[int], t: int, i=i, asked=asked) -> float:
            """The asked things, the k-th in place order[k], drawn by artist t."""
            parts = [float(inside[f][place][t, i, thing]) for thing, place in zip(asked, order, strict=True)]
            return float(outside[f, i]) + sum(parts)

        every = [(f, order) for f in range(len(names)) for order in orders]
        by_arrangement = {e: min(cost(*e, t) for t in range(len(STYLES))) for e in every}
        own = min(cost(frame, order, t) for order in allowed for t in artists)
        order = min(allowed, key=lambda order: by_arrangement[frame, order])  # noqa: B023 (used at once)
        things = []
        for thing, place in zip(asked, order, strict=True):
            of_things = inside[frame][place][:, i].amin(0)
            things.append(bool(of_things[thing] <= of_things.min() + EPSILON))
        right = min(by_arrangement[frame, order] for order in allowed) <= min(by_arrangement.values()) + EPSILON
        parts = [*(("thing", each) for each in things), ("all things", all(things)), (ATTRIBUTES[scene.kind], right)]
        if scene.style:
            by = [min(cost(*e, t) for e in every) for t in range(len(STYLES))]
            parts.append(("style", by[artists[0]] <= min(by) + EPSILON))
        nearest, best, drawn = min(
            (float(outside[f, i] + sum(table[t, i].min() for table in inside[f])), f, t)
            for f in range(len(names))
            for t in range(len(STYLES))
        )
        shown = [concepts[int(table[drawn, i].argmin())].name for table in inside[best]]
        found.append(Verdict((*parts, ("all", own <= nearest + EPSILON)), f"{names[best]}: {', '.join(shown)}"))
    return found
