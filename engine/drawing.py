"""The pictures that a person looks at: the photo with the contours of disc and cup and the fovea; and the heat maps."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from .diseases import DISEASES
from .errors import SettingsError
from .findings import Findings, HeatMap, Structure
from .pictures.photo import Photo

DISC, CUP, FOVEA = (64, 220, 96), (70, 170, 255), (255, 225, 60)  # RGB; distinct for colour-blind readers too
SIDE = 1024
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
    """A drawing as the bytes of a file. Raises SettingsError for a suffix that no encoder has."""
    if suffix.lower() in (".jpg", ".jpeg"):
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=quality))
    if not suffix or not cv2.haveImageWriter(f"x{suffix}"):
        raise SettingsError(f"drawings are written as .jpg or .png, not as {suffix!r}")
    return cv2.imencode(suffix, picture[..., ::-1])[1].tobytes()


def heated(photo: Photo, heat: HeatMap, side: int = SIDE) -> NDArray[np.uint8]:
    """The photo with a heat map over it: clear where there is none, then blue, green, yellow, red.

    Gives uint8 (h, w, 3) RGB, its longer side `side` px at most.
    """
    height, width = photo.pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = cv2.resize(photo.pixels, size, interpolation=cv2.INTER_AREA)
    warmth = heat.on_photo(*size, scale)
    colours = cv2.applyColorMap((warmth * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    opacity = (_OPACITY * np.minimum(1, 2 * warmth))[..., None] * (picture.max(axis=2, keepdims=True) > _DARK)
    return np.asarray(np.rint(picture * (1 - opacity) + colours * opacity), np.uint8)


def contoured(photo: Photo, findings: Findings, side: int = SIDE) -> NDArray[np.uint8]:
    """The whole photo with contours and fovea: uint8 (h, w, 3) RGB, its longer side `side` px at most."""
    height, width = photo.pixels.shape[:2]
    return _draw(photo.pixels, findings, (0.0, 0.0), min(1.0, side / max(height, width)))


def close_up(photo: Photo, findings: Findings, side: int) -> NDArray[np.uint8]:
    """The disc and what is around it. Gives uint8 (side, side, 3) RGB; black beyond the photo's border."""
    assert findings.disc is not None
    half = max(8, round(_CLOSE * findings.disc.vertical_diameter_px))
    left, top = round(findings.disc.x) - half, round(findings.disc.y) - half
    padded = np.zeros((2 * half, 2 * half, 3), np.uint8)
    y0, y1 = max(0, top), min(photo.pixels.shape[0], top + 2 * half)
    x0, x1 = max(0, left), min(photo.pixels.shape[1], left + 2 * half)
    padded[y0 - top : y1 - top, x0 - left : x1 - left] = photo.pixels[y0:y1, x0:x1]
    return _draw(padded, findings, (left, top), side / (2 * half))


def _draw(
    pixels: NDArray[np.uint8], findings: Findings, origin: tuple[float, float], scale: float
) -> NDArray[np.uint8]:
    """Draw on a part of the photo whose first pixel is `origin` there."""
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    picture = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    thick = max(2, round(max(size) / 500))

    def fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.asarray(np.rint(((points - origin + 0.5) * scale - 0.5) * (1 << _SHIFT)), np.int32)

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
