"""Vectors of classes, kept on disk from one run to the next: an encoder and the prompts of each class in, the same
(c d) out. What is damaged, or cannot be written, is computed anew without a word; the folder's size is bounded.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clip import zeroshot
from clip.encoder import Encoder
from multimodal import checkpoint, cli

VERSION = 1  # of how prompts become a vector
MOST, MOST_BYTES = 64, 256_000_000  # of files, and of all of them together
FEW = 256  # prompts that take less than a second: no progress bar


def folder() -> Path:
    """Where the files lie: below XDG_CACHE_HOME, or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "multimodal-text-image" / "classes"


def class_embeddings(
    encoder: Encoder, groups: Sequence[Sequence[str]], keep: bool = True
) -> tuple[Float[Tensor, "c d"], int]:
    """One unit vector for the prompts of each class, and how many prompts were too long for the model; from the disk if
    this encoder has read these prompts before."""
    said = hashlib.sha256(json.dumps([VERSION, encoder.digest, groups]).encode()).hexdigest()[:32] if keep else ""
    path = folder() / f"{said}.safetensors"
    if keep and (kept := _read(path, (len(groups), encoder.width))) is not None:
        return kept
    total = sum(map(len, groups))
    cut = encoder.too_long([prompt for group in groups for prompt in group])
    quiet = {"disable": True} if total <= FEW else {}
    with cli.bar(total=total, unit="prompt", desc="reading the labels", leave=False, **quiet) as shown:
        found = zeroshot.embed_classes(encoder, groups, shown.update)
    if keep:
        with contextlib.suppress(OSError, SafetensorError):  # a home that cannot be written to is no reason to stop
            with checkpoint.replacing(path) as aside:
                save_file({"classes": found.cpu().contiguous()}, aside, metadata={"cut": str(cut)})
            _prune(path.parent)
    return found, cut


def _read(path: Path, shape: tuple[int, int]) -> tuple[Float[Tensor, "c d"], int] | None:
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        with safe_open(path, "pt") as file:
            # copied to where torch puts its own: by where numbers lie, the last bit of a product may differ
            found, cut = file.get_tensor("classes").clone(), int((file.metadata() or {})["cut"])
        lengths = found.norm(dim=1)
        if (
            found.dtype != torch.float32
            or found.shape != shape
            or not torch.allclose(lengths, torch.ones(()), atol=1e-3)
        ):
            return None
        os.utime(path)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, IndexError, RuntimeError):
        return None
    return found, cut


def _prune(place: Path) -> None:
    """Deletes what was used longest ago, until the rest is few and small enough."""
    found = sorted(((path.stat(), path) for path in place.glob("*.safetensors")), key=lambda file: -file[0].st_mtime_ns)
    size = 0
    for number, (seen, path) in enumerate(found):
        size += seen.st_size
        if number >= MOST or size > MOST_BYTES:
            path.unlink()
