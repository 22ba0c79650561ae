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


@pytest.mark.parametrize(("p", "expected"), [(0.5, 0.0), (0.8, math.log(4)), (0.2, -math.log(4)), (0.99, math.log(99))])
def test_logit_of_known_values(p, expected):
    assert scores.logit(p) == pytest.approx(expected)


def test_logit_is_finite_at_0_and_1():
    assert scores.logit(0.0) == pytest.approx(-math.log(1e9 - 1))
    assert scores.logit(1.0) == pytest.approx(math.log(1e9 - 1))


@given(st.floats(-20, 20))
def test_logit_undoes_the_logistic(z):
    assert scores.logit(scores.logistic(z, 1.0, 0.0)) == pytest.approx(z, abs=1e-6)


@pytest.mark.parametrize(
    ("p", "expected"), [(0.8, True), (0.5, True), (0.49999, False), (0.2, False), (1, True), (0, False)]
)
def test_a_probability_that_reaches_the_threshold_is_positive(p, expected):
    assert scores.decide(p, 0.5, 0.0) is expected


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("threshold", [0.02, 0.5, 0.9])
def test_near_the_threshold_there_is_no_decision(threshold, side):
    def answer(distance):
        return scores.decide(scores.logistic(scores.logit(threshold) + side * distance, 1.0, 0.0), threshold, 0.3)

    assert answer(0.0) is None
    assert answer(0.299) is None
    assert answer(0.301) is (side == 1)


@given(st.floats(0, 1), st.floats(0.01, 0.99), st.floats(0, 3))
def test_abstaining_never_changes_a_decision(p, threshold, band):
    assert scores.decide(p, threshold, band) in (None, p >= threshold)
    assert scores.decide(p, threshold, 0.0) is (p >= threshold)


@given(st.floats(0.01, 0.99))
def test_a_threshold_seen_from_itself_is_a_half(threshold):
    assert scores.from_threshold(threshold, threshold) == pytest.approx(0.5)
    assert scores.from_threshold(threshold, 0.5) == pytest.approx(threshold)


@given(st.floats(0.001, 0.999), st.floats(0.01, 0.99))
def test_seen_from_a_threshold_the_odds_are_divided_by_its_odds(p, threshold):
    found = scores.from_threshold(p, threshold)
    assert found / (1 - found) == pytest.approx(p / (1 - p) / (threshold / (1 - threshold)))
    if abs(p - threshold) > 1e-9:
        assert (found > 0.5) == (p > threshold)
