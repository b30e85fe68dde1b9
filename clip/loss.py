"""The contrastive losses: unit vectors of pictures and of captions in, one number out.

softmax: every picture must find its caption among the batch's and every caption its picture: two cross-entropies over the
similarities (Radford et al. 2021, figure 3).
sigmoid: every picture with every caption is a question by itself, to be answered by yes or no (Zhai et al. 2023, SigLIP).

Pairs that share an identity (of k: what they mean, their picture, their caption) are right answers for each other, as in
supervised contrastive learning (Khosla et al. 2020); otherwise two drawings of a cat would be taught to differ. With all
identities different they are CLIP's and SigLIP's losses exactly.
Legend: b pairs here, a pairs of all processes.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor


def matches(one: Int[Tensor, "a k"], other: Int[Tensor, "b k"]) -> Bool[Tensor, "a b"]:
    """Which pairs share an identity."""
    same = torch.zeros(len(one), len(other), dtype=torch.bool, device=one.device)
    for mine, theirs in zip(one.T, other.T, strict=True):  # one by one: a large batch is squared here
        same |= rearrange(mine, "a -> a 1") == rearrange(theirs, "b -> 1 b")
    return same


def contrastive(
    images: Float[Tensor, "b d"],
    texts: Float[Tensor, "b d"],
    scale: Float[Tensor, ""],
    identity: Int[Tensor, "b k"],
    bias: Float[Tensor, ""] | None = None,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The loss, softmax without a `bias` and sigmoid with one, and what to watch: `accuracy` (share of pictures whose
    nearest caption is right), `scale`, `answers` (right ones for a picture).

    Not learning shows as a loss of `chance`. The least loss of softmax is the mean ln(number of right answers), not 0.
    `gather` brings the rows of all processes together, with gradient: the pairs here are then judged among all, and the
    mean of the processes' losses is the loss of the whole batch.
    """
    everything = gather or (lambda rows: rows)
    all_texts = everything(texts)
    same = matches(identity, everything(identity))
    # similarities times 100 need more digits than bf16 has
    with torch.autocast(images.device.type, enabled=False):
        logits = scale.float() * images.float() @ all_texts.float().T
        if bias is not None:
            loss = sigmoid(logits + bias.float(), same)
        else:
            back = logits.T if gather is None else scale.float() * texts.float() @ gather(images).float().T
            loss = (softmax(logits, same) + softmax(back, same)) / 2
    with torch.no_grad():
        nearest = rearrange(logits.argmax(dim=1), "b -> b 1")
        watched = {"accuracy": same.gather(1, nearest).float().mean(), "answers": same.sum(dim=1).float().mean()}
    return loss, watched | {"scale": scale.detach()} | ({} if bias is None else {"bias": bias.detach()})


def softmax(logits: Float[Tensor, "b a"], same: Bool[Tensor, "b a"]) -> Float[Tensor, ""]:
    """Cross-entropy of the rows; the right answers of a row share its probability evenly."""
    return F.cross_entropy(logits, same / same.sum(dim=1, keepdim=True))


def sigmoid(logits: Float[Tensor, "b a"], same: Bool[Tensor, "b a"]) -> Float[Tensor, ""]:
    """The questions' negative log-likelihood, summed over a row as in the paper, and the mean of the rows."""
    return -F.logsigmoid(torch.where(same, logits, -logits)).sum(dim=1).mean()


def first_bias(count: int) -> float:
    """Where sigmoid's bias begins: at -ln(count - 1) a pair of `count` is right with the probability 1 / count, which is
    the truth before anything is learned. The paper's -10 is that of batches of 22,000."""
    return -math.log(max(count - 1, 1))


def chance(count: int, scores: str, answers: float = 1.0) -> float:
    """The loss of who knows nothing but the number of pairs and, for sigmoid, how many of them are right answers."""
    if scores == "softmax":
        return math.log(count)
    p = min(answers / count, 1.0)
    return -count * sum(q * math.log(q) for q in (p, 1 - p) if q > 0)
