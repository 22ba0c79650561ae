import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.interpolate import interp1d
from sklearn.metrics import roc_auc_score, roc_curve

from funduscope.postprocess import measures, metrics

masks = arrays(np.bool_, (6, 6))
scored = st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.integers(1, 5)), min_size=2, max_size=25).filter(
    lambda rows: len({label for _, label, _ in rows}) == 2
)


def box(top, bottom, left, right):
    mask = np.zeros((20, 20), bool)
    mask[top:bottom, left:right] = True
    return mask


TRUE_DISC, TRUE_CUP = box(2, 18, 3, 17), box(6, 14, 6, 14)


def refuge_figures(disc, cup):
    """Cup Dice, disc Dice and vCDR error against the reference of the vectors."""
    error = abs(measures.vcdr(disc, cup) - measures.vcdr(TRUE_DISC, TRUE_CUP))
    return metrics.dice(cup, TRUE_CUP), metrics.dice(disc, TRUE_DISC), error


def test_refuge_vector_one_row_off():
    figures = refuge_figures(box(3, 18, 3, 17), box(5, 14, 6, 14))
    assert figures == pytest.approx((0.9411764706, 0.9677419355, 0.0999999991), abs=2e-9)


def test_refuge_vector_split_cup():
    cup = TRUE_CUP & ~box(9, 11, 0, 20)
    assert refuge_figures(TRUE_DISC, cup) == pytest.approx((0.8571428571, 1.0, 0.1249999992), abs=2e-9)


def test_the_split_cup_is_measured_by_its_columns_not_by_its_box():
    cup = TRUE_CUP & ~box(9, 11, 0, 20)
    assert measures.vcdr(TRUE_DISC, cup) == 0.375
    assert measures.bounding_box_height(cup) / measures.bounding_box_height(TRUE_DISC) == 0.5


def test_the_refuge_comparison_notices_a_single_pixel():
    disc = TRUE_DISC.copy()
    disc[1, 3] = True
    assert refuge_figures(disc, TRUE_CUP) != pytest.approx((1.0, 1.0, 0.0), abs=1e-4)


@given(rows=scored, specificity=st.sampled_from([0.5, 0.75, 0.8, 0.85]))
def test_the_reference_sensitivity_is_refuges_own(rows, specificity):
    scores, labels, _ = zip(*rows, strict=True)
    fpr, tpr, _ = roc_curve(labels, scores)
    expected = interp1d(1 - fpr, tpr)(specificity)
    assert metrics.sensitivity_at(scores, labels, specificity, refuge_compat=True) == pytest.approx(float(expected))
    rights = tpr[1 - fpr >= specificity - 1e-9].max()
    assert metrics.sensitivity_at(scores, labels, specificity) >= rights - 1e-12  # the curve leaves points out


def test_a_perfect_classifier_has_a_reference_sensitivity_of_one_and_refuge_says_015():
    scores, labels = [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]
    assert metrics.sensitivity_at(scores, labels, 0.85) == 1
    assert metrics.sensitivity_at(scores, labels, 0.85, refuge_compat=True) == pytest.approx(0.15)
    with pytest.raises(ValueError, match="both classes"):
        metrics.sensitivity_at(scores, [1, 1, 1, 1], 0.85)


def test_dice_of_two_empty_masks_is_none():
    empty = np.zeros((4, 4), bool)
    assert metrics.dice(empty, empty) is None
    assert metrics.dice(empty, ~empty) == 0


@given(masks, masks)
def test_dice_is_symmetric_and_between_0_and_1(first, second):
    value = metrics.dice(first, second)
    assert value == metrics.dice(second, first)
    assert (value is None) == (not first.any() and not second.any())
    assert value is None or 0 <= value <= 1


@given(masks)
def test_dice_of_a_mask_with_itself_is_1(mask):
    assert metrics.dice(mask, mask) == (1 if mask.any() else None)


@pytest.mark.parametrize("levels", [3, 20, 10_000])
@pytest.mark.parametrize("seed", range(4))
def test_auc_is_scikit_learns_with_and_without_ties(levels, seed):
    rng = np.random.default_rng(seed)
    labels = rng.random(120) < 0.3
    scores = rng.integers(0, levels, 120) + labels * rng.integers(0, levels, 120)
    found = metrics.auc(scores, labels)
    assert found.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert 0 <= found.low < found.value < found.high <= 1


