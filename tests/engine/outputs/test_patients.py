"""From pictures to patients: what is called, what is denied, and what stays open."""

from __future__ import annotations

import csv
import dataclasses
import json

import cv2
import numpy as np
import pytest

from funduscope.engine.errors import Code, OutputError
from funduscope.engine.eyes import Eyes, Listed
from funduscope.engine.findings import Decision
from funduscope.engine.outputs import patients
from funduscope.engine.outputs.patients import Patient, Patients
from funduscope.engine.results import ModelName, Rejected, Screening

MULTITASK = ModelName("multi-task", "multitask", "1", "0" * 64, "fake", "fp32")
CLASSIFIER = ModelName("classifier", "channels", "7", "1" * 64, "fake", "fp32")
COLUMNS = tuple(column.name for column in patients.columns())
CALLS = ("glaucoma", "glaucoma_second", "referable_dr", "any_dr")


def opinion(disease: str, probability: float | None, uncertain: bool = False) -> Decision:
    called = None if uncertain or probability is None else probability >= 0.5
    return Decision(disease, probability, 0.5, called)


def screening(
    eye: str | None = "right",
    patient: str | None = "p1",
    glaucoma: float | None = 0.1,
    vcdr: float | None = 0.4,
    second: float = 0.1,
    dr: float = 0.1,
    any_dr: float = 0.1,
    uncertain: bool = False,
    models: str = "both",
    used: bool = True,
    warnings: tuple[Code, ...] = (),
) -> Screening:
    """A result. glaucoma: the first opinion's probability, None for not measurable; models: which looked at the picture; used:
    whether the classifier could use it."""
    decisions, measured = {}, {}
    if models != "classifier":
        decisions["glaucoma"], measured = opinion("glaucoma", glaucoma), {"vcdr": vcdr}
    if models != "multitask" and used:
        decisions |= {
            "glaucoma_second": opinion("glaucoma", second, uncertain),
            "referable_dr": opinion("referable_dr", dr, uncertain),
            "any_dr": opinion("any_dr", any_dr, uncertain),
        }
    looked = {"both": (MULTITASK, CLASSIFIER), "multitask": (MULTITASK,), "classifier": (CLASSIFIER,)}[models]
    return Screening(
        name="eye.jpg",
        width=200,
        height=200,
        warnings=warnings,
        eyes=Eyes(patient, eye, "list" if eye else None),
        models=looked,
        decisions=decisions,
        **measured,
    )


def rejected(eye: str | None = "left", patient: str | None = "p1") -> Rejected:
    return Rejected("bad.jpg", None, Code.DAMAGED, "cut", (MULTITASK, CLASSIFIER), Eyes(patient, eye, "list"))


def row(*results) -> dict:
    patient = Patient("p1")
    for result in results:
        patient.add(result)
    found = patient.to_dict()
    assert tuple(found) == COLUMNS
    return found


def calls(found: dict) -> tuple:
    return tuple(found[name] for name in CALLS)


# what is called


def test_both_eyes_healthy_is_denied():
    found = row(screening("right"), screening("left"))
    assert calls(found) == (False, False, False, False)
    assert found["warnings"] == []


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("order", [1, -1])
def test_any_picture_that_calls_a_disease_calls_it_for_the_patient(name, order):
    key = {"glaucoma": "glaucoma", "glaucoma_second": "second", "referable_dr": "dr", "any_dr": "any_dr"}[name]
    pictures = [screening("right"), screening("left", **{key: 0.9}), screening("left")][::order]
    found = row(*pictures)
    assert {called: found[called] for called in CALLS} == {called: called == name for called in CALLS}
    assert found[f"{name}_probability"] == 0.9


def test_one_call_outdoes_rejected_and_uncertain_pictures():
    found = row(screening("right", glaucoma=0.9, second=0.9, dr=0.9, any_dr=0.9), rejected(), screening(uncertain=True))
    assert calls(found) == (True, True, True, True)


def test_a_rejected_eye_leaves_a_negative_open():
    found = row(screening("right"), rejected("left"))
    assert calls(found) == (None, None, None, None)
    assert found["rejected_pictures"] == 1
    assert row(rejected("left"), screening("right")) == found


