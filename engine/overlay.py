"""The picture that a person looks at: the photo with the contours of disc and cup, and the fovea."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .photo import Photo
from .results import Screening

DISC, CUP, FOVEA = (64, 220, 96), (70, 170, 255), (255, 225, 60)  # RGB; distinct for colour-blind readers too
_SIDE = 1024  # the longer side of the drawing
_SHIFT = 4  # fractional bits of the drawn coordinates


def draw(photo: Photo, screening: Screening, side: int = _SIDE) -> NDArray[np.uint8]:
    """Draw a screening on its photo. Returns: uint8 (h, w, 3) RGB, the longer side `side` px at most."""
    height, width = photo.pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = cv2.resize(photo.pixels, size, interpolation=cv2.INTER_AREA)
    thick = max(1, round(max(size) / 500))

    def fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.asarray(np.rint(((points + 0.5) * scale - 0.5) * (1 << _SHIFT)), np.int32)

    for structure, colour in (("disc", DISC), ("cup", CUP)):
        contour = screening.contour(structure)  # type: ignore[arg-type]
        if len(contour):
            cv2.polylines(picture, [fixed(contour)[:, None]], True, colour, thick, cv2.LINE_AA, _SHIFT)
    if screening.fovea:
        x, y = fixed(np.array(screening.fovea)).tolist()
        arm = round(max(size) / 60) << _SHIFT
        for dx, dy in ((arm, 0), (0, arm)):
            cv2.line(picture, (x - dx, y - dy), (x + dx, y + dy), FOVEA, thick, cv2.LINE_AA, _SHIFT)
        cv2.circle(picture, (x, y), arm, FOVEA, thick, cv2.LINE_AA, _SHIFT)
    return np.asarray(picture, np.uint8)
