"""What a language model knows, read off its hidden states: texts in; features, linear probes and single units out.

A linear probe is a regularised logistic regression on states that were never trained for the question (Alain & Bengio
2016). A single unit that tells the sentiment of a review was found by such a probe in Radford et al. 2017, "Learning to
Generate Reviews and Discovering Sentiment". Layer 0 is the embeddings, layer i the states after block i, the last layer
those after the final norm, which the head reads. Legend: l layers, b texts, n position, d width (units), c labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpt.finetuning import outputs
from gpt.model import GPT
from gpt.scoring import windows
from multimodal import cli
from multimodal.logistic import Probe, logistic
from multimodal.tokenizer import Tokenizer

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the regularisation: one is chosen
TOGETHER = 2**13  # positions of one pass


@torch.no_grad()
def states(model: GPT, tokens: Int[Tensor, "b n"], layers: Sequence[int]) -> list[Float[Tensor, "b n d"]]:
    """The hidden states of some layers, at every position."""
    depth = model.config.transformer.depth
    # what goes into the first block, what comes out of each, what comes out of all
    modules = [model.dropout, *model.transformer.blocks[: depth - 1], model.transformer]
    with outputs([modules[layer] for layer in layers]) as kept:
        model(tokens, last=1)
    found = (kept[place] for place in range(len(layers)))
    return [(out[0] if isinstance(out, tuple) else out).float() for out in found]


def features(
    model: GPT, tokenizer: Tokenizer, texts: Sequence[str], layers: Sequence[int], pool: Literal["mean", "last"]
) -> tuple[Float[Tensor, "l b d"], int]:
    """The states of each text, their mean over its tokens or those of its last one; and how many texts were cut to the
    model's context. Each is read as the beginning of a document."""
    context, device = model.config.context, model.embedding.weight.device
    whole = [[tokenizer.end, *tokenizer.encode(text)] for text in texts]
    ids = [row[:context] for row in whole]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found = torch.empty(len(layers), len(ids), model.config.transformer.width)
    with cli.bar(total=len(ids), unit="text", desc="reading", leave=False) as shown:
        while order:
            longest = len(ids[order[-1]])
            count = max(1, min(256, TOGETHER // longest))
            chunk, order = order[-count:], order[:-count]
            # filled up on the right, where a causal model never looks
            tokens = torch.tensor([ids[i] + [tokenizer.end] * (longest - len(ids[i])) for i in chunk], device=device)
            last = torch.tensor([len(ids[i]) - 1 for i in chunk], device=device)
            place = torch.arange(longest, device=device)
            own = (place == last[:, None]) if pool == "last" else (place > 0) & (place <= last[:, None])
            weight = own.float() / own.sum(1, keepdim=True).clamp(min=1)
            for layer, x in enumerate(states(model, tokens, layers)):
                found[layer, chunk] = torch.einsum("b n d, b n -> b d", x, weight).cpu()
            shown.update(len(chunk))
    return found, sum(len(row) > context for row in whole)


def standard(x: Float[Tensor, "b d"], labels: Int[Tensor, "b"], count: int, strength: float) -> Probe:
    """The probe with the least mean nats + strength / 2 * |weight|^2, where weights are those of standardised features."""
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale = scale.where(scale > 1e-6, torch.inf)  # a unit that never changes tells nothing
    found = logistic((x - mean) / scale, labels, count, 1 / (strength * len(x)))
    weight = found.weight / rearrange(scale, "d -> d 1")
    return Probe(weight, found.bias - mean.double() @ weight)


def accuracy(probe: Probe, x: Float[Tensor, "b d"], labels: Int[Tensor, "b"]) -> float:
    return (probe(x).argmax(-1) == labels).float().mean().item()


def choose(
    x: Float[Tensor, "b d"], labels: Int[Tensor, "b"], aside: Bool[Tensor, "b"], count: int
) -> tuple[Probe, float, float, float]:
    """(the probe of all texts, its strength; nats and accuracy that this strength reached on those `aside` when trained on
    the others): the strength is the one with the fewest nats there."""
    found = []
    for strength in STRENGTHS:
        probe = standard(x[~aside], labels[~aside], count, strength)
        nats = F.cross_entropy(probe(x[aside]), labels[aside]).item()
        found.append((nats, strength, accuracy(probe, x[aside], labels[aside])))
    nats, strength, right = min(found)
    return standard(x, labels, count, strength), strength, nats, right


def auc(x: Float[Tensor, "b d"], positive: Bool[Tensor, "b"]) -> Float[Tensor, "d"]:
    """Of each unit: the probability that it is higher in a positive text than in another, ties counted half."""
    mine, others = (rearrange(x[which], "b d -> d b").contiguous() for which in (positive, ~positive))
    others = others.sort(-1).values
    below, not_above = torch.searchsorted(others, mine), torch.searchsorted(others, mine, right=True)
    return (below + not_above).double().mean(-1).float() / (2 * others.shape[-1])


@dataclass(frozen=True)
class Unit:
    """One unit, and what it tells by itself: that a text has the label, where it is high, or low with sign -1."""

    label: int
    layer: int
    unit: int
    sign: int
    auc: float
    """In training."""
    threshold: float
    """Of the value times the sign: above it the text is said to have the label. The one most often right in training."""

    def judge(self, x: Float[Tensor, "b d"], labels: Int[Tensor, "b"]) -> dict[str, float]:
        """{"auc", "accuracy"} on other texts, of the label against all others."""
        positive, values = labels == self.label, self.sign * x[:, self.unit]
        area = auc(rearrange(values, "b -> b 1"), positive).item()
        return {"auc": area, "accuracy": ((values > self.threshold) == positive).float().mean().item()}


def best_unit(x: Float[Tensor, "l b d"], labels: Int[Tensor, "b"], label: int, layers: Sequence[int]) -> Unit:
    """The unit that tells texts with that label best from all others, by its AUC."""
    positive = labels == label
    areas = torch.stack([auc(layer, positive) for layer in x])
    place, unit = divmod(int((areas - 0.5).abs().argmax()), x.shape[-1])
    area = areas[place, unit].item()
    sign = 1 if area >= 0.5 else -1
    values = sign * x[place, :, unit]
    ordered, order = values.sort()
    # below a threshold after the k lowest, those k are called negative; a threshold divides no equal values
    hits = (~positive[order]).cumsum(0) - positive[order].cumsum(0)
    border = F.pad(ordered[1:] > ordered[:-1], (0, 1), value=True)
    k = int(F.pad(hits.where(border, hits.min() - 1), (1, 0)).argmax())
    ends = torch.cat((ordered[:1] - 1, ordered, ordered[-1:] + 1))
    threshold = ends[k : k + 2].mean().item()
    return Unit(label, layers[place], unit, sign, max(area, 1 - area), threshold)


def activations(model: GPT, tokenizer: Tokenizer, ids: Sequence[int], layer: int, unit: int) -> Float[Tensor, "n"]:
    """One unit at every token of a text of any length, each given at least half a context of what comes before it."""
    row, context = torch.tensor([tokenizer.end, *ids], device=model.embedding.weight.device), model.config.context
    found = []
    # a window that judges the ids after its positions sees the states at them; one more stands for what follows the end
    for begin, judged, end in windows(len(row) + 1, context):
        (x,) = states(model, row[None, begin:end], [layer])
        found.append(x[0, judged - 1 - begin :, unit].cpu())
    return torch.cat(found)[1:]
