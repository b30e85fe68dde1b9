"""A model to go on with: whatever --model names in, a CLIP whose weights can be trained out.

`encoder.find` gives models for reading, whose maps are laid out for that; here they are as they were saved.
"""

from pathlib import Path

import torch

from clip import openclip
from clip.encoder import Ours
from clip.model import load
from clip.published import NotOurs
from multimodal import checkpoint
from multimodal.cli import UserError


def trainable(asked: str | Path | None, device: torch.device | str = "cpu", flag: str = "--model") -> Ours:
    """A run directory, a bundled name (the bundled one for None), or a published model that our towers can hold. Raises
    UserError with what is wrong."""
    try:
        source = None if asked is None else openclip.locate(asked)
        if source is None:
            directory = checkpoint.find(asked, "clip")
            return Ours(*load(directory, device), directory.name, lambda: checkpoint.digest(directory))
        return Ours(*openclip.load(source, device), source.name, source.digest)
    except NotOurs as reason:
        raise UserError(
            f"{flag} {asked} can be used, but not trained here: {str(reason).rstrip('.')}; vision transformers with CLIP's "
            "own blocks can."
        ) from None
    except UserError as error:
        raise type(error)(str(error).replace("--model", flag, 1)) from None
