"""The tabs of the language model: a loaded GPT in; Write, Few-shot and Score out, and the page's API of each.

Write: continuations side by side, every token with its probability and what else was likely, from which one may go on.
Few-shot: GPT-3's prompt (Brown et al. 2020) out of a description, a table of examples and a query. Score: how probable a
text is, and which of two is the likelier.
"""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import gradio as gr

from apps import answers, markup
from apps.answers import MAX_CANDIDATES, MAX_EXAMPLES, MAX_LETTERS, MAX_TOKENS
from apps.wiring import MODEL, PRIVATE, Part, chips, connect, names_in, run, script, seed_box, spoken, stops
from multimodal.cli import UserError

FRAME, RATE = (
    1 / 30,
    2_000_000,
)  # seconds between turns of what is written, and characters a second, that a page is sent

PROMPTS = (
    "To be, or not to be",
    "In the beginning God created",
    "And it came to pass, when the king heard it,",
    "def mean(values):\n",
    "English => French\ncheese wedge => part de fromage\nred apple =>",
)

LINE, BLANK = "new line", "blank line"
SEPARATORS = {LINE: "\n", BLANK: "\n\n"}
NORMALISE = {
    "a token": "token",
    "a character": "character",
    "the whole": "none",
    "the whole, over what it is without the prompt": "unconditional",
}
ARROW, QUESTION = "{input} => {output}", "Q: {input}\nA: {output}"
TRANSLATION = [["sea otter", "loutre de mer"], ["red apple", "pomme rouge"], ["blue book", "livre bleu"]]
SENTIMENT = [
    ["What a lovely song is this!", "positive"],
    ["The king was a cruel man.", "negative"],
    ["He spake of a holy city.", "positive"],
    ["This wicked servant is known to all men.", "negative"],
]
SUMS = [["What is 48 plus 76?", "124"], ["What is 5 plus 12?", "17"], ["What is 30 plus 9?", "39"]]
# name, then what it fills in: query, examples, description, choices, format, between the examples
TASKS = (
    ("Translate", "man running", TRANSLATION, "Translate English to French:", "", ARROW, LINE),
    (
        "Translate, with choices",
        "green circle", TRANSLATION, "Translate English to French:", "disque vert, homme qui court, canard", ARROW, LINE,
    ),
    (
        "Sentiment",
        "The daughter was virtuous.", SENTIMENT, "", "positive, negative", "Review: {input}\nSentiment: {output}", BLANK,
    ),
    ("A sum", "What is 25 plus 31?", SUMS, "", "", QUESTION, BLANK),
)  # fmt: skip
# name, a text, and one to compare it with
TEXTS = (
    ("To be, or not to be", "To be, or not to be, that is the question.", ""),
    ("which was said?", "I have heard the voice of the people.", "Eye have herd the vice of the peephole."),
    ("word order", "And God said, Let there be light: and there was light.", "And said God, Let be light there."),
    ("code", "def mean(values):\n    return sum(values) / len(values)\n", ""),
)


class Desk:
    """What one visitor has before them in Write; it stays the same object while a handler writes."""

    def __init__(self):
        self.coloured = False
        """Whether every token shows its probability."""
        self.lay("", [], 0)

    def lay(self, prompt: str, rows: list[answers.Row], seed: int, writing: bool = False) -> "Desk":
        self.prompt, self.rows, self.seed, self.writing = prompt, rows, seed, writing
        return self

    def shown(self) -> str:
        return markup.papers(self.prompt, self.rows, self.seed, self.writing, self.coloured)


class Pace:
    """Tells when a page may be sent the next turn of what is written, so that all keep to FRAME and RATE."""

    def __init__(self):
        self._free = 0.0

    def due(self) -> bool:
        return time.monotonic() >= self._free

    def sent(self, shown: str) -> str:
        self._free = time.monotonic() + max(FRAME, len(shown) / RATE)
        return shown


