"""Probe a language model: is a label to be read off its hidden states, at which layer, and does a single unit tell it?

    python -m gpt.probe --example sentiment
    python -m gpt.probe reviews.csv --valid more.csv --layer 6 --json
    python -m gpt.probe --example sentiment --text letter.txt --plot letter.html

Nothing of the model is trained. For every layer (0 is the embeddings) a logistic regression learns to tell the label from
the states of the texts, its regularisation chosen on a part of them; it is judged on a fifth of the texts that was put
aside, or on --valid. The unit is the one that tells best by itself; --text shows how high it is at every token of a text,
in colours, and --plot draws that: .html needs nothing, .png, .svg and .pdf need matplotlib.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "gpt.probe"
MAX_FEATURES = 2**28  # numbers: 1 GB
MAX_TEXT = 1_000_000  # bytes of a text whose activations are shown
WRAP, MAX_LINES = 80, 60  # of a drawing


@dataclass(frozen=True, kw_only=True)
class ProbeSettings(Common):
    """Tells how well a label can be read off the hidden states, layer by layer, and by the best single unit."""

    data: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")] = None
    """A table with the columns text and label: .csv, .tsv or .jsonl."""
    valid: Path | None = None
    """A table to judge on (default: a fifth of the texts, always the same)."""
    example: Literal["authors", "sentiment"] | None = None
    """A set that comes along instead of DATA."""
    model: str | None = None
    """A run directory, or the name of a bundled model (default: the bundled one)."""
    layer: int | None = None
    """Only this layer (default: every layer)."""
    pool: Literal["mean", "last"] = "mean"
    """What stands for a text: the mean of the states over its tokens, or the state at the last one."""
    label: str | None = None
    """The label whose unit is shown (default: the one that a single unit tells best)."""
    text: str | None = None
    """A text, or a file with one ("-" is stdin), to show the unit's activation on."""
    plot: Path | None = None
    """Draw that into a file: .html, .png, .svg or .pdf."""
    json: bool = False
    """One object: layers, the unit, and with --text its tokens and activations."""


def check(settings: ProbeSettings) -> None:
    """Raises UserError for settings that do not go together."""
    if (settings.data is None) == (settings.example is None):
        raise UserError("give either a table with the columns text and label, or --example sentiment.")
    if settings.example is not None and settings.valid is not None:
        raise UserError("--valid goes with a table of yours; an --example brings its own texts to judge on.")
    if settings.plot is not None:
        if settings.text is None:
            raise UserError(f"--plot {settings.plot}: give the text to be drawn by --text.")
        if settings.plot.suffix.lower() not in (".html", ".png", ".svg", ".pdf"):
            raise UserError(f"--plot {settings.plot}: drawings are written as .html, .png, .svg or .pdf.")
        if settings.plot.suffix.lower() != ".html":
            figure_class()


def read_text(text: str) -> str:
    """The text itself, or that of a file or of stdin."""
    try:
        if text != "-" and not os.path.isfile(text):
            return text
        with open(text, "rb") if text != "-" else sys.stdin.buffer as file:
            data = file.read(MAX_TEXT + 1)
    except OSError as error:
        raise UserError(f"--text {text} could not be read: {error.strerror}.") from None
    if len(data) > MAX_TEXT:
        raise UserError(f"--text {text} has more than {MAX_TEXT:,} bytes; give a part of it.")
    return data.decode("utf-8-sig", "replace").replace("\r\n", "\n").removesuffix("\n")


