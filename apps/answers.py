"""What visitors ask of the models, step by step: values in, text, pictures or a ranking out; no page here.

Values come from strangers, so each is bounded before a model sees it. Raises UserError with a sentence for the visitor.
"""

import base64
import math
import secrets
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from clip import nearest, saliency, zeroshot
from clip.encoder import Encoder
from clip.index import Index
from clip.search import path_of
from dalle import drawing
from dalle.captioning import Caption, captions
from dalle.model import Artist, remarks
from gpt import prompting
from gpt.model import GPT
from gpt.prompting import Item, Normalise, Prompt, Task
from gpt.score import Totals
from gpt.writing import Continuation, Top, judge_prompt, write, write_batch
from multimodal import images
from multimodal.cli import UserError
from multimodal.sampling import Sampling
from multimodal.tokenizer import Tokenizer

MAX_LETTERS, MAX_TOKENS, MAX_DRAWINGS, MAX_LABELS, MAX_SEED = 20_000, 1_000, 9, 1_000, 2**31 - 1
MAX_PROMPTS = 5_000_000  # characters of all prompts together
MAX_FOUND = 60  # pictures of a search
MAX_CANDIDATES, MAX_SCORED, MAX_EXAMPLES, MAX_CHOICES = 4, 3_000, 100, 50  # continuations, tokens, rows, answers
ALTERNATIVES = 5  # of the likeliest tokens in each place
ANSWER = 60  # tokens, where the context has room for them
ENLARGED = 4  # drawings are shown and downloaded at this many times their size


