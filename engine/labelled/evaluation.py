"""Model files judged on labelled pictures, each set alone, through the engine that ships.

A picture without a result counts as Dice 0, and its vCDR as 0; how many those are stands beside every figure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...postprocess import measures, metrics
from ..diseases import DISEASES
from ..errors import DataError
from ..findings import Decision, Structure
from ..readers import READERS
from ..readers.quality import SCORES
from ..readers.reader import Reader
from ..results import Result, Screening
from ..screener import Screener
from .sample import Masks, Sample

_LIT = 20  # brightest channel of a pixel inside the field of view
_NEAR_LESION = 0.02  # of the picture's width: how far from a drawn lesion heat still counts as at it


@dataclass
class _Tally:
    n: int = 0
    rejected: int = 0
    disc_dice: list[float] = field(default_factory=list)
    disc_unmeasured: int = 0
    cup_dice: list[float] = field(default_factory=list)
    vcdr_error: list[float] = field(default_factory=list)
    vcdr_bias: list[float] = field(default_factory=list)
    vcdr_unmeasured: int = 0
    experts: list[tuple[float, float | None]] = field(default_factory=list)
    fovea_share: list[float] = field(default_factory=list)
    fovea_px: list[float] = field(default_factory=list)
    fovea_unmeasured: int = 0
    eyes: Counter[str] = field(default_factory=Counter)
    decisions: dict[str, list[tuple[int, Decision | None]]] = field(default_factory=lambda: defaultdict(list))
    scores: dict[str, list[tuple[int, float | None]]] = field(default_factory=lambda: defaultdict(list))
    quality: dict[str, list[tuple[float, float | None]]] = field(default_factory=lambda: defaultdict(list))
    heat_in_disc: dict[str, list[list[float] | None]] = field(default_factory=lambda: defaultdict(list))
    heat_by_drawn: int = 0
    heat_in_lesions: dict[str, list[list[float] | None]] = field(default_factory=lambda: defaultdict(list))


def evaluate(
    screener: Screener, samples: Sequence[Sample], *watches: Callable[[Sample, Result], None]
) -> dict[str, Any]:
    """Screen the samples and measure what the open models say that they find.

    Args:
        screener: Open.
        samples: At least one.
        watches: Each is told every result.

    Returns:
        Per set: `n`, `n_rejected` and, where labelled, `disc_dice`, `cup_dice`, `vcdr_error` (mean |difference|), `vcdr_bias`
        (mean difference where it was measured), the same against a ratio that experts gave without drawing
        (`expert_vcdr_error`, `expert_vcdr_bias`, both where it was measured) with Pearson's `expert_vcdr_correlation`,
        `fovea_error_percent` (of the picture's width) and `fovea_error_px` (original pixels), each as mean (and median);
        `laterality`: how often the eye was told rightly, wrongly, not at all; `quality`: Spearman's rank correlation of each
        score of quality with the set's own judgement; `scores`: AUC of each.

        `decisions`, by verdict: `auc`; `called`: how many of all the sick and of all the healthy it calls, of which it calls
        none that is refused or left open; rates `at_threshold` with their intervals (pictures on which the model abstains
        count by the side on which they lie), and on how many of the sick and the healthy it abstained.

        `heat_in_disc`: the share of the heat within a disc's radius of the disc, and that region's share of the field of
        view, which is what chance would give; a picture without any heat is not measurable. The disc is the drawn one
        (`n_drawn`), else the one that was found. `heat_in_lesions`, of retinopathy, where lesions are drawn: the share of the
        heat within 2 % of the picture's width of any, and in how many pictures its hottest place lies there (`pointing`;
        Zhang et al., ECCV 2016); that region's share of the field of view is what chance would give for both.

        Every figure has `n`, `n_not_measurable` and, where it can, a 95 % interval.

    Raises:
        DataError: There are no samples.
    """
    if not samples:
        raise DataError("no pictures to evaluate; does the data set have this split?")
    tallies: dict[str, _Tally] = {}
    readers = [READERS[own.kind] for own in screener.models]
    for sample, result in zip(samples, screener.stream((s.image for s in samples), keep_photo=True), strict=True):
        for watch in watches:
            watch(sample, result)
        tally = tallies.setdefault(sample.set_name, _Tally())
        screening, drawn = result if isinstance(result, Screening) else None, sample.read_masks()
        tally.n += 1
        tally.rejected += screening is None
        if any(column.name == "vcdr" for reader in readers for column in reader.columns):
            _add_measures(tally, sample, drawn, screening)
        _add_opinions(tally, sample, screening, readers)
        if sample.quality is not None:
            for name in SCORES:
                tally.quality[name].append((sample.quality, result.scores.get(name)))
        if screening is not None and any(own.heat is not None for own in screening.decisions.values()):
            _add_heat(tally, sample, drawn, screening, readers)
    return {name: _figures(tally) for name, tally in tallies.items()}


def choose(samples: Iterable[Sample], split: str) -> list[Sample]:
    """The samples of a split that carry a label which this evaluation can use."""
    return [
        s
        for s in samples
        if s.split == split
        and (
            s.mask
            or s.lesions
            or s.fovea
            or s.expert_vcdr is not None
            or s.quality is not None
            or any(s.diseased(name) is not None for name in DISEASES)
        )
    ]


def _add_measures(tally: _Tally, sample: Sample, drawn: Masks | None, result: Screening | None) -> None:
    if drawn is not None and drawn.disc.any():
        tally.disc_dice.append(_dice(result, "disc", drawn.disc))
        tally.disc_unmeasured += result is None or result.disc is None
        if drawn.cup is not None and (truth := measures.vcdr(drawn.disc, drawn.cup)) is not None:
            tally.cup_dice.append(_dice(result, "cup", drawn.cup))
            found = result.vcdr if result else None
            tally.vcdr_error.append(abs((found or 0.0) - truth))
            tally.vcdr_unmeasured += found is None
            if found is not None:
                tally.vcdr_bias.append(found - truth)
    if sample.expert_vcdr is not None:
        tally.experts.append((sample.expert_vcdr, result.vcdr if result else None))
    if sample.fovea is not None:
        if result is None or result.fovea is None:
            tally.fovea_unmeasured += 1
        else:
            distance = float(np.hypot(*np.subtract(result.fovea, sample.fovea)))
            tally.fovea_share.append(distance / result.width)
            tally.fovea_px.append(distance / sample.scale)
    if sample.eye is not None:
        seen = result.eyes.eye if result else None
        tally.eyes["unknown" if seen is None else "right" if seen == sample.eye else "wrong"] += 1


def _dice(result: Screening | None, structure: Structure, truth: NDArray[np.bool_]) -> float:
    return 0.0 if result is None else metrics.dice(result.mask(structure), truth) or 0.0


def _add_opinions(tally: _Tally, sample: Sample, result: Screening | None, readers: Sequence[type[Reader]]) -> None:
    """What each verdict and score says, beside the label of its disease."""
    for reader in readers:
        for verdict in reader.verdicts:
            if (label := sample.diseased(verdict.disease)) is not None:
                decision = result.decisions.get(verdict.name) if result else None
                tally.decisions[verdict.name].append((label, decision))
        for column in reader.columns:
            if column.score_of and (label := sample.diseased(column.score_of)) is not None:
                tally.scores[column.name].append((label, column.value(result) if result else None))


def _add_heat(
    tally: _Tally, sample: Sample, drawn: Masks | None, result: Screening, readers: Sequence[type[Reader]]
) -> None:
    """How much of the heat lies at the disc, and of retinopathy's at drawn lesions."""
    if result.photo is None:
        return
    lit = result.photo.pixels.max(axis=2) > _LIT
    masses = {
        name: decision.heat.on_photo(result.width, result.height) * lit
        for name, decision in result.decisions.items()
        if decision.heat is not None
    }
    lesions = sample.read_lesions()
    if lesions is not None and lesions.any():
        near = _near(lesions > 0, _NEAR_LESION * result.width)
        for verdict in (verdict for reader in readers for verdict in reader.verdicts):
            if verdict.name in masses and DISEASES[verdict.disease].dr_grade is not None:
                tally.heat_in_lesions[verdict.name].append(_shares(masses[verdict.name], lit, near, pointing=True))
    disc = result.mask("disc") if drawn is None else drawn.disc
    if not disc.any():
        return
    tally.heat_by_drawn += drawn is not None
    radius = measures.vertical_diameter(disc) // 2
    near = _near(disc, radius)
    for name, mass in masses.items():
        tally.heat_in_disc[name].append(_shares(mass, lit, near))