def probe(settings: ProbeSettings) -> int:
    check(settings)
    shown = read_text(settings.text) if settings.text is not None else None
    if shown is not None and not shown.strip():
        raise UserError("--text is empty: there is nothing to show.")
    from multimodal.checkpoint import find

    directory = find(settings.model, "gpt")

    from gpt import demonstrations, labelled
    from gpt.model import load

    model, tokenizer = load(directory, settings.device)
    depth, width = model.config.transformer.depth, model.config.transformer.width
    if settings.layer is not None and not 0 <= settings.layer <= depth:
        raise UserError(f"--layer {settings.layer}: the model has the layers 0 (embeddings) to {depth}.")
    layers = list(range(depth + 1)) if settings.layer is None else [settings.layer]
    source = str(settings.data or f"--example {settings.example}")
    if settings.data is not None:
        rows, held = labelled.halves([settings.data], settings.valid, "classification")
    else:
        rows, held = demonstrations.make(settings.example, "classification")
    fitted, aside = labelled.split(rows, "classification")
    if not fitted:
        raise UserError(
            f"{source}: the strength of the probe is chosen on texts put aside, and no others are left; give more."
        )
    labels, train, valid = labelled.prepared((fitted + aside, held), "classification", source)
    if settings.label is not None and settings.label not in labels:
        raise UserError(f"--label {settings.label}: the labels are {', '.join(labels[:20])}.")
    size = len(layers) * (len(train) + len(valid)) * width
    if size > MAX_FEATURES:
        raise UserError(
            f"{source}: {len(layers)} layers of {len(train) + len(valid):,} texts are {size:,} numbers, at most "
            f"{MAX_FEATURES:,} are kept; give one --layer, or fewer rows."
        )
    record, units = measure(settings, model, tokenizer, layers, labels, train, valid, len(aside))
    unit = next(u for u in units if u.label == labels.index(record["unit"]["label"]))
    text = None
    if shown is not None:
        from gpt.probing import activations

        ids = tokenizer.encode(shown)
        values = activations(model, tokenizer, ids, unit.layer, unit.unit)
        record |= {"tokens": [tokenizer.show(i) for i in ids], "activations": [round(v, 4) for v in values.tolist()]}
        text = pieces(tokenizer, ids, (unit.sign * values - unit.threshold).tolist())
        if settings.plot is not None:
            draw(settings.plot, text, title(record["unit"]))
    if settings.json:
        cli.emit(record)
        return 0
    print(table(record, settings))
    if text is not None:
        print(f"\n{title(record['unit'])}")
        show = coloured if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else listed
        print("".join(show(text)), end="", flush=True)
    return 0


def measure(settings: ProbeSettings, model, tokenizer, layers: list[int], labels, train, valid, aside: int):
    """(what is told as JSON, the best unit for each label); the last `aside` examples to train on choose the strength."""
    import torch

    from gpt import probing

    found, cut = [], 0
    for examples in (train, valid):
        texts = [example.texts[0] for example in examples]
        x, too_long = probing.features(model, tokenizer, texts, layers, settings.pool)
        found.append((x, torch.tensor([example.label for example in examples])))
        cut += too_long
    if cut:
        cli.say(
            f"{cut:,} of {len(train) + len(valid):,} texts are longer than the model's context of {model.config.context} "
            "tokens, and were cut."
        )
    (x, y), (held, right) = found
    last = torch.arange(len(y)) >= len(y) - aside
    rows = []
    for place, layer in enumerate(cli.bar(iterable=layers, desc="probing", unit="layer", leave=False)):
        one, strength, nats, chosen = probing.choose(x[place], y, last, len(labels))
        accuracy = probing.accuracy(one, held[place], right)
        rows.append(
            {"layer": layer, "strength": strength, "nats_aside": nats, "accuracy_aside": chosen, "accuracy": accuracy}
        )
    best = min(rows, key=lambda row: row["nats_aside"])
    units = [probing.best_unit(x, y, label, layers) for label in range(len(labels))]
    told = []
    for unit in units:
        figures = unit.judge(held[layers.index(unit.layer)], right)
        told.append({
            "label": labels[unit.label], "layer": unit.layer, "unit": unit.unit, "sign": unit.sign,
            "threshold": unit.threshold, "auc_training": unit.auc, **figures,
            "majority": max((right == unit.label).float().mean().item(), (right != unit.label).float().mean().item()),
        })  # fmt: skip
    record = {
        "texts": len(train), "held_out": len(valid), "labels": list(labels), "pool": settings.pool,
        "majority": (right == y.mode().values).float().mean().item(), "layer": best["layer"], "accuracy": best["accuracy"],
        "layers": rows, "units": told,
    }  # fmt: skip
    # of two labels the same unit tells both: it is named by the one for which it is high
    which = (
        labels.index(settings.label)
        if settings.label
        else max(range(len(units)), key=lambda i: (units[i].auc, units[i].sign))
    )
    return record | {"unit": told[which]}, units


