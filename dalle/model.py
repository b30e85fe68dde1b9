"""DALL·E's second stage: caption tokens (b l) and picture codes (b m) in, logits of the next of each out.

One causal sequence `start, text 1..l, codes 1..n` through the shared backbone (Ramesh et al. 2021, section 2.2), with
a learned padding for each text position and two heads, one for either vocabulary. Two additions for small models,
which otherwise listen to the codes before a position and not to the caption: the mean of the caption's embeddings and
an embedding of the place to be painted are added wherever a code is predicted, and a part of the input codes may be
replaced at random while training (`corrupt`), so that a drawing that left the beaten track finds its way back.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from dalle import dvae as dvae_module
from dalle.dvae import DVAE
from dalle.presets import DALLEConfig
from multimodal import checkpoint
from multimodal.cli import UserError
from multimodal.config import TransformerConfig
from multimodal.tokenizer import Tokenizer
from multimodal.transformer import KVCache, Transformer

PADDING = -1  # in caption tokens: no token here


class DALLE(nn.Module):
    def __init__(self, config: DALLEConfig):
        super().__init__()
        self.config, width = config, config.transformer.width
        self.text_embedding = nn.Embedding(config.text_vocabulary, width)
        self.caption_embedding = nn.Embedding(config.text_vocabulary, width)
        self.code_embedding = nn.Embedding(config.codes, width)
        self.start = nn.Parameter(torch.zeros(1, width))
        self.padding = nn.Parameter(torch.zeros(config.text_length, width))
        self.place = nn.Parameter(torch.zeros(config.length, width))
        for table in (self.text_embedding.weight, self.caption_embedding.weight, self.code_embedding.weight,
                      self.start, self.padding, self.place):  # fmt: skip
            nn.init.normal_(table, std=0.5)
        self.transformer = Transformer(config.transformer)
        self.text_head = nn.Linear(width, config.text_vocabulary)
        self.code_head = nn.Linear(width, config.codes)
        for head in (self.text_head, self.code_head):  # uniform at first
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def _positions(self) -> Int[Tensor, "1 s 3"]:
        """(text, row, column) of start, text and codes; text has row and column 0, all codes the same text place."""
        grid, text = self.config.grid, self.config.text_length
        rows = repeat(torch.arange(1, grid + 1), "y -> (y x)", x=grid)
        columns = repeat(torch.arange(1, grid + 1), "x -> (y x)", y=grid)
        codes = torch.stack((torch.full_like(rows, text + 1), rows, columns), -1)
        words = F.pad(torch.arange(text + 1)[:, None], (0, 2))
        return torch.cat((words, codes))[None].to(self.place.device)

    def _caption(self, text: Int[Tensor, "b l"]) -> Float[Tensor, "b 1 d"]:
        """Mean of the embeddings of a caption's tokens; 0 where there is none."""
        real = (text != PADDING)[..., None]
        embedded = self.caption_embedding(text.clamp(min=0)) * real
        return embedded.sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1)

    def _check(self, text: Tensor) -> None:
        if text.shape[1] != self.config.text_length:
            raise ValueError(
                f"captions have {text.shape[1]} positions, this model's have {self.config.text_length}."
            )

    def _embed_text(self, text: Int[Tensor, "b l"]) -> Float[Tensor, "b l1 d"]:
        words = torch.where(
            (text == PADDING)[..., None], self.padding, self.text_embedding(text.clamp(min=0))
        )
        start = repeat(self.start, "one d -> b one d", b=text.shape[0])
        return torch.cat((start, words.to(start.dtype)), dim=1)

    def forward(
        self, text: Int[Tensor, "b l"], codes: Int[Tensor, "b m"]
    ) -> tuple[Float[Tensor, "b l v"], Float[Tensor, "b m1 k"]]:
        """Logits of each text token, and of the first m+1 codes (m codes are seen, one more is foretold)."""
        self._check(text)
        l, m = text.shape[1], codes.shape[1]  # noqa: E741
        x = torch.cat((self._embed_text(text), self.code_embedding(codes)), dim=1)[
            :, : l + self.config.length
        ]
        foretold = min(m + 1, self.config.length)
        steered = x[:, l : l + foretold] + self.place[:foretold] + self._caption(text)
        x = torch.cat((x[:, :l], steered), dim=1)
        y = self.transformer(x, self._positions()[:, : x.shape[1]])
        return self.text_head(y[:, :l]), self.code_head(y[:, l:])

    def prefill(self, text: Int[Tensor, "b l"], cache: KVCache) -> Float[Tensor, "b k"]:
        """Reads the captions into an empty cache; logits of the first code."""
        self._check(text)
        x = self._embed_text(text)
        last = x[:, -1:] + self.place[:1] + self._caption(text)
        y = self.transformer(
            torch.cat((x[:, :-1], last), dim=1), self._positions()[:, : x.shape[1]], cache=cache
        )
        return self.code_head(y[:, -1])

    def step(self, text: Int[Tensor, "b l"], codes: Int[Tensor, "b"], cache: KVCache) -> Float[Tensor, "b k"]:
        """One more code of every row; logits of the code after it."""
        painted = (
            cache.length - self.config.text_length
        )  # codes seen once this one is: also the next one's place
        x = rearrange(self.code_embedding(codes), "b d -> b 1 d") + self.place[painted] + self._caption(text)
        y = self.transformer(x, self._positions()[:, cache.length, None], cache=cache)
        return self.code_head(y[:, 0])


