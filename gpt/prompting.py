"""Few-shot prompts: a task (description, examples, queries) and a model in; prompts, answers and their accuracy out.

After GPT-3 (Brown et al. 2020, section 2.4): the prompt is a sentence that describes the task, K examples, and the
query without its answer, all in one format and joined by newlines; nothing is trained. Every query draws its own
examples, as many as asked for and as fit in the model's context. Answers are chosen by likelihood among options, or
written. A task is a JSON file:

    {"description": "Translate English to French:", "template": "{input} => {output}",
     "examples": [{"input": "cheese", "output": "fromage"}, {"input": "sea otter", "output": "loutre de mer"}],
     "queries": [{"input": "bread", "output": "pain", "options": ["pain", "poire"]}]}

Only examples and queries are needed; "separator" stands between examples (a newline), and "options" at the top serve
every query that has none of its own.
"""

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from gpt.model import GPT
from gpt.scoring import continuations, encode_pair
from gpt.writing import Request, complete
from multimodal.checkpoint import read_json
from multimodal.cli import UserError
from multimodal.sampling import Sampling
from multimodal.tokenizer import Tokenizer

MAX_TASK_BYTES = 16_000_000  # of a task file
AT_ONCE = 32  # queries that are answered together
INPUT, OUTPUT = "{input}", "{output}"
Normalise = Literal["none", "token", "character", "unconditional"]


@dataclass(frozen=True)
class Item:
    """An example, or a query with its right answer."""

    input: str
    output: str
    options: tuple[str, ...] = ()
    """What a query may be answered with by likelihood, the right answer among them."""


@dataclass(frozen=True)
class Task:
    """A task that is told by a prompt."""

    name: str
    examples: tuple[Item, ...]
    queries: tuple[Item, ...]
    description: str = ""
    """The prompt's first line; may be empty."""
    template: str = f"{INPUT} => {OUTPUT}"
    """How an example is written; a query is the same without its output, which comes last."""
    separator: str = "\n"
    """Between description, examples and query."""

    def __post_init__(self):
        if not (self.template.endswith(OUTPUT) and self.template.count(OUTPUT) == self.template.count(INPUT) == 1):
            raise UserError(
                f"task {self.name}: the template {self.template!r} must hold {INPUT} once and end with {OUTPUT}."
            )
        if not self.separator:
            raise UserError(f"task {self.name}: the separator is empty; a newline is usual.")
        if not self.queries:
            raise UserError(f"task {self.name} has no queries: there is nothing to answer; give one or more.")
        for kind, items in (("example", self.examples), ("query", self.queries)):
            for number, item in enumerate(items, 1):
                problem = self._problem(item)
                if problem:
                    raise UserError(f"task {self.name}, {kind} {number} ({item.input[:40]!r}): {problem}")

    @staticmethod
    def _problem(item: Item) -> str | None:
        if not item.input.strip() or not item.output.strip():
            return "its input or its output is empty."
        if not item.options:
            return None
        if len(item.options) < 2 or len(set(item.options)) < len(item.options) or not all(map(str.strip, item.options)):
            return f"its {len(item.options)} options must be 2 or more, all different and none empty."
        if item.output not in item.options:
            return f"the answer {item.output[:40]!r} is not among its options; add it, or mend the spelling."
        return None

    @property
    def before(self) -> str:
        """The template before its input."""
        return self.template[: self.template.index(INPUT)]

    @property
    def between(self) -> str:
        """The template from its input to its output."""
        return self.template[self.template.index(INPUT) + len(INPUT) : -len(OUTPUT)]

    @cached_property
    def stop(self) -> tuple[str, ...]:
        """What ends a written answer: the separator, and a newline unless an answer has one."""
        several = any("\n" in item.output for item in (*self.examples, *self.queries))
        return (self.separator,) if several else ("\n", self.separator)

    @cached_property
    def most_shots(self) -> int:
        """Examples that every query has, apart from itself."""
        counts = Counter(item.input for item in self.examples)
        return len(self.examples) - max(counts[query.input] for query in self.queries)


