"""Draw: a prompt in, pictures out; and, if given, a part of a picture, which stays.

python -m dalle.sample "a cat on a blue background" -o cat.png
python -m dalle.sample "a red apple" -o apples/ --n 64 --rerank
python -m dalle.sample "a cat" --image sketch.png --rows 8 -o completed.png
python -m dalle.sample "a dog" --image photo.png --mask white_where_new.png -o other.png
python -m dalle.sample "" --image drawing.png --vary 0.5 --n 9 -o variations.png
"""

import json
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
    """A .png file (several drawings become one grid), or a folder (a file for each drawing, grid.png and, ranked,
    scores.jsonl)."""
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
    side: Literal["top", "bottom", "left", "right"] | None = None
    """The side of --image that stays (default top); left and right are columns."""
    mask: Path | None = None
    """Instead of --rows a picture as large as --image: where it is white, something new is drawn."""
    vary: float | None = None
    """Instead of --rows: every drawing draws another part anew, of this share of --image."""
    rerank: bool = False
    """A CLIP orders the drawings, the one that fits the prompt best first."""
    ranker: str | None = None
    """The CLIP that orders them: a run directory or a bundled name (default: the bundled one)."""
    model: str | None = None
    """A run directory or the name of a bundled model (default: the bundled one)."""
    json: bool = False
    """Print {"image", "seed", "score"} a line for each drawing; without --rerank the score is null."""


def given_codes(settings: Settings, artist, seeds: list[int]):
    """The codes that stay, (1 m), or with --vary (n m); None without a picture."""
    from dalle import drawing
    from multimodal import images

    asked = [name for name in ("rows", "side", "mask", "vary") if getattr(settings, name) is not None]
    if settings.image is None:
        if asked:
            raise UserError(f"--{asked[0]} tells what stays of a picture: give one by --image.")
        return None
    if len(asked) > 1 and asked != ["rows", "side"]:
        raise UserError(f"--{asked[0]} and --{asked[-1]} both tell what stays of the picture: give one of them.")
    import torch

    picture, grid = images.read(settings.image), artist.model.config.grid
    if settings.mask is not None:
        places = drawing.mask_places(artist, images.read(settings.mask), picture)
    elif settings.vary is not None:
        places = torch.ones(grid, grid, dtype=torch.bool)
    else:
        places = drawing.border(settings.side or "top", grid // 2 if settings.rows is None else settings.rows, grid)
    whole = settings.vary is not None or settings.mask is not None or settings.side not in (None, "top")
    if whole and not artist.model.config.any_order:
        cli.say(
            "this model paints row by row and was not trained in any order: what stays below a place it has not seen when it "
            "paints there."
        )
    given = drawing.keep(artist, drawing.prompt_picture(artist, picture), places)
    if settings.vary is None:
        return given
    return drawing.variations(given, artist.model.config.block, settings.vary, seeds)


def clip(name: str | None, device: str) -> Callable[[Any, str], Any]:
    """A trained CLIP as a judge of drawings."""
    from clip import encoder, zeroshot
    from multimodal import devices

    return zeroshot.scorer(encoder.find(name, devices.pick(device)))


def check_out(settings: Settings) -> None:
    """Raises UserError for a -o of another kind, or that would overwrite what is read."""
    out, as_file = settings.out, settings.out.suffix.lower() == ".png"
    if as_file == out.is_dir() and out.exists() or out.suffix and not as_file and not out.exists():
        raise UserError(f"-o {out}: drawings are written as .png, or into a folder.")
    seeds = range(settings.seed, settings.seed + settings.n)
    written = [out] if as_file else [out / f"{name}.png" for name in ("grid", *seeds)]
    for path in (settings.image, settings.mask):
        if path is not None and path.resolve() in {target.resolve() for target in written}:
            raise UserError(f"-o {out} would overwrite {path}, which is read: choose another.")


def sample(settings: Settings, scorer=clip) -> int:
    """`scorer(name, device)` gives what ranks: pictures (n 3 s s) in [0, 1] and the prompt -> scores (n)."""
    if not 1 <= settings.n <= MAX_DRAWINGS:
        raise UserError(f"--n {settings.n} is out of range: 1 to {MAX_DRAWINGS}.")
    check_out(settings)
    if settings.ranker is not None and not settings.rerank:
        raise UserError(f"--ranker {settings.ranker} has nothing to rank: add --rerank.")
    if settings.rerank and not settings.prompt.strip():
        raise UserError("--rerank orders drawings by how well they fit the prompt, which is empty: say what to draw.")
    import torch

    from dalle.drawing import draw
    from dalle.model import load, remarks
    from multimodal import checkpoint, devices, images
    from multimodal.sampling import Sampling

    sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
    artist = load(checkpoint.find(settings.model, "dalle"), devices.pick(settings.device))
    score = scorer(settings.ranker, settings.device) if settings.rerank else None
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
    order, labels = range(settings.n), None
    if score is not None:
        scores = [round(float(found), 4) for found in score(pictures, settings.prompt)]
        order = sorted(order, key=lambda i: -scores[i])
        labels = [f"{scores[i]:.3f}" for i in order]
    target = settings.out if as_file else settings.out / "grid.png"
    sheet = images.grid(pictures[list(order)], columns=max(1, round(settings.n**0.5)), labels=labels)
    write(target, images.to_pil(pictures[0]) if settings.n == 1 else sheet)
    paths = [settings.out if as_file else settings.out / f"{seed}.png" for seed in seeds]
    records = [{"image": str(paths[i]), "seed": seeds[i], "score": scores[i]} for i in order]
    if score is not None and not as_file:
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        checkpoint.write_text(settings.out / "scores.jsonl", text)
    for record in records:
        if settings.json:
            cli.emit(record)
        elif score is not None:
            print(f"{record['score']:.4f}  seed {record['seed']}  {record['image']}")
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
