"""What a candidate computes beside what its reference computes: outputs, measures and decisions.

Nothing that fails here is served: not an export, not a converted file, not an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..readers.difference import Bounds, Difference
from ..readers.outputs import Outputs
from ..readers.reader import Reader

Infer = Callable[[NDArray[np.uint8]], Outputs]
"""Outputs of pictures uint8 (N, S, S, 3): a runner, or a network in torch."""


@dataclass(frozen=True)
class Report:
    """What the gate saw, figure by figure."""

    pictures: int
    figures: tuple[Difference, ...]

    def passes(self) -> bool:
        """Whether every figure is within its bound."""
        return all(figure.holds for figure in self.figures)

    def __getitem__(self, name: str) -> float:
        return next(figure.seen for figure in self.figures if figure.name == name)

    def strain(self) -> float:
        """How much of its bounds the candidate used, summed over the figures: a measure of damage, smaller is better."""
        return sum(figure.strain for figure in self.figures)

    def worst(self) -> float:
        """The largest share of a bound that was used; more than 1 does not pass."""
        return max(figure.strain for figure in self.figures)

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


def verify_outputs(
    reference: Infer | Outputs,
    candidate: Infer,
    images: NDArray[np.uint8],
    reader: Reader,
    bounds: Bounds,
    batches: Sequence[int],
) -> Report:
    """Show both the same pictures and measure how they differ: the candidate once for each size of batch, the worst kept.

    Args: reference: outputs of the pictures, or what makes them; images: uint8 (N, S, S, 3); reader: of the outputs;
    batches: pictures at once: fewer pictures than the largest are shown repeatedly, so that each size is seen full. The
    largest is also run on one picture repeated: engines have been seen that are right at batch 1 only.
    """
    assert len(images), "the gate needs pictures"
    count, most = len(images), max(batches)
    expected = outputs_of(reference, images, most) if callable(reference) else reference
    reports = []
    for batch in batches:
        outputs = outputs_of(candidate, images[np.arange(max(count, batch)) % count], batch)
        reports += [_differences(expected, part, reader, bounds) for part in _parts(outputs, count)]
    alike = candidate(np.repeat(images[:1], most, axis=0))
    reports += [_differences(expected, row, reader, bounds) for row in _parts(alike, 1)]
    worst = [
        max((report[name] for report in reports if name in report), key=lambda figure: figure.badness)
        for name in reports[0]
    ]
    spread = np.max([np.abs(output - output[:1]).max() for name, output in alike.items() if "_map" not in name])
    return Report(count, (*worst, Difference("max |d identical rows|", float(spread), bounds.identical)))


def _differences(first: Outputs, second: Outputs, reader: Reader, bounds: Bounds) -> dict[str, Difference]:
    """By name. Where the second has rows for the first pictures only, nothing is averaged: the bounds are for all."""
    pairs: list[tuple[Outputs, Outputs]] = []
    total, count = (len(next(iter(outputs.values()))) for outputs in (first, second))
    for k in range(count):
        a, b = ({name: output[k] for name, output in outputs.items()} for outputs in (first, second))
        if all(np.isfinite(output).all() for output in (*a.values(), *b.values())):
            pairs.append((a, b))
    seen = [Difference("not finite", count - len(pairs), 0), *reader.differences(pairs, bounds)]
    return {each.name: each for each in seen if count == total or not each.name.startswith("mean")}


def outputs_of(infer: Infer, images: NDArray[np.uint8], batch: int) -> dict[str, NDArray[np.float32]]:
    """Outputs of pictures uint8 (N, S, S, 3), so many of them at once."""
    parts: Sequence[Outputs] = [infer(images[start : start + batch]) for start in range(0, len(images), batch)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _parts(outputs: Outputs, count: int) -> list[Outputs]:
    """So many rows at a time."""
    total = len(next(iter(outputs.values())))
    cuts = (slice(start, start + count) for start in range(0, total, count))
    return [{name: output[cut] for name, output in outputs.items()} for cut in cuts]
