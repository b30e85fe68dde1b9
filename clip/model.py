"""CLIP: pictures (b 3 h w) in [0, 1] and captions (b n) in, two unit vectors (b d) each and the scale out.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", with both towers on the
shared backbone. The image tower is a vision transformer (Dosovitskiy et al. 2021); a caption is read left to right.
Ours know positions by rotation and take means over patches and words; the published ones have learned positions and take
the features at a class token and at the end token. Both are these two classes, by the fields of `CLIPConfig`.
Legend: b batch, n positions, v vectors' width `embedding`, t the tower's own width.
"""

import html
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
from multimodal.tokenizer import END, MAX_LETTERS, Tokenizer, caption
from multimodal.transformer import Transformer, norm

KIND = "clip"
MAX_LOG_SCALE = math.log(100)  # Radford et al. 2021, section 2.5: more would make training unstable
MAX_LOG_SCALE_SIGMOID = math.log(1000)  # Zhai et al. 2023 bound it nowhere, and their published scales are near 120
START_LOG_SCALE = math.log(1 / 0.07)  # the paper's temperature at the start
START = "<|startoftext|>"  # begins a text of the published models; our own vocabularies have no such token


class Patches(nn.Module):
    """A linear map of whole patches, as in the papers: a convolution that skips, by one matrix product."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.side = config.patch
        # learned positions are a bias already
        self.map = nn.Linear(3 * config.patch**2, config.image.width, bias=config.image.rotary_axes > 0)

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
        self.positions: nn.Parameter | None = None
        self.first_norm: nn.Module = nn.Identity()
        if not config.image.rotary_axes:
            count = config.grid**2 + (self.begin is not None)
            self.positions = nn.Parameter(torch.randn(count, width) * width**-0.5)
            self.first_norm = norm(config.image)
        self.transformer = Transformer(config.image)
        self.projection = nn.Linear(width, config.embedding, bias=False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b v"]:
        """`images` in [0, 1], `config.size` pixels a side."""
        config = self.config
        if images.shape[-2:] != (config.size, config.size):
            raise ValueError(f"pictures are {tuple(images.shape[-2:])} pixels, this model sees {config.size} a side.")
        mean, std = (rearrange(images.new_tensor(c), "c -> c 1 1") for c in (config.mean, config.std))
        own = next((p.dtype for p in self.parameters()), images.dtype)  # bf16 where the tower was packed so
        x = self.stem(((images - mean) / std).to(own))
        places = None
        if self.begin is not None:
            x = torch.cat((repeat(self.begin.to(x.dtype), "t -> b 1 t", b=x.shape[0]), x), dim=1)
        if self.positions is not None:
            x = self.first_norm(x + self.positions.to(x.dtype))
        else:
            grid = torch.arange(config.grid, device=x.device)
            places = torch.cartesian_prod(grid, grid)
            if self.begin is not None:
                places = torch.cat((places.new_full((1, 2), -1), places))  # before the first row and column
            places = rearrange(places, "n a -> 1 n a")
        x = self.transformer(x, places)
        pooled = x[:, 0] if self.begin is not None else reduce(x, "b n t -> b t", "mean")
        return F.normalize(self.projection(pooled).float(), dim=-1)


class TextTower(nn.Module):
    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.pooling, self.end = config.pooling, config.end
        self.embed = nn.Embedding(config.vocabulary, config.text.width)
        self.positions: nn.Parameter | None = None
        if not config.text.rotary_axes:  # the deviations of Radford et al.'s code: positions must not drown in words
            nn.init.normal_(self.embed.weight, std=0.02)
            self.positions = nn.Parameter(torch.randn(config.context, config.text.width) * 0.01)
        self.transformer = Transformer(config.text)
        self.projection = nn.Linear(config.text.width, config.embedding, bias=False)

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b v"]:
        """`tokens` as `tokenize` makes them: what follows a row's first end token is padding and changes nothing.

        The vector is that of the mean over the tokens, or of the end token, as `pooling` says."""
        x = self.embed(tokens)
        if self.positions is not None:
            x = x + self.positions[: tokens.shape[1]].to(x.dtype)
        x = self.transformer(x)
        end = (tokens == self.end).int().argmax(dim=1)
        if self.pooling == "mean":  # every word is heard from the first step on
            real = torch.arange(x.shape[1], device=x.device) <= rearrange(end, "b -> b 1")
            weights = real / real.sum(dim=1, keepdim=True)
            pooled = einsum(x, weights.to(x.dtype), "b n t, b n -> b t")
        else:
            pooled = x[torch.arange(x.shape[0], device=x.device), end]
        return F.normalize(self.projection(pooled).float(), dim=-1)


class CLIP(nn.Module):
    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config = config
        self.image = ImageTower(config)
        self.text = TextTower(config)
        self.log_scale = nn.Parameter(torch.tensor(START_LOG_SCALE))
        # added to the similarities where each is judged by itself
        self.bias = nn.Parameter(torch.zeros(())) if config.scores == "sigmoid" else None

    @property
    def max_log_scale(self) -> float:
        return MAX_LOG_SCALE if self.config.scores == "softmax" else MAX_LOG_SCALE_SIGMOID

    def scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied by, 1 to 100: the inverse of the temperature, learned as its logarithm."""
        return self.log_scale.clamp(0, self.max_log_scale).exp()

    @torch.no_grad()
    def bound_scale(self) -> None:
        """Puts the scale back inside its bounds, for training: on the far side of one it would get no gradient."""
        self.log_scale.clamp_(0, self.max_log_scale - 1e-6)  # ln 100 rounded to 32 bits may lie beyond ln 100

    def forward(
        self, images: Float[Tensor, "b 3 h w"], tokens: Int[Tensor, "t n"]
    ) -> tuple[Float[Tensor, "b v"], Float[Tensor, "t v"], Float[Tensor, ""]]:
        """Unit vectors of the pictures and of the captions, and the scale."""
        return self.image(images), self.text(tokens), self.scale()


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], context: int) -> tuple[Int[Tensor, "b n"], int]:
    """Tokens padded to the longest text, each with its end token, and how many texts were too long.

    A text of more than `context` tokens is cut, and its end token kept. A vocabulary with a start token is the published
    models', and its texts are read as they were read in training.
    """
    start = tokenizer.pipeline.token_to_id(START)
    if start is None:
        rows = [tokenizer.encode(caption(text)) for text in texts]
    else:
        rows = [[start, *tokenizer.encode(published_caption(text))] for text in texts]
    cut = sum(len(row) + 1 > context for row in rows)
    rows = [[*row[: context - 1], tokenizer.end] for row in rows]
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [tokenizer.end] * (longest - len(row)) for row in rows]), cut


def published_caption(text: str) -> str:
    """A text as the published models read it: mended (ftfy), without HTML's escapes, single spaces, lower case."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text[:MAX_LETTERS])))
    return " ".join(text.split()).lower()


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
    if tokenizer.end != model.config.end:
        raise UserError(
            f"{directory}: {END} is token {tokenizer.end} in tokenizer.json, config.json says {model.config.end}; the files "
            "are of different models."
        )
    return model, tokenizer
