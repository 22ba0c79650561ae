"""Measures on masks and saliency maps. What cannot be measured is None, never NaN and never 0."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .masks import components

CentreMode = Literal["robust", "paper"]


def vertical_diameter(mask: NDArray[np.bool_]) -> int:
    """Vertical diameter in pixels: the largest count of mask pixels in any column.

    Args: mask: bool (H, W). Source: the REFUGE challenge's official evaluation code.
    """
    return int(in_lines(mask, 0).max(initial=0))


def in_lines(mask: NDArray[np.bool_], axis: Literal[0, 1]) -> NDArray[np.int32]:
    """How many of a mask's pixels are in each column (axis 0), or in each row (1). Args: mask: bool (H, W)."""
    if not mask.size:
        return np.zeros(mask.shape[1 - axis], np.int32)
    pixels = np.ascontiguousarray(mask).view(np.uint8)  # NumPy counts along an axis several times as slowly
    return np.asarray(cv2.reduce(pixels, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S), np.int32).ravel()


def bounding_box_height(mask: NDArray[np.bool_]) -> int:
    """Height in pixels of the mask's bounding box; never less than `vertical_diameter`. Args: mask: bool (H, W)."""
    rows = np.flatnonzero(in_lines(mask, 1))
    return int(rows[-1] - rows[0] + 1) if rows.size else 0


def centre(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Centre (x, y) of a mask in pixels, pixel centres at integers. Args: mask: bool (H, W), not empty."""
    in_columns, in_rows = in_lines(mask, 0), in_lines(mask, 1)
    area = in_rows.sum()
    return float(in_columns @ np.arange(in_columns.size) / area), float(in_rows @ np.arange(in_rows.size) / area)


def vcdr(disc: NDArray[np.bool_], cup: NDArray[np.bool_]) -> float | None:
    """Vertical cup-to-disc ratio: cup diameter / disc diameter (`vertical_diameter`), in [0, 1] for a cup inside its disc.

    Args: disc, cup: bool (H, W). Returns: None (not measurable) where either mask is empty.
    REFUGE's code adds 1e-7 to the denominator, which changes the ratio by less than 1e-8 for any real disc.
    """
    return ratio(vertical_diameter(cup), vertical_diameter(disc))


def ratio(cup_px: int, disc_px: int) -> float | None:
    """The vertical cup-to-disc ratio of two vertical diameters; None where either is 0."""
    return cup_px / disc_px if disc_px and cup_px else None


def centre_of_mass(saliency: NDArray[np.float32], mode: CentreMode) -> tuple[float, float] | None:
    """Centre (x, y) of a saliency map in map pixels, pixel centres at integers.

    paper: over the whole map, as Pascal et al. 2022 have it; a background of .001 moves it by about 12 of 256 px.
    robust: over what rises above half the map's peak, in the component that holds the peak.
    Args: saliency: float32 (S, S), >= 0. Returns: None where the map is zero everywhere.
    """
    left = top = 0
    weights = saliency
    if mode == "robust":
        peak = saliency.max()
        above = saliency > peak / 2
        if not above.any():
            return None
        own = _component_at(above, int(saliency.argmax()))
        left, top, width, height = cv2.boundingRect(own.view(np.uint8))
        part = np.s_[top : top + height, left : left + width]
        weights = np.where(own[part], saliency[part] - peak / 2, np.float32(0))
    total = float(weights.sum(dtype=np.float64))
    if total <= 0:
        return None
    xs, ys = weights.sum(axis=0, dtype=np.float64), weights.sum(axis=1, dtype=np.float64)
    return left + float(xs @ np.arange(xs.size)) / total, top + float(ys @ np.arange(ys.size)) / total


def eye_of(
    disc: tuple[float, float], fovea: tuple[float, float], disc_diameter_px: float
) -> Literal["right", "left"] | None:
    """Which eye a photograph shows: the disc lies on the nose's side of the fovea, right of it in a right eye.

    Args: disc, fovea: centres (x, y) in pixels of the picture as displayed. Returns: None where they are nearer than a
    disc's diameter across, or more above than beside one another: then one of the two was not found where it is.
    """
    across, down = disc[0] - fovea[0], disc[1] - fovea[1]
    if abs(across) < max(disc_diameter_px, abs(down)):
        return None
    return "right" if across > 0 else "left"


def _component_at(mask: NDArray[np.bool_], flat_index: int) -> NDArray[np.bool_]:
    """The 8-connected component of `mask` that holds the pixel `flat_index`."""
    _, labels = components(mask)
    return np.asarray(labels == labels.flat[flat_index])


def of_two_looks(first: float | None, second: float | None) -> float | None:
    """The mean of two looks' vCDR; the one there is where the other could not be measured."""
    seen = [own for own in (first, second) if own is not None]
    return sum(seen) / len(seen) if seen else None