def real(name: str, value: Any, least: float, most: float) -> float:
    """`value` as a float, if it is a number in the range."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise UserError(f"{name} is {str(value)[:50]}: allowed is {least:,g} to {most:,g}.")
    return float(value)


def whole(name: str, value: Any, least: int, most: int) -> int:
    """The same as an int; a fraction is cut off."""
    return int(real(name, value, float(least), float(most)))


def words(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_LETTERS:
        raise UserError(f"{name} must be a text of at most {MAX_LETTERS:,} characters.")
    return value.encode("utf-8", "replace").decode()  # half a surrogate pair has no place in a reply


def file_of(image: Any) -> bytes:
    """The bytes of a data URL, or of base64 alone."""
    if isinstance(image, str) and len(image) > images.MAX_BYTES * 3 // 2:
        raise UserError(
            f"the image has {len(image):,} letters of base64: at most {images.MAX_BYTES // 10**6} MB are read."
        )
    try:
        return base64.b64decode(image.partition("base64,")[2] or image, validate=True)
    except (ValueError, AttributeError):
        raise UserError("the image is neither a data URL nor base64.") from None


def seed_of(asked: Any) -> int:
    """The seed asked for, or a new one for None."""
    return secrets.randbelow(100_000) if asked is None else whole("the seed", asked, 0, MAX_SEED)


def sampling_of(temperature: Any, top_k: Any, top_p: Any = 1.0) -> Sampling:
    return Sampling(
        real("the temperature", temperature, 0.0, 100.0),
        whole("top-k", top_k, 0, 1_000_000),
        real("top-p", top_p, 1e-6, 1.0),
    )


@dataclass(frozen=True)
class Likely:
    """A token that could stand in a place."""

    shown: str
    """By itself; part of a character is written as bytes."""
    logprob: float
    chosen: bool
    """Whether it is the one that stands there."""
    text: str | None
    """What it would add; None for part of a character and for the end of the text."""


@dataclass(frozen=True)
class Token:
    """A token of a text, and what the model thought of it."""

    text: str
    """What it adds to the text; nothing where a character is not whole yet."""
    shown: str
    logprob: float
    likeliest: tuple[Likely, ...]


@dataclass(frozen=True)
class Row:
    """A continuation as far as it is."""

    tokens: tuple[Token, ...]
    mean_logprob: float
    """Of a token, the end of the text included."""

    @cached_property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


def token_of(tokenizer: Tokenizer, token: int, text: str, logprob: float, top: Top | None) -> Token:
    likeliest = tuple(
        Likely(shown := tokenizer.show(i), value, i == token, None if i == tokenizer.end or is_part(shown) else shown)
        for i, value in top or ()
    )
    return Token(text, tokenizer.show(token), logprob, likeliest)


def is_part(shown: str) -> bool:
    """Whether `Tokenizer.show` gave part of a character."""
    return shown.startswith("bytes:\\x")


def row_of(tokenizer: Tokenizer, row: Continuation) -> Row:
    texts = (row.text[begin:end] for begin, end in zip(row.text_offsets, [*row.text_offsets[1:], None], strict=True))
    parts = zip(row.tokens, texts, row.token_logprobs, row.top_logprobs, strict=True)
    tokens = [token_of(tokenizer, *part) for part in parts]
    if row.ending is not None:
        tokens.append(token_of(tokenizer, tokenizer.end, "", *row.ending))
    return Row(tuple(tokens), row.mean_logprob)


def candidates(
    writer: tuple[GPT, Tokenizer], prompt: Any, count: Any, max_tokens: Any, sampling: Sampling, seed: int
) -> Iterator[list[Continuation]]:
    """Continues a text in several ways, the i-th with seed + i: at each token, all of them (the same ones, longer)."""
    prompt, count = words("the prompt", prompt), whole("the number of candidates", count, 1, MAX_CANDIDATES)
    seeds = [(seed + i) % (MAX_SEED + 1) for i in range(count)]
    max_tokens = whole("the length", max_tokens, 1, MAX_TOKENS)
    for turn in write_batch(*writer, [prompt] * count, max_tokens, sampling, seeds, logprobs=ALTERNATIVES):
        yield [row for row, _ in turn]


def taken(prompt: str, rows: Sequence[Row], row: Any, position: Any = None, alternative: Any = None) -> str:
    """The prompt with a candidate behind it; or with its tokens before a position, and one that could stand there."""
    if not rows:
        raise UserError("nothing is written here any more: press Write again.")
    tokens = rows[whole("the candidate", row, 0, len(rows) - 1)].tokens
    if position is None:
        return prompt + "".join(token.text for token in tokens)
    place = whole("the position", position, 0, len(tokens) - 1)
    likeliest = tokens[place].likeliest
    found = likeliest[whole("the alternative", alternative, 0, len(likeliest) - 1)]
    if found.text is None:
        raise UserError(f"{found.shown} cannot be written on from: choose another token.")
    return prompt + "".join(token.text for token in tokens[:place]) + found.text


def written(
    writer: tuple[GPT, Tokenizer], prompt: Any, max_tokens: Any, sampling: Sampling, seed: int
) -> Iterator[str]:
    """The continuation so far, longer each time."""
    prompt, max_tokens = words("the prompt", prompt), whole("the length", max_tokens, 1, MAX_TOKENS)
    text = ""
    for piece in write(*writer, prompt, max_tokens, sampling, seed):
        text += piece
        yield text


@dataclass(frozen=True)
class Judged:
    """A text, scored."""

    tokens: tuple[Token, ...]
    totals: Totals
    unknown: int
    """Characters that the tokenizer does not know."""


def scored(writer: tuple[GPT, Tokenizer], text: Any) -> Judged:
    """Every token of a text given those before it; the text is a document of its own."""
    model, tokenizer = writer
    text = words("the text", text)
    ids = tokenizer.encode(text)
    if not ids:
        raise UserError("the text is empty: there is nothing to score.")
    if len(ids) > MAX_SCORED:
        raise UserError(
            f"the text has {len(ids):,} tokens: at most {MAX_SCORED:,} are scored here; python -m gpt.score takes any file."
        )
    (_, *logprobs), (_, *top) = judge_prompt(model, tokenizer, [tokenizer.end, *ids], ALTERNATIVES)
    stream = tokenizer.stream()
    texts = [stream.push(i) for i in ids]
    texts[-1] += stream.flush()
    tokens = tuple(token_of(tokenizer, *part) for part in zip(ids, texts, logprobs, top, strict=True))
    size = sum(len(tokenizer.token_bytes[i]) for i in ids)
    unknown = "".join(texts).count("\ufffd") - text.count("\ufffd")
    return Judged(tokens, Totals(len(ids), size, math.fsum(logprobs)), max(unknown, 0))


def task_of(query: Any, examples: Any, description: Any, choices: Any, template: Any, separator: Any) -> Task:
    """The task of one query: examples are pairs of input and output, of which empty ones are left out."""
    query, description = words("the query", query).strip(), words("the description", description).strip()
    template, separator = words("the format", template), words("the separator", separator)
    if not query:
        raise UserError("the query is empty: say what to answer.")
    if not isinstance(examples, list) or len(examples) > MAX_EXAMPLES:
        raise UserError(f"the examples must be a list of at most {MAX_EXAMPLES} pairs of input and output.")
    shown = []
    for number, pair in enumerate(examples, start=1):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise UserError(f"example {number} is no pair: it needs an input and an output, and nothing else.")
        given, answer = (words(f"example {number}", "" if part is None else part).strip() for part in pair)
        if given and answer:
            shown.append(Item(given, answer))
        elif given or answer:
            raise UserError(f"example {number} has no {'output' if given else 'input'}: fill it in, or empty its row.")
    if not isinstance(choices, list) or len(choices) > MAX_CHOICES:
        raise UserError(f"the choices must be a list of at most {MAX_CHOICES} texts.")
    options = tuple(dict.fromkeys(words("a choice", choice).strip() for choice in choices))
    if options and (len(options) < 2 or not all(options)):
        raise UserError("give two or more choices, none of them empty; or none, and the answer is written.")
    letters = len(query) + len(description) + sum(len(item.input) + len(item.output) for item in shown)
    if letters + (len(shown) + 1) * (len(template) + len(separator)) > MAX_LETTERS:
        raise UserError(
            f"the prompt would have more than {MAX_LETTERS:,} characters: give fewer examples, or shorter ones."
        )
    # the right answer is not known: a query's output is not part of its prompt
    asked = Item(query, options[0] if options else "?", options)
    return Task("few-shot", tuple(shown), (asked,), description, template, separator)


@dataclass(frozen=True)
class Told:
    """A prompt, and how it fits."""

    prompt: Prompt
    tokens: int
    context: int
    """Tokens that the model reads; the answer is among them."""
    left_out: int
    """Examples that do not fit: the first ones."""


def answer_room(model: GPT) -> int:
    """Most tokens of an answer that is written."""
    return min(ANSWER, model.config.context // 4)


def told(writer: tuple[GPT, Tokenizer], task: Task) -> Told:
    """The prompt of the task's query, with the examples in their order. Raises UserError if not even the query fits."""
    model, tokenizer = writer
    (query,) = task.queries
    context, every = model.config.context, len(task.examples)

    def text(left_out: int) -> str:
        return prompting.prompt_text(task, query, task.examples[left_out:])

    def free(left_out: int) -> int:
        asked = text(left_out)
        if not query.options:
            return context - len(tokenizer.encode(asked)) - answer_room(model)
        answers = (asked + prompting.answer_text(task, option) for option in query.options)
        return context - max(len(tokenizer.encode(answer)) for answer in answers)

    left_out = bisect_left(range(every + 1), 0, key=free)
    if left_out > every:
        raise UserError(
            f"the query with its description and answer takes {context - free(every):,} tokens, and the model reads "
            f"{context:,}: shorten it."
        )
    found = text(left_out)
    return Told(Prompt(query, found, every - left_out), len(tokenizer.encode(found)), context, left_out)


