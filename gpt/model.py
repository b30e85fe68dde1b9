"""GPT: token ids in, logits of the next token at every position out; and its checkpoint directories.

Embed, `Transformer` (causal), head: Radford et al. 2019. With the `gpt2` blocks it is GPT-2 exactly (learned
positions, head tied to the embedding); with the `modern` blocks positions rotate inside the blocks and the
embedding is normalised. Legend: b batch, n position, v vocabulary, m positions seen (cached and here), d
width.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gpt.presets import GPTConfig
from multimodal import checkpoint, devices
from multimodal.cli import UserError
from multimodal.tokenizer import Tokenizer
from multimodal.transformer import KVCache, Transformer


class GPT(nn.Module):
    """Language model. The head shares its weights with the embedding."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.learned = config.transformer.rotary_axes == 0
        self.embedding = nn.Embedding(config.vocabulary, width)
        self.positions = nn.Embedding(config.context, width) if self.learned else None
        self.head: nn.Module | None = None  # the embedding's weights, unless they were packed for writing
        self.dropout = nn.Dropout(config.transformer.dropout)
        self.transformer = Transformer(config.transformer)
        nn.init.normal_(self.embedding.weight, std=0.02)
        if self.positions is not None:
            nn.init.normal_(
                self.positions.weight, std=0.01
            )  # as in OpenAI's code; better than 0.02 in trials of others

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        valid: Bool[Tensor, "b m"] | None = None,
        cache: KVCache | None = None,
        last: int | None = None,
    ) -> Float[Tensor, "b k v"]:
        """Logits of what follows each position; with `last` only of the last k = `last` (else k = n).

        `valid`: False where a seen position is padding; a row's positions count its real tokens only.
        `cache`: the tokens follow the cached ones, and are added to it.
        """
        n, past = tokens.shape[1], cache.length if cache is not None else 0
        if valid is None:
            positions = rearrange(torch.arange(past, past + n, device=tokens.device), "n -> 1 n")
        else:
            positions = (valid.cumsum(1) - 1).clamp(min=0)[:, -n:]
        x = self.embedding(tokens)
        if self.positions is not None:
            if past + n > self.config.context:
                raise ValueError(f"{past + n} positions were asked for, the context has {self.config.context}.")
            x = x + self.positions(positions)
        else:
            x = F.layer_norm(x, x.shape[-1:])  # features start at the size that the blocks' outputs have
        x = self.transformer(self.dropout(x), rearrange(positions, "b n -> b n 1"), valid, cache)
        if last is not None:
            x = x[:, -last:]
        return F.linear(x, self.embedding.weight) if self.head is None else self.head(x)

    def pack_head(self, make: Callable[..., nn.Module]) -> None:
        """Gives the head a packed embedding (see multimodal/packing.py), in whose weight rows are still looked up."""
        self.head = make(self.embedding.weight, None, shared=True)

    def cache(self, batch: int, length: int | None = None) -> KVCache:
        """An empty cache for `batch` rows of `length` positions, of a whole context for None."""
        weight = self.embedding.weight
        # on a CPU torch attends to one position in 16 bits at a fourth of the speed of 32
        dtype = torch.float32 if weight.device.type == "cpu" else weight.dtype
        return KVCache(self.config.transformer, batch, length or self.config.context, weight.device, dtype)


def next_token_loss(
    model: nn.Module, batch: dict[str, Tensor], step: int
) -> tuple[Float[Tensor, ""], dict[str, float | Tensor]]:
    """Mean nats of a token given those before it; `batch["tokens"]` (b, n+1) has inputs and successors."""
    tokens = batch["tokens"]
    logits = model(tokens[:, :-1])
    return F.cross_entropy(rearrange(logits.float(), "b n v -> (b n) v"), rearrange(tokens[:, 1:], "b n -> (b n)")), {}


def save(model: GPT, tokenizer: Tokenizer, directory: Path, half: bool = False, card: str | None = None) -> None:
    """Writes a directory that `load` reads; `half` stores the weights in bf16."""
    dtype = torch.bfloat16 if half else None
    checkpoint.write(directory, "gpt", model.config.to_dict(), model, tokenizer, dtype, card)


def load(directory: Path, device: str = "auto") -> tuple[GPT, Tokenizer]:
    """The model of a run directory, ready to write. Raises UserError with what is wrong."""
    directory = Path(directory)
    config = checkpoint.read_config(directory, "gpt")
    tokenizer = Tokenizer.load(directory / "tokenizer.json")
    model = checkpoint.load(directory, lambda: GPT(GPTConfig.from_dict(config)), devices.pick(device))
    if tokenizer.vocab_size > model.config.vocabulary:
        raise UserError(
            f"{directory}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model "
            f"{model.config.vocabulary:,}; they do not belong together."
        )
    return model, tokenizer
