"""Pictures named on a command line: paths in, every picture of them out, or what is wrong with one."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from multimodal import images
from multimodal.data.pairs import hidden


def pictures_in(paths: Sequence[Path]) -> Iterator[tuple[Path, str | None]]:
    """(path, None) for every file named and every picture in the folders, sorted; (path, why) for an empty folder."""
    for path in paths:
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.suffix.lower() in images.SUFFIXES and p.is_file())
            inside = sorted(p for p in inside if not hidden(p, path))  # .thumbnails, and macOS's "._photo.jpg"
            yield from ((found, None) for found in inside)
            if not inside:
                yield path, f"{path} is a folder without pictures ({', '.join(sorted(images.SUFFIXES))})."
        else:
            yield path, None


def read_pictures(
    found: Sequence[tuple[Path, str | None]], size: int
) -> tuple[UInt8[Tensor, "b 3 size size"], list[int | str]]:
    """The readable pictures, and for each path found its place among them or what is wrong."""
    pictures, places = [], []
    for path, problem in found:
        try:
            if problem is None:
                pictures.append(images.square(images.read(path), size))
            places.append(problem if problem is not None else len(pictures) - 1)
        except images.ImageError as error:
            places.append(str(error))
    return torch.stack(pictures) if pictures else torch.empty(0, 3, size, size, dtype=torch.uint8), places
