"""The classifier's heat maps: where on the photo they lie, and what is drawn as full heat."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from funduscope.engine.contract import Model
from funduscope.engine.findings import HeatMap
from funduscope.engine.readers.classifier import Classifier

pytestmark = pytest.mark.usefixtures("any_colours")

GREY = np.full((192, 192, 3), 90, np.uint8)
LEVEL = 90  # of the field of view; a spot is white


def drawn_at(model: Model, disease: str, scale: float | None) -> Model:
    """The same file under a contract with another full heat."""
    document = model.contract.model_dump()
    document["decisions"][disease]["map_scale"] = scale
    return dataclasses.replace(model, contract=Classifier.model_validate(document))


def spotted(width: int, height: int, field: tuple[int, int, int, int], spot: tuple[int, int, int]) -> np.ndarray:
    """A lit field (left, top, right, bottom) on black, and in it a white square (x, y, half)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = field
    pixels[top:bottom, left:right] = (LEVEL + 8, LEVEL, LEVEL - 20)  # as bright as grey, but no border
    x, y, half = spot
    pixels[y - half : y + half + 1, x - half : x + half + 1] = 255
    return pixels


def distance(heat: HeatMap, width: int, height: int, spot: tuple[int, int, int], scale: float) -> float:
    """From the spot to the centre of what is hot, in cells."""
    drawn = heat.on_photo(round(width * scale), round(height * scale), scale)
    assert drawn.shape == (round(height * scale), round(width * scale))
    assert drawn.dtype == np.float32
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    excess = np.clip(drawn - (LEVEL + 4) / 255, 0, None)
    rows, columns = np.mgrid[: drawn.shape[0], : drawn.shape[1]]
    x, y = ((excess * of).sum() / excess.sum() for of in (columns, rows))
    cell = heat.grid[0, 0]
    there = [(of + 0.5) * scale - 0.5 for of in spot[:2]]
    return math.hypot(x - there[0], y - there[1]) / (cell * scale)


FIELDS = {
    "wide": (900, 600, (0, 0, 900, 600)),
    "tall": (420, 700, (0, 0, 420, 700)),
    "off centre": (900, 600, (260, 30, 860, 590)),
    "far off centre": (700, 800, (20, 350, 520, 780)),
    "smaller than the square": (160, 140, (40, 20, 134, 110)),
}
PLACES = [(0.3, 0.25), (0.5, 0.5), (0.7, 0.33), (0.35, 0.8)]  # shares of the field


@pytest.mark.parametrize("name", FIELDS)
def test_heat_lies_on_the_photo_where_the_picture_is_bright(fake, classifier, name):
    width, height, field = FIELDS[name]
    left, top, right, bottom = field
    with fake(models=[classifier]) as opened:
        for across, down in PLACES:
            spot = (
                round(left + across * (right - left)),
                round(top + down * (bottom - top)),
                round(0.1 * max(right - left, bottom - top)),
            )
            heat = opened(spotted(width, height, field, spot)).decisions["glaucoma_second"].heat
            for scale in (1.0, 0.5, 0.31):
                assert distance(heat, width, height, spot, scale) < 0.25
            moved = dataclasses.replace(heat, grid=heat.grid + np.array([[0, 0, heat.grid[0, 0]], [0, 0, 0]]))
            assert distance(moved, width, height, spot, 1.0) > 0.7  # a map that is a cell away is seen


def test_each_disease_has_its_own_heat(fake, classifier):
    with fake(models=[classifier]) as opened:
        found = opened(np.full((192, 192, 3), (51, 128, 230), np.uint8)).decisions
    for verdict, value in (("referable_dr", 51), ("glaucoma_second", 128), ("any_dr", 230)):
        heat = found[verdict].heat
        assert heat.cells.shape == (12, 12)
        assert heat.cells.dtype == np.float32
        np.testing.assert_allclose(heat.cells, value / 255, atol=1e-6)
        np.testing.assert_allclose(heat.on_photo(192, 192), value / 255, atol=1e-5)


@pytest.mark.parametrize(("scale", "heat"), [(2.0, 0.25), (1.0, 0.5), (0.25, 1.0)])
def test_full_heat_is_the_contracts_scale(fake, classifier, opinions, scale, heat):
    def classify(image):
        return opinions() | {"glaucoma_map": np.array([[0.5, -1.0]] * 2, np.float32)}

    one = drawn_at(classifier, "glaucoma", scale)
    with fake(models=[one], classify=classify) as opened:
        found = opened(GREY).decisions
    np.testing.assert_array_equal(found["glaucoma_second"].heat.cells, np.array([[heat, 0]] * 2, np.float32))


def test_a_classifier_without_maps_has_no_heat(fake, classifier, mapless):
    with fake(models=[mapless]) as opened:
        found = opened(GREY).decisions
    assert [own.heat for own in found.values()] == [None] * 3
    with fake(models=[drawn_at(classifier, "any_dr", None)]) as opened:
        found = opened(GREY).decisions
    assert [found[name].heat is None for name in ("glaucoma_second", "referable_dr", "any_dr")] == [False, False, True]
