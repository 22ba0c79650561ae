"""From a `Photo` to the network's input: crop to the field of view, pad to a square, resize. Training uses this very code.

Pixel arithmetic (scaling, mean, layout) is not here: it is inside the model's graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import Code, PhotoError
from .photo import Photo

_LINES = 256  # the field of view is looked for on about so many rows and columns, whatever the size
_LINE_SHARE = 0.02  # of a row or column must be bright, so that a date or a speck in the border does not count
_MIN_SHARE = 0.1  # of the picture's width and height must remain


Light = Literal["brightest", "grey"]


@dataclass(frozen=True)
class Geometry:
    """How a photo becomes a square; part of the model's contract. size: pixels; fov_threshold: 0 to 255, on fov_light."""

    size: int
    fov_threshold: int
    fov_light: Light


@dataclass(frozen=True)
class Placement:
    """Where the square lies in the photo: x_square = scale_x * x_photo + offset_x (pixel centres at integers), y alike."""

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    def to_photo(self, x: float, y: float) -> tuple[float, float]:
        """From the square's pixels to the photo's."""
        return (x - self.offset_x) / self.scale_x, (y - self.offset_y) / self.scale_y

    def to_square(self, x: float, y: float) -> tuple[float, float]:
        """From the photo's pixels to the square's."""
        return self.scale_x * x + self.offset_x, self.scale_y * y + self.offset_y

    def matrix(self) -> NDArray[np.float64]:
        """The affine matrix (2, 3) of `to_photo`."""
        return np.array(
            [[1 / self.scale_x, 0, -self.offset_x / self.scale_x], [0, 1 / self.scale_y, -self.offset_y / self.scale_y]]
        )

    def square_mask(self, mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
        """A mask drawn on the photo, bool (H, W), on the square (nearest neighbour)."""
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(mask.astype(np.uint8), self.matrix(), (size, size), flags=flags).astype(bool)


@dataclass(frozen=True, eq=False)
class Prepared:
    """image: uint8 (S, S, 3) RGB; placement: the way back to the photo."""

    image: NDArray[np.uint8]
    placement: Placement


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma as 16-bit fixed point, to the last digit as the classifier's graph computes it. Args: uint8 (..., 3) RGB."""
    return np.asarray((pixels @ np.array([19595, 38470, 7471], np.uint32) + 32768) >> 16, np.uint8)


def field_of_view(pixels: NDArray[np.uint8], threshold: int, light: Light) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) around the lit part of a photo, in pixels, right and bottom exclusive.

    Args: pixels: uint8 (H, W, 3); threshold: a pixel is lit where its `light` (brightest channel, or grey) is above it.
    Raises: PhotoError NO_FIELD_OF_VIEW where next to nothing is lit.
    """
    height, width = pixels.shape[:2]
    stride = max(1, min(height, width) // _LINES)
    seen = pixels[::stride, ::stride]
    lit = (seen.max(axis=2) if light == "brightest" else grey(seen)) > threshold
    rows = np.flatnonzero(np.count_nonzero(lit, axis=1) > _LINE_SHARE * lit.shape[1])
    columns = np.flatnonzero(np.count_nonzero(lit, axis=0) > _LINE_SHARE * lit.shape[0])
    if rows.size < _MIN_SHARE * lit.shape[0] or columns.size < _MIN_SHARE * lit.shape[1]:
        raise PhotoError(Code.NO_FIELD_OF_VIEW, "next to nothing in the picture is bright enough to be a retina")
    top, bottom = int(rows[0]) * stride, min(height, int(rows[-1]) * stride + stride)
    left, right = int(columns[0]) * stride, min(width, int(columns[-1]) * stride + stride)
    return left, top, right, bottom


def prepare(photo: Photo, geometry: Geometry) -> Prepared:
    """Crop to the field of view, resize its longer side to the square's, centre it on black."""
    left, top, right, bottom = field_of_view(photo.pixels, geometry.fov_threshold, geometry.fov_light)
    size = geometry.size
    longer = max(right - left, bottom - top)
    width = max(1, round((right - left) * size / longer))
    height = max(1, round((bottom - top) * size / longer))
    shrink = longer >= size
    part = cv2.resize(
        photo.pixels[top:bottom, left:right],
        (width, height),
        interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR,
    )
    x, y = (size - width) // 2, (size - height) // 2
    image = np.zeros((size, size, 3), np.uint8)
    image[y : y + height, x : x + width] = part
    scale_x, scale_y = width / (right - left), height / (bottom - top)
    return Prepared(
        image,
        Placement(scale_x, scale_y, (0.5 - left) * scale_x - 0.5 + x, (0.5 - top) * scale_y - 0.5 + y),
    )
