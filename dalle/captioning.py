"""The other direction: pictures in, captions out, by the network that draws.

It was trained to read the codes of a picture and then to write its caption, token by token, as any language model (text loss of
Ramesh et al. 2021, with the picture first). A caption comes with its mean log-probability a token.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dalle.model import Artist, to_blocks
from multimodal.cli import UserError
from multimodal.sampling import Sampling, decode, generators
from multimodal.transformer import KVCache


@dataclass(frozen=True)
class Caption:
    text: str
    mean_logprob: float
    """Nats a token, the end token included, by the model itself."""


@torch.no_grad()
def captions(artist: Artist, pictures: Float[Tensor, "n 3 s s"], sampling: Sampling, seeds: list[int]) -> list[Caption]:
    """A caption of every picture, each by its own seed. Raises UserError if the model was not trained to write any."""
    model, config, words = artist.model, artist.model.config, artist.tokenizer
    if not config.captions:
        raise UserError(
            "this model draws only: to caption pictures, train one with --captions 0.1 (see dalle.train --help)."
        )
    where = model.place.device
    codes = to_blocks(artist.dvae.encode(pictures.to(where)), config.grid, config.block)
    cache = KVCache(config.transformer, len(codes), config.blocks + config.text_length, where, model.place.dtype)
    logits, tokens, logprobs = model.read(codes, cache), [], []

    def step(chosen: Tensor) -> Tensor:
        nonlocal logits
        logits = model.write(chosen, cache)
        return logits

    ended = torch.zeros(len(codes), dtype=torch.bool, device=where)
    for chosen in decode(logits, step, config.text_length, sampling, generators(seeds)):
        tokens.append(torch.where(ended, words.end, chosen))
        each = logits.float().log_softmax(-1).gather(1, chosen[:, None])[:, 0]
        logprobs.append(each.masked_fill(ended, 0.0))
        ended = ended | (chosen == words.end)
        if ended.all():
            break
    total, found = torch.stack(logprobs, 1).sum(1), []
    for row, logprob in zip(torch.stack(tokens, 1).tolist(), total.tolist(), strict=True):
        length = row.index(words.end) if words.end in row else len(row)
        written = length + (length < len(row))  # with the end token, if it came
        found.append(Caption(words.decode(row[:length]).strip(), logprob / max(written, 1)))
    return found
