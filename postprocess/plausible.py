"""Whether what was taken for a disc can be one, by its size, its shape and where the fovea lies; and whether too much
of it is burnt out.

The bounds of size, shape and place lie outside what the drawn discs of nine sets and those found on 4,000 photographs of seven
have, but for pictures on which something else was taken for the disc.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from . import measures
from .anatomy import Anatomy

SMALLEST: Final = 0.035  # vertical diameter over the field's side; wide fields show discs of about .05
_LARGEST: Final = 0.35
_WIDTHS: Final = (0.45, 1.35)  # over the height; tilted discs of long eyes are narrow
_FILLS: Final = (0.8, 1.15)  # area over that of the ellipse in its box
_SOLID: Final = 0.85  # area over that of the convex hull
_FAR: Final = 5.0  # disc diameters from the fovea
_NEAR: Final = 0.7
_SURE: Final = 1.4  # disc diameters, from which on a fovea tells how the picture lies
_STEEP: Final = 1.7  # from the disc to the fovea, down over across; no upright photograph of 291 has more
_BURNT: Final = 245  # of the green channel, in which the cup is told from the rim
_TOO_MUCH: Final = 0.05  # of the disc's area; from there on more of the healthy are called


def is_disc(seen: Anatomy, field_px: float) -> bool:
    """Whether it can be a disc. Args: seen: with a region; field_px: side of the field of view, in map pixels."""
    assert seen.region is not None
    share = seen.disc_px / seen.region.zoom / field_px
    return SMALLEST <= share <= _LARGEST and _is_round(seen.region.disc) and not _apart(seen) > _FAR


def is_fovea(seen: Anatomy) -> bool:
    """Whether the fovea, where one was found, lies outside the disc."""
    return not _apart(seen) < _NEAR


def is_sideways(seen: Anatomy) -> bool | None:
    """Whether the picture lies on its side, as the fovea is above or below the disc; None where none was found for sure."""
    across, down = _away(seen)
    return bool(down > _STEEP * across) if np.hypot(across, down) >= _SURE else None


def is_burnt_out(seen: Anatomy, image: NDArray[np.uint8]) -> bool:
    """Whether so much of a disc is burnt out that glaucoma is told less surely. Args: seen: with a region; image: uint8 (S, S, 3)
    RGB, what the maps are of."""
    region = seen.region
    assert region is not None
    height, width = (side // region.zoom for side in region.disc.shape)
    green = np.ascontiguousarray(image[region.y : region.y + height, region.x : region.x + width, 1])
    fine = np.asarray(cv2.resize(green, region.disc.shape[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    return bool(np.mean(fine[region.disc] >= _BURNT) >= _TOO_MUCH)


def _apart(seen: Anatomy) -> float:
    """Of disc and fovea, in disc diameters; NaN where one is not known."""
    return float(np.hypot(*_away(seen)))


def _away(seen: Anatomy) -> tuple[float, float]:
    """The same across and down."""
    if seen.region is None or seen.fovea is None:
        return float("nan"), float("nan")
    x, y = seen.region.to_map() @ (*measures.centre(seen.region.disc), 1.0)
    unit = seen.region.zoom / seen.disc_px
    return abs(x - seen.fovea[0]) * unit, abs(y - seen.fovea[1]) * unit


def _is_round(mask: NDArray[np.bool_]) -> bool:
    height, width = (int(measures.in_lines(mask, axis).max()) for axis in (0, 1))
    area = np.count_nonzero(mask)
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.contourArea(cv2.convexHull(max(found, key=len)))
    return bool(
        _WIDTHS[0] <= width / height <= _WIDTHS[1]
        and _FILLS[0] <= area / (np.pi / 4 * height * width) <= _FILLS[1]
        and area >= _SOLID * hull
    )
