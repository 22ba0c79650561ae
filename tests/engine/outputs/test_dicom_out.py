"""Reports and segmentations of DICOM photographs say what was found, of whom, and in what; nothing else learns the patient."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.sr._concepts_dict import concepts

from funduscope import Screener, Screening
from funduscope.cli import app
from funduscope.engine.errors import MissingExtra
from funduscope.engine.eyes import Listed
from funduscope.engine.outputs import dicom
from funduscope.engine.outputs.store import Store
from funduscope.engine.pictures import photo
from funduscope.engine.run import Run

highdicom = pytest.importorskip("highdicom")

pytestmark = pytest.mark.filterwarnings("ignore")
SIDE = 704
NAMED = {"StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2", "SOPInstanceUID": "2.25.3"}
PATIENT = {
    **{"PatientID": "4711", "PatientName": "Canary^Yellow", "PatientBirthDate": "19500102", "PatientSex": "F"},
    **{"StudyDate": "20250304", "StudyTime": "050607", "StudyID": "8", "AccessionNumber": "9"},
}
SYNTAXES = [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian]
SYNTAXES.append(uid.DeflatedExplicitVRLittleEndian)


@pytest.fixture(scope="module")
def retina(cc0) -> np.ndarray:
    return cv2.resize(photo.load(cc0).pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def screener():
    with Screener.open(backend="onnxruntime", threads=1) as opened:
        yield opened


def written(path: Path, pixels: np.ndarray, syntax: str = SYNTAXES[0], **elements) -> Path:
    """A DICOM photograph; None leaves an element out."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    standard = {"SOPClassUID": uid.OphthalmicPhotography8BitImageStorage, **NAMED, **PATIENT, "Modality": "OP"}
    standard |= {"ImageLaterality": "L", "PixelSpacing": [0.0125, 0.0125], "Rows": SIDE, "Columns": SIDE}
    standard |= {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    standard |= {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "NumberOfFrames": 1}
    for keyword, value in (standard | elements).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW" if syntax == uid.ImplicitVRLittleEndian else "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="module")
def source(retina, tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("source") / "eye.dcm", retina)


@pytest.fixture(scope="module")
def found(screener, source) -> Screening:
    result = screener(str(source))
    assert isinstance(result, Screening)
    assert None not in (result.disc, result.cup, result.fovea)
    return result


def header(path: Path):
    return dicom._header(path.read_bytes())


def named(item) -> str:
    return item.ConceptNameCodeSequence[0].CodeValue


def parts(item, code: str) -> list:
    return [own for own in item.get("ContentSequence", ()) if named(own) == dicom.CODES[code].value]


def groups(report) -> dict[str, pydicom.Dataset]:
    """By what they track."""
    return {parts(own, "tracking")[0].TextValue.split()[1]: own for own in parts(report, "group")}


def numbers(group, code: str) -> dict[str, float]:
    """By unit."""
    values = [own.MeasuredValueSequence[0] for own in parts(group, code)]
    return {own.MeasurementUnitsCodeSequence[0].CodeValue: float(own.NumericValue) for own in values}


@pytest.fixture(scope="module")
def report(found, source) -> pydicom.Dataset:
    data = dicom._bytes_of(dicom.report(found, header(source)))
    return pydicom.dcmread(io.BytesIO(data))


def test_the_report_has_the_root_and_the_groups_of_its_template(report):
    assert report.SOPClassUID == uid.ComprehensiveSRStorage
    assert (named(report), report.ContentTemplateSequence[0].TemplateIdentifier) == ("131246", "2127")
    made = groups(report)
    assert list(made) == ["disc", "cup", "fovea", "glaucoma", "referable_dr", "any_dr", "glaucoma_second"]
    for group in made.values():
        assert group.ContentTemplateSequence[0].TemplateIdentifier == "2120"
        (site,) = parts(group, "finding site")
        assert site.ConceptCodeSequence[0].CodeValue == "81745001"
        (eye,) = parts(site, "laterality")
        assert eye.ConceptCodeSequence[0].CodeValue == dicom.CODES["left"].value
        (image,) = parts(group, "source")
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == NAMED["SOPInstanceUID"]
        assert image.ReferencedSOPSequence[0].ReferencedSOPClassUID == uid.OphthalmicPhotography8BitImageStorage