def _near(mask: NDArray[np.bool_], distance_px: float) -> NDArray[np.bool_]:
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(away <= distance_px)


def _shares(
    mass: NDArray[np.float32], lit: NDArray[np.bool_], near: NDArray[np.bool_], *, pointing: bool = False
) -> list[float] | None:
    """Of the heat and of the field of view, how much lies in a region, and whether the hottest place does (half of several
    that are equally hot, if half of them do); None without heat."""
    if not mass.any():
        return None
    shares = [float(part[near].sum() / part.sum()) for part in (mass, lit)]
    return [*shares, float(near[mass == mass.max()].mean())] if pointing else shares


def _figures(tally: _Tally) -> dict[str, Any]:
    figures: dict[str, Any] = {"n": tally.n, "n_rejected": tally.rejected}
    for name, values, missing in (
        ("disc_dice", tally.disc_dice, tally.disc_unmeasured),
        ("cup_dice", tally.cup_dice, tally.vcdr_unmeasured),
        ("vcdr_error", tally.vcdr_error, tally.vcdr_unmeasured),
    ):
        if values:
            figures[name] = _measured(len(values), missing, metrics.mean(values))
    if tally.vcdr_error:
        figures["vcdr_bias"] = _measured(len(tally.vcdr_error), tally.vcdr_unmeasured, metrics.mean(tally.vcdr_bias))
    if tally.experts:
        figures |= _against_experts(tally.experts)
    if tally.fovea_share or tally.fovea_unmeasured:
        for name, values in (
            ("fovea_error_percent", [100 * own for own in tally.fovea_share]),
            ("fovea_error_px", tally.fovea_px),
        ):
            found = _measured(len(values) + tally.fovea_unmeasured, tally.fovea_unmeasured, metrics.mean(values))
            figures[name] = found | {"median": float(np.median(values)) if values else None}
    if tally.eyes:
        figures["laterality"] = {name: tally.eyes[name] for name in ("right", "wrong", "unknown")}
    decisions = {name: _decision(known) for name, known in tally.decisions.items()}
    for name, shares in tally.heat_in_disc.items():
        hot = [own for own in shares if own is not None]
        share, chance = np.mean(hot, axis=0).tolist() if hot else (None, None)
        count = {"n": len(shares), "n_drawn": tally.heat_by_drawn, "n_not_measurable": len(shares) - len(hot)}
        decisions.setdefault(name, {})["heat_in_disc"] = {**count, "share": share, "chance": chance}
    for name, shares in tally.heat_in_lesions.items():
        hot = [own for own in shares if own is not None]
        share, chance, pointing = np.mean(hot, axis=0).tolist() if hot else (None,) * 3
        count = {"n": len(shares), "n_not_measurable": len(shares) - len(hot)}
        decisions.setdefault(name, {})["heat_in_lesions"] = {
            **count,
            "share": share,
            "chance": chance,
            "pointing": pointing,
        }
    figures["decisions"] = decisions
    figures["quality"] = {}
    for name, judged in tally.quality.items():
        kept = [(quality, score) for quality, score in judged if score is not None]
        if kept:
            ranked = metrics.rank_correlation(*zip(*kept, strict=True))
            figures["quality"][name] = _measured(len(judged), len(judged) - len(kept), ranked)
    figures["scores"] = {
        name: _auc([score for _, score in known], [label for label, _ in known]) for name, known in tally.scores.items()
    }
    return figures


