"""A linear probe of a CLIP's pictures: features (b d) and labels in; a regularised logistic regression out.

Radford et al. 2021, section 3.2 and appendix A.3: the strength of the L2 penalty is swept on the validation split,
coarsely over 1e-6 to 1e6 and then around the peak down to an eighth of a decade; then the probe is fitted anew on training and
validation pictures together.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.logistic import Probe, logistic

COARSE = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # exponents of ten
FINEST = 1 / 8  # of a decade


def peak(value: Callable[[float], tuple]) -> float:
    """The exponent with the greatest value: the coarse ones first, then those around the best, ever closer."""
    seen = {exponent: value(exponent) for exponent in COARSE}
    step = 1.0
    while step >= FINEST:
        best = max(seen, key=lambda exponent: seen[exponent])
        for exponent in (best - step, best + step):
            if COARSE[0] <= exponent <= COARSE[-1] and exponent not in seen:
                seen[exponent] = value(exponent)
        step /= 2
    return max(seen, key=lambda exponent: seen[exponent])


def fit(
    train: tuple[Float[Tensor, "a d"], Int[Tensor, "a"]],
    validation: tuple[Float[Tensor, "b d"], Int[Tensor, "b"]],
    count: int,
) -> tuple[Probe, float]:
    """(the probe of all these pictures, its C): C is the one with which most validation pictures are right, and of equals
    the one with the fewest nats."""
    (x, labels), (held, right) = train, validation
    last: list[Probe] = []

    def value(exponent: float) -> tuple[float, float]:
        probe = logistic(x, labels, count, 10**exponent, *last)
        last[:] = [probe]
        scores = probe(held)
        return (scores.argmax(1) == right).double().mean().item(), -F.cross_entropy(scores, right).item()

    c = 10 ** peak(value)
    return logistic(torch.cat((x, held)), torch.cat((labels, right)), count, c, *last), c
