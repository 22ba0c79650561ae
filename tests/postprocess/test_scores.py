import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funduscope.postprocess import scores


@pytest.mark.parametrize(
    ("value", "coefficient", "intercept", "expected"),
    [(0.5, 10.0, -5.0, 0.5), (0.7, 10.0, -5.0, 0.8807970780), (0.3, 10.0, -5.0, 0.1192029220), (0.9, 0.0, 0.0, 0.5)],
)
def test_logistic_of_known_values(value, coefficient, intercept, expected):
    assert scores.logistic(value, coefficient, intercept) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("intercept", "expected"), [(1e4, 1.0), (-1e4, 0.0)])
def test_logistic_does_not_overflow(intercept, expected):
    assert scores.logistic(0.5, 1.0, intercept) == expected


@given(st.floats(0, 1), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_logistic_is_a_probability_and_symmetric(value, coefficient, intercept):
    p = scores.logistic(value, coefficient, intercept)
    assert 0 <= p <= 1
    assert math.isclose(p, 1 - scores.logistic(value, -coefficient, -intercept), abs_tol=1e-12)


def test_average_is_the_mean_of_both():
    assert scores.average(0.2, 0.6) == pytest.approx(0.4)
    assert scores.average(0.0, 0.0) == 0


@pytest.mark.parametrize(("first", "second"), [(None, 0.5), (0.5, None), (None, None)])
def test_half_a_score_is_no_score(first, second):
    assert scores.average(first, second) is None
