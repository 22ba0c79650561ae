"""From pictures to patients: one row per patient of both eyes, where the list or the files name the patients."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from ..errors import Code
from ..files import write_text
from ..readers import READERS, verdicts
from ..readers.column import Column
from ..results import Rejected, Result
from .rows import write_csv

FILE = "patients.csv"


@dataclass
class Patient:
    """All pictures of one patient, in any order.

    A disease is called where any picture calls it; it is denied only where every picture was read and denies it; else it stays
    open. Probabilities and vCDR are the highest of each. An eye is seen where a picture of it has a result.

    Attributes:
        name: As the list or the files say.
        pictures: How many there are of each eye; "" is one that is not known.
        rejected: How many have no result.
        seen: Of which eyes there is a picture with a result.
        calls: Of each picture with a result, by verdict; None where the model left it open or could not use the picture.
        probabilities: The highest, by verdict.
        vcdr: The highest, by eye.
        warnings: Each once, in order.

    Example:
        ```python
        patient = funduscope.Patient("a name")
        for result in screener.stream(["right.jpg", "left.jpg"]):
            patient.add(result)
        print(patient.called("glaucoma"), patient.vcdr_difference)
        ```
    """

    name: str
    pictures: dict[str, int] = field(default_factory=lambda: {"right": 0, "left": 0, "": 0})
    rejected: int = 0
    seen: set[str] = field(default_factory=set)
    calls: dict[str, list[bool | None]] = field(default_factory=dict)
    probabilities: dict[str, float] = field(default_factory=dict)
    vcdr: dict[str, float] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Take up one picture.

        Args:
            result: Of one of this patient's pictures.
        """
        eye = result.eyes.eye or ""
        self.pictures[eye] += 1
        self.warnings |= dict.fromkeys(map(str, result.warnings))
        if isinstance(result, Rejected):
            self.rejected += 1
            return
        self.seen.add(eye)
        for verdict in (verdict for model in result.models for verdict in READERS[model.kind].verdicts):
            decision = result.decisions.get(verdict.name)
            self.calls.setdefault(verdict.name, []).append(decision.called if decision else None)
            if decision is not None and decision.probability is not None:
                highest = self.probabilities.get(verdict.name, 0.0)
                self.probabilities[verdict.name] = max(decision.probability, highest)
        if result.vcdr is not None:
            self.vcdr[eye] = max(result.vcdr, self.vcdr.get(eye, 0.0))

    def called(self, verdict: str) -> bool | None:
        """Whether a disease is called.

        Args:
            verdict: Its name, such as `glaucoma`; see `Findings.decisions`.

        Returns:
            None where it stays open.
        """
        calls = self.calls.get(verdict, [])
        if any(calls):
            return True
        return False if calls and not self.rejected and None not in calls else None

    @property
    def vcdr_difference(self) -> float | None:
        """How far the two eyes' vCDR differ; None where either is not known."""
        right, left = self.vcdr.get("right"), self.vcdr.get("left")
        return None if right is None or left is None else abs(right - left)

    def to_dict(self) -> dict[str, Any]:
        """The patient's row.

        Returns:
            JSON values under the columns of patients.csv, in order.
        """
        return {column.name: column.of(self) for column in columns()}


def columns() -> tuple[Column, ...]:
    """The columns of patients.csv, in order."""
    decided = []
    for verdict in verdicts():
        name = verdict.name
        called = partial(lambda name, patient: patient.called(name), name)
        probability = partial(lambda name, patient: patient.probabilities.get(name), name)
        meaning = "called where any picture calls it, denied where all were read and deny it"
        decided += [
            Column(name, meaning, called, "bool"),
            Column(f"{name}_probability", "the highest of all pictures", probability, digits=6),
        ]
    return (
        Column("patient", "who", lambda patient: patient.name, "text"),
        Column("pictures", "how many", lambda patient: sum(patient.pictures.values()), "int"),
        Column("right_pictures", "of the right eye", lambda patient: patient.pictures["right"], "int"),
        Column("left_pictures", "of the left eye", lambda patient: patient.pictures["left"], "int"),
        Column("unknown_eye_pictures", "of an eye that is not known", lambda patient: patient.pictures[""], "int"),
        Column("rejected_pictures", "without a result, whichever eye", lambda patient: patient.rejected, "int"),
        *decided,
        Column("vcdr", "the highest", lambda patient: max(patient.vcdr.values(), default=None), digits=6),
        Column("right_vcdr", "of the right eye", lambda patient: patient.vcdr.get("right"), digits=6),
        Column("left_vcdr", "of the left eye", lambda patient: patient.vcdr.get("left"), digits=6),
        Column("vcdr_difference", "how far the eyes differ", lambda patient: patient.vcdr_difference, digits=6),
        Column(
            "warnings",
            "those of all pictures, each once, and `ONE_EYE` where there is not a picture with a result of each eye",
            lambda patient: [*patient.warnings, *[str(Code.ONE_EYE)] * (not {"right", "left"} <= patient.seen)],
            "list",
        ),
    )


class Patients:
    """Gathers results by patient, and writes `patients.csv` at the end where any patient was named.

    Attributes:
        patients: Each by its name, in the order of the pictures.

    Example:
        ```python
        with funduscope.Patients(Path("results")) as patients:
            for result in screener.stream(listed):
                patients.write(result)
        ```
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is written yet.

        Args:
            folder: Where `patients.csv` goes.
        """
        self._path = folder / FILE
        self.patients: dict[str, Patient] = {}

    def write(self, result: Result) -> None:
        """Take up a result; one without a patient has no place here.

        Args:
            result: Of a picture, whoever's it is.
        """
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
    write_csv((patient.to_dict() for patient in patients), [column.name for column in columns()], text)
    return text.getvalue()
