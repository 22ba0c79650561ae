"""From the bytes of a JPEG, PNG, TIFF or BMP file to pixels, strictly, or a typed error.

Decoders disagree on damaged files, so each step uses the one that refuses: Pillow reads headers, simplejpeg decodes JPEG
strictly (OpenCV and Pillow accept garbage in mid-scan without a word), OpenCV decodes the rest.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from ..errors import Code, PhotoError

MAX_PIXELS = 80_000_000  # the largest fundus cameras give 50 megapixels
MIN_SIDE = 128  # below it a disc has fewer than 25 pixels
ONE_CHANNEL = "the picture has one channel; a colour photograph is needed"

_ORIENTATION = 274  # EXIF tag; of its values, what they do to the pixels as stored:
_TRANSPOSED, _ROWS_REVERSED, _COLUMNS_REVERSED = (
    frozenset((5, 6, 7, 8)),
    frozenset((3, 4, 7, 8)),
    frozenset((2, 3, 6, 7)),
)
_STARTS = {
    b"\xff\xd8\xff\xf7": None,  # JPEG-LS
    b"\xff\xd8": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"GIF8": "GIF",
}
_GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N"})
# what Pillow raises on a damaged header, its warnings too where they are turned into errors
_HEADER_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, OverflowError, struct.error, Warning)


@dataclass(frozen=True, eq=False)
class Reduced:
    """A picture at a fraction of its size.

    Attributes:
        pixels: uint8 (h, w, 3) RGB in displayed orientation.
        factor: Pixels of the whole picture across one of these; a power of two.
        left: Columns of the whole picture that lie left of the first pixel here.
        top: Rows that lie above it.
    """

    pixels: NDArray[np.uint8]
    factor: int = 1
    left: int = 0
    top: int = 0


class Decoded:
    """A picture whose pixels are all there.

    Attributes:
        width: px.
        height: px.
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def reduced(self, factor: int) -> Reduced:
        """The picture reduced by area. Args: factor: 1, 2, 4 or 8."""
        if factor == 1:
            return Reduced(self._pixels)
        width, height = self.width // factor, self.height // factor
        whole = self._pixels[: height * factor, : width * factor]
        return Reduced(np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8), factor)


class Jpeg:
    """A JPEG that is decoded when it is asked for, at a fraction of its size where that will do: libjpeg then skips the rest.

    Attributes:
        width: As displayed, px.
        height: As displayed, px.
    """

    def __init__(self, data: bytes) -> None:
        """Reads the header. Raises PhotoError."""
        self._stored_width, self._stored_height = jpeg_size(data)
        self._data, self._orientation = data, _orientation(data)
        self.width, self.height = self._stored_width, self._stored_height
        if self._orientation in _TRANSPOSED:
            self.width, self.height = self.height, self.width

    def reduced(self, factor: int) -> Reduced:
        """Decode, all of its data strictly. Args: factor: 1, 2, 4 or 8. Raises PhotoError DAMAGED."""
        pixels = decode_jpeg(self._data, factor)
        pixels = pixels[
            : self._stored_height // factor, : self._stored_width // factor
        ]  # without pixels that are cut off
        turned = _turned(pixels, self._orientation)
        left = self.width % factor if self._orientation in _COLUMNS_REVERSED else 0
        top = self.height % factor if self._orientation in _ROWS_REVERSED else 0
        return Reduced(np.ascontiguousarray(turned), factor, left, top)


Encoded = Decoded | Jpeg


def decode(data: bytes) -> Encoded:
    """The picture in a JPEG, PNG, TIFF or BMP file, in displayed orientation. Raises PhotoError."""
    if not data:
        raise PhotoError(Code.EMPTY_FILE, "the file has 0 bytes")
    kind = format_of(data)
    if kind == "JPEG":
        return Jpeg(data)
    if kind is None:
        raise PhotoError(Code.UNKNOWN_FORMAT, _unknown(data))
    pixels = _decode_tiff(data) if kind == "TIFF" else _decode_whole(data, kind)
    return Decoded(np.ascontiguousarray(pixels))


def format_of(data: bytes) -> str | None:
    """Pillow's name of a format that is read here, told by the first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for start, kind in _STARTS.items() if data.startswith(start)), None)


def _unknown(data: bytes) -> str:
    """Why bytes are of no format that is read here."""
    if data[4:8] == b"ftyp":
        return f"an HEIC or AVIF file ({data[8:12].decode('ascii', 'replace')}); save it as JPEG or PNG"
    if data[:4] == b"\xff\xd8\xff\xf7" or data[:4] in (b"II+\0", b"MM\0+"):
        return "a BigTIFF or JPEG-LS file; save it as TIFF, PNG or JPEG"
    return "not a JPEG, PNG, TIFF, BMP, WebP, JPEG 2000, GIF or DICOM file (told by its first bytes)"


def of_image(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a Pillow image as it is displayed, uint8 (H, W, 3) RGB. Raises PhotoError."""
    if image.mode in _GREY_MODES:
        raise PhotoError(Code.NOT_COLOUR, ONE_CHANNEL)
    if image.mode == "F":
        raise PhotoError(Code.FLOAT_IMAGE, "floating-point samples have no defined brightness")
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
        pixels = np.asarray(image.convert("RGB"), np.uint8)
    except _HEADER_ERRORS as error:
        raise PhotoError(Code.DAMAGED, f"the image cannot be decoded ({error})") from None
    return np.ascontiguousarray(_turned(pixels, orientation))


