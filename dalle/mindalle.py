"""minDALL-E: caption tokens (b l) and picture codes (b n) in, logits of every token and code out, on the shared backbone.

Kim et al. 2021 (Kakao Brain), 1.3 billion parameters on the codes of a VQGAN: tokens, then codes, in one causal sequence with
learned places and a head for either. Unlike our own DALL·E (model.py) it has no start, so nothing tells the first token, and a
short caption is filled with one and the same padding. What it offers for drawing is the same, with blocks of one code:
`prefill`, `advance` and `paint`.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tokenizers
import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from dalle import vqgan
from dalle.model import PADDING
from dalle.presets import DALLEConfig
from dalle.published import fill, shape
from dalle.vqgan import VQGAN
from multimodal import checkpoint
from multimodal.cli import UserError
from multimodal.config import TransformerConfig
from multimodal.tokenizer import MAX_FILE_BYTES
from multimodal.transformer import KVCache, Transformer

KIND = "mindalle"
PAD, UNKNOWN = "[PAD]", "[UNK]"
PARTS = {
    "attention_norm": "ln1",
    "attention.query": "attn.query",
    "attention.key": "attn.key",
    "attention.value": "attn.value",
    "attention.out": "attn.proj",
    "mlp_norm": "ln2",
    "mlp.up": "mlp.0",
    "mlp.down": "mlp.2",
}
TABLES = {
    "text_embedding.weight": "tok_emb_txt.weight",
    "code_embedding.weight": "tok_emb_img.weight",
    "word_place": "pos_emb_txt.weight",
    "place": "pos_emb_img.weight",
    "transformer.norm.weight": "ln_f.weight",
    "transformer.norm.bias": "ln_f.bias",
    "text_head.weight": "head_txt.weight",
    "code_head.weight": "head_img.weight",
}


class MinDALLE(nn.Module):
    def __init__(self, config: DALLEConfig):
        super().__init__()
        if config.block != 1 or config.any_order or config.captions:
            raise ValueError("minDALL-E draws code by code in raster order, and writes no captions.")
        self.config, width = config, config.transformer.width
        self.text_embedding = nn.Embedding(config.text_vocabulary, width)
        self.code_embedding = nn.Embedding(config.codes, width)
        self.padding = nn.Parameter(torch.empty(1, width))
        self.word_place = nn.Parameter(torch.empty(config.text_length, width))
        self.place = nn.Parameter(torch.empty(config.length, width))
        for table in self.parameters():
            nn.init.normal_(table, std=0.02)
        self.transformer = Transformer(config.transformer)
        self.text_head = nn.Linear(width, config.text_vocabulary, bias=False)
        self.code_head = nn.Linear(width, config.codes, bias=False)

    def raster(self, rows: int = 1) -> Int[Tensor, "rows n"]:
        """The order in which a picture is read and drawn: this model knows no other."""
        return repeat(torch.arange(self.config.length, device=self.place.device), "n -> rows n", rows=rows)

    def _words(self, text: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        if text.shape[1] != self.config.text_length:
            raise ValueError(f"captions have {text.shape[1]} positions, this model's have {self.config.text_length}.")
        embedded = self.text_embedding(text.clamp(min=0))
        return torch.where((text == PADDING)[..., None], self.padding, embedded) + self.word_place

    def forward(
        self,
        text: Int[Tensor, "b l"],
        codes: Int[Tensor, "b n"],
        order: Int[Tensor, "b n"] | None = None,
        reading: int = 0,
    ) -> tuple[Float[Tensor, "b l v"], Float[Tensor, "b n k"]]:
        """Logits of each token and of each code, given what comes before it; of the first token they are 0, all alike."""
        if order is not None or reading:
            raise ValueError("minDALL-E reads pictures in raster order, after their captions.")
        l = text.shape[1]  # noqa: E741
        seen = self.code_embedding(codes[:, :-1]) + self.place[:-1]
        y = self.transformer(torch.cat((self._words(text), seen), dim=1))
        return F.pad(self.text_head(y[:, : l - 1]), (0, 0, 1, 0)), self.code_head(y[:, l - 1 :])

    def prefill(
        self, text: Int[Tensor, "b l"], given: Int[Tensor, "b g 1"], order: Int[Tensor, "b n"], cache: KVCache
    ) -> Float[Tensor, "b d"]:
        """Reads the captions and the first g codes into an empty cache; features of the code after them."""
        seen = self.code_embedding(given[..., 0]) + self.place[: given.shape[1]]
        return self.transformer(torch.cat((self._words(text), seen), dim=1), cache=cache)[:, -1]

    def advance(
        self, text: Int[Tensor, "b l"], block: Int[Tensor, "b 1"], order: Int[Tensor, "b n"], cache: KVCache
    ) -> Float[Tensor, "b d"]:
        """One more code of every row; features of the code after it."""
        seen = self.code_embedding(block) + self.place[cache.length - self.config.text_length]
        return self.transformer(seen, cache=cache)[:, 0]

    def paint(self, features: Float[Tensor, "b d"], codes: Int[Tensor, "b 0"]) -> Float[Tensor, "b k"]:
        """Logits of the next code."""
        return self.code_head(features)


class CaptionTokenizer:
    """Its captions as tokens: byte pairs of characters in lower case, the last of a word marked; what is unknown is [UNK].

    The end of a caption is [PAD], as which all the places behind it are read.
    """

    def __init__(self, pipeline: tokenizers.Tokenizer):
        self.pipeline = pipeline
        pipeline.no_truncation()
        pipeline.no_padding()
        if pipeline.token_to_id(PAD) is None:
            raise UserError(f"the tokenizer has no {PAD}, which fills short captions.")
        self.end: int = pipeline.token_to_id(PAD)
        self.vocab_size: int = pipeline.get_vocab_size()

    @classmethod
    def read(cls, vocabulary: Path, merges: Path) -> "CaptionTokenizer":
        """The published tokenizer from its two files."""
        for path in (vocabulary, merges):
            if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
                raise UserError(f"{path} is missing, or has more than {MAX_FILE_BYTES:,} bytes.")
        try:
            found = tokenizers.CharBPETokenizer.from_file(
                str(vocabulary), str(merges), unk_token=UNKNOWN, lowercase=True
            )
            found.add_special_tokens([PAD])
            return cls(tokenizers.Tokenizer.from_str(found.to_str()))
        except UserError:
            raise
        except Exception as error:  # the library raises plain Exception for what it cannot read
            raise UserError(f"{vocabulary} and {merges} could not be read as a tokenizer: {error}") from None

    @classmethod
    def load(cls, path: Path) -> "CaptionTokenizer":
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path} is missing, or has more than {MAX_FILE_BYTES:,} bytes.")
        try:
            pipeline = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:
            raise UserError(f"{path} could not be read as a tokenizer: {error}") from None
        return cls(pipeline)

    def save(self, path: Path) -> None:
        Path(path).write_text(self.pipeline.to_str(), encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        return self.pipeline.encode(text, add_special_tokens=False).ids


def published_name(name: str) -> str:
    """Our name of a parameter -> theirs."""
    if found := re.fullmatch(r"transformer\.blocks\.(\d+)\.(.+)\.(weight|bias)", name):
        return f"blocks.{found[1]}.{PARTS[found[2]]}.{found[3]}"
    return TABLES.get(name, name)


def blocks_of(theirs: Mapping[str, Tensor], settings: Mapping[str, Any]) -> TransformerConfig:
    """The backbone's settings from the tensors, and from `stage2.hparams` of its config.yaml what no shape tells."""
    width, depth = shape(theirs, "tok_emb_txt.weight", 2)[1], 0
    while f"blocks.{depth}.ln1.weight" in theirs:
        depth += 1
    heads, quick = settings.get("n_heads", 24), settings.get("gelu_use_approx", False)
    if isinstance(heads, bool) or not isinstance(heads, int) or not isinstance(quick, bool):
        raise ValueError(
            f"n_heads is {heads!r}, gelu_use_approx {quick!r}; a whole number, and true or false are needed"
        )
    return TransformerConfig(
        width, depth, heads, norm_gain=True, activation="quick_gelu" if quick else "gelu", bias=True, qk_norm=False,
        rotary_axes=0, shortcuts=False,
    )  # fmt: skip


