"""Drawing: a caption and seeds in, pictures (n 3 s s) in [0, 1] out, as they fill in.

The caption is read once for all drawings; every further block of codes costs one position, for the drawings with the
caption and, when guided (Ho & Salimans 2022), without it in the same
batch. A drawing depends on its own seed only.
"""

from collections.abc import Iterator

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from dalle.model import PADDING, Artist, encode_captions, to_raster
from dalle.presets import GUIDANCE, TEMPERATURE
from multimodal.cli import UserError
from multimodal.sampling import Sampling, decode, generators, guide
from multimodal.transformer import KVCache

UNPAINTED = 0.92  # a light grey for what is not drawn yet


@torch.no_grad()
def sample_codes(
    artist: Artist, prompts: list[str], seeds: list[int], guidance: float, sampling: Sampling
) -> Iterator[Int[Tensor, "n"]]:
    """Code after code (in block order) of a drawing for each (prompt, seed); one prompt is read once for all seeds."""
    if not seeds or len(prompts) not in (1, len(seeds)):
        raise UserError(f"{len(prompts)} prompts and {len(seeds)} seeds: give one prompt, or one a seed.")
    if not 0 <= guidance <= 100:
        raise UserError(f"guidance {guidance} is out of range: 1 (none) to 100; 2 to 5 is usual.")
    model, config = artist.model, artist.model.config
    where, n = model.place.device, len(seeds)
    text = encode_captions(artist.tokenizer, prompts, config.text_length).to(where)
    if guidance != 1:
        text = torch.cat((text, torch.full_like(text[:1], PADDING)))
    cache = KVCache(config.transformer, len(text), config.text_length + config.blocks, where, model.place.dtype)
    features = model.prefill(text, cache)
    # rows: the prompts' n drawings, then (guided) n without a caption
    rows = torch.arange(len(prompts), device=where).repeat_interleave(n // len(prompts))
    if guidance != 1:
        rows = torch.cat((rows, torch.full_like(rows, len(prompts))))
    cache, text, features = cache.select(rows), text[rows], features[rows]
    block = torch.empty(len(rows), 0, dtype=torch.long, device=where)

    def logits() -> Float[Tensor, "n k"]:
        found = model.paint(features, block)
        return found if guidance == 1 else guide(found[:n], found[n:], guidance)

    def step(codes: Int[Tensor, "n"]) -> Float[Tensor, "n k"]:
        nonlocal features, block
        block = torch.cat((block, codes.repeat(len(rows) // n)[:, None]), dim=1)
        if block.shape[1] == config.block_length:
            features, block = model.advance(text, block, cache), block[:, :0]
        return logits()

    yield from decode(logits(), step, config.length, sampling, generators(seeds))


@torch.no_grad()
def paint(artist: Artist, codes: Int[Tensor, "n m"]) -> Float[Tensor, "n 3 s s"]:
    """The picture of the first m codes in block order; what is not drawn yet is grey."""
    config, block = artist.dvae.config, artist.model.config.block
    missing = config.length - codes.shape[1]
    # the dVAE wants all codes: the last one stands in, and is covered
    full = torch.cat((codes, repeat(codes[:, -1], "n -> n m", m=missing)), dim=1)
    picture = artist.dvae.decode(to_raster(full, config.grid, block))
    if missing:
        drawn = (torch.arange(config.length, device=codes.device)[None] < codes.shape[1]).long()
        mask = rearrange(to_raster(drawn, config.grid, block).float(), "b (y x) -> b 1 y x", y=config.grid)
        mask = torch.nn.functional.interpolate(mask, picture.shape[-2:], mode="nearest")
        picture = picture * mask + UNPAINTED * (1 - mask)
    return picture


def draw(
    artist: Artist,
    prompt: str,
    seeds: list[int],
    guidance: float = GUIDANCE,
    sampling: Sampling | None = None,
    every: int = 0,
) -> Iterator[Float[Tensor, "n 3 s s"]]:
    """Pictures of the prompt, one a seed, each time `every` more codes are drawn (0: only at the end), then whole."""
    if not prompt.strip():
        raise UserError("the prompt is empty: say what to draw.")
    codes: list[Tensor] = []
    for column in sample_codes(artist, [prompt], seeds, guidance, sampling or Sampling(TEMPERATURE)):
        codes.append(column)
        if every and len(codes) % every == 0 and len(codes) < artist.model.config.length:
            yield paint(artist, torch.stack(codes, dim=1))
    yield paint(artist, torch.stack(codes, dim=1))


def draw_each(
    artist: Artist,
    prompts: list[str],
    seeds: list[int],
    guidance: float = GUIDANCE,
    sampling: Sampling | None = None,
) -> Float[Tensor, "n 3 s s"]:
    """One picture for each (prompt, seed), whole."""
    codes = list(sample_codes(artist, prompts, seeds, guidance, sampling or Sampling(TEMPERATURE)))
    return paint(artist, torch.stack(codes, dim=1))
