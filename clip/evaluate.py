"""Measure a CLIP on labelled or captioned pictures: zero-shot, calibration, linear probe, few-shot, retrieval.

python -m clip.evaluate pets/ --templates pets
python -m clip.evaluate pictures.csv --template "a photo of a {}." --parts zeroshot calibration --json
python -m clip.evaluate flickr30k/ --parts retrieval --captions 5
python -m clip.evaluate pets/ --parts fewshot --shots 1 4 16 --draws 5 --plot shots.png

DATA is a folder with a folder for each class (or train/, validation/, test/ with those in them), a table with the columns
file, label and, as wanted, split, or captioned pictures as clip.train takes them: folders, tables, .tar archives.

    zeroshot     accuracy of the class names in the templates: top-1, top-5, mean over the classes
    calibration  how far the probabilities are from how often they are right, and the temperature that mends it best
    probe        a linear classifier on the pictures' features, its strength chosen on validation pictures
    fewshot      a few labelled pictures beside the names, nothing trained (Tip-Adapter)
    retrieval    recall at 1, 5 and 10, from pictures to their captions and back

Every figure is told with its protocol: without it nobody can compare. Features are computed once and kept on disk.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import UseAppendAction

from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "clip.evaluate"
OF_CLASSES = ("zeroshot", "calibration", "probe", "fewshot")
PLOTS = (".png", ".svg", ".pdf")


@dataclass(frozen=True, kw_only=True)
class Settings(Common):
    """Prints each figure beside chance and the protocol it was measured by."""

    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA...")] = ()
    """Folders of classes, tables, or captioned pictures."""
    parts: tuple[Literal["zeroshot", "calibration", "probe", "fewshot", "retrieval"], ...] = ()
    """What to measure (default: all that the data allows)."""
    templates: str | None = None
    """The sentences and class names of a data set, such as food101 (clip.classify --templates list shows all)."""
    template: UseAppendAction[tuple[str, ...]] = ()
    """A sentence with {} where the label belongs; repeatable, the sentences are averaged."""
    labels_file: Path | None = None
    """What the classes are called in prompts: a table with the columns label (as in the data) and names."""
    captions: int | None = None
    """Use only the first so many captions of each picture (the papers use 5; COCO has up to 7)."""
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Labelled pictures of each class for fewshot."""
    draws: int = 3
    """Choices of these pictures that are averaged: by the seeds --seed, --seed + 1 and so on."""
    plot: Path | None = None
    """Draw few-shot accuracy against the number of pictures into this file: .png, .svg or .pdf."""
    precision: Literal["auto", "fp32", "bf16", "int8"] = "fp32"
    """What the model computes in: published figures are in fp32; auto is bf16 where the machine is faster with it."""
    features: Path | None = None
    """Keep features in this folder instead of the user's cache directory."""
    model: str | None = None
    """A run directory, the name of a bundled model (default: the bundled one), or a published one: open_clip:NAME/TAG,
    local-dir:PATH, a folder or file of open_clip."""
    json: bool = False
    """One object: model, protocol, and each part under its name."""


def check(settings: Settings) -> None:
    """Raises UserError for settings that do not go together."""
    if not settings.data:
        raise UserError(
            "no data was given: name a folder of classes, a table with file and label, or captioned pictures."
        )
    if settings.templates is not None and settings.template:
        raise UserError("--templates brings its sentences, and --template gives one: choose one of them.")
    if settings.captions is not None and settings.captions < 1:
        raise UserError(f"--captions {settings.captions}: use at least 1 of each picture.")
    if not settings.shots or min(settings.shots) < 1 or max(settings.shots) > 10_000:
        raise UserError(f"--shots {' '.join(map(str, settings.shots))}: 1 to 10,000 pictures of each class.")
    if not 1 <= settings.draws <= 100:
        raise UserError(f"--draws {settings.draws} is out of range: 1 to 100.")
    if settings.plot is not None:
        if settings.plot.suffix.lower() not in PLOTS:
            raise UserError(f"--plot {settings.plot}: the file's name must end in {', '.join(PLOTS)}.")
        figure_class()


