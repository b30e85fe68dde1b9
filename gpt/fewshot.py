"""Ask a language model by prompts with zero, one or a few examples, as GPT-3 was, and count the right answers.

python -m gpt.fewshot translate-fr
python -m gpt.fewshot add-2 subtract-2 --shots 0 1 10 --by writing --plot runs/sums.png
python -m gpt.fewshot mine.json --model runs/gpt --normalise unconditional --json
python -m gpt.fewshot sentiment --shots 4 --show

A task is one of --list, or a JSON file, of which only examples and queries are needed, and options to answer by likelihood:

    {"description": "Translate English to French:", "template": "{input} => {output}",
     "examples": [{"input": "cheese", "output": "fromage"}],
     "queries": [{"input": "bread", "output": "pain", "options": ["pain", "poire"]}]}

The table shows for each number of examples K how many fitted into the context on average, and the share of right answers
with its 95 % interval (Wilson's, of the queries), beside chance; then the share by each choice of examples.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "gpt.fewshot"
SHOTS = (0, 1, 4, 8, 16)
PLOTS = (".png", ".svg", ".pdf")


@dataclass(frozen=True, kw_only=True)
class Fewshot(Common):
    """Answers a task's queries from prompts, and counts the right answers against the number of examples shown."""

    tasks: Positional[tuple[str, ...]] = ()
    """Tasks that come along (see --list), or JSON files."""
    list: bool = False
    """Name the tasks that come along, and do no more."""
    model: str | None = None
    """A run directory, or the name of a bundled model (default: the bundled one)."""
    shots: tuple[int, ...] = ()
    """Numbers of examples K to try (default: 0 1 4 8 16, as far as the task has examples)."""
    by: Literal["likelihood", "writing"] = "likelihood"
    """Choose the likeliest option, or write the answer: right if it is the right one, letter by letter."""
    normalise: Literal["none", "token", "character", "unconditional"] = "token"
    """How options of different length compare: by the log-probability of the whole, a token (as GPT-3 mostly did) or a
    character; or by how much likelier the prompt makes them."""
    draws: int = 3
    """Choices of examples that are averaged: by the seeds --seed, --seed + 1 and so on."""
    n: int = 0
    """Most queries to ask, the first ones; 0 is all."""
    show: bool = False
    """Print the prompt of the first query for each K, and do no more."""
    predict: bool = False
    """Print every answer before the table; with --json an object a line: task, shots, seed, input, answer, given,
    right, and by likelihood the options with their scores."""
    plot: Path | None = None
    """Draw accuracy against K into this file: .png, .svg or .pdf."""
    json: bool = False
    """An object a line for each task and K: task, shots, shots_used, accuracy, low, high, chance, by_draw, queries."""


def check(settings: Fewshot) -> None:
    """Raises UserError for settings that mean nothing."""
    if not settings.tasks:
        raise UserError("no task was named: give one of --list, or a JSON file.")
    if odd := [k for k in settings.shots if k < 0]:
        raise UserError(f"--shots {odd[0]}: 0 or more examples can be shown.")
    if not 1 <= settings.draws <= 100:
        raise UserError(f"--draws {settings.draws} is out of range: 1 to 100.")
    if settings.n < 0:
        raise UserError(f"--n {settings.n} is out of range: 0 (all queries) or more.")
    if settings.by == "writing" and settings.normalise != "token":
        raise UserError(f"--normalise {settings.normalise} compares options, and --by writing has none; leave it out.")
    if settings.plot is not None:
        if settings.plot.suffix not in PLOTS:
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


