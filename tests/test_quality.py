"""What the embedded models refuse: pictures that are no retina, and a good photograph made worse in each way."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from funduscope import Code, Screener
from funduscope.engine.pictures import photo
from funduscope.engine.readers.quality import FAULTS, IMAGE_QUALITY, SCORES
from funduscope.training.classifier import foreign
from funduscope.training.classifier.degrade import DEGRADATIONS

OTHERS = {Code.NO_FIELD_OF_VIEW, Code.UNLIKELY_COLOURS, Code.NOT_ROUND}  # told before a network looks


@pytest.fixture(scope="module")
def screener():
    with Screener.open(backend="onnxruntime", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def eye(cc0):
    """A good photograph, uint8 (1411, 1411, 3)."""
    return photo.load(cc0).pixels


def test_a_good_photograph_has_no_fault(screener, eye):
    found = screener(eye)
    assert found.status == "ok"
    assert all(found.scores[name] < 0.3 for name in FAULTS)
    row = found.to_dict()
    assert [row[name] for name in SCORES] == pytest.approx([found.scores[name] for name in SCORES], abs=1e-6)


@pytest.mark.parametrize("side", [1000, 700, 400])
def test_quality_hangs_little_on_the_pictures_size(screener, eye, side):
    small = cv2.resize(eye, (side, side), interpolation=cv2.INTER_AREA)
    found = screener(np.asarray(small, np.uint8))
    assert found.status == "ok"
    assert all(found.scores[name] < 0.4 for name in FAULTS)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_photograph_from_which_nothing_can_be_decided_is_refused_and_says_what_to_do(screener, eye, name):
    how = DEGRADATIONS[name]
    found = screener(how.spoil(eye, 2.5 * how.lost))
    assert found.status == "ungradable"
    assert found.code in {FAULTS[how.fault].code, Code.NO_FIELD_OF_VIEW, Code.DARK}
    assert found.code is Code.NO_FIELD_OF_VIEW or found.reason == FAULTS[how.fault].advice
    assert screener(how.spoil(eye, 0.2 * how.lost)).status == "ok"


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_photograph_made_worse_is_less_good(screener, eye, name):
    how = DEGRADATIONS[name]
    good, bad = (screener(own).scores[IMAGE_QUALITY] for own in (eye, how.spoil(eye, 2 * how.lost)))
    assert bad < good - 0.05


@pytest.mark.parametrize("sigma", [8, 20, 40])
def test_a_blurred_photograph_has_no_opinion(screener, eye, sigma):
    assert screener(np.asarray(cv2.GaussianBlur(eye, (0, 0), sigma), np.uint8)).code is Code.BLURRED


def test_a_thumbnail_is_too_coarse_for_any_decision(screener, eye):
    small = cv2.resize(eye, (128, 128), interpolation=cv2.INTER_AREA)
    found = screener(np.asarray(small, np.uint8))
    assert found.code in (Code.LOW_RESOLUTION, Code.BLURRED)
    assert found.scores.keys() >= set(SCORES)


@pytest.mark.parametrize("kind", foreign.DRAWN)
def test_what_is_no_retina_is_refused(screener, kind):
    if kind in ("photograph", "texture"):
        pytest.importorskip("skimage")
    rng = np.random.default_rng(99)
    found = [screener(foreign.DRAWN[kind](rng)) for _ in range(8)]
    assert all(own.status != "ok" for own in found)
    assert {own.code for own in found} <= OTHERS | {fault.code for fault in FAULTS.values()}


def test_whole_photographs_are_none(screener):
    pytest.importorskip("skimage")
    assert all(screener(picture).status != "ok" for picture in foreign.photographs())


@pytest.mark.parametrize("light", [0.02, 0.05, 0.1])
def test_a_nearly_black_picture_has_no_opinion(screener, eye, light):
    found = screener((eye * light).astype(np.uint8))
    assert found.code in (Code.DARK, Code.NO_FIELD_OF_VIEW)
    assert found.status == "ungradable"


def test_drawings_made_of_a_fundus_picture_are_none(screener, eye):
    rng = np.random.default_rng(99)
    found = [screener(spoil(eye, rng)) for spoil in foreign.OF_FUNDUS.values() for _ in range(5)]
    assert sum(own.status != "ok" for own in found) >= 9  # of 10
