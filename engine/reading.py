"""From what the networks give to a result: is the picture fit to be read, what does each model find, what is left open.

A picture that any model finds unfit is refused before anything is decided. A model that finds nothing to measure leaves its own
verdicts open, and the others' stand; only where none finds anything the picture is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .errors import Code, PhotoError
from .findings import Decision
from .readers.outputs import Looked
from .readers.reader import Reader
from .results import Rejected, Result, Screening


def result(screening: Screening, readers: Sequence[Reader], looks: Sequence[Looked | None]) -> Result:
    """Make a picture's result.

    Args:
        screening: What is known of the picture so far.
        readers: Of the open models, in order.
        looks: Of each model; None where it was not shown anything.
    """
    looked = [(reader, *look) for reader, look in zip(readers, looks, strict=True) if look]
    refusals = list[PhotoError]()
    try:
        if not all(np.isfinite(output).all() for _, _, own in looked for output in own.values()):
            raise PhotoError(Code.MODEL_NONFINITE, "the model gave NaN or infinity")
        grades = [reader.grade(own, square) for reader, square, own in looked]
        screening = found = replace(
            screening, scores={name: score for own in grades for name, score in own.scores.items()}
        )
        if refusal := next((own.refusal for own in grades if own.refusal), None):
            raise PhotoError(*refusal)
        for reader, square, own in looked:
            try:
                found = reader.read(found, own, square)
            except PhotoError as error:
                refusals.append(error)
                nothing = {verdict.name: Decision(verdict.disease, None, None, None) for verdict in reader.verdicts}
                found = replace(found, warnings=(*found.warnings, error.code), decisions={**found.decisions, **nothing})
        if len(refusals) == len(looked):
            raise refusals[0]
    except PhotoError as error:
        known = screening
        return Rejected(
            known.name,
            known.sha256,
            error.code,
            error.reason,
            known.models,
            known.eyes,
            known.warnings,
            known.scores,
        )
    return _left_open(found, frozenset[str]().union(*(own.coarse for own in grades)))


def _left_open(found: Screening, coarse: frozenset[str]) -> Screening:
    """The picture is too coarse for these diseases: nothing is decided on them."""
    if not any(own.disease in coarse for own in found.decisions.values()):
        return found
    decisions = {
        name: replace(own, called=None) if own.disease in coarse else own for name, own in found.decisions.items()
    }
    return replace(found, decisions=decisions, warnings=(*found.warnings, Code.LOW_RESOLUTION))
