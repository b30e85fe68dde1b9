"""The tab Classify: pictures, class names and sentences around them in; rankings out, and what they depend on."""

import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from apps import answers, markup
from apps.wiring import MODEL, Part, connect, names_in, spoken
from clip import templates as prompts
from multimodal import images
from multimodal.cli import UserError

HERE = Path(__file__).resolve().parent
MAX_PICTURES = 200

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
        "a cat to the left of a fish\na dog to the left of a fish\na cat to the left of a bird\na cat\na fish",
        "a cat to the left of a fish",
        AS_IT_IS,
    ),
    ("two-apples.png", "a red apple, two red apples, three red apples, four red apples", "two red apples", AS_IT_IS),
)
CHOICES = [("one of the names (softmax)", "softmax"), ("each name by itself (sigmoid)", "sigmoid")]


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
            with gr.Accordion("Several pictures at once", open=False, elem_id="classify-several"):
                several = gr.File(
                    label=f"Up to {MAX_PICTURES} pictures", file_count="multiple", type="filepath", height=140,
                    elem_id="classify-files",
                )  # fmt: skip
                many = gr.Button("Classify them all", elem_id="classify-many")
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
            with gr.Accordion("More", open=False, elem_id="classify-more"):
                known = gr.Dropdown(
                    [(prompts.find(name).title, name) for name in prompts.names()], value=None,
                    label="Names and sentences of a data set",
                    info="As its zero-shot figure is measured; they fill the boxes above, to be edited.",
                    elem_id="classify-set",
                )  # fmt: skip
                scores = gr.Radio(
                    CHOICES, value=part.model.scores, label="What the shares say", elem_id="classify-scores"
                )
                depends = gr.Checkbox(
                    True, label="Show what the first name depends on", elem_id="classify-depends",
                    info="Red places speak for it: its probability falls when they are covered. Blue ones speak against it.",
                )  # fmt: skip
            go = gr.Button("Classify", variant="primary", elem_id="classify-go")
            output = gr.HTML(markup.hint("The names appear here, the likeliest first."), elem_id="classify-output")
            status = gr.HTML(elem_id="classify-status")

    def asked(labels, truth, template):
        """Names, templates, and the right name or None."""
        names, truth = names_in(labels), truth.strip()
        right = next((name for name in names if name.casefold() == truth.casefold()), None)
        if truth and right is None:
            raise UserError(f"{truth!r} is none of the class names: spell it as there, or leave it empty.")
        return names, [line.strip() for line in template.splitlines() if line.strip()], right

    def handler(path, labels, truth, template, scores, depends):
        if path is None:
            raise UserError("there is no picture yet: drop one into the box, or click an example.")
        began, (names, templates, right) = time.perf_counter(), asked(labels, truth, template)
        seen = images.read(path)
        ranked = answers.ranked(part.model, seen, names, templates, scores)
        shown = templates[0] if len(templates) == 1 else "{}"
        ranking = markup.ranking(ranked, shown, right)
        told = f"{len(names)} labels in {time.perf_counter() - began:.2f} s"
        yield ranking, markup.note(told)
        if depends:
            covered = answers.depends_on(part.model, seen, names, templates, ranked[0][0])
            yield ranking + markup.map_of(covered, ranked[0][0]), markup.note(told)

    def all_of_them(paths, labels, truth, template, scores):
        if not paths:
            raise UserError("there are no pictures yet: drop some into the box.")
        if len(paths) > MAX_PICTURES:
            raise UserError(
                f"{len(paths)} pictures were given: at most {MAX_PICTURES} at once; clip.classify takes any."
            )
        began, (names, templates, right) = time.perf_counter(), asked(labels, truth, template)
        cards, hits, failed = [], 0, 0
        for number, path in enumerate(paths, 1):
            try:
                seen = images.read(path, part.model.size)
            except images.ImageError as error:
                cards.append(markup.unreadable(Path(path).name, str(error).replace(path, Path(path).name)))
                failed += 1
            else:
                ranked = answers.ranked(part.model, seen, names, templates, scores)
                hits += ranked[0][0] == right
                cards.append(markup.card_of(seen, Path(path).name, ranked, right))
            if number % 16 == 0 or number == len(paths):
                told = f"{number} of {len(paths)} pictures in {time.perf_counter() - began:.1f} s"
                told += f" · {hits} are {right}" if right else ""
                told += f" · {failed} could not be read" if failed else ""
                yield markup.cards(cards), markup.note(told)

    values = [picture, labels, truth, template, scores, depends]
    connect(handler, values, [output, status], [go.click, truth.submit, template.submit], tries, samples)
    run_many = {"show_progress": "minimal", "show_progress_on": status, "api_visibility": "private", **MODEL}
    many.click(spoken(all_of_them), [several, labels, truth, template, scores], [output, status], **run_many)

    def fill(name):
        """Names, no right one, and sentences of a data set; of one without free class names only the sentences."""
        if name is None:
            return gr.skip(), gr.skip(), gr.skip()
        found = prompts.find(name)
        classes = "\n".join(label.names[0] for label in found.classes[: answers.MAX_LABELS])
        return classes or gr.skip(), "", "\n".join(found.templates)

    known.input(fill, known, [labels, truth, template], queue=False, show_progress="hidden", api_visibility="private")

    def api(image: str, labels: list[str], templates: list[str] | None = None) -> Iterator[dict[str, float]]:
        """Ranks labels for a picture given as a data URL or as base64: {label: probability}, the likeliest first."""
        yield dict(answers.ranked(part.model, images.read(answers.file_of(image)), labels, templates or []))

    gr.api(spoken(api), api_name="classify", **MODEL)