def title(unit: dict) -> str:
    return (
        f"layer {unit['layer']}, unit {unit['unit']}: {'high' if unit['sign'] > 0 else 'low'} means {unit['label']!r}"
    )


def table(record: dict, settings: ProbeSettings) -> str:
    """The figures for people."""
    lines = [f"linear probe, right of {record['held_out']:,} held-out texts ({record['texts']:,} to train on)"]
    for row in record["layers"]:
        bar, mark = "█" * round(30 * row["accuracy"]), "*" if row["layer"] == record["layer"] else " "
        strength = f"strength {row['strength']:g}"
        lines.append(f"{mark} layer {row['layer']:>2}  {100 * row['accuracy']:5.1f} %  {bar:30}  {strength}")
    lines.append(f"  commonest  {100 * record['majority']:4.1f} %  {'█' * round(30 * record['majority'])}")
    if len(record["layers"]) > 1:
        lines.append("* the layer that told best of the texts that the strengths were chosen on")
    lines.append("")
    lines.append("best single unit         layer   unit  AUC    right    always the commoner (AUC 0.5 is chance)")
    shown = [record["unit"]] if len(record["labels"]) == 2 else record["units"]
    for unit in shown:
        name = ("high: " if unit["sign"] > 0 else "low: ") + short(unit["label"], 17)
        figures = f"{unit['auc']:.3f}  {100 * unit['accuracy']:4.1f} %   {100 * unit['majority']:4.1f} %"
        lines.append(f"{name:<24} {unit['layer']:>5}  {unit['unit']:>5}  {figures}")
    return "\n".join(lines)


def short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def pieces(tokenizer, ids: Sequence[int], values: Sequence[float]) -> list[tuple[str, float]]:
    """(text, value) of every token; tokens that are parts of one character share it, and the mean of their values."""
    stream, found, together = tokenizer.stream(), [], []
    for token, value in zip(ids, values, strict=True):
        together.append(value)
        if text := stream.push(token):
            found.append((text, sum(together) / len(together)))
            together = []
    if rest := stream.flush():
        found.append((rest, sum(together) / max(len(together), 1)))
    return found


def size_of(text: Sequence[tuple[str, float]]) -> float:
    """The value that gets the full colour: twice the usual one."""
    return 2 * (sum(value * value for _, value in text) / len(text)) ** 0.5 or 1.0


