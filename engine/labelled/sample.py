"""One labelled picture, and what was drawn on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..diseases import DISEASES
from ..errors import DataError
from ..eyes import Eye

Split = Literal["train", "val", "test"]
# diabetic retinopathy from this grade on; the last two are learned beside the diseases that are decided on
GRADES = {name: own.dr_grade for name, own in DISEASES.items() if own.dr_grade is not None} | {
    "severe_dr": 3,
    "proliferative_dr": 4,
}
LESIONS = {"microaneurysm": 1, "haemorrhage": 2, "hard_exudate": 4, "soft_exudate": 8}  # bits of a drawing of lesions
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Masks:
    """disc, cup: bool (H, W); cup is None where only the disc was drawn."""

    disc: NDArray[np.bool_]
    cup: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Sample:
    """One labelled picture. None: not labelled.

    Attributes:
        fovea: Centre (x, y) in the picture's pixels.
        dr_grade: Of diabetic retinopathy, 0 to 4 (International Clinical scale).
        others: 1 or 0 of each other disease that has a label of its own.
        scale: Stored over original size.
        lesions: A drawing, see `read_lesions`.
        twin: Name of the same picture in another set, where one is known.
        quality: How good it is, by whoever judged it: the higher the better.
        expert_vcdr: The vertical cup-to-disc ratio that experts measured.
    """

    image: Path
    set_name: str
    split: Split
    mask: Path | None = None
    mask_has_cup: bool = False
    mask_style: Literal["index", "refuge"] = "index"
    fovea: tuple[float, float] | None = None
    glaucoma: int | None = None
    dr_grade: int | None = None
    others: Mapping[str, int] = field(default_factory=dict)
    patient: str | None = None
    eye: Eye | None = None
    scale: float = 1.0
    lesions: Path | None = None
    twin: str | None = None
    quality: float | None = None
    expert_vcdr: float | None = None

    def labels(self, task: str) -> bool:
        """Whether this picture is labelled for a task: disc, cup, fovea, glaucoma or ratio."""
        return {
            "disc": self.mask is not None,
            "cup": self.mask is not None and self.mask_has_cup,
            "fovea": self.fovea is not None,
            "glaucoma": self.glaucoma is not None,
            "ratio": self.expert_vcdr is not None,
        }[task]

    def diseased(self, disease: str) -> int | None:
        """1, 0, or None where it is not labelled. Args: disease: a name in DISEASES, or a key of GRADES."""
        if disease == "glaucoma":
            return self.glaucoma
        if disease not in GRADES:
            return self.others.get(disease)
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

    def read_lesions(self) -> NDArray[np.uint8] | None:
        """Drawn lesions, uint8 (H, W): the bits of LESIONS. Raises DataError where the file is missing or holds others."""
        if self.lesions is None:
            return None
        values = cv2.imread(str(self.lesions), cv2.IMREAD_UNCHANGED)
        if values is None:
            raise DataError(f"{self.lesions}: the drawing of lesions is missing or unreadable")
        if values.ndim != 2:
            raise DataError(f"{self.lesions}: has {values.shape[2]} channels; a drawing of lesions has one, of bits")
        _check_values(self.lesions, values, set(range(sum(LESIONS.values()) + 1)))
        return np.asarray(values, np.uint8)


def _check_values(path: Path, values: NDArray[Any], allowed: set[int]) -> None:
    found = set(np.unique(values).tolist())
    if not found <= allowed:
        raise DataError(f"{path}: mask values {sorted(found - allowed)[:5]}; allowed are {sorted(allowed)}")
