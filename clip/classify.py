"""Classify pictures by names: pictures and labels in, ranked probabilities out, nothing trained.

python -m clip.classify photo.jpg --labels cat dog pizza
python -m clip.classify holiday/ --labels-file places.txt --template "a photo of {}." --json
python -m clip.classify pets/ --labels-from pets/ --truth folders --html pets.html --confusion pets.png
python -m clip.classify tiles/ --templates eurosat --truth truth.csv --csv tiles.csv
python -m clip.classify photo.jpg --labels cat --scores sigmoid
python -m clip.classify --templates list

Labels may also be a table (.csv, .tsv) with the columns label and, as wanted, names and prompts, several in a cell with |
between them: names are averaged as templates are, prompts are used instead of the templates.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "clip.classify"
FIRST, CHUNK = 8, 64  # pictures classified together: few at first, so that a result comes at once
NONE_OF_THESE = "none of these"


@dataclass(frozen=True)
class Settings(Common):
    """Ranks the labels for every picture by the model's probabilities."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE_OR_FOLDER...")] = ()
    """Pictures, and folders, which are searched for pictures at any depth."""
    labels: tuple[str, ...] = ()
    """Names of the classes."""
    labels_file: Path | None = None
    """The same from a file: one a line, or a table (.csv, .tsv)."""
    labels_from: Path | None = None
    """The same from a folder: a class for each folder in it, its name in words."""
    template: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A sentence with {} where the label belongs; repeatable, the sentences are averaged."""
    templates: str | None = None
    """Those of a data set, such as food101, and its classes if no labels are given; list shows all."""
    scores: Literal["softmax", "sigmoid"] | None = None
    """softmax chooses among the labels, sigmoid judges each by itself, which is coarse for a model that was not trained so
    (default: as the model was trained)."""
    none: float | None = None
    """Say "none of these" where no label is as probable as this, between 0 and 1."""
    top_k: int = 5
    """How many of the most probable labels to show."""
    truth: str | None = None
    """The right label of all pictures, or "folders": the names of their folders, or a table with the columns file and
    label (.csv, .tsv). Adds its rank to each picture, and how many were right."""
    model: str | None = None
    """A run directory, the name of a bundled model (default: the bundled one), or a published one: open_clip:NAME/TAG,
    local-dir:PATH, a folder or file of open_clip."""
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """What the model computes in; auto is bf16 where the machine is faster with it. Less is faster and a little coarser."""
    json: bool = False
    """Print {"image", "predictions": [{"label", "probability", "rank"}, ...], "scores"} a line for each picture, with
    "truth" and "none" where asked for; {"image", "error"} for what is no picture."""
    csv: Path | None = None
    """Write a table there: a line for each picture."""
    html: Path | None = None
    """Write a page there: every picture small, with its labels."""
    confusion: Path | None = None
    """Write the confusion matrix there as PNG; needs --truth."""
    cache: bool = True
    """Keep the vectors of the classes on disk for the next time."""


def chosen(settings: Settings, published) -> list:
    """The classes of the command line, of a file, of a folder, or of the published data set."""
    from clip import labels

    ways = [bool(settings.labels), settings.labels_file is not None, settings.labels_from is not None]
    if sum(ways) > 1 or (not any(ways) and published is None):
        raise UserError(
            "give the names of the classes by --labels cat dog ..., by --labels-file FILE or by --labels-from FOLDER, one "
            "of them."
        )
    if settings.labels_file is not None:
        return labels.from_file(settings.labels_file)
    if settings.labels_from is not None:
        return labels.from_folder(settings.labels_from)
    return labels.given(settings.labels) if settings.labels else list(published.classes)


def checked(settings: Settings) -> None:
    """Raises UserError for what can be told before anything is read."""
    if not settings.images:
        raise UserError("no picture was given: name pictures or folders, then --labels.")
    for label in settings.labels:
        if os.path.splitext(label)[1] and os.path.isfile(label):  # which a label may be too long to be asked
            raise UserError(f"label {label!r} is a file: pictures stand before --labels.")
    if settings.top_k < 1:
        raise UserError(f"--top-k {settings.top_k}: show at least 1 label.")
    if settings.none is not None and not 0 < settings.none <= 1:
        raise UserError(f"--none {settings.none} is no probability above 0 and up to 1.")
    if settings.template and settings.templates:
        raise UserError("--template is a sentence, --templates the name of a set of them: give one of the two.")
    if settings.confusion is not None and settings.truth is None:
        raise UserError("--confusion needs to know what is right: give --truth too.")
    if settings.confusion is not None and settings.confusion.suffix.lower() != ".png":
        raise UserError(f"--confusion {settings.confusion} is written as PNG: give a name that ends with .png.")
    for flag in ("csv", "html", "confusion"):
        path = getattr(settings, flag)
        if path is not None and path.exists() and not path.is_file():
            raise UserError(
                f"--{flag} {path} is {'a folder' if path.is_dir() else 'a device'}; name the file to write."
            )
        if path is not None and not path.parent.is_dir():
            raise UserError(f"--{flag} {path}: the folder {path.parent} does not exist.")


# ---- what is printed


def predictions(logits, shares, labels: Sequence, top_k: int) -> tuple[list[dict], list[int]]:
    """The `top_k` most probable labels of one picture, best first, and the places of all classes in that order. By
    logits: probabilities near 1 or 0 may be equal where these are not."""
    order = logits.argsort(descending=True, stable=True).tolist()
    return [_entry(labels, shares, i, place) for place, i in enumerate(order[:top_k], 1)], order


def _entry(labels, shares, i: int, rank: int) -> dict:
    return {"label": labels[i].key, "probability": round(float(shares[i]), 6), "rank": rank}


def table(record: dict, count: int) -> str:
    """For people: a bar a label, ✓ at the right one and ✗ at the others where the truth is known."""
    from multimodal.data.report import printable

    lines, truth = [printable(record["image"])], record.get("truth")
    rows = list(record["predictions"])
    if truth is not None and all(row["label"] != truth["label"] for row in rows):
        rows.append(truth)
    names = [printable(row["label"]) for row in rows]
    width = min(40, max(map(len, names)))
    for row, name in zip(rows, names, strict=True):
        mark = " " if truth is None else "✓" if row["label"] == truth["label"] else "✗"
        bar = "█" * round(30 * row["probability"])
        lines.append(f"  {mark} {name:<{width}}  {100 * row['probability']:5.1f} %  {bar}".rstrip())
    if record.get("none"):
        lines.append(f"  {NONE_OF_THESE}: no label is probable enough")
    if truth is not None:
        lines.append(f"  ranked {truth['rank']} out of {count} labels")
    return "\n".join(lines)


@contextlib.contextmanager
def _csv_rows(path: Path | None, top_k: int):
    """A function that adds a record to the table, which is in its place once all are added, or the run was ended."""
    import csv

    from multimodal import checkpoint

    if path is None:
        yield lambda record: None
        return
    with contextlib.ExitStack() as opened:
        with cli.writing("csv", path):
            aside = opened.enter_context(checkpoint.replacing(path))
            # names of files that are no UTF-8 are written as they are shown
            file = opened.enter_context(open(aside, "w", encoding="utf-8", errors="backslashreplace", newline=""))
        rows = csv.writer(file)
        places = [f"{what}_{place}" for place in range(1, top_k + 1) for what in ("label", "probability")]
        rows.writerow(["image", *places, "none", "truth", "truth_rank", "truth_probability", "error"])

        def add(record: dict) -> None:
            found = [(row["label"], row["probability"]) for row in record.get("predictions", [])]
            cells = [cell for pair in found + [("", "")] * (top_k - len(found)) for cell in pair]
            truth = record.get("truth", {})
            rows.writerow(
                [record["image"], *cells, {True: "yes", False: "no"}.get(record.get("none"), "")]
                + [truth.get(name, "") for name in ("label", "rank", "probability")]
                + [record.get("error", "")]
            )

        yield add


def in_parts(coming: Iterator) -> Iterator[list]:
    """Few pictures first, then more and more together."""
    size = FIRST
    while found := list(islice(coming, size)):
        yield found
        size = min(2 * size, CHUNK)


# ---- the command


def show_templates(settings: Settings) -> int:
    from clip import templates

    if not settings.json:
        print(templates.table(), flush=True)
        return 0
    for name in templates.names():
        found = templates.find(name)
        cli.emit({
            "name": name, "templates": found.templates, "classes": [label.key for label in found.classes],
            "metric": found.metric, "source": found.source,
        })  # fmt: skip
    return 0


@dataclass(frozen=True)
class Question:
    """What every picture is asked."""

    model: Any
    labels: list
    published: Any
    """The data set whose templates are used, or None."""
    truth: Any
    """What tells the right label of a picture, or None."""
    sentences: tuple[str, ...]
    scores: str
    classes: Any
    """A vector for each label."""
    against: Any
    """What sigmoids are against, or None."""
    about: list[str]
    """How it is answered, for people."""
    warnings: list[str]
    """What looks wrong with it."""


def question(settings: Settings) -> Question:
    """Everything before the first picture. What is wrong with labels, templates and truth is said before a model is read."""
    from clip import cache, checks, encoder, templates, zeroshot
    from clip.truth import Truth
    from multimodal import devices

    published = templates.find(settings.templates) if settings.templates is not None else None
    labels = chosen(settings, published)
    truth = Truth(settings.truth, labels) if settings.truth is not None else None
    given = settings.template or (published.templates if published else None)
    zeroshot.class_prompts(labels, given or zeroshot.TEMPLATES)
    model = encoder.find(settings.model, devices.pick(settings.device), settings.precision)
    scores = settings.scores or model.scores
    if len(labels) == 1 and scores == "softmax":
        raise UserError(zeroshot.one_label(labels[0]))
    sentences = given or zeroshot.templates_for(model)
    groups = zeroshot.class_prompts(labels, sentences)
    classes, cut = cache.class_embeddings(model, groups, settings.cache)
    if cut:
        total = sum(map(len, groups))
        cli.say(f"{cut} of {total} prompts are longer than the {model.context} tokens the model reads and were cut.")
    against = zeroshot.neutral(model, sentences) if scores == "sigmoid" and model.scores == "softmax" else None
    own = published is None or labels != list(published.classes)
    warnings = checks.names_of(labels) + checks.published_names(labels, published) if own else []
    warnings += checks.alike(classes, labels)
    about = _about(model.name, scores, against is not None, labels, sentences, published)
    return Question(model, labels, published, truth, sentences, scores, classes, against, about, warnings)


def _about(name: str, scores: str, against: bool, labels, sentences, published) -> list[str]:
    how = {
        "softmax": "the probabilities of the labels sum to 1 (softmax)",
        "sigmoid": "each label is judged by itself (sigmoid)",
    }[scores]
    if against:
        how = (
            "each label is judged by itself, against the same sentences about nothing in particular (sigmoid); the model has "
            "learned to choose among labels, so this is coarse, and what is like the label gets much too"
        )
    shown = ", ".join(map(repr, sentences[:3])) + (f" and {len(sentences) - 3} more" if len(sentences) > 3 else "")
    source = f", as published for {published.title} ({published.source})" if published else ""
    return [f"{len(labels)} label{'s' * (len(labels) != 1)}, model {name}: {how}.", f"sentences: {shown}{source}."]


def answers(asked: Question, settings: Settings, tally, small: Callable) -> Iterator[tuple[dict, Any]]:
    """For each picture, in their order, what `--json` prints of it, and what `small` makes of it; `tally` counts what is
    right. Pictures are read while the model sees those before them."""
    import torch

    from clip import checks, zeroshot
    from multimodal.data import named

    def judged(path: Path, logits) -> dict:
        shares = zeroshot.shares(logits, asked.scores)
        best, order = predictions(logits, shares, asked.labels, settings.top_k)
        record = {"image": str(path), "predictions": best, "scores": asked.scores}
        if settings.none is not None:
            record["none"] = bool(shares[order[0]] < settings.none)
        if asked.truth is not None and (right := asked.truth(path)) is not None:
            record["truth"] = _entry(asked.labels, shares, right, zeroshot.rank(logits, right))
            tally.add(right, checks.NONE if record.get("none") else order[0], order.index(right) + 1)
        return record

    prepare = lambda picture: (asked.model.prepare(picture), small(picture))  # noqa: E731
    for part in in_parts(named.read_ahead(named.pictures_in(settings.images), prepare, asked.model.size)):
        good = [found[0] for _, found in part if not isinstance(found, str)]
        rows = iter(())
        if good:
            vectors = asked.model.embed_images(torch.stack(good))
            rows = iter(zeroshot.logits(asked.model, vectors, asked.classes, asked.against).cpu())
        for path, found in part:
            if isinstance(found, str):
                yield {"image": str(path), "error": found}, None
            else:
                yield judged(path, next(rows)), found[1]


def classify(settings: Settings) -> int:
    if settings.templates == "list":
        return show_templates(settings)
    checked(settings)
    from clip import checks, report
    from multimodal.data import named

    asked = question(settings)
    labels = asked.labels
    for line in [*([] if settings.json else asked.about), *(f"{PROG}: {warning}" for warning in asked.warnings)]:
        _say(line)
    tally = checks.Tally(len(labels)) if asked.truth is not None else None
    plain = all(label.names == (label.key,) and not label.prompts for label in labels)
    page = report.Report(asked.sentences[0] if plain else "{}") if settings.html is not None else None
    small = lambda picture: report.thumbnail(picture) if page is not None and page.open else None  # noqa: E731
    total = sum(1 for _ in named.pictures_in(settings.images)) if sys.stderr.isatty() else None
    count, failed, interrupted = 0, False, False
    with (
        _csv_rows(settings.csv, min(settings.top_k, len(labels))) as add_row,
        cli.bar(total=total, unit="picture", desc="classifying") as shown,
    ):
        try:
            for record, thumbnail in answers(asked, settings, tally, small):
                count, failed = count + 1, failed or "error" in record
                add_row(record)
                if page is not None:
                    page.add(record, len(labels), thumbnail)
                # where both end up on one terminal, the bar makes way for the line
                lines = sys.stdout.isatty() or ("error" in record and not settings.json)
                with shown.external_write_mode(file=sys.stderr) if lines else contextlib.nullcontext():
                    _print(record, len(labels), settings.json)
                shown.update()
        except KeyboardInterrupt:
            interrupted = True
            _say(f"{PROG}: interrupted after {count:,} pictures; what was asked to be written is written of these.")
    late = []
    if tally is not None and tally.pictures:
        late = checks.order_of(tally, labels) + checks.one_answer(tally, labels)
        if count > 1:
            _tell_figures(tally, asked, settings.json)
    for warning in late:
        _say(f"{PROG}: {warning}")
    if asked.truth is not None:
        asked.truth.tell(tally.pictures)
    if page is not None:
        with cli.writing("html", settings.html):
            page.write(settings.html, asked.about, asked.warnings + late, tally, labels)
    if settings.confusion is not None:
        with cli.writing("confusion", settings.confusion):
            drawn = report.write_confusion(settings.confusion, tally, labels)
        if not drawn:
            raise cli.Failed(
                f"--confusion {settings.confusion} was not written: of {tally.pictures} pictures with truth and "
                f"{len(labels)} labels no matrix can be drawn."
            )
    return int(failed or interrupted or (tally is not None and not tally.pictures))


def _say(text: str) -> None:
    """Talk that may hold a stranger's words."""
    from multimodal.data.report import printable

    cli.say(printable(text))


def _print(record: dict, count: int, as_json: bool) -> None:
    if as_json:
        cli.emit(record)
    elif "error" in record:
        _say(f"{PROG}: {record['error']}")
    else:
        print(table(record, count), flush=True)


def _tell_figures(tally, asked: Question, as_json: bool) -> None:
    """How many were right: a result for people, talk beside the lines for a program."""
    from multimodal.data.report import printable

    lines = [tally.summary()]
    if asked.published and asked.published.metric != "accuracy":
        lines.append(f"  the paper's figure for {asked.published.title} is: {asked.published.metric}")
    lines += [f"  {count:,} x {truth!r} named {said!r}" for count, truth, said in tally.mistakes(asked.labels, 3)]
    for line in lines:
        _say(line) if as_json else print(printable(line), flush=True)


def main(argv: list[str] | None = None) -> int:
    return cli.run(classify, cli.parse(Settings, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
