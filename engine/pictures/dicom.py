"""Photographs in DICOM files (Ophthalmic Photography, VL, Secondary Capture): one frame in colour, strictly decoded.

JPEG is decoded as in other files, JPEG 2000 by OpenCV, JPEG-LS by pyjpegls; none of these is under the GPL.

pydicom walks through the file and hands over raw bytes. It is asked to convert none: its converters quote the values that
they dislike, a patient's too, in warnings and logs. Sections named below are those of the DICOM standard, part 3.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import Code, MissingExtra, PhotoError, require
from ..eyes import EYES, Eye
from .decode import ONE_CHANNEL, check_size, decode_jpeg

_Samples = NDArray[np.unsignedinteger[Any]]  # of 8 or 16 bits

_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_DEFLATED, _RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
_JPEGS = frozenset(f"1.2.840.10008.1.2.4.{process}" for process in (50, 51, 57, 70))  # baseline, extended, two lossless
_JPEG_LS = frozenset(f"1.2.840.10008.1.2.4.{process}" for process in (80, 81))
_WAVELETS = frozenset(f"1.2.840.10008.1.2.4.{process}" for process in (90, 91, 201, 202, 203))  # high-throughput, too
_READ = frozenset((_IMPLICIT, _EXPLICIT, _BIG_ENDIAN, _DEFLATED, _RLE)) | _JPEGS | _JPEG_LS | _WAVELETS
_CHANNELS = {"RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3, "PALETTE COLOR": 1}
_WAVELET_COLOURS = frozenset(("YBR_ICT", "YBR_RCT"))  # which the decoder itself makes RGB
_EYE_CODES: dict[str, Eye] = {
    **dict.fromkeys(("24028007", "G-A100", "18944008"), "right"),
    **dict.fromkeys(("7771000", "G-A101", "8966001"), "left"),
}  # of SNOMED CT, and as they were before 2018: right, left; the right eye, the left
_VRS = re.compile(rb"(AE|AS|AT|CS|DA|DS|DT|IS|LO|OB|OW|PN|SH|SQ|TM|UI|UL|UN|US)")
_NAMED = 64  # bytes of the first value of a file without a header, at most
_HEADS = (2**18, 2**21, 2**24)  # so much of a deflated file is looked at to find its picture
_INFLATED = 2**18  # bytes of padding that the picture may have there, and bytes that may follow
_DEFERRED = 2**18  # bytes; pydicom steps over longer values, which are pixels: a palette has 2**17 at most
_READS = 200_000  # an element takes one to four; a photograph has some hundred elements
_ADOBE_RGB = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"  # a JPEG segment that says: the components are R, G and B
_ADVICE = "convert the file to Explicit VR Little Endian first, for instance with gdcmconv --raw"
FILTERS = threading.Lock()  # Python has one list of warning filters for all threads


class _Tag(IntEnum):
    TransferSyntaxUID = 0x00020010
    SeriesDescription = 0x0008103E
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


# sequences, and what is in their items
_REGIONS, _MODIFIERS, _CODE, _MEANING = 0x00082218, 0x00082220, 0x00080100, 0x00080104
_SHARED, _BY_FRAME, _ANATOMY, _FRAME_LATERALITY = 0x52009229, 0x52009230, 0x00209071, 0x00209072
# of the palette's red, green and blue
_DESCRIPTORS, _TABLES = (0x00281101, 0x00281102, 0x00281103), (0x00281201, 0x00281202, 0x00281203)


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin as a DICOM file does, with its preamble or without."""
    return _start(data) is not None


def _start(data: bytes) -> tuple[int, str] | None:
    """Where the elements begin, and the transfer syntax where no header tells it; None of what is no DICOM file."""
    if data[128:132] == b"DICM":
        return 132, ""
    if data[:4] == b"DICM":
        return 4, ""
    group, vr = data[:2], data[4:6]
    if group == b"\2\0" and data[3:4] == b"\0" and vr in (b"UL", b"OB", b"UI"):
        return 0, ""
    if group == b"\0\x08" and data[2:3] == b"\0" and _VRS.fullmatch(vr):
        return 0, _BIG_ENDIAN
    if group == b"\x08\0" and data[3:4] == b"\0":
        if _VRS.fullmatch(vr):
            return 0, _EXPLICIT
        length = int.from_bytes(data[4:8], "little")
        if 0 < length <= _NAMED and length % 2 == 0:
            return 0, _IMPLICIT
    return None


