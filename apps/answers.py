"""What visitors ask of the models, step by step: values in, text, pictures or a ranking out; no page here.

Values come from strangers, so each is bounded before a model sees it. Raises UserError with a sentence for the visitor.
"""

import secrets
from collections.abc import Iterator

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clip import zeroshot
from clip.model import CLIP
from dalle.drawing import draw
from dalle.model import Artist
from gpt.model import GPT
from gpt.writing import write
from multimodal import images
from multimodal.cli import UserError
from multimodal.sampling import Sampling
from multimodal.tokenizer import Tokenizer

MAX_PROMPT, MAX_TOKENS, MAX_DRAWINGS, MAX_LABELS, MAX_SEED = 20_000, 1_000, 9, 1_000, 2**31 - 1
ENLARGED = 4  # drawings are shown and downloaded at this many times their size


def within(name: str, value: float | int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UserError(f"{name} is {value}: allowed is {least} to {most:,}.")


def bounded(prompt: str) -> str:
    if len(prompt) > MAX_PROMPT:
        raise UserError(f"the prompt has {len(prompt):,} characters: at most {MAX_PROMPT:,} are read.")
    return prompt


def seed_of(asked: int | None) -> int:
    """The seed asked for, or a new one for None."""
    if asked is None:
        return secrets.randbelow(100_000)
    within("the seed", asked, 0, MAX_SEED)
    return asked


def written(
    writer: tuple[GPT, Tokenizer], prompt: str, max_tokens: int, sampling: Sampling, seed: int
) -> Iterator[str]:
    """The continuation so far, longer each time."""
    within("the length", max_tokens, 1, MAX_TOKENS)
    text = ""
    for piece in write(*writer, bounded(prompt), max_tokens, sampling, seed):
        text += piece
        yield text


def drawn(
    artist: Artist, prompt: str, count: int, guidance: float, sampling: Sampling, seed: int
) -> Iterator[tuple[float, list[tuple[int, Image.Image]]]]:
    """How much is done, from 0 to 1, and (seed, picture) of every drawing as far as it is; the i-th has seed + i."""
    within("the number of drawings", count, 1, MAX_DRAWINGS)
    seeds = [(seed + i) % (MAX_SEED + 1) for i in range(count)]
    rows = artist.model.config.grid
    for turn, pictures in enumerate(draw(artist, bounded(prompt), seeds, guidance, sampling, rows), start=1):
        yield turn / rows, list(zip(seeds, map(enlarged, pictures.float().cpu()), strict=True))


def enlarged(picture: Float[Tensor, "3 h w"]) -> Image.Image:
    small = images.to_pil(picture)
    size = (ENLARGED * small.width, ENLARGED * small.height)
    return small.resize(size, Image.Resampling.LANCZOS)


def ranked(
    classifier: tuple[CLIP, Tokenizer], picture: Image.Image, labels: list[str], templates: list[str]
) -> list[tuple[str, float]]:
    """(label, probability), the likeliest first; without templates those that the bundled model learned from."""
    if not 2 <= len(labels) <= MAX_LABELS:
        raise UserError(f"{len(labels)} different class names were given: give 2 to {MAX_LABELS:,}.")
    for text in (*labels, *templates):
        bounded(text)
    model, tokenizer = classifier
    classes = zeroshot.class_embeddings(model, tokenizer, labels, templates or zeroshot.TEMPLATES)
    probabilities = zeroshot.classify(model, images.square(picture, model.config.size)[None], classes)[0]
    order = probabilities.argsort(descending=True, stable=True).tolist()
    return [(labels[i], float(probabilities[i])) for i in order]