def read(path: Path) -> Task:
    """The task of a JSON file (see the top of this file). Raises UserError with what is wrong."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not a file; a task is a JSON file.")
    fields = _fields(read_json(path, MAX_TASK_BYTES), str(path), {"examples": list, "queries": list}, _OPTIONAL)
    shared = _strings(fields.pop("options", []), f"{path}: options")
    items = {
        kind: tuple(
            _item(value, f"{path}: number {number} of {kind}", shared if kind == "queries" else ())
            for number, value in enumerate(fields.pop(kind), 1)
        )
        for kind in ("examples", "queries")
    }
    return Task(path.stem, **items, **fields)


_OPTIONAL = {"description": str, "template": str, "separator": str, "options": list}
_JSON = {str: "a string", list: "a list", dict: "an object"}


def _fields(value: Any, where: str, needed: dict[str, type], optional: dict[str, type]) -> dict[str, Any]:
    """The object's fields, all of which are known and of their types."""
    if not isinstance(value, dict):
        raise UserError(f"{where} is {type(value).__name__}, expected an object with {', '.join(needed)}.")
    known = {**needed, **optional}
    if odd := sorted(set(value) - set(known)):
        raise UserError(f"{where} has the unknown field {odd[0]!r}; known are {', '.join(known)}.")
    if missing := [name for name in needed if name not in value]:
        raise UserError(f"{where} has no {missing[0]!r}; needed are {', '.join(needed)}.")
    for name, content in value.items():
        if not isinstance(content, known[name]):
            raise UserError(f"{where}: {name} is {type(content).__name__}, expected {_JSON[known[name]]}.")
    return dict(value)


def _strings(values: list, where: str) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise UserError(f"{where}: a list of strings is expected.")
    return tuple(values)


def _item(value: Any, where: str, shared: tuple[str, ...]) -> Item:
    fields = _fields(value, where, {"input": str, "output": str}, {"options": list})
    return Item(fields["input"], fields["output"], _strings(fields.get("options", []), where) or shared)


def draw(task: Task, query: Item, shots: int, seed: int) -> list[Item]:
    """The query's examples, never itself, the last drawn first. More are the same with others before them."""
    generator = random.Random(f"{seed} {query.input}")  # by its text, so that no other query matters
    others = (task.examples[i] for i in _permutation(len(task.examples), generator))
    return list(islice((item for item in others if item.input != query.input), shots))[::-1]


def _permutation(count: int, generator: random.Random) -> Iterator[int]:
    """0 to count - 1 in random order, made as far as it is asked for (Fisher-Yates)."""
    moved: dict[int, int] = {}
    for i in range(count):
        j = generator.randrange(i, count)
        yield moved.get(j, j)
        moved[j] = moved.get(i, i)


def prompt_text(task: Task, query: Item, examples: Sequence[Item]) -> str:
    """Description, examples and the query up to its answer, without the space that stands before the answer."""
    shown = [f"{task.before}{item.input}{task.between}{item.output}" for item in examples]
    parts = [
        *([task.description] if task.description else []),
        *shown,
        f"{task.before}{query.input}{task.between.rstrip(' ')}",
    ]
    return task.separator.join(parts)


def answer_text(task: Task, answer: str) -> str:
    """An answer as it follows the prompt: with the space that the prompt leaves to it, as a word has it in its token."""
    return task.between[len(task.between.rstrip(" ")) :] + answer


@dataclass(frozen=True)
class Prompt:
    """A query's prompt."""

    query: Item
    text: str
    shots: int
    """Examples in it: those asked for, as far as they fit."""


def prompt(tokenizer: Tokenizer, context: int, task: Task, query: Item, shots: int, seed: int, room: int) -> Prompt:
    """The query's prompt with as many of `shots` examples as fit; the first ones are dropped.

    With it fit: every option, or an answer of `room` tokens if that is more than 0. Raises UserError if not even the
    query alone does.
    """
    if not room and not query.options:
        raise UserError(
            f"task {task.name}, query {query.input[:40]!r} has no options to choose from by likelihood: "
            "give it options, or answer by writing."
        )
    examples = draw(task, query, shots, seed)

    def length(kept: int) -> int:
        text = prompt_text(task, query, examples[len(examples) - kept :])
        if room:
            return len(tokenizer.encode(text)) + room
        return max(len(tokenizer.encode(text + answer_text(task, option))) for option in query.options)

    every = len(examples)
    kept = every if length(every) <= context else bisect_right(range(every), context, key=length) - 1
    if kept < 0:
        raise UserError(
            f"task {task.name}, query {query.input[:40]!r}: with its longest answer it takes {length(0):,} tokens "
            f"without any example, and the model's context holds {context:,}; shorten or drop it."
        )
    return Prompt(query, prompt_text(task, query, examples[len(examples) - kept :]), kept)


