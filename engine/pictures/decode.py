"""From the bytes of a JPEG, PNG, TIFF or BMP file to pixels, strictly, or a typed error.

Decoders disagree on damaged files, so each step uses the one that refuses: Pillow reads headers, simplejpeg decodes JPEG
strictly (OpenCV and Pillow accept garbage in mid-scan without a word), OpenCV decodes the rest.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"GIF8": "GIF",
}
_JPEG_END = b"\xff\xd9"
_UNREAD = {  # by OpenCV, in a TIFF
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
}
_BY_PILLOW = frozenset((34925, 50000))  # 8 bits alone, as it gives no more
_DEFLATE = frozenset((8, 32946))  # in a TIFF
_RAW = 1
_AT_ONCE = 2**20  # bytes that are unpacked to be checked
_THUMBNAIL = 4  # so many times as wide as one is its picture
_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7))  # of a JPEG
_LOSSLESS = frozenset((0xC3, 0xC7, 0xCB, 0xCF))
_JPEG_LS = 0xF7
_SEEN_TWICE = 0.25  # of a column of data: so much must be lit above and below rows that are empty
_RANGES = (255, 1023, 4095)  # of samples with fewer bits than the 16 that they are stored in
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
        warnings: What was assumed of it.
    """

    def __init__(self, pixels: NDArray[np.uint8], warnings: tuple[Code, ...] = ()) -> None:
        self._pixels, self.warnings = pixels, warnings
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
        warnings: What was assumed of it; known when it has been decoded.
    """

    def __init__(self, data: bytes) -> None:
        """Reads the header. Raises PhotoError."""
        self.warnings: tuple[Code, ...] = ()
        self._stored_width, self._stored_height = jpeg_size(data)
        self._data, self._orientation = data, _orientation(data)
        self.width, self.height = self._stored_width, self._stored_height
        if self._orientation in _TRANSPOSED:
            self.width, self.height = self.height, self.width

    def reduced(self, factor: int) -> Reduced:
        """Decode, all of its data strictly. Args: factor: 1, 2, 4 or 8. Raises PhotoError DAMAGED."""
        try:
            pixels = decode_jpeg(self._data, factor)
        except PhotoError:
            if self._data.endswith(_JPEG_END):
                raise
            pixels = decode_jpeg(self._data + _JPEG_END, factor)  # its marker may be all that it lacks: still strictly
            self._data += _JPEG_END
            self.warnings = (Code.END_MISSING,)
        pixels = pixels[
            : self._stored_height // factor, : self._stored_width // factor
        ]  # without pixels that are cut off
        turned = _turned(pixels, self._orientation)
        left = self.width % factor if self._orientation in _COLUMNS_REVERSED else 0
        top = self.height % factor if self._orientation in _ROWS_REVERSED else 0
        return Reduced(np.ascontiguousarray(turned), factor, left, top)


Encoded = Decoded | Jpeg
_Pixels = tuple[NDArray[np.uint8], tuple[Code, ...]]  # uint8 RGB, and what was assumed


def decode(data: bytes) -> Encoded:
    """The picture in a JPEG, PNG, TIFF or BMP file, in displayed orientation. Raises PhotoError."""
    if not data:
        raise PhotoError(Code.EMPTY_FILE, "the file has 0 bytes")
    kind = format_of(data)
    if kind == "JPEG":
        return Jpeg(data)
    if kind is None:
        raise PhotoError(Code.UNKNOWN_FORMAT, _unknown(data))
    pixels, warnings = _decode_tiff(data) if kind == "TIFF" else _decode_whole(data, kind)
    return Decoded(np.ascontiguousarray(pixels), warnings)


def format_of(data: bytes) -> str | None:
    """Pillow's name of a format that is read here, told by the first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for start, kind in _STARTS.items() if data.startswith(start)), None)


def _unknown(data: bytes) -> str:
    """Why bytes are of no format that is read here."""
    if data[4:8] == b"ftyp":
        return f"an HEIC or AVIF file ({data[8:12].decode('ascii', 'replace')}); save it as JPEG or PNG"
    if data[:4] == b"\xff\xd8\xff\xf7":
        return "a JPEG-LS file; save it as PNG or JPEG"
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "a JPEG XL file; save it as PNG or JPEG"
    return "not a JPEG, PNG, TIFF, BMP, WebP, JPEG 2000, GIF or DICOM file (told by its first bytes)"


