"""Calibration on the validation split: mask thresholds, the logistic regression on the vCDR, the decision's threshold.

The regression is fitted on *predicted* vCDR, from the very post-processing that ships: fitted on drawn masks, as the
source did it, it meets other values in use than it was made for. `paper` keeps the source's way, to compare.
Each set and class weighs the same (less where it has few pictures), so that no set's share of glaucoma becomes the model's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...engine.errors import DataError, SettingsError
from ...engine.labelled.sample import Sample
from ...postprocess import anatomy, measures, metrics, scores
from ...postprocess.anatomy import Rules
from ..balance import FEW, equal_weights
from ..cases import Case, prepare
from ..provenance import provenance
from . import job, validation
from .config import Config
from .networks import Deployed
from .validation import Maps

FIT_ON = ("predicted", "paper")
_GRID = np.arange(0.30, 0.91, 0.05)


def calibrate(settings: Config, state: Mapping[str, Any], root: Path, fit_on: str) -> dict[str, Any]:
    """Calibrate a checkpoint on the data sets below `root`: see `system.System`.

    Args:
        settings: The run's.
        state: The checkpoint's.
        root: The folder of the data sets.
        fit_on: The vCDR that the regression is fitted on: `predicted`, or `paper`, the drawn masks'.

    Raises:
        SettingsError: `fit_on` is something else.
        DataError: The validation split lacks masks, or glaucoma labels of both classes.
    """
    if fit_on not in FIT_ON:
        raise SettingsError(f"fit_on {fit_on}: allowed are {', '.join(FIT_ON)}")
    network = job.from_checkpoint(settings, state["network"])
    pairs = job.load_samples(settings, root)
    geometry = settings.preparation(settings.geometry.size).build()
    cases = [prepare(sample, geometry) for sample in job.held_out(pairs)]
    images = [case.prepared.image for case in cases]
    maps = list(validation.predict(Deployed(network), images, torch.device("cpu")))
    return fitted(settings, state, pairs, cases, maps, job.uncalibrated(settings.reading), fit_on)


def fitted(
    settings: Config,
    state: Mapping[str, Any],
    pairs: Sequence[job.Pair],
    cases: Sequence[Case],
    maps: Sequence[Maps],
    rules: Rules,
    fit_on: str,
    before: Sequence[float | None] | None = None,
) -> dict[str, Any]:
    """Rules, the decision's threshold and where the model comes from, of what the network gives for the validation pictures.

    Args and raises: as of `calibrate`; rules: to begin with; before: the vCDR of a look before this one for each picture: the
    regression is on the mean of both.
    """
    rules = best_thresholds(cases, maps, rules, before)
    labelled = [k for k, case in enumerate(cases) if case.sample.glaucoma is not None]
    vcdrs = [
        measures.of_two_looks(before[k] if before else None, anatomy.measure(maps[k], rules).vcdr) for k in labelled
    ]
    if fit_on == "paper":
        fit = [(validation.true_vcdr(c.masks), c.sample) for c in cases if c.masks and c.sample.glaucoma is not None]
    else:
        fit = [(vcdr, cases[k].sample) for k, vcdr in zip(labelled, vcdrs, strict=True)]
    coefficient, intercept = fit_logistic([(v, s) for v, s in fit if v is not None])
    rules = replace(rules, vcdr_coefficient=coefficient, vcdr_intercept=intercept)

    measured = [
        (0.5 * (float(maps[k]["glaucoma"]) + scores.logistic(vcdr, coefficient, intercept)), cases[k].sample)
        for k, vcdr in zip(labelled, vcdrs, strict=True)
        if vcdr is not None
    ]
    samples = [sample for _, sample in measured]
    _need_both(samples)
    threshold = metrics.threshold_of_youden(
        [score for score, _ in measured], [sample.glaucoma == 1 for sample in samples], _weights(samples)
    )
    return {
        "rules": rules.__dict__,
        "glaucoma_threshold": round(threshold, 4),
        "fit_on": fit_on,
        "training": provenance(
            f"U-Net, VGG-16 encoder, width {settings.network.width:g}",
            f"{settings.schedule.strategy}, {settings.data.sampler} sampler",
            state,
            pairs,
            validation.measure(cases, maps, rules, before),
        ),
    }


def best_thresholds(
    cases: Sequence[Case], maps: Sequence[Maps], rules: Rules, before: Sequence[float | None] | None = None
) -> Rules:
    """The mask thresholds with the best mean over sets of Dice (disc), and of Dice minus vCDR error (cup); sets of few pictures
    count less."""
    drawn = [k for k, case in enumerate(cases) if case.masks is not None or case.sample.expert_vcdr is not None]
    if not any(masks.cup is not None for k in drawn if (masks := cases[k].masks)):
        raise DataError("the validation split has no drawn cups; thresholds cannot be chosen")
    own_cases, own_maps = [cases[k] for k in drawn], [maps[k] for k in drawn]
    own_before = before and [before[k] for k in drawn]

    counts = Counter(case.sample.set_name for case in own_cases)

    def mean(figures: Mapping[str, Mapping[str, float]], key: str) -> float:
        rows = [(row[key], min(counts[name], FEW)) for name, row in figures.items() if key in row]
        values, weights = zip(*rows, strict=True)
        return float(np.average(values, weights=weights))

    def worth(candidate: Rules, keys: dict[str, float]) -> float:
        figures = validation.measure(own_cases, own_maps, candidate, own_before)
        return sum(sign * mean(figures, key) for key, sign in keys.items())

    by_disc = [replace(rules, disc_threshold=float(round(t, 2))) for t in _GRID]
    rules = max(by_disc, key=lambda r: worth(r, {"disc_dice": 1}))
    by_cup = [replace(rules, cup_threshold=float(round(t, 2))) for t in _GRID]
    return max(by_cup, key=lambda r: worth(r, {"cup_dice": 1, "vcdr_error": -1}))


def fit_logistic(pairs: Sequence[tuple[float, Sample]]) -> tuple[float, float]:
    """Coefficient and intercept of the logistic regression of glaucoma on vCDR. Raises DataError for one class."""
    from sklearn.linear_model import LogisticRegression  # which export has no need of

    samples = [sample for _, sample in pairs]
    _need_both(samples)
    model = LogisticRegression(C=1e3).fit(
        np.array([[vcdr] for vcdr, _ in pairs]), [sample.glaucoma for sample in samples], _weights(samples)
    )
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _need_both(samples: Sequence[Sample]) -> None:
    if len({sample.glaucoma for sample in samples}) < 2:
        raise DataError("the validation split needs measurable pictures with and without glaucoma to calibrate on")


def _weights(samples: Sequence[Sample]) -> NDArray[np.float64]:
    return equal_weights([(sample.set_name, sample.glaucoma) for sample in samples])