def chosen(writer: tuple[GPT, Tokenizer], task: Task, prompt: Prompt, normalise: Any) -> list[tuple[str, float]]:
    """(choice, its share of the probability of all), the likeliest first."""
    if normalise not in get_args(Normalise):
        raise UserError(
            f"choices are compared by one of {', '.join(get_args(Normalise))}, not by {str(normalise)[:50]}."
        )
    (answer,) = prompting.choose(*writer, task, [prompt], normalise)
    best = max(answer.scores)
    weights = [math.exp(score - best) for score in answer.scores]
    shares = [weight / math.fsum(weights) for weight in weights]
    return sorted(zip(prompt.query.options, shares, strict=True), key=lambda pair: -pair[1])


def answered(writer: tuple[GPT, Tokenizer], task: Task, prompt: Prompt) -> Iterator[Continuation]:
    """The answer as the likeliest tokens write it, up to the end of the line: at each token (the same one, longer)."""
    for turn in write_batch(
        *writer, [prompt.text], answer_room(writer[0]), Sampling(0.0), [0], task.stop, ALTERNATIVES
    ):
        yield turn[0][0]


@dataclass(frozen=True)
class Given:
    """A picture that a drawing begins with."""

    picture: Image.Image
    stays: Literal["rows", "mask", "half"]
    """What stays of it: upper rows of codes, all that is not painted over, or a random half of the blocks."""
    rows: Any = None
    painted: Image.Image | None = None
    """As large as the picture, and dark where something new is to be drawn."""


