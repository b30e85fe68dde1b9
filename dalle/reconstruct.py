"""What a tokenizer keeps: pictures in, each as its codes and painted again from them, on a sheet before and after.

python -m dalle.reconstruct photo.jpg drawings/ --out kept.png
python -m dalle.reconstruct photos/ --model runs/dvae --out kept/ --codes --json

A tokenizer sees squares of one size: of another picture it is the middle, the shorter side scaled to that size and the longer
one cropped. That square is what is encoded, compared and shown as before. Where --out is a folder, each picture painted again
becomes a file in it and the sheet is sheet.png.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import tyro

from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "dalle.reconstruct"
CHUNK = 16  # pictures encoded together
SHOWN = 64  # pictures on a sheet


@dataclass(frozen=True)
class Settings(Common):
    """Encodes pictures, paints them again and shows what is left."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE_OR_FOLDER...")] = ()
    """Pictures, and folders, which are searched for pictures at any depth."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("reconstructed.png")
    """A .png file for the sheet, or a folder (a file for each picture, and sheet.png)."""
    model: str | None = None
    """A run directory of a dVAE or another tokenizer, or of a DALL·E, whose own is taken (default: the bundled one)."""
    codes: bool = False
    """Show the codes too, a colour for each."""
    json: bool = False
    """Print {"image", "psnr", "codes_used", "codes", "bits", "png_bits", "file"} a line for each picture."""


def find_tokenizer(model: str | None) -> Path:
    """The directory of the tokenizer, also where the directory of a DALL·E is given."""
    from multimodal import checkpoint

    directory = checkpoint.find(model, "dalle")
    return directory / "dvae" if (directory / "dvae" / "config.json").is_file() else directory


def code_colours(codes, size: int):
    """Codes (g g) as a picture (3 size size): each code a colour of its own, alike in every picture."""
    import torch
    import torch.nn.functional as F
    from einops import rearrange

    hue = codes.float() * 0.618034 % 1  # steps of the golden ratio are far apart on the circle
    value = 0.55 + 0.45 * (codes.float() * 0.754878 % 1)
    wheel = (torch.stack([(hue + shift) % 1 for shift in (0, 2 / 3, 1 / 3)]) * 6 - 3).abs() - 1
    colours = rearrange(wheel.clamp(0, 1) * value, "c y x -> 1 c y x")
    return F.interpolate(colours, (size, size), mode="nearest")[0]


def sheet(shown: list[dict], columns: int = 8):
    """Rows of pictures before, after and, where they are there, of their codes, each labelled."""
    import torch

    from multimodal import images

    columns, pictures, labels = min(columns, len(shown)), [], []
    for start in range(0, len(shown), columns):
        row = shown[start : start + columns]
        blank = columns - len(row)
        for kind in ("before", "after", "codes"):
            found = [entry[kind] for entry in row if kind in entry]
            if found:
                pictures += found + [torch.ones_like(found[0])] * blank
                labels += [f"after {entry['psnr']:.0f} dB" if kind == "after" else kind for entry in row] + [""] * blank
    return images.grid(torch.stack(pictures), columns, labels)


def measured(tokenizer, pictures, where) -> Iterator[dict]:
    """For each of the pictures (b 3 s s), 0 to 255: what becomes of it, its codes, and figures."""
    import io

    import torch
    from einops import rearrange

    from dalle.dvae import psnr
    from multimodal import images

    config, before = tokenizer.config, images.to_float(pictures.to(where))
    with torch.no_grad():
        codes = tokenizer.encode(before)
        after = tokenizer.decode(codes).float()
    for i, quality in enumerate(psnr(after, before).tolist()):
        png = io.BytesIO()
        images.to_pil(pictures[i]).save(png, "PNG", optimize=True)
        yield {
            "before": before[i].cpu(),
            "after": after[i].cpu(),
            "grid": rearrange(codes[i].cpu(), "(y x) -> y x", y=config.grid),
            "psnr": round(quality, 2),
            "bits": math.ceil(config.length * math.log2(config.vocabulary)),
            "png_bits": 8 * len(png.getvalue()),
        }


def results(paths: tuple[Path, ...], tokenizer, where) -> Iterator[tuple[Path, dict | str]]:
    """For each picture in the paths, in their order, what `measured` finds and its `side`s, or what is wrong with it."""
    import torch

    from multimodal import images
    from multimodal.data.named import pictures_in

    coming = pictures_in(paths)
    while found := list(islice(coming, CHUNK)):
        sides, squares, problems = [], [], {}
        for path, problem in found:
            try:
                if problem is not None:
                    raise images.ImageError(problem)
                picture = images.read(path)
                squares.append(images.square(picture, tokenizer.config.size))
                sides.append(picture.size)
            except images.ImageError as error:
                problems[path] = str(error)
        good = zip(measured(tokenizer, torch.stack(squares), where), sides, strict=True) if squares else iter(())
        for path, _ in found:
            if path in problems:
                yield path, problems[path]
            else:
                entry, side = next(good)
                yield path, entry | {"side": side}


def free_name(stem: str, taken: set[str]) -> str:
    """A name for a .png file that no picture before had: pictures of different folders may be called alike."""
    name, number = f"{stem}.png", 2
    while name.lower() in taken:
        name, number = f"{stem}-{number}.png", number + 1
    taken.add(name.lower())
    return name


def check_out(settings: Settings, as_sheet: bool) -> None:
    """Raises UserError for an --out of another kind, or where the pictures lie, which would be overwritten."""
    out = settings.out
    if as_sheet == out.is_dir() and out.exists() or out.suffix and not as_sheet and not out.exists():
        raise UserError(f"--out {out}: give a name that ends in .png for the sheet, or a folder.")
    for path in settings.images if out.exists() else ():
        folder, real = path.resolve(), out.resolve()
        if real.is_relative_to(folder) or (not as_sheet and real == folder.parent):
            raise UserError(f"--out {out} lies among the pictures that are read: choose another.")


def reconstruct(settings: Settings) -> int:
    if not settings.images:
        raise UserError("no picture was given: name pictures or folders.")
    as_sheet = settings.out.suffix.lower() == ".png"
    check_out(settings, as_sheet)
    from dalle import tokenizers
    from multimodal import checkpoint, devices, images

    where = devices.pick(settings.device)
    tokenizer = tokenizers.load(find_tokenizer(settings.model), where)
    config = tokenizer.config
    shown: list[dict] = []
    taken, used = {"sheet.png"}, set()
    total, count, fitted, failed = 0.0, 0, 0, False
    for path, entry in results(settings.images, tokenizer, where):
        if isinstance(entry, str):
            failed = True
            if settings.json:
                cli.emit({"image": str(path), "error": entry})
            else:
                cli.say(f"{PROG}: {entry}")
            continue
        file = None
        if not as_sheet:
            file = settings.out / free_name(path.stem, taken)
            with checkpoint.replacing(file) as aside:
                images.to_pil(entry["after"]).save(aside, "PNG")
        distinct = set(entry["grid"].flatten().tolist())
        record = {"image": str(path), "psnr": entry["psnr"], "codes_used": len(distinct), "codes": config.length}
        record |= {"bits": entry["bits"], "png_bits": entry["png_bits"], "file": None if file is None else str(file)}
        if settings.json:
            cli.emit(record)
        else:
            print(
                f"{path}: {record['psnr']:.1f} dB, {len(distinct)} different codes of {config.length}, "
                f"{record['bits']:,} bits (as PNG {record['png_bits']:,})",
                flush=True,
            )
        used |= distinct
        total, count, fitted = total + entry["psnr"], count + 1, fitted + (entry["side"] != (config.size,) * 2)
        if len(shown) < SHOWN:
            codes = {"codes": code_colours(entry["grid"], config.size)} if settings.codes else {}
            shown.append({name: entry[name] for name in ("before", "after", "psnr")} | codes)
    if not count:
        return 1
    target = settings.out if as_sheet else settings.out / "sheet.png"
    with checkpoint.replacing(target) as aside:
        sheet(shown).save(aside, "PNG")
    if fitted:
        cli.say(
            f"{fitted:,} of {count:,} pictures were not {config.size}x{config.size}: of them it is the middle square, "
            "scaled, that was encoded and compared."
        )
    if count > SHOWN:
        cli.say(f"{target} shows the first {SHOWN} of {count:,} pictures.")
    cli.say(f"{target}: {total / count:.1f} dB on average, {len(used):,} of {config.vocabulary:,} codes used.")
    return int(failed)


def main(argv: list[str] | None = None) -> int:
    return cli.run(reconstruct, cli.parse(Settings, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
