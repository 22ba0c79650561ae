"""Validation by the very preparation and post-processing that ship: per set, never pooled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ...engine.labelled.sample import Masks
from ...postprocess import anatomy, measures, metrics
from ..cases import Case
from ..system import Deployed

Maps = Mapping[str, NDArray[np.float32]]
_BATCH = 8


@torch.inference_mode()
def predict(network: Deployed, images: Sequence[NDArray[np.uint8]], device: torch.device) -> Iterator[Maps]:
    """The outputs for each picture, in fp32."""
    network.eval()
    for start in range(0, len(images), _BATCH):
        batch = torch.from_numpy(np.stack(images[start : start + _BATCH])).to(device)
        outputs = [output.float().cpu().numpy() for output in network(batch)]
        for k in range(batch.shape[0]):
            yield {name: output[k] for name, output in zip(network.outputs, outputs, strict=True)}


def measure(
    cases: Sequence[Case], maps: Sequence[Maps], rules: anatomy.Rules, before: Sequence[float | None] | None = None
) -> dict[str, dict[str, float]]:
    """Figures per set: disc_dice, cup_dice, vcdr_error, fovea_error (share of the picture's width), auc of the network.

    vcdr_error is against what is drawn, or where nothing is, against experts' ratio. A disc or cup that was not found counts
    as Dice 0 and vCDR 0; a fovea that was not found as a tenth of the width. Where each set is all healthy or all sick, the AUC
    is over `all`. Args: before: the vCDR of an earlier look at each, of which the mean is taken.
    """
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    scores: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for case, outputs, first in zip(cases, maps, before or [None] * len(cases), strict=True):
        found = anatomy.measure(outputs, rules)
        vcdr = measures.of_two_looks(first, found.vcdr) or 0.0
        row = figures[case.sample.set_name]
        if case.masks is not None:
            disc, cup = _whole(found, case.masks.disc.shape)
            row["disc_dice"].append(metrics.dice(disc, case.masks.disc) or 0.0)
            if case.masks.cup is not None:
                row["cup_dice"].append(metrics.dice(cup, case.masks.cup) or 0.0)
                row["vcdr_error"].append(abs(vcdr - (true_vcdr(case.masks) or 0.0)))
        elif case.sample.expert_vcdr is not None:
            row["vcdr_error"].append(abs(vcdr - case.sample.expert_vcdr))
        if case.fovea is not None:
            distance = np.hypot(*np.subtract(found.fovea, case.fovea)) / case.width if found.fovea else 0.1
            row["fovea_error"].append(float(distance))
        if case.sample.glaucoma is not None:
            scores[case.sample.set_name].append((found.glaucoma_network, case.sample.glaucoma))
    result = {name: {key: float(np.mean(v)) for key, v in row.items()} for name, row in figures.items()}
    for name, pairs in scores.items():
        if (area := metrics.auc(*zip(*pairs, strict=True))) is not None:
            result.setdefault(name, {})["auc"] = area.value
    if scores and not any("auc" in row for row in result.values()):  # no set has both classes
        area = metrics.auc(*zip(*(pair for pairs in scores.values() for pair in pairs), strict=True))
        result |= {} if area is None else {"all": {"auc": area.value}}
    return result


def true_vcdr(masks: Masks) -> float | None:
    """The vCDR of drawn masks; None without a cup."""
    return measures.vcdr(masks.disc, masks.cup) if masks.cup is not None else None


_FIGURE = {"disc": "disc_dice", "cup": "cup_dice", "fovea": "fovea_error", "glaucoma": "auc"}


def score(figures: Mapping[str, Mapping[str, float]], tasks: Iterable[str]) -> float:
    """One number to choose a checkpoint by: mean over the trained tasks of the mean over sets; 1 is perfect."""
    per_task = []
    for key in (_FIGURE[task] for task in tasks if task in _FIGURE):
        values = [row[key] for row in figures.values() if key in row]
        if key == "fovea_error":
            values = [max(0.0, 1 - 10 * value) for value in values]
        if values:
            per_task.append(float(np.mean(values)))
    return float(np.mean(per_task))


def _whole(found: anatomy.Anatomy, shape: tuple[int, int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The found masks on the whole square."""
    if found.region is None:
        empty = np.zeros(shape, bool)
        return empty, empty
    same = np.eye(2, 3)
    return found.region.draw(found.region.disc, same, shape), found.region.draw(found.region.cup, same, shape)
