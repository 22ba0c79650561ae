"""Readers of labelled fundus pictures: a folder with `index.csv`, and the official layout of the REFUGE challenge.

An empty cell means *not labelled*, never 0. Labels stay in the pixels of the stored picture.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import DataError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_COLUMNS = {"image", "split"}


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
    scale: float = 1.0

    def labels(self, task: str) -> bool:
        """Whether this picture is labelled for a task: disc, cup, fovea or glaucoma."""
        return {
            "disc": self.mask is not None,
            "cup": self.mask is not None and self.mask_has_cup,
            "fovea": self.fovea is not None,
            "glaucoma": self.glaucoma is not None,
        }[task]

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


def _check_values(path: Path, values: NDArray[np.uint8], allowed: set[int]) -> None:
    found = set(np.unique(values).tolist())
    if not found <= allowed:
        raise DataError(f"{path}: mask values {sorted(found - allowed)[:5]}; allowed are {sorted(allowed)}")


def read(folder: Path) -> list[Sample]:
    """All samples of a data set: `index.csv` where there is one, else REFUGE's official folders.

    Raises: DataError with the file and what is wrong in it.
    """
    folder = Path(folder)
    if (folder / "index.csv").is_file():
        samples = _read_index(folder)
    elif any((folder / part).is_dir() for part in _REFUGE):
        samples = _read_refuge(folder)
    else:
        raise DataError(f"{folder}: neither index.csv nor REFUGE's folders ({', '.join(_REFUGE)}) are there")
    check(samples)
    return samples


def check(samples: Iterable[Sample]) -> None:
    """Refuse labels that cannot be trusted: missing files, a picture or patient in two splits. Raises DataError."""
    problems: list[str] = []
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for sample in samples:
        if not sample.image.is_file():
            problems.append(f"{sample.image}: no such picture")
        if sample.mask is not None and not sample.mask.is_file():
            problems.append(f"{sample.mask}: no such mask")
        seen[sample.set_name, f"picture {sample.image.name}"].add(sample.split)
        if sample.patient:
            seen[sample.set_name, f"patient {sample.patient}"].add(sample.split)
    problems += [f"{name}: {who} is in splits {sorted(s)}" for (name, who), s in seen.items() if len(s) > 1]
    if problems:
        raise DataError("Labels that cannot be used:\n  " + "\n  ".join(problems[:20]) + _more(len(problems) - 20))


def _more(count: int) -> str:
    return f"\n  and {count} more" if count > 0 else ""


def _read_index(folder: Path) -> list[Sample]:
    index = folder / "index.csv"
    with index.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = _COLUMNS - set(rows.fieldnames or ())
        if missing:
            raise DataError(f"{index}: column {sorted(missing)} is missing")
        samples = []
        for line, row in enumerate(rows, start=2):
            try:
                samples.append(_sample_of_row(folder, row))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{index}, line {line}: {error}") from None
    if not samples:
        raise DataError(f"{index}: no rows")
    return samples


def _sample_of_row(folder: Path, row: dict[str, str]) -> Sample:
    def cell(name: str) -> str | None:
        return row.get(name) or None

    split, glaucoma, grade = row["split"], cell("glaucoma"), cell("dr_grade")
    if split not in SPLITS:
        raise ValueError(f"split {split!r}; allowed are {', '.join(SPLITS)}")
    if glaucoma not in (None, "0", "1"):
        raise ValueError(f"glaucoma {glaucoma!r}; allowed are 0, 1 and empty")
    if grade is not None and grade not in ("0", "1", "2", "3", "4"):
        raise ValueError(f"dr_grade {grade!r}; allowed are 0 to 4 and empty")
    fovea = None
    if (x := cell("fovea_x")) and (y := cell("fovea_y")):
        fovea = float(x), float(y)
        if (width := cell("width")) and (height := cell("height")):
            if not (0 <= fovea[0] < float(width) and 0 <= fovea[1] < float(height)):
                raise ValueError(f"fovea {fovea} lies outside the picture ({width} x {height})")
    mask = cell("mask")
    return Sample(
        image=folder / row["image"],
        set_name=folder.name,
        split=split,
        mask=folder / mask if mask else None,
        mask_has_cup=cell("mask_has") == "disc+cup",
        fovea=fovea,
        glaucoma=int(glaucoma) if glaucoma else None,
        dr_grade=int(grade) if grade else None,
        patient=cell("patient"),
        scale=float(cell("scale") or 1),
    )


# REFUGE's official folders: pictures, masks (0 cup, 128 rim, 255 background) and, beside them, fovea tables
_REFUGE: dict[str, tuple[Split, str]] = {
    "REFUGE-Training400": ("train", "Training400"),
    "REFUGE-Validation400": ("val", "REFUGE-Validation400"),
    "REFUGE-Test400": ("test", "Test400"),
}


def _read_refuge(folder: Path) -> list[Sample]:
    raise DataError(f"{folder}: REFUGE layout")
