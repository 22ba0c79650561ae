"""Reading photographs: what is refused, with which code, and what is converted to the same picture."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from funduscope.engine.errors import Code, PhotoError
from funduscope.engine.eyes import Listed
from funduscope.engine.pictures import decode, inputs, photo
from funduscope.engine.pictures.photo import Photo
from funduscope.engine.run import Run

ROWS, COLUMNS = np.mgrid[:160, :200]
PICTURE = np.dstack([60 + ROWS, 200 - COLUMNS // 2, (ROWS + COLUMNS) // 4]).astype(
    np.uint8
)  # no symmetry, no repetition
DEEP = PICTURE.astype(np.uint16) * 257
HALF = np.full((*PICTURE.shape[:2], 1), 128, np.uint8)


def encoded(format: str, pixels: np.ndarray | Image.Image = PICTURE, **options) -> bytes:
    stream = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(stream, format, **options)
    return stream.getvalue()


def deep(suffix: str, pixels: np.ndarray) -> bytes:
    order = [2, 1, 0, 3][: pixels.shape[2]]
    return cv2.imencode(suffix, np.ascontiguousarray(pixels[..., order]))[1].tobytes()


def converted(mode: str) -> Image.Image:
    return Image.fromarray(PICTURE).convert(mode)


def png(width: int, height: int, pixels: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded("JPEG"))
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def raw_tiff(pixels: np.ndarray, orientation: int, extra_samples: int | None) -> bytes:
    """An uncompressed RGB or RGBA TIFF by hand, for what Pillow cannot write. extra_samples: 1 premultiplied, 2 straight."""
    height, width, channels = pixels.shape
    data = pixels.tobytes()
    bits = struct.pack(f"<{channels}H", *[8 * pixels.itemsize] * channels)
    tags = [(256, width), (257, height), (259, 1), (262, 2), (273, 8), (274, orientation), (277, channels)]
    tags += [(278, height), (279, len(data))] + ([(338, extra_samples)] if extra_samples else [])
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    entries.insert(2, struct.pack("<HHII", 258, 3, channels, 8 + len(data)))
    head = b"II*\0" + struct.pack("<I", 8 + len(data) + len(bits))
    return head + data + bits + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


def pages(*pictures: tuple[np.ndarray, int]) -> bytes:
    """A TIFF of pages, each with what it says of itself: 1 is a thumbnail, 4 a mask."""
    images = []
    for pixels, kind in pictures:
        images.append(Image.fromarray(pixels))
        images[-1].encoderinfo = {"tiffinfo": {254: kind}}
    return encoded("TIFF", images[0], save_all=True, append_images=images[1:], tiffinfo={254: pictures[0][1]})


def tiled_tiff(pixels: np.ndarray, side: int = 128) -> bytes:
    """An uncompressed TIFF of tiles, by hand."""
    height, width = (-(-length // side) * side for length in pixels.shape[:2])
    whole = np.pad(pixels, ((0, height - len(pixels)), (0, width - pixels.shape[1]), (0, 0)))
    tiles = [whole[y : y + side, x : x + side].tobytes() for y in range(0, height, side) for x in range(0, width, side)]
    data = b"".join(tiles)
    places = struct.pack(f"<{len(tiles)}I", *range(8, 8 + len(data), side * side * 3))
    lengths = struct.pack(f"<{len(tiles)}I", *[side * side * 3] * len(tiles))
    after = 8 + len(data)
    tags = [
        *((256, 4, 1, pixels.shape[1]), (257, 4, 1, len(pixels)), (258, 3, 3, after), (259, 4, 1, 1), (262, 4, 1, 2)),
        *((277, 4, 1, 3), (322, 4, 1, side), (323, 4, 1, side), (324, 4, len(tiles), after + 8)),
        (325, 4, len(tiles), after + 8 + len(places)),
    ]
    outside = struct.pack("<4H", 8, 8, 8, 0) + places + lengths
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (
        b"II*\0"
        + struct.pack("<I", after + len(outside))
        + data
        + outside
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


def jpeg_of_kind(marker: int, bits: int) -> bytes:
    data = bytearray(encoded("JPEG"))
    at = data.find(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, bits
    return bytes(data)


def recompressed(data: bytes, kind: int, other: int) -> bytes:
    """A little-endian TIFF that says that it is compressed in another way than it is."""
    return data.replace(struct.pack("<HHII", 259, 3, 1, kind), struct.pack("<HHII", 259, 3, 1, other))


def zeroed(data: bytes, first: float, last: float) -> bytes:
    """A part of a file lost, as shares of its length."""
    start, end = round(first * len(data)), round(last * len(data))
    return data[:start] + bytes(end - start) + data[end:]


def with_garbage(data: bytes, length: int) -> bytes:
    middle = len(data) // 2
    return data[:middle] + np.random.default_rng(0).bytes(length) + data[middle + length :]


def with_flipped_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def recompressed_deep() -> bytes:
    return cv2.imencode(".tif", np.ascontiguousarray(DEEP[..., ::-1]), [cv2.IMWRITE_TIFF_COMPRESSION, 8])[1].tobytes()


def tiff_of_strips(count: int, deflated: bytes | None = None) -> bytes:
    """A TIFF that names so many strips. deflated: that is what each of them is; else none is there."""
    tags = [(256, 4, 1, 200), (257, 4, 1, 160), (259, 3, 1, 8), (262, 3, 1, 2), (273, 4, count, 8), (277, 3, 1, 3)]
    tags += [(278, 4, 1, 1), (279, 4, count, 8 + 4 * count)]
    values = b""
    if deflated is not None:
        at = 8 + 8 * count
        values = struct.pack("<I", at) * count + struct.pack("<I", len(deflated)) * count + deflated
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(values)) + values + struct.pack("<H", len(tags)) + entries + bytes(4)


NOISE = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)  # a long scan
JPEG, PNG, TIFF, LZW = encoded("JPEG"), encoded("PNG"), encoded("TIFF"), encoded("TIFF", compression="tiff_lzw")
LARGE = cv2.resize(PICTURE, (800, 640))
THUMBNAIL, MASK = PICTURE[::8, ::8], PICTURE[..., 0]
GIF, WEBP, JP2 = encoded("GIF"), encoded("WEBP", lossless=True), encoded("JPEG2000")
LOST_STRIP = TIFF.replace(PICTURE[40:60].tobytes(), bytes(20 * 600))
FLOAT_TIFF = cv2.imencode(".tif", PICTURE.astype(np.float32) / 255)[1].tobytes()

REFUSED = {
    "no bytes": (b"", Code.EMPTY_FILE),
    "text": (b"this is no picture", Code.UNKNOWN_FORMAT),
    "GIF of two frames": (encoded("GIF", save_all=True, append_images=[converted("RGB").rotate(90)]), Code.MULTI_PAGE),
    "half a GIF": (GIF[: len(GIF) // 2], Code.DAMAGED),
    "half a WebP": (WEBP[: len(WEBP) // 2], Code.DAMAGED),
    "WebP without its end": (WEBP[:-20], Code.DAMAGED),
    "half a JPEG 2000": (JP2[: len(JP2) // 2], Code.DAMAGED),
    "JPEG 2000 without its end": (JP2[:-200], Code.DAMAGED),
    "grey JPEG 2000": (encoded("JPEG2000", converted("L")), Code.NOT_COLOUR),
    "HEIC": (bytes(4) + b"ftypheic" + bytes(100), Code.UNKNOWN_FORMAT),
    "JPEG XL": (b"\xff\x0a" + bytes(100), Code.UNKNOWN_FORMAT),
    "JPEG-LS": (b"\xff\xd8\xff\xf7" + bytes(100), Code.UNKNOWN_FORMAT),
    "JPEG-LS behind a JFIF header": (jpeg_of_kind(0xF7, 8), Code.UNKNOWN_FORMAT),
    "JPEG of 12 bits": (jpeg_of_kind(0xC1, 12), Code.UNKNOWN_FORMAT),
    "JPEG without loss": (jpeg_of_kind(0xC3, 8), Code.UNKNOWN_FORMAT),
    "big-endian BigTIFF": (b"MM\0+\0\x08\0\0" + bytes(100), Code.UNKNOWN_FORMAT),
    "WebP in TIFF": (recompressed(TIFF, 1, 50001), Code.UNKNOWN_FORMAT),
    "TIFF with a tile of zeros": (zeroed(tiled_tiff(LARGE), 0.45, 0.5), Code.DAMAGED),
    "TIFF with zeros from within a row": (zeroed(encoded("TIFF", LARGE), 0.5, 0.52), Code.DAMAGED),
    "TIFF stored turned, with a strip of zeros": (zeroed(raw_tiff(np.rot90(LARGE), 6, None), 0.5, 0.6), Code.DAMAGED),
    "BMP with rows of zeros": (zeroed(encoded("BMP", LARGE), 0.5, 0.52), Code.DAMAGED),
    "deflated TIFF with a flipped bit": (
        with_flipped_bit(encoded("TIFF", LARGE, compression="tiff_adobe_deflate")),
        Code.DAMAGED,
    ),
    "LZW TIFF with zeros": (zeroed(encoded("TIFF", LARGE, compression="tiff_lzw"), 0.5, 0.52), Code.DAMAGED),
    "16-bit TIFF with Zstandard": (recompressed(deep(".tif", DEEP), 5, 50000), Code.UNKNOWN_FORMAT),
    "TIFF of five channels": (raw_tiff(np.dstack([PICTURE, HALF, HALF]), 1, 0), Code.UNKNOWN_FORMAT),
    "TIFF with a strip of zeros": (LOST_STRIP, Code.DAMAGED),
    "zip": (b"PK\x03\x04" + bytes(100), Code.UNKNOWN_FORMAT),
    "half a JPEG": (JPEG[: len(JPEG) // 2], Code.DAMAGED),
    "JPEG without its last 20 bytes": (JPEG[:-20], Code.DAMAGED),
    "JPEG with 3000 bytes of garbage in mid-scan": (with_garbage(encoded("JPEG", NOISE), 3000), Code.DAMAGED),
    "JPEG of two bytes": (JPEG[:2], Code.DAMAGED),
    "truncated PNG": (PNG[: len(PNG) // 2], Code.DAMAGED),
    "PNG without its end": (PNG[:-20], Code.DAMAGED),
    "PNG with a flipped bit": (with_flipped_bit(PNG), Code.DAMAGED),
    "PNG with too few pixels": (png(300, 300, bytes(1000)), Code.DAMAGED),
    "PNG signature alone": (PNG[:8], Code.DAMAGED),
    "truncated TIFF": (TIFF[: len(TIFF) // 2], Code.DAMAGED),
    "truncated LZW TIFF": (LZW[: len(LZW) // 2], Code.DAMAGED),
    "TIFF cut within its tags": (LZW[:-60], Code.DAMAGED),
    "TIFF of four bytes": (TIFF[:4], Code.DAMAGED),
    "truncated BMP": (encoded("BMP")[:5000], Code.DAMAGED),
    "BMP of two bytes": (b"BM", Code.DAMAGED),
    "PNG of 20,000 x 20,000": (png(20_000, 20_000, bytes(10_000)), Code.TOO_LARGE),
    "PNG of 9000 x 9000": (png(9000, 9000, bytes(10_000)), Code.TOO_LARGE),
    "JPEG of 65,500 x 65,500": (jpeg_of_size(65_500, 65_500), Code.TOO_LARGE),
    "100 x 100": (encoded("PNG", PICTURE[:100, :100]), Code.TOO_SMALL),
    "grey JPEG": (encoded("JPEG", converted("L")), Code.NOT_COLOUR),
    "grey PNG": (encoded("PNG", converted("L")), Code.NOT_COLOUR),
    "grey PNG with alpha": (encoded("PNG", converted("LA")), Code.NOT_COLOUR),
    "black and white PNG": (encoded("PNG", converted("1")), Code.NOT_COLOUR),
    "16-bit grey PNG": (encoded("PNG", Image.fromarray(DEEP[..., 0])), Code.NOT_COLOUR),
    "grey TIFF": (encoded("TIFF", converted("L")), Code.NOT_COLOUR),
    "grey BMP": (encoded("BMP", converted("L")), Code.NOT_COLOUR),
    "float TIFF": (FLOAT_TIFF, Code.FLOAT_IMAGE),
    "grey float TIFF": (encoded("TIFF", Image.fromarray(PICTURE[..., 0].astype(np.float32))), Code.FLOAT_IMAGE),
    "TIFF of two pages": (encoded("TIFF", save_all=True, append_images=[converted("RGB")]), Code.MULTI_PAGE),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_its_code_and_a_reason_whether_warnings_are_errors_or_not(case):
    data, code = REFUSED[case]
    for action in ("error", "ignore"):
        with warnings.catch_warnings(action=action), pytest.raises(PhotoError) as caught:
            photo.load(data)
        assert caught.value.code is code
        assert len(caught.value.reason) > 10
        assert str(caught.value) == f"{code}: {caught.value.reason}"


@pytest.mark.parametrize("case", [case for case, (_, code) in REFUSED.items() if code is Code.TOO_LARGE])
def test_R11_a_bomb_is_refused_from_its_header(case, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    monkeypatch.setattr(decode.simplejpeg, "decode_jpeg", never)
    tracemalloc.start()
    with pytest.raises(PhotoError, match="80000000"):
        photo.load(REFUSED[case][0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("data", [tiff_of_strips(10**9), tiff_of_strips(10_000, zlib.compress(bytes(10**8), 9))])
def test_R11_a_tiff_of_too_many_strips_is_refused_without_memory(data):
    tracemalloc.start()
    with pytest.raises(PhotoError) as caught:
        photo.load(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code is Code.DAMAGED
    assert peak < 10_000_000


CONVERTED = {
    "PNG": (PNG, PICTURE, 0),
    "JPEG": (JPEG, PICTURE, 3),
    "progressive JPEG": (encoded("JPEG", progressive=True), PICTURE, 3),
    "JPEG with 5 KB of trailing junk": (JPEG + np.random.default_rng(0).bytes(5000), PICTURE, 3),
    "first picture of an MPO": (encoded("MPO", save_all=True, append_images=[converted("RGB")]), PICTURE, 3),
    "CMYK JPEG": (encoded("JPEG", converted("CMYK"), quality=95), PICTURE, 3),
    "RGBA PNG over black": (encoded("PNG", np.dstack([PICTURE, HALF])), PICTURE * (128 / 255), 0.5),
    "RGBA TIFF over black": (encoded("TIFF", np.dstack([PICTURE, HALF])), PICTURE * (128 / 255), 0.5),
    "RGBA TIFF, premultiplied": (raw_tiff(np.dstack([PICTURE // 2, HALF]), 1, 1), PICTURE // 2, 0),
    "16-bit RGBA TIFF over black": (raw_tiff(np.dstack([DEEP, HALF * np.uint16(257)]), 1, 2), PICTURE / 2, 0.5),
    "16-bit RGBA TIFF, premultiplied": (raw_tiff(np.dstack([DEEP, HALF * np.uint16(257)]), 1, 1), PICTURE, 0),
    "opaque RGBA BMP": (encoded("BMP", np.dstack([PICTURE, HALF | 255])), PICTURE, 0),
    "16-bit PNG": (deep(".png", DEEP), PICTURE, 0),
    "16-bit PNG with alpha": (deep(".png", np.dstack([DEEP, HALF.astype(np.uint16) * 257])), PICTURE / 2, 0.5),
    "16-bit TIFF": (deep(".tif", DEEP), PICTURE, 0),
    "palette PNG": (encoded("PNG", Image.fromarray(PICTURE).quantize(256)), PICTURE, 6),
    "palette TIFF": (encoded("TIFF", Image.fromarray(PICTURE).quantize(256)), PICTURE, 6),
    "palette of greys": (encoded("PNG", converted("L").convert("P")), np.asarray(converted("L"))[..., None], 1),
    "LZW TIFF": (LZW, PICTURE, 0),
    "deflated TIFF": (encoded("TIFF", compression="tiff_adobe_deflate"), PICTURE, 0),
    "JPEG in TIFF": (encoded("TIFF", compression="jpeg", quality=95), PICTURE, 3),
    "BMP": (encoded("BMP"), PICTURE, 0),
    "BMP with an alpha that is 0": (encoded("BMP", np.dstack([PICTURE, HALF * 0])), PICTURE, 0),
    "PNG with an alpha that is 0": (encoded("PNG", np.dstack([PICTURE, HALF * 0])), PICTURE, 0),
    "GIF": (GIF, PICTURE, 6),
    "WebP": (WEBP, PICTURE, 0),
    "lossy WebP": (encoded("WEBP", quality=95), PICTURE, 3),
    "JPEG 2000": (JP2, PICTURE, 0),
    "JPEG 2000 without a box": (JP2[JP2.index(b"\xff\x4f\xff\x51") :], PICTURE, 0),
    "8 bit in 16-bit PNG": (deep(".png", PICTURE.astype(np.uint16)), PICTURE, 0),
    "10 bit in 16-bit PNG": (deep(".png", PICTURE.astype(np.uint16) * 4), PICTURE, 1),
    "12 bit in 16-bit TIFF": (deep(".tif", PICTURE.astype(np.uint16) * 16), PICTURE, 1),
    "TIFF with a thumbnail behind it": (pages((PICTURE, 0), (PICTURE[::2, ::2], 1)), PICTURE, 0),
    "TIFF with a thumbnail before it": (pages((PICTURE[::2, ::2], 1), (PICTURE, 0)), PICTURE, 0),
    "TIFF with small pages around it": (pages((THUMBNAIL, 0), (PICTURE, 0), (THUMBNAIL, 0)), PICTURE, 0),
    "TIFF with a mask behind it": (pages((PICTURE, 0), (MASK, 4)), PICTURE, 0),
    "Zstandard in TIFF": (encoded("TIFF", compression="zstd"), PICTURE, 0),
    "LZMA in a TIFF that is stored turned": (
        encoded("TIFF", Image.fromarray(np.rot90(PICTURE)), compression="lzma", tiffinfo={274: 6}),
        PICTURE,
        0,
    ),
    "deflated TIFF of 16 bits": (recompressed_deep(), PICTURE, 0),
    "LZMA in TIFF": (encoded("TIFF", compression="lzma"), PICTURE, 0),
    "PackBits in TIFF": (encoded("TIFF", compression="packbits"), PICTURE, 0),
    "TIFF of tiles": (tiled_tiff(PICTURE), PICTURE, 0),
    "TIFF with an alpha that is 0": (encoded("TIFF", np.dstack([PICTURE, HALF * 0])), PICTURE, 0),
    "YCbCr in TIFF": (encoded("TIFF", converted("YCbCr")), PICTURE, 2),
    "YCbCr JPEG in TIFF": (encoded("TIFF", converted("YCbCr"), compression="jpeg", quality=95), PICTURE, 3),
    "BigTIFF": (encoded("TIFF", big_tiff=True), PICTURE, 0),
    "JPEG without its end marker": (JPEG[:-2], PICTURE, 3),
}


@pytest.mark.parametrize("case", CONVERTED)
def test_converted_to_the_same_picture(case):
    data, expected, bound = CONVERTED[case]
    pixels = photo.load(data).pixels
    assert pixels.dtype == np.uint8
    assert pixels.shape == PICTURE.shape
    assert pixels.flags.c_contiguous
    assert np.abs(pixels - expected.astype(float)).mean() <= bound


@pytest.mark.parametrize(
    ("case", "warning"),
    [
        ("JPEG without its end marker", Code.END_MISSING),
        ("8 bit in 16-bit PNG", Code.RANGE_ASSUMED),
        ("12 bit in 16-bit TIFF", Code.RANGE_ASSUMED),
    ],
)
def test_what_was_assumed_of_a_file_is_said(case, warning, fake):
    read = photo.load(CONVERTED[case][0])
    assert read.warnings == (warning,)
    with fake() as opened:
        assert warning in opened(CONVERTED[case][0]).warnings
    assert photo.load(PNG).warnings == photo.load(JPEG).warnings == ()


def test_a_page_that_is_no_thumbnail_is_another_picture():
    with pytest.raises(PhotoError) as caught:
        photo.load(pages((PICTURE, 0), (PICTURE[::2, ::2], 0)))
    assert caught.value.code is Code.MULTI_PAGE


@pytest.mark.parametrize(
    ("case", "named"),
    [
        ("HEIC", "HEIC"),
        ("JPEG XL", "JPEG XL"),
        ("JPEG-LS", "JPEG-LS"),
        ("JPEG-LS behind a JFIF header", "JPEG-LS"),
        ("JPEG of 12 bits", "JPEG of 12 bits"),
        ("JPEG without loss", "JPEG without loss"),
        ("WebP in TIFF", "WebP"),
        ("16-bit TIFF with Zstandard", "16-bit TIFF with Zstandard"),
        ("big-endian BigTIFF", "BigTIFF"),
        ("TIFF of five channels", "5 channels"),
    ],
)
def test_what_is_not_read_is_named(case, named):
    with pytest.raises(PhotoError, match=named):
        photo.load(REFUSED[case][0])


def test_black_between_writing_and_the_field_is_no_damage():
    field = np.zeros_like(LARGE)
    cv2.ellipse(field, (400, 360), (250, 250), 0, 0, 360, (200, 90, 40), -1)
    cv2.putText(field, "12 MAR 2019", (300, 60), cv2.FONT_HERSHEY_SIMPLEX, 1, (255, 255, 255), 2)
    for data in (encoded("TIFF", field), encoded("BMP", field), tiled_tiff(field)):
        np.testing.assert_array_equal(photo.load(data).pixels, field)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr"])
def test_a_pillow_image_is_a_source(mode):
    pixels = photo.load(converted(mode)).pixels
    assert np.abs(pixels - PICTURE.astype(float)).mean() <= (40 if mode == "P" else 2)
    assert photo.load(Image.open(io.BytesIO(PNG))).name == "image"
    for other, code in (("L", Code.NOT_COLOUR), ("F", Code.FLOAT_IMAGE)):
        with pytest.raises(PhotoError) as caught:
            photo.load(converted("L").convert(other))
        assert caught.value.code is code


def test_a_pillow_image_is_seen_as_its_file():
    for alpha, expected in ((HALF, PICTURE / 2), (HALF * 0, PICTURE)):
        image = Image.fromarray(np.dstack([PICTURE, alpha]))
        pixels = photo.load(image).pixels
        np.testing.assert_array_equal(pixels, photo.load(encoded("PNG", image)).pixels)
        assert np.abs(pixels - expected).mean() < 1


def test_an_open_file_is_a_source(tmp_path):
    (tmp_path / "eye.png").write_bytes(PNG)
    with (tmp_path / "eye.png").open("rb") as file:
        read = photo.load(file)
    assert (read.name, read.sha256) == (str(tmp_path / "eye.png"), photo.load(PNG).sha256)
    assert photo.load(io.BytesIO(PNG)).name == "file"
    with pytest.raises(TypeError, match="opened as binary"):
        photo.load(io.StringIO("x"))


def test_a_part_of_a_file_that_is_not_there_cannot_be_a_picture(tmp_path):
    for name, data, expected in (("a", PNG, True), ("b", b"text", False), ("c", bytes(128) + b"DICM", True)):
        (tmp_path / name).write_bytes(data)
        assert photo.is_picture(str(tmp_path / name)) is expected
    assert not photo.is_picture(str(tmp_path))
    assert not photo.is_picture(str(tmp_path / "absent"))


STORED = {  # EXIF orientation -> how the displayed picture is turned to be stored so
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(("format", "bound"), [("JPEG", 3), ("PNG", 0), ("TIFF", 0)])
def test_every_orientation_gives_the_displayed_picture(orientation, format, bound):
    turn = STORED[orientation]
    displayed = Image.fromarray(PICTURE)
    stored = displayed if turn is None else displayed.transpose(turn)
    exif = Image.Exif()
    exif[274] = orientation
    pixels = photo.load(encoded(format, stored, exif=exif)).pixels
    assert pixels.shape == PICTURE.shape
    assert np.abs(pixels - PICTURE.astype(float)).mean() <= bound


def test_a_16_bit_tiff_is_turned_too():
    stored = raw_tiff(np.rot90(DEEP), orientation=6, extra_samples=None)
    np.testing.assert_array_equal(photo.load(stored).pixels, PICTURE)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + bytes(30)])
def test_a_damaged_exif_block_does_not_matter(exif):
    np.testing.assert_array_equal(photo.load(encoded("JPEG", exif=exif)).pixels, photo.load(JPEG).pixels)


def test_an_unknown_orientation_is_none():
    exif = Image.Exif()
    exif[274] = 77
    np.testing.assert_array_equal(photo.load(encoded("JPEG", exif=exif)).pixels, photo.load(JPEG).pixels)


def refused_path(path) -> Code:
    with pytest.raises(PhotoError) as caught:
        photo.load(path)
    return caught.value.code


def test_a_folder_is_not_a_file(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    assert refused_path(tmp_path / "x.jpg") is Code.NOT_A_FILE


@pytest.mark.parametrize("name", ["absent.jpg", "null\0.jpg", "\ud800.jpg", "file/x.jpg"])
def test_a_missing_file_is_not_found(tmp_path, name):
    (tmp_path / "file").write_text("")
    assert refused_path(os.path.join(tmp_path, name)) is Code.NOT_FOUND


def test_R06_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert refused_path(tmp_path / "pipe.jpg") is Code.NOT_A_FILE  # opening it would wait for ever


def test_R10_a_file_that_is_gone_or_changes_once_it_was_found_is_told(tmp_path):
    for name in ("gone.png", "grown.png", "cut.png"):
        (tmp_path / name).write_bytes(PNG)
    found = [own.path for own in inputs.expand([str(tmp_path)])]
    (tmp_path / "gone.png").unlink()
    (tmp_path / "grown.png").write_bytes(PNG + bytes(10_000))
    (tmp_path / "cut.png").write_bytes(PNG[:500])
    assert [Path(path).name for path in found] == ["cut.png", "gone.png", "grown.png"]
    assert [refused_path(path) for path in found[:2]] == [Code.DAMAGED, Code.NOT_FOUND]
    np.testing.assert_array_equal(photo.load(found[2]).pixels, PICTURE)


def test_R01_bad_pictures_of_all_kinds_have_their_codes_and_change_no_other(fake, painter, fundus, tmp_path):
    maps = painter.maps()
    (tmp_path / "in").mkdir()
    good, bad = [], {}
    for k in range(200):
        good.append(str(tmp_path / "in" / f"good{k:03d}.png"))
        cv2.imwrite(good[-1], fundus(150, 150 + k % 40, seed=k)[..., ::-1])
    for k, (data, code) in enumerate([*REFUSED.values()]):
        path = tmp_path / "in" / f"bad{k:03d}.jpg"
        path.write_bytes(data)
        bad[str(path)] = code
    mixed = [Listed(path) for path in np.random.default_rng(0).permutation([*good, *bad]).tolist()]
    rows = {}
    for name, pictures in (("clean", [Listed(path) for path in good]), ("mixed", mixed)):
        with fake(lambda image: {**maps, "glaucoma": np.float32(image.mean() / 255)}) as opened:
            assert len(list(Run(opened, pictures, tmp_path / name))) == len(pictures)
        rows[name] = (tmp_path / name / "screenings.jsonl").read_bytes().splitlines()
    assert len(rows["mixed"]) == 200 + len(bad)
    assert sorted(row for row in rows["mixed"] if b"/good" in row) == sorted(rows["clean"])
    told = {row["name"]: row["code"] for row in map(json.loads, rows["mixed"]) if row["name"] in bad}
    assert told == bad


def test_R06_a_device_is_not_opened():
    assert refused_path("/dev/zero") is Code.NOT_A_FILE


@pytest.mark.parametrize("name", ["a" * 300, "loop.jpg"])
def test_R10_what_the_system_refuses_is_unreadable(tmp_path, name):
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert refused_path(tmp_path / name) is Code.UNREADABLE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_R10_a_file_without_permission_is_unreadable(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(PNG)
    path.chmod(0)
    assert refused_path(path) is Code.UNREADABLE


def test_an_overlong_file_is_not_read(tmp_path):
    with (tmp_path / "long.jpg").open("wb") as file:
        file.truncate(photo.MAX_BYTES + 1)  # sparse
    assert refused_path(tmp_path / "long.jpg") is Code.TOO_LARGE


def test_a_path_and_its_bytes_give_one_picture_and_digest(tmp_path):
    path = tmp_path / "eye.png"
    path.write_bytes(PNG)
    for source in (path, str(path)):
        read = photo.load(source)
        assert read.name == str(path)
        assert read.sha256 == photo.load(PNG).sha256
        np.testing.assert_array_equal(read.pixels, PICTURE)
    for data in (bytearray(PNG), memoryview(PNG)):
        assert photo.load(data).sha256 == photo.load(PNG).sha256


def test_a_lists_entry_is_read_from_its_path_and_kept(tmp_path):
    (tmp_path / "eye.png").write_bytes(PNG)
    entry = Listed(str(tmp_path / "eye.png"), "p1", "left")
    read = photo.load(entry)
    assert (read.name, read.listed) == (entry.path, entry)
    assert (read.patient, read.eye) == (None, None)  # what the file says
    np.testing.assert_array_equal(read.pixels, PICTURE)
    assert photo.load(entry.path).listed is None


@pytest.mark.parametrize(
    ("source", "name", "known"),
    [
        (Listed("absent.jpg", "p1", "left"), None, ("absent.jpg", None, Listed("absent.jpg", "p1", "left"))),
        (b"no picture", None, ("bytes", hashlib.sha256(b"no picture").hexdigest(), None)),
        (PICTURE[:50], None, ("array", None, None)),
        (Photo(PICTURE[:50], "frame 7"), None, ("frame 7", None, None)),
        ("absent.jpg", "eye 3", ("eye 3", None, None)),
    ],
    ids=["entry of a list", "bytes", "array", "photo", "named"],
)
def test_a_refusal_says_what_is_known_of_the_picture(source, name, known):
    with pytest.raises(PhotoError) as caught:
        photo.load(source, name)
    assert (caught.value.name, caught.value.sha256, caught.value.listed) == known


def test_an_array_is_rgb_and_has_no_digest():
    read = photo.load(PICTURE, "camera")
    assert read.pixels is PICTURE
    assert (read.name, read.sha256) == ("camera", None)


def test_an_opencv_frame_is_bgr():
    np.testing.assert_array_equal(Photo.from_bgr(np.ascontiguousarray(PICTURE[..., ::-1])).pixels, PICTURE)


def test_a_photo_is_returned_as_it_is():
    own = photo.load(PICTURE)
    assert photo.load(own) is own
    renamed = photo.load(own, "eye 3")
    assert renamed.name == "eye 3"
    assert renamed.pixels is own.pixels


def test_a_photo_under_another_name_leaves_the_first_as_it_was():
    first = photo.load(PICTURE, "one")
    assert photo.load(first, "other").name == "other"
    assert first.name == "one"


@pytest.mark.parametrize(
    "source",
    [PICTURE.astype(np.float32), DEEP, PICTURE[..., 0], np.dstack([PICTURE, HALF]), PICTURE[None], None, 7, [PICTURE]],
    ids=lambda source: f"{type(source).__name__} {getattr(source, 'shape', '')} {getattr(source, 'dtype', '')}",
)
def test_a_source_of_another_type_is_a_programmers_error(source):
    with pytest.raises(TypeError, match=r"must be uint8|a photo is"):
        photo.load(source)


def test_a_small_array_is_too_small():
    assert refused_path(PICTURE[:50]) is Code.TOO_SMALL


KINDS = [
    *(("JPEG", {}), ("PNG", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {}), ("TIFF", {}), ("GIF", {})),
    *(("TIFF", {"compression": "tiff_adobe_deflate"}), ("WEBP", {}), ("JPEG2000", {})),
]
SMALL = [encoded(format, PICTURE[:130, :130], **options) for format, options in KINDS]


@settings(max_examples=500)
@given(
    which=st.integers(0, len(SMALL) - 1),
    keep=st.sampled_from([1.0, 1.0]) | st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=4),
    action=st.sampled_from(["error", "ignore"]),
)
def test_R12_random_damage_gives_a_photo_or_a_photo_error(which, keep, flips, action):
    data = bytearray(SMALL[which])
    for at, bit in flips:
        data[int(at * len(data))] ^= 1 << bit
    try:
        with warnings.catch_warnings(action=action):
            read = photo.load(bytes(data[: int(keep * len(data))]))
    except PhotoError:
        return
    assert read.pixels.dtype == np.uint8
    assert read.pixels.ndim == 3
    assert read.pixels.shape[2] == 3


@settings(max_examples=500)
@given(
    which=st.integers(0, len(SMALL) - 1),
    at=st.integers(0, 400),
    value=st.integers(0, 255),
    action=st.sampled_from(["error", "ignore"]),
)
def test_R12_a_changed_byte_in_a_header_gives_a_photo_or_a_photo_error(which, at, value, action):
    data = bytearray(SMALL[which])
    at %= len(data)
    data[-1 - at if KINDS[which][0] == "TIFF" else at] = value  # a TIFF's tags stand at its end
    with contextlib.suppress(PhotoError), warnings.catch_warnings(action=action):
        assert photo.load(bytes(data)).pixels.dtype == np.uint8


@settings(max_examples=100)
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_R12_a_png_with_a_flipped_bit_is_refused_or_unchanged(at, bit):
    data = bytearray(SMALL[1])
    data[int(at * len(data))] ^= 1 << bit
    try:
        pixels = photo.load(bytes(data)).pixels
    except PhotoError:
        return
    np.testing.assert_array_equal(pixels, PICTURE[:130, :130])


def test_the_example_is_read(cc0: Path):
    assert photo.load(cc0).pixels.shape == (1411, 1411, 3)


def test_a_photo_that_is_refused_keeps_what_is_known_of_it():
    known = Photo(np.zeros((20, 20, 3), np.uint8), "small", "a" * 64, "p1", "left", Listed("small.png", "p2"))
    with pytest.raises(PhotoError) as caught:
        photo.load(known)
    error = caught.value
    assert (error.name, error.sha256, error.patient, error.eye) == ("small", "a" * 64, "p1", "left")
    assert error.listed == known.listed
