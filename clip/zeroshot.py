"""Zero-shot classification: class names become a classifier, no training needed.

labels -> prompts (one for each template) -> text vectors -> one unit vector a class; a picture's probabilities are the
softmax of its similarities with them, times the scale the model has learned, or, where each class is judged by itself,
sigmoids. Radford et al. 2021, section 3.1.4: a class is the normalised mean of its normalised prompts, so any number of
templates costs the same afterwards.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from clip.encoder import Encoder, Ours
from clip.labels import Label, given
from clip.model import START
from multimodal import images
from multimodal.cli import UserError

TEMPLATES = ("{}", "a drawing of a {}")  # how the captions of the default drawings speak of one thing
PHOTOGRAPHS = ("a photo of a {}.",)  # Radford et al. 2021, section 3.1.4
NOTHING = ("something", "picture")  # of eight choices the best at telling right names of drawings from wrong ones
MAX_PROMPTS = 2_000_000
CHUNK = 4096  # prompts whose vectors are held at once


def templates_for(encoder: Encoder) -> tuple[str, ...]:
    """The sentences to use where none are given: a published model has read captions of photographs."""
    published = not isinstance(encoder, Ours) or encoder.tokenizer.pipeline.token_to_id(START) is not None
    return PHOTOGRAPHS if published else TEMPLATES


def prompts(labels: Sequence[str | Label], templates: Sequence[str]) -> list[str]:
    """Every label in every template, label by label. A template's `{}` is replaced; other braces stay as they are.

    Raises UserError for labels that are no list of different names and for templates without `{}`.
    """
    return [prompt for group in class_prompts(labels, templates) for prompt in group]


def class_prompts(labels: Sequence[str | Label], templates: Sequence[str]) -> list[list[str]]:
    """The prompts of each class: its own, or each of its names in every template."""
    if isinstance(labels, str) or isinstance(templates, str):
        raise UserError("labels and templates must be lists of texts: a single text would be taken apart into letters.")
    if not templates:
        raise UserError("no templates were given: one such as 'a drawing of {}' is needed.")
    for template in templates:
        if "{}" not in template:
            raise UserError(
                f"template {template!r} has no {{}}: put {{}} where the label belongs, as in 'a drawing of {{}}'."
            )
    if not labels or isinstance(labels[0], str):
        labels = given(labels)
        if len(labels) == 1:
            raise UserError(one_label(labels[0]))
    count = sum(len(label.names) * len(label.prompts or templates) for label in labels)
    if count > MAX_PROMPTS:
        raise UserError(
            f"{len(labels):,} labels in {len(templates):,} templates are {count:,} prompts; at most {MAX_PROMPTS:,} are "
            "read, give fewer of either."
        )
    return [
        list(dict.fromkeys(text.replace("{}", name) for name in label.names for text in label.prompts or templates))
        for label in labels
    ]


def one_label(label: Label) -> str:
    """Why a softmax needs two."""
    several = label.key.replace(";", ",").split(",")
    apart = f" If {label.key!r} was meant as {len(several)} classes, put spaces between them." if several[1:] else ""
    return (
        f"{label.key!r} is the only label: the softmax over one label is always 1, name at least two classes, or judge it "
        f"by itself with --scores sigmoid.{apart}"
    )


def class_embeddings(encoder: Encoder, labels: Sequence[str | Label], templates: Sequence[str]) -> Float[Tensor, "c d"]:
    """One unit vector a label: each prompt embedded and normalised, averaged over templates, normalised again."""
    return embed_classes(encoder, class_prompts(labels, templates))


def embed_classes(
    encoder: Encoder, groups: Sequence[Sequence[str]], tell: Callable[[int], object] = lambda count: None
) -> Float[Tensor, "c d"]:
    """One unit vector for the prompts of each class; `tell` hears how many prompts were read."""
    found = []
    for part in _parts(groups):
        vectors = encoder.embed_texts([prompt for group in part for prompt in group])
        means = [group.mean(dim=0) for group in vectors.split([len(group) for group in part])]
        found.append(F.normalize(torch.stack(means), dim=-1))
        tell(len(vectors))
    return torch.cat(found)


def _parts(groups: Sequence[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    """Some classes at a time, of bounded many prompts in all."""
    part: list[Sequence[str]] = []
    for group in groups:
        if part and sum(map(len, part)) + len(group) > CHUNK:
            yield part
            part = []
        part.append(group)
    if part:
        yield part


def neutral(encoder: Encoder, templates: Sequence[str]) -> Float[Tensor, "d"]:
    """What the sentences say when they name nothing in particular: the other side of a sigmoid, for a model that has
    learned to choose among texts and has no notion of a text that fits by itself."""
    return embed_classes(encoder, [[template.replace("{}", word) for word in NOTHING for template in templates]])[0]


def logits(
    encoder: Encoder,
    pictures: Float[Tensor, "b d"],
    classes: Float[Tensor, "c d"],
    against: Float[Tensor, "d"] | None = None,
) -> Float[Tensor, "b c"]:
    """Scaled similarities of pictures' vectors with the classes'; `against` is what `neutral` gives, and subtracted."""
    classes = classes.to(pictures.device)
    if against is not None:
        classes = classes - against.to(pictures.device)
    return encoder.scale * pictures @ classes.T + encoder.bias


def shares(logits: Float[Tensor, "*b c"], scores: str) -> Float[Tensor, "*b c"]:
    """Probabilities: by softmax rows sum to 1 (one class: always 1), by sigmoid each class is judged by itself."""
    return logits.softmax(dim=-1) if scores == "softmax" else logits.sigmoid()


def probabilities(
    encoder: Encoder,
    pictures: Float[Tensor, "b d"],
    classes: Float[Tensor, "c d"],
    scores: str | None = None,
    against: Float[Tensor, "d"] | None = None,
) -> Float[Tensor, "b c"]:
    """Of every class for every picture, from their vectors. `scores` is as the encoder was trained unless it is said;
    sigmoids of one that was trained by softmax mean little unless they are `against` something."""
    return shares(logits(encoder, pictures, classes, against), scores or encoder.scores)


def classify(
    encoder: Encoder, pictures: UInt8[Tensor, "b 3 h w"], classes: Float[Tensor, "c d"]
) -> Float[Tensor, "b c"]:
    """Probability of every class for every prepared picture."""
    return probabilities(encoder, encoder.embed_images(pictures), classes)


def scorer(encoder: Encoder) -> Callable[[Float[Tensor, "n 3 s s"], str], Float[Tensor, "n"]]:
    """What ranks pictures of any size by how well they fit a text: the cosines of their vectors with its vector."""

    def score(pictures: Float[Tensor, "n 3 s s"], text: str) -> Float[Tensor, "n"]:
        fitted = torch.stack([encoder.prepare(images.to_pil(picture)) for picture in pictures])
        return (encoder.embed_images(fitted) @ encoder.embed_texts([text])[0]).cpu()

    return score


def rank(probabilities: Float[Tensor, "c"], index: int) -> int:
    """The place of class `index`, 1 for the most probable; equals share the better place."""
    return int((probabilities > probabilities[index]).sum()) + 1
