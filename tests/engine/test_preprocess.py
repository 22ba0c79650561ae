"""Crop, square and the way back: coordinates must return to where they were."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funduscope.engine import photo, preprocess
from funduscope.engine.errors import Code, PhotoError
from funduscope.engine.preprocess import Geometry, Placement

GEOMETRY = Geometry(size=256, fov_threshold=24)
scales = st.floats(0.02, 20)
offsets = st.floats(-5000, 5000)
coordinates = st.floats(-100, 12_000)


def circle(height: int, width: int, x: int, y: int, radius: int, brightness: int = 120) -> np.ndarray:
    return cv2.circle(np.zeros((height, width, 3), np.uint8), (x, y), radius, (brightness, brightness // 2, 20), -1)


@given(scales, scales, offsets, offsets, coordinates, coordinates)
def test_a_point_returns_from_the_square(scale_x, scale_y, offset_x, offset_y, x, y):
    placement = Placement(scale_x, scale_y, offset_x, offset_y)
    assert placement.to_photo(*placement.to_square(x, y)) == pytest.approx((x, y), abs=1e-6)
    square = placement.to_square(x, y)
    assert placement.matrix() @ (*square, 1) == pytest.approx((x, y), abs=1e-6)


@settings(max_examples=40)
@given(st.integers(160, 700), st.integers(160, 700), st.sampled_from([128, 256, 512]), st.data())
def test_a_lit_spot_is_found_where_the_placement_says(height, width, size, data):
    pixels = np.full((height, width, 3), 60, np.uint8)
    x, y = data.draw(st.integers(30, width - 31)), data.draw(st.integers(30, height - 31))
    cv2.circle(pixels, (x, y), 12, (255, 255, 255), -1)
    prepared = preprocess.prepare(photo.read(pixels), Geometry(size, 24))
    weights = np.clip(prepared.image[..., 0].astype(float) - 60, 0, None)
    rows, columns = np.mgrid[:size, :size]
    found = (weights * columns).sum() / weights.sum(), (weights * rows).sum() / weights.sum()
    assert prepared.placement.to_photo(*found) == pytest.approx((x, y), abs=1.0)


@pytest.mark.parametrize(
    ("height", "width", "x", "y", "radius"),
    [(400, 600, 300, 200, 180), (600, 400, 200, 300, 150), (500, 500, 250, 250, 240), (1000, 1600, 500, 480, 300)],
)
def test_the_field_of_view_is_the_circles_box(height, width, x, y, radius):
    left, top, right, bottom = preprocess.field_of_view(circle(height, width, x, y, radius), 24)
    # a line counts once 2 % of it is lit, and every 8th pixel is looked at
    assert (left, top) == pytest.approx((x - radius, y - radius), abs=16)
    assert (right, bottom) == pytest.approx((x + radius, y + radius), abs=16)


def test_a_date_and_specks_in_the_border_do_not_count():
    clean = circle(960, 1280, 640, 480, 400)
    dated = clean.copy()
    dated[8:16, 16:40] = 255  # a short word
    dated[900:902, 1200:1202] = 255
    for _ in range(20):
        dated[np.random.default_rng(1).integers(0, 960), 40] = 255
    assert preprocess.field_of_view(dated, 24) == preprocess.field_of_view(clean, 24)


def test_a_field_that_fills_the_picture_is_the_picture():
    assert preprocess.field_of_view(np.full((203, 301, 3), 90, np.uint8), 24) == (0, 0, 301, 203)


def test_any_one_bright_channel_is_light():
    pixels = np.zeros((200, 200, 3), np.uint8)
    pixels[..., 0] = 60
    assert preprocess.field_of_view(pixels, 24) == (0, 0, 200, 200)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((300, 400, 3), np.uint8),
        np.full((300, 400, 3), 24, np.uint8),  # not above the threshold
        circle(1000, 1000, 500, 500, 30),
    ],
    ids=["black", "near black", "a small light"],
)
def test_without_light_there_is_no_field_of_view(pixels):
    with pytest.raises(PhotoError) as caught:
        preprocess.prepare(photo.read(pixels), GEOMETRY)
    assert caught.value.code is Code.NO_FIELD_OF_VIEW


@pytest.mark.parametrize(
    ("height", "width"), [(700, 400), (400, 700), (130, 200), (128, 128), (2000, 1500), (256, 256)]
)
def test_the_square_holds_the_picture_in_its_middle(height, width):
    prepared = preprocess.prepare(photo.read(np.full((height, width, 3), 200, np.uint8)), GEOMETRY)
    assert prepared.image.shape == (256, 256, 3)
    assert prepared.image.dtype == np.uint8
    lit = prepared.image.max(axis=2) > 0
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    assert max(rows.size, columns.size) == 256
    assert rows.size / columns.size == pytest.approx(height / width, rel=0.01)
    assert rows[0] == pytest.approx(255 - rows[-1], abs=1)
    assert columns[0] == pytest.approx(255 - columns[-1], abs=1)


def test_the_photo_is_not_changed(fundus):
    pixels = fundus(300, 400)
    before = pixels.copy()
    preprocess.prepare(photo.read(pixels), GEOMETRY)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize(("height", "width"), [(300, 420), (700, 500), (180, 180)])
def test_a_mask_follows_its_photo(height, width):
    pixels = np.full((height, width, 3), 40, np.uint8)
    mask = cv2.ellipse(np.zeros((height, width), np.uint8), (width // 2, height // 3), (40, 55), 0, 0, 360, 1, -1) > 0
    pixels[mask] = 250
    prepared = preprocess.prepare(photo.read(pixels), GEOMETRY)
    drawn = prepared.placement.square_mask(mask, 256)
    seen = prepared.image[..., 0] > 145
    assert drawn.shape == (256, 256)
    assert drawn.dtype == bool
    assert 2 * (drawn & seen).sum() / (drawn.sum() + seen.sum()) > 0.97


def test_a_shifted_mask_does_not_follow():  # the test above can fail
    mask = np.zeros((200, 200), bool)
    mask[50:80, 50:80] = True
    placement = preprocess.prepare(photo.read(np.full((200, 200, 3), 40, np.uint8)), GEOMETRY).placement
    right, wrong = placement.square_mask(mask, 256), placement.square_mask(np.roll(mask, 5), 256)
    assert 2 * (right & wrong).sum() / (right.sum() + wrong.sum()) < 0.97
