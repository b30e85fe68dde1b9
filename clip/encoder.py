"""A CLIP ready to use, whichever it is: pictures and texts in, unit vectors (b d) out, and how they become scores.

All that names, searches, ranks and judges goes through `Encoder`; `find` makes one of what a user says after --model.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from clip.model import CLIP, load, tokenize
from multimodal import checkpoint, images
from multimodal.tokenizer import Tokenizer

CHUNK = 256  # prompts or pictures of one forward pass


class Encoder(ABC):
    """What can be asked of any CLIP."""

    name: str
    """As people know it."""
    size: int
    """Pixels of a side of what it sees: pictures are decoded no larger than that needs."""
    context: int
    """Tokens of the longest text that it reads."""
    width: int
    """Features d of its vectors."""
    scale: float
    """What similarities are multiplied by."""
    bias: float
    """What is added then; 0 where scores are a softmax, which it would not change."""
    scores: Literal["softmax", "sigmoid"]
    """How the model was trained: to choose among texts, or to judge each by itself (Zhai et al. 2023, SigLIP)."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Of everything that makes its vectors: what was computed with it may be kept under this name."""

    @abstractmethod
    def prepare(self, picture: Image.Image) -> UInt8[Tensor, "3 h w"]:
        """A picture scaled and cropped as the model was trained."""

    @abstractmethod
    def embed_images(self, pictures: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit vectors of any number of prepared pictures, in fp32."""

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "t d"]:
        """Unit vectors of any number of texts, in fp32; what is longer than the context is cut."""

    @abstractmethod
    def too_long(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than the context."""


class Ours(Encoder):
    """A CLIP of this toolkit, with its tokenizer."""

    bias, scores = 0.0, "softmax"

    def __init__(self, network: CLIP, tokenizer: Tokenizer, directory: Path | None = None):
        self.network, self.tokenizer, self.directory = network, tokenizer, directory
        self.name = directory.name if directory else "CLIP"
        self.size, self.context, self.width = network.config.size, network.config.context, network.config.embedding

    @property
    def scale(self) -> float:
        return self.network.scale().item()

    @cached_property
    def digest(self) -> str:
        if self.directory is None:
            raise ValueError("a model in training has no digest: it is another one at every step.")
        return checkpoint.digest(self.directory)

    def prepare(self, picture: Image.Image) -> UInt8[Tensor, "3 h w"]:
        return images.square(picture, self.size)

    def embed_images(self, pictures: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        where = self.network.log_scale.device
        with torch.inference_mode():
            parts = [self.network.image(images.to_float(part.to(where))) for part in pictures.split(CHUNK)]
            return torch.cat(parts).float()

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "t d"]:
        where = self.network.log_scale.device
        with torch.inference_mode():
            parts = (
                tokenize(self.tokenizer, texts[i : i + CHUNK], self.context)[0] for i in range(0, len(texts), CHUNK)
            )
            return torch.cat([self.network.text(tokens.to(where)) for tokens in parts]).float()

    def too_long(self, texts: Sequence[str]) -> int:
        return tokenize(self.tokenizer, texts, self.context)[1]


def find(asked: str | Path | None, device: torch.device | str = "cpu") -> Encoder:
    """The CLIP of a run directory or of a bundled name; the bundled one for None. Raises UserError with what is wrong."""
    directory = checkpoint.find(asked, "clip")
    return Ours(*load(directory, device), directory)