def test_auc_by_hand_with_delongs_interval():
    # shares of negatives below each positive 1, 3/4, 3/4; of positives above each negative 1/3, 1, 1, 1
    found = metrics.auc([0.8, 0.6, 0.4, 0.7, 0.3, 0.2, 0.1], [1, 1, 1, 0, 0, 0, 0])
    error = math.sqrt((1 / 6**2 + 2 / 12**2) / 2 / 3 + (1 / 2**2 + 3 / 6**2) / 3 / 4)
    half = 1.96 * error / (5 / 6 * 1 / 6)
    assert error == pytest.approx(0.186339, abs=1e-6)
    assert found.value == pytest.approx(5 / 6)
    assert found.low == pytest.approx(1 / (1 + math.exp(half - math.log(5))))
    assert found.high == pytest.approx(1 / (1 + math.exp(-half - math.log(5))))
    assert (found.low, found.high) == pytest.approx((0.264996, 0.985784), abs=1e-5)


@given(scored)
def test_auc_is_a_number_inside_its_interval(rows):
    scores, labels, _ = zip(*rows, strict=True)
    found = metrics.auc(scores, labels)
    assert 0 <= found.value <= 1
    if found.low is None:
        assert found.high is None
    else:
        assert 0 <= found.low <= found.value <= found.high <= 1


@given(scored)
def test_auc_of_turned_scores_is_the_rest_to_1(rows):
    scores, labels, _ = zip(*rows, strict=True)
    turned = metrics.auc([-s for s in scores], labels)
    assert turned.value == pytest.approx(1 - metrics.auc(scores, labels).value)


def test_more_pictures_narrow_the_interval():
    scores, labels = [0.8, 0.6, 0.4, 0.7, 0.3, 0.2, 0.1], [1, 1, 1, 0, 0, 0, 0]
    few, many = metrics.auc(scores, labels), metrics.auc(scores * 20, labels * 20)
    assert many.value == pytest.approx(few.value)
    assert many.high - many.low < (few.high - few.low) / 2


def test_auc_of_a_large_set_needs_no_table_of_pairs():
    labels = np.arange(200_000) % 4 == 0  # 50,000 x 150,000 pairs
    found = metrics.auc(np.random.default_rng(0).normal(size=200_000) + labels, labels)
    assert found.low < found.value < found.high < found.low + 0.01
    assert found.value == pytest.approx(0.7602, abs=0.005)  # of two normal distributions one deviation apart


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], []])
def test_auc_of_one_class_is_none(labels):
    assert metrics.auc([0.1, 0.2, 0.3][: len(labels)], labels) is None


def test_counts_take_a_score_at_the_threshold_as_positive():
    counts = metrics.Counts.at(0.5, [0.5, 0.9, 0.4, 0.5, 0.1, 0.2], [1, 1, 1, 0, 0, 0])
    assert counts == metrics.Counts(tp=2, fp=1, fn=1, tn=2)
    assert (counts.sensitivity, counts.specificity) == (2 / 3, 2 / 3)


def test_rates_of_published_counts():
    counts = metrics.Counts(tp=118, fp=4, fn=3, tn=96)
    assert counts.sensitivity == pytest.approx(118 / 121)
    assert counts.specificity == pytest.approx(0.96)


def test_rates_without_a_denominator_are_none():
    assert metrics.Counts(tp=0, fp=1, fn=0, tn=1).sensitivity is None
    assert metrics.Counts(tp=1, fp=0, fn=1, tn=0).specificity is None
    assert metrics.Counts(tp=0, fp=1, fn=1, tn=0).sensitivity == 0


def youden(threshold, scores, labels, weights):
    called = np.asarray(scores) >= threshold
    labels, weights = np.asarray(labels, bool), np.asarray(weights, float)
    hits = weights[called & labels].sum() / weights[labels].sum()
    return hits - weights[called & ~labels].sum() / weights[~labels].sum()


@given(scored)
def test_youdens_threshold_is_as_good_as_the_best_of_all(rows):
    scores, labels, weights = zip(*rows, strict=True)
    every = [s + d for s in scores for d in (-0.5, 0.5)]
    for worth in (weights, None):
        found = metrics.threshold_of_youden(scores, labels, worth)
        used = worth or [1] * len(scores)
        assert youden(found, scores, labels, used) == pytest.approx(max(youden(t, scores, labels, used) for t in every))


def test_youdens_threshold_lies_midway():
    assert metrics.threshold_of_youden([0.1, 0.3, 0.6, 0.8], [0, 0, 1, 1]) == pytest.approx(0.45)


def test_weights_move_youdens_threshold():
    scores, labels = [0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1]
    assert metrics.threshold_of_youden(scores, labels, [1, 9, 1, 1]) == pytest.approx(0.15)
    assert metrics.threshold_of_youden(scores, labels, [1, 1, 9, 9]) == pytest.approx(0.35)


