"""Zero-shot classification: class names become a classifier, no training needed.

labels -> prompts (one for each template) -> text vectors -> one unit vector a class; a picture's probabilities are the
softmax of its similarities with them, times the scale the model has learned (or, of a SigLIP, each similarity's own
sigmoid). Radford et al. 2021, section 3.1.4: a class is the normalised mean of its normalised prompts, so any number of
templates costs the same afterwards.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float, UInt8
from torch import Tensor

from clip.encoder import Encoder
from multimodal import images
from multimodal.cli import UserError
from multimodal.tokenizer import caption

TEMPLATES = ("{}", "a drawing of a {}")  # how the captions of the default drawings speak of one thing


def prompts(labels: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every label in every template, label by label. A template's `{}` is replaced; other braces stay as they are.

    Raises UserError for labels that are no list of different names and for templates without `{}`.
    """
    if isinstance(labels, str) or isinstance(templates, str):
        raise UserError("labels and templates must be lists of texts: a single text would be taken apart into letters.")
    if not labels:
        raise UserError("no labels were given: name at least two classes, such as --labels cat dog.")
    if len(labels) == 1:
        raise UserError(
            f"{labels[0]!r} is the only label: the softmax over one label is always 1, name at least two classes."
        )
    if not templates:
        raise UserError("no templates were given: one such as 'a drawing of {}' is needed.")
    empty = [i for i, label in enumerate(labels, 1) if not label.strip()]
    if empty:
        raise UserError(f"label {empty[0]} of {len(labels)} is empty: give every class a name.")
    seen: dict[str, str] = {}
    for label in labels:
        if (other := seen.get(caption(label))) is not None:
            how = "is given twice" if other == label else f"means the same as {other!r} to the model"
            raise UserError(f"label {label!r} {how}: labels must differ, leave one out.")
        seen[caption(label)] = label
    for template in templates:
        if "{}" not in template:
            raise UserError(
                f"template {template!r} has no {{}}: put {{}} where the label belongs, as in 'a drawing of {{}}'."
            )
    return [template.replace("{}", label) for label in labels for template in templates]


def class_embeddings(encoder: Encoder, labels: Sequence[str], templates: Sequence[str]) -> Float[Tensor, "c d"]:
    """One unit vector a label: each prompt embedded and normalised, averaged over templates, normalised again."""
    vectors = encoder.embed_texts(prompts(labels, templates))
    vectors = rearrange(vectors, "(c t) d -> c t d", t=len(templates))
    return F.normalize(reduce(vectors, "c t d -> c d", "mean"), dim=-1)


def probabilities(
    encoder: Encoder, pictures: Float[Tensor, "b d"], classes: Float[Tensor, "c d"], scores: str | None = None
) -> Float[Tensor, "b c"]:
    """Of every class for every picture, from their vectors: by softmax rows sum to 1 (one class: always 1), by sigmoid
    each class is judged by itself. `scores` is as the encoder was trained unless it is said."""
    logits = encoder.scale * pictures @ classes.T + encoder.bias
    return logits.softmax(dim=-1) if (scores or encoder.scores) == "softmax" else logits.sigmoid()


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
