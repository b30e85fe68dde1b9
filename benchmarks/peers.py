"""DALLE-pytorch as a peer: a clone in, its module out, importable on a current stack.

    git clone https://github.com/lucidrains/DALLE-pytorch
    pip install axial-positional-embedding rotary-embedding-torch g-mlp-pytorch omegaconf requests transformers ftfy regex

Version 1.6.6 (its last) imports packages that no longer build or exist (youtokentome, taming-transformers,
pkg_resources): empty modules stand in for them here, since nothing that is measured uses them.
"""

import sys
import types
from pathlib import Path

import torch


def stub(name: str, **names) -> None:
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        part = ".".join(parts[:end])
        if part not in sys.modules:
            sys.modules[part] = types.ModuleType(part)
    for key, value in names.items():
        setattr(sys.modules[name], key, value)


def dalle_pytorch(folder: Path):
    """The module dalle_pytorch of a clone."""
    nothing = type("Nothing", (), {})
    stub("youtokentome")
    stub("taming.models.vqgan", VQModel=nothing, GumbelVQ=nothing)
    if "pkg_resources" not in sys.modules:
        stub("pkg_resources", get_distribution=lambda name: types.SimpleNamespace(version="1.6.6"))
    if "webdataset" not in sys.modules:
        stub("webdataset")
    sys.path.insert(0, str(folder))
    import dalle_pytorch as module
    import dalle_pytorch.dalle_pytorch as inner

    class Cached(inner.DALLE):
        """Its own cache, handed on where it is dropped when there is no guidance."""

        def forward_with_cond_scale(self, *arguments, cond_scale=1, cache=None, **more):
            if cond_scale == 1:
                return self(*arguments, cache=cache, **more)
            return super().forward_with_cond_scale(*arguments, cond_scale=cond_scale, cache=cache, **more)

    module.Cached = Cached
    return module


def dalle(module, sizes: dict, cached: bool = False):
    """Its DALLE with its DiscreteVAE, at its defaults (rotary, shifted tokens, full attention)."""
    torch.manual_seed(0)
    layers = (sizes["pixels"] // sizes["grid"]).bit_length() - 1
    vae = module.DiscreteVAE(
        image_size=sizes["pixels"], num_layers=layers, num_tokens=sizes["codes"], codebook_dim=256, hidden_dim=64
    )
    kind = module.Cached if cached else module.DALLE
    return kind(
        dim=sizes["width"], vae=vae, num_text_tokens=sizes["words"], text_seq_len=sizes["text"], depth=sizes["depth"],
        heads=sizes["width"] // 64, dim_head=64,
    )  # fmt: skip
