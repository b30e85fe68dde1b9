"""Pictures (b 3 h w) in [0, 1], each turned, scaled, moved, sheared, redrawn and recoloured a little, anew every call.

Little data is seen many times: changing it each time is what makes a small CLIP work on another artist's drawings.
What captions speak of is kept: nothing is turned far (top stays top), nothing is mirrored whose caption says left or right or
speaks of writing, and where a caption names a colour or a flag, colours keep their names.
A caption that says left or right and nothing else that a mirror would make wrong has an opposite, for the mirrored picture. Both
in one batch teach the two words, since no others of it differ in them alone (after the swapped captions of Yuksekgonul et al.
2023, NegCLIP, here with pictures).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from multimodal.data import pairs, phrases

TURN, SHEAR, MOVE = 0.25, 0.15, 0.12  # the most: radians, slope, parts of a side
# the most: logarithms of the scale of things and of crops, and of one side against the other
SMALLER, LARGER, CROP, SQUEEZE = 0.5, 0.15, 0.5, 0.1
OUTLINE, CONTRAST, GAIN, BRIGHTNESS = 3.0, 0.3, 0.12, 0.1
# where the caption names no colour: the channels' balance, share of pictures without colour
FREE_GAIN, GREY = 0.3, 0.15
PLAIN = 8.0  # deviation of a border, of 255, that still is one colour

SIDES = re.compile(
    r"\b(left|right|(anti|counter)?clockwise|gauche|droite?\b|links|rechts|linke|rechte|izquierd|derech|sinistr|destr"
    r"|esquerd|direit|letter|digit|number|keycap|word|text|sign\b|says?\b|reads?\b|written|writing|input|flag)",
    re.IGNORECASE,
)
"""What a mirror would make wrong or another thing, in English and the languages of the default drawings."""
OPPOSITES = (
    ("left", "right"), ("gauche", "droite"), ("links", "rechts"), ("linke", "rechte"), ("linken", "rechten"),
    ("izquierda", "derecha"), ("sinistra", "destra"), ("esquerda", "direita"),
)  # fmt: skip
OPPOSITE = {one: other for pair in OPPOSITES for one, other in (pair, pair[::-1])}
# of English as places only: not "he left", "the right tool"
DIRECTIONS = re.compile(
    r"\b(?:(?:left|right)(?=\s+(?:of|side|half|corner|hand|arrow)\b)"
    r"|(?<=\b(?:the|its|top|far) )(?:left|right)(?=\s+(?:and|with|is|are|in|drawn|as)\b|\s*[,.;:!)]|\s*$)"
    r"|(?<=\b(?:upper|lower) )(?:left|right)|(?<=\bbottom )(?:left|right)"
    rf"|{'|'.join(word for pair in OPPOSITES[1:] for word in pair)})\b",
    re.IGNORECASE,
)
COLOUR_NAMES = {word.replace("_", " ") for language in phrases.LANGUAGES.values() for word in language.colours.split()}
COLOUR_NAMES |= {
    *phrases.COLOUR_ORDER,
    *sum(phrases.COLOUR_WORDS.values(), ()),
    "white",
    "turquoise",
    "beige",
    "golden",
    "flag",  # which is its colours
    "drapeau",
}
COLOURS = re.compile(rf"\b({'|'.join(map(re.escape, sorted(COLOUR_NAMES)))})\b", re.IGNORECASE)


def one_sided(caption: str) -> bool:
    """Whether the caption would be wrong, or might be, of the mirrored picture."""
    return SIDES.search(caption) is not None


def allowed(captions: Iterable[str]) -> Bool[Tensor, "b 2"]:
    """Of pictures with these captions: whether they may be mirrored, and whether their colours may lose their names."""
    return torch.tensor([(not one_sided(text), COLOURS.search(text) is None) for text in captions]).reshape(-1, 2)


def opposite(caption: str) -> str | None:
    """What is true of the mirrored picture where the caption says left or right, and None where it does not, or where a mirror
    might make anything else of it wrong."""
    if one_sided(DIRECTIONS.sub("", caption)) or not DIRECTIONS.search(caption):
        return None
    return DIRECTIONS.sub(lambda found: OPPOSITE[found[0].lower()], caption)


def mirrored(number: int, item: pairs.Item) -> pairs.Item | None:
    """The mirrored picture with the opposite caption, where there is one; nothing else means the same."""
    caption = opposite(item.caption)
    return None if caption is None else pairs.Item(item.image.flip(-1), caption, tuple(~i for i in item.identity))


@dataclass(frozen=True)
class Plan:
    """What suits the data."""

    photographs: bool = False
    """Pictures are full to their borders: parts of them are cut out. Otherwise they show things on a plain ground, which are
    made smaller and larger, and redrawn."""


def decide(captions: Sequence[str], pictures: UInt8[Tensor, "b 3 h w"]) -> tuple[Plan, str]:
    """What may be done with pictures like these that have captions like these, and the same in words."""
    may, photographs = allowed(captions).float().mean(0).tolist(), plain_ground(pictures).float().mean().item() < 0.5
    turned = sum(opposite(caption) is not None for caption in captions) / max(1, len(captions))
    how = (
        "the pictures, full to their borders, are cropped, turned and moved a little"
        if photographs
        else "the pictures, of things on a plain ground, are turned, moved, scaled and redrawn a little"
    )
    told = (
        f"augmentation: {how}; colours change freely in the {may[1]:.0%} whose captions name none, and keep their names in the "
        f"others; every other one is mirrored of the {may[0]:.0%} whose captions say neither left nor right and speak of no "
        "writing"
    )
    if turned:
        told += f"; beside the {turned:.0%} that can be turned by exchanging left and right comes their opposite"
    return Plan(photographs), f"{told}."


def plain_ground(pictures: UInt8[Tensor, "b 3 h w"]) -> Bool[Tensor, "b"]:
    """Whether a picture has the same colour all along its border."""
    x = pictures.float()
    border = torch.cat((x[..., 0, :], x[..., -1, :], x[..., :, 0], x[..., :, -1]), dim=-1)
    return (border.std(dim=-1) < PLAIN).all(dim=-1)


def augment(
    images: Float[Tensor, "b 3 h w"], may: Bool[Tensor, "b 2"] | None = None, plan: Plan = Plan()
) -> Float[Tensor, "b 3 h w"]:
    """Uses torch's global random state. All pictures are moved and recoloured, half of the drawings redrawn, half of those
    that may be (`allowed`) mirrored."""
    mirror, free = torch.zeros(2, len(images), dtype=torch.bool, device=images.device) if may is None else may.T
    flipped = mirror & (torch.rand(len(images), device=images.device) < 0.5)
    images = torch.where(rearrange(flipped, "b -> b 1 1 1"), images.flip(-1), images)
    images = move(images, plan.photographs)
    return recolour(images if plan.photographs else redraw(images), free)


def draw(images: Tensor, low: float, high: float, channels: int = 1) -> Float[Tensor, "b c 1 1"]:
    """A number between `low` and `high` for each picture and channel."""
    return low + (high - low) * torch.rand(len(images), channels, 1, 1, device=images.device)


def move(images: Float[Tensor, "b 3 h w"], crop: bool = False) -> Float[Tensor, "b 3 h w"]:
    """One resampling for the whole batch; beyond the border the border's pixels go on."""
    turn, slope = draw(images, -TURN, TURN), draw(images, -SHEAR, SHEAR)
    # between the points that are looked up: longer makes it smaller
    step = draw(images, -CROP, 0.0).exp() if crop else draw(images, -LARGER, SMALLER).exp()
    across, down = step * draw(images, -SQUEEZE, SQUEEZE).exp(), step
    rows = torch.cat((across * turn.cos(), -down * (turn + slope).sin(), 2 * draw(images, -MOVE, MOVE)), dim=-1)
    columns = torch.cat((across * turn.sin(), down * (turn + slope).cos(), 2 * draw(images, -MOVE, MOVE)), dim=-1)
    grid = F.affine_grid(torch.cat((rows, columns), dim=-2)[:, 0], list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def redraw(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Another pen: the first quarter gets a dark line along its edges, the second loses its thin dark lines.

    A batch is in random order, so any picture may come to stand there."""
    quarter = len(images) // 4
    lined, thinned, rest = images[:quarter], images[quarter : 2 * quarter], images[2 * quarter :]
    edge = (lightest(lined) + lightest(-lined)).amax(dim=1, keepdim=True)  # the range of values around a pixel
    lined = lined * (1 - draw(lined, 0.0, OUTLINE) * edge).clamp(0, 1)
    thinned = -lightest(-lightest(thinned))  # a closing: what is dark and narrower than 3 pixels goes
    return torch.cat((lined, thinned, rest))


def lightest(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """The largest value of the 3 x 3 pixels around each (max_pool2d takes ten times as long on a CPU)."""
    x = F.pad(images, (1, 1, 1, 1), mode="replicate")
    x = torch.maximum(torch.maximum(x[..., :-2], x[..., 1:-1]), x[..., 2:])
    return torch.maximum(torch.maximum(x[..., :-2, :], x[..., 1:-1, :]), x[..., 2:, :])


def recolour(images: Float[Tensor, "b 3 h w"], free: Bool[Tensor, "b"]) -> Float[Tensor, "b 3 h w"]:
    """Contrast, saturation, the balance of the channels and brightness, more of it where colours are `free`."""
    free = rearrange(free, "b -> b 1 1 1")
    grey, gain = images.mean(dim=1, keepdim=True), torch.where(free, FREE_GAIN, GAIN)
    saturation = draw(images, 0.5, 1.7) * ~(free & (draw(images, 0.0, 1.0) < GREY))
    images = grey + (images - grey) * saturation
    images = (images - 0.5) * draw(images, -CONTRAST, CONTRAST).exp() + 0.5
    return (images * (gain * draw(images, -1.0, 1.0, 3)).exp() + draw(images, -BRIGHTNESS, BRIGHTNESS)).clamp(0, 1)
