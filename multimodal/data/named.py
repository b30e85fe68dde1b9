"""Pictures named on a command line: paths in, every picture of them out, or what is wrong with one.

Folders are walked and pictures are read as they are asked for, a bounded number ahead, by several threads: however many
there are, the first comes at once, and the order is always that of the names.
"""

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from multimodal import images
from multimodal.data.pairs import WORKERS

T = TypeVar("T")
AHEAD = 128  # pictures that are read while one is waited for


def pictures_in(paths: Sequence[Path]) -> Iterator[tuple[Path, str | None]]:
    """(path, None) for every file named and every picture in the folders, sorted; (path, why) for an empty folder, one
    that cannot be read, and what is no file. Hidden folders and files are nobody's business; links to folders are not
    followed, since they may lead in a circle or anywhere."""
    for path in paths:
        if os.path.isdir(path):
            yield from _walk(path)
        else:
            yield path, _device(path)


def _walk(top: Path) -> Iterator[tuple[Path, str | None]]:
    waiting: list[tuple[str, bool]] = [(os.fspath(top), True)]
    empty, linked = True, 0
    while waiting:
        place, folder = waiting.pop()
        if not folder:
            empty = False
            yield Path(place), _no_file(place)
            continue
        try:
            with os.scandir(place) as entries:
                inside = [entry for entry in entries if not entry.name.startswith(".")]  # .thumbnails, "._photo.jpg"
        except OSError as error:
            empty = False
            yield Path(place), f"{place} could not be read: {error.strerror}."
            continue
        for entry in sorted(inside, key=lambda entry: entry.name, reverse=True):
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, True))
            elif os.path.isdir(entry.path):
                linked += 1
            elif os.path.splitext(entry.name)[1].lower() in images.SUFFIXES:
                waiting.append((entry.path, False))
    if empty:
        links = f"; {linked} links to folders in it are not followed, name them" if linked else ""
        yield top, f"{top} is a folder without pictures ({', '.join(sorted(images.SUFFIXES))}){links}."


def _no_file(path: str) -> str | None:
    if os.path.isfile(path):
        return None
    return f"{path} is a link to nothing." if os.path.islink(path) else f"{path} is no file."


def _device(path: Path) -> str | None:
    """Why a path that was named is not even opened: a device has no end."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None  # reading it will say what is wrong
    odd = stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode)
    return f"{path} is no file, but a device." if odd else None


def read_ahead(
    found: Iterable[tuple[Path, str | None]], use: Callable[[Image.Image], T], size: int | None = None
) -> Iterator[tuple[Path, T | str]]:
    """For each path, in their order, what `use` makes of the picture, or what is wrong with it. `size` is what
    `images.read` takes: pixels of a side that are enough."""

    def made(path: Path, problem: str | None) -> T | str:
        if problem is not None:
            return problem
        try:
            return use(_opened(path, size))
        except images.ImageError as error:
            return str(error)
        except (ValueError, OSError, MemoryError, RuntimeError, ArithmeticError) as error:
            return f"{path} could not be used: {' '.join(str(error).split()) or type(error).__name__}."

    waiting: deque[tuple[Path, Future]] = deque()
    pool = ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1), "pictures")
    try:
        for path, problem in found:
            waiting.append((path, pool.submit(made, path, problem)))
            if len(waiting) >= AHEAD:
                first, picture = waiting.popleft()
                yield first, picture.result()
        while waiting:
            first, picture = waiting.popleft()
            yield first, picture.result()
    finally:  # whoever asks no longer does not wait for what is still to be read
        pool.shutdown(wait=False, cancel_futures=True)


def _opened(path: Path, size: int | None) -> Image.Image:
    if path.is_fifo():  # `<(curl ...)`: its size is not known before
        with open(path, "rb") as pipe:
            return images.read(pipe, size, str(path))
    return images.read(path, size)


def read_pictures(
    found: Sequence[tuple[Path, str | None]], size: int
) -> tuple[UInt8[Tensor, "b 3 size size"], list[int | str]]:
    """The readable pictures, and for each path found its place among them or what is wrong."""
    pictures, places = [], []
    for _, picture in read_ahead(found, lambda image: images.square(image, size)):
        if isinstance(picture, str):
            places.append(picture)
        else:
            places.append(len(pictures))
            pictures.append(picture)
    return torch.stack(pictures) if pictures else torch.empty(0, 3, size, size, dtype=torch.uint8), places
