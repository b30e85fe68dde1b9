"""What a training would take, before it is begun: settings in, sentences and figures out.

Ten seconds of the real work, on tokens drawn at random, say how fast this machine is. The point on the scaling curve is
Hoffmann et al. 2022, equation 10: L(N, D) = 1.69 + 406.4 / N^0.34 + 410.7 / D^0.28 for N parameters and D tokens, fitted to
web text in nats of a token of their vocabulary: its shape carries over to other text, its height does not.
"""

import math
import os
import statistics
import time
from dataclasses import replace
from typing import Any

import torch

from gpt.model import GPT, next_token_loss
from gpt.presets import GPTConfig, TrainGPT
from gpt.sizes import short, size
from multimodal import devices, optim

SECONDS = 10.0


def expected_loss(parameters: int, tokens: float | int) -> float:
    """Nats a token on the curve of Hoffmann et al. 2022."""
    return 1.69 + 406.4 / parameters**0.34 + 410.7 / tokens**0.28


def memory(device: torch.device) -> int:
    """Bytes of the machine, or of the card."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def measure(config: GPTConfig, settings: TrainGPT, device: torch.device) -> tuple[float, float]:
    """Seconds of a forward and backward pass of the whole batch, and of an optimiser's step.

    Where the batch is too large for the time, one row is measured, and the others are taken to cost the same.
    """
    torch.manual_seed(settings.seed)
    devices.keep_memory(device)  # as `fit` does
    model = GPT(config).to(device).train()
    train = replace(settings.train, precision=devices.precision(device, settings.train.precision))
    optimizers = optim.optimizers(model, train)
    window = min(settings.context, config.context)
    rows, began, passes, moves = 1, time.perf_counter(), [], []
    while len(passes) < 2 or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        tokens = torch.randint(config.vocabulary, (rows, window + 1), device=device)
        with devices.autocast(device, train.precision):
            loss, _ = next_token_loss(model, {"tokens": tokens}, 0)
        loss.backward()
        loss.item()
        passes.append((time.perf_counter() - start) / rows)
        start = time.perf_counter()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        moves.append(time.perf_counter() - start)
        if len(passes) == 2 and rows == 1 and passes[1] * settings.train.batch_size < SECONDS / 3:
            rows, passes = settings.train.batch_size, []
    # the first of each also makes ready what the others find
    return statistics.median(passes[1:]) * settings.train.batch_size, statistics.median(moves[1:])


def plan(config: GPTConfig, settings: TrainGPT) -> dict[str, Any]:
    """Figures of the run: parameters, steps, tokens, flops, train_bytes, memory_bytes, expected_loss; and where the model
    fits into memory tokens_per_second, flops_per_second, minutes."""
    train, cost, device = settings.train, size(config), devices.pick(settings.device)
    available = memory(device)
    seconds, steps = None, train.steps

    def passes() -> int:
        return sum(optim.passes(i, train) for i in range(min(steps, train.ramp))) + train.accumulate * max(
            0, steps - train.ramp
        )

    if cost.train_bytes < 0.8 * available:
        a_pass, a_step = measure(config, settings, device)
        if train.minutes:  # whichever comes first
            steps = min(steps, max(1, int(60 * train.minutes / (train.accumulate * a_pass + a_step))))
        seconds = passes() * a_pass + steps * a_step
    tokens = passes() * train.batch_size * min(settings.context, config.context)
    figures: dict[str, Any] = {"parameters": cost.parameters, "steps": steps, "tokens": tokens}
    figures |= {"flops": tokens * cost.train_flops, "train_bytes": cost.train_bytes, "memory_bytes": available}
    figures |= {"device": str(device), "tokens_per_parameter": tokens / cost.parameters}
    # a model that knows nothing has ln(v): the curve was fitted far below
    expected = expected_loss(cost.parameters, tokens)
    figures["expected_loss"] = expected if expected < math.log(config.vocabulary) / 2 else None
    if seconds is not None:
        figures |= {"minutes": seconds / 60, "tokens_per_second": tokens / seconds}
        figures["flops_per_second"] = figures["flops"] / seconds
    return figures


def told(figures: dict[str, Any]) -> str:
    """The figures in sentences."""
    has, needs = short(figures["memory_bytes"], "B"), short(figures["train_bytes"], "B")
    lines = [
        f"{figures['parameters']:,} parameters; {figures['steps']:,} steps, {short(figures['tokens'])} tokens, "
        f"{short(figures['flops'], 'FLOPs')}.",
        f"Memory: {needs} of weights, gradients and moments, and activations beside; {figures['device']} has {has}.",
    ]
    if "minutes" in figures:
        minutes = figures["minutes"]
        length = f"{minutes:.1f} minutes" if minutes < 120 else f"{minutes / 60:,.1f} hours"
        length = length if minutes < 60 * 72 else f"{minutes / 1440:,.1f} days"
        lines.append(
            f"About {length} here: {figures['tokens_per_second']:,.0f} tokens a second, "
            f"{short(figures['flops_per_second'], 'FLOP/s')}, measured for {SECONDS:.0f} seconds."
        )
    else:
        lines.append("It does not fit into the memory of this machine: no time was measured.")
    ratio = figures["tokens_per_parameter"]
    curve = (
        "the curve of Hoffmann et al. 2022 was fitted to far larger runs"
        if figures["expected_loss"] is None
        else f"on the curve of Hoffmann et al. 2022 that is {figures['expected_loss']:.2f} nats a token of web text"
    )
    lines.append(
        f"{ratio:.3g} tokens a parameter (about 20 make the best of a number of FLOPs: "
        f"{'fewer parameters or more tokens' if ratio < 20 else 'more parameters'} would do more); {curve}."
    )
    return "\n".join(lines)