def longest_answer(tokenizer: Tokenizer, task: Task) -> int:
    """Most tokens of an answer in the task, and one to end it: what a written answer may take."""
    answers = {item.output for item in (*task.examples, *task.queries)}
    return 1 + max(len(tokenizer.encode(answer_text(task, answer))) for answer in answers)


@dataclass(frozen=True)
class Answer:
    """What the model says to a prompt."""

    text: str
    right: bool
    scores: tuple[float, ...] = ()
    """By likelihood: of each option, normalised; the highest is the answer, of equals the first."""


def choose(
    model: GPT, tokenizer: Tokenizer, task: Task, prompts: Sequence[Prompt], normalise: Normalise
) -> list[Answer]:
    """The likeliest option of each query.

    none: log-probability of the option after the prompt; token, character: over the option's tokens or characters;
    unconditional: less that of the option after nothing but the template between input and output, such as "A:"
    (Brown et al. 2020, section 2.4).
    """
    lead = task.between.strip()
    rows: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}  # each once: the index of its score

    def index(context: tuple[int, ...], ids: tuple[int, ...]) -> int:
        return rows.setdefault((context, ids), len(rows))

    wanted: list[list[tuple[int, int | None]]] = []  # of each query's options: index after the prompt, after the lead
    for made in prompts:
        options = [answer_text(task, option) for option in made.query.options]
        given = _pairs(tokenizer, made.text, options)
        alone = _pairs(tokenizer, lead, options) if normalise == "unconditional" else [None] * len(options)
        wanted.append([(index(*a), None if b is None else index(*b)) for a, b in zip(given, alone, strict=True)])
    scored = continuations(model, tokenizer.end, list(rows))

    answers = []
    for made, indices in zip(prompts, wanted, strict=True):
        scores = []
        for option, (after, alone) in zip(made.query.options, indices, strict=True):
            parts = {"token": len(scored[after].tokens), "character": len(option)}.get(normalise, 1)
            scores.append(scored[after].logprob / parts - (0.0 if alone is None else scored[alone].logprob))
        text = made.query.options[scores.index(max(scores))]
        answers.append(Answer(text, text == made.query.output, tuple(scores)))
    return answers


def _pairs(tokenizer: Tokenizer, context: str, options: Sequence[str]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(ids of the context, ids of the option) of each, with the same context for all.

    Where an option joins the context's last token ("12" and "4" may be the token "124"), all options are judged from
    before that token on: their probabilities then still compare, and none is judged on nothing.
    """
    pairs = [encode_pair(tokenizer, context, option) for option in options]
    wholes = [(*before, *after) for before, after in pairs]
    cut = min(*(len(before) for before, _ in pairs), *(len(whole) - 1 for whole in wholes))
    first = wholes[0]
    common = next((i for i in range(cut) if any(whole[i] != first[i] for whole in wholes)), cut)
    return [(whole[:common], whole[common:]) for whole in wholes]


def write(model: GPT, tokenizer: Tokenizer, task: Task, prompts: Sequence[Prompt], max_tokens: int) -> list[Answer]:
    """What the model writes after each prompt, always the likeliest token, up to the end of the line.

    It is right if it is the right answer, letter by letter, whatever space is around.
    """
    request = Request(max_tokens, Sampling(temperature=0.0), task.stop)
    written = [rows[0].text.strip() for rows in complete(model, tokenizer, [made.text for made in prompts], request)]
    return [Answer(text, text == made.query.output.strip()) for made, text in zip(prompts, written, strict=True)]


def answers(
    model: GPT,
    tokenizer: Tokenizer,
    task: Task,
    prompts: Sequence[Prompt],
    by: Literal["likelihood", "writing"],
    normalise: Normalise = "none",
) -> Iterator[Answer]:
    """An answer to each prompt in their order; some are worked out together, which changes none."""
    room = longest_answer(tokenizer, task) if by == "writing" else 0
    for begin in range(0, len(prompts), AT_ONCE):
        part = prompts[begin : begin + AT_ONCE]
        if by == "writing":
            yield from write(model, tokenizer, task, part, room)
        else:
            yield from choose(model, tokenizer, task, part, normalise)


def chance(queries: Sequence[Item]) -> float:
    """Expected accuracy of picking an option blindly."""
    return fmean(1 / len(query.options) for query in queries)


def interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was seen in `count` trials (Wilson 1927)."""
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
