"""From a `Photo` to the network's input: crop to the field of view, pad to a square, resize. Training uses this very code.

Pixel arithmetic (scaling, mean, layout) is not here: it is inside the model's graph.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import Code, PhotoError
from .decode import Reduced
from .photo import SIDE, Photo

_LINE_SHARE = 0.02  # of a row or column must be bright, so that a date or a speck in the border does not count
# of a border that is not black: the corners looked at, as a share of the shorter side; deviation of their channels; how far
# channels and corners may differ
_CORNER, _EVEN, _HUELESS, _ALIKE = 0.02, 6.0, 16.0, 14
_ALL = 0.97  # of the picture
# of what lies around a screen: the most hue, as a share of the brightest channel; the side on which the retina is looked for; how
# much of the ellipse in its box that fills, a cut one more; its shorter side over the longer one
_PALE, _SMALL, _ROUND, _LEAST = 0.3, 256, (0.9, 1.2), 0.7
_MIN_SHARE = 0.1  # of the picture's width and height must remain


@dataclass(frozen=True)
class Geometry:
    """How a photo becomes a square; part of the model's contract.

    Attributes:
        size: Of the square, px.
        fov_threshold: A pixel is lit where its brightest channel is above it, 0 to 255.
        diameters: Of the disc that the square is wide, which lies around it then; None: it shows the whole field of view.
    """

    size: int
    fov_threshold: int
    diameters: float | None = None


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

    def square_map(self, values: NDArray[np.float32], of: Placement, size: int) -> NDArray[np.float32]:
        """A map of another square, float32 (S, S), on this one of `size` px, bilinear; what lies outside is 0.

        Not by OpenCV, whose versions differ in how finely they place a pixel.
        """

        def between(
            scale: float, offset: float, of_scale: float, of_offset: float
        ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            at = np.clip((np.arange(size) - offset) * (of_scale / scale) + of_offset, -1, len(values))
            before = np.minimum(np.floor(at), len(values) - 1)
            return before.astype(np.int64) + 1, (at - before).astype(np.float32)

        rows, down = between(self.scale_y, self.offset_y, of.scale_y, of.offset_y)
        columns, right = between(self.scale_x, self.offset_x, of.scale_x, of.offset_x)
        padded = cv2.copyMakeBorder(values, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        under, columns = padded[:, columns[0] : columns[-1] + 2], columns - columns[0]
        tall = under[rows] * (1 - down[:, None]) + under[rows + 1] * down[:, None]
        return np.asarray(tall[:, columns] * (1 - right) + tall[:, columns + 1] * right, np.float32)

    def square_mask(self, mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
        """A mask drawn on the photo, bool (H, W), on the square (nearest neighbour)."""
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(mask.astype(np.uint8), self.matrix(), (size, size), flags=flags).astype(bool)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network's input.

    Attributes:
        image: uint8 (S, S, 3) RGB.
        placement: The way back to the photo.
        share: Of the field of view's longer side that the square shows.
        finer: The whole field of view, with larger S, for a closer look.
        turns: By how many quarters the image is turned, counter-clockwise; what a network gives is turned back.
    """

    image: NDArray[np.uint8]
    placement: Placement
    share: float = 1.0
    finer: Prepared | None = None
    turns: int = 0

    @property
    def field(self) -> float:
        """The longer side of the field of view, in the square's pixels."""
        return float(self.image.shape[0] / self.share)


@dataclass(frozen=True, eq=False)
class Spot:
    """Where a later look is to look closer.

    Attributes:
        finer: The field of view.
        x: Of the disc's centre, in its pixels.
        y: The same.
        diameter_px: Of the disc, vertical, in its pixels.
    """

    finer: Prepared
    x: float
    y: float
    diameter_px: float


