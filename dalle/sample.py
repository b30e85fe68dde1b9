"""Draw: a prompt in, pictures out.

python -m dalle.sample "a cat on a blue background" -o cat.png
python -m dalle.sample "a red apple" -o apples/ --n 8 --guidance 4 --seed 7
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dalle.presets import GUIDANCE, TEMPERATURE
from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "dalle.sample"
MAX_DRAWINGS = 1024


@dataclass(frozen=True)
class Settings(Common):
    """Draws pictures from a caption."""

    prompt: Annotated[str, tyro.conf.Positional] = tyro.MISSING
    """What to draw."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("drawing.png")
    """A .png file (several drawings become one grid), or a folder (a file for each drawing, and grid.png)."""
    n: int = 1
    """How many drawings; drawing i has seed --seed + i."""
    guidance: float = GUIDANCE
    """How closely to follow the prompt: 1 is the model's own distribution."""
    temperature: float = TEMPERATURE
    """0 takes the likeliest code, 1 samples."""
    top_k: int = 0
    """Only the k likeliest codes; 0 is all."""
    top_p: float = 1.0
    """Only the likeliest codes that together have this probability."""
    model: str | None = None
    """A run directory or the name of a bundled model (default: the bundled one)."""
    json: bool = False
    """Print {"image", "seed", "score"} a line for each drawing."""


def sample(settings: Settings) -> int:
    if not 1 <= settings.n <= MAX_DRAWINGS:
        raise UserError(f"--n {settings.n} is out of range: 1 to {MAX_DRAWINGS}.")
    if settings.out.suffix and settings.out.suffix.lower() != ".png":
        raise UserError(f"-o {settings.out}: drawings are written as .png, or into a folder.")
    from dalle.drawing import draw
    from dalle.model import load, too_long
    from multimodal import checkpoint, devices, images
    from multimodal.sampling import Sampling

    sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
    artist = load(checkpoint.find(settings.model, "dalle"), devices.pick(settings.device))
    length = artist.model.config.text_length
    if too_long(artist.tokenizer, [settings.prompt], length):
        cli.say(f"the prompt is longer than the {length - 1} tokens that the model reads; the rest is not seen.")
    as_file = settings.out.suffix.lower() == ".png"
    seeds = [settings.seed + i for i in range(settings.n)]
    pictures, chunk = [], 16
    with cli.bar(total=settings.n, unit="drawing", desc="drawing") as shown:
        for start in range(0, settings.n, chunk):
            part = seeds[start : start + chunk]
            *_, finished = draw(artist, settings.prompt, part, settings.guidance, sampling)
            for seed, picture in zip(part, finished.cpu(), strict=True):
                path = settings.out if as_file else settings.out / f"{seed}.png"
                if not as_file:
                    write(path, images.to_pil(picture))
                pictures.append(picture)
                if settings.json:
                    cli.emit({"image": str(path), "seed": seed, "score": None})
            shown.update(len(part))
    import torch

    sheet = images.grid(torch.stack(pictures), columns=max(1, round(settings.n**0.5)))
    target = settings.out if as_file else settings.out / "grid.png"
    write(target, images.to_pil(pictures[0]) if len(pictures) == 1 else sheet)
    if not settings.json:
        print(target)
    return 0


def write(path: Path, picture) -> None:
    from multimodal.checkpoint import replacing

    with replacing(path) as aside:
        picture.save(aside, "PNG")


def main(argv: list[str] | None = None) -> int:
    return cli.run(sample, cli.parse(Settings, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