@dataclass(frozen=True)
class Drawing:
    seed: int
    picture: Image.Image
    score: float | None = None
    """How well it fits the prompt, if that was asked for: the cosine of CLIP's vectors."""


def given_codes(artist: Artist, given: Given, seeds: list[int]) -> Tensor:
    grid = artist.model.config.grid
    if given.stays == "rows":
        places = drawing.border("top", whole("the number of rows that stay", given.rows, 1, grid - 1), grid)
    elif given.stays == "mask":
        places = drawing.mask_places(artist, ImageOps.invert(given.painted), given.picture)
    else:
        places = torch.ones(grid, grid, dtype=torch.bool)
    codes = drawing.keep(artist, drawing.prompt_picture(artist, given.picture), places)
    return drawing.variations(codes, artist.model.config.block, 0.5, seeds) if given.stays == "half" else codes


def drawn(
    artist: Artist,
    prompt: Any,
    count: Any,
    guidance: Any,
    sampling: Sampling,
    seed: int,
    given: Given | None = None,
    score: Callable[[Float[Tensor, "n 3 s s"], str], Float[Tensor, "n"]] | None = None,
) -> Iterator[tuple[float, list[Drawing]]]:
    """How much is done, from 0 to 1, and every drawing as far as it is; the i-th has seed + i. With a `score` the last
    time they come in its order, the best first."""
    prompt, count = words("the prompt", prompt), whole("the number of drawings", count, 1, MAX_DRAWINGS)
    if score is not None and not prompt.strip():
        raise UserError("the prompt is empty: say what the drawings should fit.")
    seeds = [(seed + i) % (MAX_SEED + 1) for i in range(count)]
    guidance, config = real("the guidance", guidance, 0.0, 100.0), artist.model.config
    codes = given_codes(artist, given, seeds) if given is not None else None
    for done, pictures in drawing.draw(artist, prompt, seeds, guidance, sampling, config.grid, codes):
        shown = [Drawing(*each) for each in zip(seeds, map(enlarged, pictures.float().cpu()), strict=True)]
        if done == 1 and score is not None:
            scores = score(pictures.float().cpu(), prompt).tolist()
            shown = [replace(each, score=round(value, 4)) for each, value in zip(shown, scores, strict=True)]
            shown.sort(key=lambda each: -each.score)
        yield done, shown


def described(artist: Artist, picture: Image.Image) -> Caption:
    """The likeliest caption of the picture, by the network that draws."""
    return captions(artist, drawing.prompt_picture(artist, picture)[None], Sampling(0.0), [0])[0]


def unseen_places(artist: Artist, given: Given) -> str:
    """A remark where the model painted before it saw what stays, else ""."""
    if artist.model.config.any_order or given.stays == "rows":
        return ""
    return " · this model paints from top to bottom and did not see what stays further down"


def unseen_words(artist: Artist, prompt: str) -> str:
    """What is to be said of a prompt that the model does not wholly read, else ""."""
    return "".join(f" · {said}" for said in remarks(artist.tokenizer, prompt, artist.model.config.text_length))


def enlarged(picture: Float[Tensor, "3 h w"]) -> Image.Image:
    small = images.to_pil(picture)
    size = (ENLARGED * small.width, ENLARGED * small.height)
    return small.resize(size, Image.Resampling.LANCZOS)


