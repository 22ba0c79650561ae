"""Photographs in DICOM files (Ophthalmic Photography, VL, Secondary Capture): one frame in colour, strictly decoded.

pydicom walks through the file and hands over raw bytes. It is asked to convert none: its converters quote the values that
they dislike, a patient's too, in warnings and logs. Sections named below are those of the DICOM standard, part 3.
"""

from __future__ import annotations

import hashlib
import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import Code, MissingExtra, PhotoError, require
from ..eyes import Eye
from .decode import ONE_CHANNEL, check_size, decode_jpeg

_Samples = NDArray[np.unsignedinteger[Any]]  # of 8 or 16 bits

_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_RLE = "1.2.840.10008.1.2.5"
_JPEGS = frozenset(f"1.2.840.10008.1.2.4.{process}" for process in (50, 51, 57, 70))  # baseline, extended, two lossless
_CHANNELS = {"RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3, "PALETTE COLOR": 1}
_EYES: dict[str, Eye] = {"R": "right", "L": "left"}
_DEFERRED = 2**18  # bytes; pydicom steps over longer values, which are pixels: a palette has 2**17 at most
_READS = 200_000  # an element takes one to four; a photograph has some hundred elements
_ADOBE_RGB = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"  # a JPEG segment that says: the components are R, G and B
_ADVICE = "convert the file to Explicit VR Little Endian first, for instance with gdcmconv --raw"
_FILTERS = threading.Lock()  # Python has one list of warning filters for all threads


class _Tag(IntEnum):
    TransferSyntaxUID = 0x00020010
    PatientID = 0x00100020
    IssuerOfPatientID = 0x00100021
    Laterality = 0x00200060
    ImageLaterality = 0x00200062
    SamplesPerPixel = 0x00280002
    PhotometricInterpretation = 0x00280004
    PlanarConfiguration = 0x00280006
    NumberOfFrames = 0x00280008
    Rows = 0x00280010
    Columns = 0x00280011
    BitsAllocated = 0x00280100
    BitsStored = 0x00280101
    HighBit = 0x00280102
    PixelRepresentation = 0x00280103
    PixelData = 0x7FE00010


# of the palette's red, green and blue
_DESCRIPTORS, _TABLES = (0x00281101, 0x00281102, 0x00281103), (0x00281201, 0x00281202, 0x00281203)


def decode(data: bytes) -> tuple[NDArray[np.uint8], str | None, Eye | None]:
    """The pixels, uint8 (H, W, 3) RGB as stored, the patient's pseudonym and the eye (see `Photo`) of a file's bytes.

    Raises: PhotoError, which knows patient and eye where the header could be read; NEEDS_EXTRA where pydicom is absent.
    Every limit is told from the header, nothing decoded.
    """
    file = _read_header(data)
    identity, issuer = file.value(_Tag.PatientID), file.value(_Tag.IssuerOfPatientID)
    patient = hashlib.sha256(issuer + b"|" + identity).hexdigest()[:16] if identity else None
    eye = _EYES.get(file.text(_Tag.ImageLaterality) or file.text(_Tag.Laterality))
    try:
        layout = _check_layout(file)
        pixels = _decode_jpeg(file, layout) if file.syntax in _JPEGS else _decode_samples(file, layout)
    except PhotoError as error:  # a picture that cannot be read is still one of this patient's
        error.patient, error.eye = patient, eye
        raise
    return pixels, patient, eye


@contextmanager
def _damage(what: str) -> Iterator[None]:
    """Make a PhotoError of whatever a library raises, without its words: they may quote values."""
    try:
        yield
    except PhotoError:
        raise
    except Exception as error:
        raise PhotoError(Code.DAMAGED, f"{what} cut or corrupt ({type(error).__name__})") from None


@dataclass(frozen=True)
class _File:
    """The bytes of a file, and the elements that are needed (pydicom's: VR, length, value, and value_tell, its place)."""

    data: bytes
    elements: dict[int, Any]
    syntax: str = ""

    def value(self, tag: int) -> bytes:
        """Without padding; empty where there is none."""
        return (self.elements[tag].value or b"").strip(b" \0") if tag in self.elements else b""

    def text(self, tag: int) -> str:
        return self.value(tag).decode("latin-1")

    def number(self, tag: _Tag, default: int | None = None) -> int:
        if default is not None and not (tag in self.elements and self.elements[tag].length):
            return default
        if tag not in self.elements:
            raise PhotoError(Code.UNKNOWN_FORMAT, f"DICOM without a picture, or cut before it: it has no {tag.name}")
        with _damage(f"the DICOM element {tag.name} is"):
            return int(self.numbers(tag, 1, 16)[0])

    def numbers(self, tag: int, count: int, bits: int) -> _Samples:
        """The first `count` numbers of 8 or 16 bits of an element, not copied. Raises: ValueError, KeyError."""
        element, big = self.elements[tag], self.syntax == _BIG_ENDIAN
        end = element.value_tell + element.length  # of fragments 2**32 - 1, and no file is so long
        if end > len(self.data):
            raise ValueError
        raw = memoryview(self.data)[element.value_tell : end]
        if bits == 8 and big and element.VR == "OW":  # two numbers in one big-endian word
            return np.frombuffer(raw, np.uint16, -(-count // 2)).byteswap().view(np.uint8)[:count]
        return np.frombuffer(raw, np.uint8 if bits == 8 else ">u2" if big else "<u2", count)

    def frame(self) -> bytes:
        """The encapsulated pixel data: all fragments, for there is one frame."""
        encaps = require("pydicom.encaps", "dicom")
        with _damage("the pixel data are"):
            stream = io.BytesIO(self.data)
            stream.seek(self.elements[_Tag.PixelData].value_tell)
            encaps.parse_basic_offsets(stream)
            return b"".join(encaps.generate_fragments(stream))


class _Stream(io.BytesIO):
    """Gives up after many reads: a file of 1 MB can be such that pydicom searches it for minutes."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads > _READS:
            raise RuntimeError
        return super().read(size)


def _read_header(data: bytes) -> _File:
    try:
        reader = require("pydicom", "dicom").filereader
    except MissingExtra as error:
        raise PhotoError(Code.NEEDS_EXTRA, f"it is a DICOM file. {error}") from None
    stream = _Stream(data)
    stream.seek(132)  # a preamble of 128 bytes, and "DICM"
    tags = [*_Tag, *_DESCRIPTORS, *_TABLES]
    with _damage("the DICOM file is"), _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd names of character sets
        meta = reader.data_element_generator(stream, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
        syntax = _File(data, {int(element.tag): element for element in meta}).text(_Tag.TransferSyntaxUID)
        _check_syntax(syntax)
        little, implicit = syntax != _BIG_ENDIAN, syntax == _IMPLICIT
        found = reader.data_element_generator(stream, implicit, little, defer_size=_DEFERRED, specific_tags=tags)
        elements = {int(element.tag): element for element in found if isinstance(element, reader.RawDataElement)}
    return _File(data, elements, syntax)


def _check_syntax(syntax: str) -> None:
    if not syntax:
        raise PhotoError(Code.DAMAGED, "the DICOM header names no transfer syntax")
    if syntax not in {_IMPLICIT, _EXPLICIT, _BIG_ENDIAN, _RLE, *_JPEGS}:  # deflated is not among them: it may be a bomb
        names = require("pydicom.uid", "dicom").UID_dictionary
        name = f"{names[syntax][0]} ({syntax})" if syntax in names else "a private transfer syntax"
        raise PhotoError(Code.UNKNOWN_FORMAT, f"DICOM in {name} is not read; {_ADVICE}")


class _Layout(NamedTuple):
    height: int
    width: int
    channels: int
    colour: str
    allocated: int  # bits of a sample in the file
    stored: int  # bits in use
    shift: int  # unused bits below these


def _check_layout(file: _File) -> _Layout:
    height, width = file.number(_Tag.Rows), file.number(_Tag.Columns)
    check_size(width, height)
    with _damage("the number of frames is"):
        frames = int(file.text(_Tag.NumberOfFrames) or 1)
    if frames > 1:
        raise PhotoError(Code.MULTI_PAGE, f"{frames} frames; save the photograph as a file of its own")
    channels, colour = file.number(_Tag.SamplesPerPixel), file.text(_Tag.PhotometricInterpretation)
    if channels == 1 and colour != "PALETTE COLOR":
        raise PhotoError(Code.NOT_COLOUR, ONE_CHANNEL)
    if _CHANNELS.get(colour) != channels:
        raise PhotoError(Code.UNKNOWN_FORMAT, f"{channels} channels of {colour[:16]!r}; convert the file to RGB first")
    allocated = file.number(_Tag.BitsAllocated)
    stored = file.number(_Tag.BitsStored, allocated)
    shift = file.number(_Tag.HighBit, stored - 1) + 1 - stored
    fits = (8 if channels == 3 else 1) <= stored and 0 <= shift <= allocated - stored
    if allocated not in (8, 16) or not fits or file.number(_Tag.PixelRepresentation, 0):
        reason = f"samples of {stored} in {allocated} bits, or signed, have no defined brightness"
        raise PhotoError(Code.FLOAT_IMAGE, f"{reason}; save as 8 or 16 bit, unsigned")
    return _Layout(height, width, channels, colour, allocated, stored, shift)


def _decode_jpeg(file: _File, layout: _Layout) -> NDArray[np.uint8]:
    """Whether the components are YCbCr the JPEG tells by a JFIF or Adobe segment; where it has none, the DICOM header does.

    Such a segment, since it follows, outdoes the one that is put in here.
    """
    if layout.stored != 8:
        raise PhotoError(Code.UNKNOWN_FORMAT, f"JPEG of {layout.stored} bits is not read; {_ADVICE}")
    frame = file.frame()
    if layout.colour == "RGB":
        frame = frame[:2] + _ADOBE_RGB + frame[2:]
    pixels = decode_jpeg(frame)
    if pixels.shape[:2] != layout[:2]:
        raise PhotoError(Code.DAMAGED, f"the JPEG has {pixels.shape[:2]} rows and columns, the header {layout[:2]}")
    return pixels


def _decode_samples(file: _File, layout: _Layout) -> NDArray[np.uint8]:
    with _damage("the pixel data are"):
        samples = _unpack_rle(file.frame(), layout) if file.syntax == _RLE else _arrange(file, layout)
        if layout.channels == 1:
            palette = _read_palette(file, 2**layout.stored)
            return np.asarray(palette[(samples[..., 0] >> layout.shift) & (len(palette) - 1)], np.uint8)
        pixels = (samples >> (layout.shift + layout.stored - 8)).astype(
            np.uint8, copy=False
        )  # the eight highest bits in use
        if layout.colour == "RGB":
            return pixels
        return np.asarray(cv2.cvtColor(pixels[..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB), np.uint8)  # C.7.6.3.1.2


def _arrange(file: _File, layout: _Layout) -> _Samples:
    """Samples (H, W, channels) of uncompressed pixel data."""
    height, width, channels, colour, allocated, *_ = layout
    if colour == "YBR_FULL_422":  # two neighbours: Y, Y, Cb, Cr
        pairs = file.numbers(_Tag.PixelData, height * width * 2, allocated).reshape(height, width // 2, 4)
        return np.dstack([pairs[..., :2].reshape(height, width), np.repeat(pairs[..., 2:], 2, axis=1)])
    samples = file.numbers(_Tag.PixelData, height * width * channels, allocated)
    if file.number(_Tag.PlanarConfiguration, 0):
        return samples.reshape(channels, height, width).transpose(1, 2, 0)
    return samples.reshape(height, width, channels)


def _unpack_rle(frame: bytes, layout: _Layout) -> _Samples:
    """Samples (H, W, channels) of DICOM's RLE (part 5, annex G): packed bits, one segment for each byte of a sample.

    pydicom's own decoder unpacks a segment, up to 64 times the file, before it looks how long it is; Pillow's knows.
    """
    height, width, channels, _, allocated, *_ = layout
    segments, *offsets = struct.unpack("<16L", frame[:64])
    if segments != channels * allocated // 8:
        raise ValueError
    size = (height * width, 1)  # one line, for some writers pack across lines
    planes = [
        np.asarray(Image.frombytes("L", size, frame[start:end], "packbits", "L"))
        for start, end in pairwise([*offsets[:segments], len(frame)])
    ]
    by_pixel = np.stack(planes).reshape(channels, -1, height, width).transpose(2, 3, 0, 1)
    return np.ascontiguousarray(by_pixel).view(f">u{allocated // 8}")[..., 0]


def _read_palette(file: _File, size: int) -> NDArray[np.uint8]:
    """The colours, (size, 3) RGB, of the samples 0 to size - 1 (C.7.6.3.1.5 and 6)."""
    channels = []
    for descriptor, table in zip(_DESCRIPTORS, _TABLES, strict=True):
        if table not in file.elements:
            raise PhotoError(
                Code.UNKNOWN_FORMAT, "its palette is missing or in segments; convert the file to RGB first"
            )
        entries, first, bits = map(int, file.numbers(descriptor, 3, 16))
        entries = entries or 2**16
        wide = (
            file.elements[table].length >= 2 * entries
        )  # entries of 8 bits may stand two in a word, or each in its own
        values = file.numbers(table, entries, 16 if wide else 8)[np.clip(np.arange(size) - first, 0, entries - 1)]
        channels.append(values >> (max(bits - 8, 0) if wide else 0))
    return np.stack(channels, axis=1).astype(np.uint8)
