"""Figures of a CLIP's vectors, counted as the papers count them: scores or vectors and the right answers in, shares out.

A tie goes to what comes first in the data, as it does where papers sort: a model that tells nothing apart is then right
as often as chance, neither always nor never. Legend: b pictures, t texts, c classes, d features.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clip.judge import similarities

BINS = 15  # of confidence; Guo et al. 2017
DEPTHS = (1, 5, 10)  # K of recall at K
CHUNK = 1024  # rows whose similarities to everything are held at once


def places(scores: Float[Tensor, "b c"], right: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
    """How many classes come before the right one: 0 where it is first."""
    right = rearrange(right, "b -> b 1")
    own = scores.gather(1, right)
    before = torch.arange(scores.shape[1], device=scores.device) < right
    return ((scores > own) | ((scores == own) & before)).sum(1)


def accuracies(places: Int[Tensor, "b"], right: Int[Tensor, "b"]) -> dict[str, float]:
    """Shares of pictures whose class comes first or among the first five, and the mean over classes of the first."""
    hit = (places < 1).double()
    _, each = right.unique(return_inverse=True)
    of_class = torch.zeros(int(each.max()) + 1, dtype=torch.float64).index_add_(0, each, hit) / each.bincount()
    return {
        "top1": hit.mean().item(),
        "top5": (places < 5).double().mean().item(),
        "mean_per_class": of_class.mean().item(),
    }


def retrieval(
    pictures: Float[Tensor, "b d"], texts: Float[Tensor, "t d"], owner: Int[Tensor, "t"], depths: Sequence[int] = DEPTHS
) -> dict[str, dict[str, float]]:
    """Recall at K both ways; text i describes picture owner[i], and every picture has one text at least.

    From a picture to texts it is a hit if any of its texts is among the first K; from a text to pictures there is one
    target (Karpathy & Fei-Fei 2015, and all since).
    """
    to_text = torch.cat(
        [
            _place_of_any(similarities(part, texts), owner == rearrange(numbers, "b -> b 1"))
            for part, numbers in zip(pictures.split(CHUNK), torch.arange(len(pictures)).split(CHUNK), strict=True)
        ]
    )
    to_image = torch.cat(
        [
            places(similarities(part, pictures), own)
            for part, own in zip(texts.split(CHUNK), owner.split(CHUNK), strict=True)
        ]
    )
    ways = (("image_to_text", to_text), ("text_to_image", to_image))
    return {name: {f"R@{k}": (found < k).double().mean().item() for k in depths} for name, found in ways}


def _place_of_any(scores: Float[Tensor, "b t"], own: Bool[Tensor, "b t"]) -> Int[Tensor, "b"]:
    """How many texts come before the first of a picture's own."""
    return places(scores, scores.masked_fill(~own, -math.inf).argmax(1))


def calibration_error(
    probabilities: Float[Tensor, "b c"], right: Int[Tensor, "b"], bins: int = BINS
) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error: between how sure the first class was and how often it was right, in bins of equal width
    (Guo et al. 2017, section 3); and for each bin that is not empty {"confidence", "accuracy", "share"}."""
    confidence, first = probabilities.double().max(1)
    hit = (first == right).double()
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1  # (0, 1/15], (1/15, 2/15] ...
    count = bin_of.bincount(minlength=bins).double()
    sums = [torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_of, values) for values in (confidence, hit)]
    rows = [
        {"confidence": (sure / n).item(), "accuracy": (true / n).item(), "share": (n / len(right)).item()}
        for n, sure, true in zip(count, *sums, strict=True)
        if n
    ]
    return sum(row["share"] * abs(row["accuracy"] - row["confidence"]) for row in rows), rows


def nats(logits: Float[Tensor, "b c"], right: Int[Tensor, "b"]) -> float:
    """Mean negative log-probability of the right classes."""
    return F.cross_entropy(logits.double(), right).item()


def temperature(logits: Float[Tensor, "b c"], right: Int[Tensor, "b"]) -> float:
    """What the logits are best divided by (Guo et al. 2017): fewest nats, which are convex in its inverse."""
    low, high = math.log(0.01), math.log(100)
    golden = (math.sqrt(5) - 1) / 2
    left, middle = high - golden * (high - low), low + golden * (high - low)
    at_left, at_middle = (nats(logits / math.exp(t), right) for t in (left, middle))
    while high - low > 1e-4:
        if at_left < at_middle:
            high, middle, at_middle = middle, left, at_left
            left = high - golden * (high - low)
            at_left = nats(logits / math.exp(left), right)
        else:
            low, left, at_left = left, middle, at_middle
            middle = low + golden * (high - low)
            at_middle = nats(logits / math.exp(middle), right)
    return math.exp((low + high) / 2)
