"""What one picture's maps say: masks, vCDR, fovea, probabilities. Training's validation and the engine both call `find`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import measures, scores
from .masks import DiscRegion, disc_region


@dataclass(frozen=True)
class Rules:
    """How maps are read; every value comes from the model's contract.

    disc_threshold, cup_threshold: in (0, 1). fovea_mode: see `measures.centre_of_mass`. fovea_min_peak: a fovea map
    that stays below it has no fovea. vcdr_coefficient, vcdr_intercept: the logistic regression on the predicted vCDR.
    """

    disc_threshold: float
    cup_threshold: float
    fovea_mode: measures.CentreMode
    fovea_min_peak: float
    vcdr_coefficient: float
    vcdr_intercept: float


@dataclass(frozen=True)
class Findings:
    """Findings in map pixels. None: not measurable."""

    region: DiscRegion | None
    vcdr: float | None
    fovea: tuple[float, float] | None
    glaucoma_network: float
    glaucoma_vcdr: float | None
    glaucoma: float | None


def find(maps: Mapping[str, NDArray[np.float32]], rules: Rules) -> Findings:
    """Read the four outputs of the multi-task network for one picture.

    Args: maps: disc, cup, fovea: float32 (S, S) in [0, 1]; glaucoma: float32 () in [0, 1].
    """
    region = disc_region(maps["disc"], maps["cup"], rules.disc_threshold, rules.cup_threshold)
    vcdr = measures.vcdr(region.disc, region.cup) if region else None
    saliency = maps["fovea"]
    fovea = measures.centre_of_mass(saliency, rules.fovea_mode) if saliency.max() >= rules.fovea_min_peak else None
    network = float(maps["glaucoma"])
    from_vcdr = None if vcdr is None else scores.logistic(vcdr, rules.vcdr_coefficient, rules.vcdr_intercept)
    return Findings(region, vcdr, fovea, network, from_vcdr, scores.average(network, from_vcdr))
