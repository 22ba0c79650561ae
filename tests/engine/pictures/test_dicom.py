"""DICOM photographs: the same picture as its PNG or JPEG, or a refusal; the eye and the pseudonym; nothing of the patient."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import logging
import struct
import sys
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.pixels.processing import convert_color_space

from funduscope.engine.errors import Code, PhotoError
from funduscope.engine.eyes import Listed
from funduscope.engine.pictures import decode, photo

ROWS, COLUMNS = np.mgrid[:160, :200]
PICTURE = np.dstack([60 + ROWS, 200 - COLUMNS // 2, (ROWS + COLUMNS) // 4]).astype(np.uint8)
DEEP = PICTURE.astype("<u2") * 256 + 77
ODD = PICTURE[:159, :199]
PLANES = PICTURE.transpose(2, 0, 1)
BIG, LITTLE, IMPLICIT = uid.ExplicitVRBigEndian, uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian
NAME, IDENTITY = "Canary^Yellow", "CANARY-4711"


def coded(format: str, pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format, **options)
    return stream.getvalue()


def encoded(format: str, **options) -> bytes:
    return coded(format, PICTURE, **options)


def without_segments(data: bytes) -> bytes:
    """A JPEG without its APPn segments: nothing in it says which colours the components are."""
    kept, at = data[:2], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        kept += b"" if 0xE0 <= data[at + 1] <= 0xEF else data[at:end]
        at = end
    return kept + data[at:]


def numbered(data: bytes) -> bytes:
    """A JPEG whose components are called 1, 2, 3 instead of R, G, B."""
    return data.replace(b"R\x11\0G\x11\0B\x11\0", b"\1\x11\0\2\x11\0\3\x11\0").replace(b"R\0G\0B\0", b"\1\0\2\0\3\0")


def swapped(pixels: np.ndarray) -> bytes:
    """Bytes in big-endian words of two."""
    data = pixels.tobytes()
    return np.frombuffer(data + bytes(len(data) % 2), np.uint16).byteswap().tobytes()


def dicom(pixels: np.ndarray | bytes | None, syntax: str = LITTLE, vr: str | None = None, **elements) -> bytes:
    """A DICOM file of PICTURE's size, RGB unless `elements` say otherwise; None leaves an element out."""
    height, width = pixels.shape[:2] if isinstance(pixels, np.ndarray) and pixels is not PLANES else PICTURE.shape[:2]
    bits = elements.get("BitsAllocated") or 8 * getattr(pixels, "itemsize", 1)
    standard = {"PatientName": NAME, "PatientID": IDENTITY, "SOPInstanceUID": "1.2.3", "Rows": height, "Columns": width}
    standard |= {"SOPClassUID": uid.OphthalmicPhotography8BitImageStorage, "SamplesPerPixel": 3}
    standard |= {"PhotometricInterpretation": "RGB", "PlanarConfiguration": int(pixels is PLANES)}
    standard |= {"BitsAllocated": bits, "BitsStored": bits, "PixelRepresentation": 0}
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    with warnings.catch_warnings(action="ignore"):  # some values are wrong on purpose
        for keyword, value in (standard | elements).items():
            if value is not None:
                setattr(dataset, keyword, value)
        if pixels is not None:
            data = (
                pixels if isinstance(pixels, bytes) else pixels.astype(f"{'<>'[syntax == BIG]}u{bits // 8}").tobytes()
            )
            dataset.PixelData = data + bytes(len(data) % 2)
            dataset["PixelData"].VR = vr or ("OW" if bits > 8 or syntax == IMPLICIT else "OB")
            dataset["PixelData"].is_undefined_length = uid.UID(syntax).is_encapsulated
        stream = io.BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def rle(pixels: np.ndarray, **elements) -> bytes:
    bits, channels = 8 * pixels.itemsize, pixels[0, 0].size
    size = {"rows": pixels.shape[0], "columns": pixels.shape[1], "samples_per_pixel": channels, "number_of_frames": 1}
    sample = {"bits_allocated": bits, "bits_stored": bits, "pixel_representation": 0, "planar_configuration": 0}
    colour = {"photometric_interpretation": "RGB" if channels == 3 else "PALETTE COLOR"}
    frame = RLELosslessEncoder.encode(pixels.tobytes(), **size, **sample, **colour)
    layout = {"Rows": pixels.shape[0], "Columns": pixels.shape[1], "BitsAllocated": bits}
    return dicom(encapsulate([frame]), uid.RLELossless, **layout | elements)


def as_jpeg(frame: bytes, colour: str = "YBR_FULL_422", fragments: int = 1, **elements) -> bytes:
    pixels = encapsulate([frame], fragments, has_bot=fragments == 1)
    return dicom(pixels, uid.JPEGBaseline8Bit, PhotometricInterpretation=colour, **elements)


ICON = pydicom.Dataset()
ICON.Rows, ICON.Columns, ICON.PatientID, ICON.PixelData = 7, 9, "another", bytes(64)
ICON["PixelData"].VR = "OB"
ICON.is_undefined_length_sequence_item = True
ICONS = pydicom.Sequence([ICON])
ICONS.is_undefined_length = True

