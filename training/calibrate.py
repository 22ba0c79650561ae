"""Calibration of a finished run on its validation split, for either system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import train
from .classifier import calibrate as classifier
from .multitask import calibrate as multitask
from .multitask.calibrate import FitOn


def calibrate(run: Path, data_root: Path | None = None, fit_on: FitOn = "predicted") -> dict[str, Any]:
    """Calibrate a run's best checkpoint, on its own data sets or those below `data_root`.

    Writes `run`/calibration.json and returns what it wrote. Args: fit_on: see `multitask.calibrate`.
    Raises: SettingsError, DataError.
    """
    settings, state = train.load_checkpoint(run / "best.pt")
    root = data_root or Path(settings.data.root)
    if settings.kind == "classifier":
        return classifier.calibrate(run, settings, state, root)
    return multitask.calibrate(run, settings, state, root, fit_on)