def write_tab(part: Part) -> None:
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            prompt = gr.Textbox(
                PROMPTS[0], label="Begin a text", lines=5, max_lines=14, max_length=MAX_LETTERS, elem_id="write-prompt"
            )
            with gr.Row():
                go = gr.Button("Write", variant="primary", elem_id="write-go", min_width=120)
                stop = gr.Button("Stop", elem_id="write-stop", min_width=90)
            tries = chips([" ".join(text.splitlines()[-1].split()) for text in PROMPTS])
            coloured = gr.Checkbox(
                label="Show probabilities", info="Colours every token; point at one, or tap it, to see what else was likely.",
                elem_id="write-coloured",
            )  # fmt: skip
            count = gr.Slider(
                1, MAX_CANDIDATES, 1, step=1, label="Candidates", info="Continuations side by side, to choose from.",
                elem_id="write-count",
            )  # fmt: skip
            with gr.Accordion("Sampling", open=False):
                length = gr.Slider(1, MAX_TOKENS, 200, step=1, label="Length", info="Most tokens to write.")
                temperature = gr.Slider(
                    0, 2, 0.8, step=0.05, label="Temperature", info="0 takes the likeliest token, 1 samples as learned."
                )
                top_p = gr.Slider(
                    0.05, 1, 0.95, step=0.05, label="Top-p", info="Only the likeliest tokens that together reach this."
                )
                top_k = gr.Slider(0, 200, 0, step=1, label="Top-k", info="Only this many of the likeliest; 0 is all.")
                seed = seed_box()
        with gr.Column(scale=5, min_width=320):
            output = gr.HTML(
                markup.hint("The continuation appears here, word by word."), elem_id="write-output", js_on_load=script()
            )
            status = gr.HTML(elem_id="write-status")
    desk = gr.State(Desk(), time_to_live=3600)

    def handler(prompt, count, length, temperature, top_p, top_k, seed, desk):
        began, pace, tokenizer = time.perf_counter(), Pace(), part.model[1]
        prompt, seed = answers.words("the prompt", prompt), answers.seed_of(seed)
        sampling = answers.sampling_of(temperature, top_k, top_p)
        for rows in answers.candidates(part.model, prompt, count, length, sampling, seed):
            if pace.due():
                desk.lay(prompt, [answers.row_of(tokenizer, row) for row in rows], seed, writing=True)
                yield desk, pace.sent(desk.shown()), markup.note("Writing ...")
        desk.lay(prompt, [answers.row_of(tokenizer, row) for row in rows], seed)
        written = sum(len(row.text.split()) for row in desk.rows)
        seeds = f"seed {seed}" if len(rows) == 1 else f"seeds {seed} to {seed + len(rows) - 1}"
        yield desk, desk.shown(), markup.note(f"{written} words in {time.perf_counter() - began:.1f} s, {seeds}")

    def colour(coloured, desk):
        desk.coloured = bool(coloured)
        return desk.shown() if desk.rows else gr.skip()

    def stopped(desk):
        desk.writing = False
        return (desk.shown() if desk.rows else gr.skip()), markup.note("Stopped.")

    def take(desk, event: gr.EventData):
        """The candidate that was chosen goes into the prompt."""
        desk.lay(answers.taken(desk.prompt, desk.rows, *event_of(event, "row")), [], 0)
        yield desk, desk.prompt, desk.shown(), markup.note("It is part of the text now: Write goes on from there.")

    def branch(desk, event: gr.EventData):
        """What was likely instead of a token goes into the prompt, behind what is before that token."""
        yield answers.taken(desk.prompt, desk.rows, *event_of(event, "row", "position", "alternative"))

    values = [prompt, count, length, temperature, top_p, top_k, seed, desk]
    outputs = [desk, output, status]
    begun = connect(handler, values, outputs, [go.click, prompt.submit], tries, [(text,) for text in PROMPTS])
    quiet = {"show_progress": "hidden", **PRIVATE}
    branched = output.branch(spoken(branch), [desk], prompt, cancels=begun, **quiet)
    begun.append(run(branched.success, handler, values, outputs))
    output.take(spoken(take), [desk], [desk, prompt, output, status], cancels=begun, **quiet)
    stops(stop, begun, stopped, [desk], [output, status])
    coloured.change(colour, [coloured, desk], output, queue=False, **quiet)

    def api(
        prompt: str, max_tokens: int = 100, temperature: float = 0.8, top_k: int = 0, top_p: float = 0.95, seed: int = 0
    ) -> Iterator[str]:
        """Continues a text; streams the continuation so far."""
        sampling = answers.sampling_of(temperature, top_k, top_p)
        yield from answers.written(part.model, prompt, max_tokens, sampling, answers.seed_of(seed))

    def several(
        prompt: str,
        count: int = 4,
        max_tokens: int = 100,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 0.95,
        seed: int = 0,
    ) -> Iterator[list[dict]]:
        """Continues a text in several ways, with seed, seed + 1 ...: [{"text", "tokens", "token_logprobs",
        "mean_logprob"}, ...]."""
        sampling, seed = answers.sampling_of(temperature, top_k, top_p), answers.seed_of(seed)
        (last,) = deque(answers.candidates(part.model, prompt, count, max_tokens, sampling, seed), maxlen=1)
        rows = [answers.row_of(part.model[1], row) for row in last]
        yield [{"text": row.text, **record(row.tokens), "mean_logprob": row.mean_logprob} for row in rows]

    gr.api(spoken(api), api_name="write", **MODEL)
    gr.api(spoken(several), api_name="candidates", **MODEL)


