"""Validation of the classifier: per target and set, and over all sets; the rates at a probability of one half, and AUC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ...engine.labelled.sample import Sample
from ...postprocess import metrics
from ..balance import FEW
from .batches import Picture
from .networks import OUTPUTS, Classifier

_BATCH = 16
CHOSEN_BY = ("glaucoma", "referable_dr")  # the two diseases whose mean chooses a checkpoint


@torch.inference_mode()
def predict(network: Classifier, pictures: Sequence[Picture], device: torch.device) -> dict[str, NDArray[np.float64]]:
    """Logits of each target, float64 (N,), computed in fp32."""
    network.eval()
    parts: list[dict[str, NDArray[np.float64]]] = []
    for start in range(0, len(pictures), _BATCH):
        images = np.stack([picture.image for picture in pictures[start : start + _BATCH]])
        logits = network(torch.from_numpy(images).to(device))
        parts.append({name: z.double().cpu().numpy() for name, z in logits.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def known(samples: Sequence[Sample], target: str) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which samples are labelled for a target, bool (N,), and the labels of those."""
    values = [sample.diseased(target) for sample in samples]
    return np.array([v is not None for v in values]), np.array([v for v in values if v is not None], np.int64)


def measure(samples: Sequence[Sample], logits: Mapping[str, NDArray[np.float64]]) -> dict[str, dict[str, float]]:
    """Figures per set and, under `all`, over all: for each output `TARGET_auc` with its 95 % interval `_auc_low`
    and `_auc_high`, and, at one half, `TARGET_f1`,
    `_precision`, `_recall`, `_accuracy` and the counts. What cannot be measured is absent."""
    names = [sample.set_name for sample in samples]
    figures: dict[str, dict[str, float]] = {}
    for group in (*dict.fromkeys(names), "all"):
        row: dict[str, float] = {}
        inside = np.array([group in (name, "all") for name in names])
        members = [sample for sample, take in zip(samples, inside, strict=True) if take]
        for target in OUTPUTS:
            has, truth = known(members, target)
            if truth.size:
                row |= {f"{target}_{k}": v for k, v in _figures(logits[target][inside][has], truth).items()}
        if row:
            figures[group] = row
    return figures


def _figures(logits: NDArray[np.float64], truth: NDArray[np.int64]) -> dict[str, float]:
    counts = metrics.Counts.at(0.0, logits, truth)  # a logit of 0 is one half
    area = metrics.auc(logits, truth)
    rates = {
        "auc": area.value if area else None,
        "auc_low": area.low if area else None,
        "auc_high": area.high if area else None,
        "f1": counts.f1,
        "precision": counts.precision,
        "recall": counts.sensitivity,
        "accuracy": counts.accuracy,
    }
    present = {key: value for key, value in rates.items() if value is not None}
    return present | {key: float(value) for key, value in counts.__dict__.items()}


def score(figures: Mapping[str, Mapping[str, float]], select: str) -> float:
    """One number to choose a checkpoint by: mean over the two diseases.

    f1: over all pictures, as the source has it. auc: the mean over the sets that have both classes, where a set whose
    smaller class has fewer than 20 pictures weighs less; or over all pictures where no set has both. 1 is perfect.
    """
    if select == "f1":
        return float(np.mean([figures["all"].get(f"{disease}_f1", 0.0) for disease in CHOSEN_BY]))
    areas = []
    for disease in CHOSEN_BY:
        rows = [row for name, row in figures.items() if name != "all" and f"{disease}_auc" in row]
        weights = [min(1.0, _smaller_class(row, disease) / FEW) for row in rows]
        values = [row[f"{disease}_auc"] for row in rows]
        areas.append(float(np.average(values, weights=weights)) if rows else figures["all"][f"{disease}_auc"])
    return float(np.mean(areas))


def _smaller_class(row: Mapping[str, float], disease: str) -> float:
    tp, fp, fn, tn = (row[f"{disease}_{count}"] for count in ("tp", "fp", "fn", "tn"))
    return min(tp + fn, fp + tn)
