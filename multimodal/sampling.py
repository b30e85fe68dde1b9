"""One decoding loop for text tokens and image codes: logits in, tokens out, one a row, until the caller stops.

In this order: penalties for what was already written and a bias by token change the logits, the temperature scales
them, then top-k (Fan et al. 2018), top-p (Holtzman et al. 2020) and min-p (Nguyen et al. 2024) leave out the unlikely.
None of them depends on the order of the vocabulary: tokens that are equally likely stay or go together. A row draws from
its own random generator, so a drawing or a continuation depends on its own seed, not on what it was sampled beside.
Guidance: Ho & Salimans 2022.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multimodal.cli import UserError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 1.0
    """0 takes the likeliest, 1 samples the model's own distribution."""
    top_k: int = 0
    """Only the k likeliest may be chosen, and what is as likely as the last of them; 0 is all."""
    top_p: float = 1.0
    """Of those, only the likeliest that together have this share of their probability."""
    min_p: float = 0.0
    """Of those, only what has at least this share of the likeliest's probability; 0 is all."""
    repetition_penalty: float = 1.0
    """What was in the prompt or written has its logit divided by this, or multiplied below 0 (CTRL, Keskar et al. 2019)."""
    presence_penalty: float = 0.0
    """Taken from the logit of what was written, once."""
    frequency_penalty: float = 0.0
    """Taken from the logit of what was written, each time."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these tokens, -100 to 100: the ends all but forbid and force them."""

    def __post_init__(self):
        if not 0 <= self.temperature <= 100:
            raise UserError(f"temperature {self.temperature} is out of range: 0 (the likeliest) to 100.")
        if self.top_k < 0:
            raise UserError(f"top_k {self.top_k} is out of range: 0 (all) or more.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p {self.top_p} is out of range: above 0 up to 1.")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min_p {self.min_p} is out of range: 0 (all) to 1.")
        if not 0.01 <= self.repetition_penalty <= 100:
            raise UserError(f"repetition_penalty {self.repetition_penalty} is out of range: 0.01 to 100, 1 is none.")
        for name in ("presence_penalty", "frequency_penalty"):
            if not -2 <= getattr(self, name) <= 2:
                raise UserError(f"{name} {getattr(self, name)} is out of range: -2 to 2, 0 is none.")
        for token, bias in self.logit_bias.items():
            if token < 0 or not -100 <= bias <= 100:
                raise UserError(f"logit_bias {token}={bias} is out of range: a token from 0, a bias from -100 to 100.")

    @property
    def penalises(self) -> bool:
        """Whether what was already written changes what may follow."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)


def penalise(
    logits: Float[Tensor, "b v"], sampling: Sampling, prompted: Bool[Tensor, "b v"], written: Int[Tensor, "b v"]
) -> Float[Tensor, "b v"]:
    """Logits with the penalties for the tokens of the prompt and the count of each token written since."""
    if sampling.repetition_penalty != 1:
        # dividing a negative logit would reward the token instead
        changed = torch.where(logits > 0, logits / sampling.repetition_penalty, logits * sampling.repetition_penalty)
        logits = torch.where(prompted | (written > 0), changed, logits)
    return logits - sampling.frequency_penalty * written - sampling.presence_penalty * (written > 0)


def filter_logits(logits: Float[Tensor, "b v"], sampling: Sampling) -> Float[Tensor, "b v"]:
    """Logits of the distribution to sample from: scaled by the temperature, what may not be chosen at -inf."""
    logits = logits / max(sampling.temperature, 1e-6)
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if sampling.top_p < 1:
        logits = logits.masked_fill(logits < _nucleus(logits, sampling.top_p), float("-inf"))
    if sampling.min_p > 0:
        least = logits.amax(-1, keepdim=True) + math.log(sampling.min_p)
        logits = logits.masked_fill(logits < least, float("-inf"))
    return logits


def _nucleus(logits: Float[Tensor, "b v"], share: float) -> Float[Tensor, "b 1"]:
    """The least logit of the likeliest tokens that together have this share of the probability."""
    total = logits.logsumexp(-1, keepdim=True)
    for count in (1024, logits.shape[-1]):  # so many nearly always do, and are found faster than all are sorted
        likeliest = logits.topk(min(count, logits.shape[-1])).values
        probabilities = (likeliest - total).exp()
        # what comes before a token decides: the first is always kept
        beyond = probabilities.cumsum(-1) - probabilities >= share
        if bool(beyond[:, -1].all()):
            break
    return likeliest.masked_fill(beyond, float("inf")).amin(-1, keepdim=True)


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


class Chooser:
    """Chooses a token a row, again and again, and counts what it chose where a penalty asks for that.

    `like` has the shape and the device of the logits to come; `prompts` are what a repetition penalty counts besides.
    """

    def __init__(
        self,
        sampling: Sampling,
        generators: list[torch.Generator],
        like: Float[Tensor, "b v"],
        prompts: Sequence[Sequence[int]] = (),
    ):
        self._sampling, self._generators = sampling, generators
        self._bias = self._prompted = self._written = None
        vocabulary = like.shape[-1]
        if sampling.logit_bias:
            self._bias = torch.zeros_like(like[0], dtype=torch.float32)
            for token, bias in sampling.logit_bias.items():
                if token >= vocabulary:
                    raise UserError(
                        f"logit_bias {token}={bias}: the vocabulary has the tokens 0 to {vocabulary - 1:,}."
                    )
                self._bias[token] = bias
        if sampling.penalises:
            self._written = torch.zeros(like.shape, dtype=torch.long, device=like.device)
            self._prompted = torch.zeros_like(self._written, dtype=torch.bool)
            for row, prompt in enumerate(prompts):
                self._prompted[row, list(prompt)] = True

    def __call__(self, logits: Float[Tensor, "b v"]) -> Int[Tensor, "b"]:
        if self._written is not None:
            logits = penalise(logits.float(), self._sampling, self._prompted, self._written)
        if self._bias is not None:
            logits = logits.float() + self._bias
        tokens = choose(logits, self._sampling, self._generators)
        if self._written is not None:
            self._written.scatter_add_(1, tokens[:, None], torch.ones_like(tokens[:, None]))
        return tokens

    def select(self, rows: list[int]) -> None:
        """Goes on with these rows only."""
        self._generators = [self._generators[row] for row in rows]
        if self._written is not None:
            self._prompted, self._written = self._prompted[rows], self._written[rows]


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
    given: Int[Tensor, "b count"] | None = None,
) -> Iterator[Int[Tensor, "b"]]:
    """Up to `count` tokens a row: the first from `logits`, each next from `step(the last)`, which is called only
    when a further token is wanted. Where `given` is not negative it is taken, whatever the logits say; a row's draws at other
    places do not depend on that. The caller ends early by leaving the loop."""
    chooser = Chooser(sampling, generators, logits)
    for position in range(count):
        tokens = chooser(logits)
        if given is not None:
            tokens = torch.where(given[:, position] < 0, tokens, given[:, position])
        yield tokens
        if position + 1 < count:
            logits = step(tokens)
