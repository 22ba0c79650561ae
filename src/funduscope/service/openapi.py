"""The service described in OpenAPI 3.1; rows and patients from the tables of columns that they are made by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ..engine.eyes import Eyes
from ..engine.findings import Decision
from ..engine.outputs import fhir, patients
from ..engine.readers import verdicts
from ..engine.readers.column import Column
from ..engine.results import ModelName, Screening, columns
from ..version import __version__
from . import formats
from .bodies import RAW
from .guard import MODELS, NOTICE, RESULTS, SCREENINGS
from .settings import ServiceSettings

_TYPES = {"text": "string", "list": "array", "bool": "boolean", "float": "number", "int": "integer"}
_REFUSALS = {
    "400": "The form or a parameter is not understood.",
    "401": "There is no key, or a wrong one.",
    "406": "DICOM is asked for, and the extra dicom-out is not installed.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is of another type, or compressed.",
    "429": "Too many pictures wait; come again after `Retry-After` seconds.",
    "503": "The models are not ready yet, or there are too many connections.",
    "504": "The pictures were not screened in time.",
}
_EXAMPLE: dict[str, Any] = {
    "name": "picture",
    "status": "ok",
    "code": None,
    "reason": None,
    "warnings": [],
    "eye": "right",
    "eye_source": "picture",
    "vcdr": 0.412,
    "glaucoma": False,
    "glaucoma_probability": 0.121,
    "glaucoma_threshold": 0.5,
}
_BAD = {"name": "picture", "status": "error", "code": "DAMAGED", "reason": "the data ends before the picture does"}
_SCREENED = Screening(  # the same as `_EXAMPLE`
    name="picture",
    width=1411,
    height=1411,
    eyes=Eyes(eye="right", source="picture"),
    vcdr=0.412,
    decisions={"glaucoma": Decision("glaucoma", 0.121, 0.5, called=False)},
    models=(ModelName("multi-task", "multitask", "1", "0" * 64, "onnxruntime", "fp32"),),
)
_POINT = {"type": "array", "items": {"type": "number"}, "description": "x and y in the photo's pixels."}
_LAYERS: dict[str, Any] = {
    "type": "object",
    "description": "What is drawn of one picture.",
    "properties": {
        "contours": {
            "type": "object",
            "description": "Of `disc` and `cup`, where they were found.",
            "additionalProperties": {"type": "array", "items": _POINT},
        },
        "fovea": {**_POINT, "type": ["array", "null"]},
        "heat": {
            "type": "object",
            "description": "By disease: a PNG of the photo's shape as a data URL, clear where there is no heat.",
            "additionalProperties": {"type": "string"},
        },
    },
}
_NAMED = {"parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]}


def document(settings: ServiceSettings, notice: str) -> dict[str, Any]:
    """The description.

    Args:
        settings: The limits that it tells, and whether a key is needed.
        notice: What a person must be told with every result.
    """
    binary = {"schema": {"type": "string", "format": "binary"}}
    form = {
        "type": "object",
        "description": f"One patient's pictures, {settings.max_pictures} at most; one or more of a field.",
        "properties": {
            "right": {"type": "string", "format": "binary", "description": "Of the right eye."},
            "left": {"type": "string", "format": "binary", "description": "Of the left eye."},
            "picture": {"type": "string", "format": "binary", "description": "Of an eye that is not named."},
            "patient": {"type": "string", "description": "Whose they are."},
        },
    }
    json = {"schema": {"$ref": "#/components/schemas/Screenings"}}
    good = {"one": {"value": {"notice": notice, "screenings": [_EXAMPLE]}}}
    bad = {"damaged": {"value": {"notice": notice, "screenings": [_BAD]}}}
    bundle = fhir.bundle([_SCREENED], notice, datetime(2026, 1, 1, tzinfo=UTC))
    resource = {"schema": {"type": "object", "description": "A Bundle of FHIR R4."}}
    screenings = {
        "summary": "Screen one picture, or several of one patient",
        "parameters": [
            _parameter("overlay", "1: answer with the picture and its contours, as PNG.", "1"),
            _parameter("heat", "Answer with the picture and the heat map of this disease, as PNG.", "referable_dr"),
            _parameter("photo", "1: answer with the picture as it is, as JPEG.", "1"),
            _parameter("layers", "1: answer with the row, and contours and heat maps apart from the picture.", "1"),
        ],
        "requestBody": {
            "required": True,
            "description": f"{settings.max_bytes} bytes at most.",
            "content": {"image/*": binary, **dict.fromkeys(RAW, binary), "multipart/form-data": {"schema": form}},
        },
        "responses": {
            "200": {
                "description": "A row for each picture; those of a form that could not be read too.",
                "headers": {NOTICE: {"description": notice, "schema": {"type": "string"}}},
                "content": {
                    formats.JSON: {**json, "examples": good},
                    formats.FHIR: {**resource, "examples": {"one": {"value": bundle}}},
                    formats.DICOM: {"schema": {**binary["schema"], "description": "The report of one DICOM picture."}},
                    formats.RELATED: {
                        "schema": {**binary["schema"], "description": "Reports and segmentations, DICOM files."}
                    },
                    "image/png": binary,
                    "image/jpeg": binary,
                },
            },
            "422": {
                "description": "The one picture could not be read, or has nothing to draw or report: its row says why.",
                "content": {formats.JSON: {**json, "examples": bad}, formats.FHIR: resource},
            },
            **{status: _refusal(told) for status, told in _REFUSALS.items()},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Funduscope", "version": __version__, "description": notice},
        "security": [{"bearer": []}, {"header": []}] if settings.keys else [],
        "paths": {
            SCREENINGS: {"post": screenings},
            MODELS: {"get": _plain("What the open models decide, from which score on, and where they leave it open.")},
            **(_results() if settings.results else {}),
            "/v2/models/{name}": {"get": {**_plain("The open model, by the Open Inference Protocol V2."), **_NAMED}},
            "/v2/models/{name}/infer": {"post": {**_plain("Its outputs for prepared squares."), **_NAMED}},
            "/health/live": {"get": _plain("It answers.")},
            "/health/ready": {"get": _plain("It can screen; 503 where it cannot yet.")},
            "/metrics": {"get": _plain("Figures for Prometheus.")},
        },
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "schemas": {
                "Row": _row(columns()),
                "Patient": _row(patients.columns()),
                "Screenings": {
                    "type": "object",
                    "required": ["notice", "screenings"],
                    "properties": {
                        "notice": {"type": "string"},
                        "screenings": {"type": "array", "items": {"$ref": "#/components/schemas/Row"}},
                        "patients": {"type": "array", "items": {"$ref": "#/components/schemas/Patient"}},
                        "layers": {"type": "array", "items": {"$ref": "#/components/schemas/Layers"}},
                    },
                },
                "Layers": _LAYERS,
                "Problem": {
                    "type": "object",
                    "properties": {
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                    },
                },
            },
        },
    }


def _results() -> dict[str, Any]:
    """The addresses of a run's results."""
    numbered = {"parameters": [{"name": "number", "in": "path", "required": True, "schema": {"type": "integer"}}]}
    asked = [
        _parameter("search", "Words, each of which name, patient, eye, status, code or warnings must have.", "blurred"),
        _parameter("status", "Rows of this status.", "ok"),
        *(_parameter(own.name, "Rows whose verdict is refer, no or open.", "refer") for own in verdicts()),
        _parameter("sort", "A column; with - before it, from the highest down.", "-vcdr"),
    ]
    paged = [_parameter("offset", "How many rows to pass over.", "50"), _parameter("limit", "How many to give.", "50")]
    one = _plain("A row, what is drawn of the picture, and which rows are beside it.")
    return {
        RESULTS: {"get": {**_plain("Rows of the run."), "parameters": [*asked, *paged]}},
        f"{RESULTS}/{{number}}": {"get": {**one, "parameters": [*numbered["parameters"], *asked]}},
        f"{RESULTS}/{{number}}/photo": {"get": {**_plain("The picture as JPEG."), **numbered}},
    }


def _row(of: Sequence[Column]) -> dict[str, Any]:
    """The schema of a row."""
    properties: dict[str, dict[str, Any]] = {}
    for column in of:
        properties[column.name] = {"type": [_TYPES[column.kind], "null"], "description": column.meaning}
        if column.kind == "list":
            properties[column.name]["items"] = {"type": "string"}
    return {"type": "object", "properties": properties}


def _parameter(name: str, told: str, example: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": told, "schema": {"type": "string"}, "example": example}


def _refusal(told: str) -> dict[str, Any]:
    return {
        "description": told,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _plain(told: str) -> dict[str, Any]:
    return {"summary": told, "responses": {"200": {"description": told}}}