def test_an_eye_whose_pictures_were_all_rejected_was_not_seen():
    assert row(screening("right"), rejected("left"))["warnings"] == ["ONE_EYE"]
    assert row(screening("right"), rejected("left"), screening("left"))["warnings"] == []


def test_what_is_known_of_a_rejected_picture_is_the_patients_too():
    conflict = dataclasses.replace(rejected(), warnings=(Code.LATERALITY_CONFLICT,))
    assert row(conflict)["warnings"] == ["LATERALITY_CONFLICT", "ONE_EYE"]


def test_an_uncertain_picture_leaves_the_classifiers_negative_open():
    assert calls(row(screening("right"), screening("left", uncertain=True))) == (False, None, None, None)


def test_a_picture_without_a_measurable_score_leaves_the_first_negative_open():
    assert calls(row(screening("right"), screening("left", glaucoma=None))) == (None, False, False, False)


def test_only_rejected_pictures_say_nothing():
    found = row(rejected("right"), rejected("left"))
    assert calls(found) == (None, None, None, None)
    assert [found[f"{name}_probability"] for name in CALLS] == [None] * 4
    assert (found["pictures"], found["rejected_pictures"], found["right_vcdr"]) == (2, 2, None)


@pytest.mark.parametrize(
    ("models", "expected"), [("multitask", (False, None, None, None)), ("classifier", (None, False, False, False))]
)
def test_a_model_that_was_not_asked_says_nothing(models, expected):
    assert calls(row(screening("right", models=models), screening("left", models=models))) == expected


def test_a_picture_that_a_model_could_not_read_leaves_its_negative_open():
    dark = screening("left", used=False, warnings=(Code.LOW_RESOLUTION,))
    assert calls(row(screening("right"), dark)) == (False, None, None, None)


# figures


def test_probabilities_and_ratios_are_the_highest_of_each():
    found = row(
        screening("right", glaucoma=0.2, vcdr=0.55, second=0.31, dr=0.41, any_dr=0.05),
        screening("right", glaucoma=0.3, vcdr=0.45, second=0.11, dr=0.42, any_dr=0.06),
        screening("left", glaucoma=0.1, vcdr=0.3, second=0.21, dr=0.40, any_dr=0.02),
    )
    assert [found[f"{name}_probability"] for name in CALLS] == [0.3, 0.31, 0.42, 0.06]
    assert (found["vcdr"], found["right_vcdr"], found["left_vcdr"]) == (0.55, 0.55, 0.3)
    assert found["vcdr_difference"] == 0.25


def test_the_difference_of_the_ratios_has_no_sign():
    assert row(screening("right", vcdr=0.3), screening("left", vcdr=0.7))["vcdr_difference"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    "pictures",
    [
        [screening("right")],
        [screening("right"), screening("left", vcdr=None)],
        [screening("right"), rejected("left")],
        [screening("right"), screening(None)],
    ],
    ids=["one eye", "no cup", "rejected", "unknown eye"],
)
def test_without_a_ratio_of_each_eye_there_is_no_difference(pictures):
    found = row(*pictures)
    assert (found["right_vcdr"], found["left_vcdr"], found["vcdr_difference"]) == (0.4, None, None)


def test_pictures_are_counted_by_eye():
    results = [screening("right"), screening("right"), screening("left"), screening(None), rejected("left")]
    found = row(*results, rejected(None))
    names = ("pictures", "right_pictures", "left_pictures", "unknown_eye_pictures", "rejected_pictures")
    assert [found[name] for name in names] == [6, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("eyes", "one"),
    [
        (["right"], True),
        (["left", "left"], True),
        ([None], True),
        (["right", None], True),
        (["right", "left"], False),
        ([None, "left", "right"], False),
    ],
)
def test_a_patient_without_both_eyes_has_a_warning(eyes, one):
    assert row(*map(screening, eyes))["warnings"] == [Code.ONE_EYE] * one


def test_warnings_of_all_pictures_stand_once_in_order():
    first, second = (Code.CUP_NOT_FOUND, Code.DR_UNCERTAIN), (Code.DR_UNCERTAIN, Code.FOVEA_NOT_FOUND)
    found = row(screening("right", warnings=first), screening("right", warnings=second))
    assert found["warnings"] == ["CUP_NOT_FOUND", "DR_UNCERTAIN", "FOVEA_NOT_FOUND", "ONE_EYE"]