def field_of_view(pixels: NDArray[np.uint8], threshold: int) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) around the lit part of a picture, in pixels, right and bottom exclusive.

    Args:
        pixels: uint8 (H, W, 3).
        threshold: A pixel is lit where its brightest channel is above it.

    Raises:
        PhotoError: NO_FIELD_OF_VIEW where next to nothing is lit.
    """
    height, width = pixels.shape[:2]
    outside = dark(pixels, threshold)
    in_rows = width - cv2.reduce(outside, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel() // 255
    in_columns = height - cv2.reduce(outside, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel() // 255
    rows, columns = np.flatnonzero(in_rows > _LINE_SHARE * width), np.flatnonzero(in_columns > _LINE_SHARE * height)
    if rows.size < _MIN_SHARE * height or columns.size < _MIN_SHARE * width:
        raise PhotoError(
            Code.NO_FIELD_OF_VIEW,
            "next to nothing in the picture is bright enough to be a retina; "
            "see that light reaches it and nothing covers the lens",
        )
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def without_border(pixels: NDArray[np.uint8], threshold: int) -> NDArray[np.uint8]:
    """The picture with a border, or what lies around a screen, made black, as cameras have it; most come back as they are.

    A border is what joins the corners, where all four have the same colour, even, without hue or less red than green or blue, and
    more than a speck of each is brighter than `threshold`: a retina in the corners is orange. Where the corners are lit and pale
    otherwise, a retina is the largest round part with a hue.

    Raises:
        PhotoError: NO_FIELD_OF_VIEW where next to nothing is lit within the border.
    """
    height, width = pixels.shape[:2]
    side = max(2, round(_CORNER * min(height, width)))
    corners = [pixels[y][:, x] for y in (slice(side), slice(-side, None)) for x in (slice(side), slice(-side, None))]
    colours = np.array([corner.mean(axis=(0, 1)) for corner in corners])
    lit = min(float(np.mean(corner.max(axis=2) > threshold)) for corner in corners)
    even = max(float(corner.std(axis=(0, 1)).max()) for corner in corners) <= _EVEN
    hue, cold = np.ptp(colours, axis=1), colours[:, 1:].max(axis=1) - colours[:, 0]
    teal = abs(colours[:, 1] - colours[:, 2]) <= _HUELESS  # black in YCbCr that is called RGB, which is to be told
    foreign = bool(np.all((hue <= _HUELESS) | (cold > _HUELESS) & ~teal))
    if lit <= _LINE_SHARE:
        return pixels
    if not (even and foreign and float(np.ptp(colours, axis=0).max()) <= _ALIKE):
        pale = bool(np.all(hue <= _PALE * colours.max(axis=1)))
        return _without_surroundings(pixels, threshold) if pale else pixels
    flags = 4 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY
    around = np.ascontiguousarray(
        cv2.copyMakeBorder(pixels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=colours.mean(axis=0).tolist())
    )
    mask = np.zeros((height + 4, width + 4), np.uint8)
    cv2.floodFill(around, mask, (0, 0), 0, (_ALIKE,) * 3, (_ALIKE,) * 3, flags)
    border = cv2.dilate(mask[2:-2, 2:-2], np.ones((5, 5), np.uint8))  # with the edge, which is neither
    if np.count_nonzero(border) > _ALL * border.size:  # it would leave nothing
        return pixels
    rest = np.asarray(np.where(border[..., None] > 0, 0, pixels), np.uint8)
    left, top, right, bottom = field_of_view(rest, threshold)
    part = rest[top:bottom, left:right]
    part[:] = without_border(part, threshold)  # one within the other: a screen's frame
    return rest


def _without_surroundings(pixels: NDArray[np.uint8], threshold: int) -> NDArray[np.uint8]:
    """The picture with all made black but its largest part with a hue, where that is round: a retina on a screen."""
    height, width = pixels.shape[:2]
    zoom = _SMALL / max(height, width)
    small = _resized(pixels, max(1, round(zoom * width)), max(1, round(zoom * height)), cv2.INTER_AREA)
    red, blue = small[..., 0].astype(int), small[..., 2].astype(int)
    hued = ((red > threshold) & (red - blue > _PALE * red)).astype(np.uint8)
    found, _ = cv2.findContours(hued, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(hued)
    if found:
        cv2.drawContours(filled, found, int(np.argmax([cv2.contourArea(own) for own in found])), 255, cv2.FILLED)
    _, _, across, down = cv2.boundingRect(filled)
    share = np.count_nonzero(filled) / max(1.0, np.pi / 4 * across * down)
    if not (_ROUND[0] <= share <= _ROUND[1] and min(across, down) >= _LEAST * max(across, down, _SMALL * _MIN_SHARE)):
        return pixels
    inside = _resized(filled, width, height, cv2.INTER_LINEAR) > 127
    return np.asarray(np.where(inside[..., None], pixels, 0), np.uint8)


def dark(pixels: NDArray[np.uint8], threshold: int) -> NDArray[np.uint8]:
    """Where no channel is above the threshold: uint8 (H, W), 255 there, else 0. Args: pixels: uint8 (H, W, 3)."""
    return np.asarray(cv2.inRange(pixels, (0, 0, 0), (threshold,) * 3), np.uint8)


def prepare(photo: Photo, geometry: Geometry) -> Prepared:
    """Crop to the field of view, resize its longer side to the square's, centre it on black.

    A border is black here, whatever its colour (see `without_border`).

    Raises:
        PhotoError: There is no field of view, or the picture is damaged.
    """
    size = geometry.size
    seen, pixels, (left, top, right, bottom) = _seen(photo, geometry)
    # the whole part of the reduction first, which is many times faster
    whole = max(1, max(right - left, bottom - top) // size)
    right, bottom = right - (right - left) % whole, bottom - (bottom - top) % whole
    longer = max(right - left, bottom - top)
    part = pixels[top:bottom, left:right]
    if whole > 1:
        part = _resized(part, (right - left) // whole, (bottom - top) // whole, cv2.INTER_AREA)
    width = max(1, round((right - left) * size / longer))
    height = max(1, round((bottom - top) * size / longer))
    part = _resized(part, width, height, cv2.INTER_AREA if longer >= size else cv2.INTER_LINEAR)
    x, y = (size - width) // 2, (size - height) // 2
    image = np.zeros((size, size, 3), np.uint8)
    image[y : y + height, x : x + width] = part
    return Prepared(image, _placed(seen, left, top, width / (right - left), height / (bottom - top), x, y))


def finer(photo: Photo, geometry: Geometry) -> Prepared:
    """The whole field of view in the middle of a square on black, to be looked at closer.

    It costs next to nothing: it is reduced by a whole number alone, so its square is not of the geometry's size, but at least
    that where the picture is, and less than twice that.

    Raises:
        PhotoError: As of `prepare`.
    """
    seen, pixels, (left, top, right, bottom) = _seen(photo, geometry)
    longer = max(right - left, bottom - top)
    whole = max(1, longer // geometry.size)
    size = longer // whole
    side = size * whole
    x, y = (left + right - side) // 2, (top + bottom - side) // 2  # may lie outside of the field, which is black
    part = pixels[max(y, top) : min(y + side, bottom), max(x, left) : min(x + side, right)]
    above, before = max(0, top - y), max(0, left - x)
    around = above, side - above - part.shape[0], before, side - before - part.shape[1]
    square = np.asarray(cv2.copyMakeBorder(part, *around, cv2.BORDER_CONSTANT, value=(0, 0, 0)), np.uint8)
    if whole > 1:
        square = _resized(square, size, size, cv2.INTER_AREA)
    return Prepared(square, _placed(seen, x, y, 1 / whole, 1 / whole, 0, 0), share=side / longer)


def middle(finer: Prepared, share: float, size: int) -> Prepared:
    """The middle of what `finer` gave, a share of the field of view's longer side, as a square of `size` px."""
    centre = (finer.image.shape[0] - 1) / 2
    return replace(_closer(finer, centre, centre, share * finer.field, size), finer=finer)


