"""How a network learns what is wrong with pictures: `quality`'s linear layer, fitted when a run is calibrated.

Faults are learned from photographs of the training split, as they are and made worse (`degrade`), and from pictures that are no
retina (`foreign`). Each threshold is as high as still sees most pictures that have the fault, and so high that of the validation
split's photographs, as they are, hardly any is refused. How good a picture is as a whole is learned from those photographs of the
training split whose quality someone has judged, and refuses nothing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ...engine.errors import DataError, PhotoError
from ...engine.labelled.sample import Sample, Split
from ...engine.pictures import photo, preprocess
from ...engine.readers.quality import FAULTS, IMAGE_QUALITY, FaultName, ScoreName
from ...postprocess import metrics
from . import config, foreign
from .batches import Picture
from .degrade import DEGRADATIONS
from .job import Pair
from .networks import Classifier
from .quality import brightness

AS_IT_IS: Final = "as it is"
_SPLITS: Final[tuple[Split, Split]] = ("train", "val")
_BATCH: Final = 8
_KEPT: Final = 100  # photographs of which some kinds that are no retina are made
_SIDE: Final = 700  # px of the shorter side of a photograph that is made worse, where it has so many
_STRENGTHS: Final = (-2.0, 1.4)  # logs, over the strength at which decisions are lost
_DOUBTFUL: Final = 0.5  # of that strength: between the two a picture is neither good nor bad
_SHARES: Final = 0.02, 0.98  # between which a judged quality has a logit


@dataclass(frozen=True, eq=False)
class Seen:
    """Pictures as the network takes them.

    features: float32 (N, width + MEASURES). faults: by name, int (N,): 1, 0, or -1 where it is not known. kinds: what each is."""

    features: NDArray[np.float32]
    faults: dict[FaultName, NDArray[np.int64]]
    kinds: list[str]


class _Gathering:
    """Looks at pictures as they come, a few at a time."""

    def __init__(self, network: Classifier, geometry: preprocess.Geometry) -> None:
        self._network, self._geometry = network, geometry
        self._waiting: list[NDArray[np.uint8]] = []
        self._features: list[NDArray[np.float32]] = []
        self._faults: dict[FaultName, list[int]] = {name: [] for name in FAULTS}
        self._kinds: list[str] = []

    def add(self, kind: str, pixels: NDArray[np.uint8], faults: Mapping[FaultName, int]) -> None:
        """A picture, with those of its faults that are known. One without a field of view is left out: it is refused as it is."""
        try:
            prepared = preprocess.prepare(photo.load(pixels), self._geometry)
        except PhotoError:
            return
        self._waiting.append(prepared.image)
        self._kinds.append(kind)
        for name, own in self._faults.items():
            own.append(faults.get(name, -1))
        if len(self._waiting) == _BATCH:
            self._look()

    def _look(self) -> None:
        if self._waiting:
            self._features.append(_features(self._network, self._waiting))
            self._waiting.clear()

    def all(self) -> Seen:
        """What was seen."""
        self._look()
        faults = {name: np.array(own) for name, own in self._faults.items()}
        return Seen(np.concatenate(self._features), faults, self._kinds)


@torch.inference_mode()
def _features(network: Classifier, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """What `quality` judges by. Args: images: uint8 (S, S, 3), prepared."""
    parts = []
    for start in range(0, len(images), _BATCH):
        batch = torch.from_numpy(np.stack(images[start : start + _BATCH]))
        parts.append(torch.cat([network.heat(batch).features, brightness(batch)], dim=1).numpy())
    return np.concatenate(parts)


def gather(
    network: Classifier, samples: Sequence[Sample], geometry: preprocess.Geometry, own: config.Quality, seed: int
) -> Seen:
    """Photographs as they are, each made worse in every way, and pictures that are no retina."""
    rng, gathered = np.random.default_rng(seed), _Gathering(network, geometry)
    fundus: list[NDArray[np.uint8]] = []
    for sample in samples:
        pixels = _reduced(photo.load(sample.image).at_least(_SIDE).pixels)
        if rng.random() < _KEPT / len(samples):
            fundus.append(pixels)
        gathered.add(AS_IT_IS, pixels, dict.fromkeys(FAULTS, 0))
        for name, how in DEGRADATIONS.items():
            strength = how.lost * float(np.exp(rng.uniform(*_STRENGTHS)))
            known = {fault: 0 for fault in FAULTS if fault != how.fault}
            if not _DOUBTFUL < strength / how.lost < 1:
                known[how.fault] = int(strength >= how.lost)
            gathered.add(name, how.spoil(pixels, strength), known)
    for kind, pixels in foreign.pictures(fundus, own.foreign, seed):
        gathered.add(kind, pixels, {"not_a_fundus": 1})
    return gathered.all()


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    scale = min(1.0, _SIDE / min(height, width))
    size = round(scale * width), round(scale * height)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def fit(
    network: Classifier,
    pairs: Sequence[Pair],
    pictures: Sequence[Picture],
    geometry: preprocess.Geometry,
    own: config.Quality,
    seed: int,
) -> dict[str, Any]:
    """Fit the layer, and choose its thresholds.

    Args:
        network: With a trained trunk, which stays as it is.
        pairs: Samples of all splits, with their sets' settings.
        pictures: All photographs of the training and the validation split, prepared.
        geometry: How pictures are prepared.
        own: How much of what.
        seed: Of what is drawn.

    Returns:
        `weights` as `quality.Quality.of` takes them, `thresholds` and `least_px` as the contract does, and a `report` on the
        validation split: by fault, the AUC between photographs as they are and those that have it; of the whole, the rank
        correlation with what was judged.

    Raises:
        DataError: Judgements are to be learned, and no training picture has one, or one is higher than the best; before anything
            is looked at.
    """
    from sklearn.linear_model import LogisticRegression  # which export has no need of
    from sklearn.preprocessing import StandardScaler

    judged = None if own.best is None else _judged(pictures, own.best)
    train, val = (
        gather(network, _drawn(pairs, split, own.pictures, seed), geometry, own, seed + k)
        for k, split in enumerate(_SPLITS)
    )
    scaler = StandardScaler().fit(train.features)
    held = [picture.image for picture in pictures if picture.sample.split == "val"]
    inputs, seen, as_they_are = map(scaler.transform, (train.features, val.features, _features(network, held)))
    good = np.array([kind == AS_IT_IS for kind in val.kinds])
    weights: dict[ScoreName, dict[str, Any]] = {}
    report: dict[ScoreName, dict[str, float | None]] = {}
    thresholds: dict[FaultName, float] = {}
    for name in FAULTS:
        known = train.faults[name] >= 0
        model = LogisticRegression(C=own.regularisation, class_weight="balanced", max_iter=2000)
        model.fit(inputs[known], train.faults[name][known])
        logits, has = model.decision_function(seen), val.faults[name] == 1
        cut = max(
            float(np.quantile(model.decision_function(as_they_are), 1 - own.refused)),
            float(np.quantile(logits[has], 1 - own.seen[name])),
        )
        thresholds[name] = round(float(1 / (1 + np.exp(-cut))), 4)
        weights[name] = _row(model.coef_[0], model.intercept_[0], scaler)
        area = metrics.auc(logits[good | has], has[good | has])
        report[name] = {"auc": None if area is None else area.value, "seen": float(np.mean(logits[has] >= cut))}
    if judged is not None:
        weights[IMAGE_QUALITY], report[IMAGE_QUALITY] = _fit_judged(network, judged, own.regularisation)
    return {"weights": weights, "thresholds": thresholds, "least_px": own.least_px, "report": report}


_Judged = dict[Split, list[tuple[NDArray[np.uint8], float]]]


def _judged(pictures: Sequence[Picture], best: float) -> _Judged:
    """The photographs whose quality someone has judged, with that as a share of the best."""
    found: _Judged = {"train": [], "val": []}
    for picture in pictures:
        sample = picture.sample
        if sample.quality is not None:
            if not 0 <= sample.quality <= best:
                raise DataError(
                    f"{sample.image}: its quality is {sample.quality:g}, not 0 to {best:g}; set quality.best to the best there is"
                )
            found[sample.split].append((picture.image, sample.quality / best))
    if not found["train"]:
        raise DataError(
            "no training picture has a quality; leave out quality.best, or add a set whose index has this column"
        )
    return found


def _fit_judged(
    network: Classifier, judged: _Judged, regularisation: float
) -> tuple[dict[str, Any], dict[str, float | None]]:
    """The row of weights that says how good a picture is, and how well it ranks the validation split's."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    images, quality = zip(*judged["train"], strict=True)
    features, share = _features(network, images), np.clip(quality, *_SHARES)
    scaler = StandardScaler().fit(features)
    model = Ridge(alpha=1 / regularisation).fit(scaler.transform(features), np.log(share / (1 - share)))
    ranked = None
    if judged["val"]:
        images, quality = zip(*judged["val"], strict=True)
        ranked = metrics.rank_correlation(model.predict(scaler.transform(_features(network, images))), quality)
    return _row(model.coef_, model.intercept_, scaler), {"rank_correlation": None if ranked is None else ranked.value}


def _row(coefficients: NDArray[np.float64], intercept: float, scaler: Any) -> dict[str, Any]:
    """A row of the layer, which takes features as they are. scaler: by which those were scaled that it was fitted to."""
    weight = coefficients / scaler.scale_
    return {"weight": [float(f"{w:.5g}") for w in weight], "bias": float(intercept - weight @ scaler.mean_)}


def _drawn(pairs: Sequence[Pair], split: Split, count: int, seed: int) -> list[Sample]:
    """So many samples of each set."""
    by_set: dict[str, list[Sample]] = {}
    for sample, _ in pairs:
        if sample.split == split:
            by_set.setdefault(sample.set_name, []).append(sample)
    chances = random.Random(seed)
    return [one for samples in by_set.values() for one in chances.sample(samples, min(count, len(samples)))]
