"""Batches of labelled pictures. Every random draw comes from (seed, step), so step k is the same in a resumed run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...engine.labelled.sample import Sample
from ...engine.pictures import preprocess
from .. import cases
from ..ahead import ahead
from ..augment import Augmentation, affine, colour, move_point
from .config import Config, SetSettings
from .networks import LEARNED, TaskName


@dataclass(frozen=True, eq=False)
class Cached:
    """One picture as the engine prepares it, at the cache's size, with its labels moved along.

    image: uint8 (C, C, 3); mask: uint8 (C, C), 0 background, 1 rim, 2 cup; fovea: (x, y) in the cached picture; scale: of a
    square around the disc, the two sizes between which it is drawn, as shares of the square.
    """

    sample: Sample
    settings: SetSettings
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None
    fovea: tuple[float, float] | None
    scale: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """images: uint8 (N, S, S, 3). targets: disc, cup, fovea (N, S, S), glaucoma, ratio (N,), float32. has: bool (N,) per task."""

    images: Tensor
    targets: dict[str, Tensor]
    has: dict[str, Tensor]

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""

        def moved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}

        return Batch(self.images.to(device, non_blocking=True), moved(self.targets), moved(self.has))


def prepare(sample: Sample, settings: SetSettings, geometry: preprocess.Geometry) -> Cached:
    """Prepare one picture at the cache's size."""
    return cached(cases.prepare(sample, geometry), settings, settings.disc_scale if settings.region == "disc" else None)


def cached(case: cases.Case, settings: SetSettings, scale: tuple[float, float] | None) -> Cached:
    """A prepared picture as it is kept."""
    mask = None
    if case.masks is not None:
        mask = case.masks.disc.astype(np.uint8)
        if case.masks.cup is not None:
            mask += case.masks.cup
    return Cached(case.sample, settings, case.prepared.image, mask, case.fovea, scale)


def teaches(cached: Cached, task: TaskName) -> bool:
    """Whether a picture is labelled for a task that its set is meant to teach."""
    return task in cached.settings.weights and cached.sample.labels(task)


def cache_all(
    samples: Sequence[tuple[Sample, SetSettings]], geometry: preprocess.Geometry, workers: int
) -> list[Cached]:
    """Prepare all pictures, several at a time. A training picture that cannot be read stops here, with its name."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda pair: prepare(pair[0], pair[1], geometry), samples))


def gaussian_map(x: float, y: float, size: int, variance: float) -> NDArray[np.float32]:
    """Saliency target: a 2-D Gaussian with peak 1 at (x, y); variance in px^2. Returns float32 (size, size)."""
    axis = np.arange(size)
    rows, columns = np.exp(-((axis - y) ** 2) / (2 * variance)), np.exp(-((axis - x) ** 2) / (2 * variance))
    return np.outer(rows, columns).astype(np.float32)


class Batches:
    """Draws and builds batches: `of_step(k)` gives one batch per task (`per_task`) or one for all (`shared`)."""

    def __init__(self, pictures: Sequence[Cached], config: Config) -> None:
        self._pictures = pictures
        self._config = config
        self._pools = {task: _pool(pictures, task, config) for task in config.data.batch}

    def of_step(self, step: int) -> dict[str, Batch]:
        """The batches of one step by task; under `shared` all tasks hold the same batch."""
        rng = np.random.default_rng([self._config.seed, step])
        sizes = self._config.data.batch
        tasks = [task for task in LEARNED if task in sizes]
        if self._config.data.sampler == "per_task":
            return {task: self._build(self._draw(task, sizes[task], rng), rng) for task in tasks}
        per_task = -(-max(sizes.values()) // len(tasks))
        shared = self._build([k for task in tasks for k in self._draw(task, per_task, rng)], rng)
        return dict.fromkeys(tasks, shared)

    def stream(self, first: int, last: int) -> Iterator[dict[str, Batch]]:
        """Batches of steps first .. last - 1 in order, built ahead by a few threads."""
        return ahead(self.of_step, first, last, self._config.data.workers)

    def _draw(self, task: TaskName, count: int, rng: np.random.Generator) -> list[int]:
        indices, probabilities = self._pools[task]
        return [int(k) for k in rng.choice(indices, count, p=probabilities)]

    def _build(self, indices: Sequence[int], rng: np.random.Generator) -> Batch:
        made = [augmented(self._pictures[k], self._config, rng) for k in indices]
        return collate(made)


def _pool(pictures: Sequence[Cached], task: TaskName, config: Config) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Indices that teach a task, and their probabilities: set weight / pictures in it (and half per class)."""
    indices, probabilities = [], []
    for settings in config.data.sets:
        if task not in settings.weights:
            continue
        members = [k for k, p in enumerate(pictures) if p.settings is settings and teaches(p, task)]
        groups = [members]
        if task == "glaucoma" and config.data.balance_glaucoma:
            groups = [[k for k in members if pictures[k].sample.glaucoma == label] for label in (0, 1)]
        groups = [group for group in groups if group]
        for group in groups:
            indices += group
            probabilities += [settings.weights[task] / len(groups) / len(group)] * len(group)
    chances = np.array(probabilities) / sum(probabilities)
    if task == "glaucoma" and config.data.balance_glaucoma:  # for a set with one class alone, the others make up
        sick = np.array([pictures[k].sample.glaucoma == 1 for k in indices])
        for part in (sick, ~sick):
            chances[part] *= 0.5 / chances[part].sum()
    return np.array(indices), chances


Example = tuple[NDArray[np.uint8], NDArray[np.uint8] | None, NDArray[np.float32] | None, Cached]


def augmented(cached: Cached, config: Config, rng: np.random.Generator) -> Example:
    """One picture moved and coloured at random, with its masks and its fovea target."""
    size = config.geometry.size
    settings: Augmentation = config.augment
    scale = rng.uniform(*cached.scale) if cached.scale else 1.0
    matrix = affine(settings, cached.image.shape[0], size, rng, scale)
    border = cv2.BORDER_REPLICATE if cached.scale else cv2.BORDER_CONSTANT
    image = cv2.warpAffine(cached.image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    mask = None
    if cached.mask is not None:
        mask = cv2.warpAffine(cached.mask, matrix, (size, size), flags=cv2.INTER_NEAREST)
    fovea = None
    if cached.fovea is not None:
        fovea = gaussian_map(*move_point(matrix, *cached.fovea), size, config.schedule.fovea_variance_px2)
    return (
        colour(np.asarray(image, np.uint8), settings, rng),
        np.asarray(mask) if mask is not None else None,
        fovea,
        cached,
    )


def collate(examples: Sequence[Example]) -> Batch:
    """Stack examples; a missing label becomes zeros with `has` False."""
    size = examples[0][0].shape[0]
    blank = np.zeros((size, size), np.float32)
    targets = {
        "disc": np.stack([blank if m is None else (m > 0).astype(np.float32) for _, m, _, _ in examples]),
        "cup": np.stack([blank if m is None else (m == 2).astype(np.float32) for _, m, _, _ in examples]),
        "fovea": np.stack([blank if f is None else f for _, _, f, _ in examples]),
        "glaucoma": np.array([cached.sample.glaucoma or 0 for *_, cached in examples], np.float32),
        "ratio": np.array([cached.sample.expert_vcdr or 0 for *_, cached in examples], np.float32),
    }
    has: dict[str, Tensor] = {t: torch.tensor([teaches(cached, t) for *_, cached in examples]) for t in LEARNED}
    images = torch.from_numpy(np.stack([image for image, *_ in examples]))
    return Batch(images, {name: torch.from_numpy(target) for name, target in targets.items()}, has)
