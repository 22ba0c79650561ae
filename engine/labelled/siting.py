"""A site's own operating points, fitted to pictures of its camera and patients that it has labelled."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ...postprocess import metrics, scores
from .. import models, site
from ..contract import Model
from ..errors import DataError
from ..readers import READERS, verdicts
from ..readers.classifier import PointName
from ..readers.point import EstimatePart, OperatingPoint, PointPart
from ..results import Screening
from ..screener import ScreenerSettings
from ..site import Site, SiteDecision
from .sample import Sample

_log = logging.getLogger("funduscope")
LEAST, LEAST_OF_CLASS = 50, 10  # labelled pictures of a verdict, and of the sick and the healthy each
_NEEDED = f"{LEAST} pictures, {LEAST_OF_CLASS} of them sick and {LEAST_OF_CLASS} healthy,"
_AIM = 0.95  # of the points that hold a sensitivity or specificity
_OWN = 25.0  # pictures that the model's own threshold counts for: a site's few would be followed too far


def fit(
    settings: ScreenerSettings, samples: Sequence[Sample], name: str, say: Callable[[str], None] = _log.info
) -> Site:
    """Screen labelled pictures and fit how each verdict is read there.

    A temperature makes the classifier's probabilities fit the site's; its points aim at what they are named for, and lie
    between what the site's pictures say and the model's own, the nearer to the former the more pictures there are.

    Args:
        settings: What is opened; without a site.
        samples: Labelled; those of a test split are left out, so that the site can be judged by them.
        name: Of the site.
        say: Is told what was fitted, and what could not be.

    Raises:
        DataError: No verdict has labels enough.
        SettingsError: The name is none.
    """
    site.made(name, {})  # refuses it before the work
    own = [sample for sample in samples if sample.split != "test"]
    opened = {path: models.load(path) for path in models.chosen(settings.models)}
    fitted = {model.contract.converted_from or model.sha256: dict[str, SiteDecision]() for model in opened.values()}
    for paths in _together(opened):
        seen, readings = _opinions(replace(settings, models=paths), own)
        for model, verdict in ((opened[path], verdict) for path in paths for verdict in verdicts()):
            kind, at_site = model.contract.kind, fitted[model.contract.converted_from or model.sha256]
            if verdict.name not in readings[kind]:
                continue
            title = verdict.title if len(paths) == len(opened) else f"{verdict.title}, where the first look stands"
            logits, labels = np.array(seen[verdict.name], np.float64).reshape(-1, 2).T
            sick, healthy = int(labels.sum()), int((1 - labels).sum())
            if sick + healthy < LEAST or min(sick, healthy) < LEAST_OF_CLASS:
                say(f"{title}: {sick} sick, {healthy} healthy; {_NEEDED} are needed; as it was")
                continue
            at_site[verdict.disease] = decision(logits, labels, readings[kind][verdict.name])
            for point, part in at_site[verdict.disease].points.items():
                say(f"{title}, {point}: {_told(part)}")
    if not any(fitted.values()):
        raise DataError(f"no disease has labelled pictures enough that could be read: {_NEEDED} are needed")
    return site.made(name, fitted)


def _together(opened: Mapping[str, Model]) -> Iterator[list[str]]:
    """Which models are opened: all; then those alone whose decision stands where a later look sees nothing."""
    yield list(opened)
    firsts = {READERS[model.contract.kind].after for model in opened.values()}
    if before := [path for path, model in opened.items() if model.contract.kind in firsts]:
        yield before


def _opinions(
    settings: ScreenerSettings, samples: Sequence[Sample]
) -> tuple[dict[str, list[tuple[float, int]]], dict[str, dict[str, Sequence[OperatingPoint]]]]:
    """By verdict each picture's logit and truth; by kind of model the points of the verdicts on which it has the last word."""
    seen: dict[str, list[tuple[float, int]]] = defaultdict(list)
    with settings.open() as screener:
        for sample, result in zip(samples, screener.stream([s.image for s in samples]), strict=True):
            if isinstance(result, Screening):
                for name, opinion in result.decisions.items():
                    truth = sample.diseased(opinion.disease)
                    if opinion.probability is not None and truth is not None:
                        seen[name].append((scores.logit(opinion.probability), truth))
        readings = {c.kind: dict(READERS[c.kind](c, None).points()) for c in screener.contracts}
    for kind, points in readings.items():
        before = readings.get(READERS[kind].after or "", {})
        for name in points.keys() & before.keys():
            del before[name]
    return seen, readings


def decision(
    logits: NDArray[np.float64], labels: NDArray[np.float64], points: Sequence[OperatingPoint]
) -> SiteDecision:
    single = len(points) == 1  # the mean of two scores, which is no logistic one
    share = len(logits) / (len(logits) + _OWN)
    temperature = 1.0 if single else metrics.best_temperature(logits, labels) ** share
    z = logits / temperature
    fitted = dict(zip(get_args(PointName), metrics.operating_cuts(z, labels, _AIM, _AIM), strict=True))
    parts = {}
    for point in points:
        name = point.name or "balanced"
        cut = share * fitted[name] + (1 - share) * scores.logit(point.threshold) / temperature
        counts = metrics.Counts.at(cut, z, labels)
        parts[name] = PointPart(
            threshold=scores.logistic(cut, 1.0, 0.0),
            uncertain_logit=point.uncertain_logit / temperature,
            sensitivity=EstimatePart(**vars(metrics.wilson(counts.tp, counts.tp + counts.fn))),
            specificity=EstimatePart(**vars(metrics.wilson(counts.tn, counts.tn + counts.fp))),
        )
    return SiteDecision(temperature=temperature, sick=int(labels.sum()), healthy=int((1 - labels).sum()), points=parts)


def _told(part: PointPart) -> str:
    rates = (
        f"{name} {rate.value:.2f} ({rate.low:.2f} to {rate.high:.2f})"
        for name, rate in (("sensitivity", part.sensitivity), ("specificity", part.specificity))
    )
    return f"from {part.threshold:.3f}: {', '.join(rates)}"
