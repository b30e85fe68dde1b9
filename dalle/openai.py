"""The dVAE that OpenAI published with DALL·E: pictures (b 3 s s) in [0, 1] -> codes (b n), n = (s / 8)², and back.

Ramesh et al. 2021, appendix A: an encoder and a decoder of four groups of bottleneck blocks with ReLUs, and between the
groups the largest or the nearest of 2x2 positions. Pixels are moved into [0.1, 0.9] before, since the logit-Laplace likelihood
is that of (0, 1); of the decoder's six channels the first three are the means of their logits, the others their scales.
The files hold an encoder and a decoder apart, whose parameters are called w and b.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from dalle.presets import MAX_CODES, MAX_SIDE
from dalle.published import fill, in_parts, shape
from multimodal import checkpoint

KIND = "openai-dvae"
FACTOR = 8  # pixels of a side for each code
GROUPS = 4
EPSILON = 0.1  # what the pixels keep away from 0 and 1


@dataclass(frozen=True)
class OpenAIConfig:
    """Sizes of the dVAE; as published unless told otherwise."""

    size: int = 256
    """Pixels of a side of the (square) pictures."""
    width: int = 256
    """Channels of the groups next to the pixels; the innermost have eight times as many."""
    start: int = 128
    """Channels that a code has first in the decoder."""
    blocks: int = 2
    """Blocks of a group."""
    vocabulary: int = 8192
    """Number of different codes."""

    def __post_init__(self):
        if not FACTOR <= self.size <= MAX_SIDE or self.size % FACTOR:
            raise ValueError(f"size {self.size} is off: a multiple of {FACTOR} up to {MAX_SIDE} is needed.")
        if not (4 <= self.width <= 1024 and self.width % 4 == 0 and 1 <= self.start <= 4096 and 1 <= self.blocks <= 16):
            raise ValueError(f"width {self.width}, start {self.start} or blocks {self.blocks} is out of range.")
        if not 2 <= self.vocabulary <= MAX_CODES:
            raise ValueError(f"the codebook has {self.vocabulary} codes: allowed are 2 to {MAX_CODES}.")

    @property
    def grid(self) -> int:
        """Codes of a side."""
        return self.size // FACTOR

    @property
    def length(self) -> int:
        """Codes of a picture."""
        return self.grid**2


def map_pixels(image: Float[Tensor, "*b 3 s s"]) -> Float[Tensor, "*b 3 s s"]:
    """[0, 1] -> [eps, 1 - eps], away from the ends, where a logit is infinite (Ramesh et al. 2021, appendix A.3)."""
    return (1 - 2 * EPSILON) * image + EPSILON


def unmap_pixels(mapped: Float[Tensor, "*b 3 s s"]) -> Float[Tensor, "*b 3 s s"]:
    """Back again; what is beyond the ends is cut off."""
    return ((mapped - EPSILON) / (1 - 2 * EPSILON)).clamp(0, 1)


class Block(nn.Module):
    """Four convolutions through a quarter of the channels, beside a short cut."""

    def __init__(self, width: int, to: int, kernels: tuple[int, ...], gain: float):
        super().__init__()
        widths = (width, *[to // 4] * 3, to)
        self.skip = nn.Conv2d(width, to, 1) if width != to else nn.Identity()
        self.path = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], kernel, padding=kernel // 2) for i, kernel in enumerate(kernels)
        )
        self.gain = gain

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b d y x"]:
        y = x
        for convolution in self.path:
            y = convolution(F.relu(y))
        return self.skip(x) + self.gain * y


def groups(config: OpenAIConfig, widths: list[int], kernels: tuple[int, ...]) -> nn.ModuleList:
    """Four groups of blocks, from each width to the next."""
    gain = 1 / (GROUPS * config.blocks) ** 2
    return nn.ModuleList(
        nn.Sequential(*(Block(to if i else width, to, kernels, gain) for i in range(config.blocks)))
        for width, to in zip(widths, widths[1:], strict=False)
    )


class Encoder(nn.Module):
    def __init__(self, config: OpenAIConfig):
        super().__init__()
        w = config.width
        self.input = nn.Conv2d(3, w, 7, padding=3)
        self.groups = groups(config, [w, w, 2 * w, 4 * w, 8 * w], (3, 3, 3, 1))
        self.output = nn.Conv2d(8 * w, config.vocabulary, 1)

    def forward(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b v g g"]:
        x = self.input(pixels)
        for i, group in enumerate(self.groups):
            x = group(F.max_pool2d(x, 2) if i else x)
        with torch.autocast(x.device.type, enabled=False):  # as published: logits keep 32 bits
            return self.output(F.relu(x).float())


class Decoder(nn.Module):
    def __init__(self, config: OpenAIConfig):
        super().__init__()
        w = config.width
        self.input = nn.Conv2d(config.vocabulary, config.start, 1)
        self.groups = groups(config, [config.start, 8 * w, 4 * w, 2 * w, w], (1, 3, 3, 3))
        self.output = nn.Conv2d(w, 6, 1)

    def forward(self, codes: Int[Tensor, "b g g"]) -> Float[Tensor, "b 6 s s"]:
        # the 1x1 convolution of what is 1 for one code and 0 for all others is a column of it
        table = rearrange(self.input.weight, "d v 1 1 -> v d")
        return self.paint(rearrange(F.embedding(codes, table) + self.input.bias, "b y x d -> b d y x"))

    def paint(self, x: Float[Tensor, "b d g g"]) -> Float[Tensor, "b 6 s s"]:
        """All that follows the first convolution."""
        for i, group in enumerate(self.groups):
            x = group(F.interpolate(x, scale_factor=2, mode="nearest") if i else x)
        return self.output(F.relu(x))


class OpenAIDVAE(nn.Module):
    def __init__(self, config: OpenAIConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def encode(self, image: Float[Tensor, "b 3 s s"]) -> Int[Tensor, "b n"]:
        def codes(image: Tensor) -> Tensor:
            return rearrange(self.encoder(map_pixels(image.float())).argmax(1), "b y x -> b (y x)")

        return in_parts(codes, image, self.config.width * self.config.size**2)

    def decode(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b 3 s s"]:
        def image(codes: Tensor) -> Tensor:
            painted = self.decoder(rearrange(codes, "b (y x) -> b y x", y=self.config.grid))
            return unmap_pixels(painted[:, :3].sigmoid())

        return in_parts(image, codes, self.config.width * self.config.size**2)


def published_name(name: str) -> str:
    """Our name of a parameter -> theirs, with the part it is of in front."""
    name = re.sub(r"groups\.(\d+)\.(\d+)\.", lambda m: f"group_{int(m[1]) + 1}.block_{int(m[2]) + 1}.", name)
    name = re.sub(r"path\.(\d+)\.", lambda m: f"res_path.conv_{int(m[1]) + 1}.", name)
    name = name.replace(".skip.", ".id_path.").replace(".output.", ".output.conv.")
    name = re.sub(r"^(encoder|decoder)\.", r"\1.blocks.", name)
    return re.sub(r"weight$", "w", re.sub(r"bias$", "b", name))


def is_part(theirs: Mapping[str, Tensor]) -> str | None:
    """encoder or decoder where these are the tensors of OpenAI's, by their names."""
    if "blocks.input.w" not in theirs or theirs["blocks.input.w"].ndim != 4:
        return None
    return "encoder" if theirs["blocks.input.w"].shape[2] > 1 else "decoder"  # 7x7 on pixels, 1x1 on codes


