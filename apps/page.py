"""The page: loaded models in, a gradio page with the tabs Write, Few-shot, Score, Draw, Classify and About out.

What the tabs show, the page's API gives as data: /write, /candidates, /fewshot, /score, /draw, /caption and /classify.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from apps import answers, markup
from apps.draw_tab import draw_tab
from apps.text_tabs import fewshot_tab, score_tab, write_tab
from apps.wiring import MODEL, Part, connect, names_in, spoken
from multimodal import images
from multimodal.cli import UserError

HERE = Path(__file__).resolve().parent

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
**Three models, one backbone.** The writer continues a text token by token; Few-shot and Score ask the same model. The
drawer does so with a caption, followed by the codes of a picture, which a discrete autoencoder turns into pixels. The
classifier puts pictures and sentences into one space and takes the nearest sentence. All three run on this machine;
nothing that you type or upload leaves it.

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
    tabs = (
        ("Write", "gpt", write_tab),
        ("Few-shot", "gpt", fewshot_tab),
        ("Score", "gpt", score_tab),
        ("Draw", "dalle", lambda part: draw_tab(part, parts["clip"])),
        ("Classify", "clip", classify_tab),
    )
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
                for title, package in (("Write", "gpt"), ("Draw", "dalle"), ("Classify", "clip")):
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
