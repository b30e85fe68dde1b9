"""Model cards: what was trained, by which command, on what, how long, how good, and what it cannot do; as Markdown."""

import platform
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress

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
) -> str:
    """The card's text. `figures` are measured values by name, in the order given."""
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
"""
