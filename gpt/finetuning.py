"""A GPT with a classifier on top: texts in, a probability for each label out; after Radford et al. 2018 (GPT-1).

A task is put into words that the pre-trained model reads as text, between three new tokens, and a linear head looks at
the last state, that of [extract]:
    classification   [start] text [extract]
    entailment       [start] premise [delimiter] hypothesis [extract]
    similarity       both orders of the two texts as above, their states added
    multiple-choice  [start] context [delimiter] choice [extract] for each choice, one score from each
While it is trained, the same pass also predicts the text: L3 = L2 + λ L1. The new tokens are rows after the model's own
in its table, and no target: what it thinks of text is what it was. Legend: b batch, k sequences of an example,
n position, d width, c labels (or choices), v vocabulary of the text.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from gpt.labelled import COLUMNS, MAX_LABELS
from gpt.model import GPT
from gpt.presets import GPTConfig
from multimodal import checkpoint, devices
from multimodal.cli import UserError
from multimodal.tokenizer import Tokenizer

START, DELIMITER, EXTRACT = 0, 1, 2  # counted from the end of the text's vocabulary
NEW = 3


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything that builds the classifier, and everything in its config.json."""

    gpt: GPTConfig
    """The language model below; its vocabulary is that of text, the new tokens come after it."""
    task: str
    """classification, entailment, similarity or multiple-choice."""
    labels: tuple[str, ...]
    """Names of the classes; none in multiple choice, where the choices are the row's own."""
    dropout: float = 0.1
    """Probability of dropping a feature before the head, while training."""

    def __post_init__(self):
        if self.task not in COLUMNS:
            raise ValueError(f"task {self.task!r} is none of {', '.join(COLUMNS)}.")
        count = len(self.labels)
        if not (count == 0 if self.task == "multiple-choice" else 2 <= count <= MAX_LABELS):
            raise ValueError(f"{count} labels; {self.task} has 2 to {MAX_LABELS:,}, multiple-choice none of its own.")
        if not all(isinstance(label, str) for label in self.labels) or not 0 <= self.dropout < 1:
            raise ValueError(f"labels are texts, and dropout {self.dropout} is 0 to below 1.")
        if self.gpt.context < 8:
            raise ValueError(f"a context of {self.gpt.context} tokens is too short; it takes 8 or more.")

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "ClassifierConfig":
        """From config.json's content. Raises TypeError, KeyError or ValueError where that describes no model."""
        return cls(**{**config, "gpt": GPTConfig.from_dict(config["gpt"]), "labels": tuple(config["labels"])})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Classifier(nn.Module):
    """A GPT whose table has three more rows, and a linear head."""

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config = config
        vocabulary = config.gpt.vocabulary + NEW
        self.gpt = GPT(dataclasses.replace(config.gpt, vocabulary=vocabulary))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.gpt.transformer.width, len(config.labels) or 1)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, tokens: Int[Tensor, "b k n"], language: bool = False
    ) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b k n v"] | None]:
        """Scores of the labels or choices, and with `language` the logits of the text's next tokens.

        A sequence ends with its first [extract], and is filled up with more; one of [extract] alone is a choice that
        the example does not have, and scores -inf.
        """
        b, rows = len(tokens), rearrange(tokens, "b k n -> (b k) n")
        extract = self.config.gpt.vocabulary + EXTRACT
        with outputs([self.gpt.transformer]) as kept:
            logits = self.gpt(rows, last=None if language else 1)
        # a causal model's state at [extract] knows nothing of what fills the row up: no mask is needed
        place = (rows == extract).int().argmax(1)
        states = rearrange(kept[0][torch.arange(len(rows), device=rows.device), place], "(b k) d -> b k d", b=b)
        if self.config.task == "similarity":
            states = states.sum(1, keepdim=True)
        # choices lose the same features, or they could not be compared
        states = states * self.dropout(torch.ones_like(states[:, :1]))
        scores = rearrange(self.head(states), "b k c -> b (k c)")
        if self.config.task == "multiple-choice":
            scores = scores.masked_fill(tokens[:, :, 0] == extract, float("-inf"))
        if not language:
            return scores, None
        return scores, rearrange(logits[..., : self.config.gpt.vocabulary], "(b k) n v -> b k n v", b=b)


@contextlib.contextmanager
def outputs(modules: Sequence[nn.Module]) -> Iterator[dict[int, Any]]:
    """What each of the modules gives out in the next forward pass, by its place among them."""
    kept: dict[int, Any] = {}

    def keep(place: int) -> Callable:
        return lambda module, given, out: kept.update({place: out})

    handles = [module.register_forward_hook(keep(place)) for place, module in enumerate(modules)]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def attach(base: GPT, config: ClassifierConfig) -> Classifier:
    """A classifier on a trained model, ready to be fine-tuned: new rows and a new head, all else as it was."""
    model = Classifier(config)
    state = base.state_dict()
    rows = model.gpt.embedding.weight.detach()[-NEW:]
    state["embedding.weight"] = torch.cat((state["embedding.weight"].to(rows), rows))
    model.gpt.load_state_dict(state)
    return model