def event_of(event: gr.EventData, *names: str) -> list[Any]:
    """What the page's script says of a click, which anybody may have sent."""
    data = event._data if isinstance(event._data, dict) else {}
    return [data.get(name) if data.get(name) is not None else "missing" for name in names]


def record(tokens: tuple[answers.Token, ...]) -> dict[str, list]:
    return {"tokens": [token.shown for token in tokens], "token_logprobs": [token.logprob for token in tokens]}


REMARK = """
GPT-3 has 175 billion parameters; the model that comes with this page has 7 million. It has read lists such as
`sunflower => tournesol`, of the names of emoji: it finds the right one of several translations well above chance, and
writes few of them. Sentiment and sums it guesses. `--gpt` takes a model that you trained or converted, such as GPT-2.
"""


def fewshot_tab(part: Part) -> None:
    _, *first = TASKS[0]

    def told(query, examples, description, choices, template, separator):
        task = answers.task_of(
            query, examples, description, names_in(answers.words("the choices", choices)), template,
            SEPARATORS.get(separator, "\n"),
        )  # fmt: skip
        return task, answers.told(part.model, task)

    def preview(*values):
        try:
            return markup.prompt(told(*values)[1])
        except UserError as error:
            return markup.hint(f"No prompt yet: {error}")

    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            description = gr.Textbox(
                first[2], label="Description", info="What to do, in a sentence; may be empty.", max_lines=4,
                max_length=MAX_LETTERS, elem_id="fewshot-description",
            )  # fmt: skip
            examples = gr.Dataframe(
                first[1], headers=["Input", "Output"], datatype="str", type="array", interactive=True, wrap=True,
                label="Examples", buttons=[], max_height=320, elem_id="fewshot-examples",
            )  # fmt: skip
            more = gr.Button("Add an example", size="sm", elem_id="fewshot-more")
            query = gr.Textbox(first[0], label="Query", max_lines=6, max_length=MAX_LETTERS, elem_id="fewshot-query")
            choices = gr.Textbox(
                first[3], label="Choices", info="With commas between, or one a line; empty, and the answer is written.",
                max_lines=6, max_length=MAX_LETTERS, elem_id="fewshot-choices",
            )  # fmt: skip
            go = gr.Button("Answer", variant="primary", elem_id="fewshot-go")
            tries = chips([name for name, *_ in TASKS])
            with gr.Accordion("Format", open=False):
                template = gr.Textbox(
                    first[4], label="Of an example", info="{input} once, and {output} at the end.", max_lines=4,
                    max_length=1000, elem_id="fewshot-template",
                )  # fmt: skip
                separator = gr.Radio(list(SEPARATORS), value=first[5], label="Between examples")
                normalise = gr.Radio(
                    list(NORMALISE), value="a token", label="Choices compare by the log-probability of",
                    info="Matters where they differ in length; GPT-3 mostly took a token.",
                )  # fmt: skip
        with gr.Column(scale=5, min_width=320):
            prompt = gr.HTML(preview(*first), elem_id="fewshot-prompt")
            output = gr.HTML(markup.hint("The answer appears here."), elem_id="fewshot-output", js_on_load=script())
            status = gr.HTML(elem_id="fewshot-status")
            gr.Markdown(REMARK, elem_classes="remark")

    def handler(*values):
        *values, normalise = values
        began = time.perf_counter()
        task, made = told(*values)
        tokenizer = part.model[1]
        if task.queries[0].options:
            ranked = answers.chosen(part.model, task, made.prompt, NORMALISE.get(normalise))
            line = f"{len(ranked)} choices, by the probability of {normalise}, in {time.perf_counter() - began:.2f} s"
            yield markup.ranking(ranked, "{}", None, "choices"), markup.note(line)
            return
        for row in answers.answered(part.model, task, made.prompt):
            yield markup.answer(answers.row_of(tokenizer, row), writing=True), markup.note("Writing ...")
        line = f"{len(row.tokens)} tokens in {time.perf_counter() - began:.2f} s"
        line += " · it went on, and was ended here" if row.finish_reason == "length" else ""
        yield markup.answer(answers.row_of(tokenizer, row), writing=False), markup.note(line)

    values = [query, examples, description, choices, template, separator]
    starts = [go.click, query.submit, choices.submit]
    connect(handler, [*values, normalise], [output, status], starts, tries, [tuple(rest) for _, *rest in TASKS])
    quiet = {"show_progress": "hidden", "queue": False, **PRIVATE}
    gr.on([value.change for value in values], preview, values, prompt, trigger_mode="always_last", **quiet)
    more.click(lambda rows: [*rows, ["", ""]][:MAX_EXAMPLES], examples, examples, **quiet)

    def api(
        query: str,
        examples: list[list[str]],
        description: str = "",
        choices: list[str] | None = None,
        template: str = ARROW,
        separator: str = "\n",
        normalise: str = "token",
    ) -> Iterator[dict]:
        """Answers a query from a prompt with examples, pairs of input and output: {"prompt", "tokens", "shots",
        "answer", "choices"}; choices are {choice: share of the probability}, where there are any."""
        task = answers.task_of(query, examples, description, choices or [], template, separator)
        made = answers.told(part.model, task)
        ranked, answer = None, ""
        if choices:
            ranked = answers.chosen(part.model, task, made.prompt, normalise)
            answer = ranked[0][0]
        else:
            for row in answers.answered(part.model, task, made.prompt):
                answer = row.text.strip()
        yield {
            "prompt": made.prompt.text,
            "tokens": made.tokens,
            "shots": made.prompt.shots,
            "answer": answer,
            "choices": ranked and dict(ranked),
        }

    gr.api(spoken(api), api_name="fewshot", **MODEL)


