"""One labelled picture, and what was drawn on it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, Eye

Split = Literal["train", "val", "test"]
# diabetic retinopathy from this grade on
GRADES = {"any_dr": 1, "referable_dr": 2, "severe_dr": 3, "proliferative_dr": 4}
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Masks:
    """disc, cup: bool (H, W); cup is None where only the disc was drawn."""

    disc: NDArray[np.bool_]
    cup: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Sample:
    """One labelled picture. None: not labelled. fovea: (x, y) in the picture's pixels; scale: stored / original size."""

    image: Path
    set_name: str
    split: Split
    mask: Path | None = None
    mask_has_cup: bool = False
    mask_style: Literal["index", "refuge"] = "index"
    fovea: tuple[float, float] | None = None
    glaucoma: int | None = None
    dr_grade: int | None = None
    patient: str | None = None
    eye: Eye | None = None
    scale: float = 1.0

    def labels(self, task: str) -> bool:
        """Whether this picture is labelled for a task: disc, cup, fovea or glaucoma."""
        return {
            "disc": self.mask is not None,
            "cup": self.mask is not None and self.mask_has_cup,
            "fovea": self.fovea is not None,
            "glaucoma": self.glaucoma is not None,
        }[task]

    def diseased(self, disease: str) -> int | None:
        """1, 0, or None where it is not labelled. Args: disease: `glaucoma` or a key of GRADES."""
        if disease == "glaucoma":
            return self.glaucoma
        return None if self.dr_grade is None else int(self.dr_grade >= GRADES[disease])

    def teaching(self, diseases: Collection[str]) -> Sample:
        """The same picture with no other disease labels than `glaucoma` and `dr`, where they are among `diseases`."""
        glaucoma = self.glaucoma if "glaucoma" in diseases else None
        return replace(self, glaucoma=glaucoma, dr_grade=self.dr_grade if "dr" in diseases else None)

    def read_masks(self) -> Masks | None:
        """Disc and cup as drawn. Raises DataError where the file is missing or holds other values than it should."""
        if self.mask is None:
            return None
        values = cv2.imread(str(self.mask), cv2.IMREAD_UNCHANGED)
        if values is None:
            raise DataError(f"{self.mask}: the mask is missing or unreadable")
        if values.ndim == 3:
            values = values[..., 0]
        if self.mask_style == "refuge":  # 0 cup, 128 rim, 255 background
            _check_values(self.mask, values, {0, 128, 255})
            return Masks(values < 255, values == 0)
        _check_values(self.mask, values, {0, 1, 2} if self.mask_has_cup else {0, 1})
        return Masks(values > 0, values == 2 if self.mask_has_cup else None)


def _check_values(path: Path, values: NDArray[Any], allowed: set[int]) -> None:
    found = set(np.unique(values).tolist())
    if not found <= allowed:
        raise DataError(f"{path}: mask values {sorted(found - allowed)[:5]}; allowed are {sorted(allowed)}")
