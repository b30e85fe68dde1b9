"""The page: loaded models in, a gradio page with the tabs Write, Few-shot, Score, Draw, Classify, Search and About out.

What the tabs show, the page's API gives as data: /write, /candidates, /fewshot, /score, /draw, /caption, /classify and
/search.
"""

from pathlib import Path

import gradio as gr

from apps import markup
from apps.classify_tab import classify_tab
from apps.draw_tab import draw_tab
from apps.search_tab import search_tab
from apps.text_tabs import fewshot_tab, score_tab, write_tab
from apps.wiring import Part

HERE = Path(__file__).resolve().parent

ABOUT = """
**Three models, one backbone.** The writer continues a text token by token; Few-shot and Score ask the same model. The
drawer does so with a caption, followed by the codes of a picture, which a discrete autoencoder turns into pixels. The
classifier puts pictures and sentences into one space and takes the nearest sentence; Search takes the nearest pictures of a
folder. All three run on this machine; nothing that you type or upload leaves it.

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
        ("Search", "search", search_tab),
    )
    page = gr.Blocks(title="Write, draw, classify", analytics_enabled=False, delete_cache=(3600, 86_400))
    with page:
        gr.HTML(HEADER)
        with gr.Tabs():
            for title, package, tab in tabs:
                with gr.Tab(title):
                    if parts[package].problem:
                        said = parts[package].problem
                        gr.HTML(markup.hint(said if package == "search" else f"{title} has no model: {said}"))
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
