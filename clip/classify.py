"""Classify pictures by names: pictures and labels in, ranked probabilities out, nothing trained.

python -m clip.classify photo.jpg --labels cat dog pizza
python -m clip.classify holiday/ --labels-file places.txt --template "a photo of {}." --json
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import tyro

from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "clip.classify"
MAX_LABELS_BYTES = 10_000_000
CHUNK = 64  # pictures read and classified together


@dataclass(frozen=True)
class Settings(Common):
    """Ranks the labels for every picture by the model's probabilities."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE_OR_FOLDER...")] = ()
    """Pictures, and folders, which are searched for pictures at any depth."""
    labels: tuple[str, ...] = ()
    """Names of the classes."""
    labels_file: Path | None = None
    """The same from a file, one a line."""
    template: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A sentence with {} where the label belongs; repeatable, the sentences are averaged."""
    top_k: int = 5
    """How many of the most probable labels to show."""
    truth: str | None = None
    """The right label: its rank is shown too."""
    model: str | None = None
    """A run directory or the name of a bundled model (default: the bundled one)."""
    json: bool = False
    """Print {"image", "predictions": [{"label", "probability", "rank"}, ...]} a line for each picture."""


def read_labels(settings: Settings) -> list[str]:
    """The labels of the command line or of the file, in their order."""
    if bool(settings.labels) == (settings.labels_file is not None):
        raise UserError("give the names of the classes by --labels cat dog ..., or by --labels-file FILE.")
    if settings.labels_file is None:
        return list(settings.labels)
    try:
        with open(settings.labels_file, "rb") as file:
            raw = file.read(MAX_LABELS_BYTES + 1)
        if len(raw) > MAX_LABELS_BYTES:
            raise UserError(
                f"{settings.labels_file} is larger than {MAX_LABELS_BYTES:,} bytes: is it a list of labels?"
            )
        lines = raw.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"--labels-file {settings.labels_file} could not be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"--labels-file {settings.labels_file} is not text in UTF-8.") from None
    return [line.strip() for line in lines if line.strip()]


def predictions(probabilities, labels: Sequence[str], top_k: int) -> list[dict]:
    """The `top_k` most probable labels of one picture, best first."""
    best = probabilities.argsort(descending=True, stable=True)[:top_k].tolist()
    return [
        {"label": labels[i], "probability": round(float(probabilities[i]), 6), "rank": place}
        for place, i in enumerate(best, 1)
    ]


def table(record: dict, labels: Sequence[str]) -> str:
    """For people: a bar a label, ✓ at the right one and ✗ at the others where the truth is known."""
    lines, truth = [record["image"]], record.get("truth")
    rows = list(record["predictions"])
    if truth is not None and truth not in rows:
        rows.append(truth)
    width = min(40, max(len(row["label"]) for row in rows))
    for row in rows:
        mark = " " if truth is None else "✓" if row["label"] == truth["label"] else "✗"
        bar = "█" * round(30 * row["probability"])
        lines.append(f"  {mark} {row['label']:<{width}}  {100 * row['probability']:5.1f} %  {bar}".rstrip())
    if truth is not None:
        lines.append(f"  ranked {truth['rank']} out of {len(labels)} labels")
    return "\n".join(lines)


def classify(settings: Settings) -> int:
    if not settings.images:
        raise UserError("no picture was given: name pictures or folders, then --labels.")
    if settings.top_k < 1:
        raise UserError(f"--top-k {settings.top_k}: show at least 1 label.")
    labels = read_labels(settings)
    if settings.truth is not None and settings.truth not in labels:
        raise UserError(f"--truth {settings.truth!r} is none of the {len(labels)} labels; it must be spelled as there.")
    from clip import encoder, zeroshot
    from multimodal import devices
    from multimodal.data.named import pictures_in, read_pictures

    templates = settings.template or zeroshot.TEMPLATES
    prompts = zeroshot.prompts(labels, templates)
    model = encoder.find(settings.model, devices.pick(settings.device))
    if cut := model.too_long(prompts):
        cli.say(
            f"{cut} of {len(prompts)} prompts are longer than the {model.context} tokens the model reads and were cut."
        )
    classes = zeroshot.class_embeddings(model, labels, templates)
    failed = False
    coming = pictures_in(settings.images)
    while found := list(islice(coming, CHUNK)):
        pictures, places = read_pictures(found, model.size)
        probabilities = zeroshot.classify(model, pictures, classes).cpu() if len(pictures) else ()
        for (path, _), place in zip(found, places, strict=True):
            if isinstance(place, str):
                failed = True
                if settings.json:
                    cli.emit({"image": str(path), "error": place})
                else:
                    cli.say(f"{PROG}: {place}")
                continue
            row = probabilities[place]
            record = {"image": str(path), "predictions": predictions(row, labels, settings.top_k)}
            if settings.truth is not None:
                i = labels.index(settings.truth)
                record["truth"] = predictions(row[i : i + 1], [settings.truth], 1)[0] | {"rank": zeroshot.rank(row, i)}
            if settings.json:
                cli.emit(record)
            else:
                print(table(record, labels), flush=True)
    return int(failed)


def main(argv: list[str] | None = None) -> int:
    return cli.run(classify, cli.parse(Settings, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
