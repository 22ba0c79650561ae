"""Metrics. A metric without what it needs is None, never 0 and never NaN."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_TEMPERATURES = 0.25, 20.0  # the least and the most


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float | None:
    """Dice coefficient, 2 |A and B| / (|A| + |B|), without epsilon; None where both are empty.

    Args: bool (H, W). Source: REFUGE's official evaluation (which divides by zero on two empty masks).
    """
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / total if total else None


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; the bounds are None where the sample is too small or too perfect to give one."""

    value: float
    low: float | None
    high: float | None


def auc(scores: ArrayLike, labels: ArrayLike) -> Interval | None:
    """Area under the ROC curve with its 95 % interval (DeLong et al., Biometrics 1988, on the logit scale).

    Args: scores: float (N,); labels: 0 or 1 (N,). Returns: None where one class is absent.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(labels).astype(bool)
    positive, negative = values[truth], values[~truth]
    if positive.size == 0 or negative.size == 0:
        return None
    above = _shares_below(positive, negative)  # of the healthy, below each sick; a tie is half
    below = 1 - _shares_below(negative, positive)  # of the sick, above each healthy
    area = float(above.mean())
    if min(positive.size, negative.size) < 2 or not 0 < area < 1:
        return Interval(area, None, None)
    variance = sum(float(part.var(ddof=1)) / part.size for part in (above, below))
    centre, half = math.log(area / (1 - area)), 1.96 * math.sqrt(variance) / (area * (1 - area))
    return Interval(area, 1 / (1 + math.exp(half - centre)), 1 / (1 + math.exp(-half - centre)))


def _shares_below(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each value (N,) the share of the others (M,) that are smaller, an equal one counting half."""
    order = np.sort(others)
    return (np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")) / (2 * len(order))


def mean(values: ArrayLike) -> Interval | None:
    """A mean with its 95 % interval, as of many pictures (normal). Args: float (N,). Returns: None where there is nothing."""
    own = np.asarray(values, np.float64)
    if own.size < 2:
        return Interval(float(own.mean()), None, None) if own.size else None
    centre, half = float(own.mean()), 1.96 * float(own.std(ddof=1)) / math.sqrt(own.size)
    return Interval(centre, centre - half, centre + half)


def correlation(first: ArrayLike, second: ArrayLike) -> Interval | None:
    """Pearson's with its 95 % interval (Fisher's z). Args: float (N,) each. Returns: None where one is constant."""
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.size < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    found = float(np.asarray(np.corrcoef(one, other))[0, 1])
    return _with_fishers_interval(found, one.size, 1.0)


def rank_correlation(first: ArrayLike, second: ArrayLike) -> Interval | None:
    """Spearman's: of the ranks, those that tie with their mean; its 95 % interval by Bonett and Wright, Psychometrika 2000.

    Args: float (N,) each. Returns: None where one is constant.
    """
    ranks = []
    for values in (np.asarray(first, np.float64), np.asarray(second, np.float64)):
        _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[which])
    found = correlation(*ranks)
    return found and _with_fishers_interval(found.value, len(ranks[0]), 1 + found.value**2 / 2)


def _with_fishers_interval(value: float, n: int, variance: float) -> Interval:
    if n < 4 or abs(value) >= 1:
        return Interval(value, None, None)
    centre, half = math.atanh(value), 1.96 * math.sqrt(variance / (n - 3))
    return Interval(value, math.tanh(centre - half), math.tanh(centre + half))


def wilson(successes: int, total: int) -> Interval:
    """A share with its 95 % interval (Wilson, JASA 1927). Args: total: 1 or more."""
    z, share = 1.96, successes / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, bins: int = 10
) -> float:
    """Expected calibration error: mean |share of the sick - mean probability| over equal bins, by weight; in [0, 1].

    Source: Guo et al., ICML 2017. Args: probabilities (N,) in [0, 1]; labels: 0 or 1 (N,); weights (N,), >= 0.
    """
    values, truth = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    worth = np.ones_like(values) if weights is None else np.asarray(weights, np.float64)
    place = np.minimum((values * bins).astype(int), bins - 1)
    gaps = [abs(float((worth * (truth - values))[place == k].sum())) for k in range(bins)]
    return sum(gaps) / float(worth.sum())


