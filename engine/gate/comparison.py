"""The gate: a rewritten or compiled model beside its reference, on outputs, measures and decisions.

Nothing that fails here is served: not an export, not a converted file, not an engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ...postprocess import findings, measures, metrics
from ...postprocess.findings import Findings
from .. import contract
from ..pictures import preprocess
from ..pictures.photo import Photo
from ..results import DISEASES

Outputs = Mapping[str, NDArray[np.float32]]
Run = Callable[[NDArray[np.uint8]], Outputs]


@dataclass(frozen=True)
class Bounds:
    """How far a candidate may differ. map_value: of a probability map; heat: of a heat map, in logits; height_px: of disc
    or cup, in map pixels, for any picture; flip_margin: nearer to a threshold, a decision may change; identical: of the
    rows of one batch of identical pictures."""

    probability: float
    vcdr_mean: float
    height_px: float
    dice: float
    dice_mean: float
    flip_margin: float
    map_value: float
    heat: float
    fovea_px: float
    identical: float


FP32 = Bounds(
    probability=1e-5,
    vcdr_mean=0.002,
    height_px=1.0,
    dice=0.9999,
    dice_mean=0.9999,
    flip_margin=0.005,
    map_value=1e-3,
    heat=1e-2,
    fovea_px=0.1,
    identical=1e-5,
)
FP16 = Bounds(
    probability=5e-3,
    vcdr_mean=0.005,
    height_px=1.0,
    dice=0.99,
    dice_mean=0.998,
    flip_margin=0.005,
    map_value=5e-2,
    heat=0.1,
    fovea_px=0.5,
    identical=1e-3,
)
INT8 = Bounds(  # judged on vCDR and decisions: how far pixels and probabilities move is shown, not bounded
    probability=1.0,
    vcdr_mean=0.01,
    height_px=2.0,
    dice=0.0,
    dice_mean=0.98,
    flip_margin=0.02,
    map_value=1.0,
    heat=float("inf"),
    fovea_px=2.0,
    identical=1e-3,
)
BOUNDS = {"fp32": FP32, "fp16": FP16, "bf16": INT8, "int8": INT8}


@dataclass(frozen=True)
class Figure:
    """The largest difference that was seen (`at_least`: the smallest likeness), which is also the bound that would have
    been needed, and the bound that there was."""

    name: str
    seen: float
    bound: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether it is within its bound; NaN never is."""
        return self.seen >= self.bound if self.at_least else self.seen <= self.bound

    @property
    def strain(self) -> float:
        """The share of its bound that was used; of a count, for which any is too many, the count; NaN is beyond any."""
        if math.isnan(self.seen):
            return math.inf
        seen, bound = (1 - self.seen, 1 - self.bound) if self.at_least else (self.seen, self.bound)
        return seen / bound if bound else seen

    @property
    def badness(self) -> float:
        """Larger is worse, NaN the worst."""
        if math.isnan(self.seen):
            return math.inf
        return -self.seen if self.at_least else self.seen


@dataclass(frozen=True)
class Report:
    """What the gate saw, figure by figure."""

    pictures: int
    figures: tuple[Figure, ...]

    def passes(self) -> bool:
        """Whether every figure is within its bound."""
        return all(figure.holds for figure in self.figures)

    def __getitem__(self, name: str) -> float:
        return next(figure.seen for figure in self.figures if figure.name == name)

    def strain(self) -> float:
        """How much of its bounds the candidate used, summed over the figures: a measure of damage, smaller is better."""
        return sum(figure.strain for figure in self.figures)

    def record(self) -> dict[str, float]:
        """The figures by name."""
        return {figure.name: figure.seen for figure in self.figures}

    def lines(self) -> list[str]:
        """The report, a line a figure, the bound beside it."""
        rows = [f"{'pictures':28}{self.pictures}"]
        for figure in self.figures:
            sign = "at least" if figure.at_least else "at most"
            rows.append(
                f"{figure.name:28}{figure.seen:<12.6g}{sign} {figure.bound:g}{'' if figure.holds else '   FAILS'}"
            )
        return rows


def compare(
    reference: Run,
    candidate: Run,
    images: NDArray[np.uint8],
    document: contract.Contract,
    bounds: Bounds,
    batches: Sequence[int],
) -> Report:
    """Run both on the same pictures and measure how they differ: the candidate once for each size of batch, the worst kept.

    Args: images: uint8 (N, S, S, 3); document: how the outputs are read; batches: pictures at once: fewer pictures than
    the largest are shown repeatedly, so that each size is seen full. The largest is also run on one picture repeated:
    engines have been seen that are right at batch 1 only.
    """
    assert len(images), "the gate compares on pictures"
    count, most = len(images), max(batches)
    expected = _run(reference, images, most)
    reports = []
    for batch in batches:
        outputs = _run(candidate, images[np.arange(max(count, batch)) % count], batch)
        reports += [_figures(expected, part, document, bounds) for part in _parts(outputs, count)]
    alike = candidate(np.repeat(images[:1], most, axis=0))
    reports += [_figures(expected, row, document, bounds) for row in _parts(alike, 1)]
    worst = [
        max((report[name] for report in reports if name in report), key=lambda figure: figure.badness)
        for name in reports[0]
    ]
    spread = np.max([np.abs(output - output[:1]).max() for name, output in alike.items() if "_map" not in name])
    return Report(count, (*worst, Figure("max |d identical rows|", float(spread), bounds.identical)))