def decode(data: bytes, frame: int | None = None) -> tuple[NDArray[np.uint8], str | None, Eye | None]:
    """The pixels, uint8 (H, W, 3) RGB as stored, the patient's pseudonym and the eye (see `Photo`) of a file's bytes.

    Args:
        data: The file.
        frame: Which, from 1 on; a file of several is refused without it.

    Raises: PhotoError, which knows patient and eye where the header could be read; NEEDS_EXTRA where pydicom is absent.
    Every limit is told from the header, nothing decoded.
    """
    file = _read_header(data, frame or 1)
    identity, issuer = file.value(_Tag.PatientID), file.value(_Tag.IssuerOfPatientID)
    patient = hashlib.sha256(issuer + b"|" + identity).hexdigest()[:16] if identity else None
    try:
        layout = _check_layout(file, frame)
        if file.deflated:
            file = file.inflated(layout)
        pixels = _decode_jpeg(file, layout) if file.syntax in _JPEGS else _decode_samples(file, layout)
    except PhotoError as error:  # a picture that cannot be read is still one of this patient's
        error.patient, error.eye = patient, file.eye
        raise
    return pixels, patient, file.eye


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
    eye: Eye | None = None
    deflated: bytes = b""  # what `data` is the beginning of

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

    def numbers(self, tag: int, count: int, bits: int, skipped: int = 0) -> _Samples:
        """`count` numbers of 8 or 16 bits of an element, not copied, without the first. Raises: ValueError, KeyError."""
        element, big = self.elements[tag], self.syntax == _BIG_ENDIAN
        end = element.value_tell + element.length  # of fragments 2**32 - 1, and no file is so long
        if end > len(self.data):
            raise ValueError
        raw = memoryview(self.data)[element.value_tell : end]
        if bits == 8 and big and element.VR == "OW":  # two numbers in one big-endian word
            words = np.frombuffer(raw, np.uint16, -(-(skipped + count) // 2))
            return words.byteswap().view(np.uint8)[skipped : skipped + count]
        return np.frombuffer(raw, np.uint8 if bits == 8 else ">u2" if big else "<u2", count, skipped * bits // 8)

    def frame(self, layout: _Layout) -> bytes:
        """The encapsulated pixel data of a frame: of a file with one, all fragments."""
        encaps = require("pydicom.encaps", "dicom")
        with _damage("the pixel data are"):
            stream = _Stream(self.data)
            stream.seek(self.elements[_Tag.PixelData].value_tell)
            if layout.frames > 1:
                return bytes(encaps.get_frame(stream, layout.frame, number_of_frames=layout.frames))
            encaps.parse_basic_offsets(stream)
            return b"".join(encaps.generate_fragments(stream))

    def inflated(self, layout: _Layout) -> _File:
        """The file with its picture, and no more of what was deflated than its header says. Raises PhotoError."""
        with _damage("the deflated data are"):
            pixels = self.elements[_Tag.PixelData]
            samples = 2 if layout.colour == "YBR_FULL_422" else layout.channels
            size = layout.frames * layout.height * layout.width * samples * layout.allocated // 8
            size += size % 2
            if not size <= pixels.length <= size + _INFLATED:
                raise ValueError
            end, whole = pixels.value_tell + size, zlib.decompressobj(-zlib.MAX_WBITS)
            data = whole.decompress(self.deflated, end)
            whole.decompress(whole.unconsumed_tail, 2 * _INFLATED)
            if len(data) < end or not whole.eof:
                raise ValueError
        return replace(self, data=data, elements={**self.elements, _Tag.PixelData: pixels._replace(length=size)})


class _Stream(io.BytesIO):
    """Gives up after many reads: a file of 1 MB can be such that pydicom searches it for minutes."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads > _READS:
            raise RuntimeError
        return super().read(size)


def _required(module: str) -> ModuleType:
    try:
        return require(module, "dicom")
    except MissingExtra as error:
        raise PhotoError(Code.NEEDS_EXTRA, f"it is a DICOM file. {error}") from None


def _read_header(data: bytes, frame: int) -> _File:
    reader = _required("pydicom").filereader
    start, syntax = _start(data) or (132, "")
    with _damage("the DICOM file is"), FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd names of character sets
        stream = _Stream(data)
        stream.seek(start)
        if not syntax:
            meta = reader.data_element_generator(stream, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
            syntax = _File(data, {int(element.tag): element for element in meta}).text(_Tag.TransferSyntaxUID)
        _check_syntax(syntax)
        if syntax != _DEFLATED:
            elements = _elements(reader, stream, syntax)
            return _File(data, elements, syntax, _eye(reader, elements, data, syntax, frame))
        deflated, elements, head = data[stream.tell() :], {}, b""
        for size in _HEADS:
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, size)
            elements = _elements(reader, _Stream(head), _EXPLICIT)
            if _Tag.PixelData in elements or len(head) < size:
                break
        return _File(head, elements, _EXPLICIT, _eye(reader, elements, head, _EXPLICIT, frame), deflated)


def _elements(reader: Any, stream: _Stream, syntax: str) -> dict[int, Any]:
    """What is needed of a file, from here on."""
    tags = [*_Tag, *_DESCRIPTORS, *_TABLES, _REGIONS, _SHARED, _BY_FRAME]
    little, implicit = syntax != _BIG_ENDIAN, syntax == _IMPLICIT
    found = reader.data_element_generator(stream, implicit, little, defer_size=_DEFERRED, specific_tags=tags)
    return {
        int(own.tag): own
        for own in found
        if isinstance(own, reader.RawDataElement) or own.tag in (_SHARED, _BY_FRAME, _REGIONS)
    }


def _eye(reader: Any, elements: dict[int, Any], data: bytes, syntax: str, frame: int) -> Eye | None:
    """Whose eye it is, by the first place that says anything: frame, picture, series, anatomic region, description."""

    def items(element: Any) -> Any:
        """Of a sequence: read already where its length was not told."""
        if not isinstance(element, reader.RawDataElement):
            return () if element is None else element.value
        raw = data[element.value_tell : element.value_tell + element.length] if element.value is None else element.value
        stream = _Stream(raw or b"")
        return reader.read_sequence(stream, syntax == _IMPLICIT, syntax != _BIG_ENDIAN, len(raw or b""), ["latin-1"])

    def text(item: Any, tag: int) -> str:
        element = item.get_item(tag) if tag in item else None
        value = getattr(element, "value", None) or b""
        return (value.decode("latin-1") if isinstance(value, bytes) else str(value)).strip(" \0")

    def coded(item: Any) -> Eye | None:
        return _EYE_CODES.get(text(item, _CODE)) or EYES.get(text(item, _MEANING).lower())

    def places() -> Iterator[str]:
        for groups, number in ((_BY_FRAME, frame - 1), (_SHARED, 0)):
            for group in list(items(elements.get(groups)))[number : number + 1]:
                for anatomy in items(group.get_item(_ANATOMY) if _ANATOMY in group else None):
                    yield text(anatomy, _FRAME_LATERALITY)
        for tag in (_Tag.ImageLaterality, _Tag.Laterality):
            yield file.text(tag)
        for region in items(elements.get(_REGIONS)):
            for modifier in items(region.get_item(_MODIFIERS) if _MODIFIERS in region else None):
                yield coded(modifier) or ""
            yield coded(region) or ""
        words = set(re.findall(r"\b(OD|OS)\b", file.text(_Tag.SeriesDescription)))
        yield words.pop() if len(words) == 1 else ""

    file = _File(data, elements)
    try:
        return EYES.get(next((word for word in places() if word), "").lower())
    except Exception:  # a sequence that cannot be read says nothing; the picture has checks of its own
        return None


def _check_syntax(syntax: str) -> None:
    if not syntax:
        raise PhotoError(Code.DAMAGED, "the DICOM header names no transfer syntax")
    if syntax not in _READ:
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
    frames: int
    frame: int  # which of them, from 0 on


def _check_layout(file: _File, frame: int | None) -> _Layout:
    height, width = file.number(_Tag.Rows), file.number(_Tag.Columns)
    check_size(width, height)
    with _damage("the number of frames is"):
        frames = int(file.text(_Tag.NumberOfFrames) or 1)
    if frames > 1 and frame is None:
        raise PhotoError(
            Code.MULTI_PAGE,
            f"{frames} frames; say which of them, from 1 on, or save the photograph as a file of its own",
        )
    wanted = 1 if frame is None else frame
    if not 1 <= wanted <= max(frames, 1):
        raise PhotoError(Code.MULTI_PAGE, f"there is no frame {frame}; the file has {frames}")
    channels, colour = file.number(_Tag.SamplesPerPixel), file.text(_Tag.PhotometricInterpretation)
    if channels == 1 and colour != "PALETTE COLOR":
        raise PhotoError(Code.NOT_COLOUR, ONE_CHANNEL)
    if colour in _WAVELET_COLOURS and file.syntax in _WAVELETS:
        colour = "RGB"
    if _CHANNELS.get(colour) != channels:
        raise PhotoError(Code.UNKNOWN_FORMAT, f"{channels} channels of {colour[:16]!r}; convert the file to RGB first")
    allocated = file.number(_Tag.BitsAllocated)
    stored = file.number(_Tag.BitsStored, allocated)
    shift = file.number(_Tag.HighBit, stored - 1) + 1 - stored
    fits = (8 if channels == 3 else 1) <= stored and 0 <= shift <= allocated - stored
    if allocated not in (8, 16) or not fits or file.number(_Tag.PixelRepresentation, 0):
        reason = f"samples of {stored} in {allocated} bits, or signed, have no defined brightness"
        raise PhotoError(Code.FLOAT_IMAGE, f"{reason}; save as 8 or 16 bit, unsigned")
    return _Layout(height, width, channels, colour, allocated, stored, shift, max(frames, 1), wanted - 1)


def _decode_jpeg(file: _File, layout: _Layout) -> NDArray[np.uint8]:
    """Whether the components are YCbCr the JPEG tells by a JFIF or Adobe segment; where it has none, the DICOM header does.

    Such a segment, since it follows, outdoes the one that is put in here.
    """
    if layout.stored != 8:
        raise PhotoError(Code.UNKNOWN_FORMAT, f"JPEG of {layout.stored} bits is not read; {_ADVICE}")
    frame = file.frame(layout)
    if layout.colour == "RGB":
        frame = frame[:2] + _ADOBE_RGB + frame[2:]
    pixels = decode_jpeg(frame)
    if pixels.shape[:2] != layout[:2]:
        raise PhotoError(Code.DAMAGED, f"the JPEG has {pixels.shape[:2]} rows and columns, the header {layout[:2]}")
    return pixels


def _decode_samples(file: _File, layout: _Layout) -> NDArray[np.uint8]:
    with _damage("the pixel data are"):
        if file.syntax == _RLE:
            samples = _unpack_rle(file.frame(layout), layout)
        elif file.syntax in _JPEG_LS:
            samples, layout = _decode_jpeg_ls(file.frame(layout), layout)
        elif file.syntax in _WAVELETS:
            samples, layout = _decode_wavelets(file.frame(layout), layout)
        else:
            samples = _arrange(file, layout)
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
        size = height * width * 2
        pairs = file.numbers(_Tag.PixelData, size, allocated, layout.frame * size).reshape(height, width // 2, 4)
        return np.dstack([pairs[..., :2].reshape(height, width), np.repeat(pairs[..., 2:], 2, axis=1)])
    size = height * width * channels
    samples = file.numbers(_Tag.PixelData, size, allocated, layout.frame * size)
    if file.number(_Tag.PlanarConfiguration, 0):
        return samples.reshape(channels, height, width).transpose(1, 2, 0)
    return samples.reshape(height, width, channels)


def _agreed(layout: _Layout, height: int, width: int, channels: int, bits: int) -> _Layout:
    """The layout with the bits that the compressed frame says it has. Raises PhotoError where it has another size."""
    if (height, width, channels) != (layout.height, layout.width, layout.channels):
        told = f"{height} rows, {width} columns, {channels} channels"
        raise PhotoError(Code.DAMAGED, f"the compressed frame has {told}, which the header does not say")
    if not (8 if channels == 3 else 1) <= bits <= 16:
        raise PhotoError(Code.FLOAT_IMAGE, f"samples of {bits} bits; save as 8 or 16 bit, unsigned")
    colour = "YBR_FULL" if layout.colour == "YBR_FULL_422" else layout.colour  # at full resolution, as it is here
    return layout._replace(colour=colour, allocated=8 if bits <= 8 else 16, stored=bits, shift=0)


def _decode_jpeg_ls(frame: bytes, layout: _Layout) -> tuple[_Samples, _Layout]:
    """Samples (H, W, channels) of a JPEG-LS stream (ISO/IEC 14495-1, annex C), and their bits."""
    charls, at = _required("jpeg_ls"), 2
    while frame[at] == 0xFF and frame[at + 1] != 0xF7:  # segments before that of the frame
        at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    bits, height, width, channels = struct.unpack_from(">BHHB", frame, at + 4)
    layout = _agreed(layout, height, width, channels, bits)
    data, told = charls.decode_buffer(frame)
    samples = np.frombuffer(data, np.uint8 if bits <= 8 else "<u2", height * width * channels)
    if told["interleave_mode"] == 0:
        return samples.reshape(channels, height, width).transpose(1, 2, 0), layout
    return samples.reshape(height, width, channels), layout


def _decode_wavelets(frame: bytes, layout: _Layout) -> tuple[_Samples, _Layout]:
    """Samples (H, W, channels) of a JPEG 2000 codestream (ISO/IEC 15444-1, annex A), and their bits.

    It is put into a file that calls its channels RGB, so that nothing takes colours for others; a file's own words are left out.
    """
    frame = frame[frame.index(b"\xff\x4f\xff\x51") :]
    right, bottom, left, top = struct.unpack_from(">4L", frame, 8)
    (channels,) = struct.unpack_from(">H", frame, 40)
    (depth, *steps), *others = [struct.unpack_from(">3B", frame, 42 + 3 * k) for k in range(min(channels, 3))]
    layout = _agreed(layout, bottom - top, right - left, channels, (depth & 0x7F) + 1)
    if depth & 0x80 or steps != [1, 1] or any(other != (depth, 1, 1) for other in others):
        raise PhotoError(Code.UNKNOWN_FORMAT, f"JPEG 2000 with signed or unlike channels is not read; {_ADVICE}")
    colours = 16 if channels == 3 else 17  # sRGB, grey
    sizes = struct.pack(">LLHBBBB", layout.height, layout.width, channels, depth, 7, 1, 0)
    header = _box(b"ihdr", sizes) + _box(b"colr", struct.pack(">BBBL", 1, 0, 0, colours))
    start = _box(b"jP  ", b"\r\n\x87\n") + _box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + _box(b"jp2h", header)
    decoded = cv2.imdecode(np.frombuffer(start + _box(b"jp2c", frame), np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.shape[:2] != layout[:2] or decoded.dtype not in (np.uint8, np.uint16):
        raise ValueError
    samples: _Samples = decoded.reshape(layout.height, layout.width, channels)  # type: ignore[assignment]
    return samples[..., ::-1], layout  # OpenCV's order is blue, green, red


def _box(kind: bytes, content: bytes) -> bytes:
    """A part of a JPEG 2000 file."""
    return struct.pack(">L4s", 8 + len(content), kind) + content


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
