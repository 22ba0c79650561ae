"""Whether a picture is read at all: faults in their order, thresholds, and how fine a disease needs it."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from funduscope.engine.errors import Code
from funduscope.engine.pictures.preprocess import Placement, Prepared
from funduscope.engine.readers.difference import FP16, INT8
from funduscope.engine.readers.quality import COLUMNS, FAULTS, IMAGE_QUALITY, SCORES, QualityPart, differences, grade

LEAST = {"glaucoma": 200.0, "referable_dr": 400.0}
PART = QualityPart(thresholds=dict.fromkeys(FAULTS, 0.5), least_px=LEAST)


def seen(side: float = 1000, part: QualityPart = PART, **scores: float):
    """The grade of a picture whose field of view is so many px wide."""
    square = np.zeros((100, 100, 3), np.uint8)
    outputs = {name: np.float32(scores.get(name, 0.1)) for name in SCORES}
    return grade(part, outputs, Prepared(square, Placement(100 / side, 100 / side, 0, 0)))


def test_a_good_picture_is_read():
    found = seen()
    assert (found.refusal, found.coarse) == (None, frozenset())
    assert found.scores == pytest.approx(dict.fromkeys(FAULTS, 0.1))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_refuses_from_its_threshold_on(name):
    assert seen(**{name: 0.49}).refusal is None
    code, advice = seen(**{name: 0.5}).refusal
    assert code is FAULTS[name].code
    assert advice == FAULTS[name].advice


def test_the_gravest_fault_is_told():
    assert seen(**dict.fromkeys(FAULTS, 0.9)).refusal[0] is Code.NOT_A_FUNDUS
    assert seen(blurred=0.99, dark=0.6).refusal[0] is Code.DARK


def test_a_coarse_picture_is_open_for_what_needs_more():
    assert seen(side=400).coarse == frozenset()
    found = seen(side=399)
    assert (found.refusal, found.coarse) == (None, {"referable_dr"})


def test_too_coarse_for_all_is_refused_and_says_what_is_needed():
    code, told = seen(side=199).refusal
    assert code is Code.LOW_RESOLUTION
    assert "199 px" in told
    assert "200 px" in told


def test_a_fault_that_the_model_does_not_know_is_none():
    part = QualityPart(thresholds={"blurred": 0.5}, least_px={})
    found = seen(part=part, dark=0.99)
    assert (found.refusal, found.scores) == (None, pytest.approx({"blurred": 0.1}))


def test_each_score_has_a_column_that_rejected_pictures_fill():
    assert [column.name for column in COLUMNS] == list(SCORES)
    assert all(column.of_rejected for column in COLUMNS)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_how_good_a_picture_is_refuses_nothing(score):
    part = PART.model_copy(update={"image_quality": True})
    found = seen(part=part, image_quality=score)
    assert found.refusal is None
    assert found.scores[IMAGE_QUALITY] == score
    assert part.outputs() == list(SCORES)
    assert PART.outputs() == list(FAULTS)


@pytest.mark.parametrize(
    ("bounds", "name", "one", "other", "flips", "holds"),
    [
        (FP16, "blurred", 0.1, 0.115, 0, True),
        (FP16, "blurred", 0.1, 0.13, 0, False),
        (FP16, IMAGE_QUALITY, 0.1, 0.13, 0, False),
        (FP16, "dark", 0.49, 0.501, 1, False),
        (FP16, "dark", 0.499, 0.501, 0, True),  # too near to the threshold to count
        (INT8, "dark", 0.49, 0.51, 0, True),
        (INT8, IMAGE_QUALITY, 0.2, 0.8, 0, True),
        (INT8, "not_a_fundus", 0.2, 0.8, 1, False),
    ],
)
def test_a_candidate_may_not_refuse_other_pictures(bounds, name, one, other, flips, holds):
    part = PART.model_copy(update={"image_quality": True})
    a, b = ({**dict.fromkeys(SCORES, np.float32(0.1)), name: np.float32(value)} for value in (one, other))
    score, refused = differences(part, [(a, a), (a, b)], bounds)
    assert score.seen == pytest.approx(abs(one - other), abs=1e-6)
    assert refused.seen == flips
    assert (score.holds and refused.holds) == holds


@pytest.mark.parametrize(
    ("thresholds", "least"), [({}, LEAST), ({"smudged": 0.5}, LEAST), ({"dark": 0.5}, {"cataract": 200.0})]
)
def test_a_contract_that_says_nothing_or_something_unknown_is_refused(thresholds, least):
    with pytest.raises(ValidationError):
        QualityPart(thresholds=thresholds, least_px=least)
