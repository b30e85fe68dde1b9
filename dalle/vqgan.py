"""VQGAN as taming-transformers published it: pictures (b 3 s s) in [0, 1] -> codes (b n) of the nearest vectors, and back.

Esser et al. 2021, "Taming Transformers for High-Resolution Image Synthesis"; the encoder and decoder are those of Ho et al.
2020 without time. Its gumbel variant takes the likeliest code of a map instead of the nearest vector. Inside, pixels are in
[-1, 1]. The names of parameters are the published ones; what was only for training (discriminator, losses) is left behind.
All sizes are told by the shapes of the tensors.
"""

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

KIND = "vqgan"
PARTS = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")
AVERAGES = ("quantize.embedding.cluster_size", "quantize.embedding.embed_avg")  # by which vectors may be trained
NORM_GROUPS = 32


@dataclass(frozen=True)
class VQGANConfig:
    """Sizes of a VQGAN; unless told otherwise those of the one for ImageNet with 16x16 pixels a code."""

    size: int = 256
    """Pixels of a side of the (square) pictures."""
    width: int = 128
    """Channels at full size, in units of which the levels have theirs."""
    levels: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Channels of each level over the width; from one level to the next the sides are halved."""
    blocks: int = 2
    """Residual blocks of a level in the encoder; the decoder has one more."""
    attention: tuple[int, ...] = (4,)
    """Levels whose residual blocks are each followed by attention; 0 is full size."""
    latent: int = 256
    """Channels between the networks and the codebook."""
    embedding: int = 256
    """Channels of a vector of the codebook."""
    vocabulary: int = 16384
    """Number of different codes."""
    gumbel: bool = False
    """A code is the likeliest of a map, not the nearest vector."""

    def __post_init__(self):
        if not (1 <= len(self.levels) <= 8 and all(1 <= level <= 16 for level in self.levels)):
            raise ValueError(f"levels {self.levels} is off: 1 to 8 of them, each 1 to 16.")
        if not all(0 <= level < len(self.levels) for level in self.attention):
            raise ValueError(f"attention {self.attention} is off: there are the levels 0 to {len(self.levels) - 1}.")
        if not self.factor <= self.size <= MAX_SIDE or self.size % self.factor:
            raise ValueError(f"size {self.size} is off: a multiple of {self.factor} up to {MAX_SIDE} is needed.")
        if not (1 <= self.width <= 1024 and self.width % NORM_GROUPS == 0 and 1 <= self.blocks <= 16):
            raise ValueError(f"width {self.width} (a multiple of 32 to 1024) or blocks {self.blocks} (1 to 16) is off.")
        if not (1 <= self.latent <= 4096 and 1 <= self.embedding <= 4096 and 2 <= self.vocabulary <= MAX_CODES):
            raise ValueError(
                f"latent {self.latent}, embedding {self.embedding} (1 to 4096) or vocabulary {self.vocabulary} (2 to "
                f"{MAX_CODES}) is out of range."
            )

    @property
    def factor(self) -> int:
        """Pixels of a side for each code."""
        return 2 ** (len(self.levels) - 1)

    @property
    def grid(self) -> int:
        """Codes of a side."""
        return self.size // self.factor

    @property
    def length(self) -> int:
        """Codes of a picture."""
        return self.grid**2


def norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(NORM_GROUPS, width, eps=1e-6)


class ResidualBlock(nn.Module):
    def __init__(self, width: int, to: int):
        super().__init__()
        self.norm1, self.conv1 = norm(width), nn.Conv2d(width, to, 3, padding=1)
        self.norm2, self.conv2 = norm(to), nn.Conv2d(to, to, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(width, to, 1) if width != to else nn.Identity()

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b d y x"]:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class AttentionBlock(nn.Module):
    """Every place sees every other, with a single head."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Float[Tensor, "b d y x"]) -> Float[Tensor, "b d y x"]:
        y = self.norm(x)
        q, k, v = (rearrange(f(y), "b d y x -> b 1 (y x) d") for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(y, "b 1 (y x) d -> b d y x", y=x.shape[2]))


