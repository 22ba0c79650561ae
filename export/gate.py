"""The gate after an export: the candidate beside its reference on real pictures, on maps, measures and decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..postprocess import findings, measures, metrics
from ..postprocess.findings import Findings, Rules

Run = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[np.float32]]]


@dataclass(frozen=True)
class Bounds:
    """How far a candidate may differ. height_px: of disc or cup, in map pixels, for any picture."""

    probability: float
    vcdr_mean: float
    height_px: float
    dice: float
    flip_margin: float
    map_probability: float
    fovea_px: float


FP32 = Bounds(
    probability=1e-5,
    vcdr_mean=0.002,
    height_px=1.0,
    dice=0.9999,
    flip_margin=0.005,
    map_probability=1e-3,
    fovea_px=0.1,
)


@dataclass(frozen=True)
class Report:
    """The largest difference that was seen (dice: the smallest), which is also the bound that would have been needed."""

    pictures: int
    probability: float
    map_probability: float
    vcdr_mean: float
    height_px: float
    dice: float
    fovea_px: float
    flips: int
    nonfinite: int
    unlike: int  # pictures where one side measures what the other cannot

    def passes(self, bounds: Bounds) -> bool:
        """Whether every figure is within its bound."""
        return (
            self.nonfinite == self.flips == self.unlike == 0
            and self.probability <= bounds.probability
            and self.vcdr_mean <= bounds.vcdr_mean
            and self.height_px <= bounds.height_px
            and self.dice >= bounds.dice
            and self.map_probability <= bounds.map_probability
            and self.fovea_px <= bounds.fovea_px
        )

    def lines(self, bounds: Bounds) -> list[str]:
        """The report, a line a figure, the bound beside it."""
        return [
            f"pictures                    {self.pictures}",
            f"max |d probability|         {self.probability:.2e}   bound {bounds.probability:.0e}",
            f"max |d map|                 {self.map_probability:.2e}   bound {bounds.map_probability:.0e}",
            f"mean |d vCDR|               {self.vcdr_mean:.6f}   bound {bounds.vcdr_mean}",
            f"max |d height| (map px)     {self.height_px:.2f}       bound {bounds.height_px}",
            f"min mask Dice               {self.dice:.6f}   bound {bounds.dice}",
            f"max fovea distance (map px) {self.fovea_px:.4f}     bound {bounds.fovea_px}",
            f"decision flips              {self.flips}          outside +-{bounds.flip_margin} of the threshold",
            f"not finite, unlike          {self.nonfinite}, {self.unlike}",
        ]


def compare(
    reference: Run,
    candidate: Run,
    images: NDArray[np.uint8],
    rules: Rules,
    threshold: float,
    bounds: Bounds,
    batch: int,
) -> Report:
    """Run both on the same pictures and measure how they differ.

    Args: images: uint8 (N, S, S, 3); threshold: of the glaucoma probability; batch: pictures at once.
    """
    assert len(images), "the gate compares on pictures"
    first, second = _run(reference, images, batch), _run(candidate, images, batch)
    probability = map_probability = height = fovea = 0.0
    dice, vcdr_differences, flips, nonfinite, unlike = 1.0, [], 0, 0, 0
    for k in range(len(images)):
        a, b = ({name: output[k] for name, output in maps.items()} for maps in (first, second))
        if not all(np.isfinite(output).all() for output in (*a.values(), *b.values())):
            nonfinite += 1
            continue
        map_probability = max(map_probability, *(float(np.abs(a[n] - b[n]).max()) for n in ("disc", "cup", "fovea")))
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
                dice = min(dice, 1.0 if overlap is None else overlap)
    mean = float(np.mean(vcdr_differences)) if vcdr_differences else 0.0
    return Report(len(images), probability, map_probability, mean, height, dice, fovea, flips, nonfinite, unlike)


def _run(run: Run, images: NDArray[np.uint8], batch: int) -> dict[str, NDArray[np.float32]]:
    parts: Sequence[Mapping[str, NDArray[np.float32]]] = [
        run(images[start : start + batch]) for start in range(0, len(images), batch)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _measurable(found: Findings) -> tuple[bool, bool, bool]:
    return found.region is not None, found.vcdr is not None, found.fovea is not None
