"""Model cards: what was trained, by which command, on what, how long, how good, and what it cannot do; as Markdown."""

import json
import platform
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from multimodal.training import Outcome

DRAWINGS = (
    "Default drawings: Twemoji (graphics by Twitter and contributors, CC-BY 4.0) and OpenMoji (CC-BY-SA 4.0), "
    "named by the `emoji` package (BSD), composed into captioned scenes by this toolkit."
)


def hardware() -> str:
    """Processor, threads and torch in words."""
    name = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration), open("/proc/cpuinfo") as file:
        name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    if torch.cuda.is_available():
        name = f"{torch.cuda.get_device_name()}, {name}"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__.split('+')[0]}"


def command(prog: str, argv: list[str] | None) -> str:
    return f"python -m {prog} {shlex.join(sys.argv[1:] if argv is None else argv)}"


def card(
    title: str,
    about: str,
    command: str,
    data: str,
    outcome: Outcome,
    figures: Mapping[str, float | str],
    limits: str,
    run: Path,
) -> str:
    """The card's text. `figures` are measured values by name, in the order given; the curve is of the run directory."""
    rows = "\n".join(f"| {k} | {v:.4g} |" if isinstance(v, float) else f"| {k} | {v} |" for k, v in figures.items())
    return f"""# {title}

{about}

Trained with

    {command}

in {outcome.minutes:.1f} minutes, {outcome.steps:,} steps, on {hardware()}.

**Data.** {data}

| held-out figure | value |
|---|---|
{rows}

**Limits.** {limits}
{curve(run)}"""


def curve(run: Path, most: int = 20) -> str:
    """The run's evaluations as a table of at most `most` rows, the last one included; "" where there were none."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    judged = [line for line in lines if any(name.startswith("val_") for name in line)]
    if not judged:
        return ""
    names = ["loss", *(name for name in judged[-1] if name.startswith("val_"))]
    rows = [["step", "minutes", *names], ["---"] * (2 + len(names))]
    for line in judged[:: -max(1, -(-len(judged) // most))][::-1]:
        figures = (f"{line[name]:.4g}" if name in line else "" for name in names)
        rows.append([f"{line['step']:,}", f"{line['seconds'] / 60:.1f}", *figures])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"\n**Curve** (as judged while training; loss is of one batch).\n\n{table}\n"
