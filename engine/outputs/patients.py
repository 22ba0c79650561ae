"""From pictures to patients: one row per patient of both eyes, where the list or the files name the patients."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ..errors import Code
from ..results import Rejected, Result, Screening
from .rows import cell, write_text

FILE = "patients.csv"
COLUMNS = (
    *("patient", "pictures", "right_pictures", "left_pictures", "unknown_eye_pictures", "rejected_pictures"),
    *("glaucoma", "glaucoma_probability", "glaucoma_second", "glaucoma_second_probability"),
    *("referable_dr", "referable_dr_probability", "any_dr", "any_dr_probability"),
    *("vcdr", "right_vcdr", "left_vcdr", "vcdr_difference", "warnings"),
)
_CALLS = ("glaucoma", "glaucoma_second", "referable_dr", "any_dr")


@dataclass
class Patient:
    """All pictures of one patient, in any order. A disease is called where any picture calls it; it is denied only where
    every picture was read and denies it; else it stays open. Probabilities and vCDR are the highest of each. An eye is
    seen where a picture of it has a result."""

    name: str
    eyes: dict[str, int] = field(default_factory=lambda: {"right": 0, "left": 0, "": 0})
    rejected: int = 0
    seen: set[str] = field(default_factory=set)  # of `eyes`
    calls: dict[str, list[bool | None]] = field(default_factory=lambda: {name: [] for name in _CALLS})
    probabilities: dict[str, float] = field(default_factory=dict)
    vcdr: dict[str, float] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)  # in order, each once

    def add(self, result: Result) -> None:
        """Take up one picture."""
        eye = result.eyes.eye or ""
        self.eyes[eye] += 1
        row = result.to_dict()
        self.warnings |= dict.fromkeys(row["warnings"])
        if isinstance(result, Rejected):
            self.rejected += 1
            return
        self.seen.add(eye)
        for name in _CALLS:
            if (probability := row[f"{name}_probability"]) is not None:
                self.probabilities[name] = max(probability, self.probabilities.get(name, 0.0))
            if _asked(result, name):
                self.calls[name].append(row[name])
        if result.vcdr is not None:
            self.vcdr[eye] = max(result.vcdr, self.vcdr.get(eye, 0.0))

    def to_dict(self) -> dict[str, Any]:
        """One flat row of JSON values, under the columns of patients.csv."""
        right, left = self.vcdr.get("right"), self.vcdr.get("left")
        warnings = [*self.warnings, *[str(Code.ONE_EYE)] * (not {"right", "left"} <= self.seen)]
        row: dict[str, Any] = {
            "patient": self.name,
            "pictures": sum(self.eyes.values()),
            "right_pictures": self.eyes["right"],
            "left_pictures": self.eyes["left"],
            "unknown_eye_pictures": self.eyes[""],
            "rejected_pictures": self.rejected,
            "vcdr": round(max(self.vcdr.values()), 6) if self.vcdr else None,
            "right_vcdr": right and round(right, 6),
            "left_vcdr": left and round(left, 6),
            "vcdr_difference": None if right is None or left is None else round(abs(right - left), 6),
            "warnings": warnings,
        }
        for name in _CALLS:
            row |= {name: self._called(name), f"{name}_probability": self.probabilities.get(name)}
        return {column: row[column] for column in COLUMNS}

    def _called(self, name: str) -> bool | None:
        calls = self.calls[name]
        if any(calls):
            return True
        return False if calls and not self.rejected and None not in calls else None


class Patients:
    """Gathers results by patient, and writes `patients.csv` at the end where any patient was named.

    patients: each by its name, in the order of the pictures.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.patients: dict[str, Patient] = {}

    def write(self, result: Result) -> None:
        """Take up a result; one without a patient has no place here."""
        name = result.eyes.patient
        if name is not None:
            self.patients.setdefault(name, Patient(name)).add(result)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is None and self.patients:
            write_text(self._path, table(self.patients.values()))


def table(patients: Iterable[Patient]) -> str:
    """The rows as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for patient in patients:
        writer.writerow([cell(value) for value in patient.to_dict().values()])
    return text.getvalue()


def _asked(result: Screening, name: str) -> bool:
    """Whether the model behind a column was asked, even where it could not read the picture."""
    if name == "glaucoma":
        return result.model is not None
    return result.classification is not None or Code.CLASSIFIER_UNGRADABLE in result.warnings
