"""What a zero-shot score depends on: a picture and classes in, a map (h w) of what speaks for one of them out.

One place after the other is covered with the colour of the picture's border, and the model is asked again (Zeiler & Fergus
2014, section 4.2): a place counts by how much the logarithm of the class's probability falls. There is no gradient in it, so
that it is right for any model; how right, deletion tells (Petsiuk et al. 2018): what a map names first must be missed most.
"""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from clip.encoder import Encoder
from clip.zeroshot import logits

STEPS = 8  # a window moves by an eighth of a side and covers a quarter


def windows(height: int, width: int) -> Bool[Tensor, "k h w"]:
    """Overlapping windows of a quarter of a side, which cover all places equally often but for the borders."""
    starts = torch.arange(-1, STEPS)
    rows, columns = ((starts[:, None] * side / STEPS).round() for side in (height, width))
    down, across = torch.arange(height), torch.arange(width)
    inside_rows = (down >= rows) & (down < rows + 2 * height / STEPS)
    inside_columns = (across >= columns) & (across < columns + 2 * width / STEPS)
    return rearrange(inside_rows, "i h -> i 1 h 1").logical_and(inside_columns[None, :, None]).flatten(0, 1)


def border(picture: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "3"]:
    """Mean colour of the outermost pixels: of a drawing its ground."""
    edge = torch.cat((picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1]), dim=1)
    return edge.float().mean(dim=1)


def covered(picture: UInt8[Tensor, "3 h w"], masks: Bool[Tensor, "k h w"]) -> UInt8[Tensor, "k 3 h w"]:
    """The picture k times, each time with other places in the colour of its border."""
    fill = rearrange(border(picture).round().to(torch.uint8), "c -> 1 c 1 1")
    return torch.where(rearrange(masks, "k h w -> k 1 h w"), fill, repeat(picture, "c h w -> k c h w", k=len(masks)))


def evidence(
    encoder: Encoder, pictures: UInt8[Tensor, "b 3 h w"], classes: Float[Tensor, "c d"], index: int
) -> Float[Tensor, "b"]:
    """Logarithm of the probability of class `index`, as the encoder was trained to give it."""
    found = logits(encoder, encoder.embed_images(pictures), classes)
    spread = found.log_softmax(-1) if encoder.scores == "softmax" else F.logsigmoid(found)
    return spread[:, index].cpu()


def saliency(
    encoder: Encoder, picture: UInt8[Tensor, "3 h w"], classes: Float[Tensor, "c d"], index: int
) -> Float[Tensor, "h w"]:
    """How much of the evidence for class `index` is lost where a place is covered, in nats: the mean over the windows that
    cover it. Below 0 is what speaks against the class."""
    masks = windows(*picture.shape[1:])
    found = evidence(encoder, torch.cat((picture[None], covered(picture, masks))), classes, index)
    lost = found[0] - found[1:]
    return einsum(lost, masks.float(), "k, k h w -> h w") / masks.sum(0)


def deletion(
    encoder: Encoder,
    picture: UInt8[Tensor, "3 h w"],
    classes: Float[Tensor, "c d"],
    index: int,
    order: Float[Tensor, "h w"],
    share: float,
) -> float:
    """The evidence that is left when the `share` of the places that come first in `order` is covered."""
    count = round(share * order.numel())
    mask = torch.zeros(order.numel(), dtype=torch.bool)
    mask[order.flatten().argsort(descending=True)[:count]] = True
    gone = covered(picture, mask.view(1, *order.shape))
    return evidence(encoder, gone, classes, index).item()


LEAST = 1e-3  # nats: where nothing counts for more, nothing is coloured fully
FOR, AGAINST = (220, 38, 38), (37, 99, 235)  # red speaks for the class, blue against it


def overlay(picture: UInt8[Tensor, "3 h w"], found: Float[Tensor, "h w"]) -> UInt8[Tensor, "3 h w"]:
    """The picture in pale, under the map in colour, whose edges, those of the windows, are smoothed away: the more, the
    stronger the colour; that of the strongest place is full."""
    side = max(found.shape) // STEPS | 1
    found = F.avg_pool2d(found[None, None], side, 1, side // 2, count_include_pad=False)[0, 0]
    strength = (found.abs() / found.abs().max().clamp(min=LEAST)).sqrt() * 0.75
    colour = torch.where(found > 0, _colour(FOR), _colour(AGAINST))
    pale = 255 - 0.75 * (255 - picture.float())
    return (pale + (colour - pale) * strength).round().clamp(0, 255).to(torch.uint8)


def _colour(rgb: tuple[int, int, int]) -> Float[Tensor, "3 1 1"]:
    return rearrange(torch.tensor(rgb, dtype=torch.float32), "c -> c 1 1")
