"""The open models as who shows their scores needs them: what each decides, and from where on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..engine.contract import Contract
from ..engine.diseases import DISEASES
from ..engine.readers import READERS
from ..engine.readers.column import Verdict
from ..engine.readers.point import Estimate, OperatingPoint
from ..engine.results import ModelName
from ..engine.screener import Screener
from ..version import __version__


def document(screener: Screener) -> dict[str, Any]:
    """All of them."""
    return {
        "funduscope": __version__,
        "models": [
            {**vars(name), **_document(contract, screener)}
            for name, contract in zip(screener.models, screener.contracts, strict=True)
        ],
    }


def titled(verdict: Verdict) -> dict[str, str]:
    """A verdict without what a model says of it."""
    return {
        "name": verdict.name,
        "title": verdict.title,
        "disease": verdict.disease,
        "disease_title": DISEASES[verdict.disease].title,
    }


def verdicts_of(model: ModelName) -> list[dict[str, str]]:
    """Those of a model, open or not."""
    return [titled(verdict) for verdict in READERS[model.kind].verdicts]


def _document(contract: Contract, screener: Screener) -> dict[str, Any]:
    reader = READERS[contract.kind](contract, screener.point)
    points = {name: list(own) for name, own in reader.points().items()}
    for later in (own for own in screener.contracts if READERS[own.kind].after == contract.kind):  # has the last word
        for name, last in READERS[later.kind](later, screener.point).points().items():
            points[name] = [*last, *(replace(own, name="first_look") for own in points[name])]
    return {
        "network": contract.training.network,
        "terms": contract.terms.model_dump(),
        "point": reader.point,
        "verdicts": [
            {**titled(own), "meaning": own.meaning, "points": [_point(point) for point in points[own.name]]}
            for own in reader.verdicts
            if own.name in points
        ],
    }


def _point(point: OperatingPoint) -> dict[str, Any]:
    low, high = point.band
    return {
        "name": point.name,
        "threshold": round(point.threshold, 6),
        "uncertain": {"low": round(low, 6), "high": round(high, 6)},
        "sensitivity": _estimate(point.sensitivity),
        "specificity": _estimate(point.specificity),
    }


def _estimate(rate: Estimate | None) -> dict[str, float] | None:
    return rate and dict(zip(("value", "low", "high"), rate, strict=True))
