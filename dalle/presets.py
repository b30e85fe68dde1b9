"""Settings and presets of the two trainings behind a DALL·E; no torch here, so that `--help` answers at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from multimodal.cli import Common
from multimodal.config import TrainConfig, TransformerConfig, modern, sparse

MAX_CODES, MAX_SIDE = 65_536, 1_024  # bounds on what a stranger's config may ask for
# how drawings are sampled unless told otherwise: of 1 to 5 and 0.5 to 1, what draws pairs never seen together best
GUIDANCE, TEMPERATURE = 2.0, 0.7


@dataclass(frozen=True)
class DVAEConfig:
    """A picture as a grid of codes, and back."""

    network: Literal["patches", "published"] = "patches"
    """Blocks of one resolution between patches, or the published dVAE: four groups of blocks, a code for 8x8 pixels."""
    size: int = 64
    """Pixels of a side of the (square) pictures."""
    patch: int = 4
    """Pixels of a side of what one position of the convolutions sees and paints."""
    grid: int = 16
    """Codes of a side; a picture has grid x grid codes."""
    width: int = 64
    """Channels. At equal minutes on a CPU 64 beat 128 by far (26.0 against 22.2 dB after three)."""
    depth: int = 4
    """Residual blocks on each side; of the published dVAE, in each group."""
    quantizer: Literal["gumbel", "fsq"] = "fsq"
    """The talk's relaxed categorical codes, or finite scalar quantisation."""
    codes: int = 1024
    """Size of the gumbel codebook."""
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """Levels of each fsq dimension; their product is the size of the codebook."""
    likelihood: Literal["gaussian", "logit_laplace"] = "gaussian"
    """What a pixel is judged by: squared error, or the talk's distribution, with a width of its own for every pixel."""

    def __post_init__(self):
        if not (1 <= self.patch <= self.size <= MAX_SIDE and self.size % self.patch == 0):
            raise ValueError(f"size {self.size} must be a multiple of patch {self.patch}, at most {MAX_SIDE}.")
        if not (1 <= self.grid <= self.size // self.patch):
            raise ValueError(f"grid {self.grid} is out of range: 1 to size/patch = {self.size // self.patch}.")
        if not (1 <= self.width <= 4096 and 0 <= self.depth <= 64):
            raise ValueError(f"width {self.width} (1 to 4096) or depth {self.depth} (0 to 64) is out of range.")
        if any(level < 2 for level in self.levels) or not 2 <= self.vocabulary <= MAX_CODES:
            raise ValueError(f"the codebook has {self.vocabulary} codes: allowed are 2 to {MAX_CODES}, 2 a level.")
        kind = (self.grid * 8, self.quantizer, self.likelihood)
        if self.network == "published" and kind != (self.size, "gumbel", "logit_laplace"):
            raise ValueError(
                f"the published network has gumbel codes, one for 8x8 pixels, and logit_laplace: size {self.size} with "
                f"grid {self.grid}, {self.quantizer} and {self.likelihood} is not allowed."
            )
        if self.network == "published" and (self.width % 4 or self.width > 1024 or not 1 <= self.depth <= 16):
            raise ValueError(
                f"width {self.width} (a multiple of 4 to 1024) or depth {self.depth} (1 to 16) is not the published network's."
            )

    @property
    def vocabulary(self) -> int:
        """Number of different codes."""
        if self.quantizer == "gumbel":
            return self.codes
        product = 1
        for level in self.levels:
            product *= level
        return product

    @property
    def length(self) -> int:
        """Codes of a picture."""
        return self.grid**2


@dataclass(frozen=True)
class TrainDVAE(Common):
    """Trains the discrete VAE that turns pictures into codes."""

    model: DVAEConfig = field(default_factory=DVAEConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: tuple[Path, ...] = ()
    """Folders of pictures, or tables that name them; no captions are needed. Without it the default drawings."""
    concepts: Literal["everyday", "all"] = "all"
    """Which of the default drawings."""
    out: Path = Path("runs/dvae")
    """The run directory: checkpoint, metrics, grids of pictures before and after."""
    resume: bool = False
    """Continue the run in --out, exactly."""
    half: bool = False
    """Write the model's weights in bf16, half the size; the training state stays fp32."""
    kl_weight: float = 0.1
    """Weight of the KL of gumbel codes from uniform ones, beside a likelihood of weight 1; it starts at 0."""
    kl_part: float = 0.1
    """Part of the run in which it rises, by a cosine."""
    final_temperature: float = 1 / 16
    """Where the temperature of gumbel codes ends; it starts at 1."""
    temperature_part: float = 1.0
    """Part of the run in which it falls, by a cosine."""
    straight_through: bool = False
    """The decoder sees the likeliest of the relaxed gumbel codes alone; only the gradient is that of all of them."""

    def __post_init__(self):
        super().__post_init__()
        if not (0 <= self.kl_weight <= 1e6 and 0 <= self.kl_part <= 1 and 0 <= self.temperature_part <= 1):
            raise ValueError(
                f"kl_weight {self.kl_weight} (0 or more), kl_part {self.kl_part} or temperature_part "
                f"{self.temperature_part} (0 to 1) is out of range."
            )
        if not 1e-3 <= self.final_temperature <= 1:
            raise ValueError(f"final_temperature {self.final_temperature} is out of range: 0.001 to 1.")


@dataclass(frozen=True)
class DALLEConfig:
    """Caption tokens, then picture codes, in one causal sequence."""

    transformer: TransformerConfig = field(default_factory=lambda: modern(256, 6, 4, rotary_axes=3))
    text_vocabulary: int = 1024
    """Text tokens, the end token included."""
    text_length: int = 16
    """Text positions; a shorter caption is filled with the learned padding of each position."""
    grid: int = 16
    """Codes of a side."""
    codes: int = 1000
    """Number of different codes."""
    block: int = 1
    """Side of the block of codes that one position of the transformer stands for; 1 is the published DALL·E."""
    any_order: bool = False
    """Trained to draw the blocks in any order too, so that any part of a picture may be given."""
    captions: bool = False
    """Trained to read a picture first and then write its caption, too."""

    def __post_init__(self):
        if not 1 <= self.block <= 8 or self.grid % self.block:
            raise ValueError(f"block {self.block} is off: 1 to 8, and the grid {self.grid} must be a multiple of it.")
        if not (1 <= self.text_length <= 1024 and 1 <= self.grid <= 128):
            raise ValueError(f"text_length {self.text_length} (1 to 1024) or grid {self.grid} (1 to 128) is off.")
        if not (2 <= self.text_vocabulary <= 1_000_000 and 2 <= self.codes <= MAX_CODES):
            raise ValueError(f"text_vocabulary {self.text_vocabulary} or codes {self.codes} is out of range.")
        blocks, picture = self.transformer, (self.text_length + 1, self.grid // self.block)
        if blocks.rotary_axes not in (0, 3) or not blocks.causal:
            raise ValueError(
                "a DALL·E needs a causal transformer with 3 rotary axes (text, row, column) or 0 (learned positions)."
            )
        if blocks.side and ((blocks.prefix, blocks.side) != picture or self.any_order or self.captions):
            raise ValueError(
                f"a transformer that sees rows and columns needs prefix {picture[0]} and side {picture[1]} here (found "
                f"{blocks.prefix} and {blocks.side}), pictures in raster order, and no captioning."
            )

    @property
    def length(self) -> int:
        """Codes of a picture."""
        return self.grid**2

    @property
    def block_length(self) -> int:
        """Codes of a block."""
        return self.block**2

    @property
    def blocks(self) -> int:
        """Blocks of a picture, which is positions of the transformer."""
        return self.length // self.block_length


@dataclass(frozen=True)
class TrainDALLE(Common):
    """Trains the transformer that continues a caption with the codes of a picture."""

    model: str | None = None
    """Start from this DALL·E, a run directory or the name of a bundled one, with its blocks, dVAE and tokenizer:
    fine-tuning. Without it the weights start at random."""
    transformer: TransformerConfig = field(default_factory=lambda: modern(256, 6, 4, rotary_axes=3))
    train: TrainConfig = field(default_factory=TrainConfig)
    data: tuple[Path, ...] = ()
    """Captioned pictures: folders with same-stem .txt, tables (CSV, TSV, JSON lines), WebDataset archives (.tar);
    without it the default drawings."""
    dvae: Path | None = None
    """The run directory of the dVAE (default: the one inside the bundled DALL·E; with --model, the one inside that)."""
    concepts: Literal["everyday", "all"] = "everyday"
    """Which of the default drawings."""
    block: int = 1
    """Side of the block of codes that one position of the transformer stands for; 1 is the published DALL·E."""
    mixture: dict[str, float] = field(
        default_factory=lambda: {
            "single": 0.22,
            "colour": 0.12,
            "painted": 0.08,
            "shape": 0.04,
            "place": 0.06,
            "size": 0.08,
            "count": 0.08,
            "pair": 0.08,
            "relation": 0.14,
            "three": 0.03,
            "style": 0.04,
            "language": 0.03,
        }  # fmt: skip
    )
    """Shares of the kinds of default drawings; a kind left out never comes."""
    scenes: int = 60_000
    """How many default drawings are made and encoded once before training."""
    views: int = 1
    """How often every picture is encoded: whole, and then as random squares of it, at least 0.8 of a side."""
    cache: Path | None = None
    """Where codes are kept, for other runs on the same pictures and tokenizer too (default: codes/ beside --out)."""
    text_vocabulary: int = 2048
    """Ceiling for the tokens of the caption tokenizer, which is trained on the captions."""
    text_length: int = 24
    """Text positions; a longer caption is cut."""
    out: Path = Path("runs/dalle")
    """The run directory: checkpoint with its dVAE, metrics, drawings while training."""
    resume: bool = False
    """Continue the run in --out, exactly."""
    half: bool = False
    """Write the model's weights in bf16, half the size; the training state stays fp32."""
    caption_drop: float = 0.1
    """Part of the captions that are dropped, so that guidance has an unconditional side."""
    code_noise: float = 0.5
    """Largest part of a picture's input codes that is replaced at random while training."""
    any_order: float = 0.0
    """Part of the pictures whose blocks are learned in a random order, so that any part of a picture may be given later."""
    captions: float = 0.0
    """Part of every batch that is learned the other way: a picture is read, its caption is written."""

    def __post_init__(self):
        super().__post_init__()
        if self.model is not None and self.dvae is not None:
            raise ValueError(f"--model {self.model} draws with its own dVAE: leave out --dvae {self.dvae}.")
        if not 1 <= self.views <= 1000:
            raise ValueError(f"views {self.views} is out of range: 1 to 1000.")
        for name in ("caption_drop", "code_noise", "any_order"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is out of range: 0 to 1.")
        if not 0 <= self.captions < 1:
            raise ValueError(
                f"captions {self.captions} is out of range: 0 to below 1, since some rows have to be drawn."
            )


DVAE_PRESETS = {
    "tiny": (
        "for tests: seconds on one core, pictures hardly recognisable",
        TrainDVAE(
            model=DVAEConfig(size=32, grid=8, width=16, depth=1, levels=(4, 4, 4)),
            train=TrainConfig(steps=30, batch_size=16, evaluate_every=30, save_every=30),
            concepts="everyday",
        ),
    ),
    # Small batches, since a step's time is that of the codes' logits, and squared error: a logit-Laplace distribution grows
    # ever surer of the flat grounds of drawings, and with it pictures are 4 to 5 dB worse at equal minutes, whatever the KL
    # weight (0.03, 1 or the paper's 6.6, which alone keeps most codes in use).
    "gumbel": (
        "the talk's relaxed categorical codes, 1024 on a 16x16 grid",
        TrainDVAE(
            model=DVAEConfig(quantizer="gumbel"),
            train=TrainConfig(
                steps=100_000,
                minutes=15.0,
                batch_size=8,
                optimizer="adamw",
                lr=3e-3,
                weight_decay=0.01,
                ema=0.998,
                evaluate_every=2000,
                save_every=2000,
            ),
            kl_weight=0.03,
        ),
    ),
    # Ramesh et al. 2021, appendix A.2, its learning rate, decay and average from memory: the rate falls over 1,200,000
    # updates (and stays for 1,800,000 more, which are left out), the temperature over the first 150,000; the KL weight rises
    # over the first 5,000.
    "paper": (
        "the talk's dVAE as published: 8192 codes on 32x32 of 256x256 pixels, weeks of many GPUs",
        TrainDVAE(
            model=DVAEConfig(
                network="published",
                size=256,
                grid=32,
                width=256,
                depth=2,
                quantizer="gumbel",
                codes=8192,
                likelihood="logit_laplace",
            ),
            train=TrainConfig(
                steps=1_200_000,
                batch_size=8,
                accumulate=64,
                optimizer="adamw",
                lr=1e-4,
                weight_decay=1e-4,
                warmup=0.0,
                schedule="cosine",
                floor=1 / 80,
                beta2=0.999,
                ema=0.999,
                evaluate_every=1000,
                save_every=1000,
            ),
            kl_weight=6.6,
            kl_part=5_000 / 1_200_000,
            temperature_part=150_000 / 1_200_000,
        ),
    ),
    "bundled": (
        "fsq codes, 1000 on a 16x16 grid: the shipped dVAE",
        TrainDVAE(
            train=TrainConfig(
                steps=100_000,
                minutes=25.0,
                batch_size=64,
                optimizer="adamw",
                lr=2e-3,
                weight_decay=0.01,
                ema=0.998,
                evaluate_every=500,
            ),
            half=True,
        ),
    ),
}

DALLE_PRESETS = {
    "tiny": (
        "for tests: seconds on one core, drawings mean nothing",
        TrainDALLE(
            transformer=modern(32, 2, 2, rotary_axes=3),
            train=TrainConfig(steps=20, batch_size=8, evaluate_every=20, save_every=20),
            scenes=64,
            text_vocabulary=512,
        ),
    ),
    "bundled": (
        "7M parameters, blocks of 4x4 codes: the shipped DALL·E",
        TrainDALLE(
            train=TrainConfig(
                steps=100_000,
                minutes=114.0,
                batch_size=48,
                lr=3e-3,
                embedding_lr=8.0,
                ema=0.999,
                evaluate_every=400,
                save_every=200,
            ),
            block=4,
            half=True,
            any_order=0.5,
            captions=0.1,
        ),
    ),
    "finetune": (
        "the bundled model goes on with your own captioned pictures, in ten minutes: give --data",
        TrainDALLE(
            model="bundled",
            train=TrainConfig(
                steps=100_000,
                minutes=10.0,
                batch_size=24,
                lr=1e-3,
                embedding_lr=8.0,
                warmup=0.05,
                ema=0.99,
                evaluate_every=100,
            ),
            any_order=0.5,
            captions=0.1,
        ),
    ),
    # Ramesh et al. 2021, appendix B, its optimiser's settings from memory; ours adds an embedding of the whole caption and
    # the small network that paints (0.3 in 12 billion parameters), and has no dropout of the caption's subwords.
    "paper": (
        "the talk's transformer of 12 billion parameters as published, for codes of train_dvae's paper: a cluster",
        TrainDALLE(
            transformer=sparse(3968, 64, 62, prefix=257, side=32),
            train=TrainConfig(
                steps=430_000,
                batch_size=1,
                accumulate=1024,
                optimizer="adamw",
                lr=4.5e-4,
                beta2=0.96,
                weight_decay=0.045,
                warmup=5_000 / 430_000,
                clip=4.0,
                evaluate_every=1000,
                save_every=1000,
            ),
            text_vocabulary=16_384,
            text_length=256,
            caption_drop=0.0,
            code_noise=0.0,
        ),
    ),
}
