"""Fine-tune a language model to classify: labelled texts in, a run directory out that `gpt.classify --model RUN` uses.

    python -m gpt.finetune classification --example authors --out runs/authors
    python -m gpt.finetune classification --data reviews.csv --valid more.csv --out runs/reviews
    python -m gpt.finetune similarity --data pairs.csv --seeds 3 --out runs/pairs

Tables are CSV, TSV or JSON lines, the first line of CSV names the columns: text,label for classification;
premise,hypothesis,label for entailment; first,second,label for similarity; context,choice1,choice2,...,label for
multiple-choice (JSON lines: "choices": [...]), where the label is a choice's number, letter or text. The loss is GPT-1's:
that of the labels, and --lm-weight times that of the text itself. RUN holds the model, its card README.md,
metrics.jsonl, the examples/ as they were used, and state/ (what --resume needs).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from multimodal import cli
from multimodal.cli import Common, UserError
from multimodal.config import TrainConfig

PROG = "gpt.finetune"
MAX_SEEDS = 100


@dataclass(frozen=True, kw_only=True)
class Finetune(Common):
    """Fine-tunes a language model on labelled texts, and tells how often it is right on what was held out."""

    kind: Positional[Literal["classification", "entailment", "similarity", "multiple-choice"]]
    """What an example is: a text; a premise and a hypothesis; two texts; a context and its choices."""
    data: tuple[Path, ...] = ()
    """Tables to train on."""
    valid: Path | None = None
    """A table to judge on (default: a fifth of the texts, always the same)."""
    example: str | None = None
    """A set that comes along instead of --data: authors (of each kind), or sentiment (classification)."""
    model: str | None = None
    """A run directory or the name of a bundled model to start from (default: the bundled one)."""
    scratch: bool = False
    """Start from random weights of that model's shape instead, to see what its training was worth."""
    lm_weight: float = 0.5
    """λ, the weight of the text's own loss; 0 leaves it out."""
    epochs: float = 3.0
    """How often each example is seen."""
    dropout: float = 0.1
    """Probability of dropping a feature while training."""
    seeds: int = 1
    """Train so many times, with --lm-weight and with 0 each, to compare; the model is that of --seed."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=1_000_000, optimizer="adamw", lr=3e-4, weight_decay=0.01, warmup=0.002, cooldown=1.0,
            evaluate_every=100, save_every=100,
        )
    )  # fmt: skip
    """Ends after train.steps or --epochs, whichever is less. The rate suits the bundled model; GPT-1, of 117M
    parameters, took 6.25e-5."""
    out: Path = Path("runs/finetuned")
    """The run directory."""
    resume: bool = False
    """Continue the run in --out, with the examples that it began with."""
    json: bool = False
    """Print an object a line for each training instead of a table."""


def check(settings: Finetune) -> None:
    """Raises UserError for settings that do not go together."""
    if bool(settings.data) == (settings.example is not None):
        raise UserError("give either --data, a table of labelled texts, or --example authors.")
    if settings.example is not None and settings.valid is not None:
        raise UserError("--valid goes with --data; an --example brings its own texts to judge on.")
    for flag, value, least, most in (
        ("--seeds", settings.seeds, 1, MAX_SEEDS),
        ("--lm-weight", settings.lm_weight, 0, 100),
        ("--epochs", settings.epochs, 1e-6, 10_000),
        ("--dropout", settings.dropout, 0, 0.99),
    ):
        if not least <= value <= most:
            raise UserError(f"{flag} {value} is out of range: {least} to {most}.")


def read_halves(settings: Finetune):
    """(rows to train on, rows to judge on): of the run that is resumed, of the example, or of the tables."""
    from gpt import demonstrations, labelled

    if settings.resume:
        kept = settings.out / "examples"
        return [labelled.read(kept / f"{half}.jsonl", settings.kind)[0] for half in ("train", "valid")]
    if settings.example is not None:
        return demonstrations.make(settings.example, settings.kind)
    return labelled.halves(settings.data, settings.valid, settings.kind)


def keep(rows: Sequence, kind: str, path: Path) -> None:
    """Writes rows as JSON lines."""
    import json

    from gpt.labelled import record
    from multimodal.checkpoint import write_text

    write_text(path, "".join(json.dumps(record(row, kind), ensure_ascii=False) + "\n" for row in rows))


@dataclass(frozen=True)
class Task:
    """What all trainings of one command share; examples are (sequences of ids, place of the right label)."""

    config: Any
    """The classifier's ClassifierConfig."""
    base: Any
    """The GPT to start from; None: random weights."""
    tokenizer: Any
    train: list
    valid: list
    rows: tuple
    """(rows to train on, rows to judge on), as they are kept."""
    majority: float
    """Part of the held-out examples that has the label which is commonest in training."""


