"""The tab Draw: a loaded DALL·E in; drawings of a prompt, of a picture that is given in part, and a caption out.

As in the talk: "text, and if necessary an image, partial or complete". The picture's upper rows stay, or all that is not
painted over, or a random half of it; CLIP may order what was drawn. The page's API has the same as /draw and /caption.
"""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import gradio as gr

from apps import answers, markup
from apps.answers import MAX_DRAWINGS, MAX_LETTERS
from apps.wiring import MODEL, Part, chips, connect, run, seed_box, spoken, stops
from clip import zeroshot
from dalle.presets import GUIDANCE, TEMPERATURE
from multimodal import images
from multimodal.cli import UserError

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
# what stays of a picture, in the words of the page and of the API
UPPER, UNPAINTED, HALF = "the upper rows", "all that is not painted over", "a random half"
STAYS = {"rows": UPPER, "mask": UNPAINTED, "half": HALF}


def files_of(payload) -> SimpleNamespace | None:
    """The paths of an editor's picture and of what was painted over it: `images.read` has a sentence for whatever a file
    may be, gradio has not."""
    if payload is None or payload.background is None:
        return None
    painted = payload.layers[0].path if payload.layers else None
    return SimpleNamespace(picture=payload.background.path, painted=painted)


def draw_tab(part: Part, judge: Part) -> None:
    grid = part.model.model.config.grid
    score = zeroshot.scorer(judge.model) if judge.model is not None else None
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
            rank = gr.Checkbox(
                label="The best first", info="CLIP orders the drawings by how well they fit the words.",
                visible=score is not None, elem_id="draw-rank",
            )  # fmt: skip
            with gr.Accordion("Begin with a picture", open=False, elem_id="draw-begin"):
                editor = gr.ImageEditor(
                    label="Picture", sources=["upload", "clipboard"], layers=False, transforms=(), height=320,
                    brush=gr.Brush(default_size="auto", colors=["#000000"], color_mode="fixed"), buttons=[],
                    elem_id="draw-picture",
                )  # fmt: skip
                editor.preprocess = files_of
                stays = gr.Radio(list(STAYS.values()), value=UPPER, label="What stays", elem_id="draw-stays")
                rows = gr.Slider(
                    1, grid - 1, grid // 2, step=1, label="Rows that stay", info=f"Of {grid} rows of codes.",
                    elem_id="draw-rows",
                )  # fmt: skip
                stays.change(
                    lambda kind: gr.update(visible=kind == UPPER), stays, rows, queue=False, api_visibility="private"
                )
                describe = gr.Button(
                    "Describe it", elem_id="draw-describe", visible=part.model.model.config.captions, min_width=120
                )
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

    def handler(prompt, count, guidance, temperature, top_k, seed, files, kind, rows, rank):
        began, sampling, given = time.perf_counter(), answers.sampling_of(temperature, top_k), None
        if files is not None:
            if kind == UNPAINTED and files.painted is None:
                raise UserError("nothing is painted over yet: paint where something new is to be drawn.")
            painted = images.read(files.painted) if kind == UNPAINTED else None
            given = answers.Given(images.read(files.picture), kind_of(kind), rows, painted)
        seed, judging = answers.seed_of(seed), score if rank else None
        for done, drawings in answers.drawn(part.model, prompt, count, guidance, sampling, seed, given, judging):
            seconds, what = time.perf_counter() - began, "drawing" if len(drawings) == 1 else "drawings"
            told = f"{len(drawings)} {what} in {seconds:.1f} s" if done == 1 else f"Drawing ... {done:.0%}"
            told += answers.unseen_words(part.model, prompt)
            if done == 1 and given is not None:
                told += answers.unseen_places(part.model, given)
            yield markup.sheet(prompt, drawings, done == 1), markup.note(told)

    values = [prompt, count, guidance, temperature, top_k, seed, editor, stays, rows, rank]
    samples = [(text,) for text in SUBJECTS]
    begun = connect(handler, values, [output, status], [go.click, prompt.submit], tries, samples)
    stops(stop, begun, lambda: markup.note("Stopped."), [], [status])

    def describing(files):
        if files is None:
            raise UserError("there is no picture yet: drop one into the box.")
        found = answers.described(part.model, images.read(files.picture))
        yield found.text, markup.note(f"“{found.text}”, at {found.mean_logprob:.2f} nats a token")

    run(describe.click, describing, [editor], [prompt, status])

    def api(
        prompt: str,
        count: int = 1,
        guidance: float = GUIDANCE,
        temperature: float = TEMPERATURE,
        top_k: int = 0,
        seed: int = 0,
        image: str | None = None,
        stays: str = "rows",
        rows: int | None = None,
        painted: str | None = None,
        rank: bool = False,
    ) -> Iterator[list[dict]]:
        """Draws; streams [{"seed": 0, "image": "data:image/png;base64,...", "score": null}, ...] as the drawings fill in.

        Of an `image` (a data URL or base64) there stay: `rows` (default half of the rows of codes), all but what is dark in
        `painted`, an image as large ("mask"), or another random half for each drawing ("half"). With `rank` CLIP
        scores the drawings, the best is the first of the last answer."""
        sampling, given = answers.sampling_of(temperature, top_k), None
        if image is not None:
            if stays not in STAYS:
                raise UserError(f"stays is {stays[:50]!r}: allowed are {', '.join(STAYS)}.")
            if stays == "mask" and painted is None:
                raise UserError(
                    "stays is mask, but there is no image `painted`, dark where something new is to be drawn."
                )
            mask = images.read(answers.file_of(painted)) if stays == "mask" else None
            given = answers.Given(images.read(answers.file_of(image)), stays, grid // 2 if rows is None else rows, mask)
        if rank and score is None:
            raise UserError("there is no CLIP to rank by: the page was started without one.")
        turns = answers.drawn(
            part.model, prompt, count, guidance, sampling, answers.seed_of(seed), given, score if rank else None
        )
        for _, drawings in turns:
            yield [
                {"seed": each.seed, "image": markup.data_url(each.picture), "score": each.score} for each in drawings
            ]

    def caption(image: str) -> Iterator[str]:
        """The likeliest caption of an image given as a data URL or as base64."""
        yield answers.described(part.model, images.read(answers.file_of(image))).text

    gr.api(spoken(api), api_name="draw", **MODEL)
    gr.api(spoken(caption), api_name="caption", **MODEL)


def kind_of(words: str) -> str:
    return next(kind for kind, said in STAYS.items() if said == words)
