"""Draw: a prompt in, pictures out; and, if given, a part of a picture, which stays.

python -m dalle.sample "a cat on a blue background" -o cat.png
python -m dalle.sample "a red apple" -o apples/ --n 64 --rerank
python -m dalle.sample "a cat" --image sketch.png --rows 8 -o completed.png
python -m dalle.sample "a dog" --image photo.png --mask white_where_new.png -o other.png
python -m dalle.sample "" --image drawing.png --vary 0.5 --n 9 -o variations.png
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from dalle.presets import GUIDANCE, TEMPERATURE
from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "dalle.sample"
MAX_DRAWINGS = 1024
CHUNK = 16  # drawings made together


@dataclass(frozen=True)
class Settings(Common):
    """Draws pictures from a caption and, where one is given, a part of a picture."""

    prompt: Annotated[str, tyro.conf.Positional] = tyro.MISSING
    """What to draw; with --image it may be empty."""
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
    image: Path | None = None
    """A picture of which a part stays (its middle is taken, if it is not square)."""
    rows: int | None = None
    """How many rows of codes of --image stay (default half of them)."""
    side: Literal["top", "bottom", "left", "right"] = "top"
    """The side of --image that stays; left and right are columns."""
    mask: Path | None = None
    """Instead of --rows a picture as large as --image: where it is white, something new is drawn."""
    vary: float | None = None
    """Instead of --rows: every drawing draws another part anew, of this share of --image."""
    rerank: bool = False
    """The bundled CLIP orders the drawings, the one that fits the prompt best first."""
    model: str | None = None
    """A run directory or the name of a bundled model (default: the bundled one)."""
    json: bool = False
    """Print {"image", "seed", "score"} a line for each drawing; without --rerank the score is null."""


def given_codes(settings: Settings, artist, seeds: list[int]):
    """The codes that stay, (1 m), or with --vary (n m); None without a picture."""
    from dalle import drawing
    from multimodal import images

    asked = [name for name in ("rows", "mask", "vary") if getattr(settings, name) is not None]
    if settings.image is None:
        if asked:
            raise UserError(f"--{asked[0]} tells what stays of a picture: give one by --image.")
        return None
    if len(asked) > 1:
        raise UserError(f"--{asked[0]} and --{asked[1]} both tell what stays of the picture: give one of them.")
    import torch

    picture, grid = images.read(settings.image), artist.model.config.grid
    if settings.mask is not None:
        places = drawing.mask_places(artist, images.read(settings.mask), picture)
    elif settings.vary is not None:
        places = torch.ones(grid, grid, dtype=torch.bool)
    else:
        places = drawing.border(settings.side, grid // 2 if settings.rows is None else settings.rows, grid)
    whole = settings.vary is not None or settings.mask is not None or settings.side != "top"
    if whole and not artist.model.config.any_order:
        cli.say(
            "this model paints row by row and was not trained in any order: what stays below a place it has not seen when it "
            "paints there."
        )
    given = drawing.keep(artist, drawing.prompt_picture(artist, picture), places)
    if settings.vary is None:
        return given
    return drawing.variations(given, artist.model.config.block, settings.vary, seeds)


def scorer(device: str) -> Callable[[Any, str], Any]:
    """The bundled CLIP as a judge of drawings."""
    from clip import encoder, zeroshot
    from multimodal import devices

    return zeroshot.scorer(encoder.find(None, devices.pick(device)))


def sample(settings: Settings) -> int:
    if not 1 <= settings.n <= MAX_DRAWINGS:
        raise UserError(f"--n {settings.n} is out of range: 1 to {MAX_DRAWINGS}.")
    if settings.out.suffix and settings.out.suffix.lower() != ".png":
        raise UserError(f"-o {settings.out}: drawings are written as .png, or into a folder.")
    if settings.rerank and not settings.prompt.strip():
        raise UserError("--rerank orders drawings by how well they fit the prompt, which is empty: say what to draw.")
    import torch

    from dalle.drawing import draw
    from dalle.model import load, remarks
    from multimodal import checkpoint, devices, images
    from multimodal.sampling import Sampling

    sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
    artist = load(checkpoint.find(settings.model, "dalle"), devices.pick(settings.device))
    for remark in remarks(artist.tokenizer, settings.prompt, artist.model.config.text_length):
        cli.say(f"{remark}.")
    as_file = settings.out.suffix.lower() == ".png"
    seeds = [settings.seed + i for i in range(settings.n)]
    given, drawings = given_codes(settings, artist, seeds), []
    with cli.bar(total=settings.n, unit="drawing", desc="drawing") as shown:
        for start in range(0, settings.n, CHUNK):
            part = slice(start, start + CHUNK)
            codes = given if given is None or len(given) == 1 else given[part]
            *_, (_, finished) = draw(artist, settings.prompt, seeds[part], settings.guidance, sampling, given=codes)
            for seed, picture in zip(seeds[part], finished.cpu(), strict=True):
                if not as_file:  # at once, so that nothing is lost if the rest is
                    write(settings.out / f"{seed}.png", images.to_pil(picture))
                drawings.append((seed, picture))
            shown.update(len(finished))
    pictures, scores = torch.stack([picture for _, picture in drawings]), [None] * settings.n
    if settings.rerank:
        scores = [round(float(score), 4) for score in scorer(settings.device)(pictures, settings.prompt)]
    order = sorted(range(settings.n), key=lambda i: -(scores[i] or 0.0)) if settings.rerank else range(settings.n)
    labels = [f"{scores[i]:.3f}" for i in order] if settings.rerank else None
    target = settings.out if as_file else settings.out / "grid.png"
    sheet = images.grid(pictures[list(order)], columns=max(1, round(settings.n**0.5)), labels=labels)
    write(target, images.to_pil(pictures[0]) if settings.n == 1 else sheet)
    for i in order:
        path = settings.out if as_file else settings.out / f"{seeds[i]}.png"
        if settings.json:
            cli.emit({"image": str(path), "seed": seeds[i], "score": scores[i]})
        elif settings.rerank:
            print(f"{scores[i]:.4f}  seed {seeds[i]}  {path}")
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
