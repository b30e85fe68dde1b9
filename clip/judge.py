"""How good a CLIP is on what it has not seen: retrieval among held-out pairs, and naming drawings by zero-shot.

Pictures (b 3 h w) and captions in, shares of hits out. Naming is judged beside nearest neighbours in pixels, which is
what a model that only remembers would reach.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from clip.encoder import Encoder
from clip.zeroshot import TEMPLATES, class_embeddings
from multimodal import images


def similarities(queries: Float[Tensor, "q d"], targets: Float[Tensor, "t d"]) -> Float[Tensor, "q t"]:
    """In 32 bits whatever the autocast: in 16, close names tie, and a tie would count as a hit."""
    with torch.autocast(queries.device.type, enabled=False):
        return queries.float() @ targets.float().T


def recall_at_1(
    queries: Float[Tensor, "q d"],
    targets: Float[Tensor, "t d"],
    right: Int[Tensor, "q k"],
    identity: Int[Tensor, "t k"],
) -> float:
    """Share of the queries whose nearest target shares one of the query's identities."""
    nearest = similarities(queries, targets).argmax(dim=1)
    return (identity[nearest] == right).any(dim=1).float().mean().item()


def retrieval(
    encoder: Encoder,
    pictures: UInt8[Tensor, "b 3 h w"],
    captions: Sequence[str],
    identity: Int[Tensor, "b k"],
) -> dict[str, float]:
    """Recall at 1 among b pairs, from pictures to captions and from captions to pictures."""
    seen, said = encoder.embed_images(pictures).cpu(), encoder.embed_texts(captions).cpu()
    return {
        "image_to_text": recall_at_1(seen, said, identity, identity),
        "text_to_image": recall_at_1(said, seen, identity, identity),
    }


def classified(
    encoder: Encoder,
    pictures: UInt8[Tensor, "b 3 h w"],
    right: Int[Tensor, "b"],
    names: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
) -> dict[str, float]:
    """Picture i shows names[right[i]]: how often that name comes first, or among the first five, of all names."""
    classes = class_embeddings(encoder, names, templates)
    scores = similarities(encoder.embed_images(pictures), classes).cpu()
    place = (scores > scores.gather(1, rearrange(right, "b -> b 1"))).sum(dim=1)
    return {"top1": (place < 1).float().mean().item(), "top5": (place < 5).float().mean().item()}


def naming(
    encoder: Encoder,
    pictures: UInt8[Tensor, "b 3 h w"],
    names: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
) -> dict[str, float]:
    """The same where picture i shows name i % len(names)."""
    return classified(encoder, pictures, torch.arange(len(pictures)) % len(names), names, templates)


def nearest_pixels(known: UInt8[Tensor, "k 3 h w"], shown: UInt8[Tensor, "s 3 h w"], count: int) -> float:
    """The baseline: picture i of either shows thing i % count; share of those shown whose nearest known picture, both
    scaled to 16 x 16, is of the same thing."""
    small = [
        rearrange(F.interpolate(images.to_float(x), (16, 16), mode="area"), "b c h w -> b (c h w)")
        for x in (known, shown)
    ]
    nearest = torch.cdist(small[1], small[0]).argmin(dim=1) % count
    return (nearest == torch.arange(len(shown)) % count).float().mean().item()
