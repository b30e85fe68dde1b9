"""What visitors ask of the models, step by step: values in, text, pictures or a ranking out; no page here.

Values come from strangers, so each is bounded before a model sees it. Raises UserError with a sentence for the visitor.
"""

import base64
import secrets
from collections.abc import Iterator
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clip import zeroshot
from clip.model import CLIP
from dalle.drawing import draw
from dalle.model import Artist, too_long
from gpt.model import GPT
from gpt.writing import write
from multimodal import images
from multimodal.cli import UserError
from multimodal.sampling import Sampling
from multimodal.tokenizer import Tokenizer

MAX_LETTERS, MAX_TOKENS, MAX_DRAWINGS, MAX_LABELS, MAX_SEED = 20_000, 1_000, 9, 1_000, 2**31 - 1
MAX_PROMPTS = 5_000_000  # characters of all prompts together
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
    return value


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


def written(
    writer: tuple[GPT, Tokenizer], prompt: Any, max_tokens: Any, sampling: Sampling, seed: int
) -> Iterator[str]:
    """The continuation so far, longer each time."""
    prompt, max_tokens = words("the prompt", prompt), whole("the length", max_tokens, 1, MAX_TOKENS)
    text = ""
    for piece in write(*writer, prompt, max_tokens, sampling, seed):
        text += piece
        yield text


def drawn(
    artist: Artist, prompt: Any, count: Any, guidance: Any, sampling: Sampling, seed: int
) -> Iterator[tuple[float, list[tuple[int, Image.Image]]]]:
    """How much is done, from 0 to 1, and (seed, picture) of every drawing as far as it is; the i-th has seed + i."""
    prompt, count = words("the prompt", prompt), whole("the number of drawings", count, 1, MAX_DRAWINGS)
    seeds = [(seed + i) % (MAX_SEED + 1) for i in range(count)]
    rows, guidance = artist.model.config.grid, real("the guidance", guidance, 0.0, 100.0)
    for turn, pictures in enumerate(draw(artist, prompt, seeds, guidance, sampling, rows), start=1):
        yield turn / rows, list(zip(seeds, map(enlarged, pictures.float().cpu()), strict=True))


def unseen_words(artist: Artist, prompt: str) -> str:
    """A remark for a prompt that is longer than what the model reads, else ""."""
    length = artist.model.config.text_length
    cut = too_long(artist.tokenizer, [prompt], length)
    return f" · only the first {length - 1} tokens of the prompt were read" if cut else ""


def enlarged(picture: Float[Tensor, "3 h w"]) -> Image.Image:
    small = images.to_pil(picture)
    size = (ENLARGED * small.width, ENLARGED * small.height)
    return small.resize(size, Image.Resampling.LANCZOS)


def ranked(
    classifier: tuple[CLIP, Tokenizer], picture: Image.Image, labels: Any, templates: Any
) -> list[tuple[str, float]]:
    """(label, probability), the likeliest first; without templates those that the bundled model learned from."""
    if not (isinstance(labels, list) and isinstance(templates, list)):
        raise UserError("labels and templates must be lists of texts.")
    labels = [words("a class name", label) for label in labels]
    templates = [words("a sentence", template) for template in templates]
    if not 2 <= len(labels) <= MAX_LABELS:
        raise UserError(f"{len(labels)} different class names were given: give 2 to {MAX_LABELS:,}.")
    templates = templates or list(zeroshot.TEMPLATES)
    named = sum(map(len, labels))
    if sum(len(labels) * len(t) + t.count("{}") * named for t in templates) > MAX_PROMPTS:
        raise UserError("the names and sentences are too many or too long together: give fewer, or shorter ones.")
    model, tokenizer = classifier
    classes = zeroshot.class_embeddings(model, tokenizer, labels, templates)
    probabilities = zeroshot.classify(model, images.square(picture, model.config.size)[None], classes)[0]
    order = probabilities.argsort(descending=True, stable=True).tolist()
    return [(labels[i], float(probabilities[i])) for i in order]
