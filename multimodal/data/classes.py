"""Folders of classes as captioned pictures: FOLDER/<class>/picture in, the class's name in a template as caption out.

An item is a picture in one of the templates; which comes when is as true a shuffle as that of the pictures. All pictures of a
class match each other in a contrastive loss. The class is the folder that the picture lies in, its _ and - read as
spaces. What is learned is tested honestly on classes that were not among them.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from multimodal import cli, images
from multimodal.cli import UserError
from multimodal.data.named import pictures_in
from multimodal.data.pairs import Item, Pair, Pairs, Store
from multimodal.data.report import Report, Tally, Unread
from multimodal.tokenizer import caption

TEMPLATES = ("{}", "a {}", "a picture of a {}", "a photo of the {}")


@dataclass(frozen=True, eq=False)
class Classes:
    """A source of pictures whose captions are the names of their classes, in each of the templates."""

    pictures: Pairs
    """With the name of its class as the caption of each."""
    templates: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pictures) * len(self.templates)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(sorted({pair.captions[0] for pair in self.pictures.pairs}))

    @property
    def pairs(self) -> Sequence[Pair]:
        return [
            Pair(pair.path, tuple(template.replace("{}", pair.captions[0]) for template in self.templates))
            for pair in self.pictures.pairs
        ]

    def item(self, index: int, size: int = 64) -> Item:
        which, template = divmod(index, len(self.templates))
        found = self.pictures.item(which, size)
        return Item(found.image, self.templates[template].replace("{}", found.caption), found.identity[1:])

    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self.pictures.fingerprint(), self.templates)).encode()).hexdigest()

    def split(self, part: str) -> "Classes":
        return replace(self, pictures=self.pictures.split(part))


def read_classes(folders: Iterable[Path], templates: Sequence[str] = TEMPLATES) -> tuple[Classes, Report]:
    """Every picture in the folders of the classes below `folders`, and what is not used. Raises UserError for a folder
    that does not exist or has no classes in it."""
    for template in templates:
        if "{}" not in template:
            raise UserError(
                f"template {template!r} has no {{}}: put {{}} where the class belongs, as in 'a photo of a {{}}'."
            )
    store, tally, seen = Store(), Tally(), set()
    # names by how they are read, without capitals: what reads the same is one class, in its first spelling
    said: dict[str, str] = {}
    with cli.bar(unit="picture", desc="finding") as shown:
        for folder in map(Path, folders):
            if not folder.is_dir():
                raise UserError(
                    f"{folder} is not a folder: a folder with a folder of pictures for each class is needed."
                )
            for path, why in pictures_in([folder]):
                file = os.path.realpath(path)  # of a link that leads in a circle too
                if path == folder or file in seen:
                    continue
                seen.add(file)
                if why is not None:  # a pipe would be waited for without an end
                    tally.add(Unread(path, why.rstrip("."), "not readable"))
                    continue
                if path.parent == folder:
                    tally.add(Unread(path, "it lies in no class's folder", "no caption"))
                    continue
                try:
                    images.check(path)
                except images.ImageError as error:
                    kind = "too large" if isinstance(error, images.TooLarge) else "not decodable"
                    tally.add(Unread(path, str(error).rstrip("."), kind))
                    continue
                number = store.picture(folder.resolve(), path.relative_to(folder).as_posix(), -1, -1)
                name = path.parent.name.encode("utf-8", "replace").decode()
                name = " ".join(name.replace("_", " ").replace("-", " ").split()) or name
                store.caption(number, said.setdefault(caption(name), name))
                shown.update()
    store.sort()
    found = Classes(Pairs(store, np.arange(len(store)), np.arange(1, len(store) + 1)), tuple(templates))
    if len(found.names) < 2:
        given = " ".join(map(str, folders))
        raise UserError(
            f"{given}: pictures of {len(found.names)} classes were found, 2 are needed, each in its folder."
        )
    return found, tally.report(len(store), len(found))
