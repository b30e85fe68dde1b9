"""The tab Search: words, a picture, or both in; the pictures of a folder that lie nearest out."""

import time
from collections.abc import Iterator

import gradio as gr

from apps import answers, markup
from apps.answers import MAX_FOUND, MAX_LETTERS
from apps.wiring import MODEL, Part, run, spoken
from multimodal import images


def search_tab(part: Part) -> None:
    shelf = part.model
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            text = gr.Textbox(
                label="What to look for", placeholder="words, a sentence", max_length=MAX_LETTERS, max_lines=2,
                elem_id="search-text",
            )  # fmt: skip
            minus = gr.Textbox(
                label="But not", placeholder="what the pictures should have less of", max_length=MAX_LETTERS, max_lines=2,
                elem_id="search-minus",
            )  # fmt: skip
            picture = gr.Image(
                label="Like this picture", sources=["upload", "clipboard"], height=200, buttons=[],
                elem_id="search-picture",
            )  # fmt: skip
            picture.preprocess = lambda payload: payload.path if payload is not None else None
            count = gr.Slider(1, MAX_FOUND, 12, step=1, label="Pictures", elem_id="search-count")
            go = gr.Button("Search", variant="primary", elem_id="search-go")
        with gr.Column(scale=6, min_width=320):
            output = gr.HTML(
                markup.hint(
                    f"{len(shelf.index):,} pictures of {shelf.folder} can be searched: the nearest appear here."
                ),
                elem_id="search-output",
            )
            status = gr.HTML(elem_id="search-status")

    def handler(text, minus, path, count):
        began = time.perf_counter()
        found = answers.found(shelf, text, minus, images.read(path) if path else None, count)
        cards = []
        for score, file in found:
            try:
                cards.append(markup.found_card(images.read(file, markup.FOUND), file.name, score))
            except images.ImageError as error:  # gone or changed since it was indexed
                cards.append(markup.unreadable(file.name, str(error)))
        told = f"the nearest {len(found)} of {len(shelf.index):,} pictures in {time.perf_counter() - began:.2f} s"
        yield markup.cards(cards, "found"), markup.note(told)

    run(go.click, handler, [text, minus, picture, count], [output, status])
    run(text.submit, handler, [text, minus, picture, count], [output, status])

    def api(text: str = "", minus: str = "", image: str | None = None, n: int = 12) -> Iterator[list[dict]]:
        """The n nearest pictures to a text, less another, and a picture as a data URL or base64: their names and cosines."""
        seen = images.read(answers.file_of(image)) if image else None
        nearest = answers.found(shelf, text, minus, seen, n)
        yield [{"image": str(file.relative_to(shelf.folder)), "score": round(score, 4)} for score, file in nearest]

    gr.api(spoken(api), api_name="search", **MODEL)
