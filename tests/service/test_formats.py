"""Results in the format that is asked for: JSON, FHIR, and DICOM as one file or as several."""

from __future__ import annotations

import email
import io
import sys

import cv2
import numpy as np
import pytest

from funduscope import Screener

pytest.importorskip("starlette")
from starlette.requests import Request

from funduscope.service import formats

URL = "/v1/screenings"
JPEG = {"Content-Type": "image/jpeg"}
RELATED = 'multipart/related; type="application/dicom"'


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, formats.JSON),
        ("*/*", formats.JSON),
        ("text/html, image/png", formats.JSON),
        ("application/fhir+json", formats.FHIR),
        ("Application/FHIR+JSON; fhirVersion=4.0", formats.FHIR),
        ('application/fhir+json;fhirVersion="4.0"', formats.FHIR),
        ("application/fhir+json; fhirVersion=5.0", formats.JSON),
        ("application/json, application/fhir+json", formats.JSON),
        ("application/json; q=0.5, application/fhir+json", formats.FHIR),
        ("application/fhir+json; q=0, */*", formats.JSON),
        ("application/fhir+json, */*", formats.FHIR),
        ("application/dicom", formats.DICOM),
        (RELATED, formats.RELATED),
        ("multipart/related; type=application/dicom;q=0.9, application/dicom;q=0.8", formats.RELATED),
        ('multipart/related; type="image/jpeg"', formats.JSON),
        (";;;,q=,application/dicom;q=x", formats.DICOM),
    ],
)
def test_what_is_accepted_says_the_format(accept, form):
    headers = [] if accept is None else [(b"accept", accept.encode())]
    assert formats.asked(Request({"type": "http", "headers": headers})) == form


# FHIR


