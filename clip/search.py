"""Search a folder of pictures by a text, by a picture or by both together; find pictures that are nearly the same.

python -m clip.search holiday/ --text "a dog on a beach"
python -m clip.search holiday/ --image photo.jpg --text "at night" --minus "people" --n 20 --html found.html
python -m clip.search holiday/ --duplicates 0.95
python -m clip.search holiday/

The first time all pictures are embedded; then only what is new or has changed, so that every search begins with a look at
the folder (--no-update leaves it out). Moved and renamed pictures are known again by their content. The vectors lie in
FOLDER/.clip-search, one file a model, or where --index says; what is interrupted goes on from there.

Every --text and --image is added, every --minus taken away; a weight stands before it: --text "0.5:at night".
"""

import contextlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import UseAppendAction

from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "clip.search"
HIDDEN = ".clip-search"
MOST = 10_000  # results of a search
PAGE = 100  # groups of duplicates on a page, and pictures of each
NAMED = 10  # pictures that cannot be read and are named; more are counted
WEIGHT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?):(.+)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Settings(Common):
    """Prints the pictures nearest to what is asked for with their cosines; without a question it only indexes."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """A folder of pictures, searched at any depth."""
    text: UseAppendAction[tuple[str, ...]] = ()
    """What the pictures should show; repeatable."""
    image: UseAppendAction[tuple[str, ...]] = ()
    """A picture that they should be like; repeatable."""
    minus: UseAppendAction[tuple[str, ...]] = ()
    """What they should not be like: a picture, if a file has that name, else a text; repeatable."""
    duplicates: float | None = None
    """Instead: groups of pictures whose cosine is at least this (0.95 or so; 1 is the same picture)."""
    n: int | None = None
    """How many pictures to print (default: 10), or groups of --duplicates (default: all; on a page 100)."""
    html: Path | None = None
    """Write what was found as a page of thumbnails into this file instead."""
    index: Path | None = None
    """Another folder for the vectors, for pictures that may not be written beside."""
    update: bool = True
    """Look for new, changed, moved and deleted pictures first."""
    model: str | None = None
    """A run directory, the name of a bundled model (default: the bundled one), or a published one: open_clip:NAME/TAG,
    local-dir:PATH, a folder or file of open_clip. Each model has an index of its own."""
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """What the model computes in; auto is bf16 where the machine is faster with it. Each has an index of its own."""
    json: bool = False
    """An object a line: {"image", "score", "rank"}, or of duplicates {"group", "images": [{"image", "score"}, ...]}, or
    without a question {"index", "pictures", "new", "changed", "moved", "deleted", "unreadable": [...]}."""


def check(settings: Settings) -> None:
    """Raises UserError for settings that do not go together."""
    asked = any((settings.text, settings.image, settings.minus))
    if settings.duplicates is not None:
        if asked:
            raise UserError(
                "--duplicates compares all pictures with each other: leave --text, --image and --minus out."
            )
        if not 0 < settings.duplicates <= 1:
            raise UserError(
                f"--duplicates {settings.duplicates}: a cosine above 0 and at most 1 is needed, such as 0.95."
            )
    elif not asked and (settings.html is not None or settings.n is not None):
        raise UserError("nothing is searched for: give --text, --image, --minus or --duplicates.")
    if settings.n is not None and not 1 <= settings.n <= MOST:
        raise UserError(f"--n {settings.n} is out of range: 1 to {MOST:,}.")
    if not settings.folder.is_dir():
        what = "is a file" if settings.folder.exists() else "does not exist"
        raise UserError(f"{settings.folder} {what}: give a folder of pictures.")
    if not settings.update and settings.index is None and not (settings.folder / HIDDEN).is_dir():
        raise UserError(f"{settings.folder} has no index yet: leave --no-update out to make one.")


def weighted(asked: str) -> tuple[float, str]:
    """(weight, text or path) of one part of a question: "0.5:at night", or without a weight 1."""
    found = WEIGHT.fullmatch(asked)
    if found is None or os.path.exists(asked):
        return 1.0, asked
    return float(found[1]), found[2]


def question(settings: Settings, encoder):
    """(the unit vector that is searched for, what it means in words), which are told where there is more than one part."""
    import torch.nn.functional as F

    from multimodal import images

    signs = [(1, part, False) for part in settings.text] + [(1, part, True) for part in settings.image]
    signs += [(-1, part, None) for part in settings.minus]
    total, words = None, []
    for sign, part, picture in signs:
        weight, what = weighted(part)
        if not what.strip() or not weight:
            flag = "--minus" if sign < 0 else "--image" if picture else "--text"
            raise UserError(f"{flag} {part!r} says nothing: leave it out, or give it words and a weight above 0.")
        if picture or (picture is None and os.path.isfile(what)):
            try:
                shown = encoder.prepare(images.read(Path(what), encoder.size))
            except images.ImageError:
                raise
            except ValueError as error:
                raise UserError(f"{what} could not be used: {error}.") from None
            vector = encoder.embed_images(shown[None])[0]
            words.append((sign, weight, f"picture {what}"))
        else:
            if encoder.too_long([what]):
                cli.say(
                    f"the text {what[:40]!r}... is longer than the {encoder.context} tokens the model reads and is cut."
                )
            vector = encoder.embed_texts([what])[0]
            words.append((sign, weight, f'"{what}"'))
        total = sign * weight * vector.cpu() + (0 if total is None else total)
    if total.norm() < 1e-3:
        raise UserError("what is added and what is taken away cancel each other: nothing is left to search for.")
    text = ""
    for sign, weight, what in words:
        text += (" - " if sign < 0 else " + ") + (f"{weight:g} x " if weight != 1 else "") + what
    text = text.removeprefix(" + ").strip()
    if len(words) > 1 or words[0][1] != 1:
        cli.say(f"searched for {text}")
    return F.normalize(total, dim=0), text


def bound(settings: Settings) -> str:
    """The folder to which an index that lies elsewhere belongs. The one inside moves with its folder: it is bound to none."""
    return str(settings.folder.resolve()) if settings.index is not None else ""


def place(settings: Settings, encoder) -> Path:
    """Where the index of this model is. Says so if there are indexes of other models only."""
    from clip import index

    folder = settings.index or settings.folder / HIDDEN
    path = folder / f"{encoder.digest}.safetensors"
    if path.exists():
        if settings.index is not None and (of := index.header(path).get("folder", "")) != (mine := bound(settings)):
            raise UserError(f"{settings.index} is the index of {of}, not of {mine}: name another place by --index.")
        return path
    others = set()
    for other in folder.glob("*.safetensors"):
        with contextlib.suppress(UserError):
            about = index.header(other)
            others.add(f"{about.get('model', '?')[:80]} {about['digest'][:40]}")
    mine = f"{encoder.name} {encoder.digest}"
    others.discard(mine)  # parts of an index that was interrupted before it was whole
    sentence = f"the index in {folder} is of another model ({', '.join(sorted(others))}); {mine} gets its own"
    if not settings.update:
        none = f"{settings.folder} has no index yet: leave --no-update out to make one."
        raise UserError(f"{sentence}: leave --no-update out to make it." if others else none)
    if others:
        cli.say(f"{sentence}.")
    return path


def bring_up_to_date(settings: Settings, encoder, path: Path) -> tuple[dict, bool]:
    """({what has changed}, whether all could be read)."""
    from clip import index
    from multimodal import images
    from multimodal.data.report import printable

    folder = settings.folder
    files, closed = index.walk(folder)
    if "." in closed:
        raise UserError(f"{folder} could not be read: {closed['.']}.")
    for name, why in closed.items():
        cli.say(printable(f"{folder / name} could not be read ({why}); what is known of its pictures is kept."))
    if not files and not closed:
        raise UserError(f"{folder} holds no pictures ({', '.join(sorted(images.SUFFIXES))}).")
    try:
        found = index.update(
            path, files, lambda name: index.contents(folder / name), encoder, bound(settings), tuple(closed)
        )
    except OSError as error:
        way = "make room there, or name" if settings.index else "name"
        raise UserError(
            f"the index {path} could not be written ({error.strerror or error}): {way} another folder by --index PATH."
        ) from None
    for _, why in found.unreadable[:NAMED]:
        cli.say(printable(f"not searched: {why}"))
    if len(found.unreadable) > NAMED:
        cli.say(f"not searched: {len(found.unreadable) - NAMED:,} more pictures that cannot be read.")
    counts = {kind: getattr(found, kind) for kind in ("new", "changed", "moved", "deleted")}
    told = [f"{count:,} {kind}" for kind, count in counts.items() if count]
    if found.remembered:
        told.append(f"{found.remembered:,} that could not be read before")
    if told:
        cli.say(f"{found.pictures:,} pictures: {', '.join(told)}.")
    unreadable = [{"image": str(folder / name), "error": why} for name, why in found.unreadable]
    record = {"index": str(path), "pictures": found.pictures, **counts, "unreadable": unreadable}
    return record, not (unreadable or closed)


def path_of(folder: Path, name: str) -> Path:
    """The picture that an index names, which lies in the folder: the index may have come with it, from a stranger."""
    if not name or name.startswith("/") or os.path.isabs(name) or "\0" in name or ".." in Path(name).parts:
        raise UserError(f"the index names {name[:80]!r}, which is not in {folder}: delete the index.")
    return folder / name


def search(settings: Settings) -> int:
    check(settings)
    from clip import encoder, index
    from multimodal import devices

    model = encoder.find(settings.model, devices.pick(settings.device), settings.precision)
    asked = any((settings.text, settings.image, settings.minus))
    wanted, words = question(settings, model) if asked else (None, "")  # what is wrong with it is told before any work
    path = place(settings, model)
    record, whole = bring_up_to_date(settings, model, path) if settings.update else ({}, True)
    found = index.read(path, model.digest)
    if not settings.update and any(path.parent.glob(f"{path.stem}.part-*")):
        cli.say("an update of the index was interrupted, or is under way: what it has found is not searched yet.")
    if settings.duplicates is not None:
        alike(settings, found)
    elif wanted is not None:
        nearest(settings, found, wanted, words)
    elif settings.json:
        cli.emit(record or {"index": str(path), "pictures": len(found)})
    else:
        print(f"{len(found):,} pictures are in {path}")
    return int(not whole)


def nearest(settings: Settings, found, wanted, words: str) -> None:
    """Prints the pictures nearest to the vector, or writes the page of them."""
    from clip.index import damaged
    from clip.nearest import best
    from multimodal.data.report import printable

    if found.vectors.shape[1] != len(wanted):
        raise damaged(found.path, f"its vectors have {found.vectors.shape[1]} features, the model's {len(wanted)}")
    try:
        scores, rows = best(found.vectors, wanted, settings.n or 10)
    except ValueError as error:
        raise damaged(found.path, error) from None
    names = [found.entry(row)["name"] for row in rows.tolist()]
    paths = [path_of(settings.folder, name) for name in names]
    results = list(zip(paths, names, scores.tolist(), strict=True))
    if settings.html is not None:
        entries = [(path, name, f"{score:.3f}") for path, name, score in results]
        write_page(settings, f"{words} in {settings.folder}", [("", entries)])
        return
    for rank, (path, _, score) in enumerate(results, 1):
        if settings.json:
            cli.emit({"image": str(path), "score": round(score, 6), "rank": rank})
        else:
            print(f"{score:6.3f}  {printable(str(path))}")


def alike(settings: Settings, found) -> None:
    """Prints the groups of near-duplicates, the largest groups first; in each the largest file first, and how near the
    others are to it."""
    from clip.nearest import groups
    from multimodal.data.report import printable

    told = []
    for rows in groups(found.vectors, settings.duplicates):
        entries = sorted(((found.entry(row), row) for row in rows), key=lambda e: (-e[0]["size"], e[0]["name"]))
        first = found.vectors[entries[0][1]]
        told.append([(entry, min(1.0, float(found.vectors[row] @ first))) for entry, row in entries])
    told.sort(key=lambda group: (-len(group), group[0][0]["name"]))
    cli.say(f"{len(told):,} groups, {sum(len(group) - 1 for group in told):,} pictures more than one of each.")
    shown = told[: settings.n]
    if settings.html is not None:
        sections = []
        for group in shown[: settings.n or PAGE]:
            more = f", the first {PAGE} are shown" if len(group) > PAGE else ""
            entries = [
                (path_of(settings.folder, entry["name"]), entry["name"], f"{score:.3f}, {entry['size']:,} bytes")
                for entry, score in group[:PAGE]
            ]
            sections.append((f"{len(group):,} pictures{more}", entries))
        write_page(settings, f"pictures alike in {settings.folder}", sections)
        return
    for number, group in enumerate(shown, 1):
        pictures = [(str(path_of(settings.folder, entry["name"])), score) for entry, score in group]
        if settings.json:
            pairs = [{"image": path, "score": round(score, 6)} for path, score in pictures]
            cli.emit({"group": number, "images": pairs})
        else:
            lines = [f"{score:6.3f}  {printable(path)}" for path, score in pictures]
            print("\n".join([*([""] if number > 1 else []), *lines]))


def write_page(settings: Settings, title: str, sections: list) -> None:
    from clip.page import page
    from multimodal.checkpoint import write_text

    with cli.writing("html", settings.html):
        write_text(settings.html, page(title, sections))
    print(settings.html)


def main(argv: list[str] | None = None) -> int:
    return cli.run(search, cli.parse(Settings, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
