"""Drawn lesions as a further target: pictures beside those of the diseases, each with a map of which cell holds what lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...engine.errors import DataError, PhotoError
from ...engine.labelled import dataset
from ...engine.labelled.sample import LESIONS, Sample
from ...engine.pictures import photo, preprocess
from ..augment import affine, colour
from .batches import Batch
from .config import Config, Lesions, SetSettings

_COVERED = 64  # of 255: from here on a pixel that is moved between others is still of the lesion
_STREAM = 1  # of random numbers, beside those of the diseases' pictures


@dataclass(frozen=True, eq=False)
class Drawing:
    """One picture as the engine prepares it, uint8 (C, C, 3), and its lesions, uint8 (C, C, L), 0 or 255."""

    image: NDArray[np.uint8]
    planes: NDArray[np.uint8]


def load(own: Lesions, root: Path, taught: Sequence[tuple[Sample, SetSettings]]) -> list[Sample]:
    """The samples with drawn lesions whose twin is a training picture of `own.twins`: no picture that validates or tests is
    among them under another name. Raises: DataError where there are none."""
    known = {sample.image.stem for sample, its in taught if its.path == own.twins and sample.split == "train"}
    samples = [s for s in dataset.load(root / own.path) if s.lesions and s.split == "train" and s.twin in known]
    if not samples:
        raise DataError(f"{root / own.path}: no training picture with drawn lesions has a known twin in {own.twins}")
    return samples


def prepare_all(samples: Sequence[Sample], geometry: preprocess.Geometry) -> list[Drawing]:
    """Prepare pictures and drawings. Raises: DataError with the picture's name where one cannot be read."""
    return [_prepare(sample, geometry) for sample in samples]


def _prepare(sample: Sample, geometry: preprocess.Geometry) -> Drawing:
    try:
        prepared = preprocess.prepare(photo.load(sample.image), geometry)
    except PhotoError as error:
        raise DataError(f"{sample.image}: {error}") from None
    bits = sample.read_lesions()
    assert bits is not None  # `load` keeps no other
    pixel = max(
        1, round(1 / prepared.placement.scale_x)
    )  # of the square, in the photo: smaller lesions must not vanish
    planes = [
        prepared.placement.square_mask(_widened(bits & np.uint8(bit), pixel) > 0, geometry.size)
        for bit in LESIONS.values()
    ]
    return Drawing(prepared.image, np.stack(planes, axis=2).astype(np.uint8) * 255)


def _widened(mask: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.dilate(mask, np.ones((side, side), np.uint8)), np.uint8)


class Drawings:
    """Adds the pictures of a step to the diseases' batch. grid: stride and offset of the map's cells, px."""

    def __init__(self, drawings: Sequence[Drawing], settings: Config, grid: tuple[float, float]) -> None:
        assert settings.lesions is not None
        self._drawings, self._settings, self._grid = drawings, settings, grid
        self._batch = settings.lesions.batch

    def added(self, batch: Batch, step: int) -> Batch:
        """The diseases' batch with the lesions' behind it."""
        images, maps = self.batch(step)
        return replace(batch, images=torch.cat([batch.images, images]), lesions=maps)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Pictures uint8 (M, S, S, 3) and their lesions float32 (M, L, h, w).

        Draws by (seed, step) of their own, so the diseases' pictures stay what they were.
        """
        rng = np.random.default_rng([self._settings.seed, step, _STREAM])
        chosen = [self._drawings[k] for k in rng.integers(len(self._drawings), size=self._batch)]
        images, maps = zip(*(self._augmented(drawing, rng) for drawing in chosen), strict=True)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(maps))

    def _augmented(self, drawing: Drawing, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        size, ranges = self._settings.geometry.size, self._settings.augment
        matrix = affine(ranges, drawing.image.shape[0], size, rng)
        image, planes = (cv2.warpAffine(own, matrix, (size, size)) for own in (drawing.image, drawing.planes))
        return colour(np.asarray(image, np.uint8), ranges, rng), cells(np.asarray(planes) >= _COVERED, *self._grid)


def cells(planes: NDArray[np.bool_], stride: float, offset: float) -> NDArray[np.float32]:
    """Whether a lesion lies in each cell: bool (S, S, L) -> float32 (L, S / stride, S / stride), 0 or 1.

    Cell k covers `stride` pixels around offset + k * stride; what lies beyond the picture is empty.
    """
    step, start = int(stride), int(np.ceil(offset - (stride - 1) / 2))
    side = planes.shape[0] // step
    shifted = np.pad(planes, ((0, start), (0, start), (0, 0)))[start:, start:][: side * step, : side * step]
    held = shifted.reshape(side, step, side, step, -1).any(axis=(1, 3))
    return np.ascontiguousarray(np.transpose(held, (2, 0, 1)), np.float32)


def loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, mean over cells and lesions. Args: (M, L, h, w). Returns (M,)."""
    values = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return values.mean(dim=(1, 2, 3))
