"""Whether the field of view is as round as cameras have it: a picture whose sides were scaled unlike is not.

An ellipse is fitted to the edge of what is lit, where that is neither the picture's own edge nor a straight cut.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import Code, PhotoError
from .preprocess import dark

TOLD: Final = 0.9  # the ratio of the axes, shorter to longer, from which on it is round; cameras reach .96
REFUSED: Final = 0.7
_SIDE = 160  # px at which it is looked at
_LIT = 40  # the brightest channel of the retina, 0 to 255
_NEAR = 0.01  # of half the side: nearer to the ellipse, an edge lies on it
_SHARE, _SECTORS, _OF = 0.6, 20, 36  # what must lie on it: of the edge, and of the directions seen from the middle
_LEAST = 30  # points


def warned(image: NDArray[np.uint8]) -> tuple[Code, ...]:
    """The warning of a field of view that is not quite round.

    Args:
        image: A prepared square, uint8 (S, S, 3).

    Raises:
        PhotoError: NOT_ROUND where it is far from it.
    """
    found = ratio(image)
    if found is None or min(found, 1 / found) >= TOLD:
        return ()
    if min(found, 1 / found) < REFUSED:
        reason = (
            f"the field of view is {found:.2f} times as wide as high: it was squeezed; bring it as the camera has it"
        )
        raise PhotoError(Code.NOT_ROUND, reason)
    return (Code.NOT_ROUND,)


def ratio(image: NDArray[np.uint8]) -> float | None:
    """The field's width over its height; None where it cannot be told, as of a crop or a field cut on all sides.

    Args:
        image: A prepared square, uint8 (S, S, 3).
    """
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST)
    lit = cv2.medianBlur(1 - dark(np.asarray(small, np.uint8), _LIT) // 255, 3)
    points = _edge(np.asarray(lit, np.uint8))[::2]
    x, y = points.astype(np.float64).T * (2 / _SIDE) - 1
    terms = np.stack([x * x, y * y, x, y], axis=1)
    on = np.ones(len(points), bool)
    for _ in range(8):  # what lies off the ellipse, such as a straight cut, drops out step by step
        if np.count_nonzero(on) < _LEAST:
            return None
        fitted = np.linalg.solve(terms[on].T @ terms[on] + 1e-12 * np.eye(4), terms[on].sum(axis=0))
        a, b, c, d = fitted
        if a <= 0 or b <= 0:
            return None
        off = np.abs(terms @ fitted - 1) / np.maximum(np.hypot(2 * a * x + c, 2 * b * y + d), 1e-6)
        before, on = on, off < max(_NEAR, 1.5 * float(np.median(off[on])))
        if (before == on).all():
            break
    angles = np.arctan2((y[on] + d / b / 2) * np.sqrt(b), (x[on] + c / a / 2) * np.sqrt(a))
    sectors = np.unique(np.floor(angles * (_OF / 2 / np.pi)))
    if np.mean(on) < _SHARE or len(sectors) < _SECTORS:
        return None
    return float(np.sqrt(b / a))


def _edge(lit: NDArray[np.uint8]) -> NDArray[np.intp]:
    """The first and last lit pixels (x, y) of each row and column, but for those at the edges of the whole."""
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if not rows.size:
        return np.empty((0, 2), np.intp)
    last = _SIDE - 1
    x = np.concatenate([lit.argmax(axis=1)[rows], last - lit[:, ::-1].argmax(axis=1)[rows], columns, columns])
    y = np.concatenate([rows, rows, lit.argmax(axis=0)[columns], last - lit[::-1].argmax(axis=0)[columns]])
    inside = (x > columns[0] + 1) & (x < columns[-1] - 1) & (y > rows[0] + 1) & (y < rows[-1] - 1)
    return np.asarray(np.stack([x, y], axis=1)[inside], np.intp)
