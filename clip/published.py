"""CLIP as open_clip publishes it, and as we hold it: their settings, tensors and pictures in, ours out, and back. No files here.

Held exactly are vision transformers and causal text transformers of CLIP's own blocks (Radford et al. 2021), with the quick or
the exact GELU, with or without the bias of a sigmoid loss: OpenAI's ViT-B and ViT-L, most of LAION's and DataComp's. In
open_clip query, key and value are one map, projections are (in, out), and patches are a convolution. Numbers move unchanged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from clip.presets import PIXEL_MEAN, PIXEL_STD, CLIPConfig
from multimodal import images
from multimodal.config import TransformerConfig, gpt2

VOCABULARY = 49_408  # of the tokenizer that open_clip brings along; its end token is the last one
OWN = "tokenizer.json"  # the text tower's tokenizer is that file of the directory, as we write it
# settings that change what a tower computes, and the only value that ours computes
FIXED = {
    "ls_init_value": None,
    "act_kwargs": None,
    "norm_kwargs": None,
    **dict.fromkeys(("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"), False),
}  # fmt: skip
VISION = {
    **FIXED,
    "attentional_pool": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "final_ln_after_pool": False,
    "pool_type": "tok",
    "timm_model_name": None,
}
TEXT = {
    **FIXED,
    "embed_cls": False,
    "no_causal_mask": False,
    "proj_bias": False,
    "proj_type": "linear",
    "hf_model_name": None,
}
# settings that say the sizes, and others that change nothing in a finished tower of these kinds
SIZES = {"layers", "width", "mlp_ratio", "block_type", "output_tokens"}
VISION_SIZES = {"image_size", "head_width", "patch_size", "patch_dropout", "attn_pooler_queries", "attn_pooler_heads"}
VISION_SIZES |= {f"timm_{name}" for name in ("model_pretrained", "pool", "proj", "proj_bias", "drop", "drop_path")}
TEXT_SIZES = {"context_length", "vocab_size", "heads", "pool_type", "eos_id", "pad_id", "final_ln_after_pool"}
TEXT_SIZES |= {"hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"}
TEXT_SIZES |= {f"hf_{name}" for name in ("model_pretrained", "proj_type", "pooler_type")}
WHOLE = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"}
WHOLE |= {"init_logit_scale", "init_logit_bias", "nonscalar_logit_scale", "output_dict"}
# parts of a block, ours: theirs, and which third of it
PARTS = {
    "attention_norm": ("ln_1.{}", None),
    "attention.query": ("attn.in_proj_{}", 0),
    "attention.key": ("attn.in_proj_{}", 1),
    "attention.value": ("attn.in_proj_{}", 2),
    "attention.out": ("attn.out_proj.{}", None),
    "mlp_norm": ("ln_2.{}", None),
    "mlp.up": ("mlp.c_fc.{}", None),
    "mlp.down": ("mlp.c_proj.{}", None),
}


class NotOurs(ValueError):
    """Why our towers cannot hold a published model."""


def from_config(model: Mapping[str, Any], preprocess: Mapping[str, Any]) -> CLIPConfig:
    """Our settings from model_cfg and preprocess_cfg of an open_clip_config.json. Raises NotOurs."""
    vision, text = model.get("vision_cfg"), model.get("text_cfg")
    if not isinstance(vision, Mapping) or not isinstance(text, Mapping):
        raise NotOurs("it has no vision_cfg and text_cfg.")
    for kind, found, fixed, sizes in (
        ("image", vision, VISION, SIZES | VISION_SIZES),
        ("text", text, TEXT, SIZES | TEXT_SIZES),
    ):
        for name, value in found.items():
            if name in fixed and value != fixed[name]:
                raise NotOurs(f"its {kind} tower has {name} {value!r}, ours only {fixed[name]!r}.")
            if name not in fixed and name not in sizes:
                raise NotOurs(f"its {kind} tower has {name}, which ours has not.")
        if found.get("block_type") not in (None, "default"):
            raise NotOurs(f"its {kind} tower has blocks of the kind {found['block_type']!r}.")
    if odd := sorted(set(model) - WHOLE):
        raise NotOurs(f"it has {odd[0]}, which ours has not.")
    size = vision.get("image_size", 224)
    if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    if isinstance(size, bool) or not isinstance(size, int):
        raise NotOurs(f"its image_size is {size!r}; ours are square.")
    for name, value in {"resize_mode": "shortest", "interpolation": "bicubic", "mode": "RGB"}.items():
        if (found := preprocess.get(name, value)) != value:
            raise NotOurs(f"its pictures are prepared with {name} {found!r}, ours with {value!r}.")
    words = _whole(text, "vocab_size", VOCABULARY)
    end = words - 1
    if (
        text.get("hf_tokenizer_name") not in (None, "", OWN)
        or text.get("tokenizer_mode")
        or text.get("tokenizer_kwargs")
    ):
        raise NotOurs(
            f"its tokenizer is {text.get('hf_tokenizer_name') or 'a variant of CLIP'!r}, ours is CLIP's or our own."
        )
    if text.get("pool_type", "argmax") == "eos":
        end = _whole(text, "eos_id", 2)
    elif text.get("pool_type", "argmax") != "argmax":
        raise NotOurs(f"its text tower has pool_type {text['pool_type']!r}, ours only 'argmax' or 'eos'.")
    if not text.get("hf_tokenizer_name") and (words, end) != (VOCABULARY, VOCABULARY - 1):
        raise NotOurs(
            f"it has {words:,} words and ends texts by {end}; CLIP's tokenizer has {VOCABULARY:,} and {VOCABULARY - 1}."
        )
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    width = _whole(vision, "width", 768)
    try:
        return CLIPConfig(
            _blocks(vision, width, 12, width // _whole(vision, "head_width", 64), False, activation),
            _blocks(text, _whole(text, "width", 512), 12, _whole(text, "heads", 8), True, activation),
            size=size,
            patch=_whole(vision, "patch_size", 16),
            vocabulary=words,
            context=_whole(text, "context_length", 77),
            embedding=_whole(model, "embed_dim"),
            stem="patches",
            pooling="class",
            end=end,
            scores="softmax" if model.get("init_logit_bias") is None else "sigmoid",
            mean=three(preprocess.get("mean") or PIXEL_MEAN),
            std=three(preprocess.get("std") or PIXEL_STD),
            resize="shortest",
        )
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise NotOurs(f"our towers cannot have its sizes: {error}") from None


def to_config(config: CLIPConfig, own_tokenizer: bool) -> dict[str, Any]:
    """The content of an open_clip_config.json. Raises NotOurs where open_clip's towers cannot compute what ours do."""
    towers = {}
    for kind, blocks in (("image", config.image), ("text", config.text)):
        plain = gpt2(blocks.width, blocks.depth, blocks.heads, blocks.causal, blocks.dropout)
        if replace(plain, activation=blocks.activation, mlp_ratio=blocks.mlp_ratio) != blocks:
            raise NotOurs(
                f"the {kind} tower's blocks are not those of the published models (rotary positions, norms without gains, "
                "shortcuts and the like)."
            )
        towers[kind] = {"layers": blocks.depth, "width": blocks.width, "mlp_ratio": float(blocks.mlp_ratio)}
    activations = {config.image.activation, config.text.activation}
    if len(activations) > 1 or not activations <= {"gelu", "quick_gelu"}:
        raise NotOurs(
            f"activations are {' and '.join(sorted(activations))}; open_clip has gelu or quick_gelu for both towers."
        )
    if config.stem != "patches" or config.pooling != "class":
        raise NotOurs(
            f"stem {config.stem!r} with pooling {config.pooling!r}: open_clip's towers have 'patches' and 'class'."
        )
    model: dict[str, Any] = {"embed_dim": config.embedding}
    if "quick_gelu" in activations:
        model["quick_gelu"] = True
    if config.scores == "sigmoid":
        model["init_logit_bias"] = 0.0
    vision = {"image_size": config.size, "patch_size": config.patch, "head_width": config.image.head_width}
    text: dict[str, Any] = {
        "context_length": config.context,
        "vocab_size": config.vocabulary,
        "heads": config.text.heads,
    }
    if own_tokenizer:
        text |= {"pool_type": "eos", "eos_id": config.end, "hf_tokenizer_name": OWN}
    model |= {"vision_cfg": vision | towers["image"], "text_cfg": text | towers["text"]}
    preprocess = {
        "size": config.size, "mode": "RGB", "mean": list(config.mean), "std": list(config.std), "interpolation": "bicubic",
        "resize_mode": "shortest", "fill_color": 0,
    }  # fmt: skip
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def _blocks(
    found: Mapping[str, Any], width: int, depth: int, heads: int, causal: bool, activation: str
) -> TransformerConfig:
    ratio = found.get("mlp_ratio", 4)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or ratio != int(ratio):
        raise NotOurs(f"its mlp_ratio is {ratio!r}; ours are whole numbers.")
    plain = gpt2(width, _whole(found, "layers", depth), heads, causal)
    return replace(plain, activation=activation, mlp_ratio=int(ratio))


