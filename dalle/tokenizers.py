"""Every kind of tokenizer for pictures behind one interface: pictures (b 3 s s) in [0, 1] -> codes (b n), and back.

Ours (dvae.py), OpenAI's dVAE (openai.py) and VQGAN (vqgan.py) are directories that say what they are; n = grid * grid.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dalle import dvae, openai, vqgan
from multimodal import checkpoint
from multimodal.cli import UserError

KINDS = {
    "dvae": (dvae, dvae.DVAE),
    openai.KIND: (openai, openai.OpenAIDVAE),
    vqgan.KIND: (vqgan, vqgan.VQGAN),
}


class PictureConfig(Protocol):
    """What the settings of every tokenizer tell."""

    size: int
    """Pixels of a side of a (square) picture."""
    grid: int
    """Codes of a side."""
    length: int
    """Codes of a picture."""
    vocabulary: int
    """Number of different codes."""


@runtime_checkable
class PictureTokenizer(Protocol):
    config: PictureConfig

    def encode(self, image: Float[Tensor, "b 3 s s"]) -> Int[Tensor, "b n"]: ...

    def decode(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b 3 s s"]: ...


def load(directory: Path, device: torch.device | str = "cpu") -> PictureTokenizer:
    """The tokenizer in a directory, of whichever kind. Raises UserError with what is wrong."""
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise UserError(f"{directory} is no tokenizer for pictures: it has no config.json.")
    kind = checkpoint.read_json(path).get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(
            f"{directory} holds a checkpoint of kind {kind!r}; tokenizers for pictures are {', '.join(KINDS)}."
        )
    return KINDS[kind][0].load(directory, device)


def save(directory: Path, model: PictureTokenizer, card: str | None = None, dtype: torch.dtype | None = None) -> None:
    """The directory of a tokenizer. A published one keeps its 32 bits whatever `dtype` is: in fewer it has other codes."""
    if isinstance(model, dvae.DVAE):
        dvae.save(directory, model, card=card, dtype=dtype)
    else:
        module = next(module for module, kind in KINDS.values() if isinstance(model, kind))
        module.save(directory, model, card=card)