def test_the_report_has_what_was_measured_with_its_units(report, found):
    made = groups(report)
    assert numbers(made["disc"], "vcdr") == {"{ratio}": pytest.approx(found.vcdr, abs=1e-6)}
    assert numbers(made["disc"], "vcdr_first") == {"{ratio}": pytest.approx(found.scores["vcdr_first"], abs=1e-6)}
    for name, outline in (("disc", found.disc), ("cup", found.cup)):
        values = numbers(made[name], "diameter")
        pixels = outline.vertical_diameter_px
        assert values == {"{pixels}": pytest.approx(pixels, abs=0.01), "mm": pytest.approx(pixels * 0.0125, abs=1e-4)}
        assert parts(made[name], "finding")[0].ConceptCodeSequence[0].CodeValue == dicom.CODES[name].value
    (point,) = parts(made["fovea"], "centre")
    assert point.GraphicType == "POINT"
    assert point.GraphicData == pytest.approx(np.add(found.fovea, 0.5), abs=1e-3)
    assert point.ContentSequence[0].RelationshipType == "SELECTED FROM"


def test_the_report_has_each_opinion_and_who_gave_it(report, found):
    models = {model.name: model for model in found.models}
    of = {
        "glaucoma": "disc",
        "glaucoma_second": "classifier",
        "referable_dr": "classifier",
        "any_dr": "classifier",
    }
    for name, group in groups(report).items():
        algorithm = {}
        for own in group.ContentSequence:
            algorithm.setdefault(named(own), []).append(own.get("TextValue"))
        model = models[of.get(name, "multitask" if name == "fovea" else "disc")]
        assert (algorithm["111001"], algorithm["111003"]) == ([model.name], [model.version])
        assert f"sha256 {model.sha256}" in algorithm["111002"]
        assert (f"operating point {found.point}" in algorithm["111002"]) == (model.name == "classifier")
        if name not in of:
            continue
        decision = found.decisions[name]
        (answer,) = [own for own in group.ContentSequence if named(own) == name.replace("_", "-")]
        expected = {True: "yes", False: "no", None: "open"}[decision.called]
        assert answer.ConceptCodeSequence[0].CodeValue == dicom.CODES[expected].value
        assert numbers(group, "certainty") == {"%": pytest.approx(100 * decision.probability, abs=1e-4)}
        assert numbers(group, "threshold") == {"%": pytest.approx(100 * decision.threshold, abs=1e-4)}


@pytest.mark.parametrize("called", [True, False, None])
def test_an_opinion_is_yes_no_or_open(called):
    from funduscope.engine.findings import Decision

    items = dicom._opinion(Decision("glaucoma", None if called is None else 0.5, 0.4, called), dicom.CODES["disc"])
    meaning = {True: "Yes", False: "No", None: "Indeterminate"}[called]
    assert items[0].ConceptCodeSequence[0].CodeMeaning == meaning
    assert len(items) == (2 if called is None else 3)


def test_both_documents_are_of_the_patient_and_study_of_their_source(found, source, report):
    made = dicom.segmentation(found, header(source))
    for document in (report, made):
        assert {name: str(document[name].value) for name in PATIENT} == PATIENT
        assert document.StudyInstanceUID == NAMED["StudyInstanceUID"]
        assert document.SeriesInstanceUID not in NAMED.values()
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == NAMED["SeriesInstanceUID"]


def test_highdicom_reads_both_again(found, source, tmp_path):
    paths = tmp_path / "sr.dcm", tmp_path / "seg.dcm"
    for path, make in zip(paths, (dicom.report, dicom.segmentation), strict=True):
        path.write_bytes(dicom._bytes_of(make(found, header(source))))
    assert isinstance(highdicom.sr.srread(paths[0]), highdicom.sr.ComprehensiveSR)
    read = highdicom.seg.segread(paths[1])
    assert [read.get_segment_description(k).segment_label for k in (1, 2)] == ["Optic nerve head", "Optic cup"]
    for number, name in ((1, "disc"), (2, "cup")):
        np.testing.assert_array_equal(read.pixel_array[number - 1].astype(bool), found.mask(name))
        described = read.get_segment_description(number)
        assert described.segmented_property_type.value == dicom.CODES[name].value
        assert described.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "disc"
        eye = described.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0]
        assert eye.CodeValue == dicom.CODES["left"].value
    sources = [own for own in dicom._items(read) if own.get("ReferencedSOPInstanceUID") == NAMED["SOPInstanceUID"]]
    assert len(sources) >= 2
    assert {own.ReferencedSOPClassUID for own in sources} == {uid.OphthalmicPhotography8BitImageStorage}


