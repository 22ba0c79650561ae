"""From a path, bytes or an array to a `Photo`: uint8 RGB in displayed orientation, strictly decoded, or a typed error.

`decode` knows the picture formats, `dicom` DICOM.
"""

from __future__ import annotations

import copy
import hashlib
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import Code, PhotoError
from ..eyes import Eye, Listed
from . import dicom, shards
from .decode import Decoded, Encoded, Reduced, check_size, decode, format_of, of_image

MAX_BYTES = 512 * 1024 * 1024
SIDE = (
    560  # px of the shorter side from which networks' squares are made; a part of the preparation that contracts name
)
_KINDS = ("jpg", "jpeg", "jpe", "jfif", "png", "tif", "tiff", "bmp", "webp", "jp2", "j2k", "jpx", "gif", "dcm", "dicom")
SUFFIXES = frozenset(f".{kind}" for kind in _KINDS)
_BEGINNING = 132  # bytes by which a file's kind is told


class Photo:
    """One photograph. A JPEG is decoded at a fraction of its size where that will do.

    Attributes:
        name: How results call it.
        sha256: Of the file's bytes; None for arrays.
        patient: As a DICOM file says: 16 hex digits of SHA-256 over the patient ID and its issuer, the same for both eyes of
            one patient. That is a pseudonym, not anonymisation: who knows or guesses an ID can compute it.
        eye: As a DICOM file says (its laterality).
        frame: The number of the frame that was asked for.
        listed: What its list says of it.
        width: As displayed, px.
        height: As displayed, px.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8] | Encoded,
        name: str,
        sha256: str | None = None,
        patient: str | None = None,
        eye: Eye | None = None,
        listed: Listed | None = None,
        frame: int | None = None,
    ) -> None:
        """pixels: uint8 (H, W, 3) RGB in displayed orientation, or what gives them. Raises TypeError for any other array."""
        if isinstance(pixels, np.ndarray):
            _check_array(pixels)
        elif not isinstance(pixels, Encoded):
            raise TypeError(f"a Photo is made of an array, not {type(pixels).__name__}; load() takes files and images")
        self._encoded: Encoded = Decoded(pixels) if isinstance(pixels, np.ndarray) else pixels
        self.name, self.sha256, self.patient, self.eye, self.listed = name, sha256, patient, eye, listed
        self.frame = frame
        self.width, self.height = self._encoded.width, self._encoded.height
        self._reduced: dict[int, Reduced] = {}
        # what preparation has found: the picture without its border, and the box around the field of view
        self.fields: dict[tuple[int, int], tuple[NDArray[np.uint8], tuple[int, int, int, int]]] = {}

    @staticmethod
    def from_bgr(pixels: NDArray[np.uint8], name: str = "array") -> Photo:
        """A Photo of an OpenCV frame.

        Args:
            pixels: uint8 (H, W, 3) BGR.
            name: How results call it.

        Raises:
            TypeError: It is any other array.
        """
        _check_array(pixels)
        return Photo(np.ascontiguousarray(pixels[..., ::-1]), name)

    @property
    def warnings(self) -> tuple[Code, ...]:
        """What was assumed of the file; known when it has been decoded."""
        return self._encoded.warnings

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """All pixels, uint8 (H, W, 3) RGB in displayed orientation."""
        return self.at_least(max(self.width, self.height)).pixels

    def at_least(self, side: int) -> Reduced:
        """The picture reduced by 8, 4, 2 or not at all: the smallest whose shorter side still has so many px.

        Raises:
            PhotoError: It is damaged.
        """
        factor = next((f for f in (8, 4, 2) if min(self.width, self.height) // f >= side), 1)
        if factor not in self._reduced:
            self._reduced[factor] = self._encoded.reduced(factor)
        return self._reduced[factor]

    def named(self, name: str) -> Photo:
        """The same under another name."""
        twin = copy.copy(self)
        twin.name = name
        return twin


Source = str | os.PathLike[str] | bytes | BinaryIO | NDArray[np.uint8] | Image.Image | Photo | Listed
"""What a photograph can be loaded from. Here alone it is taken apart."""


def load(source: Source, name: str | None = None, *, frame: int | None = None) -> Photo:
    """Load one photograph.

    Args:
        source: Path (also `shard.tar!/eye.jpg`, a member of a tar or zip file), entry of a list, bytes or open binary file of a
            JPEG, PNG, TIFF, BMP, WebP, JPEG 2000, GIF or DICOM file, uint8 (H, W, 3) RGB array, PIL image, or a Photo (which
            is returned as it is).
        name: How results call it; its path, `bytes` or `array` where none is given.
        frame: Which frame of a DICOM file with several, from 1 on; else that of the entry.

    Raises:
        PhotoError: It cannot be screened; with a `Code`, and what is known of it all the same.
        TypeError: It is anything else (a programmer's error).
    """
    listed = source if isinstance(source, Listed) else None
    what = (source.path if source.data is None else source.data) if isinstance(source, Listed) else source
    label = name or label_of(source)
    if frame is None and listed is not None:
        frame = listed.frame
    digest: str | None = None
    try:
        if isinstance(what, Photo):
            check_size(what.width, what.height)
            return what if name is None else what.named(name)
        if isinstance(what, np.ndarray):
            _check_array(what)
            check_size(what.shape[1], what.shape[0])
            return Photo(what, label)
        if isinstance(what, Image.Image):
            check_size(*what.size)
            return Photo(of_image(what), label, listed=listed)
        data = _bytes(what)
        digest = hashlib.sha256(data).hexdigest()
        if is_dicom(data):
            pixels, patient, eye = dicom.decode(data, frame)
            return Photo(np.ascontiguousarray(pixels), label, digest, patient, eye, listed, frame)
        if frame not in (None, 1):
            raise PhotoError(Code.MULTI_PAGE, f"there is no frame {frame}; only DICOM files have several that are read")
        photo = Photo(decode(data), label, digest, listed=listed)
        photo.at_least(SIDE)  # damage is told here
        return photo
    except PhotoError as error:
        error.name, error.sha256, error.listed = label, digest, listed
        if isinstance(what, Photo):
            error.sha256, error.patient, error.eye, error.listed = what.sha256, what.patient, what.eye, what.listed
        raise


def label_of(source: Source) -> str:
    """How results call a source that was given no name. Raises TypeError for what is none."""
    if isinstance(source, Listed):
        return source.path
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    if isinstance(source, Photo):
        return source.name
    for kind, label in ((np.ndarray, "array"), ((bytes, bytearray, memoryview), "bytes")):
        if isinstance(source, kind):
            return label
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "image")
    if hasattr(source, "read"):
        return str(getattr(source, "name", "") or "file")
    raise TypeError(f"a photo is a path, bytes, a binary file, an array or a PIL image, not {type(source).__name__}")


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin as a DICOM file does."""
    return dicom.is_dicom(data)


def is_picture(path: str) -> bool:
    """Whether a file begins as a picture does."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return False
        with Path(path).open("rb") as file:
            start = file.read(_BEGINNING)
    except OSError:
        return False
    return is_dicom(start) or format_of(start) is not None


def _bytes(what: Any) -> bytes:
    """All bytes of a file, an open one, or a buffer. Raises PhotoError, TypeError."""
    if isinstance(what, str | os.PathLike):
        return read_bytes(what)
    if not hasattr(what, "read"):
        return bytes(what)
    try:
        data = what.read(MAX_BYTES + 1)
    except OSError as error:
        raise PhotoError(Code.UNREADABLE, error.strerror or type(error).__name__) from None
    if not isinstance(data, bytes):
        raise TypeError("a file must be opened as binary: open(path, 'rb')")
    if len(data) > MAX_BYTES:
        raise PhotoError(Code.TOO_LARGE, f"more than {MAX_BYTES} bytes")
    return data


def _check_array(pixels: NDArray[np.uint8]) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise TypeError(f"an array must be uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}")


def read_bytes(source: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file, or of a member of an archive. Pipes, sockets, devices and folders are refused without being
    opened."""
    if shards.parted(os.fspath(source)):
        return shards.read(os.fspath(source), MAX_BYTES)
    path = Path(source)
    if path.suffix.lower() in shards.SUFFIXES and path.is_file():
        raise PhotoError(Code.DAMAGED, "the archive is cut; what comes before the cut was read")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise PhotoError(Code.NOT_A_FILE, f"it is {kind}")
        if status.st_size > MAX_BYTES:
            raise PhotoError(Code.TOO_LARGE, f"{status.st_size} bytes; the limit is {MAX_BYTES}")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that no file can have
        raise PhotoError(Code.NOT_FOUND, "no such file") from None
    except OSError as error:
        raise PhotoError(Code.UNREADABLE, error.strerror or type(error).__name__) from None
