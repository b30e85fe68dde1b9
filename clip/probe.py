"""A linear probe of a CLIP's pictures: features (b d) and labels in; a regularised logistic regression out.

Radford et al. 2021, section 3.2 and appendix A.3: L-BFGS of at most 1,000 iterations; the strength of the L2 penalty is
swept on the validation split, coarsely over 1e-6 to 1e6 and then around the peak down to an eighth of a decade; then the
probe is fitted anew on training and validation pictures together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

COARSE = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # exponents of ten
FINEST = 1 / 8  # of a decade
ITERATIONS = 1000


@dataclass(frozen=True)
class Probe:
    """A linear map from features to scores of classes."""

    weight: Float[Tensor, "d c"]
    bias: Float[Tensor, "c"]

    def __call__(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        return x.double() @ self.weight + self.bias


def objective(probe: Probe, x: Float[Tensor, "b d"], labels: Int[Tensor, "b"], c: float) -> Float[Tensor, ""]:
    """Mean nats + |weight|^2 / (2 C b): scikit-learn's LogisticRegression(C), in which the bias is free too."""
    return F.cross_entropy(probe(x), labels) + probe.weight.square().sum() / (2 * c * len(x))


def logistic(
    x: Float[Tensor, "b d"], labels: Int[Tensor, "b"], count: int, c: float, start: Probe | None = None
) -> Probe:
    """The probe of `count` classes that minimises the objective, a convex problem: a `start` only saves time."""
    mean = x.double().mean(0)  # the free bias takes it up: the same minimum, found in fewer iterations
    z = x.double() - mean
    weight = torch.zeros(x.shape[1], count, dtype=torch.float64) if start is None else start.weight.clone()
    bias = torch.zeros(count, dtype=torch.float64) if start is None else start.bias + mean @ start.weight
    probe = Probe(weight.requires_grad_(), bias.requires_grad_())
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS,
        max_eval=2 * ITERATIONS,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(probe, z, labels, c)
        value.backward()
        return value

    optimizer.step(closure)
    weight, bias = weight.detach(), bias.detach()
    return Probe(weight, bias - mean @ weight)


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
