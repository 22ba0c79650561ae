"""How far a candidate may differ from its reference, and by how much it does."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """How far a candidate may differ.

    Attributes:
        probability: Of any probability.
        quality: Of a score of the picture's quality; shares of dim and burnt pixels move by whole pixels.
        vcdr_mean: Of the vCDR, mean over pictures.
        height_px: Of disc or cup, in map pixels, for any picture.
        dice: Of masks, the least for any picture.
        dice_mean: The same, mean over pictures.
        flip_margin: Nearer to a threshold, a decision may change.
        map_value: Of a probability map.
        heat: Of a heat map, in logits.
        fovea_px: In map pixels.
        identical: Of the rows of one batch of identical pictures.
    """

    probability: float
    quality: float
    vcdr_mean: float
    height_px: float
    dice: float
    dice_mean: float
    flip_margin: float
    map_value: float
    heat: float
    fovea_px: float
    identical: float


FP32 = Bounds(
    probability=1e-5,
    quality=1e-3,
    vcdr_mean=0.002,
    height_px=1.0,
    dice=0.9999,
    dice_mean=0.9999,
    flip_margin=0.005,
    map_value=1e-3,
    heat=1e-2,
    fovea_px=0.1,
    identical=1e-5,
)
FP16 = Bounds(
    probability=5e-3,
    quality=2e-2,
    vcdr_mean=0.005,
    height_px=1.0,
    dice=0.99,
    dice_mean=0.998,
    flip_margin=0.005,
    map_value=5e-2,
    heat=0.02,
    fovea_px=0.5,
    identical=1e-3,
)
INT8 = Bounds(  # judged on vCDR and decisions: how far pixels and probabilities move is shown, not bounded
    probability=1.0,
    quality=1.0,
    vcdr_mean=0.01,
    height_px=2.0,
    dice=0.0,
    dice_mean=0.98,
    flip_margin=0.02,
    map_value=1.0,
    heat=float("inf"),
    fovea_px=2.0,
    identical=1e-3,
)
BOUNDS = {"fp32": FP32, "fp16": FP16, "bf16": INT8, "int8": INT8}


@dataclass(frozen=True)
class Difference:
    """One way in which two models differ.

    Attributes:
        name: What was compared.
        seen: The largest difference, which is also the bound that would have been needed.
        bound: The bound that there was.
        at_least: `seen` is the smallest likeness instead, and must not be below the bound.
    """

    name: str
    seen: float
    bound: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether it is within its bound; NaN never is."""
        return self.seen >= self.bound if self.at_least else self.seen <= self.bound

    @property
    def strain(self) -> float:
        """The share of its bound that was used; of a count, for which any is too many, the count; NaN is beyond any."""
        if math.isnan(self.seen):
            return math.inf
        seen, bound = (1 - self.seen, 1 - self.bound) if self.at_least else (self.seen, self.bound)
        return seen / bound if bound else seen

    @property
    def badness(self) -> float:
        """Larger is worse, NaN the worst."""
        if math.isnan(self.seen):
            return math.inf
        return -self.seen if self.at_least else self.seen
