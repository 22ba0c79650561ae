"""Where training and the gate look at the disc: where a screener would."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from funduscope import Screener
from funduscope.engine.pictures import photo
from funduscope.engine.spotting import Spotter


@pytest.fixture
def wide(cc0) -> np.ndarray:
    """The sample photograph small in the middle of a wide field."""
    eye = photo.load(cc0).pixels
    small = cv2.resize(eye, None, fx=0.45, fy=0.45, interpolation=cv2.INTER_AREA)
    field = np.full_like(eye, 60)
    field[...] = np.median(eye[eye.max(axis=2) > 40], axis=0)
    y, x = (field.shape[0] - small.shape[0]) // 2, (field.shape[1] - small.shape[1]) // 2
    lit = small.max(axis=2) > 40
    field[y : y + small.shape[0], x : x + small.shape[1]][lit] = small[lit]
    return field


def test_a_small_disc_in_a_wide_field_is_looked_at_closer_as_in_use(wide):
    with Screener.open("multitask", backend="onnxruntime") as screener, Spotter() as spotter:
        result = screener(wide)
        spot, (square, _) = spotter.look(photo.load(wide))
    assert result.status == "ok"
    assert square.placement.to_square(0, 0)[0] < 0  # not the whole picture
    x, y = spot.finer.placement.to_photo(spot.x, spot.y)
    assert (x, y) == pytest.approx((result.disc.x, result.disc.y), abs=3)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_picture_is_found_out(cc0, turns):
    eye = photo.load(cc0).pixels
    with Screener.open("multitask", "disc", backend="onnxruntime", threads=1) as screener, Spotter() as spotter:
        upright, result = screener(eye), screener(np.ascontiguousarray(np.rot90(eye, turns)))
        spot, _ = spotter.look(photo.load(np.ascontiguousarray(np.rot90(eye, turns))))
    x, y, side = upright.disc.x, upright.disc.y, eye.shape[0] - 1  # of a square picture
    for _ in range(turns):
        x, y = y, side - x
    assert (result.disc.x, result.disc.y) == pytest.approx((x, y), abs=15)
    if turns == 2:  # a vCDR is the same upside down
        assert result.vcdr == pytest.approx(upright.vcdr, abs=0.05)
        assert "SIDEWAYS" not in result.warnings
    else:
        assert "SIDEWAYS" in result.warnings
        assert (result.vcdr, result.decisions["glaucoma"].called, result.eyes.eye, spot) == (None, None, None, None)


@pytest.mark.parametrize("turns", [0, 2])
def test_a_burnt_out_disc_is_told_and_decided_all_the_same(cc0, turns):
    eye = photo.load(cc0).pixels.copy()
    with Screener.open("multitask", "disc", backend="onnxruntime", threads=1) as screener:
        plain = screener(eye)
        assert "DISC_OVEREXPOSED" not in plain.warnings
        eye[plain.mask("cup")] = 255
        found = screener(np.ascontiguousarray(np.rot90(eye, turns)))
    assert "DISC_OVEREXPOSED" in found.warnings
    assert found.decisions["glaucoma"].called is not None
