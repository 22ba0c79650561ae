"""Colours that no retina has are refused, whatever file they come in; those of real cameras are not."""

import io

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from funduscope import Screener
from funduscope.engine.errors import Code
from funduscope.engine.pictures import colours, photo
from funduscope.engine.pictures.preprocess import Geometry, prepare

GEOMETRY = Geometry(256, 40)


def luma(pixels):
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]


def dicom(pixels, colour, syntax=uid.ExplicitVRLittleEndian):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.OphthalmicPhotography8BitImageStorage, "1.2.3"
    dataset.Rows, dataset.Columns = 704, 704
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, colour, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = pixels if isinstance(pixels, bytes) else pixels.tobytes()
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = isinstance(pixels, bytes)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def bare_jpeg(pixels):
    """A JPEG of these three channels that says nothing of its colours."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", keep_rgb=True, quality=95)
    data = stream.getvalue()
    at = data.index(b"\xff\xee")
    data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    names = ((b"R\x11\0G\x11\0B\x11\0", b"\1\x11\0\2\x11\0\3\x11\0"), (b"R\0G\0B\0", b"\1\0\2\0\3\0"))
    for old, new in names:
        data = data.replace(old, new)
    return data


@pytest.fixture(scope="module")
def retina(cc0):
    return cv2.resize(photo.load(cc0).pixels, (704, 704), interpolation=cv2.INTER_AREA)


CASES = {
    "RGB": (lambda pixels: dicom(pixels, "RGB"), None),
    "YBR": (lambda pixels: dicom(luma(pixels), "YBR_FULL"), None),
    "YBR called RGB": (lambda pixels: dicom(luma(pixels), "RGB"), Code.UNLIKELY_COLOURS),
    "RGB called YBR": (lambda pixels: dicom(pixels, "YBR_FULL"), Code.UNLIKELY_COLOURS),
    "a JPEG without a word, of RGB": (bare_jpeg, Code.UNLIKELY_COLOURS),
    "a JPEG without a word, of YBR": (lambda pixels: bare_jpeg(np.ascontiguousarray(luma(pixels))), None),
    "such a JPEG in DICOM": (
        lambda pixels: dicom(encapsulate([bare_jpeg(pixels)]), "YBR_FULL", uid.JPEGBaseline8Bit),
        Code.UNLIKELY_COLOURS,
    ),
    "an array of BGR": (lambda pixels: np.ascontiguousarray(pixels[..., ::-1]), Code.UNLIKELY_COLOURS),
}


@pytest.mark.parametrize("case", CASES)
def test_colours_that_are_not_what_the_file_says_are_refused(case, retina):
    make, code = CASES[case]
    with Screener.open("multitask", backend="onnxruntime") as screener:
        result = screener(make(retina))
    assert result.code == code
    if code:
        assert result.status == "ungradable"
        assert "brighter than red" in result.reason


@pytest.mark.parametrize("value", [20, 128, 255])
def test_grey_is_not_refused_for_its_colours(value):
    assert colours.excess(np.full((64, 64, 3), value, np.uint8)) == 0


def test_the_excess_is_that_of_the_brighter():
    assert colours.excess(np.full((8, 8, 3), (90, 100, 130), np.uint8)) == pytest.approx(40)
    assert colours.excess(np.full((8, 8, 3), (90, 100, 30), np.uint8)) == pytest.approx(10)
    assert colours.excess(np.full((8, 8, 3), (190, 100, 30), np.uint8)) == pytest.approx(-90)


@pytest.mark.slow
@pytest.mark.data
def test_no_picture_of_the_sets_is_refused_and_swapped_ones_are(data_root):
    paths = []
    for folder in sorted(data_root.glob("*/images")):
        own = sorted(folder.glob("*.jpg"))
        paths += own[:: max(1, len(own) // 30)][:30]
    assert len(paths) >= 290
    own, swapped, called_rgb = [], [], []
    for path in paths:
        pixels = photo.load(path).at_least(560).pixels
        kinds = (own, pixels), (swapped, pixels[..., ::-1]), (called_rgb, luma(pixels))
        for found, shown in kinds:
            found.append(colours.excess(prepare(photo.load(np.ascontiguousarray(shown)), GEOMETRY).image))
    assert max(own) <= colours.EXCESS
    assert np.mean(np.array(called_rgb) > colours.EXCESS) > 0.95
    assert np.mean(np.array(swapped) > colours.EXCESS) > 0.95