def prepare(settings: Finetune) -> Task:
    """Reads the model and the examples, and tells how many there are."""
    from collections import Counter
    from dataclasses import replace

    from gpt import labelled
    from gpt import model as gpt
    from gpt.finetuning import ClassifierConfig, sequences
    from multimodal import checkpoint

    base, tokenizer = gpt.load(checkpoint.find(settings.model, "gpt"), settings.device)
    halves = read_halves(settings)
    source = str(settings.data[0]) if settings.data else f"--example {settings.example}"
    labels, train, valid = labelled.prepared(halves, settings.kind, source)
    try:
        blocks = replace(base.config.transformer, dropout=settings.dropout)
        own = () if settings.kind == "multiple-choice" else labels
        config = ClassifierConfig(replace(base.config, transformer=blocks), settings.kind, own, settings.dropout)
    except ValueError as error:
        raise UserError(str(error)) from None
    about = f"labels name a choice by its {labels[0]}" if not own else f"labels {', '.join(own[:20])}"
    cli.say(f"{settings.kind}: {len(train):,} examples to train on, {len(valid):,} held out; {about}")
    encoded, cut = [], 0
    for examples in (train, valid):
        made = [sequences(tokenizer, config, example.texts) for example in examples]
        cut += sum(was_cut for _, was_cut in made)
        encoded.append([(rows, example.label) for (rows, _), example in zip(made, examples, strict=True)])
    if cut:
        cli.say(
            f"{cut:,} of {len(train) + len(valid):,} examples are longer than the model's context of "
            f"{config.gpt.context} tokens, and were cut."
        )
    commonest = Counter(example.label for example in train).most_common(1)[0][0]
    majority = sum(example.label == commonest for example in valid) / len(valid)
    return Task(config, None if settings.scratch else base, tokenizer, *encoded, tuple(halves), majority)


def train(settings: Finetune, task: Task, weight: float, seed: int, run: Path, resume: bool):
    """One training, with its own λ and seed, into the directory `run`: (fit's Outcome, the figures of the saved model)."""
    import math
    from dataclasses import replace
    from functools import partial

    import torch

    from gpt import finetuning
    from multimodal.training import fit, shuffled

    torch.manual_seed(seed)
    model = finetuning.attach(task.base, task.config) if task.base else finetuning.Classifier(task.config)
    size, count = settings.train.batch_size, len(task.train)
    steps = math.ceil(settings.epochs * count / (size * settings.train.accumulate))
    held, labels = [rows for rows, _ in task.valid], [label for _, label in task.valid]

    def batches(index: int) -> dict:
        chosen = [task.train[i] for i in shuffled(index, size, count, seed)]
        tokens = finetuning.collate([rows for rows, _ in chosen], task.config)
        return {"tokens": tokens, "label": torch.tensor([label for _, label in chosen])}

    def judge(model) -> dict[str, float]:
        return finetuning.judge(finetuning.scores(model, held), labels)

    outcome = fit(
        model, partial(finetuning.loss, weight=weight), batches,
        replace(settings.train, steps=min(settings.train.steps, steps)), run,
        seed=seed, device=settings.device, resume=resume, evaluate=judge,
        save=lambda model: finetuning.save(model, task.tokenizer, run),
    )  # fmt: skip
    return outcome, judge(finetuning.load(run, settings.device)[0])


