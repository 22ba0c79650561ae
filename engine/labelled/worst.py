"""Where models are farthest from the labels: the errors of every picture in a table, and the worst of each kind drawn."""

from __future__ import annotations

import csv
import heapq
import io
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...postprocess import measures, metrics
from .. import drawing
from ..files import expect_empty, write_bytes, write_text
from ..results import Result, Screening
from .sample import Masks, Sample

_SIDE = 512
_AT_DISC = ("disc", "cup", "vcdr")  # drawn close


class Worst:
    """Collects what `evaluation.evaluate` tells.

    Args:
        folder: Where to; empty, or not there yet.
        count: How many pictures of each kind of error are drawn.

    Raises:
        OutputError: The folder is not empty, or cannot be looked into.
    """

    def __init__(self, folder: Path, count: int = 5) -> None:
        expect_empty(folder)
        self._folder, self._count = folder, count
        self._rows: list[tuple[Sample, Mapping[str, float | None]]] = []
        self._worst: dict[str, list[tuple[float, int, Sample, Screening]]] = {}

    def add(self, sample: Sample, result: Result) -> None:
        """Note a picture's errors. Args: result: with its photo."""
        drawn = sample.read_masks()
        errors = _errors(sample, drawn, result if isinstance(result, Screening) else None)
        self._rows.append((sample, errors))
        for kind, error in errors.items():
            if error is None or not isinstance(result, Screening):
                continue
            heap = self._worst.setdefault(kind, [])
            heapq.heappush(heap, (error, -len(self._rows), sample, result))
            if len(heap) > self._count:
                heapq.heappop(heap)

    def finish(self) -> None:
        """Write `errors.csv`, and of each kind `<kind>-<rank>-<picture>.jpg`, with what is drawn by experts in white.

        Raises:
            OutputError: A file cannot be written.
        """
        kinds = list(dict.fromkeys(kind for _, errors in self._rows for kind in errors))
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["set", "image", *kinds])
        for sample, errors in self._rows:
            values = (errors.get(kind) for kind in kinds)
            table.writerow(
                [sample.set_name, sample.image.name, *("" if own is None else f"{own:.4f}" for own in values)]
            )
        write_text(self._folder / "errors.csv", text.getvalue())
        for kind, heap in self._worst.items():
            for rank, (_, _, sample, result) in enumerate(sorted(heap, key=lambda own: own[:2], reverse=True), 1):
                name = f"{kind}-{rank}-{sample.image.stem}.jpg"
                write_bytes(self._folder / name, drawing.encoded(_drawn(kind, sample, result), ".jpg"))


def _errors(sample: Sample, drawn: Masks | None, found: Screening | None) -> dict[str, float | None]:
    """By kind: `disc` and `cup` (1 - Dice), `vcdr` (difference), `fovea` (distance, % of the picture's width), and each verdict's
    (label less probability). None: labelled, and the models say nothing. Kinds that are not labelled are not there."""
    errors: dict[str, float | None] = {}
    truth = sample.expert_vcdr
    if drawn is not None and drawn.disc.any():
        errors["disc"] = 1 - (metrics.dice(found.mask("disc"), drawn.disc) or 0.0) if found else None
        if drawn.cup is not None:
            errors["cup"] = 1 - (metrics.dice(found.mask("cup"), drawn.cup) or 0.0) if found else None
            truth = measures.vcdr(drawn.disc, drawn.cup)
    if truth is not None:
        errors["vcdr"] = abs(found.vcdr - truth) if found and found.vcdr is not None else None
    if sample.fovea is not None:
        seen = found.fovea if found else None
        away = None if seen is None else float(np.hypot(*np.subtract(seen, sample.fovea)))
        errors["fovea"] = None if away is None or found is None else 100 * away / found.width
    for verdict, decision in (found.decisions if found else {}).items():
        if (label := sample.diseased(decision.disease)) is not None:
            errors[verdict] = None if decision.probability is None else abs(label - decision.probability)
    return errors


def _drawn(kind: str, sample: Sample, result: Screening) -> NDArray[np.uint8]:
    """The disc close, a verdict's heat map, or the whole picture."""
    assert result.photo is not None
    decision = result.decisions.get(kind)
    if decision is not None and decision.heat is not None:
        return drawing.heated(result.photo, decision.heat)
    masks, outlines = sample.read_masks(), list[NDArray[np.float64]]()
    for mask in (masks.disc, masks.cup) if masks else ():
        if mask is not None:
            found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            outlines += [own[:, 0].astype(np.float64) for own in found]
    if sample.fovea is not None:
        angles = np.linspace(0, 2 * np.pi, 40)
        outlines.append(np.add(sample.fovea, result.width / 60 * np.stack([np.cos(angles), np.sin(angles)], axis=1)))
    if kind in _AT_DISC and result.disc is not None:
        return drawing.close_up(result.photo, result, _SIDE, outlines)
    return drawing.contoured(result.photo, result, drawing.SIDE, outlines)
