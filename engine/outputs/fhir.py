"""What was found, as FHIR R4 (4.0.1): a bundle with a report of each picture, its observations, and the devices that made them.

They follow the base profiles of HL7's draft guide "Ophthalmology Retinal", and claim none of them: nobody has looked at what is
found here, so its status is `preliminary`, which they do not have; and a picture need not name a patient. Values are those of a
row, under the names of its columns. Plain dicts, ready for JSON. Nothing is in them of a patient but what a row has.
"""

from __future__ import annotations

import html
import re
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from ...version import __version__
from ..readers import READERS
from ..readers.column import readable
from ..readers.quality import SCORES
from ..results import ModelName, Result, Screening

Resource = dict[str, Any]

FHIR = "4.0"
OWN: Final = "urn:uuid:5c8f2e1b-6f0a-4d0e-9b56-0f6f2b7c9a41"  # the system of our own codes: the names of columns
_SNOMED, _UCUM = "http://snomed.info/sct", "http://unitsofmeasure.org"
_CATEGORIES = "http://terminology.hl7.org/CodeSystem/observation-category"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # neither FHIR's strings nor XML have them

CODES: Final[dict[str, tuple[str, str]]] = {  # of SNOMED CT
    "ophthalmology": ("394594003", "Ophthalmology"),
    "right": ("18944008", "Right eye structure"),
    "left": ("8966001", "Left eye structure"),
    "vcdr": ("370937003", "Vertical cup-to-disc ratio"),
    "yes": ("373066001", "Yes"),
    "no": ("373067005", "No"),
    "open": ("82334004", "Indeterminate"),
}
_MEASURED = {  # by column: the words for it, its unit as a person reads it and as UCUM has it
    "vcdr": ("Vertical cup-to-disc ratio", "ratio", "{ratio}"),
    "vcdr_first": ("Vertical cup-to-disc ratio of the first look alone", "ratio", "{ratio}"),
    "disc_vertical_diameter_px": ("Vertical diameter of the optic disc", "pixels", "{pixels}"),
    "cup_vertical_diameter_px": ("Vertical diameter of the optic cup", "pixels", "{pixels}"),
}


def bundle(results: Sequence[Result], notice: str, issued: datetime) -> Resource:
    """A collection of all that was found on some pictures.

    Args:
        results: In order; each has a report.
        notice: What a person must be told with every result.
        issued: When; with its time zone.

    Returns:
        JSON values.
    """
    made = _Bundle()
    software = made.add(_device("Funduscope", "user-friendly-name", "software", __version__))
    models = {own: made.add(_model(own) | {"parent": software}) for result in results for own in result.models}
    for result in results:
        shared = _shared(result, issued)
        found = [made.add(own | shared) for own in (_outcome(result, software), *_found(result, models, notice))]
        whose = {key: shared[key] for key in ("subject", "issued") if key in shared}
        made.add(_report(result, notice) | whose | {"result": found})
    return {"resourceType": "Bundle", "type": "collection", "timestamp": _instant(issued), "entry": made.entries}


class _Bundle:
    """Its entries, which refer to one another by names that are made here."""

    def __init__(self) -> None:
        self.entries: list[Resource] = []

    def add(self, resource: Resource) -> Resource:
        """A reference to what was added."""
        name = uuid.uuid4().urn
        self.entries.append({"fullUrl": name, "resource": resource})
        return {"reference": name}


def _device(name: str, kind: str, what: str, version: str) -> Resource:
    return {
        "resourceType": "Device",
        "status": "active",
        "manufacturer": "Funduscope",
        "deviceName": [{"name": name, "type": kind}],
        "type": {"text": what},
        "version": [{"value": version}],
    }


def _model(own: ModelName) -> Resource:
    properties = {"kind": own.kind, "backend": own.backend, "precision": own.precision}
    return _device(own.name, "model-name", "model", own.version) | {
        "identifier": [{"type": {"text": "SHA-256 of the model file"}, "value": own.sha256}],
        "property": [{"type": {"text": name}, "valueCode": [{"text": value}]} for name, value in properties.items()],
    }


def _report(result: Result, notice: str) -> Resource:
    told = [_plain(str(result)), notice]
    paragraphs = "".join(f"<p>{html.escape(own)}</p>" for own in told)
    return {
        "resourceType": "DiagnosticReport",
        "text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{paragraphs}</div>'},
        "status": "preliminary",
        "category": [{"coding": [_snomed("ophthalmology")]}],
        "code": {"text": "Screening of a colour photograph of the retina"},
        "conclusion": "\n".join(told),
    }