def test_youdens_threshold_parts_neighbouring_floats():
    low = 0.5
    high = float(np.nextafter(low, 1))
    found = metrics.threshold_of_youden([low, high], [0, 1])
    assert low < found <= high


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
def test_youdens_threshold_needs_both_classes(labels):
    with pytest.raises(ValueError, match="both classes"):
        metrics.threshold_of_youden([0.1, 0.2], labels)


@pytest.mark.parametrize(
    ("tp", "fp", "fn", "precision", "recall", "f1"),
    [
        (118, 4, 3, 96.72, 97.52, 97.12),  # the published test figures of the two-disease poster
        (53, 3, 5, 94.64, 91.38, 92.98),
        (119, 0, 1, 100.00, 99.17, 99.58),  # its table 5, DenseNet-121
        (58, 1, 0, 98.31, 100.00, 99.15),
        (118, 1, 1, 99.16, 99.16, 99.16),  # table 5, ResNet
        (57, 1, 0, 98.28, 100.00, 99.13),
        (114, 13, 6, 89.76, 95.00, 92.31),  # table 4, DenseNet-121
        (58, 23, 0, 71.60, 100.00, 83.45),
    ],
)
def test_counts_reproduce_the_published_rows(tp, fp, fn, precision, recall, f1):
    counts = metrics.Counts(tp, fp, fn, 1000)
    found = [round(100 * value, 2) for value in (counts.precision, counts.sensitivity, counts.f1)]
    assert found == [precision, recall, f1]


def test_counts_without_a_denominator_have_no_rate():
    nothing = metrics.Counts(0, 0, 0, 5)
    assert (nothing.precision, nothing.sensitivity, nothing.f1) == (None, None, None)


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [  # Newcombe, Statistics in Medicine 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilsons_interval_is_as_published(successes, total, low, high):
    found = metrics.wilson(successes, total)
    assert found.value == successes / total
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 400).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilsons_interval_holds_its_share_and_mirrors(pair):
    successes, total = pair
    found, mirrored = metrics.wilson(successes, total), metrics.wilson(total - successes, total)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1
    assert found.low < found.high
    assert (found.low, found.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low))


def test_calibration_error_by_hand():
    probabilities, labels = [0.05, 0.05, 0.62, 0.68, 1.0], [0, 1, 1, 1, 0]
    # bins: (.1, one of two sick), (1.3, two of two), (1.0, none of one)
    assert metrics.calibration_error(probabilities, labels) == pytest.approx((0.9 + 0.7 + 1.0) / 5)
    assert metrics.calibration_error(probabilities, labels, bins=1) == pytest.approx(0.6 / 5)


def test_calibration_error_goes_by_weight():
    probabilities, labels = [0.2, 0.2, 0.7], [0, 1, 1]
    weighted = metrics.calibration_error(probabilities, labels, [4, 1, 0])
    assert weighted == pytest.approx(0) != metrics.calibration_error(probabilities, labels)
    assert metrics.calibration_error(probabilities, labels, [1, 1, 3]) == pytest.approx((0.6 + 0.9) / 5)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1), st.floats(0.1, 9)), min_size=1, max_size=30))
def test_calibration_error_is_a_share_and_0_for_certainty_that_is_right(rows):
    probabilities, labels, weights = zip(*rows, strict=True)
    assert -1e-12 <= metrics.calibration_error(probabilities, labels, weights) <= 1 + 1e-12
    assert metrics.calibration_error(labels, labels, weights) == 0
    assert metrics.calibration_error([1 - label for label in labels], labels, weights) == pytest.approx(1)


def rates(threshold, scores, labels, weights):
    """Sensitivity and specificity by weight."""
    called = np.asarray(scores) >= threshold
    truth, worth = np.asarray(labels, bool), np.asarray(weights, float)
    return worth[called & truth].sum() / worth[truth].sum(), worth[~called & ~truth].sum() / worth[~truth].sum()


ASKED = st.sampled_from([0.01, 0.25, 1 / 3, 0.5, 0.8, 0.9, 0.95, 0.999])


@given(scored, ASKED)
def test_an_asked_rate_is_reached_and_no_better_threshold_exists(rows, asked):
    scores, labels, weights = zip(*rows, strict=True)
    every = [s + d for s in scores for d in (-0.5, 0.5)]
    for worth in (weights, None):
        used = worth or [1] * len(scores)
        for kind, find in enumerate((metrics.threshold_of_sensitivity, metrics.threshold_of_specificity)):
            own = rates(find(scores, labels, asked, worth), scores, labels, used)
            assert own[kind] >= asked - 1e-9
            reached = [pair for pair in (rates(t, scores, labels, used) for t in every) if pair[kind] >= asked - 1e-9]
            assert own[1 - kind] == pytest.approx(max(pair[1 - kind] for pair in reached))


