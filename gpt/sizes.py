"""What a language model of some settings costs: parameters, FLOPs a token, bytes; and the papers' sizes as a table.

Parameters are counted on the built model, without memory. FLOPs a token: two for each weight of a matrix that a token
passes, the head included, and four for each width and position that its attention looks at, on average over a context
(after Kaplan et al. 2020, section 2.1, and Hoffmann et al. 2022, appendix F); training takes three times as many. Memory to
train: weights, gradients and AdamW's two moments in fp32, without activations; to write: weights in bf16 and the cache of
one context.
"""

from dataclasses import dataclass

import torch

from gpt.model import GPT
from gpt.presets import GPTConfig


@dataclass(frozen=True)
class Size:
    """What one model costs."""

    parameters: int
    train_flops: float
    """Of one token, forward and backward."""
    write_flops: float
    """Of one token, at the middle of a context."""
    train_bytes: int
    write_bytes: int


def size(config: GPTConfig) -> Size:
    """Counts on the meta device: a model of any size takes no memory."""
    with torch.device("meta"):
        model = GPT(config)
    parameters = sum(p.numel() for p in model.parameters())
    blocks, context = config.transformer, config.context
    matrices = sum(p.numel() for p in model.transformer.parameters() if p.ndim == 2) + model.embedding.weight.numel()
    near = min(blocks.band or context, context)
    # positions seen on average: half a context, or a band (which is full after its first positions)
    seen = {True: (near * (near + 1) / 2 + near * (context - near)) / context, False: (context + 1) / 2}
    attention = sum(4 * blocks.width * seen[bool(blocks.band) and layer % 2 == 0] for layer in range(blocks.depth))
    forward = 2 * matrices + attention
    cache = 2 * 2 * blocks.depth * context * blocks.width
    return Size(parameters, 3 * forward, forward, 16 * parameters, 2 * parameters + cache)


def short(number: float | int, unit: str = "") -> str:
    """1234567 -> 1.23M."""
    for scale, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G" if unit else "B"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:.3g} {letter}{unit}" if unit else f"{number / scale:.3g}{letter}"
    return f"{number:.3g} {unit}".rstrip()


def table(presets: dict) -> str:
    """A row a preset, for people."""
    names = ("preset", "layers", "width", "heads", "context", "vocabulary", "parameters", "train", "write",
             "FLOPs/token: train", "write", "lr", "tokens/step")  # fmt: skip
    rows = [names]
    for name, (_, settings) in presets.items():
        blocks, train = settings.transformer, settings.train
        found = size(GPTConfig(settings.vocabulary, settings.context, blocks))
        heads = f"{blocks.heads}x{blocks.head_width}"
        rows.append((
            name, str(blocks.depth), f"{blocks.width:,}", heads, f"{settings.context:,}", f"{settings.vocabulary:,}",
            f"{found.parameters:,}", short(found.train_bytes, "B"), short(found.write_bytes, "B"),
            short(found.train_flops), short(found.write_flops), f"{train.lr:g}",
            short(train.batch_size * train.accumulate * settings.context),
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join((first.ljust(widths[0]), *cells)))
    return "\n".join([*lines, "", NOTES])


NOTES = """Vocabularies of our own presets are ceilings. Memory to train is weights, gradients and moments in fp32, without
activations; to write, weights in bf16 and the cache of one context. Every other block of GPT-3 is banded; the paper gives no
width of the band, ours is 512. Two rows of its table do not multiply out (XL: 24 heads of 128 in a width of 2,048; 13B: a
width of 5,140 with 40 heads of 128); its parameter counts fit 16 heads of 128 and a width of 5,120, which stand here."""
