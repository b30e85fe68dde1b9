"""The page: loaded models in, a gradio page with the tabs Write, Draw, Classify and About out.

All tabs share one place in the queue: while a model works for one visitor, the others wait. What the tabs show, the
page's API gives as data: /write, /draw and /classify.
"""

import functools
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from apps import answers, markup
from apps.answers import MAX_DRAWINGS, MAX_LETTERS, MAX_SEED, MAX_TOKENS
from dalle.presets import GUIDANCE, TEMPERATURE
from multimodal import images
from multimodal.cli import UserError

HERE = Path(__file__).resolve().parent
MODEL = {"concurrency_id": "model", "concurrency_limit": 1}  # one model call at a time, whichever tab asks

PROMPTS = (
    "To be, or not to be",
    "In the beginning God created",
    "And it came to pass, when the king heard it,",
    "def mean(values):\n",
    "English => French\ncheese wedge => part de fromage\nred apple =>",
)
SUBJECTS = (
    "a cat",
    "a red apple",
    "a pizza",
    "a rocket",
    "a sunflower",
    "a dog on a blue background",
    "an owl in the style of openmoji",
    "three strawberries",
    "a fish to the left of a sailboat",
)
ONE, AS_IT_IS = "a drawing of a {}", "{}"
# file, class names, the right one, the sentence around a name
PICTURES = (
    ("dog.png", "dog, cat, horse, lion, rabbit, pizza", "dog", ONE),
    ("pizza.png", "hamburger, pizza, taco, sandwich, cheese wedge, pie, waffle", "pizza", ONE),
    ("rocket.png", "airplane, rocket, helicopter, parachute, comet, sailboat", "rocket", ONE),
    ("owl.png", "eagle, owl, parrot, penguin, duck, bat, rooster", "owl", ONE),
    ("sailboat.png", "speedboat, canoe, sailboat, mountain, kite, tent", "sailboat", ONE),
    ("strawberry.png", "strawberry, tomato, cherries, red apple, watermelon, peach", "strawberry", ONE),
    (
        "cat-and-fish.png",
        "a cat to the left of a fish\na cat to the right of a fish\na dog to the left of a fish\na cat\na fish",
        "a cat to the left of a fish",
        AS_IT_IS,
    ),
    ("two-apples.png", "a red apple, two red apples, three red apples, four red apples", "two red apples", AS_IT_IS),
)


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


def connect(handler, inputs: list, outputs: list, starts: list, tries: gr.Dataset, samples: list, stop=None) -> None:
    """The handler runs on each of `starts`, and on a click on an example, whose sample first fills the inputs it has
    values for; `stop` ends it. The last output is the line that tells how far it is."""
    private, filled = {"api_visibility": "private"}, inputs[: len(samples[0])]
    pick = (lambda i: samples[i]) if len(filled) > 1 else (lambda i: samples[i][0])
    picked = tries.click(pick, tries, filled, show_progress="hidden", queue=False, **private)
    working = {"show_progress": "minimal", "show_progress_on": outputs[-1], **private, **MODEL}
    begun = [
        gr.on(starts, spoken(handler), inputs, outputs, **working),
        picked.success(spoken(handler), inputs, outputs, **working),
    ]
    if stop is not None:
        ended = stop.click(None, cancels=begun, **private)  # and only then the line, which a late turn would replace
        ended.then(lambda: markup.note("Stopped."), None, outputs[-1], queue=False, show_progress="hidden", **private)


def seed_box() -> gr.Number:
    return gr.Number(
        label="Seed", info="The same seed gives the same again.", placeholder="a new one each time",
        precision=0, minimum=0, maximum=MAX_SEED,
    )  # fmt: skip


def chips(texts: list[str]) -> gr.Dataset:
    return gr.Dataset(
        label="Try", components=["textbox"], samples=[[t] for t in texts], sample_labels=texts, type="index"
    )


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
            output = gr.HTML(markup.hint("The continuation appears here, word by word."), elem_id="write-output")
            status = gr.HTML(elem_id="write-status")

    def handler(prompt, length, temperature, top_p, top_k, seed):
        seed, began, text = answers.seed_of(seed), time.perf_counter(), ""
        sampling = answers.sampling_of(temperature, top_k, top_p)
        for text in answers.written(part.model, prompt, length, sampling, seed):
            yield markup.paper(prompt, text, writing=True), markup.note("Writing ...")
        told = f"{len(text.split())} words in {time.perf_counter() - began:.1f} s, seed {seed}"
        yield markup.paper(prompt, text, writing=False), markup.note(told)

    values = [prompt, length, temperature, top_p, top_k, seed]
    samples = [(text,) for text in PROMPTS]
    connect(handler, values, [output, status], [go.click, prompt.submit], tries, samples, stop)

    def api(
        prompt: str, max_tokens: int = 100, temperature: float = 0.8, top_k: int = 0, top_p: float = 0.95, seed: int = 0
    ) -> Iterator[str]:
        """Continues a text; streams the continuation so far."""
        sampling = answers.sampling_of(temperature, top_k, top_p)
        yield from answers.written(part.model, prompt, max_tokens, sampling, answers.seed_of(seed))

    gr.api(spoken(api), api_name="write", **MODEL)