def test_thresholds_of_a_rate_lie_midway():
    scores, labels = [0.1, 0.3, 0.6, 0.8], [0, 0, 1, 1]
    assert metrics.threshold_of_sensitivity(scores, labels, 0.9) == pytest.approx(0.45)
    assert metrics.threshold_of_specificity(scores, labels, 0.9) == pytest.approx(0.45)
    assert metrics.threshold_of_sensitivity(scores, labels, 0.5) == pytest.approx(0.7)
    assert metrics.threshold_of_specificity(scores, labels, 0.5) == pytest.approx(0.2)


def test_weights_move_the_thresholds_of_a_rate():
    scores, labels = [0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1]
    assert metrics.threshold_of_sensitivity(scores, labels, 0.8, [1, 1, 1, 9]) == pytest.approx(0.35)
    assert metrics.threshold_of_sensitivity(scores, labels, 0.8, [1, 9, 1, 1]) == pytest.approx(0.15)
    assert metrics.threshold_of_specificity(scores, labels, 0.8, [9, 1, 1, 1]) == pytest.approx(0.15)
    assert metrics.threshold_of_specificity(scores, labels, 0.8, [1, 1, 9, 1]) == pytest.approx(0.35)


def test_thresholds_of_a_rate_lie_outside_where_all_are_called_or_none():
    scores, labels = [0.2, 0.4, 0.6], [1, 1, 0]
    low = metrics.threshold_of_sensitivity(scores, labels, 0.99)
    high = metrics.threshold_of_specificity(scores, labels, 0.99)
    assert low <= 0.2
    assert high > 0.6
    assert (low, high) == pytest.approx((0.2, 0.6))


NEIGHBOURS = (0.5, float(np.nextafter(0.5, 1)))


def test_a_threshold_of_specificity_parts_neighbouring_floats():
    low, high = NEIGHBOURS
    assert low < metrics.threshold_of_specificity([low, high], [0, 1], 0.9) <= high


def test_a_threshold_of_sensitivity_parts_neighbouring_floats():
    low, high = NEIGHBOURS
    assert low < metrics.threshold_of_sensitivity([low, high], [0, 1], 0.9) <= high


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
@pytest.mark.parametrize("find", [metrics.threshold_of_sensitivity, metrics.threshold_of_specificity])
def test_thresholds_of_a_rate_need_both_classes(find, labels):
    with pytest.raises(ValueError, match="both classes"):
        find([0.1, 0.2], labels, 0.9)


def test_accuracy_is_the_share_that_is_called_as_it_is():
    assert metrics.Counts(tp=3, fp=1, fn=2, tn=4).accuracy == 7 / 10
    assert metrics.Counts(tp=0, fp=1, fn=1, tn=0).accuracy == 0
    assert metrics.Counts(0, 0, 0, 0).accuracy is None


def test_rank_correlation_is_spearmans():
    scipy = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.integers(0, 6, 30), rng.normal(size=30)
        assert metrics.rank_correlation(first, second).value == pytest.approx(scipy.spearmanr(first, second).statistic)
    assert metrics.rank_correlation([1, 2, 3], [10, 20, 900]).value == pytest.approx(1)
    assert metrics.rank_correlation([1, 2, 3], [5, 5, 5]) is None


def test_a_mean_has_the_interval_of_many():
    found = metrics.mean([1.0, 2.0, 3.0])
    assert (found.value, found.high - 2, 2 - found.low) == pytest.approx((2, 1.96 / 3**0.5, 1.96 / 3**0.5))
    assert metrics.mean([2.0]) == metrics.Interval(2.0, None, None)
    assert metrics.mean([]) is None


def test_correlations_have_the_interval_of_fishers_z():
    rng = np.random.default_rng(0)
    within = {"pearson": 0, "spearman": 0}
    for _ in range(400):
        first = rng.normal(size=60)
        second = 0.6 * first + 0.8 * rng.normal(size=60)
        own, ranks = metrics.correlation(first, second), metrics.rank_correlation(first, second)
        within["pearson"] += own.low <= 0.6 <= own.high
        within["spearman"] += ranks.low <= 6 / np.pi * np.arcsin(0.6 / 2) <= ranks.high
    assert all(0.92 < count / 400 < 0.98 for count in within.values())
    assert metrics.correlation([1, 2, 3], [1, 2, 4]).low is None
    assert metrics.correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None