def from_published(theirs: Mapping[str, Tensor], settings: Mapping[str, Any], padding: int) -> MinDALLE:
    """Our model from the tensors of stage2_last.ckpt; `padding` is the id of the token that fills short captions.

    Raises ValueError with what does not fit.
    """
    tokens, places = (shape(theirs, name, 2)[0] for name in ("tok_emb_txt.weight", "pos_emb_img.weight"))
    if (grid := round(places**0.5)) ** 2 != places:
        raise ValueError(f"pos_emb_img.weight has {places} places, which are no square picture")
    if not 0 <= padding < tokens:
        raise ValueError(f"the tokenizer's {PAD} has the id {padding}, the model has only {tokens} tokens")
    config = DALLEConfig(
        blocks_of(theirs, settings),
        text_vocabulary=tokens,
        text_length=shape(theirs, "pos_emb_txt.weight", 2)[0],
        grid=grid,
        codes=shape(theirs, "tok_emb_img.weight", 2)[0],
    )
    # a copy: padding has no row of the table here
    theirs = {**theirs, "padding": theirs["tok_emb_txt.weight"][padding : padding + 1].clone()}
    return fill(lambda: MinDALLE(config), theirs, published_name)


def save(
    directory: Path, model: MinDALLE, pictures: VQGAN, captions: CaptionTokenizer, card: str | None = None
) -> None:
    """A directory of minDALL-E; its VQGAN is in the sub-directory dvae/."""
    vqgan.save(Path(directory) / "dvae", pictures, card=card)
    checkpoint.write(directory, KIND, {"model": asdict(model.config)}, model, captions, card=card)


def load(directory: Path, device: torch.device | str = "cpu") -> tuple[MinDALLE, VQGAN, CaptionTokenizer]:
    """A converted minDALL-E from its directory. Raises UserError with what is wrong."""

    def build():
        settings = dict(config["model"])
        return MinDALLE(DALLEConfig(**{**settings, "transformer": TransformerConfig(**settings["transformer"])}))

    config = checkpoint.read_config(directory, KIND)
    model = checkpoint.load(directory, build, device)
    pictures = vqgan.load(Path(directory) / "dvae", device)
    captions = CaptionTokenizer.load(Path(directory) / "tokenizer.json")
    check_fit(model.config, pictures.config, captions, directory)
    return model, pictures, captions


def check_fit(config: DALLEConfig, pictures: vqgan.VQGANConfig, captions: CaptionTokenizer, source: object) -> None:
    """Raises UserError unless the three belong together."""
    if (pictures.grid, pictures.vocabulary) != (config.grid, config.codes):
        raise UserError(
            f"{source}: the VQGAN has {pictures.vocabulary} codes on a grid of {pictures.grid}, the transformer "
            f"{config.codes} on {config.grid}; they do not belong together."
        )
    if captions.vocab_size > config.text_vocabulary:
        raise UserError(
            f"{source}: the tokenizer has {captions.vocab_size:,} tokens, the model {config.text_vocabulary:,}."
        )