def draw_tab(part: Part) -> None:
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            prompt = gr.Textbox(
                SUBJECTS[0], label="What to draw", max_lines=3, max_length=MAX_LETTERS, elem_id="draw-prompt"
            )
            with gr.Row():
                go = gr.Button("Draw", variant="primary", elem_id="draw-go", min_width=120)
                stop = gr.Button("Stop", elem_id="draw-stop", min_width=90)
            tries = chips(list(SUBJECTS))
            count = gr.Slider(1, MAX_DRAWINGS, 4, step=1, label="Drawings", elem_id="draw-count")
            with gr.Accordion("Sampling", open=False):
                guidance = gr.Slider(
                    1, 10, GUIDANCE, step=0.5, label="Guidance",
                    info="How closely to follow the words; 1 is as learned.",
                )  # fmt: skip
                temperature = gr.Slider(
                    0, 2, TEMPERATURE, step=0.05, label="Temperature",
                    info="0 takes the likeliest code, 1 samples as learned.",
                )  # fmt: skip
                top_k = gr.Slider(0, 500, 0, step=1, label="Top-k", info="Only this many of the likeliest; 0 is all.")
                seed = seed_box()
        with gr.Column(scale=5, min_width=320):
            output = gr.HTML(markup.hint("The drawings appear here, from top to bottom."), elem_id="draw-output")
            status = gr.HTML(elem_id="draw-status")

    def handler(prompt, count, guidance, temperature, top_k, seed):
        began, sampling = time.perf_counter(), answers.sampling_of(temperature, top_k)
        for done, drawings in answers.drawn(part.model, prompt, count, guidance, sampling, answers.seed_of(seed)):
            seconds, what = time.perf_counter() - began, "drawing" if len(drawings) == 1 else "drawings"
            told = f"{len(drawings)} {what} in {seconds:.1f} s" if done == 1 else f"Drawing ... {done:.0%}"
            told += answers.unseen_words(part.model, prompt)
            yield markup.sheet(prompt, drawings, done == 1), markup.note(told)

    values = [prompt, count, guidance, temperature, top_k, seed]
    samples = [(text,) for text in SUBJECTS]
    connect(handler, values, [output, status], [go.click, prompt.submit], tries, samples, stop)

    def api(
        prompt: str,
        count: int = 1,
        guidance: float = GUIDANCE,
        temperature: float = TEMPERATURE,
        top_k: int = 0,
        seed: int = 0,
    ) -> Iterator[list[dict]]:
        """Draws; streams [{"seed": 0, "image": "data:image/png;base64,..."}, ...] as the drawings fill in."""
        sampling = answers.sampling_of(temperature, top_k)
        for _, drawings in answers.drawn(part.model, prompt, count, guidance, sampling, answers.seed_of(seed)):
            yield [{"seed": seed, "image": markup.data_url(picture)} for seed, picture in drawings]

    gr.api(spoken(api), api_name="draw", **MODEL)


