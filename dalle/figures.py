"""Figures of many drawings: how faithful, how varied, how new. Pictures (n 3 s s) in [0, 1] in, numbers out.

Fidelity is what `judge.verdicts` and a CLIP say, with Wilson's interval; beside it the same of real pictures passed through
the dVAE (the ceiling) and of guessing. The Fréchet distance is that of Dowson & Landau 1982 on features of our own: it
compares with nothing but the reference values beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from dalle import judge
from dalle.model import Artist
from multimodal import images
from multimodal.data.art import STYLES, Concept
from multimodal.data.drawings import Drawings, Scene, render

Draw = Callable[[list[str], list[int]], Float[Tensor, "n 3 s s"]]
CHUNK = 64
KNOWN = 4000  # pictures of the training split among which a drawing's nearest is looked for
VARIED = (8, 8)  # prompts, and seeds of each


@dataclass(frozen=True)
class Scorer:
    """A CLIP, as far as it is needed here."""

    name: str
    similar: Callable[[Float[Tensor, "n 3 s s"], list[str]], Float[Tensor, "n m"]]
    """How close each picture is to each caption."""
    features: Callable[[Float[Tensor, "n 3 s s"]], Float[Tensor, "n d"]]


def real(scenes: Sequence[Scene], size: int) -> Float[Tensor, "n 3 s s"]:
    """The scenes as they are in the training set."""
    pictures = torch.stack([torch.from_numpy(render(scene, size)) for scene in scenes])
    return images.to_float(rearrange(pictures, "b h w c -> b c h w"))


@torch.no_grad()
def through(artist: Artist, pictures: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
    """What the codes keep of pictures: the best that a transformer on them could draw."""
    where, dvae = artist.model.place.device, artist.dvae
    return torch.cat([dvae.decode(dvae.encode(part.to(where))).float().cpu() for part in pictures.split(CHUNK)])


def wilson(right: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    if not of:
        return 0.0, 1.0
    share, scale = right / of, 1 + z**2 / of
    middle, half = share + z**2 / (2 * of), z * sqrt(share * (1 - share) / of + z**2 / (4 * of**2))
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def counted(right: Sequence[bool]) -> dict[str, Any]:
    low, high = wilson(sum(right), len(right))
    return {"right": sum(right), "of": len(right), "share": sum(right) / max(1, len(right)), "low": low, "high": high}


def fidelity(
    name: str,
    scenes: Sequence[Scene],
    drawn: Float[Tensor, "n 3 s s"],
    passed: Float[Tensor, "n 3 s s"],
    concepts: Sequence[Concept],
    scorer: Scorer | None,
) -> tuple[list[dict[str, Any]], list[judge.Verdict]]:
    """A row for each part of this kind of prompt, and what is said of each drawing. `passed` are the real pictures of the
    scenes after the dVAE."""
    n = len(scenes)
    found = judge.verdicts(torch.cat((drawn, passed)), [*scenes, *scenes], concepts)
    guessed = [judge.chances(scene, len(concepts)) for scene in scenes]
    parts = sorted({part for verdict in found for part, _ in verdict.parts}, key=PARTS.index)
    rows = []
    for part in parts:
        ours, best = ([right for v in half for p, right in v.parts if p == part] for half in (found[:n], found[n:]))
        chance = [guess[part] for guess, v in zip(guessed, found, strict=False) for p, _ in v.parts if p == part]
        rows.append(
            {
                "kind": name,
                "part": part,
                **counted(ours),
                "ceiling": sum(best) / len(best),
                "chance": sum(chance) / len(chance),
            }
        )
    if scorer is not None and n > 1:
        prompts, identities = [scene.caption for scene in scenes], [scene.identity for scene in scenes]
        ours, best = (
            [identities[int(i)] == own for i, own in zip(scorer.similar(p, prompts).argmax(1), identities, strict=True)]
            for p in (drawn, passed)
        )
        chance = sum(identities.count(own) for own in identities) / n**2
        rows.append(
            {"kind": name, "part": "prompt by CLIP", **counted(ours), "ceiling": sum(best) / n, "chance": chance}
        )
    return rows, found[:n]


PARTS = ("thing", "all things", *dict.fromkeys(judge.ATTRIBUTES.values()), "style", "all")


def spread(pictures: Float[Tensor, "n 3 s s"]) -> float:
    """Mean distance of every two of the pictures."""
    return float(judge.distances(pictures, pictures, judge.SIDE).sum() / (len(pictures) * (len(pictures) - 1)))


def diversity(draw: Draw, source: Drawings, size: int, seed: int) -> dict[str, Any]:
    """How much drawings of one prompt differ from seed to seed, beside real pictures of the thing by an artist drawn at
    random, and real pictures of different things."""
    prompts, seeds = VARIED
    chosen = source.concepts[:: max(1, len(source.concepts) // prompts)][:prompts]
    pictures = draw([c.phrase for c in chosen for _ in range(seeds)], [seed + i for i in range(len(chosen) * seeds)])
    by_artist = [_canonical(source, chosen, style, size) for style in STYLES]
    apart = sum(float(judge.distances(a[None], b[None], judge.SIDE)) for a, b in zip(*by_artist, strict=True))
    return {
        "drawings": sum(spread(part) for part in pictures.split(seeds)) / len(chosen),
        "real": apart / len(chosen) / 2,  # every other time both are by the same artist, and equal
        "different things": spread(by_artist[0]) if len(chosen) > 1 else 0.0,
    }


def _canonical(source: Drawings, concepts: Sequence[Concept], style: str, size: int) -> Float[Tensor, "n 3 s s"]:
    pictures = torch.stack([torch.from_numpy(source.canonical(concept, style, size)) for concept in concepts])
    return images.to_float(rearrange(pictures, "b h w c -> b c h w"))


def recalled(
    source: Drawings, scenes: Sequence[Scene], drawn: Float[Tensor, "n 3 s s"], passed: Float[Tensor, "n 3 s s"]
) -> dict[str, Any]:
    """Is one thing alone remembered? Mean distance of drawings to the nearest training picture of one thing; of those
    pictures after the dVAE; and of one artist's to the nearest of the other's, which is how near a new drawing of the same
    things comes by itself. A drawing that is nearer than that, of the thing asked for, counts as recalled."""
    size = drawn.shape[-1]
    one, other = (_canonical(source, source.concepts, style, size) for style in STYLES)
    between = judge.distances(one, other, judge.SIDE)
    apart = torch.minimum(between.amin(0), between.amin(1))
    known = torch.cat((one, other))
    ours, best = (judge.distances(pictures, known, judge.SIDE).amin(1) for pictures in (drawn, passed))
    rows = {concept: row for row, concept in enumerate(source.concepts)}
    of_asked = apart[[rows[scene.things[0].concept] for scene in scenes]]
    return {
        "drawings": float(ours.mean()), "after the dVAE": float(best.mean()), "other artist": float(of_asked.mean()),
        **counted((ours < of_asked).tolist()),
    }  # fmt: skip


def composed(
    source: Drawings, scenes: Sequence[Scene], drawn: Float[Tensor, "n 3 s s"], passed: Float[Tensor, "n 3 s s"]
) -> dict[str, Any]:
    """Is what was never shown put together? Share of the drawings that are nearer to a real picture of what was asked, by
    either artist, than to any of KNOWN pictures of its kind that training may show (`source`)."""
    size = drawn.shape[-1]
    known = real([source.scene(i) for i in range(KNOWN)], size)
    wanted = [
        real([replace(s, things=tuple(replace(t, style=style) for t in s.things)) for s in scenes], size)
        for style in STYLES
    ]
    found = []
    for pictures in (drawn, passed):
        near = torch.stack([(_small(pictures) - _small(w)).square().mean(1).sqrt() for w in wanted]).amin(0)
        found.append((near < judge.distances(pictures, known, judge.SIDE).amin(1)).tolist())
    return {**counted(found[0]), "ceiling": sum(found[1]) / len(scenes), "known": KNOWN}


def nearest_things(source: Drawings, pictures: Float[Tensor, "n 3 s s"]) -> list[str]:
    """The concept whose plain rendering, by either artist, is nearest to each picture."""
    known = torch.cat([_canonical(source, source.concepts, style, pictures.shape[-1]) for style in STYLES])
    nearest = judge.distances(pictures, known, judge.SIDE).argmin(1) % len(source.concepts)
    return [source.concepts[int(i)].name for i in nearest]


def _small(pictures: Float[Tensor, "n 3 s s"], side: int = judge.SIDE) -> Float[Tensor, "n d"]:
    return rearrange(F.interpolate(pictures, (side, side), mode="area"), "b c h w -> b (c h w)")


def frechet(some: Float[Tensor, "n d"], others: Float[Tensor, "m d"]) -> float:
    """Of the normal distributions that two sets of features have: |mean - mean'|^2 + tr(C + C' - 2 (C C')^(1/2)). It
    grows as the sets get smaller: compare it at equal numbers only."""
    a, b = some.double(), others.double()
    one, other = (torch.atleast_2d(torch.cov(x.T)) for x in (a, b))
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + one.trace() + other.trace() - 2 * mixed)


def frechet_distances(
    drawn: Float[Tensor, "n 3 s s"],
    passed: Float[Tensor, "n 3 s s"],
    asked: Float[Tensor, "n 3 s s"],
    others: Float[Tensor, "n 3 s s"],
    scorer: Scorer | None,
) -> list[dict[str, Any]]:
    """Distances to `others`, real pictures of other scenes of the same kinds: of drawings, of real pictures after the dVAE,
    and, which is what no distance can go below, of the real pictures themselves."""
    looks: dict[str, Callable[[Tensor], Tensor]] = {"the mean colours of 4 x 4 parts": lambda x: _small(x, 4)}
    if scorer is not None:
        looks[f"the image tower of {scorer.name}"] = scorer.features
    return [
        {"features": name, "drawings": frechet(look(drawn), look(others)), "after the dVAE": frechet(look(passed), look(others)),
         "real": frechet(look(asked), look(others)), "pictures": len(drawn)}
        for name, look in looks.items()
    ]  # fmt: skip
