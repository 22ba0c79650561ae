"""From probability maps to the masks of the optic disc and the optic cup.

A disc is only 40 to 56 pixels high in a 256-pixel map, so one edge pixel moves the vertical cup-to-disc ratio by about
.02. The maps are smooth, and thresholding them between the pixels removes most of that step: the region around the disc
is enlarged bilinearly before it is cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

ZOOM = 4  # sub-pixels per map pixel; at 4 the rounding of a height (1/4 px) is below what experts can draw
MARGIN = 0.25  # of the coarse disc's height and width, added on each side of the enlarged region


def components(mask: NDArray[np.bool_]) -> tuple[int, NDArray[np.integer]]:
    """How many labels there are and which each pixel has: 0 outside, then one for each 8-connected component.

    Args: mask: bool (H, W). Returns: labels (H, W), of 16 bits where that is surely enough: large arrays that come and go cost
    more than the counting.
    """
    most = (mask.shape[0] + 1) * (mask.shape[1] + 1) // 4
    kind = cv2.CV_16U if most < 2**16 - 1 else cv2.CV_32S
    count, labels = cv2.connectedComponents(np.ascontiguousarray(mask).view(np.uint8), connectivity=8, ltype=kind)
    return count, np.asarray(labels, np.uint16 if kind == cv2.CV_16U else np.int32)


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 8-connected component of a mask (the first in scan order where two are equal).

    Args: mask: bool (H, W). Returns: bool (H, W), all False for an empty mask.
    Source: Pascal et al., Sci Rep 2022 ("keeps the principal component connected in the prediction map").
    """
    count, labels = components(mask)
    if count <= 2:  # background alone, or one component
        return mask.copy()
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


@dataclass(frozen=True)
class DiscRegion:
    """The masks of disc and cup on the enlarged region around the disc.

    disc, cup: bool (h, w), both on one grid; the cup lies inside the disc and may be empty.
    x, y: the map pixel whose top left corner is the region's; zoom: sub-pixels per map pixel.
    """

    disc: NDArray[np.bool_]
    cup: NDArray[np.bool_]
    x: int
    y: int
    zoom: int

    def to_map(self) -> NDArray[np.float64]:
        """Affine (2, 3) from region pixels to map pixels (pixel centres at integers)."""
        k = 1.0 / self.zoom
        return np.array([[k, 0.0, self.x + k / 2 - 0.5], [0.0, k, self.y + k / 2 - 0.5]])

    def draw(
        self, mask: NDArray[np.bool_], to_target: NDArray[np.float64], shape: tuple[int, int]
    ) -> NDArray[np.bool_]:
        """One of the masks on another grid. Args: to_target: affine (2, 3) from map pixels; shape: (H, W) of the result."""
        forward = to_target @ np.vstack([self.to_map(), [0, 0, 1]])
        return cv2.warpAffine(mask.astype(np.uint8), forward, shape[::-1], flags=cv2.INTER_NEAREST).astype(bool)


def disc_region(
    disc: NDArray[np.float32], cup: NDArray[np.float32], disc_threshold: float, cup_threshold: float
) -> DiscRegion | None:
    """Masks of disc and cup: threshold, largest component, cup inside disc.

    Args: disc, cup: float32 (S, S) in [0, 1], probabilities; thresholds: in (0, 1), from the model's contract.
    Returns: the region, whose disc has at least one pixel; None where no pixel of the disc map reaches its threshold, or
    only so few that nothing remains between the pixels.
    """
    coarse = largest_component(disc > disc_threshold)
    rows, columns = np.flatnonzero(coarse.any(axis=1)), np.flatnonzero(coarse.any(axis=0))
    if rows.size == 0:
        return None
    dy = 2 + int(MARGIN * rows.size)
    dx = 2 + int(MARGIN * columns.size)
    top, bottom = max(0, int(rows[0]) - dy), min(disc.shape[0], int(rows[-1]) + 1 + dy)
    left, right = max(0, int(columns[0]) - dx), min(disc.shape[1], int(columns[-1]) + 1 + dx)

    def enlarged(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        part = np.ascontiguousarray(probabilities[top:bottom, left:right])
        return np.asarray(cv2.resize(part, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_LINEAR), np.float32)

    fine_disc = largest_component(enlarged(disc) > disc_threshold)
    if not fine_disc.any():  # specks of a pixel, which the enlargement levels out
        return None
    fine_cup = largest_component((enlarged(cup) > cup_threshold) & fine_disc)
    return DiscRegion(fine_disc, fine_cup, left, top, ZOOM)
