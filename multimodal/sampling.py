"""One decoding loop for text tokens and image codes: logits in, tokens out, one a row, until the caller stops.

Temperature, top-k (Fan et al. 2018), top-p (Holtzman et al. 2020). A row draws from its own random generator, so a
drawing or a continuation depends on its own seed, not on what it was sampled beside. Guidance: Ho & Salimans 2022.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.cli import UserError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 1.0
    """0 takes the likeliest, 1 samples the model's own distribution."""
    top_k: int = 0
    """Only the k likeliest may be chosen; 0 is all."""
    top_p: float = 1.0
    """Only the likeliest that together have this probability may be chosen."""

    def __post_init__(self):
        if not 0 <= self.temperature <= 100:
            raise UserError(f"temperature {self.temperature} is out of range: 0 (the likeliest) to 100.")
        if self.top_k < 0:
            raise UserError(f"top_k {self.top_k} is out of range: 0 (all) or more.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p {self.top_p} is out of range: above 0 up to 1.")


def filter_logits(logits: Float[Tensor, "b v"], sampling: Sampling) -> Float[Tensor, "b v"]:
    """Logits of the distribution to sample from: scaled by the temperature, what may not be chosen at -inf."""
    logits = logits / max(sampling.temperature, 1e-6)
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        # what comes before a token decides: the first is always kept
        beyond = probabilities.cumsum(-1) - probabilities >= sampling.top_p
        logits = logits.masked_fill(beyond.gather(-1, order.argsort(-1)), float("-inf"))
    return logits


def choose(logits: Float[Tensor, "b v"], sampling: Sampling, generators: list[torch.Generator]) -> Int[Tensor, "b"]:
    """One token a row, by the row's own generator (on the CPU, so that a seed means the same on every device)."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    # on the CPU, since some devices have no 64-bit numbers
    cumulative = filter_logits(logits.float(), sampling).softmax(-1).cpu().double().cumsum(-1)
    draws = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
    # scaled by the total, which rounding leaves a little off 1: an unreachable last token stays unreachable
    chosen = torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True).clamp(max=logits.shape[-1] - 1)
    return chosen[:, 0].to(logits.device)


def generators(seeds: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed & 0x7FFFFFFFFFFFFFFF) for seed in seeds]


def guide(
    conditional: Float[Tensor, "b v"], unconditional: Float[Tensor, "b v"], guidance: float
) -> Float[Tensor, "b v"]:
    """u + g (c - u): 1 is the conditional distribution itself, more follows the caption more closely."""
    return unconditional + guidance * (conditional - unconditional)


def decode(
    logits: Float[Tensor, "b v"],
    step: Callable[[Int[Tensor, "b"]], Float[Tensor, "b v"]],
    count: int,
    sampling: Sampling,
    generators: list[torch.Generator],
) -> Iterator[Int[Tensor, "b"]]:
    """Up to `count` tokens a row: the first from `logits`, each next from `step(the last)`, which is called only
    when a further token is wanted. The caller ends early by leaving the loop."""
    for position in range(count):
        tokens = choose(logits, sampling, generators)
        yield tokens
        if position + 1 < count:
            logits = step(tokens)