UNKNOWN_TO_PYDICOM = {"131246", "370937003", "23986001", "4855003", "{pixels}"}  # from the standard and SNOMED CT


@pytest.mark.parametrize("name", dicom.CODES)
def test_each_code_is_that_of_pydicoms_dictionary(name):
    code = dicom.CODES[name]
    assert len(code.value) <= 16  # of a Code Value
    if code.scheme == dicom.OWN:
        assert code.value.replace("-", "").isalpha()
        return
    known = [(key, values[code.value][0]) for key, values in concepts[code.scheme].items() if code.value in values]
    assert bool(known) == (code.value not in UNKNOWN_TO_PYDICOM)
    said = " ".join(f"{key} {meaning}" for key, meaning in known).lower()
    assert not known or all(word in said for word in code.meaning.lower().split())


def test_every_disease_and_verdict_has_its_code():
    from funduscope.engine.diseases import DISEASES

    assert {f"of {name}" for name in DISEASES} <= dicom.CODES.keys()


DCIODVFY = shutil.which("dciodvfy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


@pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("make", [dicom.report, dicom.segmentation])
@pytest.mark.parametrize("kind", [uid.OphthalmicPhotography8BitImageStorage, uid.SecondaryCaptureImageStorage])
def test_an_independent_validator_finds_no_error(make, kind, found, retina, tmp_path):
    source = written(tmp_path / "eye.dcm", retina, SOPClassUID=kind)
    path = tmp_path / "made.dcm"
    path.write_bytes(dicom._bytes_of(make(found, header(source))))
    told = subprocess.run([DCIODVFY, path], capture_output=True, text=True).stderr
    assert told.splitlines()[0].startswith(("ComprehensiveSR", "Segmentation"))
    assert [line for line in told.splitlines() if "Error" in line] == []


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"SOPClassUID": uid.SecondaryCaptureImageStorage, "NumberOfFrames": None},
        {"PixelSpacing": None, "PatientName": None, "StudyID": None},
        {"FrameOfReferenceUID": "2.25.9", "SpecificCharacterSet": "ISO_IR 192", "PatientName": "Müller^Jörg"},
    ],
    ids=["photography", "secondary capture", "little said", "more said"],
)
def test_sources_of_many_kinds(syntax, elements, found, retina, tmp_path):
    source = header(written(tmp_path / "eye.dcm", retina, syntax, **elements))
    for make in (dicom.report, dicom.segmentation):
        read = pydicom.dcmread(io.BytesIO(dicom._bytes_of(make(found, source))))
        assert str(read.PatientName) == (elements.get("PatientName", PATIENT["PatientName"]) or "")
    spaced = elements.get("PixelSpacing", ()) is not None
    assert ("mm" in numbers(groups(dicom.report(found, source))["disc"], "diameter")) == spaced


def test_a_frame_of_several_is_named(screener, retina, tmp_path):
    frames = np.stack([retina[::-1], retina])
    path = written(tmp_path / "two.dcm", frames, NumberOfFrames=2)
    result = screener(Listed(str(path), frame=2))
    report, made = (make(result, header(path)) for make in (dicom.report, dicom.segmentation))
    (image,) = parts(groups(report)["disc"], "source")
    assert image.ReferencedSOPSequence[0].ReferencedFrameNumber == 2
    sources = [
        own for own in dicom._items(made) if "PurposeOfReferenceCodeSequence" in own and "ReferencedFrameNumber" in own
    ]
    assert {own.ReferencedFrameNumber for own in sources} == {2}
    np.testing.assert_array_equal(made.pixel_array[0].astype(bool), result.mask("disc"))


