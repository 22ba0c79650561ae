"""A submission to the REFUGE challenge, and its figures as the challenge's own code counts them.

`segmentation/<picture>.bmp` (0 cup, 128 rim, 255 background), `classification_results.csv` (FileName, Glaucoma Risk) and
`fovea_location_results.csv` (ImageName, Fovea_X, Fovea_Y, px). The challenge wants a word on every picture: where the engine has
none, that is a mask without a disc, a risk of one half, and the picture's centre. How many those are stands beside the figures.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...postprocess import measures, metrics
from ..errors import DataError, SettingsError
from ..files import expect_empty, write_bytes, write_text
from ..readers import READERS
from ..results import ModelName, Result, Screening
from .dataset import size_of
from .sample import Sample

_CUP, _RIM, _BACKGROUND = 0, 128, 255
_NO_OPINION = 0.5
_SPECIFICITY = 0.85  # at which the challenge compares sensitivities


@dataclass
class Submission:
    """What is handed in, picture by picture.

    Args:
        folder: Where to; empty, or not there yet.
        models: That are open.
        samples: What will be handed in.

    Raises:
        SettingsError: No open model finds disc, cup and fovea.
        OutputError: The folder is not empty, or cannot be looked into.
        DataError: Two pictures have one name, or one cannot be read at all.
    """

    folder: Path
    models: Sequence[ModelName]
    samples: Sequence[Sample]
    _risks: list[tuple[str, float, int | None]] = field(default_factory=list, init=False)
    _foveas: list[tuple[str, float, float, float | None]] = field(default_factory=list, init=False)
    _drawn: list[tuple[float | None, float | None, float]] = field(default_factory=list, init=False)
    _open: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("disc", "risk", "fovea"), 0), init=False)

    def __post_init__(self) -> None:
        if not any(column.name == "vcdr" for own in self.models for column in READERS[own.kind].columns):
            raise SettingsError(
                "REFUGE wants discs, cups and foveas, which no open model finds; open a multi-task model"
            )
        expect_empty(self.folder)
        seen: set[str] = set()
        for sample in self.samples:
            name = sample.image.stem.lower()
            if name in seen:
                raise DataError(f"{sample.image}: another picture of this split has this name; REFUGE tells them by it")
            seen.add(name)
            _size(sample)

    def add(self, sample: Sample, result: Result) -> None:
        """Write a picture's mask, and keep the rest for `finish`.

        Raises:
            OutputError: The mask cannot be written.
        """
        name = sample.image.name
        found = result if isinstance(result, Screening) else None
        labels = _labels(sample, found)
        write_bytes(
            self.folder / "segmentation" / f"{sample.image.stem}.bmp", cv2.imencode(".bmp", labels)[1].tobytes()
        )
        risk = found.decisions["glaucoma"].probability if found else None
        fovea = found.fovea if found else None
        for what, absent in (
            ("disc", not (labels < _BACKGROUND).any()),
            ("risk", risk is None),
            ("fovea", fovea is None),
        ):
            self._open[what] += absent
        x, y = fovea or ((labels.shape[1] - 1) / 2, (labels.shape[0] - 1) / 2)
        away = None if sample.fovea is None else float(np.hypot(x - sample.fovea[0], y - sample.fovea[1]))
        self._risks.append((name, _NO_OPINION if risk is None else risk, sample.glaucoma))
        self._foveas.append((name, x, y, away))
        if (truth := sample.read_masks()) is not None and truth.cup is not None:
            self._drawn.append(_compared(labels < _BACKGROUND, labels == _CUP, truth.disc, truth.cup))

    def finish(self) -> dict[str, Any]:
        """Write the tables.

        Returns:
            `cup_dice`, `disc_dice`, `vcdr_error`, `fovea_px`, each a mean; `auc`; `reference_sensitivity`, at a specificity of
            .85, and the same `as_refuge_computes_it`, which is .15 for a perfect classifier. Each with `n`, and
            `n_not_measurable`: of all pictures, how many the engine said nothing of.

        Raises:
            OutputError: A table cannot be written.
        """
        _write(
            self.folder / "classification_results.csv", ("FileName", "Glaucoma Risk"), [own[:2] for own in self._risks]
        )
        _write(
            self.folder / "fovea_location_results.csv",
            ("ImageName", "Fovea_X", "Fovea_Y"),
            [own[:3] for own in self._foveas],
        )
        known = [(risk, label) for _, risk, label in self._risks if label is not None]
        figures: dict[str, Any] = {}
        for k, name in enumerate(("cup_dice", "disc_dice", "vcdr_error")):
            figures[name] = self._mean("disc", [own[k] for own in self._drawn])
        risks, labels = zip(*known, strict=True) if known else ((), ())
        area = metrics.auc(risks, labels)
        figures["auc"] = self._figure("risk", len(known), area.value if area else None)
        for name, compat in (("reference_sensitivity", False), ("reference_sensitivity_as_refuge_computes_it", True)):
            found = metrics.sensitivity_at(risks, labels, _SPECIFICITY, refuge_compat=compat) if area else None
            figures[name] = self._figure("risk", len(known), found)
        return figures | {"fovea_px": self._mean("fovea", [away for *_, away in self._foveas])}

    def _mean(self, what: str, values: Sequence[float | None]) -> dict[str, Any]:
        known = [value for value in values if value is not None]
        return self._figure(what, len(known), float(np.mean(known)) if known else None)

    def _figure(self, what: str, n: int, value: float | None) -> dict[str, Any]:
        return {"n": n, "n_not_measurable": self._open[what], "mean": value}


def _labels(sample: Sample, found: Screening | None) -> NDArray[np.uint8]:
    """REFUGE's values, uint8 (H, W) of the picture's own size."""
    if found is not None:
        labels = np.full((found.height, found.width), _BACKGROUND, np.uint8)
        labels[found.mask("disc")] = _RIM
        labels[found.mask("cup")] = _CUP
        return labels
    return np.full(_size(sample), _BACKGROUND, np.uint8)


def _size(sample: Sample) -> tuple[int, int]:
    """Height and width, px."""
    try:
        width, height = size_of(sample.image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        reason = "its size cannot be read, and REFUGE wants a mask of it; fetch the picture anew"
        raise DataError(f"{sample.image}: {reason}") from None
    return height, width


def _compared(
    disc: NDArray[np.bool_], cup: NDArray[np.bool_], true_disc: NDArray[np.bool_], true_cup: NDArray[np.bool_]
) -> tuple[float | None, float | None, float]:
    """Dice of cup and disc, and the error of the vertical cup-to-disc ratio, which is 0 without a cup. bool (H, W) each."""
    error = abs((measures.vcdr(disc, cup) or 0.0) - (measures.vcdr(true_disc, true_cup) or 0.0))
    return metrics.dice(cup, true_cup), metrics.dice(disc, true_disc), error


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())