def views(photo: Photo, geometry: preprocess.Geometry, count: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    """Prepared views of one photograph, uint8 (count, S, S, 3): turned by up to 180 degrees, 0.8 to 1.1 times as large,
    0.7 to 1.2 times as bright. For a self-check where no other pictures are at hand."""
    rng, made = np.random.default_rng(seed), []
    height, width = photo.pixels.shape[:2]
    for _ in range(count):
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-180, 180), rng.uniform(0.8, 1.1))
        seen = cv2.warpAffine(photo.pixels, turn, (width, height), flags=cv2.INTER_AREA)
        bright = np.clip(seen * rng.uniform(0.7, 1.2), 0, 255).astype(np.uint8)
        made.append(preprocess.prepare(Photo(bright, photo.name), geometry).image)
    return np.stack(made)


def _figures(first: Outputs, second: Outputs, document: contract.Contract, bounds: Bounds) -> dict[str, Figure]:
    """By name. Where the second has rows for the first pictures only, nothing is averaged: the bounds are for all."""
    pairs: list[tuple[Outputs, Outputs]] = []
    total, count = (len(next(iter(outputs.values()))) for outputs in (first, second))
    for k in range(count):
        a, b = ({name: output[k] for name, output in outputs.items()} for outputs in (first, second))
        if all(np.isfinite(output).all() for output in (*a.values(), *b.values())):
            pairs.append((a, b))
    if isinstance(document, contract.MultiTask):
        read = _multitask(pairs, document, bounds)
    else:
        read = _classifier(pairs, document, bounds)
    figures = [Figure("not finite", count - len(pairs), 0), *read]
    return {own.name: own for own in figures if count == total or not own.name.startswith("mean")}


def _classifier(
    pairs: Sequence[tuple[Outputs, Outputs]], document: contract.Classifier, bounds: Bounds
) -> list[Figure]:
    probability = heat = 0.0
    flips = 0
    for (a, b), disease in ((pair, disease) for pair in pairs for disease in DISEASES):
        one, other = float(a[disease]), float(b[disease])
        probability = max(probability, abs(one - other))
        if document.map_grid is not None:
            heat = max(heat, float(np.abs(a[f"{disease}_map"] - b[f"{disease}_map"]).max()))
        points: contract.PointsPart = getattr(document.decisions, disease).points
        for point in (points.high_sensitivity, points.balanced, points.high_specificity):
            clear = abs(one - point.threshold) > bounds.flip_margin
            flips += clear and (one >= point.threshold) != (other >= point.threshold)
    return [
        Figure("max |d probability|", probability, bounds.probability),
        Figure("max |d heat| (logits)", heat, bounds.heat),
        Figure("decision flips", flips, 0),
    ]


def _multitask(pairs: Sequence[tuple[Outputs, Outputs]], document: contract.MultiTask, bounds: Bounds) -> list[Figure]:
    rules, threshold = document.rules.build(), document.glaucoma_threshold
    probability = map_value = height = fovea = 0.0
    dices, vcdr_differences, flips, unlike = list[float](), list[float](), 0, 0
    for a, b in pairs:
        map_value = max(map_value, *(float(np.abs(a[n] - b[n]).max()) for n in ("disc", "cup", "fovea")))
        ours, theirs = findings.find(a, rules), findings.find(b, rules)
        probability = max(probability, abs(ours.glaucoma_network - theirs.glaucoma_network))
        if _measurable(ours) != _measurable(theirs):
            unlike += 1
            continue
        if ours.fovea and theirs.fovea:
            fovea = max(fovea, float(np.hypot(*np.subtract(ours.fovea, theirs.fovea))))
        if ours.vcdr is not None and theirs.vcdr is not None:
            vcdr_differences.append(abs(ours.vcdr - theirs.vcdr))
        if ours.glaucoma is not None and theirs.glaucoma is not None:
            clear = abs(ours.glaucoma - threshold) > bounds.flip_margin
            flips += clear and (ours.glaucoma >= threshold) != (theirs.glaucoma >= threshold)
        if ours.region and theirs.region:
            for mask in ("disc", "cup"):
                one, other = getattr(ours.region, mask), getattr(theirs.region, mask)
                tall = abs(measures.vertical_diameter(one) - measures.vertical_diameter(other))
                height = max(height, tall / ours.region.zoom)
                whole = [r.draw(getattr(r, mask), np.eye(2, 3), a["disc"].shape) for r in (ours.region, theirs.region)]
                overlap = metrics.dice(*whole)
                dices.append(1.0 if overlap is None else overlap)
    nothing = 0.0 if bounds.map_value < 1 else float("nan")  # where maps are not bounded, something must be measured
    return [
        Figure("max |d probability|", probability, bounds.probability),
        Figure("max |d map|", map_value, bounds.map_value),
        Figure("mean |d vCDR|", float(np.mean(vcdr_differences)) if vcdr_differences else nothing, bounds.vcdr_mean),
        Figure("max |d height| (map px)", height, bounds.height_px),
        Figure("min mask Dice", min(dices, default=1.0), bounds.dice, at_least=True),
        Figure("mean mask Dice", float(np.mean(dices)) if dices else 1.0, bounds.dice_mean, at_least=True),
        Figure("max fovea distance (map px)", fovea, bounds.fovea_px),
        Figure("decision flips", flips, 0),
        Figure("measurable on one side only", unlike, 0),
    ]


def _run(run: Run, images: NDArray[np.uint8], batch: int) -> dict[str, NDArray[np.float32]]:
    parts: Sequence[Outputs] = [run(images[start : start + batch]) for start in range(0, len(images), batch)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _parts(outputs: Outputs, count: int) -> list[Outputs]:
    """So many rows at a time."""
    total = len(next(iter(outputs.values())))
    cuts = (slice(start, start + count) for start in range(0, total, count))
    return [{name: output[cut] for name, output in outputs.items()} for cut in cuts]


def _measurable(found: Findings) -> tuple[bool, bool, bool]:
    return found.region is not None, found.vcdr is not None, found.fovea is not None
