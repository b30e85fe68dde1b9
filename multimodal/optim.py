"""Optimisers and schedules: parameters in, a list of optimisers out; the rate is a pure function of the progress.

Muon (Jordan et al. 2024) orthogonalises the momentum of each matrix inside the blocks; embeddings, heads, gains and
the shortcut weights take AdamW (Loshchilov & Hutter 2019).
"""

import math

import torch
from torch import nn

from multimodal.config import TrainConfig
from multimodal.muon import Muon


def optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """One or two optimisers over every parameter that wants a gradient. Tied parameters appear once.

    Muon computes its updates in bf16 but for `precision` fp32; auto is for the caller to decide."""
    matrices, tables, decayed, plain = [], [], [], []
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if config.optimizer == "muon" and parameter.ndim == 2 and ".blocks." in f".{name}":
            matrices.append(parameter)
        elif id(parameter) in embeddings:
            tables.append(parameter)
        else:
            (decayed if parameter.ndim >= 2 else plain).append(parameter)
    faster = config.embedding_lr
    groups = [
        # the same decay a step, however fast they learn
        {"params": tables, "weight_decay": config.weight_decay / faster, "scale": faster},
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # one fused kernel for all parameters; the loop over single parameters is slow for small models
    result = (
        [torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), eps=1e-8, fused=True)] if groups else []
    )
    if matrices:
        dtype = torch.float32 if config.precision == "fp32" else torch.bfloat16
        result.append(Muon(matrices, config.lr, config.weight_decay, dtype=dtype))
    return result


def rate(progress: float, config: TrainConfig) -> float:
    """Multiplier of the learning rate at `progress` in [0, 1] of the run."""
    progress = min(max(progress, 0.0), 1.0)
    # the first step is never wasted at rate 0
    warm = min(1.0, (progress + 1e-3) / config.warmup) if config.warmup else 1.0
    if config.schedule == "cosine":
        return warm * (config.floor + (1 - config.floor) * (1 + math.cos(math.pi * progress)) / 2)
    fall = (1 - progress) / config.cooldown if config.cooldown else 1.0
    return warm * min(1.0, fall)


def passes(step: int, config: TrainConfig) -> int:
    """Forward passes of the step (from 0): they grow linearly over `ramp` steps to `accumulate` (Brown et al. 2020, B)."""
    if step >= config.ramp:
        return config.accumulate
    return max(1, config.accumulate * (step + 1) // (config.ramp + 1))


def momentum(progress: float) -> float:
    """Muon's momentum rises from 0.85 to 0.95 in the first tenth of the run, as its author's record runs do."""
    return 0.85 + 0.1 * min(1.0, max(progress, 0.0) / 0.1)
