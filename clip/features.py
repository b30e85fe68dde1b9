"""Features of a data set's pictures and texts, computed once: files or texts and an encoder in, (b d) out.

They are kept in the user's cache directory (or --features), pictures in an index (index.py), under the encoder's digest: another
model never finds them, the same one always does.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clip import index
from clip.encoder import Encoder, Ours
from multimodal import checkpoint, cli
from multimodal.cli import UserError

TEXTS = 4096  # that are kept in one file


def folder() -> Path:
    """Where features are kept: below XDG_CACHE_HOME, or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "multimodal-text-image" / "features"


class Unprojected(Encoder):
    """A CLIP of this toolkit whose pictures' vectors go on with the features before the projection, the `t` of its image
    tower, on which Radford et al. 2021 train linear probes: one pass gives both."""

    def __init__(self, inner: Ours):
        self.inner = inner
        self.name, self.size, self.context = inner.name, inner.size, inner.context
        self.scale, self.bias, self.scores = inner.scale, inner.bias, inner.scores
        self.width = inner.width + inner.network.config.image.width

    @property
    def digest(self) -> str:
        return f"{self.inner.digest}-unprojected"

    def prepare(self, picture: Image.Image) -> UInt8[Tensor, "3 h w"]:
        return self.inner.prepare(picture)

    def embed_images(self, pictures: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d_and_t"]:
        """Unit vectors with what their projection was given."""
        seen: list[Tensor] = []
        hook = self.inner.network.image.projection.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            vectors = self.inner.embed_images(pictures)
        finally:
            hook.remove()
        return torch.cat((vectors, torch.cat(seen).float()), dim=1)

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "t d"]:
        return self.inner.embed_texts(texts)

    def too_long(self, texts: Sequence[str]) -> int:
        return self.inner.too_long(texts)


def of_pictures(
    encoder: Encoder,
    files: Sequence[index.File],
    read_file: Callable[[str], bytes],
    place: Path | None,
    key: str,
) -> tuple[Float[Tensor, "b d"], list[int], list[str]]:
    """(vectors, for each the place of its file; why the others cannot be read). `key` names the data set: under it only
    what is new or has changed is computed."""
    names = [file.name for file in files]
    said = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    path = (place or folder()) / f"{said}-{encoder.digest}.safetensors"
    try:
        changes = index.update(path, files, read_file, encoder)
    except OSError as error:
        raise UserError(
            f"the features could not be kept in {path.parent} ({error.strerror or error}): name another folder by --features."
        ) from None
    found = index.read(path, encoder.digest)
    lines = list(found.entries())
    rows = {line["name"]: row for row, line in enumerate(lines[: len(found)])}
    errors = {line["name"]: str(line.get("error")) for line in lines[len(found) :]} | dict(changes.unreadable)
    places = [i for i, name in enumerate(names) if name in rows]
    vectors = found.vectors[torch.tensor([rows[names[i]] for i in places], dtype=torch.int64)]
    return vectors, places, [errors[name] for name in names if name in errors]


def of_texts(encoder: Encoder, texts: Sequence[str], place: Path | None) -> Float[Tensor, "t d"]:
    """Unit vectors of texts, some thousands a file: an interrupted run goes on after the last whole one."""
    found = []
    with cli.bar(total=len(texts), unit="text", desc="reading captions", leave=False) as shown:
        for start in range(0, len(texts), TEXTS):
            part = texts[start : start + TEXTS]
            said = hashlib.sha256("\0".join((encoder.digest, *part)).encode("utf-8", "surrogateescape")).hexdigest()
            path = (place or folder()) / f"texts-{said[:32]}.safetensors"
            vectors = _kept(path, (len(part), encoder.width))
            if vectors is None:
                vectors = encoder.embed_texts(part).cpu().contiguous()
                with contextlib.suppress(OSError, SafetensorError), checkpoint.replacing(path) as aside:
                    save_file({"vectors": vectors}, aside)
            found.append(vectors)
            shown.update(len(part))
    return torch.cat(found)


def _kept(path: Path, shape: tuple[int, int]) -> Float[Tensor, "t d"] | None:
    """What is there, if it is whole; otherwise it is computed anew."""
    with contextlib.suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
        if (vectors := file.get_tensor("vectors")).shape == shape and vectors.dtype == torch.float32:
            return vectors
    return None
