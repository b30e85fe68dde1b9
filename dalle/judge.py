"""An independent judge of drawings: which real rendering is nearest in pixels? (n 3 s s) in, ranks out."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor


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
