"""Whether a field of view is round, of drawn ones and of the package's photograph."""

import cv2
import numpy as np
import pytest

from funduscope import Rejected, Screener, Screening
from funduscope.engine.errors import Code
from funduscope.engine.pictures import photo, roundness
from funduscope.engine.pictures.preprocess import Geometry, prepare


def field(width, height, side=256, cut=1.0):
    """A prepared square with a field of such axes, and no more than `cut` of its height."""
    image = np.zeros((side, side, 3), np.uint8)
    middle = side // 2
    cv2.ellipse(
        image, (middle, middle), (round(width * side / 2), round(height * side / 2)), 0, 0, 360, (170, 90, 40), -1
    )
    gone = round(side * height * (1 - cut) / 2)
    image[: middle - round(height * side / 2) + gone] = 0
    image[middle + round(height * side / 2) - gone :] = 0
    return image


@pytest.mark.parametrize("side", [160, 256, 384, 448, 512])
@pytest.mark.parametrize("ratio", [1.0, 0.9, 0.64, 1.5])
def test_the_ratio_of_the_axes(side, ratio):
    width, height = (ratio, 1.0) if ratio < 1 else (1.0, 1 / ratio)
    assert roundness.ratio(field(0.98 * width, 0.98 * height, side)) == pytest.approx(ratio, abs=0.03)


@pytest.mark.parametrize("cut", [0.95, 0.85, 0.75])
def test_a_field_that_is_cut_above_and_below_is_still_round(cut):
    found = roundness.ratio(field(0.98, 0.98, cut=cut))
    assert found is None or found == pytest.approx(1, abs=0.03)


def test_of_a_field_with_a_tab_it_is_the_circle_that_counts():
    image = field(0.9, 0.9)
    image[30:60, 200:240] = (170, 90, 40)
    assert roundness.ratio(image) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("image", [np.zeros((256, 256, 3), np.uint8), np.full((256, 256, 3), 120, np.uint8)])
def test_without_an_edge_it_cannot_be_told(image):
    assert roundness.ratio(image) is None


def test_noise_is_no_ellipse():
    image = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    assert roundness.ratio(image) is None


@pytest.mark.parametrize(("width", "code"), [(1.0, None), (0.85, "warns"), (0.64, "refused")])
def test_the_photograph_squeezed(cc0, width, code):
    pixels = photo.load(cc0).pixels
    squeezed = cv2.resize(pixels, None, fx=width, fy=1, interpolation=cv2.INTER_AREA)
    assert roundness.ratio(prepare(photo.load(squeezed), Geometry(384, 40)).image) == pytest.approx(width, abs=0.02)
    with Screener.open("multitask", backend="onnxruntime") as screener:
        result = screener(squeezed)
    if code == "refused":
        assert isinstance(result, Rejected)
        assert (result.status, result.code) == ("ungradable", Code.NOT_ROUND)
        assert "squeezed" in result.reason
    else:
        assert isinstance(result, Screening)
        assert (Code.NOT_ROUND in result.warnings) == (code == "warns")
