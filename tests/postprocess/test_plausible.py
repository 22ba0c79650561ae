"""What can be a disc and what cannot: size, shape, distance from the fovea."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from funduscope.postprocess import plausible
from funduscope.postprocess.anatomy import Anatomy
from funduscope.postprocess.masks import DiscRegion

SIDE, ZOOM = 256, 4


def seen(width: float = 38, height: float = 40, fovea: tuple[float, float] | None = (60, 128), drawn=None) -> Anatomy:
    """A disc of so many map pixels, centred on (150, 128)."""
    mask = np.zeros((SIDE * ZOOM, SIDE * ZOOM), np.uint8)
    axes = (round(width * ZOOM / 2), round(height * ZOOM / 2))
    cv2.ellipse(mask, (150 * ZOOM, 128 * ZOOM), axes, 0, 0, 360, 1, -1)
    if drawn is not None:
        drawn(mask)
    region = DiscRegion(mask.astype(bool), np.zeros(mask.shape, bool), 0, 0, ZOOM)
    tall = int(region.disc.sum(axis=0).max())
    return Anatomy(region, tall, 0, None, fovea, 0.5, None, None)


@pytest.mark.parametrize(("width", "height"), [(38, 40), (44, 40), (22, 44), (12, 13), (80, 84)])
def test_discs_as_they_are(width, height):
    assert plausible.is_disc(seen(width, height, fovea=None), SIDE)


@pytest.mark.parametrize(
    ("width", "height"), [(4, 4), (7, 8), (100, 100), (16, 44), (60, 40)], ids=["1.6 %", "3 %", "large", "tall", "wide"]
)
def test_what_is_no_disc_by_its_size_or_sides(width, height):
    assert not plausible.is_disc(seen(width, height, fovea=None), SIDE)


def test_a_disc_smeared_along_a_vessel_is_none():
    def arcade(mask):
        cv2.line(mask, (150 * ZOOM, 128 * ZOOM), (200 * ZOOM, 180 * ZOOM), 1, 12 * ZOOM)

    assert not plausible.is_disc(seen(drawn=arcade, fovea=None), SIDE)


def test_a_disc_is_judged_by_the_field_not_by_the_square():
    assert not plausible.is_disc(seen(8, 8, fovea=None), SIDE)
    assert plausible.is_disc(seen(8, 8, fovea=None), SIDE / 2)
    assert not plausible.is_disc(seen(16, 16, fovea=None), SIDE * 2)  # seen closer


@pytest.mark.parametrize(
    ("fovea", "disc", "told"), [((60, 128), True, True), ((150, 150), True, False), ((150, 340), False, True)]
)
def test_the_foveas_distance(fovea, disc, told):
    found = seen(fovea=fovea)
    assert plausible.is_disc(found, SIDE) is disc
    assert plausible.is_fovea(found) is told


def test_without_a_fovea_nothing_is_said_of_it():
    assert plausible.is_fovea(seen(fovea=None))


@pytest.mark.parametrize(
    ("fovea", "told"),
    [
        ((60, 128), False),
        ((60, 200), False),
        ((240, 60), False),
        ((150, 30), True),
        ((170, 220), True),
        ((152, 110), None),
        ((152, 80), None),
    ],
    ids=["level", "slanting", "slanting up", "above", "below", "within the disc", "too near"],
)
def test_a_picture_on_its_side(fovea, told):
    assert plausible.is_sideways(seen(fovea=fovea)) is told


def test_without_a_fovea_no_side_is_known():
    assert plausible.is_sideways(seen(fovea=None)) is None


@pytest.mark.parametrize(("side", "level", "told"), [(10, 250, True), (10, 244, False), (6, 250, False)])
def test_a_burnt_out_disc(side, level, told):
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    image[..., 0] = 255  # red burns out on many cameras
    image[128 - side // 2 : 128 + side // 2, 150 - side // 2 : 150 + side // 2, 1] = level  # of an area of 1,194 px
    assert plausible.is_burnt_out(seen(), image) is told
    around = seen().region  # as it is measured: on the part of the map around the disc
    top, left, bottom, right = 100, 120, 156, 180
    part = around.disc[ZOOM * top : ZOOM * bottom, ZOOM * left : ZOOM * right]
    cut = replace(seen(), region=DiscRegion(part, part, left, top, ZOOM))
    assert plausible.is_burnt_out(cut, image) is told