def _shared(result: Result, issued: datetime) -> Resource:
    """What all observations on a picture have: whose eye it shows, and which picture it is."""
    eye, patient = result.eyes.eye, result.eyes.patient
    picture: Resource = {"type": "Media", "display": _plain(result.name)}
    if result.sha256 is not None:
        picture["identifier"] = {"type": {"text": "SHA-256 of the file"}, "value": result.sha256}
    own: Resource = {"issued": _instant(issued), "derivedFrom": [picture]}
    if eye is not None:
        own["bodySite"] = {"coding": [_snomed(eye)], "text": f"{eye} eye"}
    if patient is not None:
        own["subject"] = {"type": "Patient", "identifier": {"value": _plain(patient)}}
    return own


def _outcome(result: Result, software: Resource) -> Resource:
    """Whether the picture could be screened, why not, and what is to be known of it all the same."""
    told = [("code", result.code), ("reason", result.reason), *(("warnings", own) for own in result.warnings)]
    parts = [_part(name, name, {"valueString": str(value)}) for name, value in told if value]
    graded = ((name, result.scores.get(name)) for name in SCORES)
    parts += [_part(name, name.replace("_", " "), _share(score)) for name, score in graded if score is not None]
    return _observation(
        "status", "Whether the picture could be screened", {"valueString": result.status}, software, parts
    )


def _share(number: float) -> Resource:
    """A number of 0 to 1, to six digits, as rows have it."""
    return {"valueQuantity": {"value": round(number, 6), "unit": "0 to 1", "system": _UCUM, "code": "1"}}


def _found(result: Result, models: dict[ModelName, Resource], notice: str) -> Iterator[Resource]:
    """What was measured, and each opinion."""
    if not isinstance(result, Screening):
        return
    row, by_kind = result.to_dict(), {own.kind: own for own in result.models}
    for name, (title, unit, code) in _MEASURED.items():
        if row.get(name) is not None and "multi-task" in by_kind:
            value = {"valueQuantity": {"value": row[name], "unit": unit, "system": _UCUM, "code": code}}
            kind = "multi-task" if name == "vcdr_first" else result.measured_by
            yield _observation(name, title, value, models[by_kind[kind]])
    for kind, reader in READERS.items():
        for verdict in reader.verdicts:
            if verdict.name not in result.decisions or kind not in by_kind:
                continue
            answer = {True: "yes", False: "no", None: "open"}[row[verdict.name]]
            value = {"valueCodeableConcept": {"coding": [_snomed(answer)], "text": CODES[answer][1]}}
            parts = []
            for key in ("probability", "threshold"):
                number = row[f"{verdict.name}_{key}"]
                if number is not None:
                    parts.append(_part(f"{verdict.name}_{key}", key, _share(number)))
            model = by_kind[result.measured_by if kind == "multi-task" else kind]
            if result.point and kind == "classifier":
                parts.append(_part("operating_point", "operating point", {"valueString": result.point}))
            if model.site:
                parts.append(_part("site", "operating points of", {"valueString": model.site}))
            asked = _observation(verdict.name, f"Refer: {verdict.title}", value, models[model], parts)
            yield asked | {"note": [{"text": notice}]}


def _observation(name: str, title: str, value: Resource, device: Resource, parts: Sequence[Resource] = ()) -> Resource:
    """Args: name: of the column; value: under its name in FHIR."""
    return {
        "resourceType": "Observation",
        "status": "preliminary",
        "category": [{"coding": [{"system": _CATEGORIES, "code": "exam", "display": "Exam"}]}],
        "code": _code(name, title),
        "device": device,
        **value,
        **({"component": [*parts]} if parts else {}),
    }


def _part(name: str, title: str, value: Resource) -> Resource:
    return {"code": _code(name, title), **value}


def _code(name: str, title: str) -> Resource:
    codings = [{"system": OWN, "code": name}]
    return {"coding": [_snomed(name), *codings] if name in CODES else codings, "text": title}


def _snomed(name: str) -> Resource:
    code, display = CODES[name]
    return {"system": _SNOMED, "code": code, "display": display}


def _instant(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds")


def _plain(text: str) -> str:
    """Text as FHIR may hold it."""
    return _CONTROL.sub("\ufffd", readable(text))
