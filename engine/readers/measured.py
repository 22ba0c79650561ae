"""What is measured on maps of disc, cup and fovea: how it is told, and how far two models differ in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...postprocess import anatomy, metrics
from ...postprocess.anatomy import Anatomy, Rules
from .difference import Bounds, Difference
from .outputs import Outputs

_MAPS = ("disc", "cup", "fovea")


def described(rules: Rules, threshold: float, without: str = "no rule") -> dict[str, str]:
    """How maps become findings, for people. Args: without: the start of those rules that are not used."""
    told = "\n".join(f"{key} {value}" for key, value in vars(rules).items() if not key.startswith(without))
    return {"rules": told, "glaucoma from": f"{threshold:.4f}"}


def differences(
    pairs: Sequence[tuple[Outputs, Outputs]], bounds: Bounds, rules: Rules, threshold: float
) -> list[Difference]:
    """See `Reader.differences`. Args: rules, threshold: by which the outputs are read."""
    probability = map_value = height = fovea = 0.0
    dices, vcdr_differences, flips, unlike = list[float](), list[float](), 0, 0
    for a, b in pairs:
        map_value = max(map_value, *(float(np.abs(a[n] - b[n]).max()) for n in _MAPS if n in a))
        ours, theirs = anatomy.measure(a, rules), anatomy.measure(b, rules)
        probability = max(probability, abs(ours.glaucoma_network - theirs.glaucoma_network))
        here, there = _measurable(ours), _measurable(theirs)
        if here != there:
            unlike += any(here[name] != there[name] and _clear(a, name, rules, bounds.flip_margin) for name in here)
            continue
        if ours.fovea and theirs.fovea:
            fovea = max(fovea, float(np.hypot(*np.subtract(ours.fovea, theirs.fovea))))
        if ours.vcdr is not None and theirs.vcdr is not None:
            vcdr_differences.append(abs(ours.vcdr - theirs.vcdr))
        if ours.glaucoma is not None and theirs.glaucoma is not None:
            clear = abs(ours.glaucoma - threshold) > bounds.flip_margin
            flips += clear and (ours.glaucoma >= threshold) != (theirs.glaucoma >= threshold)
        if ours.region and theirs.region:
            tall = max(abs(ours.disc_px - theirs.disc_px), abs(ours.cup_px - theirs.cup_px))
            height = max(height, tall / ours.region.zoom)
            for mask in ("disc", "cup"):
                regions = (ours.region, theirs.region)
                whole = [r.draw(getattr(r, mask), np.eye(2, 3), a["disc"].shape) for r in regions]
                overlap = metrics.dice(*whole)
                dices.append(1.0 if overlap is None else overlap)
    nothing = 0.0 if bounds.map_value < 1 else float("nan")  # where maps are not bounded, something must be measured
    vcdr_mean = float(np.mean(vcdr_differences)) if vcdr_differences else nothing
    dice_mean = float(np.mean(dices)) if dices else 1.0
    return [
        Difference("max |d probability|", probability, bounds.probability),
        Difference("max |d map|", map_value, bounds.map_value),
        Difference("mean |d vCDR|", vcdr_mean, bounds.vcdr_mean),
        Difference("max |d height| (map px)", height, bounds.height_px),
        Difference("min mask Dice", min(dices, default=1.0), bounds.dice, at_least=True),
        Difference("mean mask Dice", dice_mean, bounds.dice_mean, at_least=True),
        Difference("max fovea distance (map px)", fovea, bounds.fovea_px),
        Difference("decision flips", flips, 0),
        Difference("measurable on one side only", unlike, 0),
    ]


def _clear(outputs: Outputs, name: str, rules: Rules, margin: float) -> bool:
    """Whether the peaks of the maps that a structure is measured on are farther from what makes it measurable than a decision may
    be to change."""
    least = {"disc": rules.disc_threshold, "cup": rules.cup_threshold, "fovea": rules.fovea_min_peak}
    on = ("disc", "cup") if name == "cup" else (name,)
    return all(abs(float(outputs[own].max()) - least[own]) > margin for own in on)


def _measurable(seen: Anatomy) -> dict[str, bool]:
    return {"disc": seen.region is not None, "cup": seen.vcdr is not None, "fovea": seen.fovea is not None}
