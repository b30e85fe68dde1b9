"""A few labelled pictures beside the class names, nothing trained: vectors in, scores of classes out.

Tip-Adapter without training (Zhang et al. 2022, "Tip-Adapter: Training-free Adaption of CLIP for Few-shot
Classification"): a picture's scores are scale * cosine with each class's text, plus alpha times what the known pictures
say: each adds exp(-beta (1 - cosine)) to its own class. Alpha and beta are chosen on validation pictures; alpha 0 is
zero-shot. Legend: k known pictures, b pictures, c classes, d features.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

# the paper searches both linearly, for a scale of 100 and one network; a small model's scale and cosines lie elsewhere
ALPHAS = (0.0, *(0.1 * 2**i for i in range(12)))
BETAS = tuple(0.5 * 2**i for i in range(12))
CHUNK = 1024


@dataclass(frozen=True)
class Known:
    """Unit vectors of pictures whose classes are known: the cache."""

    vectors: Float[Tensor, "k d"]
    labels: Int[Tensor, "k"]
    count: int
    """Of classes."""

    def scores(self, pictures: Float[Tensor, "b d"], beta: float) -> Float[Tensor, "b c"]:
        """What the known pictures say."""
        return torch.cat([self.said(self.vectors @ part.T, beta) for part in pictures.split(CHUNK)])

    def said(self, cosines: Float[Tensor, "k b"], beta: float) -> Float[Tensor, "b c"]:
        """The same from the cosines: those of known pictures with the others."""
        near = (beta * (cosines - 1)).exp()
        return near.new_zeros(self.count, near.shape[1]).index_add_(0, self.labels, near).T


def draw(labels: Int[Tensor, "b"], shots: int, seed: int) -> Int[Tensor, "k"]:
    """Places of `shots` pictures of each class, all of a class that has fewer; other ones for another seed."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    chosen = [order[labels[order] == label][:shots] for label in labels.unique()]
    return torch.cat(chosen).sort().values


def choose(
    known: Known, texts: Float[Tensor, "b c"], pictures: Float[Tensor, "b d"], right: Int[Tensor, "b"]
) -> tuple[float, float]:
    """(alpha, beta) with which most of the validation pictures are right, `texts` being their zero-shot scores; of equals
    those nearest to zero-shot."""
    hits = torch.zeros(len(ALPHAS), len(BETAS), dtype=torch.int64)
    for part, own, truth in zip(pictures.split(CHUNK), texts.split(CHUNK), right.split(CHUNK), strict=True):
        cosines = known.vectors @ part.T
        for j, beta in enumerate(BETAS):
            said = known.said(cosines, beta)
            for i, alpha in enumerate(ALPHAS):
                hits[i, j] += ((own + alpha * said).argmax(1) == truth).sum()
    i, j = (hits == hits.max()).nonzero()[0].tolist()
    return ALPHAS[i], BETAS[j]