def best_temperature(logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The divisor of the logits with the least cross-entropy, by weight, between .25 and 20.

    Source: Guo et al., ICML 2017. Args: logits (N,); labels: 0 or 1 (N,); weights (N,), >= 0.
    """
    signed = np.where(np.asarray(labels).astype(bool), 1, -1) * np.asarray(logits, np.float64)
    worth = np.ones_like(signed) if weights is None else np.asarray(weights, np.float64)
    low, high = 1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0]
    while high - low > 1e-7:  # the slope by the temperature's inverse only rises
        middle = (low + high) / 2
        slope = np.average(-signed / (1 + np.exp(np.minimum(signed * middle, 700))), weights=worth)
        low, high = (low, middle) if slope > 0 else (middle, high)
    return round(1 / low, 4)


@dataclass(frozen=True)
class Counts:
    """True and false positives and negatives at one threshold; rates are None where their denominator is 0."""

    tp: int
    fp: int
    fn: int
    tn: int

    @staticmethod
    def at(threshold: float, scores: ArrayLike, labels: ArrayLike) -> Counts:
        """Counts with `score >= threshold` as positive."""
        called, truth = np.asarray(scores) >= threshold, np.asarray(labels).astype(bool)
        return Counts(
            int((called & truth).sum()),
            int((called & ~truth).sum()),
            int((~called & truth).sum()),
            int((~called & ~truth).sum()),
        )

    @property
    def sensitivity(self) -> float | None:
        """Recall of the diseased: TP / (TP + FN)."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    @property
    def specificity(self) -> float | None:
        """Recall of the healthy: TN / (TN + FP)."""
        return self.tn / (self.tn + self.fp) if self.tn + self.fp else None

    @property
    def accuracy(self) -> float | None:
        """Share of all that are called as they are."""
        total = self.tp + self.fp + self.fn + self.tn
        return (self.tp + self.tn) / total if total else None

    @property
    def precision(self) -> float | None:
        """Share of the called that are diseased: TP / (TP + FP)."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and sensitivity: 2 TP / (2 TP + FP + FN)."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else None


def threshold_of_specificity(
    scores: ArrayLike, labels: ArrayLike, specificity: float, weights: ArrayLike | None = None
) -> float:
    """The lowest threshold with at least this specificity, midway above the highest healthy score that it leaves out.

    Args: scores (N,); labels: 0 or 1 (N,); specificity: in (0, 1); weights: of each picture, >= 0 (N,).
    Raises: ValueError where one class is absent.
    """
    values, truth, worth = _weighted(scores, labels, weights)
    out = _at_share(values[~truth], worth[~truth], specificity)
    higher = values[values > out]
    return _between(out, float(higher.min()) if higher.size else math.nextafter(out, math.inf))


def threshold_of_sensitivity(
    scores: ArrayLike, labels: ArrayLike, sensitivity: float, weights: ArrayLike | None = None
) -> float:
    """The highest threshold with at least this sensitivity, midway below the lowest sick score that it calls.

    Args, Raises: as `threshold_of_specificity`.
    """
    values, truth, worth = _weighted(scores, labels, weights)
    called = -_at_share(-values[truth], worth[truth], sensitivity)
    lower = values[values < called]
    return _between(float(lower.max()), called) if lower.size else called


def operating_cuts(
    scores: ArrayLike, labels: ArrayLike, sensitivity: float, specificity: float, weights: ArrayLike | None = None
) -> tuple[float, float, float]:
    """Three thresholds that rise: for this sensitivity, with the largest sum of both (Youden), for this specificity.

    Where the classes lie far apart, the balanced one is beyond what the other two ask for, and they are where it is.
    Args, Raises: as `threshold_of_specificity`.
    """
    balanced = threshold_of_youden(scores, labels, weights)
    return (
        min(threshold_of_sensitivity(scores, labels, sensitivity, weights), balanced),
        balanced,
        max(threshold_of_specificity(scores, labels, specificity, weights), balanced),
    )


def sensitivity_at(scores: ArrayLike, labels: ArrayLike, specificity: float, *, refuge_compat: bool = False) -> float:
    """The sensitivity that a specificity leaves: the highest that a threshold with at least this specificity has.

    refuge_compat: as the REFUGE challenge's official code interpolates it: by specificity, between points of the curve of which
    those that lie straight between others were left out, up to the lower end of a rise; .15 at .85 for a perfect classifier.
    Args: scores (N,); labels: 0 or 1 (N,); specificity: in (0, 1). Raises: ValueError where one class is absent.
    """
    values, truth, _ = _weighted(scores, labels, None)
    cuts = np.unique(values)[::-1]
    tp, fp = (own.sum() - np.searchsorted(np.sort(values[own]), cuts, "left") for own in (truth, ~truth))
    if refuge_compat and cuts.size > 2:
        bends = (np.diff(tp, 2) != 0) | (np.diff(fp, 2) != 0)
        tp, fp = (own[np.r_[True, bends, True]] for own in (tp, fp))
    sensitivities, specificities = np.r_[0, tp] / truth.sum(), 1 - np.r_[0, fp] / (~truth).sum()
    if not refuge_compat:
        return float(sensitivities[specificities >= specificity - 1e-12].max())
    below = specificities <= specificity
    low, high = specificities[below].max(), specificities[~below].min()
    start, end = sensitivities[specificities == low].max(), sensitivities[specificities == high].min()
    return float(start + (specificity - low) / (high - low) * (end - start))


def _weighted(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    values, truth = np.asarray(scores, np.float64), np.asarray(labels).astype(bool)
    if truth.all() or not truth.any():
        raise ValueError("a threshold needs pictures of both classes")
    return values, truth, np.ones_like(values) if weights is None else np.asarray(weights, np.float64)


def _at_share(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """The lowest value up to which at least this share of the weight lies."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(reached, share - 1e-12)), values.size - 1)])


def _between(lower: float, upper: float) -> float:
    """A cut that calls `upper` and not `lower`: midway, or `upper` where neighbouring floats have no midway."""
    midway = (lower + upper) / 2
    return midway if lower < midway else upper


def threshold_of_youden(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The threshold with the largest sensitivity + specificity (Youden, Cancer 1950), midway to the next lower score.

    Args: scores (N,); labels: 0 or 1 (N,); weights: of each picture, >= 0 (N,), None for equal ones.
    Raises: ValueError where one class is absent.
    """
    values, truth, worth = _weighted(scores, labels, weights)
    order = np.argsort(-values, kind="stable")
    ranked, hit, share = values[order], truth[order], worth[order]
    gain = np.cumsum(share * hit) / share[hit].sum() - np.cumsum(share * ~hit) / share[~hit].sum()
    gain[:-1][ranked[:-1] == ranked[1:]] = -1  # no cut between equal scores
    best = int(gain.argmax())
    return _between(float(ranked[min(best + 1, ranked.size - 1)]), float(ranked[best]))
