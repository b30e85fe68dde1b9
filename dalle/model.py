"""DALL·E's second stage: caption tokens (b l) and picture codes (b n) in, logits of every token and code out.

One causal sequence `start, text 1..l, blocks 1..s` through the shared backbone (Ramesh et al. 2021, section 2.2), with
a learned padding for each text position and two heads, one for either vocabulary. Additions for small machines:
- A position may stand for a square block of k codes (k = 1 is the published model). Its codes are painted one after the
  other by a small network on top, which sees the ones before; the backbone runs k times less (after Yu et al. 2023,
  "MEGABYTE", and Lee et al. 2022, "RQ-Transformer").
- A weighted mean of the caption's embeddings and an embedding of the place to be painted are added wherever codes are
  predicted: else a small model listens to the codes before a position and not to the caption.
- Blocks may come in any order, so that any part of a picture can be given: what is to be painted next is told by its place,
  what was seen by its position (after Pannatier et al. 2024, "σ-GPTs", and Yu et al. 2024, "Randomized Autoregressive
  Visual Generation").
- The same network reads a picture first and then writes its caption.
- `corrupt` replaces a part of the input codes while training, so that a drawing that left the beaten track finds back.
Codes are in block order here: block by block in raster order, raster order within a block (see `to_blocks`).
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from dalle import tokenizers
from dalle.presets import DALLEConfig
from multimodal import checkpoint
from multimodal.cli import UserError
from multimodal.config import TransformerConfig
from multimodal.packing import pack
from multimodal.tokenizer import Tokenizer, caption
from multimodal.transformer import MLP, KVCache, Transformer, norm

PADDING = -1  # in caption tokens: no token here
SHOWN = 8  # strange letters named
CODE_WIDTH = 64  # features of a code, before the map of its place in a block


def to_blocks(codes: Int[Tensor, "b n"], grid: int, block: int) -> Int[Tensor, "b n"]:
    """Raster order -> block order."""
    return rearrange(codes, "b (Y y X x) -> b (Y X y x)", Y=grid // block, y=block, x=block)


def to_raster(codes: Int[Tensor, "b n"], grid: int, block: int) -> Int[Tensor, "b n"]:
    """Block order -> raster order."""
    return rearrange(codes, "b (Y X y x) -> b (Y y X x)", Y=grid // block, y=block, x=block)


class DALLE(nn.Module):
    def __init__(self, config: DALLEConfig):
        super().__init__()
        self.config, width, k = config, config.transformer.width, config.block_length
        self.text_embedding = nn.Embedding(config.text_vocabulary, width)
        self.caption_embedding = nn.Embedding(config.text_vocabulary, width)
        self.caption_weight = nn.Embedding(config.text_vocabulary, 1)
        self.code_embedding = nn.Embedding(config.codes, CODE_WIDTH)
        # maps of each place in a block: for the backbone, which sees painted blocks, and for the painter, which sees the
        # block in hand (of its last code nothing follows)
        self.seen = nn.Parameter(torch.empty(k, CODE_WIDTH, width))
        self.painted = nn.Parameter(torch.empty(k - 1, CODE_WIDTH, width))
        self.start = nn.Parameter(torch.empty(1, width))
        self.padding = nn.Parameter(torch.empty(config.text_length, width))
        self.place = nn.Parameter(torch.empty(config.blocks, width))
        # without rotation the words' places are learned; a block's are told by `place`
        learned = config.transformer.rotary_axes == 0
        self.word_place = nn.Parameter(torch.empty(config.text_length, width)) if learned else None
        self.slot = nn.Parameter(torch.empty(k, width))
        for table in self.parameters():
            table.data.normal_(std=0.5)
        self.caption_embedding.weight.data.normal_(std=1.5)  # a mean over words is smaller than a word
        self.code_embedding.weight.data.normal_()
        for maps in (self.seen, self.painted):
            maps.data.normal_(std=(CODE_WIDTH * k) ** -0.5)  # a whole block has features of size 1
        nn.init.zeros_(self.caption_weight.weight)  # all words weigh the same at first
        self.transformer = Transformer(config.transformer)
        self.painter_norm, self.painter, self.head_norm = (
            norm(config.transformer),
            MLP(config.transformer),
            norm(config.transformer),
        )
        self.text_head = nn.Linear(width, config.text_vocabulary)
        self.code_head = nn.Linear(width, config.codes)
        for linear in (self.painter.down, self.text_head, self.code_head):  # uniform predictions at first
            nn.init.zeros_(linear.weight)
        for head in (self.text_head, self.code_head):
            nn.init.zeros_(head.bias)

    def _positions(self, order: Int[Tensor, "b s"]) -> Int[Tensor, "b n 3"]:
        """(text, row, column) of start, text and the blocks in their order; text has row and column 0, all blocks the same
        text place."""
        words = F.pad(torch.arange(self.config.text_length + 1, device=order.device)[:, None], (0, 2))
        return torch.cat((repeat(words, "l a -> b l a", b=len(order)), self._block_positions(order)), dim=1)

    def _block_positions(self, blocks: Int[Tensor, "b s"]) -> Int[Tensor, "b s 3"]:
        side, text = self.config.grid // self.config.block, self.config.text_length
        return torch.stack((torch.full_like(blocks, text + 1), blocks // side + 1, blocks % side + 1), -1)

    def raster(self, rows: int = 1) -> Int[Tensor, "rows s"]:
        """The order in which a picture is read."""
        return repeat(torch.arange(self.config.blocks, device=self.place.device), "s -> rows s", rows=rows)

    def _caption(self, text: Int[Tensor, "b l"]) -> Float[Tensor, "b 1 d"]:
        """Mean of the embeddings of a caption's tokens by their learned weights; 0 where there is none."""
        words = text.clamp(min=0)
        weights = self.caption_weight(words).exp() * (text != PADDING)[..., None]
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-6)
        return (self.caption_embedding(words) * weights).sum(1, keepdim=True)

    def _embed_text(self, text: Int[Tensor, "b l"]) -> Float[Tensor, "b l1 d"]:
        if text.shape[1] != self.config.text_length:
            raise ValueError(f"captions have {text.shape[1]} positions, this model's have {self.config.text_length}.")
        words = torch.where((text == PADDING)[..., None], self.padding, self.text_embedding(text.clamp(min=0)))
        if self.word_place is not None:
            words = words + self.word_place
        start = repeat(self.start, "one d -> b one d", b=text.shape[0])
        return torch.cat((start, words.to(start.dtype)), dim=1)

    def _placed(self, codes: Int[Tensor, "b s j"], maps: Float[Tensor, "k e d"]) -> Float[Tensor, "b s j d"]:
        """Features of the first j codes of blocks, each by the map of its place."""
        return einsum(self.code_embedding(codes), maps[: codes.shape[2]], "b s j e, j e d -> b s j d")

    def _paint(self, features: Float[Tensor, "b s d"], before: Float[Tensor, "b s j d"]) -> Float[Tensor, "b s j v"]:
        """Logits of the codes of blocks from the backbone's features and what is painted `before` each code."""
        x = rearrange(features, "b s d -> b s 1 d") + before
        shape = x.shape
        x = rearrange(x, "b s j d -> b (s j) d")
        x = x + self.painter(self.painter_norm(x))
        return self.code_head(self.head_norm(x)).view(*shape[:-1], self.config.codes)

    def forward(
        self,
        text: Int[Tensor, "b l"],
        codes: Int[Tensor, "b n"],
        order: Int[Tensor, "b s"] | None = None,
        reading: int = 0,
    ) -> tuple[Float[Tensor, "b l v"], Float[Tensor, "w n k"]]:
        """Logits of each text token and of each code, given what comes before it.

        `order` is that in which the blocks come, raster for None; the logits are where their codes are, whatever it is.
        The last `reading` rows have their picture before their text, and no logits of codes: w = b - reading.
        """
        (b, l), s = text.shape, self.config.blocks  # noqa: E741
        writing = b - reading
        if order is None:
            order = self.raster(b)
        blocks = rearrange(codes, "b (s k) -> b s k", s=s)
        seen = self._placed(blocks, self.seen).sum(2)
        seen = seen.gather(1, repeat(order, "b s -> b s d", d=seen.shape[-1]))
        words, positions = self._embed_text(text), self._positions(order)
        x = torch.cat((words[:writing], seen[:writing, :-1]), dim=1)
        x = torch.cat((x[:, :l], x[:, l:] + self.place[order[:writing]] + self._caption(text[:writing])), dim=1)
        where = positions[:writing, : l + s]
        if reading:
            x = torch.cat((x, torch.cat((seen[writing:], words[writing:, :l]), dim=1)))
            where = torch.cat((where, torch.cat((positions[writing:, l + 1 :], positions[writing:, :l]), dim=1)))
        y = self._transform(x, where)
        features = y[:writing, l:]
        features = features.gather(1, repeat(order[:writing].argsort(1), "b s -> b s d", d=features.shape[-1]))
        painted = self._placed(blocks[:writing, :, :-1], self.painted).cumsum(2)
        before = self.slot + F.pad(painted, (0, 0, 1, 0))
        text_features = torch.cat((y[:writing, :l], y[writing:, s:]))
        return self.text_head(text_features), rearrange(self._paint(features, before), "b s j v -> b (s j) v")

    def _transform(
        self, x: Float[Tensor, "b n d"], positions: Int[Tensor, "#b n 3"], cache: KVCache | None = None
    ) -> Float[Tensor, "b n d"]:
        return self.transformer(x, positions if self.word_place is None else None, cache=cache)

    def prefill(
        self, text: Int[Tensor, "b l"], given: Int[Tensor, "b g k"], order: Int[Tensor, "b s"], cache: KVCache
    ) -> Float[Tensor, "b d"]:
        """Reads the captions and the first g blocks of the order into an empty cache; features of the block after them."""
        l, g = text.shape[1], given.shape[1]  # noqa: E741
        x = torch.cat((self._embed_text(text), self._placed(given, self.seen).sum(2)), dim=1)
        x = torch.cat((x[:, :l], x[:, l:] + self.place[order[:, : g + 1]] + self._caption(text)), dim=1)
        return self._transform(x, self._positions(order)[:, : l + 1 + g], cache)[:, -1]

    def advance(
        self, text: Int[Tensor, "b l"], block: Int[Tensor, "b k"], order: Int[Tensor, "b s"], cache: KVCache
    ) -> Float[Tensor, "b d"]:
        """One more painted block of every row; features of the block after it."""
        done = cache.length - self.config.text_length  # blocks seen once this one is: also the next one's place
        seen = self._placed(block[:, None], self.seen).sum(2)
        x = seen + self.place[order[:, done, None]] + self._caption(text)
        return self._transform(x, self._block_positions(order[:, done - 1, None]), cache)[:, 0]

    def read(self, codes: Int[Tensor, "b n"], cache: KVCache) -> Float[Tensor, "b v"]:
        """Reads pictures into an empty cache; logits of the first token of their captions."""
        order = self.raster(len(codes))
        seen = self._placed(rearrange(codes, "b (s k) -> b s k", s=self.config.blocks), self.seen).sum(2)
        start = repeat(self.start, "one d -> b one d", b=len(codes))
        positions = self._positions(order)
        where = torch.cat((positions[:, self.config.text_length + 1 :], positions[:, :1]), dim=1)
        return self.text_head(self._transform(torch.cat((seen, start.to(seen.dtype)), dim=1), where, cache)[:, -1])

    def write(self, tokens: Int[Tensor, "b"], cache: KVCache) -> Float[Tensor, "b v"]:
        """One more token of every caption; logits of the token after it."""
        place = cache.length - self.config.blocks  # 1 is the first word's
        where = F.pad(torch.full((1, 1, 1), place, device=tokens.device), (0, 2))
        return self.text_head(self._transform(self.text_embedding(tokens)[:, None], where, cache)[:, 0])

    def paint(self, features: Float[Tensor, "b d"], codes: Int[Tensor, "b j"]) -> Float[Tensor, "b k"]:
        """Logits of the next code of a block of which j codes are painted."""
        before = self.slot[codes.shape[1]] + self._placed(codes[:, None], self.painted).sum(2)
        return self._paint(features[:, None], before[:, :, None])[:, 0, 0]


