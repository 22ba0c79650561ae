"""Whose eye a picture shows: the list has the last word, then the file, then the picture; and who disagrees is told."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid

from funduscope.engine.errors import Code
from funduscope.engine.eyes import Listed
from funduscope.engine.pictures import photo
from funduscope.engine.pictures.photo import Photo
from funduscope.engine.results import Eyes, Rejected

PIXELS = np.full((180, 200, 3), 90, np.uint8)
RIGHT = {"disc": (150, 120, 40, 48), "fovea": (90, 130)}  # the disc lies on the nose's side, right of the fovea
LEFT = {"disc": (105, 120, 40, 48), "cup": (105, 121, 20, 24), "fovea": (165, 130)}
CONFLICT = (Code.LATERALITY_CONFLICT,)


def dicom(folder, side: str | None, pixels: np.ndarray = PIXELS):
    """A DICOM file of one photograph. side: R, L, or None for no such element."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.OphthalmicPhotography8BitImageStorage, "1.2.3"
    dataset.PatientID = "4711"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *pixels.shape[:2], 3
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    if side:
        dataset.ImageLaterality = side
    dataset.PixelData = pixels.tobytes()
    path = folder / f"eye_{side}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ((17,), TypeError, "path must be a str or a Path, not int"),
        ((None,), TypeError, "path must be a str or a Path, not NoneType"),
        ((b"eye.jpg",), TypeError, "path must be a str or a Path, not bytes"),
        (("eye.jpg", 17), TypeError, "patient must be a str or None, not int"),
        (("eye.jpg", "p1", "OD"), ValueError, "eye 'OD': must be right, left or None"),
        (("eye.jpg", "p1", ""), ValueError, "eye '': must be right, left or None"),
        (("eye.dcm", None, None, "2"), TypeError, "frame must be an int or None, not str"),
        (("eye.dcm", None, None, 0), ValueError, "frame 0: must be 1 or more"),
    ],
)
def test_what_a_list_cannot_say_is_refused_where_it_is_made(values, error, words):
    with pytest.raises(error, match=words):
        Listed(*values)


def test_a_path_is_listed_as_its_text():
    assert Listed(Path("a") / "eye.jpg", "p1", "left") == Listed(os.path.join("a", "eye.jpg"), "p1", "left")
    assert type(Listed(Path("eye.jpg")).path) is str


@pytest.fixture
def seen(fake, painter):
    """Makes the result of a source that shows what `maps` say."""

    def look(source, maps):
        with fake(lambda image: painter.maps(**maps)) as opened:
            return opened(source)

    return look


@pytest.mark.parametrize(("maps", "eye"), [(RIGHT, "right"), (LEFT, "left")])
def test_the_side_of_the_disc_tells_the_eye(seen, maps, eye):
    found = seen(PIXELS, maps)
    assert found.eyes == Eyes(None, eye, "picture")
    assert found.warnings == ()
    row = found.to_dict()
    assert (row["patient"], row["eye"], row["eye_source"]) == (None, eye, "picture")


@pytest.mark.parametrize(
    "maps",
    [{**RIGHT, "fovea": (105, 121)}, {**RIGHT, "fovea": (95, 200)}],
    ids=["nearer than a disc", "more below than beside"],
)
def test_where_the_picture_does_not_tell_the_eye_stays_open(seen, maps):
    found = seen(PIXELS, maps)
    assert found.fovea is not None
    assert found.eyes == Eyes()
    assert found.warnings == ()


def test_without_a_fovea_the_list_is_believed(seen, tmp_path):
    found = seen(Listed(str(dicom(tmp_path, None)), "p1", "left"), {**RIGHT, "fovea": None})
    assert found.eyes == Eyes("p1", "left", "list")
    assert found.warnings == (Code.FOVEA_NOT_FOUND,)


@pytest.mark.parametrize(
    ("listed", "file", "maps", "eye", "source", "warnings"),
    [
        (None, None, RIGHT, "right", "picture", ()),
        (None, "R", RIGHT, "right", "file", ()),
        (None, "L", RIGHT, "left", "file", CONFLICT),
        ("right", None, RIGHT, "right", "list", ()),
        ("left", None, RIGHT, "left", "list", CONFLICT),
        ("right", "R", RIGHT, "right", "list", ()),
        ("right", "L", RIGHT, "right", "list", CONFLICT),  # list and file
        ("left", "R", RIGHT, "left", "list", CONFLICT),  # list against both: told once
        ("left", "L", RIGHT, "left", "list", CONFLICT),  # list and picture
        ("left", "L", LEFT, "left", "list", ()),
    ],
)
def test_list_goes_before_file_before_picture_and_conflicts_are_told(
    seen, tmp_path, listed, file, maps, eye, source, warnings
):
    found = seen(Listed(str(dicom(tmp_path, file)), None, listed), maps)
    assert (found.eyes.eye, found.eyes.source) == (eye, source)
    assert found.warnings == warnings
    assert found.eyes.patient == photo.load(dicom(tmp_path, file)).patient is not None


def test_a_photo_may_say_itself_whose_eye_it_shows(seen):
    found = seen(Photo(PIXELS, "frame", patient="p2", eye="left"), RIGHT)
    assert found.eyes == Eyes("p2", "left", "file")
    assert found.warnings == CONFLICT


