"""CLIP: pictures (b 3 h w) in [0, 1] and captions (b n) in, two unit vectors (b d) each and the scale out.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", with both towers on the
shared backbone. The image tower is a vision transformer (Dosovitskiy et al. 2021) whose patches know their row and
column by rotation; a caption is read left to right, and the feature at its end token stands for it.
Legend: b batch, n positions, v vectors' width `embedding`, t the tower's own width.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from clip.presets import CLIPConfig
from multimodal import checkpoint
from multimodal.cli import UserError
from multimodal.tokenizer import Tokenizer, caption
from multimodal.transformer import Transformer

KIND = "clip"
MAX_LOG_SCALE = math.log(100)  # Radford et al. 2021, section 2.5: more would make training unstable
START_LOG_SCALE = math.log(1 / 0.07)  # the paper's temperature at the start


class Patches(nn.Module):
    """A linear map of whole patches, as in the papers: a convolution that skips, by one matrix product."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.side = config.patch
        self.map = nn.Linear(3 * config.patch**2, config.image.width)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n t"]:
        return self.map(rearrange(x, "b c (y p) (x q) -> b (y x) (c p q)", p=self.side, q=self.side))


class Convolutions(nn.Module):
    """Halves the sides until a pixel stands for a patch. "Early convolutions help transformers see better", Xiao et al.
    2021: what a stroke looks like is learned once for all places, so much less data is needed."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        halvings = config.patch.bit_length() - 1
        widths = [3] + [max(8, config.image.width >> i) for i in reversed(range(halvings))]
        self.maps = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
        for convolution in self.maps:
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n t"]:
        x = x.contiguous(memory_format=torch.channels_last)  # a third faster on a CPU
        for i, convolution in enumerate(self.maps):
            x = convolution(F.relu(x) if i else x)
        return rearrange(x, "b t y x -> b (y x) t")


class ImageTower(nn.Module):
    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config = config
        width = config.image.width
        self.stem = Convolutions(config) if config.stem == "convolutions" else Patches(config)
        self.begin = nn.Parameter(torch.randn(width) * width**-0.5) if config.pooling == "class" else None
        self.transformer = Transformer(config.image)
        self.projection = nn.Linear(width, config.embedding, bias=False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b v"]:
        """`images` in [0, 1], `config.size` pixels a side."""
        config = self.config
        if images.shape[-2:] != (config.size, config.size):
            raise ValueError(f"pictures are {tuple(images.shape[-2:])} pixels, this model sees {config.size} a side.")
        x = self.stem(4 * images - 2)  # about unit variance for the usual picture
        grid = torch.arange(config.grid, device=x.device)
        places = torch.cartesian_prod(grid, grid)
        if self.begin is not None:
            x = torch.cat((repeat(self.begin.to(x.dtype), "t -> b 1 t", b=len(x)), x), dim=1)
            places = torch.cat((places.new_full((1, 2), -1), places))  # before the first row and column
        x = self.transformer(x, rearrange(places, "n a -> 1 n a"))
        pooled = x[:, 0] if self.begin is not None else reduce(x, "b n t -> b t", "mean")
        return F.normalize(self.projection(pooled).float(), dim=-1)


class TextTower(nn.Module):
    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.pooling = config.pooling
        self.embed = nn.Embedding(config.vocabulary, config.text.width)
        self.transformer = Transformer(config.text)
        self.projection = nn.Linear(config.text.width, config.embedding, bias=False)

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b v"]:
        """`tokens` as `tokenize` makes them: what follows a row's first end token (0) is padding and changes nothing.

        The vector is that of the mean over the tokens, or of the end token, as `pooling` says."""
        x = self.transformer(self.embed(tokens))
        end = (tokens == 0).int().argmax(dim=1)
        if self.pooling == "mean":  # every word is heard from the first step on
            real = torch.arange(x.shape[1], device=x.device) <= rearrange(end, "b -> b 1")
            weights = real / real.sum(dim=1, keepdim=True)
            pooled = einsum(x, weights.to(x.dtype), "b n t, b n -> b t")
        else:
            pooled = x[torch.arange(len(x), device=x.device), end]
        return F.normalize(self.projection(pooled).float(), dim=-1)


class CLIP(nn.Module):
    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config = config
        self.image = ImageTower(config)
        self.text = TextTower(config)
        self.log_scale = nn.Parameter(torch.tensor(START_LOG_SCALE))

    def scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied by, 1 to 100: the inverse of the temperature, learned as its logarithm."""
        return self.log_scale.clamp(0, MAX_LOG_SCALE).exp()

    @torch.no_grad()
    def bound_scale(self) -> None:
        """Puts the scale back inside its bounds, for training: on the far side of one it would get no gradient."""
        self.log_scale.clamp_(0, MAX_LOG_SCALE - 1e-6)  # ln 100 rounded to 32 bits may lie beyond ln 100

    def forward(
        self, images: Float[Tensor, "b 3 h w"], tokens: Int[Tensor, "t n"]
    ) -> tuple[Float[Tensor, "b v"], Float[Tensor, "t v"], Float[Tensor, ""]]:
        """Unit vectors of the pictures and of the captions, and the scale."""
        return self.image(images), self.text(tokens), self.scale()


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], context: int) -> tuple[Int[Tensor, "b n"], int]:
    """Tokens padded to the longest text, each with its end token, and how many texts were too long.

    A text of more than `context` tokens is cut, and its end token kept.
    """
    rows = [tokenizer.encode(caption(text)) for text in texts]
    cut = sum(len(row) + 1 > context for row in rows)
    rows = [[*row[: context - 1], tokenizer.end] for row in rows]
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [tokenizer.end] * (longest - len(row)) for row in rows]), cut


def save(directory: Path, model: CLIP, tokenizer: Tokenizer, card: str | None = None, dtype=None) -> None:
    """A checkpoint that `load` reads; `dtype` is that of the weights in the file."""
    checkpoint.write(directory, KIND, model.config.to_dict(), model, tokenizer, dtype=dtype, card=card)


def load(directory: str | Path, device="cpu") -> tuple[CLIP, Tokenizer]:
    """The model, ready to use, and its tokenizer. Raises UserError with what is wrong."""
    directory = Path(directory)
    found = checkpoint.read_config(directory, KIND)
    model = checkpoint.load(directory, lambda: CLIP(CLIPConfig.from_dict(found)), device)
    tokenizer = Tokenizer.load(directory / "tokenizer.json")
    if tokenizer.vocab_size != model.config.vocabulary:
        raise UserError(
            f"{directory}: tokenizer.json has {tokenizer.vocab_size} tokens, config.json says {model.config.vocabulary}; "
            "the files are of different models."
        )
    return model, tokenizer
