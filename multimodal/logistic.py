"""Logistic regression, as a probe of what features tell: features (b d) and labels (b) in, a linear map to scores out.

A convex problem, solved by L-BFGS in 64 bits (Radford et al. 2021, appendix A.3, take at most 1,000 iterations).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

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
    """The probe of `count` classes that minimises the objective: a `start` only saves time."""
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