def names_in(text: str) -> list[str]:
    """The class names of the box: one a line, or with commas between where there is only one line."""
    parts = text.splitlines() if "\n" in text.strip() else text.split(",")
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def classify_tab(part: Part) -> None:
    samples = [(str(HERE / "examples" / file), *words) for file, *words in PICTURES]
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            picture = gr.Image(
                samples[0][0], label="Picture", sources=["upload", "clipboard"], height=230, buttons=[],
                elem_id="classify-picture",
            )  # fmt: skip
            # the upload as it came: images.read has a sentence for whatever a file may be, gradio has not
            picture.preprocess = lambda payload: payload.path if payload is not None else None
            tries = gr.Dataset(
                label="Try", components=[gr.Image(render=False)], samples=[[path] for path, *_ in samples],
                layout="gallery", type="index", elem_id="classify-tries",
            )  # fmt: skip
        with gr.Column(scale=5, min_width=320):
            labels = gr.Textbox(
                samples[0][1], label="Class names", info="One a line, or with commas between.", lines=2, max_lines=12,
                elem_id="classify-labels",
            )  # fmt: skip
            with gr.Row():
                truth = gr.Textbox(
                    samples[0][2], label="The right one, if you know it", elem_id="classify-truth", min_width=140
                )
                template = gr.Textbox(
                    samples[0][3], label="Sentence around a name", max_lines=5, elem_id="classify-template",
                    min_width=140,
                )  # fmt: skip
            go = gr.Button("Classify", variant="primary", elem_id="classify-go")
            output = gr.HTML(markup.hint("The names appear here, the likeliest first."), elem_id="classify-output")
            status = gr.HTML(elem_id="classify-status")

    def handler(path, labels, truth, template):
        if path is None:
            raise UserError("there is no picture yet: drop one into the box, or click an example.")
        began, names, truth = time.perf_counter(), names_in(labels), truth.strip()
        right = next((name for name in names if name.casefold() == truth.casefold()), None)
        if truth and right is None:
            raise UserError(f"{truth!r} is none of the class names: spell it as there, or leave it empty.")
        templates = [line.strip() for line in template.splitlines() if line.strip()]
        ranked = answers.ranked(part.model, images.read(path), names, templates)
        shown = templates[0] if len(templates) == 1 else "{}"
        told = f"{len(names)} labels in {time.perf_counter() - began:.2f} s"
        yield markup.ranking(ranked, shown, right), markup.note(told)

    values, starts = [picture, labels, truth, template], [go.click, truth.submit, template.submit]
    connect(handler, values, [output, status], starts, tries, samples)

    def api(image: str, labels: list[str], templates: list[str] | None = None) -> Iterator[dict[str, float]]:
        """Ranks labels for a picture given as a data URL or as base64: {label: probability}, the likeliest first."""
        yield dict(answers.ranked(part.model, images.read(answers.file_of(image)), labels, templates or []))

    gr.api(spoken(api), api_name="classify", **MODEL)


ABOUT = """
**Three models, one backbone.** The writer continues a text token by token. The drawer does the same with a caption,
followed by the codes of a picture, which a discrete autoencoder turns into pixels. The classifier puts pictures and
sentences into one space and takes the nearest sentence. All three run on this machine; nothing that you type or upload
leaves it.

**What they are not.** They are small, and were trained on little. The writer knows the sound of Shakespeare and of the
King James Bible and the look of Python code, no facts, and may write what is wrong or offensive. The drawer knows a few
hundred everyday things in two styles of emoji, and simple arrangements of them. The classifier knows such drawings; on
photographs it is near chance.

**Sources.** The drawings learnt from, and the example pictures, are [Twemoji](https://github.com/jdecked/twemoji)
(© Twitter, Inc. and other contributors, CC-BY 4.0) and [OpenMoji](https://openmoji.org) (CC-BY-SA 4.0), named by the
`emoji` package (BSD). Shakespeare's works and the King James Bible are in the public domain; Python's standard library
is under the PSF licence. This toolkit is under the MIT licence.
"""
HEADER = """<header class="masthead"><h1>Write, draw, classify</h1>
<p>Three small models on one backbone. They run on this machine.</p></header>"""


def build(parts: dict[str, Part]) -> gr.Blocks:
    """The page over the parts gpt, dalle and clip."""
    tabs = (("Write", "gpt", write_tab), ("Draw", "dalle", draw_tab), ("Classify", "clip", classify_tab))
    page = gr.Blocks(title="Write, draw, classify", analytics_enabled=False, delete_cache=(3600, 86_400))
    with page:
        gr.HTML(HEADER)
        with gr.Tabs():
            for title, package, tab in tabs:
                with gr.Tab(title):
                    if parts[package].problem:
                        gr.HTML(markup.hint(f"{title} has no model: {parts[package].problem}"))
                    else:
                        tab(parts[package])
            with gr.Tab("About"):
                gr.Markdown(ABOUT, elem_classes="about")
                for title, package, _ in tabs:
                    if parts[package].card:
                        with gr.Accordion(f"{title}: the model's card", open=False):
                            gr.Markdown(parts[package].card)
    return page.queue(max_size=16, default_concurrency_limit=1)


def theme() -> gr.themes.Base:
    """Ink on paper with one accent, and only fonts that the visitor's machine has."""
    sans, mono = ("ui-sans-serif", "system-ui", "sans-serif"), ("ui-monospace", "Consolas", "monospace")
    base = gr.themes.Base(primary_hue="indigo", neutral_hue="stone", radius_size="lg", font=sans, font_mono=mono)
    return base.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_500",
        input_background_fill="white",
        input_background_fill_dark="*neutral_900",
        input_border_width="1px",
        button_border_width="1px",
        button_secondary_background_fill="white",
        button_secondary_border_color="*neutral_200",
    )


def show(page: gr.Blocks, host: str, port: int) -> None:
    """Serves the page from a thread and returns."""
    page.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, ssr_mode=False,
        max_file_size="20mb", footer_links=["api", "settings"], theme=theme(), css_paths=[HERE / "page.css"],
        allowed_paths=[str(HERE / "examples")],  # gradio serves nothing else from outside the folder it was started in
    )  # fmt: skip
