"""The diseases, each spelt out here alone: its name in models, rows and figures, its title, what its labels are."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import Code


@dataclass(frozen=True)
class Disease:
    """One disease that a model can decide on.

    Attributes:
        name: Of a classifier's output and decision.
        title: For people.
        uncertain: The warning where a model abstains on it.
        dr_grade: Of diabetic retinopathy (International Clinical scale, 0 to 4), from which on it counts; None: it has a label
            of its own, under its name.
        within: A wider disease that every case of this one is a case of too.
        drawn: Whether its heat map is drawn.
    """

    name: str
    title: str
    uncertain: Code
    dr_grade: int | None = None
    within: str | None = None
    drawn: bool = True


DISEASES = {
    own.name: own
    for own in (
        Disease("glaucoma", "glaucoma", Code.GLAUCOMA_UNCERTAIN),
        Disease("referable_dr", "referable retinopathy", Code.DR_UNCERTAIN, dr_grade=2, within="any_dr"),
        Disease("any_dr", "any retinopathy", Code.ANY_DR_UNCERTAIN, dr_grade=1, drawn=False),
    )
}
