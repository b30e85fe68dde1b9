"""Muon (Jordan et al. 2024): matrices and their gradients in, moved along the orthogonalised momentum.

torch.optim.Muon with the same numbers, but matrices of one shape are orthogonalised together: a network of many small ones
then takes an eighth of the time, and on a CPU that was a third of the whole step. The size of an update is AdamW's (Liu et al.
2025, "Muon is scalable for LLM training"), so that one learning rate serves both.
"""

from collections import defaultdict

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

# a quintic whose iteration drives singular values towards 1; steep at 0, so that small ones grow fast (Jordan et al. 2024)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def orthogonalised(matrices: Float[Tensor, "k m n"], dtype: torch.dtype = torch.bfloat16) -> Float[Tensor, "k m n"]:
    """Each matrix with its singular values brought near 1 (Newton-Schulz), computed in `dtype`: bf16 is precise enough."""
    a, b, c = COEFFICIENTS
    x = matrices.to(dtype)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = rearrange(x, "k m n -> k n m")
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return rearrange(x, "k n m -> k m n") if tall else x


class Muon(torch.optim.Optimizer):
    """For matrices inside a network; its embeddings, heads and vectors want AdamW. Nesterov momentum, decoupled decay.

    `dtype` is what updates are computed in: where bf16 is emulated or slow, fp32 takes half the time or a quarter."""

    def __init__(
        self, params, lr: float, weight_decay: float, momentum: float = 0.95, dtype: torch.dtype = torch.bfloat16
    ):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append(parameter)
            for shape, parameters in shapes.items():
                self._move(group, shape, parameters)

    def _move(self, group: dict, shape: torch.Size, parameters: list[Tensor]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters]
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, buffers, group["momentum"])
        update = orthogonalised(torch.stack(ahead), self.dtype).to(parameters[0].dtype)
        size = 0.2 * max(shape) ** 0.5  # so that its root mean square is AdamW's
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(update.unbind()), alpha=-group["lr"] * size)