IDENTICAL = {
    "implicit": (dicom(PICTURE, IMPLICIT), PICTURE),
    "explicit": (dicom(PICTURE), PICTURE),
    "big-endian": (dicom(PICTURE, BIG), PICTURE),
    "big-endian words": (dicom(swapped(PICTURE), BIG, "OW"), PICTURE),
    "implicit, by planes": (dicom(PLANES, IMPLICIT), PICTURE),
    "big-endian, by planes": (dicom(PLANES, BIG), PICTURE),
    "odd size": (dicom(ODD), ODD),
    "odd size, big-endian words": (dicom(swapped(ODD), BIG, "OW", Rows=159, Columns=199), ODD),
    "odd size, RLE": (rle(ODD), ODD),
    "16 bits, implicit": (dicom(DEEP, IMPLICIT), PICTURE),
    "16 bits, big-endian": (dicom(DEEP, BIG), PICTURE),
    "16 bits, RLE": (rle(DEEP), PICTURE),
    "12 bits, junk above": (dicom(DEEP >> 4 | 0xF000, BitsStored=12, HighBit=11), PICTURE),
    "12 bits, no high bit": (dicom(DEEP >> 4, BitsStored=12), PICTURE),
    "12 bits, the upper": (dicom(DEEP, BitsStored=12, HighBit=15), PICTURE),
    "8 of 16 bits": (dicom(DEEP >> 8, BitsStored=8), PICTURE),
    "RLE": (rle(PICTURE), PICTURE),
    "no planar configuration": (dicom(PICTURE, PlanarConfiguration=None), PICTURE),
    "an empty planar configuration": (dicom(PICTURE, PlanarConfiguration=""), PICTURE),
    "Secondary Capture": (dicom(PICTURE, SOPClassUID=uid.SecondaryCaptureImageStorage), PICTURE),
    "one frame": (dicom(PICTURE, NumberOfFrames=1), PICTURE),
    "padding": (dicom(PICTURE.tobytes() + bytes(1000)), PICTURE),
    "misspelt character set": (dicom(PICTURE, SpecificCharacterSet="ISO-IR 192"), PICTURE),
    "an icon": (dicom(PICTURE, IconImageSequence=ICONS), PICTURE),
    "TIFF header as preamble": (b"II*\0" + dicom(PICTURE)[4:], PICTURE),
}


@pytest.mark.parametrize("case", IDENTICAL)
def test_the_same_picture_as_its_png(case):
    data, expected = IDENTICAL[case]
    read = photo.load(data)
    np.testing.assert_array_equal(read.pixels, expected)
    assert read.pixels.dtype == np.uint8
    assert read.pixels.flags.c_contiguous
    assert read.pixels.flags.writeable
    np.testing.assert_array_equal(photo.load(encoded("PNG")).pixels, PICTURE)


FOREIGN = Path(pydicom.__file__).with_name("data") / "test_files"  # by GDCM, DCMTK and others; most are 100 x 100


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "path", [*FOREIGN.glob("SC_*.dcm"), *FOREIGN.glob("examples_[!o]*.dcm")], ids=lambda path: path.name
)
def test_files_by_other_writers_are_read_as_pydicom_reads_them(path, monkeypatch):
    monkeypatch.setattr(decode, "MIN_SIDE", 1)
    dataset = pydicom.dcmread(path)
    try:
        pixels = photo.load(path).pixels
    except PhotoError as error:
        if error.code is Code.NEEDS_EXTRA:
            pytest.skip(error.reason)
        assert error.code in (Code.UNKNOWN_FORMAT, Code.MULTI_PAGE, Code.FLOAT_IMAGE)  # noqa: PT017
        assert any(word in path.name for word in ("_KY", "2frame", "32bit", "ybr_color"))  # the last has 30 frames
        if error.code is not Code.MULTI_PAGE or "32bit" in path.name:
            return
        pixels, dataset = photo.load(path, frame=2).pixels, pydicom.dcmread(path)
        expected = pixel_array(dataset, index=1)
        assert np.abs(pixels - (expected >> 8 * (expected.dtype == np.uint16)).astype(int)).max() <= 1
        return
    if path.name == "SC_rgb_jpeg_gdcm.dcm":  # lossless, which pydicom alone does not read, of the same picture
        dataset = pydicom.dcmread(FOREIGN / "SC_rgb_rle.dcm")
    expected = pixel_array(dataset)
    if expected.ndim == 2:
        expected = apply_color_lut(expected, dataset)
    if expected.dtype == np.uint16:
        expected = expected >> 8
    assert np.abs(pixels - expected.astype(int)).max() <= 1  # of rounding


YBR = convert_color_space(PICTURE, "RGB", "YBR_FULL")
HALF = YBR.copy()
HALF[:, 1::2, 1:] = YBR[:, ::2, 1:]  # two neighbours have one colour
PAIRS = HALF.reshape(160, 100, 6)[..., [0, 3, 1, 2]].tobytes()
LUMA_PAIRS = {"PhotometricInterpretation": "YBR_FULL_422"}
LUMA = {
    "by pixel": (dicom(YBR, PhotometricInterpretation="YBR_FULL"), YBR),
    "16 bits": (dicom(YBR.astype(np.uint16) << 8, PhotometricInterpretation="YBR_FULL"), YBR),
    "RLE": (rle(YBR, PhotometricInterpretation="YBR_FULL"), YBR),
    "pairs": (dicom(PAIRS, **LUMA_PAIRS), HALF),
    "pairs, big-endian": (dicom(PAIRS, BIG, **LUMA_PAIRS), HALF),
}


@pytest.mark.parametrize("case", LUMA)
def test_luma_and_chroma_become_rgb(case):
    data, expected = LUMA[case]
    difference = photo.load(data).pixels - convert_color_space(expected, "YBR_FULL", "RGB").astype(int)
    assert np.abs(difference).max() <= 1  # of rounding


QUANTISED = Image.fromarray(PICTURE).quantize(256)
INDICES = np.asarray(QUANTISED)
TABLES = np.array(QUANTISED.getpalette(), np.uint8).reshape(-1, 3).T


