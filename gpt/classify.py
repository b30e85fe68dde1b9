"""Classify texts with a fine-tuned language model (gpt.finetune): texts in, ranked labels with probabilities out.

    python -m gpt.classify --model runs/authors "what man is this that"
    python -m gpt.classify --model runs/authors --data lines.txt --json
    python -m gpt.classify --model runs/pairs "the first text" "the second text"

What a text is depends on what the model was trained for: classification takes any number of texts; entailment and
similarity take two, multiple choice a context and then its choices. A table has the columns that gpt.finetune reads;
where it has labels, the right one is shown too, and in the end how often the model was right. A .txt file is a text a
line, and "-" is standard input, also a text a line.
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

PROG = "gpt.classify"
CHUNK = 256  # examples that are classified before they are shown


@dataclass(frozen=True, kw_only=True)
class Classify(Common):
    """Ranks the labels, or the choices, by the model's probabilities."""

    texts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXT...")] = ()
    """Texts to classify; of a model for entailment, similarity or multiple choice, the texts of one example."""
    data: tuple[Path, ...] = ()
    """Tables (.csv, .tsv, .jsonl), for classification also .txt files."""
    model: str | None = None
    """The run directory of gpt.finetune."""
    top_k: int = 5
    """How many of the most probable labels to show."""
    json: bool = False
    """An object a line: the texts by their names, "predictions": [{"label", "probability", "rank"}, ...], and "truth" where
    the right label is known; or "source" and "error" for what cannot be used."""


def typed(texts: Sequence[str], kind: str) -> list:
    """The rows that the texts of the command line are, or Unread where one is empty."""
    from gpt.labelled import Row
    from multimodal.data.pairs import Unread

    if kind != "classification":
        needed = "a context and 2 to 26 choices" if kind == "multiple-choice" else "two texts"
        if not (3 <= len(texts) <= 27 if kind == "multiple-choice" else len(texts) == 2):
            raise UserError(f"this model is for {kind}: give {needed}, not {len(texts)}.")
        if not all(text.strip() for text in texts):
            raise UserError(f"one of the texts is empty; {kind} needs {needed}.")
        return [Row(tuple(text.strip() for text in texts))]
    rows = []
    for text in texts:
        found = [
            Row((line.strip(),)) for line in (sys.stdin.read().split("\n") if text == "-" else [text]) if line.strip()
        ]
        rows += found or [Unread(Path("standard input" if text == "-" else "a text"), "it is empty")]
    return rows


def read(settings: Classify, kind: str) -> list:
    """The rows to classify, and Unread for what cannot be used, in the order given."""
    from gpt import labelled
    from multimodal.data.pairs import Unread

    found = typed(settings.texts, kind) if settings.texts else []
    for path in settings.data:
        try:
            rows, unread = labelled.read(path, kind, labelled=False)
            found += [*unread, *rows]
        except UserError as error:
            found.append(Unread(path, str(error)))
    return found


def ranked(probabilities, names: Sequence[str]) -> tuple[list[int], list[dict]]:
    """(places of the names, best first; the same as {"label", "probability", "rank"})."""
    order = probabilities.argsort(descending=True, stable=True).tolist()
    return order, [
        {"label": names[i], "probability": round(float(probabilities[i]), 6), "rank": place}
        for place, i in enumerate(order, 1)
    ]


def shown(row, found: dict) -> str:
    """For people: the text, and a bar a label, ✓ at the right one and ✗ at the others where it is known."""
    lines = [" | ".join(short(text, 110 // min(len(row.texts), 2)) for text in row.texts[:2])]
    right = found.get("truth", {}).get("label")
    rows = list(found["predictions"])
    if right is not None and found["truth"] not in rows:
        rows.append(found["truth"])
    width = max(len(short(entry["label"], 60)) for entry in rows)
    for entry in rows:
        mark = " " if right is None else "✓" if entry["label"] == right else "✗"
        bar = "█" * round(30 * entry["probability"])
        lines.append(
            f"  {mark} {short(entry['label'], 60):<{width}}  {100 * entry['probability']:5.1f} %  {bar}".rstrip()
        )
    return "\n".join(lines)


def short(text: str, most: int) -> str:
    """On one line, and without what would move a terminal's cursor."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= most else text[: most - 1] + "…"


def classify(settings: Classify) -> int:
    if settings.model is None:
        raise UserError("no --model was given: train one with gpt.finetune, and give its run directory.")
    if not settings.texts and not settings.data:
        raise UserError("no text was given: name texts, or tables by --data.")
    if settings.top_k < 1:
        raise UserError(f"--top-k {settings.top_k}: show at least 1 label.")
    from multimodal.checkpoint import find

    directory = find(settings.model, "gpt")

    from gpt import finetuning, labelled

    model, tokenizer = finetuning.load(directory, settings.device)
    task, labels = model.config.task, model.config.labels
    found = read(settings, task)
    rows = [row for row in found if isinstance(row, labelled.Row)]
    told = [row for row in rows if row.label]
    if task == "multiple-choice" and told:
        labels = labelled.labels_of(told, task, "the table")  # how they name a choice
    failed, right, known, cut, unknown = False, 0, 0, 0, []
    waiting = iter(found)
    while some := list(islice(waiting, CHUNK)):
        usable = [row for row in some if isinstance(row, labelled.Row)]
        made = [finetuning.sequences(tokenizer, model.config, row.texts) for row in usable]
        cut += sum(was_cut for _, was_cut in made)
        scores = iter(finetuning.scores(model, [sequences for sequences, _ in made]))
        for row in some:
            if not isinstance(row, labelled.Row):
                failed = True
                if settings.json:
                    cli.emit({"source": str(row.path), "error": row.reason})
                else:
                    cli.say(f"not used: {row.path}: {row.reason}")
                continue
            names = row.texts[1:] if task == "multiple-choice" else labels
            order, entries = ranked(next(scores).softmax(0), names)
            record = labelled.record(row, task) | {"predictions": entries[: settings.top_k]}
            if record.pop("label", None):
                example, not_known = labelled.examples([row], task, labels)
                unknown += not_known
                if example:
                    record["truth"] = entries[order.index(example[0].label)]
                    known, right = known + 1, right + (record["truth"]["rank"] == 1)
            if settings.json:
                cli.emit(record)
            else:
                print(shown(row, record), flush=True)
    if cut:
        cli.say(
            f"{cut:,} of {len(rows):,} are longer than the model's context of {model.config.gpt.context} tokens: cut."
        )
    if unknown:
        cli.say(f"{len(unknown):,} labels are not judged; the first: {unknown[0].path}: {unknown[0].reason}")
    if known:
        sentence = f"right: {right:,} of {known:,} ({100 * right / known:.1f} %)"
        cli.say(sentence) if settings.json else print(sentence)
    return int(failed)


def main(argv: list[str] | None = None) -> int:
    return cli.run(classify, cli.parse(Classify, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
