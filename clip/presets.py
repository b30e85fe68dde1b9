"""Settings and presets of CLIP's training; no torch here, so that `--help` answers at once."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from multimodal.cli import Common
from multimodal.config import TrainConfig, TransformerConfig, modern

MAX_SIDE, MAX_PATCHES, MAX_CONTEXT = 1024, 16_384, 4096  # bounds on what a stranger's config may ask for


@dataclass(frozen=True)
class CLIPConfig:
    """The two towers and what they read."""

    image: TransformerConfig = field(default_factory=lambda: modern(192, 6, 6, causal=False, rotary_axes=2))
    text: TransformerConfig = field(default_factory=lambda: modern(192, 4, 6))
    size: int = 64
    """Pixels of a side of the (square) pictures."""
    patch: int = 8
    """Pixels of a side of a patch. On a CPU 16 learns as much a step as 8, in half the time."""
    vocabulary: int = 2048
    """Text tokens, the end token included. For training a ceiling: few captions have fewer."""
    context: int = 32
    """Longest caption in tokens, the end token included; longer ones are cut."""
    embedding: int = 192
    """Features of the vectors in which pictures and captions meet."""
    stem: Literal["patches", "convolutions"] = "convolutions"
    """How pixels become patches: one linear map, or convolutions that halve the sides (patch is then a power of 2)."""
    pooling: Literal["class", "mean"] = "mean"
    """What stands for picture and caption: a class token and the end token, or the means over patches and tokens."""

    def __post_init__(self):
        if not (1 <= self.patch <= self.size <= MAX_SIDE and self.size % self.patch == 0):
            raise ValueError(f"size {self.size} must be a multiple of patch {self.patch}, at most {MAX_SIDE}.")
        if self.grid**2 > MAX_PATCHES:
            raise ValueError(f"size {self.size} has {self.grid**2} patches of {self.patch}: at most {MAX_PATCHES}.")
        if self.stem not in ("patches", "convolutions") or (
            self.stem == "convolutions" and (self.patch < 2 or self.patch & (self.patch - 1))
        ):
            raise ValueError(
                f"stem {self.stem!r} with patch {self.patch}: allowed are patches, or convolutions with 2, 4, 8 ..."
            )
        if self.image.causal or self.image.rotary_axes != 2:
            raise ValueError("the image tower needs causal off and 2 rotary axes: row and column.")
        if not self.text.causal or self.text.rotary_axes != 1:
            raise ValueError("the text tower needs causal on and 1 rotary axis.")
        if not (2 <= self.vocabulary <= 1_000_000 and 2 <= self.context <= MAX_CONTEXT):
            raise ValueError(
                f"vocabulary {self.vocabulary} (2 to 1,000,000) or context {self.context} (2 to {MAX_CONTEXT}) is off."
            )
        if not (1 <= self.embedding <= 65_536 and self.pooling in ("class", "mean")):
            raise ValueError(
                f"embedding {self.embedding} (1 to 65,536) or pooling {self.pooling!r} (class, mean) is off."
            )

    @property
    def grid(self) -> int:
        """Patches of a side."""
        return self.size // self.patch

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "CLIPConfig":
        """From config.json's content. Raises TypeError or ValueError where that describes no model."""
        towers = {name: TransformerConfig(**config.get(name, {})) for name in ("image", "text")}
        return cls(**{**config, **towers})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class TrainCLIP(Common):
    """Trains CLIP."""

    model: CLIPConfig = field(default_factory=CLIPConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: tuple[Path, ...] = ()
    """Captioned pictures: folders with same-stem .txt, tables (CSV, TSV, JSON lines), WebDataset archives (.tar);
    without it the default drawings."""
    concepts: Literal["everyday", "all"] = "all"
    """Which of the default drawings."""
    styles: tuple[Literal["twemoji", "openmoji"], ...] = ("twemoji", "openmoji")
    """Whose drawings to train on; with one style, the other one's judge the model."""
    out: Path = Path("runs/clip")
    """The run directory: checkpoint, metrics, model card."""
    resume: bool = False
    """Continue the run in --out, exactly."""
    mixture: dict[str, float] = field(
        default_factory=lambda: {
            "single": 0.35,
            "colour": 0.1,
            "painted": 0.08,
            "shape": 0.04,
            "place": 0.04,
            "size": 0.06,
            "count": 0.08,
            "pair": 0.06,
            "relation": 0.1,
            "three": 0.02,
            "style": 0.04,
            "language": 0.03,
        }  # fmt: skip
    )
    """Shares of the kinds of default drawings; a kind left out never comes."""
    half: bool = False
    """Write the model's weights in bf16, half the size; the training state stays fp32."""
    augment: bool = True
    """Turn, scale, move and shear the pictures and change their colours slightly, anew each time they are seen."""


PRESETS = {
    "tiny": (
        "for tests: seconds on one core, guesses",
        TrainCLIP(
            model=CLIPConfig(
                image=modern(32, 2, 2, causal=False, rotary_axes=2), text=modern(32, 2, 2),
                size=32, vocabulary=512, embedding=32,
            ),
            train=TrainConfig(steps=30, batch_size=32, lr=1e-2, evaluate_every=30, save_every=30),
            concepts="everyday",
        ),
    ),
    "small": (
        "a few minutes on one core",
        TrainCLIP(
            model=CLIPConfig(
                image=modern(128, 4, 4, causal=False, rotary_axes=2), text=modern(128, 3, 4), patch=16, embedding=128
            ),
            train=TrainConfig(steps=100_000, minutes=5.0, batch_size=128, embedding_lr=8.0),
        ),
    ),
    "bundled": (
        "the shipped model",
        TrainCLIP(
            model=CLIPConfig(
                image=modern(128, 4, 4, causal=False, rotary_axes=2), text=modern(128, 3, 4), patch=16, embedding=128
            ),
            train=TrainConfig(
                steps=100_000, minutes=14.0, batch_size=256, embedding_lr=8.0, evaluate_every=300, save_every=300
            ),
            half=True,
        ),
    ),
}  # fmt: skip