def check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise PhotoError(Code.TOO_LARGE, f"{width} x {height} pixels; the limit is {MAX_PIXELS}")
    if min(width, height) < MIN_SIDE:
        raise PhotoError(Code.TOO_SMALL, f"{width} x {height} pixels; each side needs at least {MIN_SIDE}")


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG as stored, px. Raises PhotoError where it is not to be decoded."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=True)
    except ValueError:
        raise PhotoError(Code.DAMAGED, "the JPEG header is cut or corrupt") from None
    check_size(width, height)
    if space == "Gray":
        raise PhotoError(Code.NOT_COLOUR, ONE_CHANNEL)
    return width, height


def decode_jpeg(data: bytes, factor: int = 1) -> NDArray[np.uint8]:
    """Decode a JPEG strictly, as stored.

    Args:
        data: The file.
        factor: 1, 2, 4 or 8: how many pixels are averaged across, in the transform itself. (The factors between these are
            slower than the whole.)

    Returns:
        uint8 (ceil(height / factor), ceil(width / factor), 3) RGB.

    Raises:
        PhotoError: It is damaged.
    """
    width, height = jpeg_size(data)
    try:
        smallest = {"min_height": -(-height // factor), "min_width": -(-width // factor)} if factor > 1 else {}
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB", strict=True, **smallest), np.uint8)
    except ValueError as error:
        raise PhotoError(Code.DAMAGED, f"the JPEG data is cut or corrupt ({error})") from None


def _decode_whole(data: bytes, kind: str) -> NDArray[np.uint8]:
    """PNG, BMP, WebP, JPEG 2000, GIF. Of these PNG alone has checksums: of the others, what is cut is refused, but changed bytes
    cannot always be told."""
    try:
        header = Image.open(io.BytesIO(data), formats=(kind,))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoError(Code.TOO_LARGE, f"too many pixels; the limit is {MAX_PIXELS}") from None
    except _HEADER_ERRORS:
        raise PhotoError(Code.DAMAGED, "the header is cut or corrupt") from None
    check_size(*header.size)
    if header.mode in _GREY_MODES:
        raise PhotoError(Code.NOT_COLOUR, ONE_CHANNEL)
    if getattr(header, "n_frames", 1) > 1:
        raise PhotoError(Code.MULTI_PAGE, "the file has several frames; save the photograph as a file of its own")
    orientation = _orientation(data)
    try:  # OpenCV returns what it has of a cut or corrupt PNG: check the CRC of every chunk first
        if kind == "PNG":
            header.verify()
    except _HEADER_ERRORS as error:
        raise PhotoError(Code.DAMAGED, f"the data is cut or corrupt ({error})") from None
    return _turned(_decode_opencv(data, straight_alpha=kind != "BMP"), orientation)


def _decode_tiff(data: bytes) -> NDArray[np.uint8]:
    """TIFF has sample types that Pillow cannot name, so its tags are read directly (with Pillow's reader of tags).

    OpenCV applies a TIFF's orientation by itself; libtiff under it multiplies 8-bit colour by alpha, 16-bit not.
    """
    stream = io.BytesIO(data)
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
        first = tags.next
        stream.seek(first)
        tags.load(stream)
        if tags.next == first:  # Pillow warns of cut tags, and leaves it
            raise ValueError
        width, height, channels = int(tags[256]), int(tags[257]), int(tags.get(277, 1))
        palette = tags.get(262) == 3
        floating = 3 in np.atleast_1d(tags.get(339, 1))
        straight_alpha = 16 in np.atleast_1d(tags.get(258, 1)) and 2 in np.atleast_1d(tags.get(338, 0))
    except _HEADER_ERRORS:
        raise PhotoError(Code.DAMAGED, "the TIFF tags are cut or corrupt") from None
    check_size(width, height)
    if tags.next:
        raise PhotoError(Code.MULTI_PAGE, "the TIFF has several pages; save the photograph as a file of its own")
    if floating:
        raise PhotoError(Code.FLOAT_IMAGE, "floating-point samples have no defined brightness; save as 8 or 16 bit")
    if channels < 3 and not palette:
        raise PhotoError(Code.NOT_COLOUR, ONE_CHANNEL)
    return _decode_opencv(data, straight_alpha)


def _decode_opencv(data: bytes, straight_alpha: bool) -> NDArray[np.uint8]:
    """Decode to uint8 RGB. Args: straight_alpha: the colour is not yet multiplied by alpha, that is, put over black."""
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise PhotoError(Code.DAMAGED, f"the data cannot be decoded ({error.err})") from None
    if decoded is None:
        raise PhotoError(Code.DAMAGED, "the data is cut or corrupt")
    if decoded.dtype not in (np.uint8, np.uint16):
        raise PhotoError(Code.FLOAT_IMAGE, f"samples of type {decoded.dtype} have no defined brightness")
    pixels = np.asarray(decoded if decoded.dtype == np.uint8 else decoded // 256, np.uint8)
    if pixels.ndim == 2:  # a palette of greys
        return np.dstack([pixels] * 3)
    if pixels.shape[2] == 4 and straight_alpha and pixels[..., 3].any():  # one that is 0 everywhere means nothing
        pixels = ((pixels[..., :3] * pixels[..., 3:].astype(np.uint16) + 127) // 255).astype(np.uint8)
    return pixels[..., 2::-1]


def _orientation(data: bytes) -> int:
    """EXIF orientation, 1 to 8; unknown values are 1, and so is a damaged EXIF block."""
    try:
        header = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "BMP", "WEBP"))
        found = header.getexif().get(_ORIENTATION) if "exif" in header.info else 1
    except _HEADER_ERRORS:
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Pixels as stored, as they are displayed."""
    if orientation in _TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in _ROWS_REVERSED:
        pixels = pixels[::-1]
    if orientation in _COLUMNS_REVERSED:
        pixels = pixels[:, ::-1]
    return pixels
