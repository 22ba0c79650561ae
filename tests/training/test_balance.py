import numpy as np
import pytest

from funduscope.training.balance import equal_weights


def test_every_group_weighs_the_same():
    groups = ["a"] * 60 + ["b"] * 20 + [("a", 1)] * 30
    weights = equal_weights(groups)
    assert weights.mean() == pytest.approx(1)
    assert [weights[:60].sum(), weights[60:80].sum(), weights[80:].sum()] == pytest.approx([110 / 3] * 3)


def test_a_group_of_less_than_20_weighs_less():
    weights = equal_weights(["few", "many", "few"] + ["many"] * 59)
    assert weights[[0, 2]].sum() / weights[[1, *range(3, 62)]].sum() == pytest.approx(2 / 20)


def test_pictures_of_one_group_alone_weigh_1():
    assert equal_weights([0] * 7) == pytest.approx(np.ones(7))
