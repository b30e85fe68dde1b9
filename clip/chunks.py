"""Exact large batches in constant memory, and captions without their padding: rows in, their vectors (b d) out.

A contrastive loss needs all vectors of a batch at once, but not all that led to them. So the batch is embedded part by
part under activation checkpointing (Chen et al. 2016): of a part only the vectors stay, the loss is taken once over
all, and on the way back each part is computed anew, with the random state it had. That is the gradient of the whole
batch, dropout and augmentation included, at the memory of a part. (Gao et al. 2021, GradCache, split the step in two
instead, with the vectors' gradients between them.)
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

GROUPS, LEAST = 8, 32  # of captions of like length; fewer captions than 32 together are not worth their overhead


def embed(tower: Callable[..., Tensor], parts: Sequence[Sequence[Tensor]], recompute: bool) -> Float[Tensor, "b d"]:
    """tower(*part) of every part, one below the other. With `recompute` what a part needs for its gradient is not kept, but
    computed again."""
    if recompute and torch.is_grad_enabled():
        # the state of all random numbers is put back for the second computation, and autocast is as in the first
        found = [checkpoint(tower, *part, use_reentrant=False, preserve_rng_state=True) for part in parts]
    else:
        found = [tower(*part) for part in parts]
    return torch.cat(found) if len(found) > 1 else found[0]


def embed_pictures(tower: Callable[..., Tensor], rows: Sequence[Tensor], chunk: int) -> Float[Tensor, "b d"]:
    """tower(*rows), `chunk` rows of each at once where it is not 0."""
    size = chunk or len(rows[0])
    return embed(tower, list(zip(*(row.split(size) for row in rows), strict=True)), chunk > 0)


def embed_captions(
    tower: Callable[..., Tensor], tokens: Int[Tensor, "b n"], end: int, chunk: int
) -> Float[Tensor, "b d"]:
    """Like `tower(tokens)`, but captions of like length are read together, and only as far as the longest of them goes.

    The batch itself stays as it was drawn: batches of one length would let the lengths tell what belongs together."""
    ends = (tokens == end).int().argmax(dim=1)
    order = ends.argsort(stable=True)
    size = chunk or max(LEAST, -(-len(tokens) // GROUPS))
    parts = [(tokens[rows, : int(ends[rows[-1]]) + 1],) for rows in order.split(size)]
    return embed(tower, parts, chunk > 0)[order.argsort()]
