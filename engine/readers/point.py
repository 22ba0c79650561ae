"""Where a verdict can be called from: what a model's contract says of it, for those who show scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ...postprocess import scores
from ..contract import Probability, Strict

Estimate = tuple[float, float, float]
"""A rate on the validation split, and the bounds of its 95 % interval."""


class EstimatePart(Strict):
    """A rate on the validation split with its 95 % interval (Wilson)."""

    value: Probability
    low: Probability
    high: Probability

    def build(self) -> Estimate:
        """The three."""
        return self.value, self.low, self.high


class PointPart(Strict):
    """An operating point: positive from this probability on, and what that gave on the validation split, where pictures
    on which the classifier abstains count by the side of the threshold on which they lie. uncertain_logit: nearer than this
    to the threshold, in logits, it abstains."""

    threshold: Probability
    uncertain_logit: Annotated[float, Field(ge=0)]
    sensitivity: EstimatePart
    specificity: EstimatePart


@dataclass(frozen=True)
class OperatingPoint:
    """An operating point of one verdict.

    Attributes:
        threshold: The disease is called from this probability on.
        name: Of the point; None where the model has but one.
        uncertain_logit: Nearer than this to the threshold, in logits, the verdict is left open.
        sensitivity: At this point; None where the contract does not say.
        specificity: The same.
    """

    threshold: float
    name: str | None = None
    uncertain_logit: float = 0.0
    sensitivity: Estimate | None = None
    specificity: Estimate | None = None

    @property
    def band(self) -> tuple[float, float]:
        """The probabilities between which it is left open; both are the threshold where it never is."""
        if not self.uncertain_logit:
            return self.threshold, self.threshold
        low, high = (scores.logit(self.threshold) + sign * self.uncertain_logit for sign in (-1, 1))
        return scores.logistic(low, 1.0, 0.0), scores.logistic(high, 1.0, 0.0)
