"""Values of what was found, and how they lie on the photo."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest

from funduscope.engine.findings import Decision, Findings, HeatMap, outline
from funduscope.engine.pictures.preprocess import Placement
from funduscope.postprocess import anatomy, measures
from funduscope.postprocess.anatomy import Rules

SIZE = 64
RULES = Rules(0.5, 0.5, "robust", 0.2, 10.0, -5.0)


def ellipse(x: float, y: float, width: float, height: float) -> np.ndarray:
    """A soft ellipse, float32 (SIZE, SIZE), that crosses one half on its outline."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    inside = 1 - np.hypot((columns - x) / (width / 2), (rows - y) / (height / 2))
    return np.clip(0.5 + 5 * inside, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def found() -> Findings:
    """A disc and a cup on a photo whose pixels are half as wide as the map's and a third as high."""
    blank = np.zeros((SIZE, SIZE), np.float32)
    maps = {"disc": ellipse(40, 30, 20, 24), "cup": ellipse(41, 31, 10, 12), "fovea": blank, "glaucoma": np.float32(0)}
    return Findings(width=150, height=210, anatomy=anatomy.measure(maps, RULES), placement=PLACEMENT)


PLACEMENT = Placement(0.5, 1 / 3, -7.25, 3.75)  # x = 2 (x of the map) + 14.5, y = 3 (y of the map) - 11.25
TRUE = {"disc": (94.5, 78.75, 40, 72), "cup": (96.5, 81.75, 20, 36)}  # x, y, width, height on the photo


@pytest.mark.parametrize("structure", TRUE)
def test_a_mask_lies_on_the_photo_where_it_should(found, structure):
    x, y, width, height = TRUE[structure]
    mask = found.mask(structure)
    rows, columns = np.nonzero(mask)
    assert (mask.dtype, mask.shape) == (bool, (210, 150))
    assert (columns.mean(), rows.mean()) == pytest.approx((x, y), abs=0.5)
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == pytest.approx((width, height), abs=3)
    assert mask.sum() == pytest.approx(math.pi / 4 * width * height, rel=0.03)


@pytest.mark.parametrize("structure", TRUE)
def test_a_contour_lies_around_its_mask(found, structure):
    x, y, width, height = TRUE[structure]
    contour = found.contour(structure)
    assert (contour.dtype, contour.shape[1]) == (np.float64, 2)
    middle = (contour.min(axis=0) + contour.max(axis=0)) / 2
    assert middle == pytest.approx((x, y), abs=1)
    assert np.ptp(contour, axis=0) == pytest.approx((width, height), abs=3)
    assert cv2.contourArea(contour.astype(np.float32)) == pytest.approx(math.pi / 4 * width * height, rel=0.06)


@pytest.mark.parametrize("structure", TRUE)
def test_without_anatomy_or_a_region_there_is_nothing_on_the_photo(found, structure):
    no_region = dataclasses.replace(found, anatomy=dataclasses.replace(found.anatomy, region=None))
    for nothing in (Findings(width=30, height=20), no_region):
        mask = nothing.mask(structure)
        assert (mask.dtype, mask.shape, mask.any()) == (bool, (nothing.height, nothing.width), False)
        assert nothing.contour(structure).shape == (0, 2)


def test_a_disc_without_a_cup_has_no_contour_of_one():
    blank = np.zeros((SIZE, SIZE), np.float32)
    maps = {"disc": ellipse(40, 30, 20, 24), "cup": blank, "fovea": blank, "glaucoma": np.float32(0)}
    found = Findings(width=150, height=210, anatomy=anatomy.measure(maps, RULES), placement=PLACEMENT)
    assert found.mask("disc").any()
    assert not found.mask("cup").any()
    assert found.contour("cup").shape == (0, 2)


def test_an_outline_is_measured_in_the_photos_pixels():
    mask = np.zeros((40, 40), bool)
    mask[10:20, 5:11] = True  # 6 x 10, centred on (7.5, 14.5)
    mask[20:22, 8] = True  # a longer column
    to_photo = np.array([[2.0, 0, 1], [0, 3.0, -1]])
    found = outline(mask, measures.vertical_diameter(mask), to_photo)
    rows, columns = np.nonzero(mask)
    assert (found.x, found.y) == pytest.approx((2 * columns.mean() + 1, 3 * rows.mean() - 1))
    assert (found.vertical_diameter_px, found.box_height_px) == (36, 36)
    assert found.area_px == 62 * 6
    assert {type(value) for value in vars(found).values()} == {float}
    assert outline(np.zeros((4, 4), bool), 0, to_photo) is None


def test_what_was_found_is_frozen_and_compared_without_its_arrays(found):
    heat = HeatMap(np.zeros((2, 2), np.float32), np.eye(2, 3))
    decision = Decision("glaucoma", 0.5, 0.4, True, heat)
    for own, name in ((found, "vcdr"), (decision, "called"), (heat, "cells")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(own, name, None)
    assert decision == Decision("glaucoma", 0.5, 0.4, True)
    assert decision != Decision("glaucoma", 0.5, 0.4, None)
    assert found == Findings(width=150, height=210)
    assert "array" not in repr(decision) + repr(found)


# heat


def test_between_cells_heat_is_interpolated_and_beyond_them_it_stays():
    heat = HeatMap(np.array([[0, 1], [0, 1]], np.float32), np.array([[32.0, 0, 16], [0, 32, 16]]))
    drawn = heat.on_photo(64, 64)
    assert drawn[20, [0, 16, 24, 32, 40, 48, 63]] == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1, 1], abs=1e-6)


def test_a_smaller_drawing_is_placed_by_its_pixels_centres():
    heat = HeatMap(np.array([[0, 1], [0, 1]], np.float32), np.array([[8.0, 0, 3.5], [0, 8, 3.5]]))  # of 16 x 16 px
    assert heat.on_photo(16, 16)[5, 4:12] == pytest.approx(np.arange(0.5, 8) / 8, abs=1e-6)
    half = heat.on_photo(8, 8, 0.5)  # its pixel k is centred on pixel 2 k + 1/2 of the photo
    assert half[3, 1:7] == pytest.approx([0, 0.125, 0.375, 0.625, 0.875, 1], abs=1e-6)
