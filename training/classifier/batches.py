"""Pictures and batches for the classifier. Every random draw comes from (seed, step), so step k is the same in a resumed run."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...engine.errors import Code, DataError, PhotoError
from ...engine.labelled.sample import Sample
from ...engine.pictures import photo, preprocess
from ..ahead import ahead
from ..augment import Augmentation, affine, colour
from .config import Config, SetSettings, Taught

_log = logging.getLogger("funduscope")


def unhealthy(sample: Sample) -> bool:
    """Whether a disease is known in the picture."""
    return sample.glaucoma == 1 or bool(sample.dr_grade)


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture as the engine prepares it, uint8 (C, C, 3), with its labels."""

    sample: Sample
    settings: SetSettings
    image: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Batch:
    """images: uint8 (N, S, S, 3). targets: float32 (N, K), 0 or 1. has: bool (N, K), whether the label is known.

    lesions: float32 (M, L, h, w), 0 or 1, where lesions were drawn on the M further pictures at the end of `images`.
    """

    images: Tensor
    targets: Tensor
    has: Tensor
    lesions: Tensor | None = None


def prepare_all(
    samples: Sequence[tuple[Sample, SetSettings]], geometry: preprocess.Geometry, workers: int
) -> list[Picture]:
    """Prepare pictures, several at a time. One without a field of view is left out, as the source filters its pictures; how
    many those are is logged for each set.

    Raises: DataError, with the picture's name, where it cannot be read at all.
    """

    def one(pair: tuple[Sample, SetSettings]) -> Picture | None:
        sample, set_settings = pair
        try:
            return Picture(sample, set_settings, preprocess.prepare(photo.load(sample.image), geometry).image)
        except PhotoError as error:
            if error.code == Code.NO_FIELD_OF_VIEW:
                return None
            raise DataError(f"{sample.image}: {error}") from None

    with ThreadPoolExecutor(workers) as pool:
        prepared = [picture for picture in pool.map(one, samples) if picture is not None]
    asked = Counter((sample.set_name, sample.split) for sample, _ in samples)
    left_out = asked - Counter((picture.sample.set_name, picture.sample.split) for picture in prepared)
    for (name, split), count in left_out.items():
        _log.warning("%s, %s: %d of %d pictures left out: no field of view", name, split, count, asked[name, split])
    return prepared


class Batches:
    """Draws and builds batches: `of_step(k)`."""

    def __init__(self, pictures: Sequence[Picture], settings: Config, targets: Sequence[str]) -> None:
        self._pictures, self._settings, self._targets = pictures, settings, targets
        balanced = settings.data.sampling == "balanced"
        self._chances = (
            _balanced(pictures, settings.data.shares) if balanced else np.full(len(pictures), 1 / len(pictures))
        )

    def of_step(self, step: int) -> Batch:
        """The batch of one step."""
        rng = np.random.default_rng([self._settings.seed, step])
        drawn = rng.choice(len(self._pictures), self._settings.data.batch, p=self._chances)
        chosen = [self._pictures[k] for k in drawn]
        images = torch.from_numpy(np.stack([self._image(picture, rng) for picture in chosen]))
        return Batch(images, *labels([picture.sample for picture in chosen], self._targets))

    def stream(self, first: int, last: int) -> Iterator[Batch]:
        """Batches of steps first .. last - 1 in order, built ahead by a few threads."""
        return ahead(self.of_step, first, last, self._settings.data.workers)

    def _image(self, picture: Picture, rng: np.random.Generator) -> NDArray[np.uint8]:
        size = self._settings.geometry.size
        if self._settings.data.augment == "both" or unhealthy(picture.sample):
            return augmented(picture.image, self._settings.augment, size, rng)
        if picture.image.shape[0] == size:
            return picture.image
        return np.asarray(cv2.resize(picture.image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def augmented(
    image: NDArray[np.uint8], settings: Augmentation, size: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """One picture moved and coloured at random. A horizontal flip and half a turn make the source's vertical flip."""
    matrix = affine(settings, image.shape[0], size, rng)
    moved = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return colour(np.asarray(moved, np.uint8), settings, rng)


def labels(samples: Sequence[Sample], targets: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Targets float32 (N, K) and which of them are known, bool (N, K); an unknown one is 0."""
    known = [[sample.diseased(target) for target in targets] for sample in samples]
    has = torch.tensor([[value is not None for value in row] for row in known])
    return torch.tensor([[float(value or 0) for value in row] for row in known]), has


def _balanced(pictures: Sequence[Picture], shares: Mapping[Taught, float]) -> NDArray[np.float64]:
    """Chance of each picture: the diseases by their shares (alike where there are none), sets by their weight, pictures with
    and without the disease alike.

    A set in which one class is missing draws the other for all of its share.
    """
    chances = np.zeros(len(pictures))
    taught: tuple[tuple[Taught, str], ...] = (("glaucoma", "glaucoma"), ("dr", "referable_dr"))
    for disease, target in taught:
        groups: dict[tuple[str, int], list[int]] = defaultdict(list)
        weights: dict[str, float] = {}
        for k, picture in enumerate(pictures):
            known, weight = picture.sample.diseased(target), picture.settings.weights.get(disease)
            if known is not None and weight is not None:
                groups[picture.settings.path, known].append(k)
                weights[picture.settings.path] = weight
        for (path, _), members in groups.items():
            classes = sum(its_path == path for its_path, _ in groups)
            share = shares.get(disease, 1.0) * weights[path] / sum(weights.values())
            chances[members] += share / classes / len(members)
    return np.asarray(chances / chances.sum())
