"""Scores: from a vertical cup-to-disc ratio to a probability, and the mean of the two glaucoma scores."""

from __future__ import annotations

import math


def logistic(value: float, coefficient: float, intercept: float) -> float:
    """Logistic regression of one value: 1 / (1 + exp(-(coefficient * value + intercept))), in [0, 1]."""
    z = coefficient * value + intercept
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def average(first: float | None, second: float | None) -> float | None:
    """Mean of the two glaucoma scores; None where either is missing (half a score is another score).

    Source: Pascal et al., Sci Rep 2022 ("the outputs before the binary result of each classifier are averaged").
    """
    return None if first is None or second is None else (first + second) / 2
