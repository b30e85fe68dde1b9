"""Claims about maps of what a score depends on: they find it, and what they name first is missed most."""

import torch
import torch.nn.functional as F

from clip import saliency
from clip.encoder import Encoder


class Corner(Encoder):
    """Class 0 is a picture with red in its upper left quarter; nothing else counts."""

    name, size, context, width, scale, bias, digest = "corner", 32, 8, 2, 5.0, 0.0, "0"

    def __init__(self, scores="softmax"):
        self.scores = scores

    def prepare(self, picture):
        raise NotImplementedError

    def embed_images(self, pictures):
        red = pictures[:, 0, :16, :16].float().mean((1, 2)) / 255
        return F.normalize(torch.stack((red, 1 - red), dim=1) + 1e-3, dim=1)

    def embed_texts(self, texts):
        raise NotImplementedError

    def too_long(self, texts):
        return 0


def picture(height: int = 32, width: int = 32):
    found = torch.zeros(3, height, width, dtype=torch.uint8)
    found[0, 2 : height // 2, 2 : width // 2] = 255
    return found


def test_windows_cover_every_place_and_are_a_quarter_of_a_side_but_at_the_border():
    for height, width in ((32, 32), (64, 40), (7, 9)):
        masks = saliency.windows(height, width)
        assert masks.any(0).all() and masks.flatten(1).any(1).all()
        sizes = masks.flatten(1).sum(1)
        assert sizes.max() <= (height // 4 + 1) * (width // 4 + 1)


def test_a_map_is_high_where_the_evidence_is_and_zero_where_nothing_depends():
    for scores in ("softmax", "sigmoid"):
        found = saliency.saliency(Corner(scores), picture(), torch.eye(2), 0)
        assert found.shape == (32, 32) and found[4:12, 4:12].min() > 0.005
        assert found[24:, 24:].abs().max() < 1e-6  # no window there touches the red quarter


def test_what_speaks_for_one_class_speaks_against_the_other():
    found = saliency.saliency(Corner(), picture(), torch.eye(2), 1)
    assert found[4:12, 4:12].max() < -0.005


def test_covering_takes_the_colour_of_the_border_and_leaves_the_rest():
    drawing = picture()
    drawing[:, 0], drawing[:, -1], drawing[:, :, 0], drawing[:, :, -1] = 200, 200, 200, 200
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[0, 10:20] = True
    (gone,) = saliency.covered(drawing, mask)
    assert (gone[:, 10:20] == 200).all() and torch.equal(gone[:, :10], drawing[:, :10])


def test_what_a_map_names_first_is_missed_more_than_places_at_random():
    encoder, drawing, classes = Corner(), picture(), torch.eye(2)
    found = saliency.saliency(encoder, drawing, classes, 0)
    named = saliency.deletion(encoder, drawing, classes, 0, found, 0.2)
    torch.manual_seed(0)
    at_random = [saliency.deletion(encoder, drawing, classes, 0, torch.rand(32, 32), 0.2) for _ in range(20)]
    assert named < min(at_random)


def test_an_overlay_is_red_where_it_speaks_for_the_class_blue_where_against_and_pale_where_nothing_is():
    found = torch.zeros(32, 32)
    found[:8], found[24:] = 1.0, -1.0
    shown = saliency.overlay(torch.full((3, 32, 32), 100, dtype=torch.uint8), found).float()
    assert (shown[0, :8] > shown[2, :8] + 80).all() and (shown[2, 24:] > shown[0, 24:] + 80).all()
    assert (shown[:, 10:20] == round(255 - 0.75 * 155)).all()
