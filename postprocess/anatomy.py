"""What the networks' maps say of one picture: masks, vCDR, fovea, scores. Training's validation calls this too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import measures, scores
from .masks import DiscRegion, disc_region


@dataclass(frozen=True)
class Rules:
    """How maps are measured; every value comes from the model's contract.

    Attributes:
        disc_threshold: In (0, 1).
        cup_threshold: In (0, 1).
        fovea_mode: See `measures.centre_of_mass`.
        fovea_min_peak: A fovea map that stays below it has no fovea.
        vcdr_coefficient: Of the logistic regression on the predicted vCDR.
        vcdr_intercept: Of the same.
    """

    disc_threshold: float
    cup_threshold: float
    fovea_mode: measures.CentreMode
    fovea_min_peak: float
    vcdr_coefficient: float
    vcdr_intercept: float


@dataclass(frozen=True)
class Anatomy:
    """What one picture's maps show, in map pixels. None: not measurable.

    Attributes:
        region: The masks of disc and cup.
        disc_px: The disc's vertical diameter, in the region's pixels.
        cup_px: The cup's, 0 for none.
        vcdr: Vertical cup-to-disc ratio, in [0, 1].
        fovea: Centre (x, y).
        glaucoma_network: The network's own score, in [0, 1].
        glaucoma_vcdr: The logistic regression on the vCDR, in [0, 1].
        glaucoma: The mean of these two.
    """

    region: DiscRegion | None
    disc_px: int
    cup_px: int
    vcdr: float | None
    fovea: tuple[float, float] | None
    glaucoma_network: float
    glaucoma_vcdr: float | None
    glaucoma: float | None


def measure(maps: Mapping[str, NDArray[np.float32]], rules: Rules) -> Anatomy:
    """Measure what the networks give for one picture.

    Args:
        maps: `disc`, `cup`, and `fovea` where it is looked for: float32 (S, S) in [0, 1]; `glaucoma`: float32 () in [0, 1].
        rules: Thresholds and coefficients, from the model's contract.
    """
    region = disc_region(maps["disc"], maps["cup"], rules.disc_threshold, rules.cup_threshold)
    disc_px, cup_px = (
        (measures.vertical_diameter(region.disc), measures.vertical_diameter(region.cup)) if region else (0, 0)
    )
    vcdr = measures.ratio(cup_px, disc_px)
    saliency = maps.get("fovea")
    fovea = None
    if saliency is not None and saliency.max() >= rules.fovea_min_peak:
        fovea = measures.centre_of_mass(saliency, rules.fovea_mode)
    network = float(maps["glaucoma"])
    from_vcdr = None if vcdr is None else scores.logistic(vcdr, rules.vcdr_coefficient, rules.vcdr_intercept)
    return Anatomy(region, disc_px, cup_px, vcdr, fovea, network, from_vcdr, scores.average(network, from_vcdr))
