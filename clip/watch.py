"""Says when a contrastive training is not learning, and why as far as it can be seen: figures of steps in, sentences out.

Every tenth step is looked at. What is true for ten looks in a row is said, once, on stderr; nothing is ever stopped.
"""

import math
from collections import defaultdict
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from clip.loss import chance
from clip.model import MAX_LOG_SCALE, MAX_LOG_SCALE_SIGMOID
from multimodal import cli

EVERY, PATIENCE = 10, 10  # steps between looks, looks in a row
YOUNG = 20  # looks in which it may still know nothing
NEAR_CHANCE, ALIKE, NEAR_CEILING, REPEATED = 0.97, 0.95, 0.999, 0.3


class Watch:
    """What was seen so far. It must be called at every step."""

    def __init__(self, scores: str, say: Callable[[str], None] = cli.say):
        self.scores, self.say = scores, say
        self.ceiling = math.exp(MAX_LOG_SCALE if scores == "softmax" else MAX_LOG_SCALE_SIGMOID)
        self.looks = 0
        self.in_a_row: dict[str, int] = defaultdict(int)
        self.said: set[str] = set()

    def __call__(
        self,
        step: int,
        count: int,
        loss: Tensor,
        images: Float[Tensor, "b d"],
        texts: Float[Tensor, "b d"],
        metrics: dict[str, Tensor],
    ) -> None:
        """`count`: pairs that were compared. `metrics` are those of `loss.contrastive`."""
        if step % EVERY:
            return
        self.looks += 1
        loss, scale, answers = float(loss.detach()), float(metrics["scale"]), float(metrics["answers"])
        nothing, old = chance(count, self.scores, answers), self.looks > YOUNG
        alike = {"pictures": likeness(images), "captions": likeness(texts)} if old else {}
        here = f"step {step + 1}:"
        self._note(
            "repeats", (answers - 1) / max(1, count) > REPEATED,
            f"{here} a pair finds {answers - 1:.0f} others of the {count} in its batch that mean the same. They count as "
            "right answers, but little is left to be told apart: more different captions or a smaller batch teach more.",
        )  # fmt: skip
        for what, value in alike.items():
            other = "pictures" if what == "captions" else "captions"
            self._note(
                what, value > ALIKE,
                f"{here} the vectors of all {what} are nearly the same (mean cosine {value:.3f}), so no {other} can be told "
                "by them: a smaller --train.lr often helps; if not, look whether the data's pictures or captions differ.",
            )  # fmt: skip
        self._note(
            "chance", old and count > 1 and loss > NEAR_CHANCE * nothing,
            f"{here} it is not learning: the loss is {loss:.3f}, and {nothing:.3f} is chance among {count} pairs. Do the "
            "captions fit their pictures? If so, try a smaller --train.lr, or a larger one if it is below 1e-4.",
        )  # fmt: skip
        self._note(
            "scale", scale > NEAR_CEILING * self.ceiling,
            f"{here} the scale is at its ceiling of {self.ceiling:.0f}: the model is as sure as it can be. Early in a "
            "training, or with a loss near its least, it is learning its data by heart: more data, more augmentation or "
            "fewer steps help.",
        )  # fmt: skip

    def _note(self, what: str, true: bool, sentence: str) -> None:
        self.in_a_row[what] = self.in_a_row[what] + 1 if true else 0
        if self.in_a_row[what] >= PATIENCE and what not in self.said:
            self.said.add(what)
            self.say(sentence)


@torch.no_grad()
def likeness(vectors: Float[Tensor, "b d"]) -> float:
    """Mean cosine of two different rows of unit length; 1 where all are the same."""
    b = len(vectors)
    total = vectors.float().sum(dim=0).square().sum().item()
    return (total - b) / (b * (b - 1)) if b > 1 else 0.0