def fewshot(settings: Fewshot) -> int:
    if settings.list:
        from gpt.tasks import SHIPPED

        width = max(map(len, SHIPPED))
        for name, (sentence, _) in SHIPPED.items():
            print(f"{name:{width}}  {sentence}")
        return 0
    check(settings)
    from multimodal.checkpoint import find

    directory = find(settings.model, "gpt")

    from gpt.model import load

    found = [task_of(name) for name in settings.tasks]
    shots = [shots_of(settings, task) for task in found]
    model, tokenizer = load(directory, settings.device)
    status, curves = 0, []
    for task, counts in zip(found, shots, strict=True):
        queries, left_out = fitting(settings, model, tokenizer, task)
        status = 1 if left_out else status
        if settings.show:
            show(settings, model, tokenizer, task, queries[0], counts)
            continue
        results = [ask(settings, model, tokenizer, task, queries, k) for k in counts]
        if not settings.json:
            print(table(settings, task, results), flush=True)
        curves.append((task.name, results))
    if settings.plot is not None and not settings.show:
        plot(settings, curves)
    return status


def task_of(name: str):
    """A task that comes along, or a file's. Raises UserError."""
    from gpt import prompting, tasks

    if name in tasks.SHIPPED:
        return tasks.make(name)
    if not Path(name).exists():
        raise UserError(f"{name}: no such task or file; tasks are {', '.join(tasks.SHIPPED)}.")
    return prompting.read(Path(name))


def shots_of(settings: Fewshot, task) -> list[int]:
    """The numbers of examples to try. Raises UserError where the task has fewer."""
    if not settings.shots:
        return [k for k in SHOTS if k <= task.most_shots]
    if max(settings.shots) > task.most_shots:
        raise UserError(
            f"--shots {max(settings.shots)}: task {task.name} has {task.most_shots} examples to show; "
            f"0 to {task.most_shots} are allowed."
        )
    return [*dict.fromkeys(settings.shots)]


def room_of(settings: Fewshot, tokenizer, task) -> int:
    """Tokens that are kept free for a written answer."""
    from gpt.prompting import longest_answer

    return longest_answer(tokenizer, task) if settings.by == "writing" else 0


def fitting(settings: Fewshot, model, tokenizer, task):
    """(the queries that fit in the model's context, how many do not); what does not is said."""
    from gpt.prompting import prompt

    room, asked, kept = room_of(settings, tokenizer, task), task.queries[: settings.n or None], []
    for query in asked:
        try:
            prompt(tokenizer, model.config.context, task, query, 0, 0, room)
            kept.append(query)
        except UserError as error:
            if len(asked) == 1 or (settings.by == "likelihood" and not query.options):
                raise
            cli.say(f"left out: {error}")
    if not kept:
        raise UserError(f"task {task.name}: none of its {len(asked)} queries fits in the model's context (see above).")
    return kept, len(asked) - len(kept)


def show(settings: Fewshot, model, tokenizer, task, query, counts: list[int]) -> None:
    """Prints the query's prompt for each number of examples."""
    from gpt.prompting import prompt

    room = room_of(settings, tokenizer, task)
    for k in counts:
        made = prompt(tokenizer, model.config.context, task, query, k, settings.seed, room)
        if settings.json:
            cli.emit({"task": task.name, "shots": k, "shots_used": made.shots, "prompt": made.text})
        else:
            print(f"--- {task.name}, {k} examples, of which {made.shots} fit ---\n{made.text}", flush=True)


