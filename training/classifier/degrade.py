"""Photographs made worse, as cameras and hands do it, each by a strength: what quality is learned and measured on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...engine.readers.quality import FaultName

Pixels = NDArray[np.uint8]


def defocused(pixels: Pixels, strength: float) -> Pixels:
    """Gaussian blur; strength: its sigma, in 1/1000 of the longer side."""
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), max(strength * max(pixels.shape) / 1000, 1e-3)), np.uint8)


def shaken(pixels: Pixels, strength: float) -> Pixels:
    """Blur along a line at 30 degrees; strength: its length, in 1/250 of the longer side."""
    length = max(1, round(strength * max(pixels.shape) / 250)) | 1
    line = np.zeros((length, length), np.uint8)
    reach, middle = (length - 1) / 2, (length - 1) // 2
    first, last = ((round(middle + s * reach * 0.866), round(middle + s * reach * 0.5)) for s in (-1, 1))
    cv2.line(line, first, last, 1)
    return np.asarray(cv2.filter2D(pixels, -1, line.astype(np.float32) / np.count_nonzero(line)), np.uint8)


def thumbnail(pixels: Pixels, strength: float) -> Pixels:
    """Made smaller and large again; strength: 1 is a side of 500 px, 2 of 250, 4 of 125."""
    height, width = pixels.shape[:2]
    factor = min(1.0, 500 / (strength * max(height, width)))
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    shrunk = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def underexposed(pixels: Pixels, strength: float) -> Pixels:
    """Less light, and the noise of it; strength: in halvings."""
    noise = np.random.default_rng(int(pixels.sum()) % 2**32).normal(0, 1.5, pixels.shape)
    return _bytes((pixels * 2.0**-strength + noise) * (pixels.max(axis=2, keepdims=True) > LIT))


def overexposed(pixels: Pixels, strength: float) -> Pixels:
    """More light than the sensor holds; strength: in doublings."""
    return _bytes(pixels * 2.0**strength)


def hazy(pixels: Pixels, strength: float) -> Pixels:
    """A veil, as of a cataract or a dirty lens: contrast is lost, brightness stays; strength 4 leaves 1/16 of it."""
    lit = pixels.max(axis=2) > LIT
    mean = cv2.mean(pixels, lit.astype(np.uint8))[:3]
    kept = 2.0**-strength
    soft = cv2.GaussianBlur(pixels, (0, 0), 1 + strength * max(pixels.shape) / 1000)
    return np.where(lit[..., None], _bytes(soft * kept + (1 - kept) * np.array(mean)), pixels)


class Degradation(NamedTuple):
    """fault: what it is to the reader of the picture. lost: the strength from which on decisions are lost, see `quality`."""

    fault: FaultName
    lost: float
    spoil: Callable[[Pixels, float], Pixels]


DEGRADATIONS: Final = {
    "defocused": Degradation("blurred", 6.0, defocused),
    "shaken": Degradation("blurred", 6.0, shaken),
    "thumbnail": Degradation("blurred", 4.5, thumbnail),
    "hazy": Degradation("blurred", 1.3, hazy),
    "underexposed": Degradation("dark", 1.3, underexposed),
    "overexposed": Degradation("overexposed", 0.7, overexposed),
}
LIT: Final = 24  # the brightest channel of what is inside the field of view


def _bytes(values: NDArray[np.floating]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