def corrupt(codes: Int[Tensor, "b n"], most: float) -> Int[Tensor, "b n"]:
    """Codes with a part of them, another part of up to `most` in every row, replaced by codes of other pictures."""
    part = torch.rand(codes.shape[0], 1, device=codes.device) * most
    replaced = torch.rand(codes.shape, device=codes.device) < part
    others = codes.flatten()[torch.randint(codes.numel(), codes.shape, device=codes.device)]
    return torch.where(replaced, others, codes)


def orders(rows: int, blocks: int, part: float, device) -> Int[Tensor, "rows blocks"]:
    """An order of blocks for every row: at random with probability `part`, else as a picture is read."""
    noise = torch.rand(rows, blocks, device=device)
    ranks = torch.arange(blocks, dtype=noise.dtype, device=device).expand(rows, -1)
    return torch.where(torch.rand(rows, 1, device=device) < part, noise, ranks).argsort(1)


def loss(
    model: nn.Module,
    text: Int[Tensor, "b l"],
    codes: Int[Tensor, "b n"],
    caption_drop: float,
    code_noise: float,
    order: Int[Tensor, "b s"] | None = None,
    reading: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """1/8 of the text's and 7/8 of the codes' cross-entropy in nats a token (Ramesh et al. 2021, section 2.2).

    A dropped caption is empty on the input side and does not count in the text loss. Of the last `reading` rows the
    caption is written after the picture, whose codes do not count; that loss weighs as much as the text's.
    """
    writing = len(text) - reading
    dropped = torch.rand(text.shape[0], 1, device=text.device) < caption_drop
    dropped[writing:] = False
    seen = torch.where(dropped, PADDING, text)
    text_logits, code_logits = model(seen, corrupt(codes, code_noise), order, reading)

    def words(part: slice) -> Float[Tensor, ""]:
        logits = rearrange(text_logits[part].float(), "b l v -> (b l) v")
        total = F.cross_entropy(logits, seen[part].flatten(), ignore_index=PADDING, reduction="sum")
        return total / (seen[part] != PADDING).sum().clamp(min=1)

    text_loss = words(slice(0, writing))
    code_loss = F.cross_entropy(rearrange(code_logits.float(), "b n k -> (b n) k"), codes[:writing].flatten())
    figures = {"text_loss": text_loss.detach(), "code_loss": code_loss.detach()}
    total = text_loss / 8 + 7 * code_loss / 8
    if reading:
        caption_loss = words(slice(writing, None))
        figures["caption_loss"] = caption_loss.detach()
        total = total + caption_loss / 8
    return total, figures


def encode_captions(tokenizer, captions: list[str], length: int) -> Int[Tensor, "b l"]:
    """Captions as tokens with the end token behind, cut or padded to `length`."""
    rows = torch.full((len(captions), length), PADDING)
    for row, text in zip(rows, captions, strict=True):
        tokens = [*tokenizer.encode(caption(text))[: length - 1], tokenizer.end]
        row[: len(tokens)] = torch.tensor(tokens)
    return rows


def too_long(tokenizer, captions: list[str], length: int) -> int:
    """How many of the captions `encode_captions` cuts to `length`."""
    return sum(len(tokenizer.encode(caption(text))) >= length for text in captions)


def remarks(tokenizer, prompt: str, length: int) -> list[str]:
    """What the user of a prompt should hear: that it is cut, that it has letters which training hardly ever showed."""
    told = []
    if too_long(tokenizer, [prompt], length):
        told.append(f"only the first {length - 1} tokens of the prompt are read")
    # a letter that is still several bytes to the tokenizer was too rare in the captions to become one token
    strange = [letter for letter in dict.fromkeys(caption(prompt)) if len(tokenizer.encode(letter)) > 1]
    if strange:
        told.append(
            f"captions with {' '.join(strange[:SHOWN])} were hardly ever seen in training: it means little here"
        )
    return told


@dataclass(frozen=True)
class Artist:
    """All that drawing needs: what continues a caption, what paints codes, what reads captions.

    Ours, or another with the same methods (mindalle.py)."""

    model: nn.Module
    dvae: tokenizers.PictureTokenizer
    tokenizer: Any


def save(directory: Path, artist: Artist, card: str | None = None, dtype: torch.dtype | None = None) -> None:
    """A DALL·E directory; its dVAE is in its sub-directory dvae/."""
    codebook = Path(directory) / "dvae"
    if not (codebook / "config.json").is_file():  # it never changes, and a published one is large
        tokenizers.save(codebook, artist.dvae, dtype=dtype)
    config = {"model": asdict(artist.model.config)}
    checkpoint.write(directory, "dalle", config, artist.model, artist.tokenizer, dtype=dtype, card=card)


def load(directory: Path, device: torch.device | str = "cpu", training: bool = False) -> Artist:
    """A trained DALL·E from its directory: packed for drawing, or as it is, for `training`. Raises UserError with what is
    wrong."""

    def build():
        settings = dict(config["model"])
        return DALLE(DALLEConfig(**{**settings, "transformer": TransformerConfig(**settings["transformer"])}))

    if checkpoint.read_json(Path(directory) / "config.json").get("kind") == "mindalle":
        from dalle import mindalle  # which builds on this module

        model, dvae, tokenizer = mindalle.load(directory, device)
        return Artist(model if training else pack(model, "fp32"), dvae, tokenizer)
    config = checkpoint.read_config(directory, "dalle")
    model = checkpoint.load(directory, build, device)
    dvae = tokenizers.load(Path(directory) / "dvae", device)
    tokenizer = Tokenizer.load(Path(directory) / "tokenizer.json")
    if (dvae.config.grid, dvae.config.vocabulary) != (model.config.grid, model.config.codes):
        raise UserError(
            f"{directory}: the dVAE has {dvae.config.vocabulary} codes on a grid of {dvae.config.grid}, the transformer "
            f"{model.config.codes} on {model.config.grid}; they do not belong together."
        )
    if tokenizer.vocab_size > model.config.text_vocabulary:
        raise UserError(f"{directory}: tokenizer.json has more tokens than the model's {model.config.text_vocabulary}.")
    return Artist(model if training else pack(model, "fp32"), dvae, tokenizer)
