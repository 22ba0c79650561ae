"""From a path, bytes or an array to a `Photo`: uint8 RGB in displayed orientation, strictly decoded, or a typed error.

`decode` knows the picture formats, `dicom` DICOM.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import Code, Eye, PhotoError
from . import dicom
from .decode import check_size, decode

MAX_BYTES = 512 * 1024 * 1024
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".dcm", ".dicom"})


@dataclass(frozen=True, eq=False)
class Photo:
    """One photograph: pixels uint8 (H, W, 3) RGB in displayed orientation; sha256 of the file's bytes (None for arrays).

    patient and eye, which a DICOM file may state: the eye is its laterality. The patient is 16 hex digits of SHA-256 over
    the patient ID and its issuer: the same for both eyes of one patient. That is a pseudonym, not anonymisation: who knows
    or guesses an ID can compute it.
    """

    pixels: NDArray[np.uint8]
    name: str
    sha256: str | None = None
    patient: str | None = None
    eye: Eye | None = None

    @staticmethod
    def from_bgr(pixels: NDArray[np.uint8], name: str = "array") -> Photo:
        """A Photo of an OpenCV frame, uint8 (H, W, 3) BGR. Raises TypeError for any other array."""
        _check_array(pixels)
        return Photo(np.ascontiguousarray(pixels[..., ::-1]), name)


def load(source: str | os.PathLike[str] | bytes | NDArray[np.uint8] | Photo, name: str | None = None) -> Photo:
    """Read one photograph.

    Args: source: path, bytes of a JPEG, PNG, TIFF, BMP or DICOM file, uint8 (H, W, 3) RGB array, or a Photo (which is
    returned as it is).
    Raises: PhotoError with a `Code`. TypeError for anything else (a programmer's error).
    """
    if isinstance(source, Photo):
        check_size(source.pixels.shape[1], source.pixels.shape[0])
        return source if name is None else replace(source, name=name)
    if isinstance(source, np.ndarray):
        _check_array(source)
        check_size(source.shape[1], source.shape[0])
        return Photo(source, name or "array")
    if isinstance(source, bytes | bytearray | memoryview):
        data, label = bytes(source), name or "bytes"
    elif isinstance(source, str | os.PathLike):
        data, label = read_bytes(Path(source)), name or os.fspath(source)
    else:
        raise TypeError(f"a photo is a path, bytes or an array, not {type(source).__name__}")
    digest = hashlib.sha256(data).hexdigest()
    try:
        if data[128:132] != b"DICM":
            return Photo(decode(data), label, digest)
        pixels, patient, eye = dicom.decode(data)
        return Photo(np.ascontiguousarray(pixels), label, digest, patient, eye)
    except PhotoError as error:
        error.sha256 = digest
        raise


def _check_array(pixels: NDArray[np.uint8]) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise TypeError(f"an array must be uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}")


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
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that no file can have
        raise PhotoError(Code.NOT_FOUND, "no such file") from None
    except OSError as error:
        raise PhotoError(Code.UNREADABLE, error.strerror or type(error).__name__) from None