def from_published(encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor], size: int) -> OpenAIDVAE:
    """Our dVAE from the tensors of the two files. Raises ValueError with what does not fit."""
    for wanted, part in (("encoder", encoder), ("decoder", decoder)):
        if (found := is_part(part)) != wanted:
            raise ValueError(f"what is given as the {wanted} is " + (f"the {found}" if found else "something else"))
    theirs = {f"encoder.{name}": tensor for name, tensor in encoder.items()}
    theirs |= {f"decoder.{name}": tensor for name, tensor in decoder.items()}
    blocks = 0
    while f"encoder.blocks.group_1.block_{blocks + 1}.res_path.conv_1.w" in theirs:
        blocks += 1
    config = OpenAIConfig(
        size,
        width=shape(theirs, "encoder.blocks.input.w", 4)[0],
        start=shape(theirs, "decoder.blocks.input.w", 4)[0],
        blocks=blocks,
        vocabulary=shape(theirs, "encoder.blocks.output.conv.w", 4)[0],
    )
    return fill(lambda: OpenAIDVAE(config), theirs, published_name)


def save(directory: Path, model: OpenAIDVAE, card: str | None = None) -> None:
    checkpoint.write(directory, KIND, {"model": asdict(model.config)}, model, card=card)


def load(directory: Path, device: torch.device | str = "cpu") -> OpenAIDVAE:
    """A converted dVAE from its directory. Raises UserError with what is wrong."""
    config = checkpoint.read_config(directory, KIND)
    return checkpoint.load(directory, lambda: OpenAIDVAE(OpenAIConfig(**config["model"])), device)