# in a run


def files(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "dicom").iterdir())


@pytest.fixture
def pictures(retina, tmp_path) -> list[Listed]:
    png = tmp_path / "eye.png"
    cv2.imwrite(str(png), retina[..., ::-1])
    paths = [written(tmp_path / "a.dcm", retina), png]
    paths.append(written(tmp_path / "nameless.dcm", retina, StudyInstanceUID=None))
    paths.append(written(tmp_path / "odd.dcm", retina, PatientSex="CANARY"))
    return [Listed(str(path)) for path in [*paths, tmp_path / "absent.dcm"]]


def test_a_run_writes_them_and_counts_the_others(screener, pictures, tmp_path, capfd):
    out = tmp_path / "out"
    run = Run(screener, pictures, out, dicom=True)
    assert len(list(run)) == 5
    assert files(out) == ["000000_a.seg.dcm", "000000_a.sr.dcm"]
    assert dict(run.undocumented) == {dicom.NO_DICOM: 1, dicom.NO_NAMES: 1, dicom.FAILED: 1}
    assert "canary" not in "".join(capfd.readouterr()).lower()
    before = {name: (out / "dicom" / name).read_bytes() for name in files(out)}
    list(Run(screener, pictures, out, onto="resume", dicom=True))
    assert {name: (out / "dicom" / name).read_bytes() for name in files(out)} == before
    (out / "dicom" / "mine.dcm").write_bytes(b"")
    list(Run(screener, pictures[:2], out, onto="overwrite"))
    assert files(out) == ["mine.dcm"]


def test_a_picture_that_has_changed_has_new_ones(screener, pictures, retina, tmp_path):
    out = tmp_path / "out"
    list(Run(screener, pictures[:1], out, dicom=True))
    before = (out / "dicom" / "000000_a.sr.dcm").read_bytes()
    written(tmp_path / "a.dcm", retina, PatientID="another")
    list(Run(screener, pictures[:1], out, onto="resume", dicom=True))
    after = out / "dicom" / "000000_a.sr.dcm"
    assert after.read_bytes() != before
    assert pydicom.dcmread(after).PatientID == "another"


def test_of_no_known_eye_there_is_a_segmentation_alone(fake, painter, retina, tmp_path):
    path = written(tmp_path / "eye.dcm", retina, ImageLaterality=None)
    with fake(lambda image: painter.maps(fovea=None)) as opened:
        run = Run(opened, [Listed(str(path))], tmp_path / "out", dicom=True)
        (result,) = run
    assert result.eyes.eye is None
    assert files(tmp_path / "out") == ["000000_eye.seg.dcm"]
    assert dict(run.undocumented) == {dicom.NO_EYE: 1}


def test_the_command_line_writes_them_of_the_frame_that_is_named(retina, tmp_path, capsys, monkeypatch):
    path = written(tmp_path / "two.dcm", np.stack([retina[::-1], retina]), NumberOfFrames=2)
    cv2.imwrite(str(tmp_path / "eye.png"), retina[..., ::-1])
    out = tmp_path / "out"
    command = [
        "screen",
        str(path),
        str(tmp_path / "eye.png"),
        "--out",
        str(out),
        "--frame",
        "2",
        "--dicom",
        "--model",
        "multitask",
    ]
    app(command, standalone_mode=False)
    told = capsys.readouterr().err
    assert "1 ok, 1 MULTI_PAGE" in told
    assert files(out) == ["000000_two.seg.dcm", "000000_two.sr.dcm"]
    (group,) = [own for own in dicom._items(pydicom.dcmread(out / "dicom" / files(out)[1])) if own.get("GraphicType")]
    assert group.GraphicType == "POINT"
    with Store(out) as store:
        assert store.pictures()[0].frame == 2
        assert [own.frame for _, own in store.results() if isinstance(own, Screening)] == [2]


def test_without_highdicom_nothing_is_begun(screener, pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MissingExtra, match=r"pip install 'funduscope\[dicom-out\]'"):
        list(Run(screener, pictures, tmp_path / "out", dicom=True))
    assert not (tmp_path / "out").exists()
