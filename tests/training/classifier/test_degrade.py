"""Photographs made worse: each way does what it says, the more the stronger, and nothing at no strength."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from funduscope.training.classifier import foreign
from funduscope.training.classifier.degrade import DEGRADATIONS


@pytest.fixture(scope="module")
def eye(fundus):
    return fundus(320, 320, seed=1)


def sharpness(pixels: np.ndarray) -> float:
    inner = pixels[80:-80, 80:-80, 1]  # without the edge of the field
    return float(cv2.Laplacian(inner, cv2.CV_64F).var())


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_it_stays_a_picture_of_its_size_and_the_photo_is_not_touched(eye, name):
    before = eye.copy()
    made = DEGRADATIONS[name].spoil(eye, DEGRADATIONS[name].lost)
    assert (made.shape, made.dtype) == (eye.shape, np.uint8)
    assert (eye == before).all()
    assert np.abs(made.astype(int) - eye).mean() > 0.5


@pytest.mark.parametrize("name", [name for name, how in DEGRADATIONS.items() if how.fault == "blurred"])
def test_the_stronger_the_less_sharp(eye, name):
    how = DEGRADATIONS[name]
    seen = [sharpness(how.spoil(eye, share * how.lost)) for share in (0.5, 1, 2)]
    assert sharpness(eye) >= seen[0] > seen[1] > seen[2]


def test_less_light_is_darker_and_more_is_brighter_until_it_burns_out(eye):
    lit = eye.max(axis=2) > 30
    means = [DEGRADATIONS["underexposed"].spoil(eye, strength)[lit].mean() for strength in (0, 1, 2)]
    assert means[0] == pytest.approx(eye[lit].mean(), rel=0.02)
    assert means[1] == pytest.approx(means[0] / 2, rel=0.05)
    assert means[2] == pytest.approx(means[0] / 4, rel=0.1)
    burnt = [(DEGRADATIONS["overexposed"].spoil(eye, s) == 255).mean() for s in (0, 1, 2)]
    assert burnt[0] < burnt[1] < burnt[2]


@pytest.mark.parametrize("kind", [*foreign.DRAWN, *foreign.OF_FUNDUS])
def test_each_kind_that_is_no_retina_is_drawn_the_same_from_one_seed_and_never_twice(eye, kind):
    pytest.importorskip("skimage")
    draw = foreign.DRAWN.get(kind) or (lambda rng: foreign.OF_FUNDUS[kind](eye, rng))
    rng = np.random.default_rng(5)
    first, second, again = draw(rng), draw(rng), draw(np.random.default_rng(5))
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert first.shape[2] == 3
    assert (first == again).all()
    assert (first != second).any()


def test_all_kinds_are_told_by_name(eye):
    pytest.importorskip("skimage")
    made = list(foreign.pictures([eye], 2, seed=0))
    assert [kind for kind, _ in made] == [kind for kind in (*foreign.DRAWN, *foreign.OF_FUNDUS) for _ in range(2)]
