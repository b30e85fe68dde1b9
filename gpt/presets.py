"""Settings and presets of the language model's commands; no torch here, so that `--help` answers at once."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multimodal.cli import Common
from multimodal.config import TrainConfig, TransformerConfig, gpt1, gpt2, gpt3, modern

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

    model: str | None = None
    """Start from this model, a run directory or the name of a bundled one, with its blocks, context and tokenizer:
    fine-tuning. Without it the weights start at random."""
    transformer: TransformerConfig = field(default_factory=lambda: modern(256, 6, 4))
    train: TrainConfig = field(default_factory=TrainConfig)
    context: int = 256
    """Tokens of a training window, and what the model can look back on (with --model, that is as before)."""
    tokenizer: str = "bpe"
    """bpe, characters or bytes: made from the training text; or the path of a tokenizer.json."""
    vocabulary: int = 4096
    """Largest vocabulary of a bpe tokenizer."""
    data: tuple[Path, ...] = ()
    """Text files, folders, JSON lines, any of them gzipped; - is standard input. Without it Shakespeare, the Bible, Python's
    standard library, emoji names."""
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
    plan: bool = False
    """Only tell what the run would take: parameters, tokens, FLOPs, memory, and minutes after ten seconds of trying."""
    json: bool = False
    """With --plan: the figures as one object, for programs."""


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
    "finetune": (
        "the bundled model goes on with your own text, in four minutes: give --data",
        TrainGPT(
            model="bundled",
            train=TrainConfig(steps=100_000, minutes=4.0, batch_size=16, lr=4e-4, warmup=0.05, evaluate_every=50),
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
            train=TrainConfig(steps=100_000, minutes=100.0, batch_size=16, lr=6e-3, cooldown=0.8),
            half=True,
        ),
    ),
}


def published(
    blocks: TransformerConfig, context: int, vocabulary: int, tokens: int, lr: float, total: int, **train: Any
) -> TrainGPT:
    """A model of the papers: AdamW, a cosine, `tokens` a step out of windows of `context`, `total` tokens in all."""
    rows = tokens // context
    pass_ = max(1, min(8, 8 * 1024 * 768 // (context * blocks.width)))  # rows of one pass: a few GB of activations
    pass_ = 1 << pass_.bit_length() - 1
    settings = {"optimizer": "adamw", "schedule": "cosine", "steps": total // tokens, "batch_size": pass_}
    settings |= {"accumulate": rows // pass_, "lr": lr, "warmup": 0.01, "evaluate_every": 1000}
    return TrainGPT(
        transformer=blocks, train=TrainConfig(**{**settings, **train}), context=context, vocabulary=vocabulary
    )


# GPT-1: 64 windows of 512, 100 epochs of about 1e9 tokens (Radford et al. 2018, section 4.1); the first 2,000 updates warm up
PRESETS["gpt"] = (
    "GPT-1, 117M",
    published(gpt1(768, 12, 12), 512, 40_478, 64 * 512, 2.5e-4, 100 * 10**9, warmup=0.001, weight_decay=0.01),
)
# GPT-2: 512 windows of 1,024 (Radford et al. 2019, section 2.3); the rates are not in the paper: GPT-3's of like size
for _name, _count, _blocks, _lr in (
    ("gpt2", "124M", gpt2(768, 12, 12), 6e-4),
    ("gpt2-medium", "355M", gpt2(1024, 24, 16), 3e-4),
    ("gpt2-large", "774M", gpt2(1280, 36, 20), 2.5e-4),
    ("gpt2-xl", "1.56B", gpt2(1600, 48, 25), 2e-4),
):
    PRESETS[_name] = (f"GPT-2, {_count}", published(_blocks, 1024, 50_257, 512 * 1024, _lr, 300 * 10**9))
# GPT-3: Brown et al. 2020, table 2.1, and appendix B: 300B tokens, warm-up over 375M, the batch grows over the first
# billions. Two rows of the table do not multiply out: XL has "24 heads of 128" in a width of 2,048, 13B a width of 5,140 with
# "40 heads of 128". The table's parameter counts fit square maps, so ours are 16 heads of 128, and a width of 5,120.
for _name, _blocks, _tokens, _lr in (
    ("gpt3-small", gpt3(768, 12, 12), 2**19, 6e-4),
    ("gpt3-medium", gpt3(1024, 24, 16), 2**19, 3e-4),
    ("gpt3-large", gpt3(1536, 24, 16), 2**19, 2.5e-4),
    ("gpt3-xl", gpt3(2048, 24, 16), 2**20, 2e-4),
    ("gpt3-2.7b", gpt3(2560, 32, 32), 2**20, 1.6e-4),
    ("gpt3-6.7b", gpt3(4096, 32, 32), 2**21, 1.2e-4),
    ("gpt3-13b", gpt3(5120, 40, 40), 2**21, 1e-4),
    ("gpt3-175b", gpt3(12288, 96, 96), 1600 * 2048, 0.6e-4),
):
    PRESETS[_name] = (
        f"GPT-3, {_name.removeprefix('gpt3-')}",
        published(_blocks, 2048, 50_257, _tokens, _lr, 300 * 10**9, warmup=0.00125, ramp=8 * 10**9 // _tokens),
    )