def palette(bits: int, tables: np.ndarray = TABLES, first: int = 0) -> dict:
    elements: dict = {"SamplesPerPixel": 1, "PhotometricInterpretation": "PALETTE COLOR"}
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [len(table) % 2**16, first, bits]
        elements[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
    return elements


WORDS = TABLES * np.uint16(257)
PALETTES = {
    "8 bits": dicom(INDICES, **palette(8)),
    "8 bits, a word each": dicom(INDICES, **palette(8, TABLES.astype("<u2"))),
    "16 bits": dicom(INDICES, **palette(16, WORDS)),
    "16 bits, big-endian": dicom(INDICES, BIG, **palette(16, WORDS.astype(">u2"))),
    "65,536 colours": dicom(INDICES.astype("<u2"), **palette(8, np.resize(TABLES.T, (2**16, 3)).T.astype("<u2"))),
    "from 1000 on": dicom(INDICES + np.uint16(1000), IMPLICIT, **palette(16, WORDS, 1000)),
    "8 of 16 bits, junk above": dicom(INDICES + np.uint16(0x700), BitsStored=8, **palette(16, WORDS)),
    "RLE": rle(INDICES, **palette(16, WORDS)),
}


@pytest.mark.parametrize("case", PALETTES)
def test_a_palette_gives_the_picture_that_was_quantised(case):
    np.testing.assert_array_equal(photo.load(PALETTES[case]).pixels, np.asarray(QUANTISED.convert("RGB")))


JPEG, JPEG_RGB = encoded("JPEG"), encoded("JPEG", keep_rgb=True)
TURNED = Image.Exif()
TURNED[274] = 6
JPEGS = {
    "JFIF": (as_jpeg(JPEG), JPEG),
    "JFIF, called RGB": (as_jpeg(JPEG, "RGB"), JPEG),
    "Adobe, called YBR": (as_jpeg(JPEG_RGB), JPEG_RGB),
    "no word, called YBR": (as_jpeg(without_segments(JPEG)), JPEG),
    "no word, called RGB": (as_jpeg(numbered(without_segments(JPEG_RGB)), "RGB"), JPEG_RGB),
    "fragments": (as_jpeg(JPEG, fragments=4), JPEG),
    "orientation, which DICOM does not know": (as_jpeg(encoded("JPEG", exif=TURNED)), JPEG),
}


@pytest.mark.parametrize("case", JPEGS)
def test_the_same_picture_as_its_jpeg(case):
    data, expected = JPEGS[case]
    np.testing.assert_array_equal(photo.load(data).pixels, photo.load(expected).pixels)


SYNTAXES = {"implicit": IMPLICIT, "explicit": LITTLE, "big-endian": BIG}
SYNTAXES["deflated"] = uid.DeflatedExplicitVRLittleEndian
PAINTED = np.asarray(QUANTISED.convert("RGB"))
FLAT = np.dstack([np.full((128, 128), value, np.uint8) for value in (200, 90, 40)])
UNREAD_BY_PYDICOM = {
    ("JPEG 2000 lossless", "RGB, 16 bits"),  # with Pillow
    ("HTJ2K", "YBR_RCT"),
    ("JPEG 2000 lossless", "PALETTE COLOR"),
}


def rgb(pixels: np.ndarray) -> np.ndarray:
    return convert_color_space(pixels, "YBR_FULL", "RGB")


FRAMES = np.stack([PICTURE, PICTURE[::-1], PICTURE[:, ::-1]])


def jpeg_ls(pixels: np.ndarray, colour: str = "RGB", near: int = 0, mode: int = 2, **elements) -> bytes:
    charls = pytest.importorskip("jpeg_ls")
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)) if mode == 0 and pixels.ndim == 3 else pixels
    frame = bytes(charls.encode_array(planes, lossy_error=near, interleave_mode=mode if pixels.ndim == 3 else 0))
    bits = {"BitsAllocated": 8 * pixels.itemsize, "BitsStored": 8 * pixels.itemsize}
    syntax = uid.JPEGLSNearLossless if near else uid.JPEGLSLossless
    return dicom(encapsulate([frame]), syntax, **({"PhotometricInterpretation": colour} | bits | elements))


def wavelets_of(pixels: np.ndarray) -> bytes:
    """The codestream of samples of 16 bits."""
    _, file = cv2.imencode(".jp2", pixels[..., ::-1])  # without loss
    data = file.tobytes()
    return data[data.index(b"\xff\x4f\xff\x51") :]


