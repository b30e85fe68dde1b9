"""GPT-2 as others publish it, and as we hold it: their settings and tensors in, ours out, and back. No files here.

transformers (Hugging Face) and nanoGPT name the tensors of a block alike; query, key and value are one map there. In
transformers a map is (in, out), in nanoGPT as ours (out, in), and its biases may be missing. The model: Radford et al.
2019. Everything but `add_tokens` moves numbers without changing one. Raises ValueError with what does not fit.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt.presets import GPTConfig
from multimodal.config import TransformerConfig, gpt2

# what transformers calls the non-linearities; the first name of each is the one that we write
ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "relu2": "relu2",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}
# settings of transformers' GPT-2 that change what it computes, and the only value that our blocks compute
FIXED = {
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "quantization_config": None,
}
# parts of a block, ours: theirs, and which third of it
PARTS = {
    "attention_norm": ("ln_1", None),
    "attention.query": ("attn.c_attn", 0),
    "attention.key": ("attn.c_attn", 1),
    "attention.value": ("attn.c_attn", 2),
    "attention.out": ("attn.c_proj", None),
    "mlp_norm": ("ln_2", None),
    "mlp.up": ("mlp.c_fc", None),
    "mlp.down": ("mlp.c_proj", None),
}
SILENCE = 15.0  # nats that an added token lies below a known one: one in three million


def from_transformers_config(found: Mapping[str, Any]) -> GPTConfig:
    """Our settings from the content of a config.json of transformers; what is missing there has GPT-2's value."""
    if found.get("model_type") != "gpt2":
        raise ValueError(f"its model_type is {found.get('model_type')!r}; only 'gpt2' can be converted.")
    for name, value in FIXED.items():
        if found.get(name, value) != value:
            raise ValueError(f"{name} is {found[name]!r}; only {value!r} can be represented exactly.")
    activation = found.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"activation_function is {activation!r}; {', '.join(ACTIVATIONS)} can be represented.")
    width = _whole(found, "n_embd", 768)
    inner = width * 4 if found.get("n_inner") is None else _whole(found, "n_inner")
    if not width or inner % width:
        raise ValueError(f"n_inner is {inner:,}; a multiple of n_embd ({width:,}) is needed.")
    transformer = _blocks(
        width, _whole(found, "n_layer", 12), _whole(found, "n_head", 12), ACTIVATIONS[activation], inner // width,
        found.get("resid_pdrop", 0.1),
    )  # fmt: skip
    return GPTConfig(_whole(found, "vocab_size", 50257), _whole(found, "n_positions", 1024), transformer)


def to_transformers_config(config: GPTConfig, end: int) -> dict[str, Any]:
    """The content of a config.json of transformers; `end` is the id of the end of a document."""
    blocks = config.transformer
    activation = next(name for name, ours in ACTIVATIONS.items() if ours == blocks.activation)
    if _blocks(blocks.width, blocks.depth, blocks.heads, blocks.activation, blocks.mlp_ratio, blocks.dropout) != blocks:
        raise ValueError("its blocks are not GPT-2's (rotary positions, norms without gains, shortcuts and the like).")
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocabulary,
        "n_positions": config.context,
        "n_embd": blocks.width,
        "n_layer": blocks.depth,
        "n_head": blocks.heads,
        "n_inner": blocks.mlp_ratio * blocks.width,
        "activation_function": activation,
        "layer_norm_epsilon": 1e-5,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), blocks.dropout),
        "bos_token_id": end,
        "eos_token_id": end,
        "tie_word_embeddings": True,
    }


def from_nanogpt_config(found: Mapping[str, Any]) -> GPTConfig:
    """Our settings from nanoGPT's `model_args`. Its GELU is the exact one, as nanoGPT has it since June 2023."""
    names = {"n_layer", "n_head", "n_embd", "block_size", "vocab_size", "bias", "dropout"}
    if odd := sorted(map(str, set(found) - names)):
        raise ValueError(f"model_args has {odd[0]}, which nanoGPT has not: it is of a variant that is not known here.")
    sizes = (_whole(found, name) for name in ("n_embd", "n_layer", "n_head"))
    transformer = _blocks(*sizes, "gelu", 4, found.get("dropout", 0.0))
    return GPTConfig(_whole(found, "vocab_size"), _whole(found, "block_size"), transformer)


def _blocks(width: int, depth: int, heads: int, activation: str, ratio: int, dropout: Any) -> TransformerConfig:
    if isinstance(dropout, bool) or not isinstance(dropout, int | float):
        raise ValueError(f"dropout is {dropout!r}; a number from 0 to below 1 is needed.")
    plain = gpt2(width, depth, heads, dropout=float(dropout))
    return TransformerConfig(**{**vars(plain), "activation": activation, "mlp_ratio": ratio})