def test_the_lists_patient_goes_before_the_files(seen, tmp_path):
    assert seen(Listed(str(dicom(tmp_path, "R")), "p3"), RIGHT).eyes == Eyes("p3", "right", "file")


@pytest.mark.parametrize(("side", "warnings"), [("R", CONFLICT), ("L", ()), (None, ())])
def test_the_classifier_alone_has_list_and_file_to_compare(fake, classifier, tmp_path, side, warnings):
    with fake(models=[classifier]) as opened:
        found = opened(Listed(str(dicom(tmp_path, side)), None, "left"))
    assert (found.eyes.eye, found.eyes.source) == ("left", "list")
    assert found.warnings == warnings


def test_warnings_of_both_models_and_of_the_eye_stand_together(both, painter, opinions):
    with both(lambda image: painter.maps(**{**RIGHT, "cup": None}), classify=lambda image: opinions(0.4)) as opened:
        found = opened(Photo(PIXELS, "frame", eye="left"))
    assert found.warnings == (Code.CUP_NOT_FOUND, Code.LATERALITY_CONFLICT, Code.GLAUCOMA_UNCERTAIN)


def test_a_rejected_picture_keeps_whose_eye_it_is(seen, tmp_path):
    absent = seen(Listed(str(tmp_path / "absent.jpg"), "p1", "right"), RIGHT)
    black = seen(dicom(tmp_path, "L", np.zeros_like(PIXELS)), RIGHT)
    no_disc = seen(Listed(str(dicom(tmp_path, "R")), "p1"), {"disc": None})
    not_finite = seen(Listed(str(dicom(tmp_path, "R")), "p1"), {"glaucoma": np.nan})
    codes = [Code.NOT_FOUND, Code.NO_FIELD_OF_VIEW, Code.DISC_NOT_FOUND, Code.MODEL_NONFINITE]
    assert [found.code for found in (absent, black, no_disc, not_finite)] == codes
    assert absent.eyes == Eyes("p1", "right", "list")
    assert black.eyes == Eyes(photo.load(dicom(tmp_path, "L")).patient, "left", "file")
    assert no_disc.eyes == not_finite.eyes == Eyes("p1", "right", "file")
    assert isinstance(absent, Rejected)
    row = absent.to_dict()
    assert (row["patient"], row["eye"], row["eye_source"]) == ("p1", "right", "list")


@pytest.mark.parametrize(
    ("pixels", "painted", "code"),
    [
        (np.zeros_like(PIXELS), RIGHT, Code.NO_FIELD_OF_VIEW),
        (PIXELS, {"disc": None}, Code.DISC_NOT_FOUND),
        (PIXELS, {"glaucoma": np.nan}, Code.MODEL_NONFINITE),
    ],
)
def test_a_rejected_picture_keeps_the_conflict_over_its_eye(seen, tmp_path, pixels, painted, code):
    path = str(dicom(tmp_path, "R", pixels))
    for eye, warnings in (("left", CONFLICT), ("right", ())):
        found = seen(Listed(path, "p1", eye), painted)
        assert (found.code, found.warnings) == (code, warnings)
        assert found.to_dict()["warnings"] == list(warnings)


def test_a_damaged_file_that_names_its_eye_can_contradict_the_list(seen, tmp_path):
    path = dicom(tmp_path, "R")
    path.write_bytes(path.read_bytes()[:-100])
    found = seen(Listed(str(path), "p1", "left"), RIGHT)
    assert (found.status, found.warnings) == ("error", CONFLICT)


def test_every_picture_of_a_stream_keeps_its_own_eye(fake, painter, tmp_path):
    path = str(dicom(tmp_path, None))
    sources = [Listed(path, f"p{k}", ("left", "right", None)[k % 3]) for k in range(10)]
    with fake(lambda image: painter.maps(fovea=None), max_batch=3) as opened:
        found = list(opened.stream(sources))
    assert [(one.eyes.eye, one.eyes.patient) for one in found[:2]] == [("left", "p0"), ("right", "p1")]
    assert [one.eyes.eye for one in found] == [one.eye for one in sources]


def test_a_picture_that_cannot_be_read_is_still_its_patients_eye(fake, painter, tmp_path):
    path = dicom(tmp_path, "L")
    whole = photo.load(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with fake(lambda image: painter.maps(**LEFT)) as opened:
        found = opened(path)
    assert isinstance(found, Rejected)
    assert found.code == Code.DAMAGED
    assert found.eyes == Eyes(whole.patient, "left", "file")


def test_a_listed_file_in_memory_has_its_name_and_is_not_opened(fake, cc0, tmp_path):
    listed = Listed(str(tmp_path / "not there.jpg"), "p1", "left", data=cc0.read_bytes())
    with fake() as opened:
        found, bad = opened(listed), opened(Listed(str(cc0), "p1", "left", data=b"x"))
    assert (found.status, found.name, found.eyes) == ("ok", listed.path, Eyes("p1", "left", "list"))
    assert (bad.code, bad.name, bad.eyes.patient) == (Code.UNKNOWN_FORMAT, str(cc0), "p1")
    assert len(repr(listed)) < 200 + len(str(tmp_path))  # not the bytes
