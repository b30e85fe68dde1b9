"""Settings and presets of CLIP's training; no torch here, so that `--help` answers at once."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from multimodal.cli import Common
from multimodal.config import TrainConfig, TransformerConfig, gpt2, modern

MAX_SIDE, MAX_PATCHES, MAX_CONTEXT = 1024, 16_384, 4096  # bounds on what a stranger's config may ask for
# of red, green and blue in the pictures that OpenAI trained on, which nearly all published models are given
PIXEL_MEAN, PIXEL_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class CLIPConfig:
    """The two towers and what they read.

    A tower with `rotary_axes` has its positions by rotation; one without adds learned ones, and the image tower then
    normalises once more before its blocks, as the published models do."""

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
    end: int = 0
    """Id of the token that ends a text; what follows it is padding."""
    scores: Literal["softmax", "sigmoid"] = "softmax"
    """Whether a picture chooses among texts, or each text is judged by itself; that needs a bias (Zhai et al. 2023)."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """What the image tower first takes away from red, green and blue in [0, 1]."""
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    """What it divides them by then."""
    resize: Literal["fit", "shortest"] = "fit"
    """How a picture becomes a square: its middle is scaled, or it is scaled whole to whole pixels and then cropped, as
    the published models do."""

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
        if self.image.causal or self.image.rotary_axes not in (0, 2):
            raise ValueError(
                "the image tower needs causal off and 2 rotary axes, row and column, or 0: learned positions."
            )
        if not self.text.causal or self.text.rotary_axes not in (0, 1):
            raise ValueError("the text tower needs causal on and 1 rotary axis, or 0: learned positions.")
        if not (2 <= self.vocabulary <= 1_000_000 and 2 <= self.context <= MAX_CONTEXT):
            raise ValueError(
                f"vocabulary {self.vocabulary} (2 to 1,000,000) or context {self.context} (2 to {MAX_CONTEXT}) is off."
            )
        if not (1 <= self.embedding <= 65_536 and self.pooling in ("class", "mean")):
            raise ValueError(
                f"embedding {self.embedding} (1 to 65,536) or pooling {self.pooling!r} (class, mean) is off."
            )
        if not 0 <= self.end < self.vocabulary:
            raise ValueError(f"end {self.end} is none of the {self.vocabulary} tokens.")
        if self.scores not in ("softmax", "sigmoid") or self.resize not in ("fit", "shortest"):
            raise ValueError(
                f"scores {self.scores!r} (softmax, sigmoid) or resize {self.resize!r} (fit, shortest) is off."
            )
        if not (len(self.mean) == len(self.std) == 3 and all(abs(m) < 1e3 for m in self.mean) and min(self.std) > 1e-6):
            raise ValueError(f"mean {self.mean} or std {self.std} is off: three numbers each, std above 0.")

    @property
    def grid(self) -> int:
        """Patches of a side."""
        return self.size // self.patch

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "CLIPConfig":
        """From config.json's content. Raises TypeError or ValueError where that describes no model."""
        towers = {name: TransformerConfig(**config.get(name, {})) for name in ("image", "text")}
        lists = {name: tuple(value) for name, value in config.items() if isinstance(value, list)}  # JSON has no tuples
        return cls(**{**config, **lists, **towers})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def vit(
    size: int, patch: int, width: int, depth: int, embedding: int, text_width: int, text_depth: int = 12,
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu",
) -> CLIPConfig:  # fmt: skip
    """A published CLIP with a vision transformer (Radford et al. 2021, table 20): GPT-2's blocks with heads of 64.

    OpenAI's have the quick GELU, most of LAION's and DataComp's the exact one."""
    image = replace(gpt2(width, depth, width // 64, causal=False), activation=activation)
    text = replace(gpt2(text_width, text_depth, text_width // 64), activation=activation)
    return CLIPConfig(
        image, text, size, patch, vocabulary=49_408, context=77, embedding=embedding, stem="patches", pooling="class",
        end=49_407, mean=PIXEL_MEAN, std=PIXEL_STD, resize="shortest",
    )  # fmt: skip


PUBLISHED = {
    "ViT-B-32": vit(224, 32, 768, 12, 512, 512),
    "ViT-B-16": vit(224, 16, 768, 12, 512, 512),
    "ViT-L-14": vit(224, 14, 1024, 24, 768, 768),
    "ViT-L-14-336": vit(336, 14, 1024, 24, 768, 768),
}


@dataclass(frozen=True)
class TrainCLIP(Common):
    """Trains CLIP."""

    model: CLIPConfig = field(default_factory=CLIPConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: tuple[Path, ...] = ()
    """Captioned pictures: folders with same-stem .txt, tables (CSV, TSV, JSON lines), WebDataset archives (.tar);
    without it the default drawings."""
    classes: tuple[Path, ...] = ()
    """Instead of --data: folders with a folder of pictures for each class; the captions are the folders' names."""
    template: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """For --classes: a caption with {} where the name belongs; repeatable, each picture comes in all of them."""
    image_model: str | None = None
    """Take this model's image tower as it is, and train a text tower for it (LiT): a run directory, an open_clip one."""
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
            "colour": 0.08,
            "painted": 0.06,
            "shape": 0.04,
            "place": 0.03,
            "size": 0.05,
            "count": 0.07,
            "pair": 0.05,
            "relation": 0.07,
            "three": 0.02,
            "style": 0.03,
            "language": 0.15,
        }  # fmt: skip
    )
    """Shares of the kinds of default drawings; a kind left out never comes."""
    languages: tuple[Literal["fr", "de", "es", "it", "pt", "id", "tr"], ...] = ("fr",)
    """Besides English, in the captions of the kind language."""
    half: bool = False
    """Write the model's weights in bf16, half the size; the training state stays fp32."""
    augment: bool = True
    """Turn, scale, move, shear and mirror the pictures and change their colours, anew each time they are seen, as far as
    the captions stay true: what that means for these is told. And bring the opposite of what says where things are: the
    mirrored picture with right for left; of the default drawings the things exchanged."""
    chunk: int = 0
    """Pairs whose activations are in memory at once; the others' are computed again when they are needed, with the same
    result: a large --train.batch-size in the memory of a small one, for a third more time. 0: the whole batch."""

    def __post_init__(self):
        super().__post_init__()
        if self.chunk < 0:
            raise ValueError(f"chunk {self.chunk}: a number of pairs is wanted, or 0 for the whole batch.")


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
                steps=100_000, minutes=76.0, batch_size=256, embedding_lr=8.0, evaluate_every=500, save_every=250
            ),
            half=True,
        ),
    ),
    "siglip": (
        "small, with each picture and caption judged by itself (SigLIP), in large batches in little memory",
        TrainCLIP(
            model=CLIPConfig(
                image=modern(128, 4, 4, causal=False, rotary_axes=2), text=modern(128, 3, 4), patch=16, embedding=128,
                scores="sigmoid",
            ),
            train=TrainConfig(steps=100_000, minutes=5.0, batch_size=512, embedding_lr=8.0),
            chunk=64,
        ),
    ),
    "ViT-B-32": (
        "the published shape, from scratch, with a vocabulary of its own; for GPUs",
        TrainCLIP(
            model=PUBLISHED["ViT-B-32"],
            train=TrainConfig(  # rate and decay of Radford et al. 2021, table 20
                steps=100_000, batch_size=1024, optimizer="adamw", lr=5e-4, weight_decay=0.2, schedule="cosine",
                evaluate_every=1000, save_every=1000,
            ),
            chunk=128,
        ),
    ),
}  # fmt: skip
