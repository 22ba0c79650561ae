"""Crop, square and the way back: coordinates must return to where they were."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from funduscope.engine.errors import Code, PhotoError
from funduscope.engine.pictures import photo, preprocess
from funduscope.engine.pictures.preprocess import Geometry, Placement

GEOMETRY = Geometry(size=256, fov_threshold=24, fov_light="brightest")
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
@given(
    st.integers(160, 700),
    st.integers(160, 700),
    st.sampled_from([128, 256, 512]),
    st.sampled_from(["brightest", "grey"]),
    st.data(),
)
def test_a_lit_spot_is_found_where_the_placement_says(height, width, size, light, data):
    pixels = np.full((height, width, 3), 60, np.uint8)
    x, y = data.draw(st.integers(30, width - 31)), data.draw(st.integers(30, height - 31))
    cv2.circle(pixels, (x, y), 12, (255, 255, 255), -1)
    prepared = preprocess.prepare(photo.load(pixels), Geometry(size, 24, light))
    weights = np.clip(prepared.image[..., 0].astype(float) - 60, 0, None)
    rows, columns = np.mgrid[:size, :size]
    found = (weights * columns).sum() / weights.sum(), (weights * rows).sum() / weights.sum()
    assert prepared.placement.to_photo(*found) == pytest.approx((x, y), abs=1.0)


@pytest.mark.parametrize(
    ("height", "width", "x", "y", "radius"),
    [(400, 600, 300, 200, 180), (600, 400, 200, 300, 150), (500, 500, 250, 250, 240), (1000, 1600, 500, 480, 300)],
)
def test_the_field_of_view_is_the_circles_box(height, width, x, y, radius):
    left, top, right, bottom = preprocess.field_of_view(circle(height, width, x, y, radius), 24, "brightest")
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
    assert preprocess.field_of_view(dated, 24, "brightest") == preprocess.field_of_view(clean, 24, "brightest")


def test_a_field_that_fills_the_picture_is_the_picture():
    assert preprocess.field_of_view(np.full((203, 301, 3), 90, np.uint8), 24, "brightest") == (0, 0, 301, 203)


def test_any_one_bright_channel_is_light():
    pixels = np.zeros((200, 200, 3), np.uint8)
    pixels[..., 0] = 60
    assert preprocess.field_of_view(pixels, 24, "brightest") == (0, 0, 200, 200)


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
        preprocess.prepare(photo.load(pixels), GEOMETRY)
    assert caught.value.code is Code.NO_FIELD_OF_VIEW


@pytest.mark.parametrize(
    ("height", "width"), [(700, 400), (400, 700), (130, 200), (128, 128), (2000, 1500), (256, 256)]
)
def test_the_square_holds_the_picture_in_its_middle(height, width):
    prepared = preprocess.prepare(photo.load(np.full((height, width, 3), 200, np.uint8)), GEOMETRY)
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
    preprocess.prepare(photo.load(pixels), GEOMETRY)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize(("height", "width"), [(300, 420), (700, 500), (180, 180)])
def test_a_mask_follows_its_photo(height, width):
    pixels = np.full((height, width, 3), 40, np.uint8)
    mask = cv2.ellipse(np.zeros((height, width), np.uint8), (width // 2, height // 3), (40, 55), 0, 0, 360, 1, -1) > 0
    pixels[mask] = 250
    prepared = preprocess.prepare(photo.load(pixels), GEOMETRY)
    drawn = prepared.placement.square_mask(mask, 256)
    seen = prepared.image[..., 0] > 145
    assert drawn.shape == (256, 256)
    assert drawn.dtype == bool
    assert 2 * (drawn & seen).sum() / (drawn.sum() + seen.sum()) > 0.97


def test_a_shifted_mask_does_not_follow():  # the test above can fail
    mask = np.zeros((200, 200), bool)
    mask[50:80, 50:80] = True
    placement = preprocess.prepare(photo.load(np.full((200, 200, 3), 40, np.uint8)), GEOMETRY).placement
    right, wrong = placement.square_mask(mask, 256), placement.square_mask(np.roll(mask, 5), 256)
    assert 2 * (right & wrong).sum() / (right.sum() + wrong.sum()) < 0.97


@given(arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3))))
def test_grey_is_the_luma_in_integers_to_the_last_digit(pixels):
    found = preprocess.grey(pixels)
    assert found.dtype == np.uint8
    expected = [[(19595 * r + 38470 * g + 7471 * b + 32768) // 65536 for r, g, b in row] for row in pixels.tolist()]
    assert found.tolist() == expected


def test_grey_rounds_where_a_truncated_luma_would_not():
    assert preprocess.grey(np.array([255, 0, 0], np.uint8)) == 76  # 76.24
    assert preprocess.grey(np.array([0, 255, 0], np.uint8)) == 150  # 149.69
    assert preprocess.grey(np.array([0, 0, 255], np.uint8)) == 29  # 29.07


def test_a_grey_pixel_keeps_its_value():
    every = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    np.testing.assert_array_equal(preprocess.grey(every), np.arange(256))


@pytest.mark.parametrize("channel", [0, 2], ids=["red", "blue"])
def test_dim_red_or_blue_is_light_only_in_the_brightest_channel(channel):
    pixels = np.zeros((200, 260, 3), np.uint8)
    pixels[..., channel] = 100
    assert preprocess.field_of_view(pixels, 40, "brightest") == (0, 0, 260, 200)
    with pytest.raises(PhotoError) as caught:
        preprocess.field_of_view(pixels, 40, "grey")
    assert caught.value.code is Code.NO_FIELD_OF_VIEW


def test_the_light_decides_where_the_field_of_view_ends():
    pixels = np.zeros((200, 260, 3), np.uint8)
    pixels[20:180, 30:230, 2] = 255  # blue: grey 29
    pixels[60:150, 100:190] = 90
    assert preprocess.field_of_view(pixels, 40, "brightest") == (30, 20, 230, 180)
    assert preprocess.field_of_view(pixels, 40, "grey") == (100, 60, 190, 150)
    square = [preprocess.prepare(photo.load(pixels), Geometry(64, 40, light)) for light in ("brightest", "grey")]
    assert [one.placement.to_square(100, 60) for one in square] != [(0, 0)] * 2
    assert square[1].placement.to_photo(31.5, 31.5) == pytest.approx((144.5, 104.5))


@pytest.mark.parametrize(("value", "lit"), [(40, False), (41, True)])
def test_grey_above_the_threshold_is_lit(value, lit):
    pixels = np.full((200, 200, 3), value, np.uint8)
    if lit:
        assert preprocess.field_of_view(pixels, 40, "grey") == (0, 0, 200, 200)
        return
    with pytest.raises(PhotoError):
        preprocess.field_of_view(pixels, 40, "grey")