def visible(text: str) -> str:
    """Without control characters, which would move a cursor or spoil a page."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


# among xterm's 256 colours, from low (blue) over white to high (orange); black letters are readable on all of them
SHADES = (75, 117, 153, 255, 223, 215, 208)


def coloured(text: Sequence[tuple[str, float]]) -> list[str]:
    """The text for a terminal, every token on the shade of its value."""
    size, found = size_of(text), []
    for piece, value in text:
        shade = SHADES[round(3 + 3 * max(-1.0, min(1.0, value / size)))]
        parts = visible(piece).split("\n")
        found.append("\n".join(f"\x1b[38;5;16;48;5;{shade}m{part}\x1b[0m" if part else "" for part in parts))
    return [*found, "\n"]


def listed(text: Sequence[tuple[str, float]]) -> list[str]:
    """A line for every token: its value over the threshold, the same as a bar to the left or right, the token."""
    size, found = size_of(text), []
    for piece, value in text:
        length = round(10 * max(-1.0, min(1.0, value / size)))
        found.append(f"{value:9.3f}  {'█' * -length:>10}│{'█' * length:<10}  {piece!r}\n")
    return found


def colour(value: float) -> tuple[int, int, int]:
    """Red, green and blue of a value in -1 to 1: blue, white, orange."""
    value = max(-1.0, min(1.0, value))
    end = (255, 145, 40) if value > 0 else (80, 150, 255)
    return tuple(round(255 + abs(value) * (part - 255)) for part in end)


def draw(path: Path, text: Sequence[tuple[str, float]], heading: str) -> None:
    """Writes the coloured text as a page or a picture."""
    import warnings

    from multimodal.checkpoint import replacing, write_text

    if path.suffix.lower() == ".html":
        write_text(path, page(text, heading))
    else:
        picture = figure(text, heading)
        with replacing(path) as aside, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # letters that the font lacks are drawn as boxes
            picture.savefig(aside, format=path.suffix[1:].lower(), dpi=150)
    cli.say(f"drawn into {path}")


def page(text: Sequence[tuple[str, float]], heading: str) -> str:
    """A page that needs nothing else; a token tells its value when it is pointed at."""
    from html import escape

    size = size_of(text)
    spans = "".join(
        f'<span style="background:rgb{colour(value / size)}" title="{value:.3f}">{escape(visible(piece))}</span>'
        for piece, value in text
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(heading)}</title><style>
body {{ font: 16px/1.6 ui-monospace, monospace; color: #111; background: #fff; max-width: 50em; margin: 2em auto; }}
p {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
</style></head><body><h1 style="font-size:1em">{escape(heading)}</h1><p>{spans}</p></body></html>
"""


def figure_class():
    """matplotlib's Figure, which needs no screen."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "pictures need matplotlib: pip install 'multimodal-text-image[bench]'; --plot FILE.html needs nothing."
        ) from None
    return Figure


def wrapped(text: Sequence[tuple[str, float]]) -> list[list[tuple[str, float]]]:
    """Lines of at most WRAP characters, each with its token's value, broken at spaces where there are some."""
    lines: list[list[tuple[str, float]]] = [[]]
    for piece, value in text:
        for c in visible(piece).expandtabs(4):
            if c == "\n":
                lines.append([])
                continue
            lines[-1].append((c, value))
            if len(lines[-1]) > WRAP:
                line = lines[-1]
                at = next((i for i in range(len(line) - 1, 0, -1) if line[i][0] == " "), len(line) - 2) + 1
                lines[-1:] = [line[:at], line[at:]]
    return lines


def figure(text: Sequence[tuple[str, float]], heading: str):
    """The coloured text as a picture."""
    size, lines = size_of(text), wrapped(text)
    if len(lines) > MAX_LINES:
        cli.say(f"drawn are the first {MAX_LINES} of {len(lines):,} lines; --plot FILE.html shows all.")
        lines = lines[:MAX_LINES]
    picture = figure_class()(figsize=(0.08 * WRAP + 0.4, 0.2 * len(lines) + 0.6))
    axes = picture.subplots()
    cells = [[colour(value / size) for _, value in line] + [(255, 255, 255)] * (WRAP - len(line)) for line in lines]
    axes.imshow([row[:WRAP] for row in cells], aspect="auto", extent=(0, WRAP, len(lines), 0))
    for number, line in enumerate(lines):
        for place, (c, _) in enumerate(line):
            if c != " ":
                # a $ is no formula here
                axes.text(
                    place + 0.5, number + 0.5, c, family="monospace", size=8, ha="center", va="center", parse_math=False
                )
    axes.set_title(heading, size=9, parse_math=False)
    axes.set_axis_off()
    picture.subplots_adjust(0.01, 0.02, 0.99, 1 - 0.4 / (0.2 * len(lines) + 0.6))
    return picture


def main(argv: list[str] | None = None) -> int:
    return cli.run(probe, cli.parse(ProbeSettings, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