def of_image(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a Pillow image as it is displayed, over black, uint8 (H, W, 3) RGB. Raises PhotoError."""
    if image.mode in _GREY_MODES:
        raise PhotoError(Code.NOT_COLOUR, ONE_CHANNEL)
    if image.mode == "F":
        raise PhotoError(Code.FLOAT_IMAGE, "floating-point samples have no defined brightness")
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
        pixels = _over_black(np.asarray(image.convert("RGBA"), np.uint8))
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
        _refuse_unread(data)
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
        _refuse_unread(data)
        raise PhotoError(Code.DAMAGED, f"the JPEG data is cut or corrupt ({error})") from None


def _refuse_unread(data: bytes) -> None:
    """Of a JPEG that was not decoded: whether it is of a kind that is not read. Raises PhotoError UNKNOWN_FORMAT."""
    at = 2
    while data[at : at + 1] == b"\xff" and at + 5 <= len(data):
        marker, length, bits = data[at + 1], int.from_bytes(data[at + 2 : at + 4]), data[at + 4]
        if marker in _FRAMES:
            kind = "-LS" if marker == _JPEG_LS else " without loss" if marker in _LOSSLESS else ""
            if kind or bits != 8:
                raise PhotoError(
                    Code.UNKNOWN_FORMAT, f"a JPEG{kind} of {bits} bits is not read; save it as PNG or 8-bit JPEG"
                )
            return
        at += 1 if marker == 0xFF else 2 + length  # markers may be filled up


def _decode_whole(data: bytes, kind: str) -> _Pixels:
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
    pixels, warnings = _decode_opencv(data, straight_alpha=kind != "BMP")
    if kind == "BMP":
        _refuse_holes(pixels, pixels.shape[1])
    return _turned(pixels, orientation), warnings


def _decode_tiff(data: bytes) -> _Pixels:
    """TIFF has sample types that Pillow cannot name, so its tags are read directly (with Pillow's reader of tags).

    OpenCV applies a TIFF's orientation by itself; libtiff under it multiplies 8-bit colour by alpha, 16-bit not. It returns what
    it has of damaged data, so Pillow, which does not, looks at compressed data first. Raw data has no checksums: strips and
    tiles of zeros are told, other changes are not.
    """
    try:
        data, tags = _picture_page(data)
        width, height, channels = int(tags[256]), int(tags[257]), int(tags.get(277, 1))
        palette = tags.get(262) == 3
        floating = 3 in np.atleast_1d(tags.get(339, 1))
        compression = int(tags.get(259, _RAW))
        deep, straight = 16 in np.atleast_1d(tags.get(258, 1)), 2 in np.atleast_1d(tags.get(338, 0))
        across, down = int(tags.get(322, width)), int(tags.get(323, height))
        transposed = int(tags.get(274, 1)) in _TRANSPOSED
        parts = [
            (int(at), int(length))
            for places, lengths in ((273, 279), (324, 325))
            for at, length in zip(
                np.atleast_1d(tags.get(places, ())), np.atleast_1d(tags.get(lengths, ())), strict=False
            )
        ]
    except _HEADER_ERRORS:
        raise PhotoError(Code.DAMAGED, "the TIFF tags are cut or corrupt") from None
    check_size(width, height)
    if floating:
        raise PhotoError(Code.FLOAT_IMAGE, "floating-point samples have no defined brightness; save as 8 or 16 bit")
    if channels < 3 and not palette:
        raise PhotoError(Code.NOT_COLOUR, ONE_CHANNEL)
    if channels > 4:
        raise PhotoError(Code.UNKNOWN_FORMAT, f"a TIFF of {channels} channels is not read; save it as RGB")
    if compression in _UNREAD and (deep or compression not in _BY_PILLOW):
        bits = "16-bit " if deep else ""
        told = f"a {bits}TIFF with {_UNREAD[compression]} compression is not read; save it with LZW, Deflate or none"
        raise PhotoError(Code.UNKNOWN_FORMAT, told)
    if compression in _DEFLATE:
        _check_deflated(data, parts, (width + across) * (height + down) * channels * 2)
    seen = _by_pillow(data) if compression != _RAW or straight else None
    try:
        pixels, warnings = _decode_opencv(data, deep and straight)
        if straight and not deep and seen is not None and not pixels.any():
            pixels = of_image(seen)  # an alpha that is 0 everywhere means nothing
    except PhotoError:
        if seen is None or deep:
            raise
        pixels, warnings = of_image(seen), ()
    _refuse_holes(pixels.swapaxes(0, 1) if transposed else pixels, across)
    return pixels, warnings


def _picture_page(data: bytes) -> tuple[bytes, TiffImagePlugin.ImageFileDirectory_v2]:
    """The tags of a TIFF's one picture, and the file with that page as its first.

    Raises: PhotoError where there are several pictures, or one of _HEADER_ERRORS.
    """
    pages = list(_pages(data))
    largest = max(int(tags[256]) for _, tags in pages)
    pictures = [(at, tags) for at, tags in pages if not _is_beside(tags, largest)] or pages[:1]
    if len(pictures) > 1:
        raise PhotoError(Code.MULTI_PAGE, "the TIFF has several pages; save the photograph as a file of its own")
    at, tags = pictures[0]
    start, format = (8, "Q") if data[2] == 43 else (4, "L")
    order = "<" if data[:2] == b"II" else ">"
    first = struct.pack(order + format, at)
    return data if data.startswith(first, start) else data[:start] + first + data[start + len(first) :], tags


def _is_beside(tags: TiffImagePlugin.ImageFileDirectory_v2, largest: int) -> bool:
    """Whether a page is a thumbnail or a mask of transparency. Args: largest: width of all pages."""
    return bool(int(tags.get(254, 0)) & 5) or int(tags[256]) * _THUMBNAIL <= largest


def _pages(data: bytes) -> Iterator[tuple[int, TiffImagePlugin.ImageFileDirectory_v2]]:
    """Where each page's tags begin, and these. Raises one of _HEADER_ERRORS, or PhotoError."""
    if data[2:4] == b"\0+":
        raise PhotoError(Code.UNKNOWN_FORMAT, "a BigTIFF of big-endian order is not read; save it as TIFF")
    stream, seen = io.BytesIO(data), set[int]()
    header = stream.read(16 if data[2:3] == b"+" else 8)  # BigTIFF's is longer
    following = TiffImagePlugin.ImageFileDirectory_v2(header).next
    while following and following not in seen:
        seen.add(following)
        stream.seek(following)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        tags.next = following
        tags.load(stream)
        if tags.next == following:  # Pillow warns of cut tags, and leaves it
            raise ValueError
        yield following, tags
        following = tags.next


def _check_deflated(data: bytes, parts: Sequence[tuple[int, int]], most: int) -> None:
    """Each part of deflated data ends with a checksum.

    Args:
        data: The file.
        parts: Where each begins, and its length.
        most: Bytes that all of them may have.

    Raises:
        PhotoError: DAMAGED.
    """
    for at, length in parts:
        part, rest = zlib.decompressobj(), data[at : at + length]
        while not part.eof:
            try:
                size = len(part.decompress(rest, _AT_ONCE))
            except zlib.error as error:
                raise PhotoError(Code.DAMAGED, f"the data is cut or corrupt ({error})") from None
            rest, most = part.unconsumed_tail, most - size
            if (not size and not part.eof) or most < 0:
                raise PhotoError(Code.DAMAGED, "the data is cut, or longer than the picture")


def _by_pillow(data: bytes) -> Image.Image | None:
    """A TIFF of a kind that Pillow knows; None of any other. Raises PhotoError DAMAGED."""
    try:
        image = Image.open(io.BytesIO(data), formats=("TIFF",))
    except _HEADER_ERRORS:
        return None
    try:
        image.load()
    except _HEADER_ERRORS as error:
        raise PhotoError(Code.DAMAGED, f"the data is cut or corrupt ({error})") from None
    return image


def _refuse_holes(pixels: NDArray[np.uint8], across: int) -> None:
    """Refuse a picture in which strips or tiles of data are lost: rows without light where there is light above and below.

    Args:
        pixels: uint8 (H, W, 3).
        across: px: as wide are the parts in which the data is stored.

    Raises:
        PhotoError: DAMAGED.
    """
    light = np.asarray(pixels.any(axis=2))
    across = max(across, MIN_SIDE)
    for left in range(0, light.shape[1], across):
        part = light[:, left : left + across]
        lit = np.flatnonzero(part.any(axis=1))
        for above in np.flatnonzero(np.diff(lit) > 1):  # in the rows next to them data may begin or end
            before, after = lit[max(above - 1, 0) : above + 1], lit[above + 1 : above + 3]
            if np.mean(part[before].any(axis=0) & part[after].any(axis=0)) >= _SEEN_TWICE:
                raise PhotoError(Code.DAMAGED, "rows within the picture are empty: a part of its data is lost")


def _decode_opencv(data: bytes, straight_alpha: bool) -> _Pixels:
    """Decode to uint8 RGB. Args: straight_alpha: the colour is not yet multiplied by alpha, that is, put over black."""
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise PhotoError(Code.DAMAGED, f"the data cannot be decoded ({error.err})") from None
    if decoded is None:
        raise PhotoError(Code.DAMAGED, "the data is cut or corrupt")
    if decoded.dtype not in (np.uint8, np.uint16):
        raise PhotoError(Code.FLOAT_IMAGE, f"samples of type {decoded.dtype} have no defined brightness")
    pixels, warnings = _bytes_of(decoded)
    if pixels.ndim == 2:  # a palette of greys
        return np.dstack([pixels] * 3), warnings
    if pixels.shape[2] == 4 and straight_alpha:
        pixels = _over_black(pixels)
    return pixels[..., 2::-1], warnings


def _over_black(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) of (H, W, 4); an alpha that is 0 everywhere means nothing."""
    if not pixels[..., 3].any():
        return pixels[..., :3]
    return ((pixels[..., :3] * pixels[..., 3:].astype(np.uint16) + 127) // 255).astype(np.uint8)


def _bytes_of(samples: NDArray[Any]) -> _Pixels:
    """Samples of 16 bits as 8; those that use 8, 10 or 12 bits alone are of that range."""
    if samples.dtype == np.uint8:
        return np.asarray(samples, np.uint8), ()
    most = int(samples[..., :3].max())
    top = next((top for top in _RANGES if most <= top), None)
    if top is None or not most:
        return np.asarray(samples // 256, np.uint8), ()
    return np.asarray(samples[..., :4] / (top / 255), np.uint8), (Code.RANGE_ASSUMED,)


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
