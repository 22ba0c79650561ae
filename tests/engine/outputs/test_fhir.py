"""A bundle says what a row says, is FHIR as a package for it reads it, and has nothing of a patient that was not sent."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from funduscope import Rejected, Screening, columns
from funduscope.engine.errors import Code
from funduscope.engine.eyes import Eyes
from funduscope.engine.findings import Decision, Outline
from funduscope.engine.outputs import dicom, fhir
from funduscope.engine.results import ModelName

NOTICE = "For tests, not a diagnosis: 1 < 2."
NOW = datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)
MODELS = (
    ModelName("multi-task", "multitask", "1", "a" * 64, "onnxruntime", "fp32"),
    ModelName("classifier", "classifier", "2", "b" * 64, "openvino", "int8"),
)
SCREENED = Screening(
    name="eye.jpg",
    width=1000,
    height=1000,
    sha256="c" * 64,
    eyes=Eyes("P-17", "left", "list"),
    vcdr=0.4123456789,
    disc=Outline(500.0, 400.0, 120.456, 121.0, 11000.0),
    cup=Outline(501.0, 401.0, 50.25, 51.0, 2000.0),
    decisions={
        "glaucoma": Decision("glaucoma", 0.912, 0.5, called=True),
        "referable_dr": Decision("referable_dr", 0.1, 0.4, called=False),
        "any_dr": Decision("any_dr", 0.39, 0.4, called=None),
    },
    warnings=(Code.ANY_DR_UNCERTAIN,),
    point="balanced",
    models=MODELS,
)
REJECTED = Rejected(
    "b.jpg", "d" * 64, Code.NO_FIELD_OF_VIEW, "nothing is bright enough", MODELS, Eyes("P-17", "right", "list")
)
UNREAD = Rejected("c\x00.jpg", None, Code.UNREADABLE, "it cannot be read")


def made(*results) -> dict[str, Any]:
    return json.loads(json.dumps(fhir.bundle(results, NOTICE, NOW), allow_nan=False))


def of_kind(bundle, kind: str) -> list[dict[str, Any]]:
    return [own["resource"] for own in bundle["entry"] if own["resource"]["resourceType"] == kind]


def named(bundle) -> dict[str, dict[str, Any]]:
    """Observations by our own code."""
    return {own["code"]["coding"][-1]["code"]: own for own in of_kind(bundle, "Observation")}


def parts(observation) -> dict[str, Any]:
    """Values of components by our own code."""
    found = {}
    for own in observation.get("component", ()):
        (value,) = (own[key] for key in own if key.startswith("value"))
        found[own["code"]["coding"][-1]["code"]] = value["value"] if isinstance(value, dict) else value
    return found


def validated(bundle):
    """As the package for FHIR reads it, every resource by its own class; R4B has the same of these as R4."""
    pytest.importorskip("fhir.resources")
    from fhir.resources.R4B import bundle as r4

    return r4.Bundle.model_validate(bundle)


@pytest.mark.parametrize(
    "results",
    [
        (SCREENED,),
        (REJECTED,),
        (UNREAD,),
        (SCREENED, REJECTED, UNREAD),
        (replace(SCREENED, disc=None, cup=None, vcdr=None),),
    ],
    ids=["screened", "rejected", "unread", "several", "no disc"],
)
def test_it_is_valid_and_keeps_every_value(results):
    bundle = made(*results)
    read = validated(bundle)
    assert [type(own.resource).__name__ for own in read.entry] == [
        own["resource"]["resourceType"] for own in bundle["entry"]
    ]
    again = json.loads(read.model_dump_json())
    assert [own["resource"].keys() for own in again["entry"]] == [own["resource"].keys() for own in bundle["entry"]]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda own: own.pop("code"),
        lambda own: own.update(colour="red"),
        lambda own: own.update(issued="yesterday"),
    ],
)
def test_what_is_no_fhir_is_refused(spoil):  # the test above can fail
    bundle = made(SCREENED)
    spoil(of_kind(bundle, "Observation")[0])
    with pytest.raises(ValueError, match="validation error"):
        validated(bundle)


def unlisted(model) -> set[tuple[str, str, str]]:
    """Values that are none of those that FHIR lists for them, which the package knows but does not refuse."""
    found = set()
    for name, field in type(model).model_fields.items():
        value, extra = getattr(model, name), field.json_schema_extra
        allowed = extra.get("enum_values") if isinstance(extra, dict) else None
        if allowed and value is not None and value not in allowed:
            found.add((type(model).__name__, name, value))
        for inner in value if isinstance(value, list) else [value]:
            if hasattr(type(inner), "model_fields"):
                found |= unlisted(inner)
    return found


def test_words_are_those_that_fhir_lists():
    assert unlisted(validated(made(SCREENED, REJECTED, UNREAD))) == set()
    bundle = made(SCREENED)  # this test can fail
    of_kind(bundle, "Observation")[0]["status"] = of_kind(bundle, "Device")[1]["deviceName"][0]["type"] = "looked at"
    assert unlisted(validated(bundle)) == {
        ("Observation", "status", "looked at"),
        ("DeviceDeviceName", "type", "looked at"),
    }


def test_what_was_measured_has_its_unit_and_code():
    found = named(made(SCREENED))
    assert found["vcdr"]["code"]["coding"][0] == {
        "system": "http://snomed.info/sct",
        "code": "370937003",
        "display": "Vertical cup-to-disc ratio",
    }
    row = SCREENED.to_dict()
    for name, code in (
        ("vcdr", "{ratio}"),
        ("disc_vertical_diameter_px", "{pixels}"),
        ("cup_vertical_diameter_px", "{pixels}"),
    ):
        value = found[name]["valueQuantity"]
        assert (value["value"], value["system"], value["code"]) == (row[name], "http://unitsofmeasure.org", code)
    assert "vcdr" not in named(made(replace(SCREENED, vcdr=None, cup=None)))


def test_each_opinion_has_answer_probability_threshold_and_notice():
    found = named(made(SCREENED))
    answers = {"glaucoma": "373066001", "referable_dr": "373067005", "any_dr": "82334004"}
    for name, code in answers.items():
        (coding,) = found[name]["valueCodeableConcept"]["coding"]
        assert coding["code"] == code
        decision = SCREENED.decisions[name]
        expected = {f"{name}_probability": decision.probability, f"{name}_threshold": decision.threshold}
        expected |= {} if name == "glaucoma" else {"operating_point": "balanced"}
        assert parts(found[name]) == expected
        assert found[name]["note"] == [{"text": NOTICE}]
    assert "glaucoma_second" not in found


def test_what_is_open_without_numbers_has_none():
    unmeasured: Any = Decision("glaucoma", None, 0.5, called=None)
    unlimited = replace(unmeasured, threshold=None)
    for decision, left in ((unmeasured, {"glaucoma_threshold": 0.5}), (unlimited, {})):
        bundle = made(replace(SCREENED, decisions={"glaucoma": decision}))
        validated(bundle)
        found = named(bundle)["glaucoma"]
        assert found["valueCodeableConcept"]["coding"][0]["code"] == "82334004"
        assert parts(found) == left


def test_who_computed_it_is_told():
    bundle = made(SCREENED)
    by_name = {own["fullUrl"]: own["resource"] for own in bundle["entry"]}
    software, *models = of_kind(bundle, "Device")
    assert software["deviceName"][0]["name"] == "Funduscope"
    for model, own in zip(models, MODELS, strict=True):
        assert (model["deviceName"][0]["name"], model["version"][0]["value"]) == (own.name, own.version)
        assert model["identifier"][0]["value"] == own.sha256
        properties = {part["type"]["text"]: part["valueCode"][0]["text"] for part in model["property"]}
        assert properties == {"kind": own.kind, "backend": own.backend, "precision": own.precision}
        assert by_name[model["parent"]["reference"]] == software
    of = {name: by_name[own["device"]["reference"]]["deviceName"][0]["name"] for name, own in named(bundle).items()}
    assert of == {
        "status": "Funduscope",
        **dict.fromkeys(("vcdr", "disc_vertical_diameter_px", "cup_vertical_diameter_px", "glaucoma"), "multitask"),
        **dict.fromkeys(("referable_dr", "any_dr"), "classifier"),
    }


@pytest.mark.parametrize(("looked", "by"), [(True, "disc"), (False, "multitask")])
def test_what_the_second_look_measured_is_told_of_its_model(looked, by):
    second = ModelName("disc", "disc", "1", "e" * 64, "onnxruntime", "fp32")
    bundle = made(replace(SCREENED, second_look=looked, fovea=(600.0, 500.0), models=(MODELS[0], second, MODELS[1])))
    validated(bundle)
    by_name = {own["fullUrl"]: own["resource"] for own in bundle["entry"]}
    of = {name: by_name[own["device"]["reference"]]["deviceName"][0]["name"] for name, own in named(bundle).items()}
    measured = ("vcdr", "disc_vertical_diameter_px", "cup_vertical_diameter_px", "glaucoma")
    assert {of[name] for name in measured} == {by}
    assert {name: own for name, own in of.items() if name.startswith("fovea")} == {
        name: "multitask" for name in of if name.startswith("fovea")
    }
    assert of["any_dr"] == "classifier"


def test_each_picture_has_a_report_of_its_own_observations_with_the_notice():
    bundle = made(SCREENED, REJECTED, UNREAD)
    by_name = {own["fullUrl"]: own["resource"] for own in bundle["entry"]}
    assert len(by_name) == len(bundle["entry"])
    reports = of_kind(bundle, "DiagnosticReport")
    results = [[by_name[own["reference"]] for own in report["result"]] for report in reports]
    assert [own for of_report in results for own in of_report] == of_kind(bundle, "Observation")
    assert [own[0]["valueString"] for own in results] == ["ok", "ungradable", "error"]
    for report, own, result in zip(reports, results, (SCREENED, REJECTED, UNREAD), strict=True):
        assert NOTICE in report["conclusion"]
        assert "1 &lt; 2." in report["text"]["div"]
        assert report["status"] == "preliminary"
        assert report["category"][0]["coding"][0]["code"] == "394594003"
        assert report["issued"] == "2026-02-03T04:05:06.789+00:00"
        eyes = {observation.get("bodySite", {}).get("text") for observation in own}
        assert eyes == {result.eyes.eye and f"{result.eyes.eye} eye"}
        whose = {observation.get("subject", {}).get("identifier", {}).get("value") for observation in (*own, report)}
        assert whose == {result.eyes.patient}


def test_why_there_is_no_result_is_told():
    (found,) = of_kind(made(REJECTED), "Observation")
    assert found["valueString"] == "ungradable"
    assert parts(found) == {"code": "NO_FIELD_OF_VIEW", "reason": "nothing is bright enough"}
    assert "nothing is bright enough" in of_kind(made(REJECTED), "DiagnosticReport")[0]["conclusion"]
    assert parts(named(made(SCREENED))["status"]) == {"warnings": "ANY_DR_UNCERTAIN"}


def test_scores_of_quality_are_told_of_every_picture_and_whose_points_were_used_of_each_opinion():
    models = tuple(replace(own, site="Clinic 7 0123") for own in MODELS)
    for one in (SCREENED, REJECTED):
        bundle = made(replace(one, scores={"blurred": 0.123456789, "dark": None}, models=models))
        validated(bundle)
        status = parts(named(bundle)["status"])
        assert status["blurred"] == 0.123457
        assert "dark" not in status
        if one is SCREENED:
            assert parts(named(bundle)["glaucoma"])["site"] == "Clinic 7 0123"


def test_nothing_is_told_of_a_patient_that_was_not_sent():
    bundle = made(replace(SCREENED, eyes=Eyes()))
    assert of_kind(bundle, "Patient") == []
    assert not [key for own in bundle["entry"] for key in own["resource"] if key in ("subject", "bodySite")]


def test_no_name_of_a_picture_breaks_it():
    for name in ("\udcff.jpg", "a\x00\x1f\x7fb.jpg", "<b>&amp;</b>.jpg", "é\n.jpg"):
        bundle = made(replace(SCREENED, name=name), replace(REJECTED, name=name, eyes=Eyes(f"P{name}")))
        validated(bundle)
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", json.dumps(bundle, ensure_ascii=False))
        assert "<b>" not in of_kind(bundle, "DiagnosticReport")[0]["text"]["div"]


def test_our_own_codes_are_names_of_columns():
    known = {column.name for column in columns()}
    bundle = made(SCREENED, REJECTED)
    ours = set(named(bundle)) | {name for own in of_kind(bundle, "Observation") for name in parts(own)}
    assert ours <= known


def test_codes_that_dicom_has_too_are_the_same():
    for name in ("vcdr", "yes", "no", "open"):
        assert fhir.CODES[name] == (dicom.CODES[name].value, dicom.CODES[name].meaning)