def _whole(found: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = found.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise NotOurs(f"its {name} is {value!r}; a whole number is needed.")
    return value


def three(value: Any) -> tuple[float, ...]:
    """A number for each of red, green and blue, from one for all or from three."""
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(float(v) for v in value)


def places(config: CLIPConfig) -> Iterator[tuple[str, str, int | str | None]]:
    """Of every tensor: our name, theirs, and what differs: which third of theirs it is, `transposed`, `patches`, `scalar`."""
    yield "image.begin", "visual.class_embedding", None
    yield "image.positions", "visual.positional_embedding", None
    yield "image.stem.map.weight", "visual.conv1.weight", "patches"
    yield "image.projection.weight", "visual.proj", "transposed"
    yield "text.embed.weight", "token_embedding.weight", None
    yield "text.positions", "positional_embedding", None
    yield "text.projection.weight", "text_projection", "transposed"
    yield "log_scale", "logit_scale", "scalar"
    if config.scores == "sigmoid":
        yield "bias", "logit_bias", "scalar"
    for kind in ("weight", "bias"):
        yield f"image.first_norm.{kind}", f"visual.ln_pre.{kind}", None
        yield f"image.transformer.norm.{kind}", f"visual.ln_post.{kind}", None
        yield f"text.transformer.norm.{kind}", f"ln_final.{kind}", None
        for tower, prefix, depth in (("image", "visual.", config.image.depth), ("text", "", config.text.depth)):
            for i in range(depth):
                for ours, (theirs, third) in PARTS.items():
                    name = f"{prefix}transformer.resblocks.{i}.{theirs.format(kind)}"
                    yield f"{tower}.transformer.blocks.{i}.{ours}.{kind}", name, third


def to_ours(theirs: Mapping[str, Tensor], config: CLIPConfig) -> dict[str, Tensor]:
    """Our tensors from open_clip's, in fp32. Raises ValueError with what is missing or too much."""
    # a text tower of its own (custom_text) has the same tensors, one level down
    theirs = {name.removeprefix("text."): tensor for name, tensor in theirs.items()}
    found, used = {}, {"attn_mask"}  # the mask is a buffer of old files
    for ours, name, how in places(config):
        if name not in theirs:
            raise ValueError(f"{name} is missing.")
        used.add(name)
        tensor = theirs[name].float()
        if isinstance(how, int):
            if tensor.shape[0] % 3:
                raise ValueError(f"{name} is {tuple(tensor.shape)}; three maps in one are needed.")
            tensor = tensor.chunk(3)[how]
        elif how == "transposed" and tensor.ndim == 2:
            tensor = tensor.T.contiguous()
        elif how == "patches" and tensor.ndim == 4:
            tensor = rearrange(tensor, "t c p q -> t (c p q)")
        elif how == "scalar" and tensor.numel() == 1:
            tensor = tensor.reshape(())
        found[ours] = tensor
    if odd := sorted(set(theirs) - used):
        raise ValueError(f"{odd[0]} belongs to no part of it.")
    return found


def to_theirs(ours: Mapping[str, Tensor], config: CLIPConfig) -> dict[str, Tensor]:
    """open_clip's tensors from ours."""
    found: dict[str, Tensor] = {}
    for name, theirs, how in places(config):
        tensor = ours[name]
        if isinstance(how, int):
            if how == 0:  # query, key and value come in this order
                rest = [ours[name.replace("query", other)] for other in ("key", "value")]
                found[theirs] = torch.cat([tensor, *rest])
        elif how == "transposed":
            found[theirs] = tensor.T.contiguous()
        elif how == "patches":
            found[theirs] = rearrange(tensor, "t (c p q) -> t c p q", p=config.patch, q=config.patch).contiguous()
        else:
            found[theirs] = tensor.contiguous()
    return found


def fitted(
    picture: Image.Image, size: tuple[int, int], mode: str = "shortest", bilinear: bool = False, fill: int = 0
) -> UInt8[Tensor, "3 h w"]:
    """A picture as open_clip prepares it before it becomes numbers, pixel for pixel; `size` is (height, width).

    shortest: scaled until it covers the size, then cropped. longest: scaled until it fits, then filled up. squash: pulled.
    Raises ValueError where it would cover far more than the size: a line of a pixel's height takes all memory.
    """
    (width, height), (h, w) = picture.size, size
    if mode == "squash":
        wanted = (w, h)
    elif mode == "shortest" and h == w:  # the longer side is rounded down
        wanted = (w, h * height // width) if width <= height else (w * width // height, h)
    else:
        ratio = (max if mode == "longest" else min)(height / h, width / w)
        wanted = (round(width / ratio), round(height / ratio))
        bilinear = bilinear and mode == "longest"  # open_clip takes the bicubic one for what is no square
    if wanted != picture.size:
        wanted = (max(1, wanted[0]), max(1, wanted[1]))
        if wanted[0] * wanted[1] > images.MAX_PIXELS:
            raise ValueError(
                f"it is {width}x{height}, which the model wants as {wanted[0]}x{wanted[1]} before its middle is taken; at most "
                f"{images.MAX_PIXELS:,} pixels are made: crop it first"
            )
        picture = picture.resize(wanted, Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC)
    corner = tuple((a - b) // 2 if b < a else -round((b - a) / 2) for a, b in zip((w, h), picture.size, strict=True))
    if corner != (0, 0) or picture.size != (w, h):
        sheet = Image.new("RGB", (w, h), (fill,) * 3)
        sheet.paste(picture, corner)
        picture = sheet
    return rearrange(torch.from_numpy(np.array(picture)), "h w c -> c h w").contiguous()
