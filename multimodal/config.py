"""Settings of the backbone and of training, as frozen data: no torch here, so that `--help` answers at once.

`gpt1`, `gpt2`, `gpt3`, `sparse` and `modern` are the families of blocks; everything trained or loaded by this toolkit is of one.
gpt1:   Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training" (norm after the sum).
gpt2:   Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (pre-LN, tanh-GELU, biases).
gpt3:   Brown et al. 2020, "Language Models are Few-Shot Learners" (alternately dense and banded, as Child et al. 2019).
sparse: Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation" (gpt2's blocks, which see a picture by rows and columns).
modern: rotary positions (Su et al. 2021), norms without parameters, QK-norm (Henry et al. 2020), squared ReLU (So et
        al. 2021), value residual (Zhou et al. 2024) and a shortcut from the embedding to every block. The norm is
        LayerNorm, not RMSNorm: on a CPU torch's LayerNorm runs forward and backward in a fourth of the time.
"""

from dataclasses import dataclass, replace
from typing import Literal

# a config file is a stranger's: sizes are bounded before anything is built
MAX_WIDTH, MAX_DEPTH, MAX_BAND, MAX_SIDE = 65_536, 1_024, 1_000_000, 256


@dataclass(frozen=True)
class TransformerConfig:
    """The backbone. Every field is used by at least one preset."""

    width: int
    """Features of a position."""
    depth: int
    """Number of blocks."""
    heads: int
    """Attention heads; the width must be divisible by them."""
    causal: bool = True
    """A position sees itself and what came before it, nothing after."""
    norm_gain: bool = False
    """LayerNorm (eps 1e-5) with a learned gain and bias, or without."""
    activation: Literal["gelu_tanh", "gelu", "quick_gelu", "relu2"] = "relu2"
    """Non-linearity of the feed-forward half."""
    bias: bool = False
    """Biases in the linear maps."""
    qk_norm: bool = True
    """Normalise queries and keys, which bounds the attention logits."""
    rotary_axes: int = 1
    """Coordinates of a position that rotate queries and keys: 0 none, 1 text, 2 a picture's grid, 3 text and grid."""
    shortcuts: bool = True
    """Value residual and embedding shortcut, each with a learned weight that starts at 0."""
    mlp_ratio: int = 4
    """Width of the feed-forward half over the width."""
    dropout: float = 0.0
    """Probability of dropping a feature of a branch while training."""
    post_norm: bool = False
    """Normalise after each branch has been added, as GPT-1, instead of before it; there is no final norm then."""
    band: int = 0
    """Every other block, the first included, sees only this many positions back, itself included; 0 is no bound."""
    side: int = 0
    """Side of a picture at the end of the sequence, whose positions see one another by rows, by columns and, in the last
    block, around themselves; 0 is no picture, or one whose positions see all before them."""
    prefix: int = 0
    """Positions before that picture, which all of its positions see."""

    def __post_init__(self):
        if not (1 <= self.width <= MAX_WIDTH and 1 <= self.depth <= MAX_DEPTH and 1 <= self.heads <= self.width):
            raise ValueError(
                f"width {self.width}, depth {self.depth}, heads {self.heads}: allowed are width 1 to {MAX_WIDTH}, "
                f"depth 1 to {MAX_DEPTH}, heads 1 to the width."
            )
        if self.width % self.heads:
            fits = [h for h in range(1, self.width + 1) if self.width % h == 0]
            near = sorted(fits, key=lambda h: abs(h - self.heads))[:2]
            raise ValueError(
                f"width {self.width} is not divisible by heads {self.heads}; try heads {near[0]} or {near[-1]}."
            )
        if not (0 <= self.rotary_axes <= 3) or (self.rotary_axes and self.head_width // 2 < self.rotary_axes):
            raise ValueError(
                f"rotary_axes {self.rotary_axes} with {self.head_width} features a head: allowed are 0 to 3 axes, "
                "each needs two features."
            )
        if not (1 <= self.mlp_ratio <= 16 and 0 <= self.dropout < 1 and 0 <= self.band <= MAX_BAND):
            raise ValueError(
                f"mlp_ratio {self.mlp_ratio} (1 to 16), dropout {self.dropout} (0 to below 1) or band {self.band} "
                f"(0 to {MAX_BAND:,}) is off."
            )
        if self.band and not self.causal:
            raise ValueError(f"band {self.band}: only a causal transformer looks back.")
        if not (0 <= self.side <= MAX_SIDE and 0 <= self.prefix <= MAX_BAND) or (self.side and not self.causal):
            raise ValueError(
                f"side {self.side} (0 to {MAX_SIDE}) or prefix {self.prefix} (0 to {MAX_BAND:,}) is off, or the "
                "transformer not causal."
            )
        if self.side and self.band:
            raise ValueError("a transformer has a band or a picture's side, not both.")

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def gpt2(width: int, depth: int, heads: int, causal: bool = True, dropout: float = 0.0) -> TransformerConfig:
    """GPT-2's blocks exactly; the wrapper adds learned positions."""
    return TransformerConfig(width, depth, heads, causal, True, "gelu_tanh", True, False, 0, False, dropout=dropout)


def gpt1(width: int, depth: int, heads: int) -> TransformerConfig:
    """GPT-1's blocks: GPT-2's, but normalised after the sum, and with dropout."""
    return replace(gpt2(width, depth, heads, dropout=0.1), post_norm=True)


def gpt3(width: int, depth: int, heads: int, band: int = 512) -> TransformerConfig:
    """GPT-3's blocks: GPT-2's, every other one banded. The paper gives no width for the band; ours is a quarter of its
    context."""
    return replace(gpt2(width, depth, heads), band=band)


def sparse(width: int, depth: int, heads: int, prefix: int, side: int) -> TransformerConfig:
    """DALL·E's blocks: GPT-2's, and a picture of side x side positions is seen by rows, columns and neighbourhoods."""
    return replace(gpt2(width, depth, heads), side=side, prefix=prefix)


def modern(
    width: int, depth: int, heads: int, causal: bool = True, rotary_axes: int = 1, dropout: float = 0.0
) -> TransformerConfig:
    """The blocks we train from scratch."""
    return TransformerConfig(width, depth, heads, causal, rotary_axes=rotary_axes, dropout=dropout)


@dataclass(frozen=True)
class TrainConfig:
    """How `fit` moves a model."""

    steps: int = 1000
    """Optimiser steps; with `minutes`, the run ends at whichever comes first."""
    minutes: float | None = None
    """Stop by the clock: the schedule then follows the time used, and the run still ends cooled down."""
    batch_size: int = 32
    """Examples of one forward pass."""
    accumulate: int = 1
    """Forward passes of one optimiser step."""
    ramp: int = 0
    """Steps in which the batch grows, from one forward pass to `accumulate` of them (GPT-3)."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon for the matrices of the blocks with AdamW for the rest, or AdamW for all."""
    lr: float = 3e-3
    """Learning rate at the top of the schedule."""
    embedding_lr: float = 1.0
    """Learning rate of embedding tables, in units of lr: a row learns only when its token comes."""
    weight_decay: float = 0.1
    """Decoupled decay of the parameters with two or more dimensions."""
    warmup: float = 0.02
    """Part of the run in which the rate rises from 0."""
    schedule: Literal["wsd", "cosine"] = "wsd"
    """Warm up, stay, decay to 0; or a cosine to `floor`."""
    cooldown: float = 0.5
    """Part of the run in which the wsd schedule falls."""
    floor: float = 0.1
    """Part of the rate at which the cosine ends."""
    beta2: float = 0.95
    """How slowly AdamW's average of squared gradients forgets."""
    clip: float = 1.0
    """Largest norm of the gradient; a longer one is scaled down."""
    ema: float = 0.0
    """Decay of an average of the weights, which is then what is evaluated and saved; 0 is off."""
    evaluate_every: int = 250
    """Steps between evaluations (there is always one at the end)."""
    save_every: int = 250
    """Steps between whole checkpoints (there is always one at the end)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 autocast where the machine is faster with it (measured); weights and optimiser stay fp32."""

    def __post_init__(self):
        for name, allowed in {
            "steps": self.steps >= 1,
            "minutes": self.minutes is None or self.minutes > 0,
            "batch_size": self.batch_size >= 1,
            "accumulate": self.accumulate >= 1,
            "ramp": self.ramp >= 0,
            "lr": self.lr > 0,
            "embedding_lr": self.embedding_lr > 0,
            "warmup": 0 <= self.warmup < 1,
            "cooldown": 0 <= self.cooldown <= 1,
            "floor": 0 <= self.floor <= 1,
            "beta2": 0 < self.beta2 < 1,
            "clip": self.clip > 0,
            "ema": 0 <= self.ema < 1,
            "evaluate_every": self.evaluate_every >= 1,
            "save_every": self.save_every >= 1,
        }.items():
            if not allowed:
                raise ValueError(f"train.{name} {getattr(self, name)} is out of range; see its line in --help.")
