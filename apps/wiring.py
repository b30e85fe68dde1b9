"""What the tabs are wired with: a handler and components in, events out whose errors are sentences on the page.

All tabs share one place in the queue: while a model works for one visitor, the others wait.
"""

import functools
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from apps.answers import MAX_SEED
from multimodal.cli import UserError

MODEL = {"concurrency_id": "model", "concurrency_limit": 1}  # one model call at a time, whichever tab asks
PRIVATE = {"api_visibility": "private"}  # the page's own events; `gr.api` makes those for programs


@dataclass(frozen=True)
class Part:
    """One model of the page, or why it is missing."""

    model: Any = None
    """What the package's `load` gave."""
    card: str = ""
    """Its model card, as Markdown."""
    problem: str = ""
    """The sentence to show in its place."""


def spoken(handler: Callable[..., Iterator]) -> Callable[..., Iterator]:
    """The handler with its errors as sentences on the page; what no visitor can mend has its trace on stderr."""

    @functools.wraps(handler)
    def speaking(*values):
        try:
            yield from handler(*values)
        except UserError as error:
            text = str(error)
            raise gr.Error(text[:1].upper() + text[1:], title="Not done", print_exception=False) from None
        except Exception as error:
            traceback.print_exc()
            text = f"This went wrong on our side ({type(error).__name__}); the terminal shows where."
            raise gr.Error(text, title="Sorry", print_exception=False) from None

    return speaking


def connect(handler, inputs: list, outputs: list, starts: list, tries: gr.Dataset, samples: list) -> list:
    """The handler runs on each of `starts`, and on a click on an example, whose sample first fills the inputs it has
    values for. The last output is the line that tells how far it is. Returns what `stops` ends."""
    filled = inputs[: len(samples[0])]
    pick = (lambda i: samples[i]) if len(filled) > 1 else (lambda i: samples[i][0])
    picked = tries.click(pick, tries, filled, show_progress="hidden", queue=False, **PRIVATE)
    return [run(start, handler, inputs, outputs) for start in (functools.partial(gr.on, starts), picked.success)]


def run(start: Callable, handler, inputs: list, outputs: list):
    """The handler in the queue of the models, when the event that `start` makes happens."""
    working = {"show_progress": "minimal", "show_progress_on": outputs[-1], **PRIVATE, **MODEL}
    return start(spoken(handler), inputs, outputs, **working)


def stops(button: gr.Button, begun: list, left: Callable, inputs: list, outputs: list) -> None:
    """The button ends what has begun, and then shows what `left` gives."""
    ended = button.click(None, cancels=begun, **PRIVATE)  # and only then, since a late turn would replace it
    ended.then(left, inputs, outputs, queue=False, show_progress="hidden", **PRIVATE)


def seed_box() -> gr.Number:
    return gr.Number(
        label="Seed", info="The same seed gives the same again.", placeholder="a new one each time",
        precision=0, minimum=0, maximum=MAX_SEED,
    )  # fmt: skip


def chips(texts: list[str]) -> gr.Dataset:
    return gr.Dataset(
        label="Try", components=["textbox"], samples=[[t] for t in texts], sample_labels=texts, type="index"
    )


def names_in(text: str) -> list[str]:
    """The names in a box: one a line, or with commas between where there is only one line."""
    parts = text.splitlines() if "\n" in text.strip() else text.split(",")
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def script() -> str:
    """What an output with tokens does in the browser."""
    return (Path(__file__).resolve().parent / "tokens.js").read_text(encoding="utf-8")
