"""What was found, as DICOM: of each screened DICOM photograph a structured report and a segmentation. Needs `dicom-out`.

The report is a Comprehensive SR by TID 2127, "Ophthalmic Image ROI Measurements" (part 16 of the standard), with a group by
TID 2120 for each structure and each decision, and the algorithm by TID 4019. The segmentation has disc and cup. Both name the
photograph as their source and carry its patient and study. Nothing is de-identified here.
"""

from __future__ import annotations

import copy
import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from ...version import __version__
from ..errors import PhotoError, require
from ..eyes import Eye
from ..files import remove, remove_parts, write_bytes
from ..findings import Decision, Structure
from ..pictures import photo
from ..pictures.dicom import FILTERS
from ..readers import READERS
from ..results import ModelName, Result, Screening
from .overlays import stem

FOLDER = "dicom"
EXTRA = "dicom-out"
OWN: Final = "99FUNDUSCOPE"
NO_DICOM, NO_NAMES, NO_EYE, FAILED = (
    "no DICOM files",
    "DICOM files that do not name their study, series or instance",
    "of no known eye: segmentation alone",
    "DICOM files whose header could not be taken over",
)
_FILE = "[0-9][0-9][0-9][0-9][0-9][0-9]_*.dcm"
_SINGLE_FRAME = "1.2.840.10008.5.1.4.1.1.77.1.4"  # VL Photographic Image
_SPATIAL = (  # what is of volumes alone, or needs a thickness of slices beside it
    *("FrameOfReferenceUID", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("NumberOfFrames", "PixelSpacing"),
)
_NAMES = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_TAKEN_OVER = (  # type 2: they may be empty and must be there
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)


class Coded(NamedTuple):
    """A concept: its code, who defines it, what it means."""

    value: str
    scheme: str
    meaning: str


CODES: Final[dict[str, Coded]] = {
    "report": Coded("131246", "DCM", "Ophthalmic Image ROI Measurements"),
    "group": Coded("125007", "DCM", "Measurement Group"),
    "finding": Coded("121071", "DCM", "Finding"),
    "finding site": Coded("363698007", "SCT", "Finding Site"),
    "eye": Coded("81745001", "SCT", "Eye"),
    "laterality": Coded("272741003", "SCT", "Laterality"),
    "right": Coded("24028007", "SCT", "Right"),
    "left": Coded("7771000", "SCT", "Left"),
    "disc": Coded("81016008", "SCT", "Optic nerve head"),
    "cup": Coded("optic-cup", OWN, "Optic cup"),
    "fovea": Coded("67046006", "SCT", "Fovea centralis"),
    "vcdr": Coded("370937003", "SCT", "Vertical cup-to-disc ratio"),
    "vcdr_first": Coded("vcdr-first", OWN, "Vertical cup-to-disc ratio of the first look alone"),
    "diameter": Coded("81827009", "SCT", "Diameter"),
    "modifier": Coded("106233006", "SCT", "Topographical modifier"),
    "vertical": Coded("33096000", "SCT", "Vertical"),
    "centre": Coded("111010", "DCM", "Center"),
    "source": Coded("121112", "DCM", "Source of Measurement"),
    "tracking": Coded("112039", "DCM", "Tracking Identifier"),
    "tracking uid": Coded("112040", "DCM", "Tracking Unique Identifier"),
    "certainty": Coded("111012", "DCM", "Certainty of Finding"),
    "threshold": Coded("threshold", OWN, "Decision threshold"),
    "yes": Coded("373066001", "SCT", "Yes"),
    "no": Coded("373067005", "SCT", "No"),
    "open": Coded("82334004", "SCT", "Indeterminate"),
    "device": Coded("121007", "DCM", "Device"),
    "structure": Coded("123037004", "SCT", "Body structure"),
    "algorithm family": Coded("123110", "DCM", "Artificial Intelligence"),
    "ratio": Coded("{ratio}", "UCUM", "ratio"),
    "pixels": Coded("{pixels}", "UCUM", "pixels"),
    "mm": Coded("mm", "UCUM", "mm"),
    "percent": Coded("%", "UCUM", "Percent"),
    # diseases by their names in `diseases.py`, and what is asked of them by the names of verdicts
    "of glaucoma": Coded("23986001", "SCT", "Glaucoma"),
    "of referable_dr": Coded("4855003", "SCT", "Diabetic retinopathy"),
    "of any_dr": Coded("4855003", "SCT", "Diabetic retinopathy"),
}


class Reports:
    """Writes a report and a segmentation of each screened DICOM photograph into a folder; what is there already stays.

    Args:
        folder: Where to.

    Attributes:
        missed: How many photographs are gone or have changed.
        left_out: How many others have no report, by the reason.
    """

    def __init__(self, folder: Path) -> None:
        expect()
        self._folder = folder
        self.missed = 0
        self.left_out: Counter[str] = Counter()
        remove_parts(folder)

    def write(self, number: int, result: Result) -> None:
        """Write one result; a rejected one has no report. Raises OutputError."""
        if not isinstance(result, Screening):
            return
        paths = [self._folder / f"{number:06d}_{stem(result)}.{kind}.dcm" for kind in ("sr", "seg")]
        if all(path.exists() for path in paths):
            return
        try:
            data = photo.read_bytes(result.name)
        except PhotoError:
            self.missed += 1
            return
        if hashlib.sha256(data).hexdigest() != result.sha256:
            self.missed += 1
            return
        made = documents(result, data)
        if made.lacking:
            self.left_out[made.lacking] += 1
        for path, own in zip(paths, (made.report, made.segmentation), strict=True):
            if own is not None:
                write_bytes(path, own)


class Documents(NamedTuple):
    """What is written of a photograph, each as a file's bytes; None where there is none. lacking: why there is no report."""

    report: bytes | None = None
    segmentation: bytes | None = None
    lacking: str | None = None


def documents(found: Screening, data: bytes) -> Documents:
    """Report and segmentation of a photograph.

    Args:
        found: What was found on it.
        data: Its file, which may be none of DICOM's.
    """
    if not photo.is_dicom(data):
        return Documents(lacking=NO_DICOM)
    try:
        with FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they may quote values
            source = _header(data)
            if source is None:
                return Documents(lacking=NO_NAMES)
            told, drawn = report(found, source), segmentation(found, source)
            return Documents(
                None if told is None else _bytes_of(told),
                None if drawn is None else _bytes_of(drawn),
                NO_EYE if told is None else None,
            )
    except Exception:  # of a library, about a header that it does not like; its words may quote values
        return Documents(lacking=FAILED)


def expect() -> None:
    """Raises MissingExtra where highdicom is absent."""
    require("highdicom", EXTRA)


def forget(folder: Path, number: int) -> None:
    """Remove what was written of a picture. Raises OutputError."""
    remove(folder.glob(f"{number:06d}_*.dcm"))


def erase(folder: Path) -> None:
    """Remove all that was written into it, and nothing else. Raises OutputError."""
    remove(folder.glob(_FILE))


def _header(data: bytes) -> Any:
    """The file's elements before its pixels; None where they do not name it."""
    stream = io.BytesIO(data.removeprefix(b"DICM"))  # the mark alone, without a preamble, pydicom does not know
    source = require("pydicom", EXTRA).dcmread(stream, stop_before_pixels=True, force=True)
    if not all(source.get(name) for name in _NAMES):
        return None
    for name in _TAKEN_OVER:
        if name not in source:
            setattr(source, name, "")
    if not source.get("NumberOfFrames"):
        source.NumberOfFrames = 1  # Ophthalmic Photography has it always
    return source


def _bytes_of(dataset: Any) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _code(name: str | Coded) -> Any:
    own = CODES[name] if isinstance(name, str) else name
    return require("highdicom.sr", EXTRA).CodedConcept(own.value, own.scheme, own.meaning)


# the report


def report(found: Screening, source: Any) -> Any:
    """The structured report, a dataset of highdicom's; None where the eye is not known, for TID 2120 wants it.

    Args:
        found: What was found on the photograph.
        source: Its header, a dataset of pydicom's.
    """
    sr, uids = require("highdicom.sr", EXTRA), require("pydicom.uid", EXTRA)
    if found.eyes.eye is None:
        return None
    root = sr.ContainerContentItem(name=_code("report"), template_id="2127")
    observer = sr.DeviceObserverIdentifyingAttributes(
        uid=uids.generate_uid(entropy_srcs=["funduscope", __version__]),
        name="Funduscope",
        manufacturer_name="Funduscope",
        model_name=f"Funduscope {__version__}",
    )
    root.ContentSequence = sr.ContentSequence(
        [
            *sr.LanguageOfContentItemAndDescendants(sr.CodedConcept("en", "RFC5646", "English")),
            *sr.ObserverContext(_code("device"), observer),
            *_groups(found, source),
        ]
    )
    return sr.ComprehensiveSR(
        evidence=[source],
        content=root,
        series_description="Funduscope: findings",
        is_complete=True,
        **_made_by(),
    )


def _made_by() -> dict[str, Any]:
    """What both documents say of themselves."""
    schemes, uids = require("highdicom.coding_schemes", EXTRA), require("pydicom.uid", EXTRA)
    scheme = schemes.CodingSchemeIdentificationItem(
        OWN, name="Codes of Funduscope", responsible_organization="Funduscope"
    )
    return {
        "series_instance_uid": uids.generate_uid(prefix=None),
        "sop_instance_uid": uids.generate_uid(prefix=None),
        "series_number": 1,
        "instance_number": 1,
        "manufacturer": "Funduscope",
        "manufacturer_model_name": "Funduscope",
        "software_versions": __version__,
        "device_serial_number": "0",
        "coding_schemes": [scheme],
    }


def _groups(found: Screening, source: Any) -> Iterator[Any]:
    """A group for each structure that was measured, and for each decision."""
    by_kind = {model.kind: model for model in found.models}
    measured = by_kind.get(found.measured_by)
    spacing = _spacing(source)
    if found.disc is not None:
        ratios = {"vcdr": found.vcdr, "vcdr_first": found.scores.get("vcdr_first")}
        values = [_number(name, ratio, "ratio") for name, ratio in ratios.items() if ratio is not None]
        heights = _heights(found.disc.vertical_diameter_px, spacing)
        yield _group(found, source, "disc", "disc", measured, [*values, *heights])
    if found.cup is not None:
        yield _group(found, source, "cup", "cup", measured, _heights(found.cup.vertical_diameter_px, spacing))
    if found.fovea is not None:
        yield _group(found, source, "fovea", "fovea", by_kind.get("multi-task"), [_point(found, source)])
    for kind, reader in READERS.items():
        for verdict in reader.verdicts:
            decision = found.decisions.get(verdict.name)
            if decision is not None and kind in by_kind:
                asked = Coded(verdict.name.replace("_", "-"), OWN, f"Refer: {verdict.title}")
                disease = f"of {decision.disease}"
                items = _opinion(decision, asked)
                model = measured if kind == "multi-task" else by_kind[kind]
                yield _group(found, source, verdict.name, disease, model, items)


def _group(
    found: Screening, source: Any, name: str, finding: str, model: ModelName | None, items: Sequence[Any]
) -> Any:
    """A group by TID 2120. Args: finding: among `CODES`; items: what it contains."""
    sr, uids = require("highdicom.sr", EXTRA), require("pydicom.uid", EXTRA)
    group = sr.ContainerContentItem(name=_code("group"), template_id="2120", relationship_type="CONTAINS")
    site = sr.CodeContentItem(_code("finding site"), _code("eye"), "HAS CONCEPT MOD")
    assert found.eyes.eye is not None
    eye = sr.CodeContentItem(_code("laterality"), _code(found.eyes.eye), "HAS CONCEPT MOD")
    site.ContentSequence = sr.ContentSequence([eye])
    algorithm = []
    if model is not None:
        parameters = [f"backend {model.backend}", f"precision {model.precision}", f"sha256 {model.sha256}"]
        parameters += [f"operating point {found.point}"] if found.point and model.kind == "classifier" else []
        parameters += [f"operating points of {model.site}"] if model.site else []
        algorithm = [*sr.AlgorithmIdentification(model.name, model.version, parameters, manufacturer="Funduscope")]
    group.ContentSequence = sr.ContentSequence(
        [
            sr.TextContentItem(_code("tracking"), f"Funduscope {name}", "HAS OBS CONTEXT"),
            sr.UIDRefContentItem(_code("tracking uid"), uids.generate_uid(prefix=None), "HAS OBS CONTEXT"),
            site,
            *algorithm,
            sr.CodeContentItem(_code("finding"), _code(finding), "CONTAINS"),
            _image(found, source, "CONTAINS"),
            *items,
        ]
    )
    return group


def _image(found: Screening, source: Any, relationship: str) -> Any:
    sr = require("highdicom.sr", EXTRA)
    frame = found.frame if int(source.NumberOfFrames) > 1 else None
    return sr.ImageContentItem(
        _code("source"), source.SOPClassUID, source.SOPInstanceUID, frame, relationship_type=relationship
    )


def _number(name: str, value: float, unit: str, digits: int = 6) -> Any:
    sr = require("highdicom.sr", EXTRA)
    return sr.NumContentItem(_code(name), round(value, digits), _code(unit), relationship_type="CONTAINS")


def _heights(pixels: float, spacing: float | None) -> list[Any]:
    """A vertical diameter in pixels, and in mm where the file says how large these are."""
    sr = require("highdicom.sr", EXTRA)
    values = [_number("diameter", pixels, "pixels", 2)]
    values += [_number("diameter", pixels * spacing, "mm", 4)] if spacing else []
    for value in values:
        vertical = sr.CodeContentItem(_code("modifier"), _code("vertical"), "HAS CONCEPT MOD")
        value.ContentSequence = sr.ContentSequence([vertical])
    return values


def _spacing(source: Any) -> float | None:
    """Between rows, mm on the retina."""
    try:
        spacing = float(source.PixelSpacing[0])
    except (AttributeError, TypeError, ValueError, IndexError):
        return None
    return spacing if spacing > 0 else None


def _point(found: Screening, source: Any) -> Any:
    """The fovea; DICOM counts from the outer corner of the first pixel (part 3, C.18.6.1.1)."""
    sr = require("highdicom.sr", EXTRA)
    assert found.fovea is not None
    where = np.array([found.fovea]) + 0.5
    point = sr.ScoordContentItem(_code("centre"), "POINT", where, relationship_type="CONTAINS")
    point.ContentSequence = sr.ContentSequence([_image(found, source, "SELECTED FROM")])
    return point


def _opinion(decision: Decision, asked: Coded) -> list[Any]:
    sr = require("highdicom.sr", EXTRA)
    answer = {True: "yes", False: "no", None: "open"}[decision.called]
    items = [sr.CodeContentItem(_code(asked), _code(answer), "CONTAINS")]
    if decision.probability is not None:
        items.append(_number("certainty", 100 * decision.probability, "percent", 4))
    if decision.threshold is not None:
        items.append(_number("threshold", 100 * decision.threshold, "percent", 4))
    return items


# the segmentation


def segmentation(found: Screening, source: Any) -> Any:
    """Disc and cup, a dataset of highdicom's; None where there is no disc. Args: see `report`."""
    structures: list[Structure] = ["disc", *(["cup"] if found.cup is not None else [])]  # type: ignore[list-item]
    if found.disc is None:
        return None
    seg = require("highdicom.seg", EXTRA)
    masks = np.stack([found.mask(own) for own in structures], axis=-1).astype(np.uint8)
    model = next(own for own in found.models if own.kind == found.measured_by)
    made = seg.Segmentation(
        source_images=[_as_single_frame(source)],
        pixel_array=masks[None],
        segmentation_type="BINARY",
        segment_descriptions=[*_segments(structures, model, found.eyes.eye)],
        series_description="Funduscope: optic disc and cup",
        content_label="DISC_AND_CUP",
        **_made_by(),
    )
    made.PatientOrientation = source.get("PatientOrientation", "")
    for named in _items(made):
        if named.get("ReferencedSOPInstanceUID") == source.SOPInstanceUID:
            named.ReferencedSOPClassUID = source.SOPClassUID
            if "PurposeOfReferenceCodeSequence" in named and int(source.NumberOfFrames) > 1:
                named.ReferencedFrameNumber = found.frame
    return made


def _as_single_frame(source: Any) -> Any:
    """A header for highdicom, which takes pictures of several frames for volumes in a patient's coordinates."""
    single = copy.deepcopy(source)
    single.SOPClassUID = _SINGLE_FRAME
    for name in _SPATIAL:
        if name in single:
            delattr(single, name)
    return single


def _items(dataset: Any) -> Iterator[Any]:
    """All items of sequences, at any depth."""
    for element in dataset:
        for item in element.value if element.VR == "SQ" else ():
            yield item
            yield from _items(item)


def _segments(structures: Iterable[Structure], model: ModelName, eye: Eye | None) -> Iterator[Any]:
    highdicom, seg = require("highdicom", EXTRA), require("highdicom.seg", EXTRA)
    for number, name in enumerate(structures, start=1):
        algorithm = highdicom.AlgorithmIdentificationSequence(
            model.name, _code("algorithm family"), model.version, "Funduscope", {"sha256": model.sha256}
        )
        segment = seg.SegmentDescription(
            number,
            CODES[name].meaning,
            _code("structure"),
            _code(name),
            "AUTOMATIC",
            algorithm,
            anatomic_regions=[_code("eye")],
        )
        if eye is not None:
            segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [_code(eye)]
        yield segment
