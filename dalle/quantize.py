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

POINT = 16  # numbers of the random points that gumbel codes begin as


def relax(
    logits: Float[Tensor, "b v g g"], temperature: float, straight_through: bool = False
) -> tuple[Float[Tensor, "b g g v"], Float[Tensor, ""]]:
    """How much there is of each code at each place, relaxed by Gumbel noise, and the KL of the codes from uniform ones, in
    nats a picture (a mean over the batch).

    With `straight_through` it is the likeliest of the relaxed codes alone; the gradient stays that of all of them.
    """
    logits = rearrange(logits, "b v y x -> b y x v").float()
    # Gumbel noise of uniform numbers: on a CPU a fourth of the time of torch's exponential ones
    noise = torch.rand_like(logits).log_().neg_().log_()
    soft = ((logits - noise) / temperature).softmax(-1)
    if straight_through:
        hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
        soft = hard + (soft - soft.detach())
    # the posterior itself, at temperature 1, is what the ELB's KL is about, however relaxed the sample is
    log_q = logits.log_softmax(-1)
    return soft, (log_q.exp() * (log_q + math.log(logits.shape[-1]))).sum((-1, -2, -3)).mean()


class Gumbel(nn.Module):
    """Logits over a codebook; softmax with Gumbel noise while training, argmax for codes."""

    def __init__(self, width: int, codes: int):
        super().__init__()
        self.logits = nn.Conv2d(width, codes, 1)
        self.codebook = nn.Embedding(codes, width)
        # A code's logit and its embedding begin as two views of the same random point: what is decoded then tells
        # something of the features from the first step, where the mixture of unrelated embeddings is noise for long.
        points = torch.randn(codes, POINT)
        self.logits.weight.data = rearrange(points @ torch.randn(POINT, width) * 2 / width**0.5, "v d -> v d 1 1")
        self.codebook.weight.data = points @ torch.randn(POINT, width) / POINT**0.5
        nn.init.zeros_(self.logits.bias)

    def forward(
        self, features: Float[Tensor, "b d g g"], temperature: float, straight_through: bool = False
    ) -> tuple[Float[Tensor, "b d g g"], Float[Tensor, ""]]:
        """The relaxed codes' embedding and the KL of `relax`."""
        soft, kl = relax(self.logits(features), temperature, straight_through)
        return einsum(soft, self.codebook.weight, "b y x v, v d -> b d y x"), kl

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
        self, features: Float[Tensor, "b d g g"], temperature: float, straight_through: bool = True
    ) -> tuple[Float[Tensor, "b d g g"], Float[Tensor, ""]]:
        """The rounded numbers' embedding; there is nothing to regularise (KL 0), no temperature and no relaxation."""
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
