"""Calibration of a finished run on its validation split, for either system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..engine.errors import SettingsError
from . import config, train
from .classifier import calibrate as classifier
from .multitask import calibrate as multitask
from .multitask.calibrate import FitOn


def calibrate(
    run: Path, data_root: Path | None = None, fit_on: FitOn = "predicted", reading: Path | None = None
) -> dict[str, Any]:
    """Calibrate a run's best checkpoint, on its own data sets or those below `data_root`.

    Writes `run`/calibration.json and returns what it wrote.
    Args: fit_on: of a multi-task run, see `multitask.calibrate`; reading: a configuration file whose [reading] takes the
    place of the run's. Raises: SettingsError, DataError.
    """
    settings, state = train.load_checkpoint(run / "best.pt")
    root = data_root or Path(settings.data.root)
    if reading is not None:
        other = config.load(reading)
        if other.kind != settings.kind:
            raise SettingsError(f"{reading}: its kind is {other.kind}, the run's is {settings.kind}")
        settings = settings.model_copy(update={"reading": other.reading})
    if settings.kind == "classifier":
        if fit_on != "predicted":
            raise SettingsError(f"--fit-on {fit_on}: a classifier measures no masks; leave it out")
        return classifier.calibrate(run, settings, state, root)
    return multitask.calibrate(run, settings, state, root, fit_on)