def classes_of(classifier: Encoder, labels: Any, templates: Any) -> tuple[list[str], Float[Tensor, "c d"]]:
    """The labels as texts, and their vectors; without templates by sentences that suit the model."""
    if not (isinstance(labels, list) and isinstance(templates, list)):
        raise UserError("labels and templates must be lists of texts.")
    labels = [words("a class name", label) for label in labels]
    templates = [words("a sentence", template) for template in templates]
    if not 2 <= len(labels) <= MAX_LABELS:
        raise UserError(f"{len(labels)} different class names were given: give 2 to {MAX_LABELS:,}.")
    templates = templates or list(zeroshot.templates_for(classifier))
    named = sum(map(len, labels))
    if sum(len(labels) * len(t) + t.count("{}") * named for t in templates) > MAX_PROMPTS:
        raise UserError("the names and sentences are too many or too long together: give fewer, or shorter ones.")
    return labels, _class_vectors(classifier, tuple(labels), tuple(templates))


@lru_cache(maxsize=8)
def _class_vectors(classifier: Encoder, labels: tuple[str, ...], templates: tuple[str, ...]) -> Float[Tensor, "c d"]:
    """Kept for the next pictures."""
    return zeroshot.class_embeddings(classifier, labels, templates)


def ranked(
    classifier: Encoder, picture: Image.Image, labels: Any, templates: Any, scores: Any = None
) -> list[tuple[str, float]]:
    """(label, probability), the likeliest first. `scores` is softmax, sigmoid or None, as the model was trained."""
    if scores not in (None, "softmax", "sigmoid"):
        raise UserError(f"scores are {str(scores)[:50]!r}: allowed are softmax and sigmoid.")
    labels, classes = classes_of(classifier, labels, templates)
    vectors = classifier.embed_images(classifier.prepare(picture)[None])
    against = None
    if scores == "sigmoid" and classifier.scores == "softmax":  # it never learned what fits by itself
        against = _neutral(classifier, tuple(templates) or zeroshot.templates_for(classifier))
    probabilities = zeroshot.probabilities(classifier, vectors, classes, scores, against)[0]
    order = probabilities.argsort(descending=True, stable=True).tolist()
    return [(labels[i], float(probabilities[i])) for i in order]


@lru_cache(maxsize=8)
def _neutral(classifier: Encoder, templates: tuple[str, ...]) -> Float[Tensor, "d"]:
    return zeroshot.neutral(classifier, templates)


def depends_on(classifier: Encoder, picture: Image.Image, labels: Any, templates: Any, label: str) -> Image.Image:
    """What the label's probability depends on, as a picture."""
    labels, classes = classes_of(classifier, labels, templates)
    seen = classifier.prepare(picture)
    found = saliency.saliency(classifier, seen, classes, labels.index(label))
    return images.to_pil(saliency.overlay(seen, found)).resize((256, 256), Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Shelf:
    """A folder of pictures that can be searched."""

    folder: Path
    index: Index
    encoder: Encoder


def found(shelf: Shelf, text: Any, minus: Any, picture: Image.Image | None, count: Any) -> list[tuple[float, Path]]:
    """(cosine, file) of the pictures nearest to the sum of a text and a picture, less another text."""
    text, minus = words("the text", text).strip(), words("what is taken away", minus).strip()
    count = whole("the number of pictures", count, 1, MAX_FOUND)
    if not text and picture is None:
        raise UserError("there is nothing to look for: say it in words, or give a picture.")
    total = torch.zeros(shelf.encoder.width)
    for sign, said in ((1, text), (-1, minus)):
        if said:
            total = total + sign * shelf.encoder.embed_texts([said])[0].cpu()
    if picture is not None:
        total = total + shelf.encoder.embed_images(shelf.encoder.prepare(picture)[None])[0].cpu()
    if total.norm() < 1e-3:
        raise UserError("what is added and what is taken away cancel each other: nothing is left to look for.")
    scores, rows = nearest.best(shelf.index.vectors, torch.nn.functional.normalize(total, dim=0), count)
    files = [path_of(shelf.folder, shelf.index.entry(row)["name"]) for row in rows.tolist()]
    return list(zip(scores.tolist(), files, strict=True))
