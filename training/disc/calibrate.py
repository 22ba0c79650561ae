"""Calibration of the second look on the validation split: as of the multi-task network, of the mean of both looks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...engine.errors import SettingsError
from ...postprocess.anatomy import Rules
from ..multitask import calibrate as multitask
from ..multitask import job
from . import validation
from .config import Config

_RULES = ("disc_threshold", "cup_threshold", "vcdr_coefficient", "vcdr_intercept")


def calibrate(settings: Config, state: Mapping[str, Any], root: Path, fit_on: str) -> dict[str, Any]:
    """Calibrate a checkpoint on the data sets below `root`: see `multitask.calibrate.calibrate`.

    Raises:
        SettingsError: `fit_on` is not known.
        DataError: The validation split lacks masks, or glaucoma labels of both classes.
    """
    if fit_on not in multitask.FIT_ON:
        raise SettingsError(f"fit_on {fit_on}: allowed are {', '.join(multitask.FIT_ON)}")
    pairs = job.load_samples(settings, root)
    squares = validation.crops(settings, job.held_out(pairs))
    network, share = job.from_checkpoint(settings, state["network"]), settings.reading.first_share
    maps = validation.predict(network, squares, share, torch.device("cpu"))
    cases = [own.case for own in squares]
    taught = [(sample, own) for sample, own in pairs if any(task in own.weights for task in settings.data.batch)]
    rules, before = job.uncalibrated(settings.reading), validation.vcdrs_before(squares)
    found = multitask.fitted(settings, state, taught, cases, maps, rules, fit_on, before)
    found["training"]["figures"] = validation.measure(squares, maps, Rules(**found["rules"]))
    return found | {"first_share": share, "rules": {name: found["rules"][name] for name in _RULES}}
