"""Drawing: a caption and seeds in, pictures (n 3 s s) in [0, 1] out, as they fill in; and a part of a picture may be given.

The caption is read once for all drawings; every further block of codes costs one position, for the drawings with the
caption and, when guided (Ho & Salimans 2022), without it in the same batch. A drawing depends on its own seed only.

What is given of a picture stays, code for code. A model trained in any order reads all of it first; one that paints in raster
order has to paint a place before it sees what is given after it, so to it only upper rows are a prompt (as in Ramesh et al.
2021).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from dalle.model import PADDING, Artist, encode_captions, to_blocks, to_raster
from dalle.presets import GUIDANCE, TEMPERATURE
from multimodal import images
from multimodal.cli import UserError
from multimodal.sampling import Sampling, decode, generators, guide
from multimodal.transformer import KVCache

UNPAINTED = 0.92  # a light grey for what is not drawn yet
NOTHING = -1  # in given codes: to be drawn


@dataclass(frozen=True)
class Canvas:
    """Drawings on the way."""

    codes: Int[Tensor, "n m"]
    """Codes in the order of painting, NOTHING where none is yet."""
    order: Int[Tensor, "n s"]
    """The places of the blocks in that order."""

    def blocks(self) -> Int[Tensor, "n m"]:
        """The codes in block order."""
        codes = rearrange(self.codes, "n (s k) -> n s k", s=self.order.shape[1])
        back = repeat(self.order.argsort(1), "n s -> n s k", k=codes.shape[2])
        return rearrange(codes.gather(1, back), "n s k -> n (s k)")


def prompt_picture(artist: Artist, picture: Image.Image) -> Float[Tensor, "3 s s"]:
    """The middle of a picture, as the model sees it."""
    return images.to_float(images.square(picture, artist.dvae.config.size))


def mask_places(artist: Artist, mask: Image.Image, picture: Image.Image) -> Bool[Tensor, "g g"]:
    """Code places that stay: of which no pixel is light in the mask, which is as large as the picture it belongs to."""
    if mask.size != picture.size:
        raise UserError(
            f"the mask is {mask.width}x{mask.height}, the picture {picture.width}x{picture.height}: they must be alike, "
            "white where something new is to be drawn."
        )
    light = prompt_picture(artist, mask).mean(0) > 0.25  # a thin stroke counts
    return reduce(~light, "(Y y) (X x) -> Y X", "all", Y=artist.model.config.grid, X=artist.model.config.grid)


@torch.inference_mode()
def keep(artist: Artist, picture: Float[Tensor, "3 s s"], mask: Bool[Tensor, "g g"]) -> Int[Tensor, "1 m"]:
    """The codes of a picture in block order, where the mask of code places (row, column) is True; elsewhere NOTHING."""
    config, grid = artist.model.config, artist.model.config.grid
    if mask.shape != (grid, grid):
        raise UserError(f"the mask has {tuple(mask.shape)} places, this model's pictures {grid} x {grid}.")
    codes = artist.dvae.encode(picture[None].to(artist.model.place.device))
    codes = torch.where(rearrange(mask, "y x -> 1 (y x)").to(codes.device), codes, NOTHING)
    return to_blocks(codes, grid, config.block)


def border(side: Literal["top", "bottom", "left", "right"], rows: int, grid: int) -> Bool[Tensor, "g g"]:
    """So many rows (or, left and right, columns) of codes at one side of a picture."""
    if not 0 < rows < grid:
        raise UserError(f"rows {rows} is out of range: 1 to {grid - 1}, since a picture has {grid} rows of codes.")
    mask = torch.zeros(grid, grid, dtype=torch.bool)
    part = slice(0, rows) if side in ("top", "left") else slice(grid - rows, grid)
    if side in ("top", "bottom"):
        mask[part] = True
    else:
        mask[:, part] = True
    return mask


def variations(given: Int[Tensor, "1 m"], block: int, share: float, seeds: list[int]) -> Int[Tensor, "n m"]:
    """For every seed another `share` of the blocks taken away."""
    blocks = rearrange(given, "1 (s k) -> s k", k=block**2)
    if not 0 < share <= 1 or not (count := round(share * len(blocks))):
        raise UserError(f"a share of {share:g} of {len(blocks)} blocks is none, or too many: say 0.1 to 1.")
    rows = []
    for generator in generators(seeds):
        gone = torch.randperm(len(blocks), generator=generator)[:count]
        rows.append(blocks.index_fill(0, gone.to(blocks.device), NOTHING).flatten())
    return torch.stack(rows)


@torch.inference_mode()
def sample_codes(
    artist: Artist,
    prompts: list[str],
    seeds: list[int],
    guidance: float,
    sampling: Sampling,
    given: Int[Tensor, "r m"] | None = None,
) -> Iterator[Canvas]:
    """Code after code of a drawing for each (prompt, seed); one prompt is read once for all seeds.

    `given` codes, in block order and NOTHING where none is, are for all drawings (r = 1) or for each its own.
    """
    n = len(seeds)
    if not seeds or len(prompts) not in (1, n):
        raise UserError(f"{len(prompts)} prompts and {n} seeds: give one prompt, or one a seed.")
    if not 0 <= guidance <= 100:
        raise UserError(f"guidance {guidance} is out of range: 1 (none) to 100; 2 to 5 is usual.")
    model, config = artist.model, artist.model.config
    where, k = model.place.device, config.block_length
    if given is None:
        given = torch.full((1, config.length), NOTHING)
    order, given, known = in_order(artist, given.to(where))
    text = encode_captions(artist.tokenizer, prompts, config.text_length).to(where)
    text[[not prompt.strip() for prompt in prompts]] = PADDING  # no caption, which is not an empty one
    if guidance != 1:
        text = torch.cat((text, torch.full_like(text[:1], PADDING)))
    # rows: the prompts' n drawings, then (guided) n without a caption
    rows = torch.arange(len(prompts), device=where).repeat_interleave(n // len(prompts))
    if guidance != 1:
        rows = torch.cat((rows, torch.full_like(rows, len(prompts))))
    both = len(rows) // n
    codes, places = given.repeat(n // len(given), 1), order.repeat(n // len(order), 1)
    if known == config.blocks:
        yield Canvas(codes, places)
        return
    cache = KVCache(config.transformer, len(text), config.text_length + config.blocks, where, model.place.dtype)
    head = rearrange(given[:, : known * k], "r (g k) -> r g k", k=k)
    if len(order) == 1:  # the same places for all drawings: the caption and what is given are read once
        features = model.prefill(text, head.expand(len(text), -1, -1), order.expand(len(text), -1), cache)
        cache, features = cache.select(rows), features[rows]
        text, order = text[rows], order.expand(len(rows), -1)
    else:
        text, order = text[rows], order.repeat(both, 1)
        cache = KVCache(config.transformer, len(rows), cache.capacity, where, model.place.dtype)
        features = model.prefill(text, head.repeat(both, 1, 1), order, cache)
    block = torch.empty(len(rows), 0, dtype=torch.long, device=where)

    def logits() -> Float[Tensor, "n v"]:
        found = model.paint(features, block)
        return found if guidance == 1 else guide(found[:n], found[n:], guidance)

    def step(codes: Int[Tensor, "n"]) -> Float[Tensor, "n v"]:
        nonlocal features, block
        block = torch.cat((block, codes.repeat(both)[:, None]), dim=1)
        if block.shape[1] == k:
            features, block = model.advance(text, block, order, cache), block[:, :0]
        return logits()

    rest = codes[:, known * k :].clone()
    columns = decode(logits(), step, rest.shape[1], sampling, generators(seeds), rest)
    for place, column in enumerate(columns, start=known * k):
        codes[:, place] = column
        yield Canvas(codes, places)


def in_order(artist: Artist, given: Int[Tensor, "r m"]) -> tuple[Int[Tensor, "r s"], Int[Tensor, "r m"], int]:
    """The order in which blocks are painted, the given codes in that order, and how many of its first blocks are known.

    A model trained in any order reads what is known first; then, in raster order, come those known in part and the rest.
    """
    config = artist.model.config
    blocks = rearrange(given, "r (s k) -> r s k", k=config.block_length)
    whole = (blocks >= 0).all(-1)
    order = artist.model.raster(len(given))
    if config.any_order:
        order = (~whole).long().argsort(dim=1, stable=True)
    whole = whole.gather(1, order).long()
    known = int(whole.cumprod(1).sum(1).min())  # a row that has more of them paints them as given
    blocks = blocks.gather(1, repeat(order, "r s -> r s k", k=config.block_length))
    return order, rearrange(blocks, "r s k -> r (s k)"), known


@torch.inference_mode()
def paint(artist: Artist, canvas: Canvas) -> Float[Tensor, "n 3 s s"]:
    """The picture of a canvas; what is not drawn yet is grey."""
    grid, codes = (
        artist.model.config.grid,
        to_raster(canvas.blocks(), artist.model.config.grid, artist.model.config.block),
    )
    missing = codes == NOTHING
    # the dVAE wants all codes: any will do where grey covers it
    picture = artist.dvae.decode(torch.where(missing, codes.amax(1, keepdim=True).clamp(min=0), codes))
    if missing.any():
        mask = rearrange(1 - missing.float(), "b (y x) -> b 1 y x", y=grid)
        mask = F.interpolate(mask, picture.shape[-2:], mode="nearest")
        picture = picture * mask + UNPAINTED * (1 - mask)
    return picture


def draw(
    artist: Artist,
    prompt: str,
    seeds: list[int],
    guidance: float = GUIDANCE,
    sampling: Sampling | None = None,
    every: int = 0,
    given: Int[Tensor, "r m"] | None = None,
) -> Iterator[tuple[float, Float[Tensor, "n 3 s s"]]]:
    """The share of the codes that are there, and pictures of the prompt, one a seed: each time `every` more codes are drawn
    (0: only at the end), then whole, with a share of 1."""
    if not prompt.strip() and given is None:
        raise UserError("the prompt is empty: say what to draw.")
    steps = sample_codes(artist, [prompt], seeds, guidance, sampling or Sampling(TEMPERATURE), given)
    for drawn, canvas in enumerate(steps, start=1):
        if every and drawn % every == 0 and (canvas.codes == NOTHING).any():
            yield (canvas.codes != NOTHING).float().mean().item(), paint(artist, canvas)
    yield 1.0, paint(artist, canvas)


def draw_each(
    artist: Artist,
    prompts: list[str],
    seeds: list[int],
    guidance: float = GUIDANCE,
    sampling: Sampling | None = None,
) -> Float[Tensor, "n 3 s s"]:
    """One picture for each (prompt, seed), whole."""
    for canvas in sample_codes(artist, prompts, seeds, guidance, sampling or Sampling(TEMPERATURE)):  # noqa: B007
        pass
    return paint(artist, canvas)