def _against_experts(pairs: Sequence[tuple[float, float | None]]) -> dict[str, Any]:
    kept = [(found, truth) for truth, found in pairs if found is not None]
    found, truth = np.array(kept, np.float64).reshape(-1, 2).T
    values = {
        "expert_vcdr_error": metrics.mean(np.abs(found - truth)),
        "expert_vcdr_bias": metrics.mean(found - truth),
        "expert_vcdr_correlation": metrics.correlation(found, truth),
    }
    return {name: _measured(len(pairs), len(pairs) - len(kept), value) for name, value in values.items()}


def _measured(n: int, missing: int, found: metrics.Interval | None) -> dict[str, Any]:
    value, low, high = (found.value, found.low, found.high) if found else (None, None, None)
    return {"n": n, "n_not_measurable": missing, "mean": value, "low": low, "high": high}


def _decision(known: Sequence[tuple[int, Decision | None]]) -> dict[str, Any]:
    """Figures of one verdict, by label and decision."""
    labels, probabilities = [label for label, _ in known], [own.probability if own else None for _, own in known]
    row: dict[str, Any] = {"auc": _auc(probabilities, labels), "called": {}}
    for name, sick in (("sick", 1), ("healthy", 0)):
        of_all = [own is not None and own.called is True for label, own in known if label == sick]
        if of_all:
            share = metrics.wilson(sum(of_all), len(of_all))
            row["called"][name] = {"called": sum(of_all), "n": len(of_all), **share.__dict__}
    seen = [(label, own, own.probability) for label, own in known if own is not None and own.probability is not None]
    thresholds = Counter(own.threshold for _, own, _ in seen if own.threshold is not None)
    if thresholds:  # more than one where a second look was not taken of all: each counts by its own
        (threshold, _), *_ = thresholds.most_common(1)
        above = [float(p >= own.threshold) for _, own, p in seen if own.threshold is not None]
        counts = metrics.Counts.at(0.5, above, [label for label, own, _ in seen if own.threshold is not None])
        row["at_threshold"] = {"threshold": threshold, **counts.__dict__}
        for name, hits, total in (
            ("sensitivity", counts.tp, counts.tp + counts.fn),
            ("specificity", counts.tn, counts.tn + counts.fp),
        ):
            row["at_threshold"][name] = metrics.wilson(hits, total).__dict__ if total else None
        for name, sick in (("sick", 1), ("healthy", 0)):
            row[f"n_uncertain_{name}"] = sum(label == sick and own.called is None for label, own, _ in seen)
    return row


def _auc(scores: Sequence[float | None], labels: Sequence[int]) -> dict[str, Any]:
    kept = [(score, label) for score, label in zip(scores, labels, strict=True) if score is not None]
    area = metrics.auc(*zip(*kept, strict=True)) if kept else None
    return {
        "n": len(labels),
        "n_not_measurable": len(labels) - len(kept),
        **(area.__dict__ if area else {"value": None, "low": None, "high": None}),
    }