def _whole(found: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = found.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} is {value!r}; a whole number is needed.")
    return value


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """{name without what wraps a model: name as found}, without the masks that old files hold beside the weights."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"^(_orig_mod\.|module\.)*(transformer\.)?", "", name)
        if re.fullmatch(r"h\.\d+\.attn\.(masked_)?bias", plain):
            continue
        if plain in found:
            raise ValueError(f"{name} and {found[plain]} are the same tensor twice.")
        found[plain] = name
    return found


def places(depth: int) -> Iterator[tuple[str, str, int | None]]:
    """Of every tensor: our name, theirs, and which third of theirs it is (None: all)."""
    yield "embedding.weight", "wte.weight", None
    yield "positions.weight", "wpe.weight", None
    for i in range(depth):
        for ours, (theirs, third) in PARTS.items():
            for kind in ("weight", "bias"):
                yield f"transformer.blocks.{i}.{ours}.{kind}", f"h.{i}.{theirs}.{kind}", third
    for kind in ("weight", "bias"):
        yield f"transformer.norm.{kind}", f"ln_f.{kind}", None


def shapes(config: GPTConfig, in_out: bool) -> dict[str, tuple[int, ...]]:
    """The shape of each of their tensors; `in_out` tells transformers' maps from nanoGPT's."""
    width, inner = config.transformer.width, config.transformer.mlp_ratio * config.transformer.width
    maps = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, inner),
        "mlp.c_proj": (inner, width),
    }
    found: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocabulary, width),
        "wpe.weight": (config.context, width),
    }
    blocks = [f"h.{i}." for i in range(config.transformer.depth)]
    for norm in ["ln_f", *(block + name for block in blocks for name in ("ln_1", "ln_2"))]:
        found |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for block in blocks:
        for name, (inputs, outputs) in maps.items():
            found[f"{block}{name}.weight"] = (inputs, outputs) if in_out else (outputs, inputs)
            found[f"{block}{name}.bias"] = (outputs,)
    return found


def check(theirs: Mapping[str, Tensor], config: GPTConfig, in_out: bool) -> None:
    """Raises ValueError unless these (by plain names) are the weights of GPT-2 in this size, the head tied."""
    wanted = shapes(config, in_out)
    if not in_out and "ln_f.bias" not in theirs:  # nanoGPT's bias=False
        wanted = {name: shape for name, shape in wanted.items() if not name.endswith(".bias")}
    found = {name: tuple(tensor.shape) for name, tensor in theirs.items() if name != "lm_head.weight"}
    if odd := sorted(set(wanted.items()) ^ set(found.items())):
        name = odd[0][0]
        raise ValueError(f"{name} is {found.get(name, 'missing')}, {wanted.get(name, 'not expected')} by the config.")
    for name, tensor in theirs.items():
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16) or tensor.layout != torch.strided:
            raise ValueError(
                f"{name} holds {str(tensor.dtype).removeprefix('torch.')}; 32 or 16 bit floats can be read."
            )
    head = theirs.get("lm_head.weight")
    if head is not None and not (head.shape == theirs["wte.weight"].shape and torch.equal(head, theirs["wte.weight"])):
        raise ValueError("lm_head.weight is another matrix than wte.weight; here the head is tied to the embedding.")


def to_ours(theirs: Mapping[str, Tensor], config: GPTConfig, in_out: bool) -> dict[str, Tensor]:
    """Their weights (by plain names) under ours. Missing biases are 0; embedding rows past the vocabulary are left out."""
    ours: dict[str, Tensor] = {}
    for name, place, third in places(config.transformer.depth):
        if place not in theirs:
            rows = ours[name.removesuffix("bias") + "weight"].shape[0]
            ours[name] = torch.zeros(rows, dtype=theirs["wte.weight"].dtype)
            continue
        tensor = theirs[place]
        if in_out and tensor.ndim == 2 and place.startswith("h."):
            tensor = tensor.T
        if third is not None:
            tensor = tensor[third * tensor.shape[0] // 3 : (third + 1) * tensor.shape[0] // 3]
        ours[name] = tensor
    ours["embedding.weight"] = ours["embedding.weight"][: config.vocabulary]
    return ours


def to_transformers(ours: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Our weights under transformers' names, in 32 bits: there, 16 bits on file would mean 16 bits to compute in."""
    parts: dict[str, list[Tensor]] = {}
    for name, place, _ in places(depth):
        parts.setdefault(place, []).append(ours[name].float())
    theirs = {}
    for place, tensors in parts.items():
        tensor = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        if tensor.ndim == 2 and place.startswith("h."):
            tensor = tensor.T
        theirs[f"transformer.{place}"] = tensor.contiguous()
    return theirs


def add_shortcuts(ours: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The weights of the same blocks with `shortcuts`, which start at 0: no logit changes until they are trained."""
    names = ("attention.value_residual", "embedding_shortcut")
    return {**ours, **{f"transformer.blocks.{i}.{name}": torch.zeros(()) for i in range(1, depth) for name in names}}


def add_tokens(ours: Mapping[str, Tensor], like: int, count: int = 2) -> tuple[dict[str, Tensor], bool]:
    """The weights with `count` more tokens, in front of the known ones, that are read as token `like` is but practically
    never written; and whether that could be done.

    The logits of the known tokens stay. The head is tied and sees gain * z + bias, where z sums to 0: the row of `like`
    with c / gain added gives its logit plus c * sum(bias / gain), whatever z is. A piece of bias at right angles to all
    known rows moves no other logit, and makes that sum so large that the new ones lie SILENCE nats below. It needs a width
    above the vocabulary. Without, the new row is the mean of the known ones: then each is less likely than the average.
    """
    rows = ours["embedding.weight"].double()
    gain, bias = ours["transformer.norm.weight"].double(), ours["transformer.norm.bias"].double()
    row, done = rows.mean(0), False
    if len(rows) < len(gain) and gain.abs().min() > 0.01 * gain.abs().max():
        direction = F.normalize(1 / gain, dim=0)
        free = torch.linalg.qr(rows.T, mode="complete").Q[:, len(rows) :]
        away = free @ (free.T @ direction)
        room = away.norm()
        if done := bool(room > 0.1):
            size = rows.norm(dim=1).mean()  # of the known rows: a much longer one would drown what is read beside it
            row = rows[like] - size * direction
            bias = bias + away / room * (SILENCE / size - bias @ direction) / room
    added = torch.cat((row.expand(count, -1), rows))
    return {**ours, "transformer.norm.bias": bias.float(), "embedding.weight": added.float()}, done
