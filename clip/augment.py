"""Pictures (b 3 h w) in [0, 1], each turned, scaled, moved, sheared, redrawn and recoloured a little, anew every call.

Little data is seen many times: changing it each time is what makes a small CLIP work on another artist's drawings.
What captions speak of is kept: nothing is mirrored (left stays left), nothing is turned far (top stays top), colours
keep their names.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

TURN, SHEAR, MOVE = 0.25, 0.15, 0.12  # the most: radians, slope, parts of a side
SMALLER, LARGER, SQUEEZE = (
    0.5,
    0.15,
    0.1,
)  # the most: logarithms of the scale, and of one side against the other
OUTLINE, CONTRAST, GAIN, BRIGHTNESS = 3.0, 0.3, 0.12, 0.1


def augment(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Uses torch's global random state. Half of the pictures are redrawn, all are moved and recoloured."""
    return recolour(redraw(move(images)))


def draw(images: Tensor, low: float, high: float, channels: int = 1) -> Float[Tensor, "b c 1 1"]:
    """A number between `low` and `high` for each picture and channel."""
    return low + (high - low) * torch.rand(len(images), channels, 1, 1, device=images.device)


def move(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """One resampling for the whole batch; beyond the border the border's pixels go on."""
    turn, slope = draw(images, -TURN, TURN), draw(images, -SHEAR, SHEAR)
    step = draw(images, -LARGER, SMALLER).exp()  # between the points that are looked up: longer makes it smaller
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


def recolour(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Contrast, saturation, the balance of the channels and brightness."""
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * draw(images, 0.5, 1.7)
    images = (images - 0.5) * draw(images, -CONTRAST, CONTRAST).exp() + 0.5
    return (images * draw(images, -GAIN, GAIN, 3).exp() + draw(images, -BRIGHTNESS, BRIGHTNESS)).clamp(0, 1)
