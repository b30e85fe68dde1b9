"""Settings and presets of the language model's commands; no torch here, so that `--help` answers at once."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multimodal.cli import Common
from multimodal.config import TrainConfig, TransformerConfig, gpt2, modern

MAX_VOCABULARY, MAX_CONTEXT = 1_000_000, 1_000_000  # bounds on what a stranger's config may ask for


@dataclass(frozen=True)
class GPTConfig:
    """The language model: everything that builds it, and everything in its config.json."""

    vocabulary: int
    """Tokens, the end of a document included."""
    context: int
    """Tokens that a position may look back on, itself included."""
    transformer: TransformerConfig
    """The blocks. With rotary_axes 0 the positions are learned, as in GPT-2."""

    def __post_init__(self):
        if not (2 <= self.vocabulary <= MAX_VOCABULARY and 2 <= self.context <= MAX_CONTEXT):
            raise ValueError(
                f"vocabulary {self.vocabulary:,} or context {self.context:,} is out of range: "
                f"2 to {MAX_VOCABULARY:,} and 2 to {MAX_CONTEXT:,}."
            )
        if not self.transformer.causal or self.transformer.rotary_axes > 1:
            raise ValueError("a language model is causal and has 0 or 1 rotary axes.")

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "GPTConfig":
        """From config.json's content. Raises TypeError or ValueError where that describes no model."""
        return cls(**{**config, "transformer": TransformerConfig(**config.get("transformer", {}))})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class TrainGPT(Common):
    """Trains a language model on text: RUN/ holds the model, metrics.jsonl, samples.md and a README.md."""

    transformer: TransformerConfig = field(default_factory=lambda: modern(256, 6, 4))
    train: TrainConfig = field(default_factory=TrainConfig)
    context: int = 256
    """Tokens of a training window, and what the model can look back on."""
    tokenizer: str = "bpe"
    """bpe, characters or bytes: made from the training text; or the path of a tokenizer.json."""
    vocabulary: int = 4096
    """Largest vocabulary of a bpe tokenizer."""
    data: tuple[Path, ...] = ()
    """Text files and folders; without it Shakespeare, the Bible, Python's standard library, emoji names."""
    mixture: dict[str, float] = field(
        default_factory=lambda: {"shakespeare": 0.4, "bible": 0.35, "python": 0.2, "emoji": 0.05}
    )
    """Shares of the default texts in the training rows; 0 leaves one out."""
    out: Path = Path("runs/gpt")
    """The run directory."""
    resume: bool = False
    """Continue the run in --out, exactly: with its own tokens, and the settings given here."""
    half: bool = False
    """Write the model's weights in bf16, half the size; the training state stays fp32."""


PRESETS = {
    "tiny": (
        "for tests: seconds on one core, writes letters that look like words at best",
        TrainGPT(
            transformer=modern(64, 2, 2),
            train=TrainConfig(steps=60, batch_size=16, lr=1e-2, evaluate_every=30, save_every=30),
            context=64,
            vocabulary=512,
        ),
    ),
    "small": (
        "a demonstration",
        TrainGPT(
            transformer=modern(128, 4, 2),
            train=TrainConfig(steps=100_000, minutes=4.0, batch_size=16, lr=5e-3),
            context=128,
            vocabulary=2048,
        ),
    ),
    "bundled": (
        "the shipped model",
        TrainGPT(
            transformer=modern(256, 8, 4),
            train=TrainConfig(steps=100_000, minutes=70.0, batch_size=16, lr=3e-3, cooldown=0.6),
            half=True,
        ),
    ),
    "gpt2": (
        "GPT-2's smallest model, 124M parameters",
        TrainGPT(
            transformer=gpt2(768, 12, 12),
            train=TrainConfig(
                steps=20_000, batch_size=16, accumulate=32, optimizer="adamw", lr=6e-4, schedule="cosine"
            ),
            context=1024,
            vocabulary=50_257,
        ),
    ),
}
