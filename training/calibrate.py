"""Calibration of a finished run on its validation split, for any system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..engine.errors import SettingsError
from ..engine.files import write_text
from . import config, memory, train
from .systems import SYSTEMS


def calibrate(
    run: Path, data_root: Path | None = None, fit_on: str = "predicted", reading: Path | None = None
) -> dict[str, Any]:
    """Calibrate a run's best checkpoint, and write the result to `run`/calibration.json.

    Args:
        run: A folder that `train` made.
        data_root: Folder of the data sets, in place of the run's own.
        fit_on: Of a multi-task run, see `multitask.calibrate`.
        reading: A configuration file whose [reading] takes the place of the run's.

    Returns:
        What was written.

    Raises:
        SettingsError: The run, or what was asked of it, is wrong.
        DataError: The validation split lacks what the system needs.
        OutputError: The file cannot be written.
    """
    memory.keep_freed()
    settings, state = train.load_checkpoint(run / "best.pt")
    root = data_root or Path(settings.data.root)
    if reading is not None:
        other = config.load(reading)
        if other.kind != settings.kind:
            raise SettingsError(f"{reading}: its kind is {other.kind}, the run's is {settings.kind}")
        settings = settings.model_copy(update={"reading": other.reading})
    result = SYSTEMS[settings.kind].calibrate(settings, state, root, fit_on)
    result["network"] = train.digest(state["network"])
    write_text(run / "calibration.json", json.dumps(result, indent=2) + "\n")
    return result