def ask(settings: Fewshot, model, tokenizer, task, queries, k: int) -> dict:
    """All queries with k examples, by every draw; the record of `--json`, which is printed if asked for."""
    from statistics import fmean

    from gpt import prompting

    room = room_of(settings, tokenizer, task)
    draws = settings.draws if k else 1  # without examples there is nothing to draw
    accuracies, used = [], []
    with cli.bar(total=draws * len(queries), desc=f"{task.name}, {k} examples", unit="query") as bar:
        for seed in range(settings.seed, settings.seed + draws):
            prompts = [
                prompting.prompt(tokenizer, model.config.context, task, query, k, seed, room) for query in queries
            ]
            right = 0
            for made, answer in zip(
                prompts,
                prompting.answers(model, tokenizer, task, prompts, settings.by, settings.normalise),
                strict=True,
            ):
                right += answer.right
                bar.update()
                if settings.predict:
                    predict(settings, task, k, seed, made, answer)
            accuracies.append(right / len(queries))
            used += [made.shots for made in prompts]
    accuracy = fmean(accuracies)
    low, high = prompting.interval(accuracy, len(queries))  # several draws of a query do not count as several queries
    record = {
        "task": task.name,
        "shots": k,
        "shots_used": round(fmean(used), 2),
        "accuracy": round(accuracy, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "chance": round(prompting.chance(queries), 4) if settings.by == "likelihood" else None,
        "by_draw": [round(value, 4) for value in accuracies],
        "queries": len(queries),
        "by": settings.by,
        "normalise": settings.normalise if settings.by == "likelihood" else None,
    }
    if settings.json:
        cli.emit(record)
    return record


def predict(settings: Fewshot, task, k: int, seed: int, made, answer) -> None:
    """Prints one answer."""
    query = made.query
    if settings.json:
        record = {"task": task.name, "shots": k, "seed": seed, "input": query.input, "answer": query.output}
        record |= {"given": answer.text, "right": answer.right}
        if answer.scores:
            record["scores"] = {o: round(s, 6) for o, s in zip(query.options, answer.scores, strict=True)}
        cli.emit(record)
    else:
        told = "right" if answer.right else f"wrong: {query.output}"
        print(f"K={k} seed={seed}  {query.input!r} -> {answer.text!r}  ({told})", flush=True)


def how(settings: Fewshot) -> str:
    if settings.by == "writing":
        return "by writing"
    names = {
        "none": "",
        "token": " per token",
        "character": " per character",
        "unconditional": " over the unconditional",
    }
    return f"by likelihood{names[settings.normalise]}"


def table(settings: Fewshot, task, results: list[dict]) -> str:
    """The task's results for people."""
    first = results[0]
    chance = "" if first["chance"] is None else f"; chance {first['chance']:.1%}"
    noun = "query" if first["queries"] == 1 else "queries"
    lines = [
        f"{task.name}, {how(settings)}: {first['queries']} {noun}{chance}",
        "   K    used  accuracy    95 % interval     by draw",
    ]
    for r in results:
        interval = f"{r['low']:.1%} to {r['high']:.1%}"
        draws = " ".join(f"{value:.1%}" for value in r["by_draw"][:5]) + " ..." * (len(r["by_draw"]) > 5)
        lines.append(f"{r['shots']:4}  {r['shots_used']:6.1f}  {r['accuracy']:8.1%}  {interval:>15}     {draws}")
    return "\n".join(lines)


def plot(settings: Fewshot, curves: list[tuple[str, list[dict]]]) -> None:
    """Accuracy against K, a line for each task; each line's chance is dotted, its interval shaded."""
    from multimodal.checkpoint import replacing

    figure = figure_class()(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    ticks = sorted({r["shots"] for _, results in curves for r in results})  # evenly, whatever lies between
    for name, results in curves:
        results = sorted(results, key=lambda r: r["shots"])
        k = [ticks.index(r["shots"]) for r in results]
        (line,) = axes.plot(k, [100 * r["accuracy"] for r in results], marker="o", label=name)
        low, high = ([100 * r[end] for r in results] for end in ("low", "high"))
        axes.fill_between(k, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        if results[0]["chance"] is not None:
            axes.axhline(100 * results[0]["chance"], color=line.get_color(), linestyle=":", linewidth=1)
    axes.set_xticks(range(len(ticks)), [str(k) for k in ticks])
    axes.set_ylim(0, 100)
    axes.set_xlabel("examples in the prompt (K)")
    axes.set_ylabel(f"right answers, % ({how(settings)})")
    axes.grid(alpha=0.3)
    axes.legend(title="shaded: 95 %, dotted: chance" if settings.by == "likelihood" else "shaded: 95 %")
    with replacing(settings.plot) as aside:
        figure.savefig(aside, format=settings.plot.suffix[1:], dpi=150)
    cli.say(f"drawn into {settings.plot}")


def main(argv: list[str] | None = None) -> int:
    return cli.run(fewshot, cli.parse(Fewshot, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
