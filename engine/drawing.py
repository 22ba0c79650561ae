"""The pictures that a person looks at: the photo with the contours of disc and cup and the fovea; and the heat maps."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from .diseases import DISEASES
from .errors import SettingsError
from .findings import Findings, HeatMap, Structure
from .pictures.photo import Photo

DISC, CUP, FOVEA = (64, 220, 96), (70, 170, 255), (255, 225, 60)  # RGB; distinct for colour-blind readers too
_OTHERS = (255, 255, 255)
SIDE = 1024
_LOSSLESS = (".png", ".bmp", ".tif", ".tiff")
_CLOSE = 0.9  # half the side of a close-up, in vertical disc diameters
_SHIFT = 4  # fractional bits of the drawn coordinates
_DARK = 12  # brightest channel of a pixel outside the field of view: no heat is drawn there
_OPACITY = 0.55  # of full heat


def heat_maps(findings: Findings) -> dict[str, HeatMap]:
    """The heat maps that are drawn, by disease."""
    return {
        own.disease: own.heat
        for own in findings.decisions.values()
        if own.heat is not None and DISEASES[own.disease].drawn
    }


def encoded(picture: NDArray[np.uint8], suffix: str, quality: int = 90) -> bytes:
    """A drawing, RGB or, but for .jpg, RGBA, as the bytes of a file. Raises SettingsError for a suffix of another format."""
    if suffix.lower() in (".jpg", ".jpeg"):
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=quality))
    if suffix.lower() not in _LOSSLESS:
        raise SettingsError(f"drawings are written as .jpg, .png, .bmp or .tif, not as {suffix!r}")
    return cv2.imencode(suffix, picture[..., [2, 1, 0, 3][: picture.shape[2]]])[1].tobytes()


def heated(photo: Photo, heat: HeatMap, side: int = SIDE) -> NDArray[np.uint8]:
    """The photo with a heat map over it: clear where there is none, then blue, green, yellow, red.

    Gives uint8 (h, w, 3) RGB, its longer side `side` px at most.
    """
    picture, scale = _whole(photo, side)
    colours, opacity = _warmth(picture, scale, heat)
    return np.asarray(np.rint(picture * (1 - opacity) + colours * opacity), np.uint8)


def heat_layer(photo: Photo, heat: HeatMap, side: int = SIDE) -> NDArray[np.uint8]:
    """What `heated` draws, without the photo below: uint8 (h, w, 4) RGBA, its longer side `side` px at most."""
    colours, opacity = _warmth(*_whole(photo, side), heat)
    alpha = np.rint(255 * opacity).astype(np.uint8)
    return np.asarray(np.dstack([colours * (alpha > 0), alpha]), np.uint8)  # black where it is clear: a smaller file


def _warmth(picture: NDArray[np.uint8], scale: float, heat: HeatMap) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A heat map's colours, (h, w, 3) RGB, and how opaque each is over the picture, (h, w, 1) in [0, 1]."""
    warmth = heat.on_photo(picture.shape[1], picture.shape[0], scale)
    colours = cv2.applyColorMap((warmth * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    opacity = (_OPACITY * np.minimum(1, 2 * warmth))[..., None] * (picture.max(axis=2, keepdims=True) > _DARK)
    return np.asarray(colours, np.uint8), np.asarray(opacity, np.float32)


def contoured(
    photo: Photo, findings: Findings, side: int = SIDE, others: Sequence[NDArray[np.float64]] = ()
) -> NDArray[np.uint8]:
    """The whole photo with contours and fovea: uint8 (h, w, 3) RGB, its longer side `side` px at most.

    Args:
        photo: As read.
        findings: On it.
        side: See above.
        others: Closed lines (n, 2) in the photo's pixels, drawn white: such as experts'.
    """
    picture, scale = _whole(photo, side)
    return _draw(picture, findings, (0.0, 0.0), scale, others)


def close_up(
    photo: Photo, findings: Findings, side: int, others: Sequence[NDArray[np.float64]] = ()
) -> NDArray[np.uint8]:
    """The disc and what is around it. Gives uint8 (side, side, 3) RGB; black beyond the photo's border. Args: as `contoured`."""
    assert findings.disc is not None
    half = max(8.0, _CLOSE * findings.disc.vertical_diameter_px)
    scale = side / (2 * half)
    seen = photo.at_least(round(min(photo.width, photo.height) * min(1.0, scale)))
    left, top = findings.disc.x - half, findings.disc.y - half
    here = seen.factor * scale  # the drawing's pixels across one of those that are seen
    shift_x = (seen.left + (seen.factor - 1) / 2 - left) * scale
    shift_y = (seen.top + (seen.factor - 1) / 2 - top) * scale
    to_drawing = np.array([[here, 0, shift_x + (scale - 1) / 2], [0, here, shift_y + (scale - 1) / 2]])
    flags = cv2.INTER_LINEAR if here < 1 else cv2.INTER_CUBIC
    picture = cv2.warpAffine(seen.pixels, to_drawing, (side, side), flags=flags)
    return _draw(np.asarray(picture, np.uint8), findings, (left, top), scale, others)


def _whole(photo: Photo, side: int) -> tuple[NDArray[np.uint8], float]:
    """The photo with a longer side of `side` px at most, and by how much it is smaller."""
    scale = min(1.0, side / max(photo.height, photo.width))
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    seen = photo.at_least(min(size)).pixels
    return np.asarray(cv2.resize(seen, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def _draw(
    picture: NDArray[np.uint8],
    findings: Findings,
    origin: tuple[float, float],
    scale: float,
    others: Sequence[NDArray[np.float64]],
) -> NDArray[np.uint8]:
    """Draw into a picture that shows a part of the photo. Args: origin: the photo's pixel at its corner; scale: of it."""
    size = picture.shape[1], picture.shape[0]
    thick = max(2, round(max(size) / 500))

    def fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.asarray(np.rint(((points - origin + 0.5) * scale - 0.5) * (1 << _SHIFT)), np.int32)

    for line in others:
        cv2.polylines(picture, [fixed(line)[:, None]], True, _OTHERS, thick, cv2.LINE_AA, _SHIFT)
    structures: tuple[tuple[Structure, tuple[int, int, int]], ...] = (("disc", DISC), ("cup", CUP))
    for structure, colour in structures:
        contour = findings.contour(structure)
        if len(contour):
            cv2.polylines(picture, [fixed(contour)[:, None]], True, colour, thick, cv2.LINE_AA, _SHIFT)
    if findings.fovea:
        x, y = fixed(np.array(findings.fovea)).tolist()
        arm = round(max(size) / 60) << _SHIFT
        for dx, dy in ((arm, 0), (0, arm)):
            cv2.line(picture, (x - dx, y - dy), (x + dx, y + dy), FOVEA, thick, cv2.LINE_AA, _SHIFT)
        cv2.circle(picture, (x, y), arm, FOVEA, thick, cv2.LINE_AA, _SHIFT)
    return np.asarray(picture, np.uint8)