def score_tab(part: Part) -> None:
    _, first, second = TEXTS[0]
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            text = gr.Textbox(first, label="Text", lines=4, max_lines=14, max_length=MAX_LETTERS, elem_id="score-text")
            other = gr.Textbox(
                second, label="Compare with", info="Which of the two is the likelier? May be empty.", lines=2,
                max_lines=14, max_length=MAX_LETTERS, elem_id="score-other",
            )  # fmt: skip
            go = gr.Button("Score", variant="primary", elem_id="score-go")
            tries = chips([name for name, *_ in TEXTS])
        with gr.Column(scale=5, min_width=320):
            output = gr.HTML(
                markup.hint("The text appears here, every token coloured by its probability."), elem_id="score-output",
                js_on_load=script(),
            )  # fmt: skip
            status = gr.HTML(elem_id="score-status")

    def handler(text, other):
        began = time.perf_counter()
        scored = [answers.scored(part.model, each) for each in ([text, other] if other else [text])]
        told = f"{sum(each.totals.tokens for each in scored):,} tokens in {time.perf_counter() - began:.2f} s"
        unknown = sum(each.unknown for each in scored)
        told += f" · {unknown:,} characters are unknown to the model, and scored as unknown" if unknown else ""
        yield markup.scores(scored), markup.note(told)

    connect(handler, [text, other], [output, status], [go.click], tries, [tuple(rest) for _, *rest in TEXTS])

    def api(text: str) -> Iterator[dict]:
        """Scores a text as `python -m gpt.score --json` does: {"tokens", "token_logprobs", "logprob", "perplexity",
        "bits_per_byte"}."""
        scored = answers.scored(part.model, text)
        figures = {name: getattr(scored.totals, name) for name in ("logprob", "perplexity", "bits_per_byte")}
        yield record(scored.tokens) | figures

    gr.api(spoken(api), api_name="score", **MODEL)
