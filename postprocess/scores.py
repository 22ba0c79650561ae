"""Scores: from a vertical cup-to-disc ratio to a probability, the mean of two scores, and decisions from probabilities."""

from __future__ import annotations

import math

_SMALLEST = 1e-9  # a probability nearer to 0 or 1 has this one's logit


def logistic(value: float, coefficient: float, intercept: float) -> float:
    """Logistic regression of one value: 1 / (1 + exp(-(coefficient * value + intercept))), in [0, 1]."""
    z = coefficient * value + intercept
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def average(first: float | None, second: float | None) -> float | None:
    """Mean of the two glaucoma scores; None where either is missing (half a score is another score).

    Source: Pascal et al., Sci Rep 2022 ("the outputs before the binary result of each classifier are averaged").
    """
    return None if first is None or second is None else (first + second) / 2


def logit(probability: float) -> float:
    """log(p / (1 - p)); finite for 0 and 1 too."""
    p = min(max(probability, _SMALLEST), 1 - _SMALLEST)
    return math.log(p / (1 - p))


def tempered(probability: float, temperature: float) -> float:
    """The probability whose logit is this one's divided by a temperature (Guo et al., ICML 2017)."""
    return logistic(logit(probability) / temperature, 1.0, 0.0)


def decide(probability: float, threshold: float, uncertain_logit: float) -> bool | None:
    """Whether a probability reaches the threshold; None (abstain) where it is nearer to it than `uncertain_logit`."""
    if abs(logit(probability) - logit(threshold)) < uncertain_logit:
        return None
    return probability >= threshold


def from_threshold(probability: float, threshold: float) -> float:
    """The probability as seen from its own threshold, which becomes 1/2: makes two models' probabilities comparable."""
    return logistic(logit(probability) - logit(threshold), 1.0, 0.0)
