"""Caption pictures with the network that draws them: pictures in, a sentence each out.

python -m dalle.caption drawing.png
python -m dalle.caption drawings/ --temperature 0.7 --n 3 --json
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "dalle.caption"
MAX_CAPTIONS, CHUNK = 100, 64  # pictures read together


@dataclass(frozen=True)
class Settings(Common):
    """Writes captions of pictures."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE_OR_FOLDER...")] = ()
    """Pictures, and folders, which are searched for pictures at any depth."""
    n: int = 1
    """Captions of each picture; the i-th has seed --seed + i."""
    temperature: float = 0.0
    """0 writes the likeliest words, 1 samples."""
    top_k: int = 0
    """Only the k likeliest tokens; 0 is all."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have this probability."""
    model: str | None = None
    """A run directory or the name of a bundled model (default: the bundled one)."""
    json: bool = False
    """Print {"image", "caption", "mean_logprob", "seed"} a line for each caption, {"image", "error"} for what is no picture."""


def caption(settings: Settings) -> int:
    if not settings.images:
        raise UserError("no picture was given: name pictures or folders.")
    if not 1 <= settings.n <= MAX_CAPTIONS:
        raise UserError(f"--n {settings.n} is out of range: 1 to {MAX_CAPTIONS}.")
    from dalle.captioning import Caption, captions
    from dalle.model import load
    from multimodal import checkpoint, devices, images
    from multimodal.data.named import pictures_in, read_pictures
    from multimodal.sampling import Sampling

    sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
    artist = load(checkpoint.find(settings.model, "dalle"), devices.pick(settings.device))
    named, failed = list(pictures_in(settings.images)), 0
    with cli.bar(total=len(named), unit="picture", desc="captioning") as shown:
        for start in range(0, len(named), CHUNK):
            part = named[start : start + CHUNK]
            pictures, places = read_pictures(part, artist.dvae.config.size)
            written: list[list[Caption]] = []
            if len(pictures):
                for i in range(settings.n):
                    seeds = [settings.seed + i] * len(pictures)
                    written.append(captions(artist, images.to_float(pictures), sampling, seeds))
            for (path, _), place in zip(part, places, strict=True):
                if isinstance(place, str):
                    failed += 1
                    if settings.json:
                        cli.emit({"image": str(path), "error": place})
                    else:
                        cli.say(f"{PROG}: {place}")
                    continue
                for i, row in enumerate(written):
                    tell(settings, path, settings.seed + i, row[place])
            shown.update(len(part))
    return 1 if failed else 0


def tell(settings: Settings, path: Path, seed: int, found) -> None:
    if settings.json:
        logprob = round(found.mean_logprob, 4)
        cli.emit({"image": str(path), "caption": found.text, "mean_logprob": logprob, "seed": seed})
    else:
        print(f"{path}: {found.text}")


def main(argv: list[str] | None = None) -> int:
    return cli.run(caption, cli.parse(Settings, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