def turned(prepared: Prepared, turns: int) -> Prepared:
    """The same square, its image turned by so many quarters, counter-clockwise."""
    return replace(prepared, image=np.ascontiguousarray(np.rot90(prepared.image, turns)), turns=turns)


def around(spot: Spot, geometry: Geometry) -> Prepared:
    """The square around a disc, so many of its diameters wide as the geometry says."""
    assert geometry.diameters is not None
    return _closer(spot.finer, spot.x, spot.y, geometry.diameters * spot.diameter_px, geometry.size)


def _closer(finer: Prepared, x: float, y: float, side_px: float, size: int) -> Prepared:
    """A part of a square, whole pixels around (x, y), as one of `size` px; what lies outside is black."""
    whole = finer.image.shape[0]
    side = max(1, min(whole, round(side_px)))
    left, top = round(x - (side - 1) / 2), round(y - (side - 1) / 2)
    part = finer.image[max(0, top) : top + side, max(0, left) : left + side]
    before, above = max(0, -left), max(0, -top)
    beyond = above, side - above - part.shape[0], before, side - before - part.shape[1]
    if any(beyond):
        part = np.asarray(cv2.copyMakeBorder(part, *beyond, cv2.BORDER_CONSTANT, value=(0, 0, 0)), np.uint8)
    image = _resized(part, size, size, cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR)
    old, zoom = finer.placement, size / side
    placement = Placement(
        zoom * old.scale_x,
        zoom * old.scale_y,
        (old.offset_x - left + 0.5) * zoom - 0.5,
        (old.offset_y - top + 0.5) * zoom - 0.5,
    )
    return Prepared(image, placement, share=side / finer.field)


def _seen(photo: Photo, geometry: Geometry) -> tuple[Reduced, NDArray[np.uint8], tuple[int, int, int, int]]:
    """The photo as networks' squares are made of it, without its border, and the box around its field of view.

    It is reduced (see `Photo.at_least`), the same way whatever else is open, and finer only where its field of view is so small
    a part that the square would be larger than that.
    """
    side = SIDE
    while True:
        seen = photo.at_least(side)
        key = seen.factor, geometry.fov_threshold
        if key not in photo.fields:
            pixels = without_border(seen.pixels, geometry.fov_threshold)
            photo.fields[key] = pixels, field_of_view(pixels, geometry.fov_threshold)
        pixels, box = photo.fields[key]
        if max(box[2] - box[0], box[3] - box[1]) >= geometry.size or seen.factor == 1:
            return seen, pixels, box
        side *= 2


def _placed(seen: Reduced, left: int, top: int, scale_x: float, scale_y: float, x: int, y: int) -> Placement:
    """Where a square lies whose pixel (x, y) begins where the reduced photo's (left, top) does."""
    return Placement(
        scale_x / seen.factor,
        scale_y / seen.factor,
        ((0.5 - seen.left) / seen.factor - left) * scale_x - 0.5 + x,
        ((0.5 - seen.top) / seen.factor - top) * scale_y - 0.5 + y,
    )


def _resized(pixels: NDArray[np.uint8], width: int, height: int, interpolation: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=interpolation), np.uint8)