def figure_class():
    """matplotlib's Figure, which needs no screen."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "--plot needs matplotlib, which is not installed: pip install 'multimodal-text-image[bench]'."
        ) from None
    return Figure


def evaluate(settings: Settings) -> int:
    check(settings)
    for path in settings.data:
        if not path.exists() and "{" not in str(path):
            raise UserError(f"{path} does not exist: give a folder of classes, a table, or captioned pictures.")
    from clip import encoder, labelled, measuring
    from multimodal import devices

    labels = [path for path in settings.data if labelled.has_labels(path)]
    others = [path for path in settings.data if path not in labels]
    of_classes = [part for part in settings.parts or OF_CLASSES if part in OF_CLASSES]
    if settings.parts and of_classes and not labels:
        raise UserError(
            f"--parts {of_classes[0]} needs labelled pictures: a folder with a folder for each class, or a table with the "
            "columns file and label."
        )
    if settings.parts and "retrieval" in settings.parts and not others:
        raise UserError(
            "--parts retrieval needs captioned pictures: a .txt beside each, a table with captions, or .tar archives."
        )
    if settings.plot is not None and not (labels and "fewshot" in of_classes):
        raise UserError(f"--plot {settings.plot} draws few-shot figures, and none are asked for.")
    model = encoder.find(settings.model, devices.pick(settings.device), settings.precision)
    record: dict[str, Any] = {"model": model.name, "digest": model.digest, "data": list(map(str, settings.data))}
    record["protocol"] = {"preprocessing": f"as the model was trained: {model.size} pixels a side; {model.precision}"}
    lost = 0
    if labels and of_classes:
        figures, protocol, odd = measuring.of_classes(settings, model, labels, of_classes)
        record["protocol"] |= protocol
        record, lost = record | figures, lost + odd
    if others and (not settings.parts or "retrieval" in settings.parts):
        record["retrieval"], record["protocol"]["retrieval"], odd = measuring.of_captions(settings, model, others)
        lost += odd
    if settings.json:
        cli.emit(record)
    else:
        print(table(record))
    if settings.plot is not None and record.get("fewshot", {}).get("rows"):
        plot(settings, record)
    return int(lost > 0)


def table(record: dict[str, Any]) -> str:
    """The figures in columns, and below them how they were measured."""
    lines = [f"{record['model']} on {', '.join(record['data'])}", ""]
    names = {"top1": "top-1", "top5": "top-5", "mean_per_class": "mean of classes", "chance": "chance"}

    def line(name: str, shown: str, more: str) -> None:
        lines.append(f"{name:<14}{shown:<66}{more}")

    for part, name in (("zeroshot", "zero-shot"), ("probe", "linear probe")):
        if found := record.get(part):
            shown = "  ".join(f"{names[n]} {found[n]:.1%}" for n in names if n in found)
            line(name, shown, f"{found['pictures']:,} pictures")
    if found := record.get("probe"):
        line("", f"C {found['c']:.3g}, fitted on {found['fitted_on']:,} pictures", f"features {found['features']}")
    if found := record.get("calibration"):
        shown = f"error {found['error']:.1%}"
        if "temperature" in found:
            shown += f", {found['error_at_temperature']:.1%} at temperature {found['temperature']:.2f}"
        line("calibration", shown, f"{found['pictures']:,} pictures, {found['bins_of']} bins")
    if found := record.get("retrieval"):
        for way, asked in (("image_to_text", "pictures"), ("text_to_image", "captions")):
            shown = "  ".join(f"{k} {value:.1%}" for k, value in found[way].items())
            line(way.replace("_", " "), shown, f"{found[asked]:,} {asked}")
    if found := record.get("fewshot"):
        lines += ["", f"few-shot: Tip-Adapter without training, {found['pictures']:,} pictures"]
        lines.append("shots   top-1     +-  alpha, beta of each draw")
        lines.append(f"{0:>5}  {found['zeroshot']:6.1%}         zero-shot")
        for each in found["rows"]:
            chosen = "  ".join(f"{draw['alpha']:g}, {draw['beta']:g}" for draw in each["draws"])
            lines.append(f"{each['shots']:>5}  {each['top1']:6.1%}  {each['deviation']:5.1%}  {chosen}")
    lines += ["", "protocol"]
    for name, value in record["protocol"].items():
        if isinstance(value, list):
            value = ", ".join(value[:4]) + (f" and {len(value) - 4} more" if len(value) > 4 else "")
        elif isinstance(value, dict):
            value = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in value.items())
        lines.append(f"  {name.replace('_', ' '):<15}{value}")
    return "\n".join(lines)


def plot(settings: Settings, record: dict[str, Any]) -> None:
    """Accuracy against the number of known pictures, with the deviation over the draws."""
    from multimodal.checkpoint import replacing

    found = record["fewshot"]
    picture = figure_class()(figsize=(6, 4), layout="constrained")
    axes = picture.add_subplot()
    shots = [0, *(row["shots"] for row in found["rows"])]
    values = [found["zeroshot"], *(row["top1"] for row in found["rows"])]
    places = range(len(shots))
    axes.errorbar(
        places, [100 * v for v in values], [0, *(100 * row["deviation"] for row in found["rows"])], marker="o"
    )
    axes.axhline(100 * found["zeroshot"], color="grey", linestyle=":", linewidth=1)
    axes.set(xticks=list(places), xticklabels=shots, xlabel="labelled pictures of each class", ylabel="right, %")
    axes.set_title(f"{record['model']}, few-shot", fontsize=10)
    with cli.writing("plot", settings.plot), replacing(settings.plot) as aside:
        picture.savefig(aside, format=settings.plot.suffix[1:].lower(), dpi=150)
    cli.say(f"drawn into {settings.plot}")


def main(argv: list[str] | None = None) -> int:
    return cli.run(evaluate, cli.parse(Settings, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
