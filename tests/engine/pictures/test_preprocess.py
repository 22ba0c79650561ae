"""Crop, square and the way back: coordinates must return to where they were."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from funduscope.engine.errors import Code, PhotoError
from funduscope.engine.pictures import photo, preprocess
from funduscope.engine.pictures.preprocess import Geometry, Placement

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
@given(
    st.integers(160, 700),
    st.integers(160, 700),
    st.sampled_from([128, 256, 512]),
    st.data(),
)
def test_a_lit_spot_is_found_where_the_placement_says(height, width, size, data):
    pixels = np.full((height, width, 3), 60, np.uint8)
    x, y = data.draw(st.integers(30, width - 31)), data.draw(st.integers(30, height - 31))
    cv2.circle(pixels, (x, y), 12, (255, 255, 255), -1)
    prepared = preprocess.prepare(photo.load(pixels), Geometry(size, 24))
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
    # a line counts once 2 % of it is lit
    assert (left, top) == pytest.approx((x - radius, y - radius), abs=8)
    assert (right, bottom) == pytest.approx((x + radius, y + radius), abs=8)


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
    pixels = np.full((height, width, 3), (60, 40, 20), np.uint8)
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


@pytest.mark.parametrize("channel", [0, 1, 2], ids=["red", "green", "blue"])
@pytest.mark.parametrize(("value", "lit"), [(40, False), (41, True)])
def test_a_channel_above_the_threshold_is_light(channel, value, lit):
    pixels = np.zeros((200, 260, 3), np.uint8)
    pixels[..., channel] = value
    if lit:
        assert preprocess.field_of_view(pixels, 40) == (0, 0, 260, 200)
        return
    with pytest.raises(PhotoError) as caught:
        preprocess.field_of_view(pixels, 40)
    assert caught.value.code is Code.NO_FIELD_OF_VIEW


# one pass


def field(height: int, width: int, spot: tuple[int, int]) -> np.ndarray:
    """A lit field with a bright, soft spot."""
    pixels = circle(height, width, width // 2, height // 2, min(height, width) * 45 // 100, 90)
    return cv2.GaussianBlur(cv2.circle(pixels, spot, 40, (255, 255, 255), -1), (0, 0), 4)


def spot_of(prepared: preprocess.Prepared) -> tuple[float, float]:
    """Where the spot lies in the photo, by the prepared square alone."""
    weights = np.clip(prepared.image[..., 2].astype(float) - 60, 0, None)
    rows, columns = np.indices(weights.shape)
    return prepared.placement.to_photo(
        (weights * columns).sum() / weights.sum(), (weights * rows).sum() / weights.sum()
    )


@pytest.mark.parametrize("size", [256, 448])
@pytest.mark.parametrize(("height", "width"), [(2848, 4288), (1893, 1900), (1411, 1411), (900, 1201), (563, 700)])
def test_a_jpeg_and_a_png_give_the_same_square(height, width, size):
    spot = width // 2 + height // 5, height // 2 - height // 7
    pixels = field(height, width, spot)
    jpeg = photo.load(simplejpeg.encode_jpeg(pixels, quality=98, colorsubsampling="444"))
    png = photo.load(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    first, second = (preprocess.prepare(one, Geometry(size, 24)) for one in (jpeg, png))
    assert np.abs(first.image.astype(int) - second.image).mean() < 2
    assert spot_of(first) == pytest.approx(spot, abs=1.5)
    assert spot_of(second) == pytest.approx(spot, abs=1.5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_is_placed_to_the_pixel_whatever_its_size(orientation):
    stored = field(1893, 2907, (2000, 700))  # neither side is a multiple of 2
    data = with_orientation(simplejpeg.encode_jpeg(stored, quality=98), orientation)
    picture = photo.load(data)
    prepared = preprocess.prepare(picture, GEOMETRY)
    assert picture.at_least(photo.SIDE).factor == 2
    rows, columns = np.nonzero(picture.pixels[..., 2] > 250)
    assert spot_of(prepared) == pytest.approx((columns.mean(), rows.mean()), abs=0.8)


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    block = exif.tobytes()
    return jpeg[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]


def test_a_small_field_is_looked_at_finer():
    pixels = np.zeros((2848, 4288, 3), np.uint8)
    pixels[1000:1800, 1500:2300] = field(800, 800, (400, 400))
    picture = photo.load(simplejpeg.encode_jpeg(pixels, quality=98))
    wide, narrow = (preprocess.prepare(picture, Geometry(size, 24)) for size in (448, 128))
    assert spot_of(wide) == pytest.approx((1900, 1400), abs=1)
    assert 1 / wide.placement.scale_x < 2  # not enlarged from a quarter
    assert spot_of(narrow) == pytest.approx((1900, 1400), abs=2)


def test_a_square_does_not_depend_on_what_else_was_prepared():
    data = simplejpeg.encode_jpeg(field(1893, 1900, (1200, 800)))
    alone = preprocess.prepare(photo.load(data), GEOMETRY)
    shared = photo.load(data)
    for size in (512, 448, 64):
        preprocess.prepare(shared, Geometry(size, 24))
    assert shared.pixels.shape == (1893, 1900, 3)
    np.testing.assert_array_equal(preprocess.prepare(shared, GEOMETRY).image, alone.image)


@pytest.mark.parametrize("colour", [(45,) * 3, (128,) * 3, (255,) * 3, (0, 177, 64), (30, 60, 200)])
@pytest.mark.parametrize("wide", [0, 30])
def test_a_border_that_is_not_black_is_as_a_black_one(colour, wide):
    rows, columns = np.mgrid[:240, :240]
    inside = np.hypot(rows - 119.5, columns - 119.5) < 115
    retina = np.dstack([120 + rows // 4, 60 + columns // 8, 20 + rows // 16]).astype(np.uint8)
    drawn = [np.where(inside[..., None], retina, np.array(own, np.uint8)) for own in ((0,) * 3, colour)]
    padding = (wide, wide, 2 * wide, 2 * wide, cv2.BORDER_REPLICATE)
    black, bright = (np.asarray(cv2.copyMakeBorder(own, *padding)) for own in drawn)
    geometry = preprocess.Geometry(96, 24)
    expected, found = (preprocess.prepare(photo.load(own), geometry).image.astype(int) for own in (black, bright))
    assert np.abs(expected - found).mean() < 4  # the edge alone
    assert np.abs(expected - found)[30:66, 30:66].mean() < 3


@pytest.mark.parametrize("colour", [(180, 90, 40), (0, 0, 0), (20, 20, 20)])
def test_what_has_the_colour_of_a_retina_or_is_dark_is_no_border(colour):
    pixels = np.full((200, 240, 3), colour, np.uint8)
    pixels[50:150, 60:180] = (200, 110, 50)
    assert preprocess.without_border(pixels, 24) is pixels


@pytest.mark.parametrize("table", [(230, 230, 230), (120, 110, 100)], ids=["white", "grey"])
@pytest.mark.parametrize("noise", [0, 6])
def test_of_a_screen_that_was_photographed_the_retina_is_left(cc0, table, noise):
    eye = cv2.resize(photo.load(cc0).pixels, (600, 600), interpolation=cv2.INTER_AREA)
    screen = cv2.copyMakeBorder(np.clip(eye, 18, 255), 40, 40, 200, 200, cv2.BORDER_CONSTANT, value=(18,) * 3)
    frame = cv2.copyMakeBorder(screen, *[30] * 4, cv2.BORDER_CONSTANT, value=(70,) * 3)
    shot = cv2.copyMakeBorder(frame, *[90] * 4, cv2.BORDER_CONSTANT, value=table).astype(float)
    shot += np.random.default_rng(0).normal(0, noise, shot.shape)
    geometry = preprocess.Geometry(256, 24)
    found = preprocess.prepare(photo.load(np.clip(shot, 0, 255).astype(np.uint8)), geometry).image.astype(int)
    expected = preprocess.prepare(photo.load(eye), geometry).image.astype(int)
    assert np.abs(found - expected)[64:192, 64:192].mean() < 8  # moved by a pixel at the most
    assert np.abs(found - expected).mean() < 8


def test_what_is_no_round_part_with_a_hue_stays_as_it_is():
    pixels = np.random.default_rng(0).normal(150, 20, (300, 400, 3)).clip(0, 255).astype(np.uint8)
    assert preprocess.without_border(pixels, 24) is pixels
    pixels[100:200, 50:350] = (200, 100, 40)  # a box
    assert preprocess.without_border(pixels, 24) is pixels


def test_a_dark_border_whose_noise_is_light_is_a_border():
    grey = np.random.default_rng(0).normal(21, 4, (600, 720, 1)).clip(0, 255).astype(np.uint8)
    pixels = np.repeat(grey, 3, axis=2)
    cv2.circle(pixels, (360, 300), 200, (200, 110, 50), -1)
    box = preprocess.field_of_view(preprocess.without_border(pixels, 24), 24)
    assert np.abs(np.subtract(box, (160, 100, 561, 501))).max() <= 8
    assert np.abs(np.subtract(preprocess.field_of_view(pixels, 24), (160, 100, 561, 501))).max() > 50  # as it is


def test_corners_of_different_greys_are_no_border():
    pixels = np.full((200, 240, 3), 90, np.uint8)
    pixels[-20:, -20:] = 200
    assert preprocess.without_border(pixels, 24) is pixels


SIDES = [(700, 900), (900, 700), (2848, 4288), (1411, 1411), (300, 300)]


def with_a_dot(height, width, dx=30, dy=-20):
    """A picture with a white dot beside its centre, and where that is."""
    at = width // 2 + dx, height // 2 + dy
    pixels = np.full((height, width, 3), 40, np.uint8)
    cv2.circle(pixels, at, max(5, width // 100), (255, 255, 255), -1)
    return photo.load(pixels), at


def dot(image):
    rows, columns = np.nonzero(image[..., 0] > 147)
    return columns.mean(), rows.mean()


@pytest.mark.parametrize("share", [0.75, 0.6, 0.5])
@pytest.mark.parametrize(("height", "width"), SIDES)
def test_a_closer_look_lies_where_its_placement_says(height, width, share):
    read, at = with_a_dot(height, width)
    finer = preprocess.finer(read, Geometry(512, 20))
    assert finer.share == pytest.approx(1, abs=0.01)
    seen = preprocess.middle(finer, share, 256)
    assert seen.image.shape == (256, 256, 3)
    assert seen.finer is finer
    assert seen.placement.to_photo(*dot(seen.image)) == pytest.approx(at, abs=max(width, height) / 900)
    assert seen.share == pytest.approx(share, rel=0.01)
    assert seen.placement.scale_x == pytest.approx(256 / max(height, width) / share, rel=0.01)


def test_beyond_a_field_that_is_not_square_a_closer_look_is_black():
    read = photo.load(np.full((400, 900, 3), 90, np.uint8))
    finer = preprocess.finer(read, Geometry(512, 20))
    assert finer.image.shape == (900, 900, 3)
    assert np.flatnonzero(finer.image[:, 300, 0]).tolist() == list(range(250, 650))


@pytest.mark.parametrize(("height", "width"), SIDES)
@pytest.mark.parametrize(("dx", "dy"), [(30, -20), (-0.45, 0.3)])
def test_the_square_around_a_disc_lies_where_its_placement_says(height, width, dx, dy):
    if isinstance(dx, float):  # at the edge, beyond which it is black
        dx, dy = int(dx * width), int(dy * height)
    read, at = with_a_dot(height, width, dx, dy)
    finer = preprocess.finer(read, Geometry(512, 20))
    across = 0.2 * max(height, width)  # of the disc, in the photo
    spot = preprocess.Spot(finer, *finer.placement.to_square(*at), across * finer.placement.scale_y)
    seen = preprocess.around(spot, Geometry(192, 20, 2.6))
    assert seen.image.shape == (192, 192, 3)
    assert dot(seen.image) == pytest.approx((95.5, 95.5), abs=1)
    assert seen.placement.to_photo(*dot(seen.image)) == pytest.approx(at, abs=max(width, height) / 900)
    assert seen.share == pytest.approx(0.52, rel=0.01)
    beyond = seen.placement.to_square(-1, 0)[0]
    if beyond > 0:
        assert not seen.image[:, : int(beyond) - 1].any()
