"""A CLIP ready to use, whichever it is: pictures and texts in, unit vectors (b d) out, and how they become scores.

All that names, searches, ranks and judges goes through `Encoder`; `find` makes one of what a user says after --model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from clip.model import CLIP, load, tokenize
from clip.published import NotOurs, fitted
from multimodal import checkpoint, devices, images
from multimodal.cli import UserError
from multimodal.packing import PRECISIONS, pack
from multimodal.tokenizer import Tokenizer

CHUNK = 256  # prompts or pictures of one forward pass
# of the largest layer of pictures in one forward pass: on a CPU what is larger goes back to the system each time, which costs
# a fifth of the speed (measured with ViT-B-32: 8 pictures)
NUMBERS = {"cpu": 1_250_000}


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
    """A CLIP on the shared backbone, with its tokenizer: trained by this toolkit, or published and held by its towers.

    `digest` tells what the files are, where there are files; in another precision their vectors are others."""

    def __init__(
        self,
        network: CLIP,
        tokenizer: Tokenizer,
        name: str = "CLIP",
        digest: Callable[[], str] | None = None,
        precision: str = "fp32",
    ):
        self.network, self.tokenizer, self.name, self.precision = network, tokenizer, name, precision
        self.size, self.context, self.width = network.config.size, network.config.context, network.config.embedding
        self.scores, self._digest = network.config.scores, digest

    @property
    def scale(self) -> float:
        return self.network.scale().item()

    @property
    def bias(self) -> float:
        return 0.0 if self.network.bias is None else self.network.bias.item()

    @cached_property
    def digest(self) -> str:
        if self._digest is None:
            raise ValueError("a model in training has no digest: it is another one at every step.")
        return f"{self._digest()}-{self.precision}"

    def prepare(self, picture: Image.Image) -> UInt8[Tensor, "3 h w"]:
        if self.network.config.resize == "fit":
            return images.square(picture, self.size)
        return fitted(picture, (self.size, self.size))

    def embed_images(self, pictures: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        where, config = self.network.log_scale.device, self.network.config
        each = (config.grid**2 + 1) * config.image.width * config.image.mlp_ratio
        chunk = max(1, min(CHUNK, NUMBERS.get(where.type, 100_000_000) // each))

        @torch.inference_mode()
        def seen(part: Tensor) -> Tensor:
            return self.network.image(images.to_float(part.to(where)))

        if where.type != "cpu":
            return torch.cat([seen(part) for part in pictures.split(chunk)]).float()
        chunk = min(chunk, max(1, -(-len(pictures) // torch.get_num_threads())))
        return torch.cat(side_by_side(seen, pictures.split(chunk))).float()

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "t d"]:
        where = self.network.log_scale.device
        with torch.inference_mode():
            parts = (
                tokenize(self.tokenizer, texts[i : i + CHUNK], self.context)[0] for i in range(0, len(texts), CHUNK)
            )
            return torch.cat([self.network.text(tokens.to(where)) for tokens in parts]).float()

    def too_long(self, texts: Sequence[str]) -> int:
        return tokenize(self.tokenizer, texts, self.context)[1]


def side_by_side(compute: Callable[[Tensor], Tensor], parts: Sequence[Tensor]) -> list[Tensor]:
    """The same as a map, with a part for each processor at a time, where else all would work on one part and wait for the
    slowest at every product, the more so while others decode pictures beside it."""
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) == 1:
        return [compute(part) for part in parts]

    def alone(part: Tensor) -> Tensor:
        torch.set_num_threads(1)  # of this thread
        return compute(part)

    try:
        with ThreadPoolExecutor(min(threads, len(parts)), "pictures") as pool:
            return list(pool.map(alone, parts))
    finally:
        torch.set_num_threads(threads)  # what other threads begin with


def find(asked: str | Path | None, device: torch.device | str = "cpu", precision: str = "fp32") -> Encoder:
    """The CLIP of a run directory or of a bundled name, the bundled one for None; or a published one, as `clip.openclip`
    says. `precision` is fp32, bf16, int8, or auto: bf16 where the machine is faster with it. Raises UserError with what is
    wrong; a network is used only where a model of the hub is asked for that this machine does not keep.
    """
    device = torch.device(device)
    precision = devices.precision(device, precision)
    if precision not in PRECISIONS:
        raise UserError(f"--precision {precision} is unknown: allowed are auto, {', '.join(PRECISIONS)}.")
    from clip import openclip  # whose models are encoders too

    source = None if asked is None else openclip.locate(asked)
    if source is None:
        try:
            directory = checkpoint.find(asked, "clip")
        except UserError as error:
            ways = f"published models are {openclip.NAMED}NAME/TAG, {openclip.HUB}OWNER/NAME and {openclip.LOCAL}PATH"
            raise UserError(f"{str(error).rstrip('.')}; {ways}.") from None
        network, tokenizer = load(directory, device)
        return Ours(
            packed(network, precision), tokenizer, directory.name, lambda: checkpoint.digest(directory), precision
        )
    try:
        network, tokenizer = openclip.load(source, device)
    except NotOurs as reason:
        return openclip.Foreign(source, device, precision, str(reason))
    return Ours(packed(network, precision), tokenizer, source.name, source.digest, precision)


def packed(network: CLIP, precision: str) -> CLIP:
    """The network for reading only. `precision` is that of pictures: texts are few, and what is rounded in the vector of a
    class moves all its scores (with ViT-B-32 in bf16 that changed more answers than int8 pictures did)."""
    pack(network.image, precision)
    pack(network.text, "fp32")
    return network
