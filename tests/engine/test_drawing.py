"""Drawings: heat where it is hot and nowhere else, contours where the outlines are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from funduscope.engine import drawing
from funduscope.engine.errors import SettingsError
from funduscope.engine.findings import Decision, Findings, HeatMap
from funduscope.engine.pictures import photo


def heat(width: int, height: int, hot: tuple[int, int] | None = None, level: float = 0.0) -> HeatMap:
    """A map of 10 x 10 cells over a picture. hot: the cell (x, y) with full heat; level: of all others."""
    cells = np.full((10, 10), level, np.float32)
    if hot:
        cells[hot[1], hot[0]] = 1
    across, down = width / 10, height / 10
    return HeatMap(cells, np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]]))


# heat


@pytest.mark.parametrize(("height", "width"), [(200, 260), (300, 200), (128, 128)])
def test_without_heat_the_photo_is_unchanged(fundus, height, width):
    pixels = fundus(height, width)
    np.testing.assert_array_equal(drawing.heated(photo.load(pixels), heat(width, height)), pixels)


def test_without_heat_a_smaller_drawing_is_the_smaller_photo(fundus):
    pixels = fundus(400, 520)
    found = drawing.heated(photo.load(pixels), heat(520, 400), 130)
    np.testing.assert_array_equal(found, cv2.resize(pixels, (130, 100), interpolation=cv2.INTER_AREA))


def test_the_dark_surround_is_never_heated(fundus):
    pixels = fundus(200, 260)
    pixels[:20, :20] = 12  # not quite black
    pixels[:20, 240:] = 13
    found = drawing.heated(photo.load(pixels), heat(260, 200, level=1.0))
    dark = pixels.max(axis=2) <= 12
    assert dark.sum() > 10_000
    np.testing.assert_array_equal(found[dark], pixels[dark])
    assert (found[~dark] != pixels[~dark]).any(axis=1).mean() > 0.99


def test_heat_is_drawn_where_it_is_and_nowhere_else():
    pixels = np.full((200, 400, 3), 120, np.uint8)
    found = drawing.heated(photo.load(pixels), heat(400, 200, hot=(7, 2)))
    rows, columns = np.nonzero((found != pixels).any(axis=2))
    assert (columns.mean(), rows.mean()) == pytest.approx((299.5, 49.5), abs=1)
    assert (np.ptp(columns), np.ptp(rows)) == pytest.approx((80, 40), abs=6)  # fades towards the next cells' centres


def test_heat_is_drawn_at_the_same_place_in_a_smaller_drawing():
    pixels = np.full((400, 800, 3), 120, np.uint8)
    found = drawing.heated(photo.load(pixels), heat(800, 400, hot=(7, 2)), 200)
    assert found.shape == (100, 200, 3)
    rows, columns = np.nonzero((found != 120).any(axis=2))
    assert (columns.mean(), rows.mean()) == pytest.approx((149.5, 24.5), abs=0.6)


@pytest.mark.parametrize("side", [130, 1024])
def test_a_layer_over_the_photo_is_the_drawing(fundus, side):
    pixels = fundus(400, 520)
    seen, hot = photo.load(pixels), heat(520, 400, hot=(4, 5), level=0.3)
    drawn, layer = drawing.heated(seen, hot, side), drawing.heat_layer(seen, hot, side)
    below = drawing.heated(seen, heat(520, 400), side)
    opacity = layer[..., 3:] / 255
    assert np.abs(below * (1 - opacity) + layer[..., :3] * opacity - drawn).max() < 2
    assert np.abs(below.astype(int) - drawn).max() > 50
    assert not layer[0, 0].any()
    back = cv2.imdecode(np.frombuffer(drawing.encoded(layer, ".png"), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(back, cv2.cvtColor(layer, cv2.COLOR_RGBA2BGRA))


def test_little_heat_is_blue_and_full_heat_red():
    grey = np.full((200, 200, 3), 100, np.uint8)
    mild, full = (drawing.heated(photo.load(grey), heat(200, 200, level=level))[100, 100] for level in (0.15, 1.0))
    assert mild[2] > mild[0] + 20
    assert full[0] > full[2] + 20
    assert np.abs(mild.astype(int) - 100).max() < np.abs(full.astype(int) - 100).max()  # less heat, less opaque


def test_the_photo_shows_through_full_heat():
    pixels = np.full((200, 200, 3), 60, np.uint8)
    pixels[:, 100:] = 200
    found = drawing.heated(photo.load(pixels), heat(200, 200, level=1.0)).astype(int)
    assert (found[:, 150] - found[:, 50] > 50).all()


# contours


def test_contours_lie_on_the_outlines(fake, fundus):
    with fake() as opened:
        found = opened(fundus(seed=1), keep_photo=True)
    drawn = drawing.contoured(found.photo, found)
    for outline, colour in ((found.disc, drawing.DISC), (found.cup, drawing.CUP)):
        rows, columns = np.nonzero((drawn == colour).all(axis=2))
        assert (columns.mean(), rows.mean()) == pytest.approx((outline.x, outline.y), abs=2)
        assert np.ptp(rows) == pytest.approx(outline.box_height_px, abs=4)


def test_without_measures_the_photo_is_drawn_as_it_is(fundus):
    pixels = fundus(seed=1)
    found = Findings(width=260, height=200)
    np.testing.assert_array_equal(drawing.contoured(photo.load(pixels), found), pixels)


def test_the_fovea_is_drawn_where_it_is():
    pixels = np.full((200, 300, 3), 90, np.uint8)
    drawn = drawing.contoured(photo.load(pixels), Findings(width=300, height=200, fovea=(211.0, 60.0)))
    rows, columns = np.nonzero((drawn == drawing.FOVEA).all(axis=2))
    assert (columns.mean(), rows.mean()) == pytest.approx((211, 60), abs=0.5)
    assert np.ptp(columns) == np.ptp(rows) < 20


@pytest.mark.parametrize("seed", [1, 2])
def test_a_smaller_drawing_has_its_contours_at_the_same_place(fake, fundus, seed):
    with fake() as opened:
        found = opened(fundus(800, 1000, seed=seed), keep_photo=True)
    drawn = drawing.contoured(found.photo, found, 250)
    assert drawn.shape == (200, 250, 3)
    rows, columns = np.nonzero((drawn == drawing.DISC).all(axis=2))
    there = [(of + 0.5) / 4 - 0.5 for of in (found.disc.x, found.disc.y)]
    assert (columns.mean(), rows.mean()) == pytest.approx(there, abs=1)


def test_a_close_up_shows_the_disc_in_its_middle_and_black_beyond_the_photo(fake, painter):
    pixels = np.full((400, 500, 3), 90, np.uint8)
    for disc in ((150, 120, 40, 48), (250, 120, 40, 48)):
        with fake(lambda image, disc=disc: painter.maps(disc=disc, cup=(*disc[:2], 20, 24))) as opened:
            found = opened(pixels, keep_photo=True)
        drawn = drawing.close_up(found.photo, found, 320)
        assert drawn.shape == (320, 320, 3)
        ring = (np.abs(drawn.astype(int) - drawing.DISC) < 30).all(axis=2)
        inside = found.disc.x + 0.9 * found.disc.vertical_diameter_px < 500
        assert (not (drawn == 0).all(axis=2).any()) is inside
        rows, columns = np.nonzero(ring)
        if inside:
            assert (columns.mean(), rows.mean()) == pytest.approx((159.5, 159.5), abs=4)
            assert np.ptp(rows) == pytest.approx(320 / 1.8, rel=0.06)


# what is drawn of a result, and its file


def test_the_heat_maps_that_are_drawn_are_by_disease():
    own = heat(40, 40)
    decisions = {
        "glaucoma": Decision("glaucoma", 0.5, 0.4, True),
        "glaucoma_second": Decision("glaucoma", 0.5, 0.4, True, own),
        "referable_dr": Decision("referable_dr", 0.5, 0.4, True, own),
        "any_dr": Decision("any_dr", 0.5, 0.4, True, own),  # whose map would be nearly the same
    }
    found = Findings(width=40, height=40, decisions=decisions)
    assert drawing.heat_maps(found) == {"glaucoma": own, "referable_dr": own}
    assert drawing.heat_maps(Findings(width=40, height=40)) == {}


@pytest.mark.parametrize(
    ("suffix", "bound"), [(".png", 0), (".PNG", 0), (".jpg", 3), (".JPEG", 3), (".bmp", 0), (".tif", 0)]
)
def test_a_file_of_each_format_holds_the_drawing(fundus, suffix, bound):
    data = drawing.encoded(fundus(), suffix)
    assert np.abs(photo.load(data).pixels.astype(float) - fundus()).mean() <= bound


@pytest.mark.parametrize("suffix", ["", ".", ".txt", ".gift", ".pbm", ".pgm", ".jpg\0"])
def test_another_format_is_refused(fundus, suffix):
    with pytest.raises(SettingsError, match=r"drawings are written as \.jpg, \.png, \.bmp or \.tif, not as "):
        drawing.encoded(fundus(), suffix)