def sequences(tokenizer: Tokenizer, config: ClassifierConfig, texts: Sequence[str]) -> tuple[list[list[int]], bool]:
    """The k sequences of ids that an example's texts become, and whether they had to be cut to the model's context.

    What is too long loses its end, the longer of two texts first; a context before choices loses its beginning.
    """
    ids = [tokenizer.encode(text) for text in texts]
    v, context = config.gpt.vocabulary, config.gpt.context
    start, delimiter, extract = v + START, v + DELIMITER, v + EXTRACT
    if config.task == "classification":
        (text,) = ids
        return [[start, *text[: context - 2], extract]], len(text) > context - 2
    room = context - 3
    if config.task == "multiple-choice":
        before, choices = ids[0], ids[1:]
        longest = min(max(map(len, choices)), max(room // 2, room - len(before)))
        kept, choices = before[max(0, len(before) + longest - room) :], [choice[:longest] for choice in choices]
        cut = len(kept) < len(before) or choices != ids[1:]
        return [[start, *kept, delimiter, *choice, extract] for choice in choices], cut
    first, second = ids
    most = max(room // 2, room - min(len(first), len(second)))
    pair = first[:most], second[: room - len(first[:most])]
    orders = [pair, pair[::-1]] if config.task == "similarity" else [pair]
    return [[start, *a, delimiter, *b, extract] for a, b in orders], pair != (first, second)


def collate(examples: Sequence[Sequence[Sequence[int]]], config: ClassifierConfig) -> Int[Tensor, "b k n"]:
    """Sequences of several examples as one tensor, filled up on the right."""
    k, n = max(map(len, examples)), max(len(row) for example in examples for row in example)
    tokens = torch.full((len(examples), k, n), config.gpt.vocabulary + EXTRACT)
    for place, example in zip(tokens, examples, strict=True):
        for row, ids in zip(place, example, strict=False):
            row[: len(ids)] = torch.tensor(ids)
    return tokens


def language_loss(logits: Float[Tensor, "b k n v"], tokens: Int[Tensor, "b k n"]) -> Float[Tensor, ""]:
    """Mean nats of a token of text given those before it: of each sequence by itself, then over the sequences."""
    rows, targets = rearrange(logits[:, :, :-1], "b k n v -> (b k n) v"), tokens[:, :, 1:]
    text = targets < logits.shape[-1]
    each = F.cross_entropy(rows.float(), rearrange(targets.where(text, 0), "b k n -> (b k n)"), reduction="none")
    each = each.view_as(targets) * text
    return (each.sum(-1) / text.sum(-1).clamp(min=1)).sum() / text.any(-1).sum().clamp(min=1)


def loss(
    model: nn.Module, batch: dict[str, Tensor], step: int, weight: float
) -> tuple[Float[Tensor, ""], dict[str, float | Tensor]]:
    """L3 = L2 + λ L1: nats of the right label, and `weight` times those of the text; with 0 the text is not predicted."""
    scores, logits = model(batch["tokens"], weight > 0)
    labelled = F.cross_entropy(scores.float(), batch["label"])
    metrics = {"label_loss": labelled, "accuracy": (scores.argmax(-1) == batch["label"]).float().mean()}
    if logits is None:
        return labelled, metrics
    text = language_loss(logits, batch["tokens"])
    return labelled + weight * text, {**metrics, "text_loss": text}


@torch.inference_mode()
def scores(model: Classifier, examples: Sequence[Sequence[Sequence[int]]]) -> list[Float[Tensor, "c"]]:
    """The scores of each example (see `sequences`), in their order; examples of like length share a pass."""
    config, device = model.config, model.head.weight.device
    length = [max(map(len, example)) for example in examples]
    order = sorted(range(len(examples)), key=lambda i: length[i])
    found: list[Tensor] = [torch.empty(0)] * len(examples)
    while order:
        rows, longest = len(examples[order[-1]]), length[order[-1]]
        count = max(1, min(64, 2**14 // (rows * longest)))
        chunk, order = order[-count:], order[:-count]
        given, _ = model(collate([examples[i] for i in chunk], config).to(device))
        for i, row in zip(chunk, given.float().cpu(), strict=True):
            found[i] = row[: len(examples[i])] if config.task == "multiple-choice" else row
    return found


def judge(given: Sequence[Float[Tensor, "c"]], labels: Sequence[int]) -> dict[str, float]:
    """{"accuracy", "loss"}: the part of the examples whose likeliest label is right, and nats of the right one."""
    right = [int(row.argmax()) == label for row, label in zip(given, labels, strict=True)]
    nats = [-float(row.log_softmax(0)[label]) for row, label in zip(given, labels, strict=True)]
    return {"accuracy": sum(right) / len(right), "loss": sum(nats) / len(nats)}


def save(model: Classifier, tokenizer: Tokenizer, directory: Path, card: str | None = None) -> None:
    """Writes a directory that `load` reads."""
    checkpoint.write(directory, "gpt-classifier", model.config.to_dict(), model, tokenizer, None, card)


def load(directory: Path, device: str = "auto") -> tuple[Classifier, Tokenizer]:
    """The classifier of a run directory, ready to use. Raises UserError with what is wrong."""
    config = checkpoint.read_config(directory, "gpt-classifier")
    tokenizer = Tokenizer.load(Path(directory) / "tokenizer.json")
    model = checkpoint.load(directory, lambda: Classifier(ClassifierConfig.from_dict(config)), devices.pick(device))
    if tokenizer.vocab_size > model.config.gpt.vocabulary:
        raise UserError(
            f"{directory}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model "
            f"{model.config.gpt.vocabulary:,}; they do not belong together."
        )
    return model, tokenizer
