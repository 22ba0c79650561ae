"""From a path, bytes or an array to a `Photo`: uint8 RGB in displayed orientation, strictly decoded, or a typed error.

Decoders disagree on damaged files, so each step uses the one that refuses: Pillow reads headers, simplejpeg decodes JPEG
strictly (OpenCV and Pillow accept garbage in mid-scan without a word), OpenCV decodes the rest.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from .errors import Code, PhotoError

MAX_PIXELS = 80_000_000  # the largest fundus cameras give 50 megapixels
MAX_BYTES = 512 * 1024 * 1024
MIN_SIDE = 128  # below it a disc has fewer than 25 pixels
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})

_ORIENTATION = 274  # EXIF and TIFF tag
_GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N"})


@dataclass(frozen=True, eq=False)
class Photo:
    """One photograph: pixels uint8 (H, W, 3) RGB in displayed orientation; sha256 of the file's bytes (None for arrays)."""

    pixels: NDArray[np.uint8]
    name: str
    sha256: str | None = None

    @staticmethod
    def from_bgr(pixels: NDArray[np.uint8], name: str = "array") -> Photo:
        """A Photo of an OpenCV frame, uint8 (H, W, 3) BGR."""
        return read(np.ascontiguousarray(pixels[..., ::-1]), name)


def read(source: str | os.PathLike[str] | bytes | NDArray[np.uint8] | Photo, name: str | None = None) -> Photo:
    """Read one photograph.

    Args: source: path, bytes of a JPEG, PNG, TIFF or BMP file, uint8 (H, W, 3) RGB array, or a Photo (returned as it is).
    Raises: PhotoError with a `Code`. TypeError for anything else (a programmer's error).
    """
    if isinstance(source, Photo):
        return source
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8:
            raise TypeError(f"an array must be uint8 (H, W, 3) RGB, not {source.dtype} {source.shape}")
        _check_size(source.shape[1], source.shape[0])
        return Photo(source, name or "array")
    if isinstance(source, bytes | bytearray | memoryview):
        data, label = bytes(source), name or "bytes"
    elif isinstance(source, str | os.PathLike):
        data, label = read_bytes(Path(source)), name or os.fspath(source)
    else:
        raise TypeError(f"a photo is a path, bytes or an array, not {type(source).__name__}")
    return Photo(_decode(data), label, hashlib.sha256(data).hexdigest())


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file. Pipes, sockets, devices and folders are refused without being opened."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise PhotoError(Code.NOT_A_FILE, f"it is {kind}")
        if status.st_size > MAX_BYTES:
            raise PhotoError(Code.TOO_LARGE, f"{status.st_size} bytes; the limit is {MAX_BYTES}")
        return path.read_bytes()
    except FileNotFoundError:
        raise PhotoError(Code.NOT_FOUND, "no such file") from None
    except OSError as error:
        raise PhotoError(Code.UNREADABLE, error.strerror or type(error).__name__) from None


def _decode(data: bytes) -> NDArray[np.uint8]:
    if not data:
        raise PhotoError(Code.EMPTY_FILE, "the file has 0 bytes")
    if data[:2] == b"\xff\xd8":
        pixels, orientation = _decode_jpeg(data)
    elif data[:4] in (b"II*\0", b"MM\0*"):
        pixels, orientation = _decode_tiff(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n" or data[:2] == b"BM":
        pixels, orientation = _decode_png_bmp(data)
    else:
        raise PhotoError(Code.UNKNOWN_FORMAT, "not a JPEG, PNG, TIFF or BMP file (told by its first bytes)")
    return _oriented(pixels, orientation)


def _header(data: bytes) -> Image.Image:
    """Pillow's lazily opened picture: header only, no pixel decoded."""
    try:
        header = Image.open(io.BytesIO(data), formats=("JPEG", "MPO", "PNG", "BMP"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoError(Code.TOO_LARGE, f"more than {MAX_PIXELS} pixels") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise PhotoError(Code.DAMAGED, f"the header cannot be read ({type(error).__name__})") from None
    _check_size(*header.size)
    if header.mode in _GREY_MODES:
        raise PhotoError(Code.NOT_COLOUR, f"the picture has one channel (mode {header.mode}); a colour photograph is needed")
    return header


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise PhotoError(Code.TOO_LARGE, f"{width} x {height} pixels; the limit is {MAX_PIXELS}")
    if min(width, height) < MIN_SIDE:
        raise PhotoError(Code.TOO_SMALL, f"{width} x {height} pixels; each side needs at least {MIN_SIDE}")


def _decode_jpeg(data: bytes) -> tuple[NDArray[np.uint8], int]:
    header = _header(data)
    try:
        orientation = int(header.getexif().get(_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, TypeError, KeyError):  # a damaged EXIF block says nothing about the pixels
        orientation = 1
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB", strict=True), np.uint8), orientation
    except ValueError as error:
        raise PhotoError(Code.DAMAGED, f"the JPEG data is damaged ({error})") from None


def _decode_png_bmp(data: bytes) -> tuple[NDArray[np.uint8], int]:
    header = _header(data)
    orientation = int(header.getexif().get(_ORIENTATION, 1)) if "exif" in header.info else 1
    if header.format == "PNG":  # OpenCV returns what it has of a cut or corrupt PNG: check every chunk's CRC first
        try:
            header.verify()
        except (OSError, SyntaxError, ValueError) as error:
            raise PhotoError(Code.DAMAGED, f"the PNG data is damaged ({error})") from None
    return _decode_opencv(data), orientation


def _decode_tiff(data: bytes) -> tuple[NDArray[np.uint8], int]:
    """TIFF has sample types that Pillow cannot name, so its tags are read directly (with Pillow's reader of tags)."""
    stream = io.BytesIO(data)
    tags = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
    try:
        stream.seek(tags.next)
        tags.load(stream)
        width, height = int(tags[256]), int(tags[257])
        orientation = int(tags.get(_ORIENTATION, 1))
        sample_formats = tags.get(339, (1,))
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError) as error:
        raise PhotoError(Code.DAMAGED, f"the TIFF tags cannot be read ({type(error).__name__})") from None
    _check_size(width, height)
    if tags.next:
        raise PhotoError(Code.MULTI_PAGE, "the TIFF has several pages; save the photograph as a file of its own")
    if 3 in np.atleast_1d(sample_formats):
        raise PhotoError(Code.FLOAT_IMAGE, "floating-point samples have no defined brightness; save as 8 or 16 bit")
    if tags.get(277, 1) < 3 and tags.get(262) != 3:  # 262 = 3: palette colour
        raise PhotoError(Code.NOT_COLOUR, "the picture has one channel; a colour photograph is needed")
    return _decode_opencv(data), orientation


def _decode_opencv(data: bytes) -> NDArray[np.uint8]:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_COLOR_RGB)
        if pixels is not None and pixels.ndim == 2:  # a palette of greys
            pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    except cv2.error as error:
        raise PhotoError(Code.DAMAGED, f"the data cannot be decoded ({error.err})") from None
    if pixels is None:
        raise PhotoError(Code.DAMAGED, "the data is cut or corrupt")
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise PhotoError(Code.FLOAT_IMAGE, f"samples of type {pixels.dtype} have no defined brightness")
    if pixels.shape[2] == 4:  # alpha, over black
        alpha = pixels[..., 3:].astype(np.uint16)
        pixels = ((pixels[..., :3] * alpha + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _oriented(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply EXIF orientation 1 to 8; unknown values are 1."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
