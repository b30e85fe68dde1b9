"""Exact nearest neighbours among unit vectors: a query (d) and vectors (n d) in, the best rows out; and groups of rows
that lie close together. Matrix products only: a million vectors are one product that reads each of them once.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 2048  # rows of a block of cosines
PAIRS = 2**20  # close pairs that are held before they are joined
ROUNDING = 1e-5  # by which a cosine in fp32 may be off: equal pictures count as 1


def best(
    vectors: Float[Tensor, "n d"], query: Float[Tensor, "d"], k: int
) -> tuple[Float[Tensor, "k"], Int[Tensor, "k"]]:
    """The k (or n) greatest cosines and their rows, of equals the lower row first. Raises ValueError for vectors that are no
    numbers."""
    scores = vectors @ query
    if not scores.sum().isfinite():
        raise ValueError("a vector is not a number")
    if not len(scores):
        return scores, torch.empty(0, dtype=torch.int64)
    least = scores.topk(min(k, len(scores))).values[-1]
    rows = (scores >= least).nonzero()[:, 0]
    order = scores[rows].sort(descending=True, stable=True)
    return order.values[:k], rows[order.indices[:k]]


def groups(vectors: Float[Tensor, "n d"], threshold: float, block: int = BLOCK) -> list[list[int]]:
    """Rows that a chain of pairs with cosines of at least `threshold` connects, two or more a group, in order.

    All pairs are looked at, block by block, so memory does not grow with their number.
    """
    label = torch.arange(len(vectors))
    held: list[tuple[Tensor, Tensor]] = []
    for i in range(0, len(vectors), block):
        rows = vectors[i : i + block]
        for j in range(i, len(vectors), block):
            near = rows @ vectors[j : j + block].T >= threshold - ROUNDING
            if i == j:
                near = near.triu(1)
            if near.any():
                a, b = near.nonzero(as_tuple=True)
                held.append((a + i, b + j))
                if sum(len(a) for a, _ in held) > PAIRS:
                    _join(label, held)
    _join(label, held)
    order = label.sort(stable=True)
    _, counts = order.values.unique_consecutive(return_counts=True)
    return [group.tolist() for group in order.indices.split(counts.tolist()) if len(group) > 1]


def _join(label: Int[Tensor, "n"], pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Gives rows that the pairs connect the same label, the lowest of theirs; empties the list."""
    while pairs:
        a, b = (torch.cat(rows) for rows in zip(*pairs, strict=True))
        low = torch.minimum(label[a], label[b])
        different = label[a] != label[b]
        if not different.any():
            pairs.clear()
            return
        pairs[:] = [(a[different], b[different])]
        low, roots = low[different], torch.maximum(label[a], label[b])[different]
        label.scatter_reduce_(0, roots, low, "amin")
        while not torch.equal(label, label[label]):  # a label's own label is its group's
            label.copy_(label[label])