def test_a_row_is_json():
    for found in (row(screening("right"), screening("left")), row(rejected())):
        assert json.loads(json.dumps(found, allow_nan=False)) == found


# the file


def read(folder) -> list[dict[str, str]]:
    with (folder / patients.FILE).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_each_patient_has_a_row_in_the_order_of_the_pictures(tmp_path):
    with Patients(tmp_path) as sink:
        for name in ("b", "a", "b", "c", "a"):
            sink.write(screening(patient=name))
        assert not list(tmp_path.iterdir())  # at the end only
    found = read(tmp_path)
    assert [(one["patient"], one["pictures"]) for one in found] == [("b", "2"), ("a", "2"), ("c", "1")]
    assert tuple(found[0]) == COLUMNS


def test_cells_are_as_in_the_rows_of_pictures(tmp_path):
    with Patients(tmp_path) as sink:
        sink.write(screening("right", second=0.9, warnings=(Code.CUP_NOT_FOUND,)))
        sink.write(screening("right", uncertain=True))
    (found,) = read(tmp_path)
    assert (found["glaucoma"], found["glaucoma_second"], found["referable_dr"]) == ("false", "true", "")
    assert found["warnings"] == "CUP_NOT_FOUND ONE_EYE"
    assert (found["left_vcdr"], found["right_vcdr"]) == ("", "0.4")


def test_pictures_without_a_patient_have_no_row(tmp_path):
    with Patients(tmp_path) as sink:
        sink.write(screening(patient=None))
        sink.write(screening(patient="p1"))
    assert [(one["patient"], one["pictures"]) for one in read(tmp_path)] == [("p1", "1")]


def test_without_patients_there_is_no_file(tmp_path):
    with Patients(tmp_path) as sink:
        sink.write(screening(patient=None))
        sink.write(rejected(patient=None))
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_stopped_writes_no_file(tmp_path):
    def stopped() -> None:
        with Patients(tmp_path) as sink:
            sink.write(screening())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not list(tmp_path.iterdir())


NAMES = [
    "=cmd()|' /C calc'!A0",
    "+1",
    "-1",
    "@sum",
    "\t=1",
    "plain",
    "é 漢字",
    'comma, "quote"',
    "line\nbreak",
    "\udcff",
]


def test_no_name_of_a_patient_is_a_formula(tmp_path):
    with Patients(tmp_path) as sink:
        for name in NAMES:
            sink.write(screening(patient=name))
    found = [one["patient"] for one in read(tmp_path)]
    assert [name.removeprefix("'") for name in found] == [*NAMES[:-1], r"\xff"]
    assert not [name for name in found if name.startswith(("=", "+", "-", "@", "\t"))]


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / patients.FILE).mkdir()

    def written() -> None:
        with Patients(tmp_path) as sink:
            sink.write(screening())

    with pytest.raises(OutputError, match="cannot be written"):
        written()


def test_a_screeners_results_become_patients(both, painter, opinions, tmp_path):
    """Both eyes of one patient; the second picture of the other patient is not there."""
    pixels = np.full((180, 200, 3), 90, np.uint8)
    path = str(tmp_path / "eye.png")
    cv2.imwrite(path, pixels)
    sources = [Listed(path, "p1", "right"), Listed(path, "p1", "left"), Listed(path, "p2", "right")]
    sources.append(Listed(str(tmp_path / "absent.png"), "p2", "left"))
    out = tmp_path / "out"
    with (
        both(lambda image: painter.maps(fovea=None, glaucoma=0.0), classify=lambda image: opinions(0.1, 0.9)) as opened,
        Patients(out) as sink,
    ):
        for result in opened.stream(sources):
            sink.write(result)
    first, second = read(out)
    assert (first["patient"], first["glaucoma"], first["glaucoma_second"], first["referable_dr"]) == (
        "p1",
        "false",
        "false",
        "true",
    )
    assert (second["patient"], second["glaucoma"], second["glaucoma_second"], second["referable_dr"]) == (
        "p2",
        "",
        "",
        "true",
    )
    assert first["vcdr_difference"] == "0.0"
    assert first["warnings"] == "FOVEA_NOT_FOUND"