def corrupt(codes: Int[Tensor, "b n"], most: float) -> Int[Tensor, "b n"]:
    """Codes with a part of them, another part of up to `most` in every row, replaced by codes of other pictures."""
    part = torch.rand(codes.shape[0], 1, device=codes.device) * most
    replaced = torch.rand(codes.shape, device=codes.device) < part
    others = codes.flatten()[torch.randint(codes.numel(), codes.shape, device=codes.device)]
    return torch.where(replaced, others, codes)


def loss(
    model: nn.Module,
    text: Int[Tensor, "b l"],
    codes: Int[Tensor, "b n"],
    caption_drop: float,
    code_noise: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """1/8 of the text's and 7/8 of the codes' cross-entropy in nats a token (Ramesh et al. 2021, section 2.2).

    A dropped caption is empty on the input side and does not count in the text loss.
    """
    dropped = torch.rand(text.shape[0], 1, device=text.device) < caption_drop
    seen = torch.where(dropped, PADDING, text)
    text_logits, code_logits = model(seen, corrupt(codes, code_noise)[:, :-1])
    text_loss = F.cross_entropy(
        rearrange(text_logits.float(), "b l v -> (b l) v"),
        seen.flatten(),
        ignore_index=PADDING,
        reduction="sum",
    )
    text_loss = text_loss / (seen != PADDING).sum().clamp(min=1)
    code_loss = F.cross_entropy(rearrange(code_logits.float(), "b n k -> (b n) k"), codes.flatten())
    return text_loss / 8 + 7 * code_loss / 8, {
        "text_loss": text_loss.detach(),
        "code_loss": code_loss.detach(),
    }


def encode_captions(tokenizer: Tokenizer, captions: list[str], length: int) -> Int[Tensor, "b l"]:
    """Lower-cased captions as tokens with the end token behind, cut or padded to `length`."""
    rows = torch.full((len(captions), length), PADDING)
    for row, caption in zip(rows, captions, strict=True):
        tokens = [*tokenizer.encode(" ".join(caption.lower().split()))[: length - 1], tokenizer.end]
        row[: len(tokens)] = torch.tensor(tokens)
    return rows


@dataclass(frozen=True)
class Artist:
    """All that drawing needs: what continues a caption, what paints codes, what reads captions."""

    model: DALLE
    dvae: DVAE
    tokenizer: Tokenizer


def save(directory: Path, artist: Artist, card: str | None = None, dtype: torch.dtype | None = None) -> None:
    """A DALL·E directory; its dVAE is in its sub-directory dvae/."""
    dvae_module.save(Path(directory) / "dvae", artist.dvae, dtype=dtype)
    config = {"model": asdict(artist.model.config)}
    checkpoint.write(directory, "dalle", config, artist.model, artist.tokenizer, dtype=dtype, card=card)


def load(directory: Path, device: torch.device | str = "cpu") -> Artist:
    """A trained DALL·E from its directory. Raises UserError with what is wrong."""

    def build():
        settings = dict(config["model"])
        return DALLE(DALLEConfig(**{**settings, "transformer": TransformerConfig(**settings["transformer"])}))

    config = checkpoint.read_config(directory, "dalle")
    model = checkpoint.load(directory, build, device)
    dvae = dvae_module.load(Path(directory) / "dvae", device)
    tokenizer = Tokenizer.load(Path(directory) / "tokenizer.json")
    if (dvae.config.grid, dvae.config.vocabulary) != (model.config.grid, model.config.codes):
        raise UserError(
            f"{directory}: the dVAE has {dvae.config.vocabulary} codes on a grid of {dvae.config.grid}, the transformer "
            f"{model.config.codes} on {model.config.grid}; they do not belong together."
        )
    if tokenizer.vocab_size > model.config.text_vocabulary:
        raise UserError(
            f"{directory}: tokenizer.json has more tokens than the model's {model.config.text_vocabulary}."
        )
    return Artist(model, dvae, tokenizer)