def finetune(settings: Finetune, argv: list[str] | None) -> int:
    check(settings)
    import json
    import shutil

    from multimodal import checkpoint, devices
    from multimodal.training import STATE, begin, check_run

    devices.pick(settings.device)
    check_run(settings.out, settings.resume)
    free = ("data", "valid", "example", "seeds", "json")  # the run has kept its examples
    if settings.resume:
        begin(settings, free)
    task = prepare(settings)
    if not settings.resume:
        begin(settings, free)
        for name, rows in zip(("train", "valid"), task.rows, strict=True):
            keep(rows, settings.kind, settings.out / "examples" / f"{name}.jsonl")
    results = settings.out / "results.jsonl"
    done = (
        [json.loads(line) for line in results.read_text().splitlines()] if settings.resume and results.exists() else []
    )
    weights = dict.fromkeys((settings.lm_weight, 0.0) if settings.seeds > 1 else (settings.lm_weight,))
    outcome = None
    for seed in range(settings.seed, settings.seed + settings.seeds):
        for weight in weights:
            own = (weight, seed) == (settings.lm_weight, settings.seed)
            if not own and any((r["lm_weight"], r["seed"]) == (weight, seed) for r in done):
                continue
            run = settings.out if own else settings.out / "compared" / f"lm-{weight:g}-seed-{seed}"
            going = settings.resume and (run / STATE).exists()
            if settings.seeds > 1:
                cli.say(f"seed {seed}, λ {weight:g}")
            found, figures = train(settings, task, weight, seed, run, going)
            outcome = found if own else outcome
            record = {"run": str(run), "kind": settings.kind, "lm_weight": weight, "seed": seed, "steps": found.steps}
            record |= {"minutes": round(found.minutes, 2), **{f"val_{name}": value for name, value in figures.items()}}
            record |= {"val_majority": task.majority, "val_examples": len(task.valid)}
            if found.stopped != "signal":
                done = [r for r in done if (r["lm_weight"], r["seed"]) != (weight, seed)] + [record]
                done.sort(key=lambda r: (r["seed"], -r["lm_weight"]))
                checkpoint.write_text(results, "".join(json.dumps(line) + "\n" for line in done))
            if own or found.stopped != "signal":
                checkpoint.write_text(settings.out / "README.md", card(settings, argv, task, outcome, done or [record]))
            if settings.json:
                cli.emit(record)
            if found.stopped == "signal":
                return 1
            if not own:  # only its figures are wanted
                shutil.rmtree(run / "state")
                (run / "model.safetensors").unlink()
    if not settings.json:
        print(table(done, task))
    return 0


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 3) -> str:
    """The mean and, of several, the standard deviation."""
    from statistics import mean, stdev

    text = f"{scale * mean(values):.{digits}f}"
    return text + f" ± {scale * stdev(values):.{digits}f}" if len(values) > 1 else text


def arms(results: Sequence[dict]) -> dict[str, tuple[str, str]]:
    """{what was trained: (accuracy in percent, nats)} over the seeds, and by how much λ changed the accuracy."""
    found = {}
    for weight in dict.fromkeys(r["lm_weight"] for r in results):
        mine = [r for r in results if r["lm_weight"] == weight]
        name = f"with the text's loss (λ = {weight:g})" if weight else "without the text's loss (λ = 0)"
        name += f", {len(mine)} seeds" if len(mine) > 1 else ""
        found[name] = spread([r["val_accuracy"] for r in mine], 100.0, 1), spread([r["val_loss"] for r in mine])
    by_seed: dict[int, dict[bool, float]] = {}
    for r in results:
        by_seed.setdefault(r["seed"], {})[r["lm_weight"] > 0] = r["val_accuracy"]
    both = [pair[True] - pair[False] for pair in by_seed.values() if len(pair) == 2]
    if len(both) > 1:
        found["what the text's loss adds, seed by seed"] = spread(both, 100.0, 1), ""
    return found


def table(results: Sequence[dict], task: Task) -> str:
    """The figures for people."""
    rows = {"": (f"right of {len(task.valid):,}, %", "nats of the right label"), **arms(results)}
    rows["always the commonest label"] = f"{100 * task.majority:.1f}", ""
    width, second = max(map(len, rows)), max(len(cells[0]) for cells in rows.values())
    return "\n".join(f"{name:{width}}  {cells[0]:{second}}  {cells[1]}".rstrip() for name, cells in rows.items())


def card(settings: Finetune, argv: list[str] | None, task: Task, outcome, results: Sequence[dict]) -> str:
    """The run's README.md."""
    from multimodal import cards

    blocks = task.config.gpt.transformer
    about = (
        f"A classifier ({settings.kind}) on a GPT of {blocks.depth} blocks of width {blocks.width}, "
        + (
            "trained from random weights"
            if settings.scratch
            else f"fine-tuned from {settings.model or 'the bundled model'}"
        )
        + (f"; labels: {', '.join(task.config.labels[:50])}." if task.config.labels else ".")
    )
    where = ", ".join(map(str, settings.data)) if settings.data else f"the example {settings.example!r}"
    source = f"{where}: {len(task.train):,} examples to train on, {len(task.valid):,} held out (examples/)."
    figures = {f"right of {len(task.valid):,}, in %: {name}": cells[0] for name, cells in arms(results).items()}
    figures["the same: always the commonest label"] = f"{100 * task.majority:.1f}"
    limits = (
        "It gives every text one of its labels, also texts that are unlike what it learned from; its probabilities are "
        "as sure as its training was long, not as it is right. val_loss is in nats of the right label."
    )
    return cards.card(
        "A GPT fine-tuned with this toolkit",
        about,
        cards.command(PROG, argv),
        source,
        outcome,
        figures,
        limits,
        settings.out,
    )


def main(argv: list[str] | None = None) -> int:
    settings = cli.parse(Finetune, PROG, __doc__, argv)
    return cli.run(lambda settings: finetune(settings, argv), settings, PROG)


if __name__ == "__main__":
    sys.exit(main())