class Level(nn.Module):
    """Residual blocks, each with attention behind it or not."""

    def __init__(self, widths: list[int], attention: bool):
        super().__init__()
        self.block = nn.ModuleList(ResidualBlock(*pair) for pair in zip(widths, widths[1:], strict=False))
        self.attn = nn.ModuleList(AttentionBlock(width) for width in widths[1:] if attention)

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b d y x"]:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        return x


def middle(width: int) -> nn.ModuleDict:
    """What either network does at the lowest resolution."""
    return nn.ModuleDict(
        {
            "block_1": ResidualBlock(width, width),
            "attn_1": AttentionBlock(width),
            "block_2": ResidualBlock(width, width),
        }
    )


class Encoder(nn.Module):
    def __init__(self, config: VQGANConfig):
        super().__init__()
        widths = [config.width * level for level in (1, *config.levels)]
        self.conv_in = nn.Conv2d(3, config.width, 3, padding=1)
        self.down = nn.ModuleList()
        for i, (width, to) in enumerate(zip(widths, widths[1:], strict=False)):
            level = Level([width, *[to] * config.blocks], i in config.attention)
            if i + 1 < len(config.levels):
                level.downsample = nn.ModuleDict({"conv": nn.Conv2d(to, to, 3, stride=2)})
            self.down.append(level)
        self.mid = middle(widths[-1])
        self.norm_out, self.conv_out = norm(widths[-1]), nn.Conv2d(widths[-1], config.latent, 3, padding=1)

    def forward(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d g g"]:
        x = self.conv_in(pixels)
        for i, level in enumerate(self.down):
            x = level(x)
            if i + 1 < len(self.down):
                x = level.downsample["conv"](F.pad(x, (0, 1, 0, 1)))  # only to the right and below, as it was trained
        for part in self.mid.values():
            x = part(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    def __init__(self, config: VQGANConfig):
        super().__init__()
        widths = [config.width * level for level in (*config.levels, config.levels[-1])]
        self.conv_in = nn.Conv2d(config.latent, widths[-1], 3, padding=1)
        self.mid = middle(widths[-1])
        self.up = nn.ModuleList()
        for i, (to, width) in enumerate(zip(widths, widths[1:], strict=False)):
            level = Level([width, *[to] * (config.blocks + 1)], i in config.attention)
            if i:
                level.upsample = nn.ModuleDict({"conv": nn.Conv2d(to, to, 3, padding=1)})
            self.up.append(level)
        self.norm_out, self.conv_out = norm(widths[0]), nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latent: Float[Tensor, "b d g g"]) -> Float[Tensor, "b 3 s s"]:
        x = self.conv_in(latent)
        for part in self.mid.values():
            x = part(x)
        for i, level in reversed(list(enumerate(self.up))):
            x = level(x)
            if i:
                x = level.upsample["conv"](F.interpolate(x, scale_factor=2, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(x)))


class VQGAN(nn.Module):
    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv2d(config.latent, config.embedding, 1)
        self.post_quant_conv = nn.Conv2d(config.embedding, config.latent, 1)
        vectors = nn.Embedding(config.vocabulary, config.embedding)
        if config.gumbel:
            self.quantize = nn.ModuleDict({"proj": nn.Conv2d(config.embedding, config.vocabulary, 1), "embed": vectors})
        else:
            self.quantize = nn.ModuleDict({"embedding": vectors})

    def _choose(self, x: Float[Tensor, "b d g g"]) -> Int[Tensor, "b n"]:
        if self.config.gumbel:
            return rearrange(self.quantize["proj"](x).argmax(1), "b y x -> b (y x)")
        vectors = self.quantize["embedding"].weight
        # |x - e|² without |x|², which is the same for all vectors
        distances = vectors.square().sum(1) - 2 * rearrange(x, "b d y x -> b (y x) d") @ vectors.T
        return distances.argmin(-1)

    def encode(self, image: Float[Tensor, "b 3 s s"]) -> Int[Tensor, "b n"]:
        def codes(image: Tensor) -> Tensor:
            return self._choose(self.quant_conv(self.encoder(image.float() * 2 - 1)))

        return in_parts(codes, image, self.config.width * self.config.size**2)

    def decode(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b 3 s s"]:
        vectors = self.quantize["embed" if self.config.gumbel else "embedding"]

        def image(codes: Tensor) -> Tensor:
            x = rearrange(vectors(codes), "b (y x) d -> b d y x", y=self.config.grid)
            return ((self.decoder(self.post_quant_conv(x)) + 1) / 2).clamp(0, 1)

        return in_parts(image, codes, self.config.width * self.config.size**2)


def own_tensors(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the VQGAN in a checkpoint, which may be that of a transformer on it; none where there is no VQGAN."""
    for prefix in ("", "first_stage_model."):
        if f"{prefix}encoder.conv_in.weight" in theirs:
            found = {n.removeprefix(prefix): t for n, t in theirs.items() if n.startswith(prefix)}
            return {n: t for n, t in found.items() if n.startswith(PARTS) and n not in AVERAGES}
    return {}


def factor(theirs: Mapping[str, Tensor]) -> int:
    """Pixels of a side for each code."""
    return 2 ** max(0, _count(theirs, "encoder.down.{}.block.0.conv1.weight") - 1)


def from_published(theirs: Mapping[str, Tensor], size: int) -> VQGAN:
    """Our VQGAN from the tensors of `own_tensors`. Raises ValueError with what does not fit."""
    if "quantize.used" in theirs:
        raise ValueError("it renumbers its codes (quantize.used), which is not supported")
    gumbel = "quantize.embed.weight" in theirs
    vectors = "quantize.embed.weight" if gumbel else "quantize.embedding.weight"
    if vectors not in theirs:
        raise ValueError("it has no codebook: it is an autoencoder without codes, not a VQGAN")
    width, channels = shape(theirs, "encoder.conv_in.weight", 4)[:2]
    if channels != 3:
        raise ValueError(f"its pictures have {channels} channels; here they have 3 (red, green, blue)")
    levels, blocks = (
        _count(theirs, "encoder.down.{}.block.0.conv1.weight"),
        _count(theirs, "encoder.down.0.block.{}.conv1.weight"),
    )
    if not levels:
        raise ValueError("its encoder has no down.0.block.0, as taming-transformers calls its levels")
    widths = [shape(theirs, f"encoder.down.{i}.block.0.conv1.weight", 4)[0] for i in range(levels)]
    if any(found % width for found in widths):
        raise ValueError(f"its levels have {widths} channels; multiples of {width} are needed")
    config = VQGANConfig(
        size,
        width=width,
        levels=tuple(found // width for found in widths),
        blocks=blocks,
        attention=tuple(i for i in range(levels) if f"encoder.down.{i}.attn.0.q.weight" in theirs),
        latent=shape(theirs, "encoder.conv_out.weight", 4)[0],
        embedding=shape(theirs, vectors, 2)[1],
        vocabulary=shape(theirs, vectors, 2)[0],
        gumbel=gumbel,
    )
    return fill(lambda: VQGAN(config), theirs, lambda name: name)


def _count(theirs: Mapping[str, Tensor], name: str) -> int:
    """How many tensors have that name with 0, 1, 2 ... in it."""
    count = 0
    while name.format(count) in theirs:
        count += 1
    return count


def save(directory: Path, model: VQGAN, card: str | None = None) -> None:
    checkpoint.write(directory, KIND, {"model": asdict(model.config)}, model, card=card)


def load(directory: Path, device: torch.device | str = "cpu") -> VQGAN:
    """A converted VQGAN from its directory. Raises UserError with what is wrong."""

    def build():
        settings = dict(config["model"])
        tuples = {name: tuple(settings[name]) for name in ("levels", "attention")}
        return VQGAN(VQGANConfig(**{**settings, **tuples}))

    config = checkpoint.read_config(directory, KIND)
    return checkpoint.load(directory, build, device)
