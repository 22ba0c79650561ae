"""Calibration of a classifier on the validation split: temperatures, operating points, the band of doubt, heat's scale.

Each set and class weighs the same (less where it has few pictures), so that no set's share of a disease becomes the
model's. The intervals beside the points count pictures as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ...engine.errors import SettingsError
from ...engine.labelled.sample import Sample
from ...engine.readers.classifier import PointName
from ...postprocess import metrics, scores
from ..balance import equal_weights
from ..provenance import provenance
from ..settings import Set
from . import batches, faults, job, lesions, validation
from .config import Config, Reading
from .networks import OUTPUTS, Classifier
from .pooled import Pooled

Logits = NDArray[np.float64]
_FULL_HEAT = 0.5  # share of the pictures with the disease whose maps' peaks reach it
_WIDEST_BAND = 1.0  # logits: where classes lie far apart, the nearest pictures are not in doubt
_CPU = torch.device("cpu")


def calibrate(settings: Config, state: Mapping[str, Any], root: Path, fit_on: str) -> dict[str, Any]:
    """Calibrate a checkpoint on the data sets below `root`: see `system.System`.

    Raises:
        SettingsError: It is to be fitted on drawn masks, which a classifier does not measure.
        DataError: A target lacks one of its classes.
    """
    if fit_on != "predicted":
        raise SettingsError(f"fit_on {fit_on}: a classifier measures no masks; leave it out")
    network = job.from_checkpoint(settings, state["network"]).eval()
    pairs = job.load_samples(settings, root)
    geometry = settings.preparation(settings.geometry.size).build()
    seen = [pair for pair in pairs if pair[0].split != "test"]
    pictures = batches.prepare_all(seen, geometry, settings.data.workers)
    held = [picture for picture in pictures if picture.sample.split == "val"]
    samples = [picture.sample for picture in held]
    job.check_classes(samples, "val")
    logits = validation.predict(network, held, _CPU)
    peaks = map_peaks(network, held)
    decisions, report = {}, {}
    for k, target in enumerate(OUTPUTS):
        has, truth = validation.known(samples, target)
        groups = [(s.set_name, y) for s in samples if (y := s.diseased(target)) is not None]
        own_peaks = None if peaks is None else peaks[has, k]
        decisions[target], report[target] = decision(
            logits[target][has], truth, equal_weights(groups), own_peaks, settings.reading
        )
    thresholds = {
        target: scores.logit(decision_part["points"]["balanced"]["threshold"]) * decision_part["temperature"]
        for target, decision_part in decisions.items()
    }
    quality = (
        None
        if settings.quality is None
        else faults.fit(network, pairs, pictures, geometry, settings.quality, settings.seed)
    )
    return {
        "decisions": decisions,
        "point": settings.reading.point,
        "disagreement": settings.reading.disagreement,
        "report": report,
        "quality": quality,
        "training": provenance(
            describe(settings),
            f"{settings.loss.name}, {settings.data.sampling} sampling, {settings.data.augment} augmented",
            state,
            [*((picture.sample, picture.settings) for picture in pictures), *_drawn(settings, root, pairs)],
            _figures(validation.measure(samples, {t: logits[t] - cut for t, cut in thresholds.items()})),
        ),
    }


def _drawn(settings: Config, root: Path, pairs: Sequence[job.Pair]) -> list[tuple[Sample, Set]]:
    """Pictures that taught lesions, for the contract, which states all terms."""
    own = settings.lesions
    return [] if own is None else [(sample, own) for sample in lesions.load(own, root, pairs)]


def describe(settings: Config) -> str:
    """The network in words."""
    network = settings.network
    pooling = f", dense layers of {network.hidden}" if network.hidden else ", global average pooling"
    return f"{network.architecture}{pooling}, {network.input} {settings.geometry.size} px"


def decision(
    logits: Logits, truth: NDArray[np.int64], weights: NDArray[np.float64], peaks: Logits | None, reading: Reading
) -> tuple[dict[str, Any], dict[str, float]]:
    """How one output is to be read, and how well its probabilities are calibrated before and after.

    Args: logits, truth, weights: (N,), of the labelled pictures; peaks: of the heat map, in logits (N,).
    """
    temperature = metrics.best_temperature(logits, truth, weights)
    z = logits / temperature
    cuts = metrics.operating_cuts(z, truth, reading.sensitivity, reading.specificity, weights)
    scale = None
    if peaks is not None:
        scale = max(0.1, metrics.threshold_of_sensitivity(peaks / temperature, truth, _FULL_HEAT, weights))
    result = {
        "temperature": temperature,
        "points": {
            name: _point(cut, z, truth, reading.uncertain_share)
            for name, cut in zip(get_args(PointName), cuts, strict=True)
        },
        "map_scale": scale,
    }
    report = {
        "calibration_error_before": metrics.calibration_error(_sigmoid(logits), truth, weights),
        "calibration_error": metrics.calibration_error(_sigmoid(z), truth, weights),
    }
    return result, report


@torch.inference_mode()
def map_peaks(network: Classifier, pictures: Sequence[batches.Picture]) -> Logits | None:
    """The highest value of each heat map, in logits: float64 (N, K); None for a network without maps."""
    if not isinstance(network.network, Pooled):
        return None
    maps = (network.heat(torch.from_numpy(picture.image[None])).maps for picture in pictures)
    return np.concatenate([of_picture.amax(dim=(2, 3)).double().numpy() for of_picture in maps])


def _point(cut: float, z: Logits, truth: NDArray[np.int64], uncertain_share: float) -> dict[str, Any]:
    counts = metrics.Counts.at(cut, z, truth)
    rates = {
        "sensitivity": metrics.wilson(counts.tp, counts.tp + counts.fn),
        "specificity": metrics.wilson(counts.tn, counts.tn + counts.fp),
    }
    band = min(_WIDEST_BAND, float(np.quantile(np.abs(z - cut), uncertain_share)))
    reading = {"threshold": float(_sigmoid(np.array(cut))), "uncertain_logit": band}
    return reading | {name: rate.__dict__ for name, rate in rates.items()}


def _sigmoid(z: Logits) -> Logits:
    return np.asarray(np.exp(-np.logaddexp(0, -z)))


def _figures(measured: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Of the figures at the balanced thresholds, those that a contract has room for."""
    kept = {f"{target}_{key}" for target in OUTPUTS for key in ("auc", "recall", "precision", "f1")}
    return {name: {k: v for k, v in row.items() if k in kept} for name, row in measured.items()}