def test_a_picture_is_answered_as_fhir(client, jpeg):
    answer = client().post(URL, content=jpeg(), headers={**JPEG, "Accept": "application/fhir+json"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/fhir+json; fhirVersion=4.0"
    assert "not a diagnosis" in answer.headers["Funduscope-Notice"]
    bundle = answer.json()
    (report,) = [own["resource"] for own in bundle["entry"] if own["resource"]["resourceType"] == "DiagnosticReport"]
    assert answer.headers["Funduscope-Notice"] in report["conclusion"]
    pytest.importorskip("fhir.resources")
    from fhir.resources.R4B.bundle import Bundle

    assert len(Bundle.model_validate(bundle).entry) == len(bundle["entry"]) >= 7


def test_a_form_has_a_report_for_each_picture_and_a_bad_picture_alone_is_422(client, jpeg):
    asked, accept = client(), {"Accept": "application/fhir+json"}
    files = [("right", ("a.jpg", jpeg(1))), ("left", ("b.jpg", b"no picture"))]
    answer = asked.post(URL, files=files, data={"patient": "P-17"}, headers=accept)
    reports = [
        own["resource"] for own in answer.json()["entry"] if own["resource"]["resourceType"] == "DiagnosticReport"
    ]
    assert (answer.status_code, len(reports)) == (200, 2)
    assert {own["subject"]["identifier"]["value"] for own in reports} == {"P-17"}
    bad = asked.post(URL, content=b"no picture", headers={**JPEG, **accept})
    assert (bad.status_code, bad.json()["resourceType"]) == (422, "Bundle")
    assert "UNKNOWN_FORMAT" in bad.text


def test_a_drawing_is_asked_for_by_its_parameter(client, jpeg):
    answer = client().post(f"{URL}?overlay=1", content=jpeg(), headers={**JPEG, "Accept": "application/fhir+json"})
    assert answer.headers["content-type"] == "image/png"


def test_the_description_has_the_formats_with_a_valid_example(client):
    content = client().get("/openapi.json").json()["paths"][URL]["post"]["responses"]["200"]["content"]
    assert {formats.JSON, formats.FHIR, formats.DICOM, formats.RELATED} <= content.keys()
    pytest.importorskip("fhir.resources")
    from fhir.resources.R4B.bundle import Bundle

    example = Bundle.model_validate(content[formats.FHIR]["examples"]["one"]["value"])
    row = content[formats.JSON]["examples"]["one"]["value"]["screenings"][0]
    told = {own.resource.code.text: own.resource for own in example.entry if hasattr(own.resource, "component")}
    assert float(told["Vertical cup-to-disc ratio"].valueQuantity.value) == row["vcdr"]
    assert float(told["Refer: glaucoma"].component[0].valueQuantity.value) == row["glaucoma_probability"]


# DICOM


@pytest.fixture(scope="module")
def dicom():
    """The bytes of a DICOM photograph: `dicom(pixels, **elements)`; None leaves an element out."""
    pytest.importorskip("highdicom")
    import pydicom
    from pydicom import uid

    def made(pixels: np.ndarray, **elements) -> bytes:
        own = pydicom.Dataset()
        own.file_meta = pydicom.dataset.FileMetaDataset()
        own.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        standard = {
            **{"SOPClassUID": uid.OphthalmicPhotography8BitImageStorage, "SOPInstanceUID": "2.25.3"},
            **{"StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2", "Modality": "OP", "NumberOfFrames": 1},
            **{"PatientID": "4711", "PatientName": "Canary^Yellow", "ImageLaterality": "L"},
            **{"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0},
            **{"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0},
        }
        for keyword, value in (standard | elements).items():
            if value is not None:
                setattr(own, keyword, value)
        own.Rows, own.Columns = pixels.shape[:2]
        own.PixelData = pixels.tobytes()
        own["PixelData"].VR = "OB"
        stream = io.BytesIO()
        own.save_as(stream, enforce_file_format=True)
        return stream.getvalue()

    return made


@pytest.fixture(scope="module")
def retina(cc0) -> np.ndarray:
    picture = cv2.imread(str(cc0))[..., ::-1]
    return np.ascontiguousarray(cv2.resize(picture, (704, 704), interpolation=cv2.INTER_AREA))


@pytest.fixture(scope="module")
def both():
    """The embedded models."""
    with Screener.open(backend="onnxruntime", threads=1) as opened:
        yield opened


def read(data: bytes):
    import pydicom

    return pydicom.dcmread(io.BytesIO(data))


@pytest.mark.filterwarnings("ignore")
def test_a_dicom_picture_is_answered_with_its_report(client, both, dicom, retina, tmp_path):
    import highdicom

    headers = {"Content-Type": "application/dicom", "Accept": "application/dicom"}
    answer = client(both).post(URL, content=dicom(retina), headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom")
    assert "not a diagnosis" in answer.headers["Funduscope-Notice"]
    report = read(answer.content)
    assert (report.PatientID, report.StudyInstanceUID) == ("4711", "2.25.1")
    (tmp_path / "sr.dcm").write_bytes(answer.content)
    again = highdicom.sr.srread(tmp_path / "sr.dcm")
    assert isinstance(again, highdicom.sr.ComprehensiveSR)
    groups = [own for own in again.ContentSequence if own.ValueType == "CONTAINER"]
    tracked = [own.ContentSequence[0].TextValue for own in groups]
    assert tracked[:2] == ["Funduscope disc", "Funduscope cup"]
    found = both(dicom(retina))
    (ratio,) = [own for own in groups[0].ContentSequence if own.ConceptNameCodeSequence[0].CodeValue == "370937003"]
    assert float(ratio.MeasuredValueSequence[0].NumericValue) == pytest.approx(found.vcdr, abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_several_are_answered_in_parts_reports_and_segmentations(client, both, dicom, retina, tmp_path):
    import highdicom

    files = [("picture", ("a.dcm", dicom(retina))), ("right", ("b.dcm", dicom(retina, SOPInstanceUID="2.25.4")))]
    files.append(("picture", ("c.dcm", b"no picture")))
    answer = client(both).post(URL, files=files, headers={"Accept": RELATED})
    assert answer.status_code == 200
    kind = answer.headers["content-type"]
    assert kind.startswith('multipart/related; type="application/dicom"; boundary=')
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + answer.content)
    parts = message.get_payload()
    assert {own.get_content_type() for own in parts} == {"application/dicom"}
    datasets = [read(own.get_payload(decode=True)) for own in parts]
    assert [own.Modality for own in datasets] == ["SR", "SEG"] * 2
    (tmp_path / "seg.dcm").write_bytes(parts[1].get_payload(decode=True))
    assert highdicom.seg.segread(tmp_path / "seg.dcm").number_of_segments == 2


@pytest.mark.filterwarnings("ignore")
def test_what_has_no_report_is_told(client, both, dicom, jpeg, retina, capfd):
    asked, accept = client(both), {"Accept": "application/dicom"}
    kind = {"Content-Type": "application/dicom", **accept}
    ordinary = asked.post(URL, content=cv2.imencode(".png", retina[..., ::-1])[1].tobytes(), headers=kind)
    assert (ordinary.status_code, ordinary.headers["content-type"]) == (422, "application/problem+json")
    assert "no DICOM files" in ordinary.json()["detail"]
    nameless = asked.post(URL, content=dicom(retina, StudyInstanceUID=None), headers=kind)
    assert "do not name" in nameless.json()["detail"]
    odd = asked.post(URL, content=dicom(retina, PatientSex="CANARY"), headers=kind)
    assert (odd.status_code, "canary" in odd.text.lower()) == (422, False)
    black = asked.post(URL, content=dicom(np.zeros_like(retina)), headers=kind)
    assert (black.status_code, black.json()["screenings"][0]["status"]) == (422, "ungradable")
    two = asked.post(URL, files=[("picture", ("a.jpg", jpeg())), ("picture", ("b.jpg", jpeg()))], headers=accept)
    assert (two.status_code, "multipart/related" in two.json()["detail"]) == (400, True)
    assert "canary" not in "".join(capfd.readouterr()).lower()


def test_without_highdicom_it_is_not_acceptable(client, jpeg, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    asked = client()
    for accept in ("application/dicom", RELATED):
        answer = asked.post(URL, content=jpeg(), headers={**JPEG, "Accept": accept})
        assert answer.status_code == 406
        assert "funduscope[dicom-out]" in answer.json()["detail"]
    assert asked.post(URL, content=jpeg(), headers=JPEG).status_code == 200
