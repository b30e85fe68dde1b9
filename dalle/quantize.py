"""Two ways from continuous features to codes and back, both with gradients: (b c g g) in, (b c g g) out.

Gumbel: relaxed categorical codes (Jang et al. 2017; Maddison et al. 2017), as DALL·E's dVAE (Ramesh et al. 2021).
FSQ: finite scalar quantisation (Mentzer et al. 2023): round a few bounded numbers, count in a mixed radix.
Either offers `forward(features, temperature) -> (quantised, kl)`, `codes(features)`, `lookup(codes)`.
"""

import math

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn


class Gumbel(nn.Module):
    """Logits over a codebook; softmax with Gumbel noise while training, argmax for codes."""

    def __init__(self, width: int, codes: int):
        super().__init__()
        self.logits = nn.Conv2d(width, codes, 1)
        self.codebook = nn.Embedding(codes, width)

    def forward(
        self, features: Float[Tensor, "b d g g"], temperature: float
    ) -> tuple[Float[Tensor, "b d g g"], Float[Tensor, ""]]:
        """The relaxed codes' embedding and the KL from uniform, in nats a picture (a mean over the batch)."""
        logits = rearrange(self.logits(features), "b v y x -> b y x v").float()
        soft = F.gumbel_softmax(logits, tau=temperature, dim=-1)
        quantised = einsum(soft, self.codebook.weight, "b y x v, v d -> b d y x")
        # the posterior itself, at temperature 1, is what the ELB's KL is about, however relaxed the sample is
        log_q = logits.log_softmax(-1)
        kl = (log_q.exp() * (log_q + math.log(logits.shape[-1]))).sum((-1, -2, -3)).mean()
        return quantised, kl

    def codes(self, features: Float[Tensor, "b d g g"]) -> Int[Tensor, "b g g"]:
        return self.logits(features).argmax(1)

    def lookup(self, codes: Int[Tensor, "b g g"]) -> Float[Tensor, "b d g g"]:
        return rearrange(self.codebook(codes), "b y x d -> b d y x")


class FSQ(nn.Module):
    """A few numbers a position, each rounded to one of `levels`; the gradient passes the rounding unchanged."""

    def __init__(self, width: int, levels: tuple[int, ...]):
        super().__init__()
        self.levels = levels
        self.down, self.up = nn.Conv2d(width, len(levels), 1), nn.Conv2d(len(levels), width, 1)

    def _column(self, values, like: Tensor) -> Tensor:
        return rearrange(torch.tensor(values, device=like.device, dtype=torch.float32), "l -> l 1 1")

    def _bounded(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers inside (-half, half) shifted so that rounding gives exactly `levels` values, and the shift."""
        z = self.down(features).float()
        levels = self._column(self.levels, z)
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = 0.5 * (levels % 2 == 0)
        return torch.tanh(z + torch.atanh(offset / half)) * half - offset, levels // 2

    def forward(
        self, features: Float[Tensor, "b d g g"], temperature: float
    ) -> tuple[Float[Tensor, "b d g g"], Float[Tensor, ""]]:
        """The rounded numbers' embedding; there is nothing to regularise (KL 0) and no temperature."""
        bounded, half = self._bounded(features)
        rounded = bounded + (bounded.round() - bounded).detach()
        return self.up(rounded / half), bounded.new_zeros(())

    def codes(self, features: Float[Tensor, "b d g g"]) -> Int[Tensor, "b g g"]:
        bounded, half = self._bounded(features)
        digits = (bounded.round() + half).long()
        codes = torch.zeros_like(digits[:, 0])
        for digit, level in zip(digits.unbind(1), self.levels, strict=True):
            codes = codes * level + digit
        return codes

    def lookup(self, codes: Int[Tensor, "b g g"]) -> Float[Tensor, "b d g g"]:
        digits = []
        for level in reversed(self.levels):
            digits.append(codes % level)
            codes = codes // level
        half = self._column([level // 2 for level in self.levels], codes)
        numbers = torch.stack(digits[::-1], dim=1) - half
        return self.up((numbers / half).to(self.up.weight.dtype))