DEEP_ELEMENTS = {"BitsAllocated": 16, "BitsStored": 16}
HIGH_THROUGHPUT = base64.b64decode(  # of FLAT, by OpenJPH
    "/0//UQAvQAAAAACAAAAAgAAAAAAAAAAAAAAAgAAAAIAAAAAAAAAAAAADBwEBBwEBBwEB/1AACAACAAAABP9SAAwAAgABAQYEBEAB"
    "/1wAFiBQWFhgWFhYWFhYWFhYWFhYUFBQ/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAEAAAf+TwBOArW3bAAG0AMAV"
    "AON4PP4AQbQAwBUAWm1t7QCBtAAAAAAAAAAAAAAAAAAAAAAAAAD/2Q=="
)
TABLE = {  # transfer syntax, photometric interpretation: the file, what it shows, how far it may be from that
    ("implicit", "RGB"): lambda: (dicom(PICTURE, IMPLICIT), PICTURE, 0),
    ("explicit", "RGB"): lambda: (dicom(PICTURE), PICTURE, 0),
    ("big-endian", "RGB"): lambda: (dicom(PICTURE, BIG), PICTURE, 0),
    ("deflated", "RGB"): lambda: (deflated(PICTURE), PICTURE, 0),
    ("deflated", "RGB, 16 bits"): lambda: (deflated(DEEP), PICTURE, 0),
    ("RLE", "RGB"): lambda: (rle(PICTURE), PICTURE, 0),
    **{
        (name, "YBR_FULL"): lambda syntax=syntax: (dicom(YBR, syntax, PhotometricInterpretation="YBR_FULL"), PICTURE, 2)
        for name, syntax in SYNTAXES.items()
    },
    **{
        (name, "YBR_FULL_422"): lambda syntax=syntax: (dicom(PAIRS, syntax, **LUMA_PAIRS), rgb(HALF), 1)
        for name, syntax in SYNTAXES.items()
    },
    **{
        (name, "PALETTE COLOR"): lambda syntax=syntax: (dicom(INDICES, syntax, **palette(8)), PAINTED, 0)
        for name, syntax in SYNTAXES.items()
        if syntax != BIG
    },
    ("RLE", "YBR_FULL"): lambda: (rle(YBR, PhotometricInterpretation="YBR_FULL"), PICTURE, 2),
    ("RLE", "PALETTE COLOR"): lambda: (rle(INDICES, **palette(16, WORDS)), PAINTED, 0),
    ("JPEG", "YBR_FULL_422"): lambda: (as_jpeg(JPEG), PICTURE, 12),
    ("JPEG", "RGB"): lambda: (as_jpeg(numbered(without_segments(JPEG_RGB)), "RGB"), PICTURE, 12),
    ("JPEG 2000 lossless", "YBR_RCT"): lambda: (wavelets(WAVELETS), PICTURE, 0),
    ("JPEG 2000 lossless", "RGB"): lambda: (
        wavelets(coded("JPEG2000", PICTURE, no_jp2=True, irreversible=False, mct=0), "RGB"),
        PICTURE,
        0,
    ),
    ("JPEG 2000 lossless", "RGB in a whole file"): lambda: (wavelets(coded("JPEG2000", PICTURE), "RGB"), PICTURE, 0),
    ("JPEG 2000 lossless", "YBR_FULL"): lambda: (
        wavelets(coded("JPEG2000", YBR, no_jp2=True, irreversible=False, mct=0), "YBR_FULL"),
        PICTURE,
        2,
    ),
    ("JPEG 2000 lossless", "PALETTE COLOR"): lambda: (
        wavelets(coded("JPEG2000", INDICES, no_jp2=True), **palette(8)),
        PAINTED,
        0,
    ),
    ("JPEG 2000 lossless", "RGB, 16 bits"): lambda: (wavelets(wavelets_of(DEEP), "RGB", **DEEP_ELEMENTS), PICTURE, 0),
    ("JPEG 2000", "YBR_ICT"): lambda: (
        wavelets(
            coded("JPEG2000", PICTURE, no_jp2=True, irreversible=True, quality_layers=[8]), "YBR_ICT", uid.JPEG2000
        ),
        PICTURE,
        12,
    ),
    ("HTJ2K", "YBR_RCT"): lambda: (wavelets(HIGH_THROUGHPUT, syntax=uid.HTJ2KLossless, Rows=128, Columns=128), FLAT, 0),
    **{
        ("JPEG-LS lossless", f"RGB by {name}"): lambda mode=mode: (jpeg_ls(PICTURE, mode=mode), PICTURE, 0)
        for mode, name in enumerate(("plane", "line", "pixel"))
    },
    ("JPEG-LS lossless", "RGB, 16 bits"): lambda: (jpeg_ls(DEEP), PICTURE, 0),
    ("JPEG-LS lossless", "YBR_FULL"): lambda: (jpeg_ls(YBR, "YBR_FULL"), PICTURE, 2),
    ("JPEG-LS lossless", "PALETTE COLOR"): lambda: (jpeg_ls(INDICES, **palette(8)), PAINTED, 0),
    ("JPEG-LS near-lossless", "RGB"): lambda: (jpeg_ls(PICTURE, near=3), PICTURE, 3),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", TABLE, ids=" as ".join)
def test_each_transfer_syntax_is_read_as_pydicom_reads_it(case):
    data, shown, apart = TABLE[case]()
    read = photo.load(data).pixels
    assert np.abs(read - shown.astype(int)).max() <= apart
    if case in UNREAD_BY_PYDICOM:
        return
    dataset = pydicom.dcmread(io.BytesIO(data))
    theirs = pixel_array(dataset)
    if theirs.ndim == 2:
        theirs = apply_color_lut(theirs, dataset)
    theirs = theirs >> 8 if theirs.dtype == np.uint16 and theirs.max() > 255 else theirs
    assert np.abs(read - theirs.astype(int)).max() <= 1  # of rounding


def test_the_table_can_fail():  # a picture of other colours is far from what is shown
    assert np.abs(photo.load(wavelets(WAVELETS)).pixels[..., ::-1] - PICTURE.astype(int)).max() > 50


@pytest.mark.parametrize("near", [0, 3])
def test_damage_in_jpeg_ls_is_told(near):
    data = bytearray(jpeg_ls(PICTURE, near=near))
    for at in range(len(data) - 3000, len(data) - 100, 211):
        assert refused(bytes(data[:at])).code is Code.DAMAGED
    wrong = jpeg_ls(PICTURE, near=near, Rows=200, Columns=160)
    assert refused(wrong).code is Code.DAMAGED


def test_without_pyjpegls_its_pip_line_is_told(monkeypatch):
    data = jpeg_ls(PICTURE)
    monkeypatch.setitem(sys.modules, "jpeg_ls", None)
    error = refused(data)
    assert error.code is Code.NEEDS_EXTRA
    assert "pip install 'funduscope[dicom]'" in error.reason


MULTI = {
    "explicit": dicom(FRAMES.tobytes(), NumberOfFrames=3),
    "big-endian words": dicom(swapped(FRAMES), BIG, "OW", NumberOfFrames=3),
    "by planes": dicom(FRAMES.transpose(0, 3, 1, 2).tobytes(), NumberOfFrames=3, PlanarConfiguration=1),
    "16 bits": dicom((FRAMES.astype("<u2") * 256).tobytes(), NumberOfFrames=3, **DEEP_ELEMENTS),
    "deflated": dicom(FRAMES.tobytes(), uid.DeflatedExplicitVRLittleEndian, NumberOfFrames=3),
    "JPEG 2000": dicom(
        encapsulate([coded("JPEG2000", own, no_jp2=True) for own in FRAMES]), uid.JPEG2000Lossless, NumberOfFrames=3
    ),
    "JPEG 2000 in fragments": dicom(
        encapsulate([coded("JPEG2000", own, no_jp2=True) for own in FRAMES], 2), uid.JPEG2000Lossless, NumberOfFrames=3
    ),
}


@pytest.mark.parametrize("case", MULTI)
def test_a_frame_that_is_asked_for_is_read(case, tmp_path):
    for number, expected in enumerate(FRAMES, start=1):
        np.testing.assert_array_equal(photo.load(MULTI[case], frame=number).pixels, expected)
    assert "3 frames" in refused(MULTI[case]).reason
    assert refused(MULTI[case], 4).code is Code.MULTI_PAGE
    path = tmp_path / "three.dcm"
    path.write_bytes(MULTI[case])
    read = photo.load(Listed(str(path), frame=2))
    assert read.frame == 2
    np.testing.assert_array_equal(read.pixels, FRAMES[1])
    np.testing.assert_array_equal(photo.load(dicom(PICTURE), frame=1).pixels, PICTURE)


BARE = {
    "no preamble": lambda data: data[128:],
    "no preamble and no mark": lambda data: data[132:],
    "no header": lambda data: data[data.index(b"\x08\0\x16\0") :],
}


@pytest.mark.parametrize("case", BARE)
@pytest.mark.parametrize("syntax", [IMPLICIT, LITTLE, BIG])
def test_what_stands_before_the_elements_may_be_missing(case, syntax, tmp_path):
    data = dicom(PICTURE, syntax)
    swapped_tags = case == "no header" and syntax == BIG
    bare = data[data.index(b"\0\x08\0\x16") :] if swapped_tags else BARE[case](data)
    np.testing.assert_array_equal(photo.load(bare).pixels, PICTURE)
    path = tmp_path / "1.2.3"
    path.write_bytes(bare)
    assert photo.is_picture(str(path))


@pytest.mark.parametrize("name", ["ExplVR_LitEndNoMeta.dcm", "ExplVR_BigEndNoMeta.dcm", "image_dfl.dcm"])
@pytest.mark.filterwarnings("ignore")
def test_bare_and_deflated_files_by_others_are_known(name):
    error = refused((FOREIGN / name).read_bytes())
    assert error.code in (Code.NOT_COLOUR, Code.UNKNOWN_FORMAT)  # they are grey, or no picture
    assert "its first bytes" not in error.reason


@pytest.mark.parametrize("data", [b"\x08\0 and so on" * 20, b"\2\0\0\0words" * 20, bytes(300), b"DICOM" * 60])
def test_other_bytes_are_no_dicom_file(data):
    assert not photo.is_dicom(data)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + np.random.default_rng(0).bytes(3000) + data[middle + 3000 :]


def other(syntax: str) -> bytes:
    return dicom(encapsulate([bytes(100)]), syntax)


NOISE = io.BytesIO()
Image.fromarray(np.random.default_rng(0).integers(0, 255, PICTURE.shape).astype(np.uint8)).save(NOISE, "JPEG")
GREY = io.BytesIO()
Image.fromarray(PICTURE[..., 0]).save(GREY, "JPEG")
RLE_BOMB = struct.pack("<16L", 3, 64, 64 + 2_000_000, 64 + 4_000_000, *[0] * 12) + b"\x81\xff" * 3_000_000
WAVELETS = coded("JPEG2000", PICTURE, no_jp2=True, irreversible=False, mct=1)


def deflated(pixels: np.ndarray, **elements) -> bytes:
    return dicom(pixels, uid.DeflatedExplicitVRLittleEndian, **elements)


def wavelets(frame: bytes, colour: str = "YBR_RCT", syntax: str = uid.JPEG2000Lossless, **elements) -> bytes:
    return dicom(encapsulate([frame]), syntax, **({"PhotometricInterpretation": colour} | elements))


BOMBS = {
    "65,535 x 65,535": (dicom(bytes(5_000_000), Rows=65535, Columns=65535), Code.TOO_LARGE),
    "1e12 pixels": (dicom(bytes(100), Rows=10_000, Columns=10_000, NumberOfFrames=10_000), Code.TOO_LARGE),
    "1e12 pixels in frames": (dicom(bytes(100), Rows=1000, Columns=1000, NumberOfFrames=1_000_000), Code.MULTI_PAGE),
    "large JPEG": (as_jpeg(JPEG.replace(b"\0\xa0\0\xc8\3", b"\xff\xdc\xff\xdc\3")), Code.TOO_LARGE),
    "deflated": (dicom(bytes(50_000_000), uid.DeflatedExplicitVRLittleEndian), Code.DAMAGED),
    "deflated, 65,535 x 65,535": (
        dicom(bytes(50_000_000), uid.DeflatedExplicitVRLittleEndian, Rows=65535, Columns=65535),
        Code.TOO_LARGE,
    ),
    "wavelets, 65,535 x 65,535": (
        wavelets(WAVELETS.replace(b"\0\0\0\xc8\0\0\0\xa0", b"\0\0\xff\xff" * 2, 1)),
        Code.DAMAGED,
    ),
}
REFUSED = BOMBS | {
    "two frames": (dicom(PICTURE.tobytes() * 2, NumberOfFrames=2), Code.MULTI_PAGE),
    "frames without a number": (
        dicom(PICTURE, NumberOfFrames="1").replace(b"IS\2\x001 ", b"IS\2\x00x "),
        Code.DAMAGED,
    ),
    "100 x 100": (dicom(PICTURE[:100, :100].copy()), Code.TOO_SMALL),
    "grey": (dicom(INDICES, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2"), Code.NOT_COLOUR),
    "grey JPEG": (as_jpeg(GREY.getvalue()), Code.NOT_COLOUR),
    "32 bits": (dicom(PICTURE.tobytes() * 4, BitsAllocated=32), Code.FLOAT_IMAGE),
    "5 bits": (dicom(PICTURE, BitsStored=5), Code.FLOAT_IMAGE),
    "bits beyond": (dicom(PICTURE, HighBit=9), Code.FLOAT_IMAGE),
    "signed": (dicom(PICTURE, PixelRepresentation=1), Code.FLOAT_IMAGE),
    "four channels": (dicom(PICTURE, SamplesPerPixel=4, PhotometricInterpretation="ARGB"), Code.UNKNOWN_FORMAT),
    "wavelet colour": (dicom(PICTURE, PhotometricInterpretation="YBR_RCT"), Code.UNKNOWN_FORMAT),
    "segmented palette": (dicom(INDICES, **palette(8) | {"RedPaletteColorLookupTableData": None}), Code.UNKNOWN_FORMAT),
    "short palette": (dicom(INDICES, **palette(8) | {"RedPaletteColorLookupTableData": bytes(9)}), Code.DAMAGED),
    "no JPEG 2000": (other(uid.JPEG2000), Code.DAMAGED),
    "no JPEG-LS": (other(uid.JPEGLSLossless), Code.DAMAGED),
    "MPEG2 Main Profile / Main Level": (other(uid.MPEG2MPML), Code.UNKNOWN_FORMAT),
    "half a JPEG 2000": (wavelets(WAVELETS[: len(WAVELETS) // 2]), Code.DAMAGED),
    "JPEG 2000 without its last bytes": (wavelets(WAVELETS[:-60]), Code.DAMAGED),
    "JPEG 2000 of another size": (wavelets(WAVELETS, Rows=200, Columns=160), Code.DAMAGED),
    "JPEG 2000 of one channel": (wavelets(coded("JPEG2000", PICTURE[..., 0], no_jp2=True)), Code.DAMAGED),
    "JPEG 2000, signed": (
        wavelets(WAVELETS.replace(b"\0\3\7\1\1\7\1\1\7\1\1", b"\0\3\x87\1\1\7\1\1\7\1\1")),
        Code.UNKNOWN_FORMAT,
    ),
    "half a deflated file": (deflated(PICTURE)[:-20_000], Code.DAMAGED),
    "the second of one frame": (dicom(PICTURE), Code.MULTI_PAGE, 2),
    "the third of two frames": (dicom(PICTURE.tobytes() * 2, NumberOfFrames=2), Code.MULTI_PAGE, 3),
    "frame 0": (dicom(PICTURE), Code.MULTI_PAGE, 0),
    "frame 2 of a PNG": (encoded("PNG"), Code.MULTI_PAGE, 2),
    "JPEG of 12 bits": (as_jpeg(JPEG, BitsAllocated=16, BitsStored=12), Code.UNKNOWN_FORMAT),
    "private": (dicom(PICTURE).replace(LITTLE.encode(), b"9" * len(LITTLE)), Code.UNKNOWN_FORMAT),
    "no transfer syntax": (dicom(PICTURE).replace(b"\2\0\x10\0UI", b"\2\0\x11\0UI"), Code.DAMAGED),
    "no size": (dicom(PICTURE, Rows=None), Code.UNKNOWN_FORMAT),
    "an empty size": (dicom(PICTURE, Rows=""), Code.DAMAGED),
    "no pixels": (dicom(None), Code.DAMAGED),
    "cut padding": (dicom(PICTURE.tobytes() + bytes(1000))[:-500], Code.DAMAGED),
    "fragments of no JPEG": (
        as_jpeg(PICTURE.tobytes(), "RGB").replace(uid.JPEGBaseline8Bit.encode(), LITTLE.encode() + bytes(3)),
        Code.DAMAGED,
    ),
    "too few pixels": (dicom(PICTURE.tobytes()[:-2]), Code.DAMAGED),
    "pairs in an odd width": (dicom(bytes(160 * 201 * 2), **LUMA_PAIRS, Columns=201), Code.DAMAGED),
    "no fragments": (dicom(PICTURE).replace(LITTLE.encode(), uid.RLELossless.encode()), Code.DAMAGED),
    "JPEG of another size": (as_jpeg(JPEG, Rows=200, Columns=160), Code.DAMAGED),
    "JPEG with garbage in mid-scan": (as_jpeg(flipped(NOISE.getvalue())), Code.DAMAGED),
    "half a JPEG": (as_jpeg(JPEG[: len(JPEG) // 2]), Code.DAMAGED),
    "RLE of other channels": (rle(INDICES, SamplesPerPixel=3, PhotometricInterpretation="RGB"), Code.DAMAGED),
    "RLE of more bytes": (rle(DEEP, BitsAllocated=8), Code.DAMAGED),
    "RLE of fewer pixels": (rle(ODD, Rows=160), Code.DAMAGED),
    "the first 132 bytes": (dicom(PICTURE)[:132], Code.DAMAGED),
}


def refused(data: bytes, frame: int | None = None) -> PhotoError:
    with pytest.raises(PhotoError) as caught:
        photo.load(data, frame=frame)
    return caught.value


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_its_code_and_a_reason(case):
    data, code, *frame = REFUSED[case]
    error = refused(data, *frame)
    assert error.code is code
    assert len(error.reason) > 10
    assert error.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("case", ["MPEG2 Main Profile / Main Level"])
def test_what_is_not_read_is_named_with_what_to_do(case):
    reason = refused(REFUSED[case][0]).reason
    assert case.lower() in reason.lower()
    assert "1.2.840.10008.1.2." in reason
    assert "convert" in reason


@pytest.mark.parametrize("case", BOMBS)
def test_R11_a_bomb_is_refused_without_memory(case):
    photo.load(dicom(PICTURE))  # pydicom is imported
    tracemalloc.start()
    refused(BOMBS[case][0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_overlong_rle_is_not_unpacked():  # 6 MB, and 384 MB unpacked
    data = dicom(encapsulate([RLE_BOMB]), uid.RLELossless)
    tracemalloc.start()
    assert photo.load(data).pixels.min() == 255
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_a_file_that_leads_in_circles_is_given_up():
    head, tail = dicom(PICTURE).split(b"(\0\2\0US", 1)
    endless, item, end = b"\x11\0\x10\0OB\0\0\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"
    links = b"".join(endless + item + struct.pack("<L", 8 + 28 * left) + end for left in reversed(range(200)))
    chain = (item + bytes(4)) * 3000  # each link leads to it, and pydicom walks it 200 times to find no end
    assert "RuntimeError" in refused(head + links + chain + b"(\0\2\0US" + tail).reason


def item(**elements) -> pydicom.Dataset:
    made = pydicom.Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, pydicom.Sequence(value) if isinstance(value, list) else value)
    return made


def region(code: str, meaning: str, *modifiers: tuple[str, str]) -> dict:
    named = item(CodeValue=code, CodingSchemeDesignator="SCT", CodeMeaning=meaning)
    if modifiers:
        sides = [item(CodeValue=c, CodingSchemeDesignator="SCT", CodeMeaning=m) for c, m in modifiers]
        named.AnatomicRegionModifierSequence = pydicom.Sequence(sides)
    return {"AnatomicRegionSequence": pydicom.Sequence([named])}


def groups(*eyes: str) -> pydicom.Sequence:
    return pydicom.Sequence([item(FrameAnatomySequence=[item(FrameLaterality=eye)]) for eye in eyes])


EYE = ("81745001", "Eye")
KINDS = [
    dicom(PICTURE),
    dicom(PICTURE, IMPLICIT),
    dicom(PICTURE, BIG, IconImageSequence=ICONS),
    rle(PICTURE),
    as_jpeg(JPEG),
]
KINDS += [PALETTES["16 bits"], wavelets(WAVELETS), deflated(PICTURE), dicom(PICTURE)[132:]]
KINDS.append(dicom(PICTURE, PerFrameFunctionalGroupsSequence=groups("L"), **region(*EYE, ("7771000", "Left"))))


@pytest.mark.parametrize("which", range(len(KINDS)))
def test_a_cut_file_is_refused(which):
    data = KINDS[which]
    for length in [*range(132, 1500, 7), *range(1500, len(data) - 8, 999), len(data) - 9]:  # 8: a delimiter may be cut
        assert refused(data[:length]).code in (Code.DAMAGED, Code.UNKNOWN_FORMAT)  # between two elements: no picture


@settings(max_examples=300)
@given(
    which=st.integers(0, len(KINDS) - 1),
    keep=st.sampled_from([1.0, 1.0]) | st.floats(0, 1),
    flips=st.lists(
        st.tuples(st.integers(132, 1200) | st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4
    ),
    action=st.sampled_from(["error", "ignore"]),
)
def test_R12_random_damage_gives_a_photo_or_a_photo_error(which, keep, flips, action):
    data = bytearray(KINDS[which])
    for at, value in flips:
        data[at if isinstance(at, int) else int(at * len(data))] = value
    with contextlib.suppress(PhotoError), warnings.catch_warnings(action=action):
        read = photo.load(bytes(data[: int(keep * len(data))]))
        assert read.pixels.dtype == np.uint8
        assert read.pixels.shape[2] == 3


@pytest.mark.parametrize(
    ("image", "patient", "eye"),
    [
        *[("R", None, "right"), ("L", None, "left"), (None, "R", "right"), (None, "L", "left"), ("L", "R", "left")],
        *[("", "R", "right"), ("B", "R", None), ("X", None, None), ("", "", None), (None, None, None)],
    ],
)
def test_the_eye_is_the_laterality(image, patient, eye):
    assert photo.load(dicom(PICTURE, ImageLaterality=image, Laterality=patient)).eye == eye


PLACES = {
    "lower case": ({"ImageLaterality": "r"}, "right"),
    "OD": ({"Laterality": "OD"}, "right"),
    "os": ({"ImageLaterality": "os"}, "left"),
    "a word": ({"ImageLaterality": "Left"}, "left"),
    "a modifier": (region(*EYE, ("24028007", "Right")), "right"),
    "an old modifier": (region("T-AA000", "Eye", ("G-A101", "Left")), "left"),
    "a modifier by its meaning": (region(*EYE, ("99", "OS")), "left"),
    "the second modifier": (region(*EYE, ("255209002", "Entire"), ("7771000", "Left")), "left"),
    "a region with its side": (region("18944008", "Structure of right eye"), "right"),
    "a region alone": (region(*EYE), None),
    "both": (region(*EYE, ("51440002", "Right and left")), None),
    "shared by all frames": ({"SharedFunctionalGroupsSequence": groups("R")}, "right"),
    "by frame": ({"PerFrameFunctionalGroupsSequence": groups("L", "R")}, "left"),
    "the frame before the series": ({"SharedFunctionalGroupsSequence": groups("R"), "Laterality": "L"}, "right"),
    "the picture before the region": (region(*EYE, ("7771000", "Left")) | {"ImageLaterality": "R"}, "right"),
    "the description": ({"SeriesDescription": "Colour 45 OD"}, "right"),
    "a description of both": ({"SeriesDescription": "OD and OS"}, None),
    "another word": ({"SeriesDescription": "ODD OSTEOMA"}, None),
}


@pytest.mark.parametrize("endless", [False, True])
@pytest.mark.parametrize("syntax", [IMPLICIT, LITTLE, BIG, uid.DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("case", PLACES)
def test_the_eye_is_read_wherever_it_stands(case, syntax, endless):
    elements, eye = PLACES[case]
    for value in elements.values():
        if isinstance(value, pydicom.Sequence):
            value.is_undefined_length = endless
    assert photo.load(dicom(PICTURE, syntax, **elements)).eye == eye


def test_the_eye_is_that_of_the_frame():
    data = dicom(FRAMES.tobytes(), NumberOfFrames=3, PerFrameFunctionalGroupsSequence=groups("L", "R", "L"))
    assert [photo.load(data, frame=number).eye for number in (1, 2, 3)] == ["left", "right", "left"]


def test_two_eyes_of_one_patient_have_one_pseudonym(tmp_path):
    path = tmp_path / "left.dcm"
    path.write_bytes(dicom(PICTURE, IMPLICIT, ImageLaterality="L", PatientName="Other", PatientID=IDENTITY + " "))
    right, left = photo.load(as_jpeg(JPEG, ImageLaterality="R"), "right"), photo.load(path)
    assert right.patient == left.patient == hashlib.sha256(f"|{IDENTITY}".encode()).hexdigest()[:16]
    assert (right.name, left.name) == ("right", str(path))
    issued = photo.load(dicom(PICTURE, IssuerOfPatientID="Ward")).patient
    assert issued == hashlib.sha256(f"Ward|{IDENTITY}".encode()).hexdigest()[:16]
    assert len({right.patient, issued, photo.load(dicom(PICTURE, PatientID="2")).patient}) == 3
    renamed = photo.load(left, "new")
    assert (renamed.name, renamed.patient, renamed.eye) == ("new", left.patient, "left")


@pytest.mark.parametrize("identity", [None, "", "  "])
def test_no_patient_no_pseudonym(identity):
    assert photo.load(dicom(PICTURE, PatientID=identity)).patient is None
    item = struct.pack("<HHLHHL", 0xFFFE, 0xE000, 0xFFFFFFFF, 0xFFFE, 0xE00D, 0)
    sequence = b"\x10\0\x20\0SQ\0\0\xff\xff\xff\xff" + item + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    assert photo.load(dicom(PICTURE, PatientID=None).replace(b"(\0\2\0US", sequence + b"(\0\2\0US")).patient is None
    assert photo.load(PICTURE).patient is photo.load(encoded("PNG")).patient is None


WARNED = dicom(PICTURE, SpecificCharacterSet="unknown")
for name, vr in ((b"\x10\0\x10\0", b"PN"), (b"\x10\0\x20\0", b"LO")):
    WARNED = WARNED.replace(name + vr, name + b"UI")  # pydicom will find no UIDs there


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("case", ["warned", *REFUSED])
def test_no_word_of_the_patient(case, caplog, capfd, recwarn):
    caplog.set_level(logging.DEBUG)
    data = WARNED if case == "warned" else REFUSED[case][0]
    try:
        told = repr(photo.load(data))
    except PhotoError as error:
        told = f"{error!r} {error.__cause__!r}"
    told += caplog.text + "".join(capfd.readouterr()) + "".join(str(warning.message) for warning in recwarn)
    assert "canary" not in told.lower()
    assert not len(recwarn)


def test_the_canaries_can_be_heard():  # pydicom's own reading tells the patient's ID
    with warnings.catch_warnings(record=True, action="always") as heard:
        assert pydicom.dcmread(io.BytesIO(WARNED)).PatientID == IDENTITY
    assert IDENTITY in str(heard[-1].message)


def test_without_pydicom_a_dicom_file_becomes_a_row_with_the_pip_line(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("pydicom.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    error = refused(dicom_file := KINDS[0])
    assert error.code is Code.NEEDS_EXTRA
    assert "needs pydicom, which" in error.reason
    assert "pip install 'funduscope[dicom]'" in error.reason
    assert error.sha256 == hashlib.sha256(dicom_file).hexdigest()
    np.testing.assert_array_equal(photo.load(encoded("PNG")).pixels, PICTURE)


def test_threads_leave_the_warning_filters_as_they_were():
    filters, interval = list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads get in one another's way
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(photo.load, KINDS * 20))) == 20 * len(KINDS)
    sys.setswitchinterval(interval)
    assert warnings.filters == filters


def test_folders_are_searched_for_dicom():
    assert {".dcm", ".dicom"} <= photo.SUFFIXES
