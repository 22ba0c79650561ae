"""The classifier's reader alone: arrays in, decisions out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from funduscope.engine import models
from funduscope.engine.contract import Model
from funduscope.engine.errors import Code, ModelError, PhotoError
from funduscope.engine.findings import Decision, Findings
from funduscope.engine.pictures import photo
from funduscope.engine.pictures.preprocess import Placement, Prepared
from funduscope.engine.readers.classifier import Classifier, ClassifierReader
from funduscope.engine.readers.difference import INT8
from funduscope.engine.readers.quality import QualityPart
from funduscope.postprocess import scores

VERDICTS = {"glaucoma": "glaucoma_second", "referable_dr": "referable_dr", "any_dr": "any_dr"}
PREPARED = Prepared(np.zeros((96, 96, 3), np.uint8), Placement(0.5, 0.5, -7.25, 3.75))
NOTHING = Findings(width=300, height=200)


def changed(document: Classifier, *path: str, **values: object) -> Classifier:
    """The contract with `values` set at `path`."""
    whole = document.model_dump()
    part = whole
    for key in path:
        part = part[key]
    part.update(values)
    return Classifier.model_validate(whole)


@pytest.fixture
def read(classifier: Model, opinions):
    """Findings of probabilities: `read(glaucoma=0.4, ...)`; document, point, found: what the reader has, and what was found."""

    def make(*, document=None, point=None, found=NOTHING, **probabilities) -> Findings:
        reader = ClassifierReader(document or classifier.contract, point)
        return reader.read(found, opinions(**probabilities), PREPARED)

    return make


def test_each_output_is_a_decision_under_its_verdicts_name(read):
    found = read(glaucoma=0.1, referable_dr=0.6, any_dr=0.7)
    assert [(name, own.disease) for name, own in found.decisions.items()] == [
        ("glaucoma_second", "glaucoma"),
        ("referable_dr", "referable_dr"),
        ("any_dr", "any_dr"),
    ]
    assert [own.probability for own in found.decisions.values()] == pytest.approx([0.1, 0.6, 0.7])
    assert {type(own.probability) for own in found.decisions.values()} == {float}


@pytest.mark.parametrize(
    ("point", "thresholds", "called"),
    [
        ("high_sensitivity", (0.2, 0.3, 0.25), (True, True, True)),
        ("balanced", (0.4, 0.5, 0.45), (True, False, True)),
        (None, (0.4, 0.5, 0.45), (True, False, True)),
        ("high_specificity", (0.6, 0.7, 0.65), (False, False, True)),
    ],
)
def test_the_operating_point_sets_thresholds_and_decisions(read, point, thresholds, called):
    found = read(point=point, glaucoma=0.502, referable_dr=0.4, any_dr=0.902)
    assert found.point == (point or "balanced")
    assert tuple(found.decisions[name].threshold for name in VERDICTS.values()) == thresholds
    assert tuple(found.decisions[name].called for name in VERDICTS.values()) == called
    assert found.warnings == ()


def test_the_contracts_point_is_taken_where_none_is_asked_for(classifier, read):
    document = changed(classifier.contract, point="high_specificity")
    assert ClassifierReader(document, None).point == read(document=document).point == "high_specificity"
    assert ClassifierReader(document, "balanced").point == "balanced"


def test_a_probability_at_the_threshold_is_called(classifier, read):
    at = {"threshold": float(np.float32(0.4)), "uncertain_logit": 0.0}
    document = changed(classifier.contract, "decisions", "glaucoma", "points", "balanced", **at)
    for probability, called in ((0.4, True), (0.3999, False)):
        assert read(document=document, glaucoma=probability).decisions["glaucoma_second"].called is called


@pytest.mark.parametrize(
    ("disease", "probability", "called", "warnings"),
    [  # within .1 of the threshold's logit: .3762 to .4242, .4750 to .5250, .4254 to .4749
        ("glaucoma", 0.376, False, ()),
        ("glaucoma", 0.377, None, (Code.GLAUCOMA_UNCERTAIN,)),
        ("glaucoma", 0.424, None, (Code.GLAUCOMA_UNCERTAIN,)),
        ("glaucoma", 0.425, True, ()),
        ("referable_dr", 0.474, False, ()),
        ("referable_dr", 0.476, None, (Code.DR_UNCERTAIN, Code.ANY_DR_UNCERTAIN)),
        ("referable_dr", 0.524, None, (Code.DR_UNCERTAIN, Code.ANY_DR_UNCERTAIN)),
        ("referable_dr", 0.526, True, ()),
        ("any_dr", 0.45, None, (Code.ANY_DR_UNCERTAIN,)),
        ("any_dr", 0.476, True, ()),
    ],
)
def test_near_to_its_threshold_it_abstains(read, disease, probability, called, warnings):
    found = read(**{disease: probability})
    decision = found.decisions[VERDICTS[disease]]
    assert decision.called is called
    assert decision.probability == pytest.approx(probability)
    assert found.warnings == warnings


def test_all_warnings_of_uncertainty_stand_together_after_those_that_were_there(read):
    before = replace(NOTHING, warnings=(Code.CUP_NOT_FOUND,))
    uncertain = (Code.GLAUCOMA_UNCERTAIN, Code.DR_UNCERTAIN, Code.ANY_DR_UNCERTAIN)
    found = read(found=before, glaucoma=0.4, referable_dr=0.5, any_dr=0.45)
    assert found.warnings == (Code.CUP_NOT_FOUND, *uncertain)


@pytest.mark.parametrize(("probability", "called"), [(0.0, False), (1.0, True)])
def test_at_zero_and_one_there_is_an_answer(read, probability, called):
    found = read(**dict.fromkeys(VERDICTS, probability))
    assert [own.called for own in found.decisions.values()] == [called] * 3


# one disease within another


def test_referable_retinopathy_is_retinopathy(read):
    found = read(referable_dr=0.9, any_dr=0.01).decisions
    assert (found["referable_dr"].called, found["any_dr"].called) == (True, True)
    assert found["any_dr"].probability == pytest.approx(0.01)


@pytest.mark.parametrize(("any_dr", "expected"), [(0.1, None), (0.45, None), (0.9, True)])
def test_where_referable_retinopathy_is_open_any_is_not_denied(read, any_dr, expected):
    found = read(referable_dr=0.5, any_dr=any_dr)
    assert found.decisions["referable_dr"].called is None
    assert found.decisions["any_dr"].called is expected
    assert (Code.ANY_DR_UNCERTAIN in found.warnings) is (expected is None)


@pytest.mark.parametrize("referable_dr", [0.1, 0.5, 0.9])
def test_the_order_of_the_contracts_decisions_does_not_matter(classifier, read, referable_dr):
    whole = classifier.contract.model_dump()
    whole["decisions"] = dict(reversed(whole["decisions"].items()))
    one, other = (
        read(referable_dr=referable_dr),
        read(document=Classifier.model_validate(whole), referable_dr=referable_dr),
    )
    assert one.decisions == other.decisions
    assert set(one.warnings) == set(other.warnings)


# what it says of one disease alone, and of what others found


@pytest.mark.parametrize("disease", VERDICTS)
def test_a_classifier_may_know_one_disease_alone(classifier, opinions, disease):
    whole = classifier.contract.model_dump()
    whole["decisions"] = {disease: whole["decisions"][disease]}
    whole["outputs"] = [own for own in whole["outputs"] if own["name"] in (disease, f"{disease}_map")]
    document = Classifier.model_validate(whole)
    assert document.needed() == [disease, f"{disease}_map"]
    outputs = {name: own for name, own in opinions(**{disease: 0.9}).items() if name in document.needed()}
    found = ClassifierReader(document, None).read(NOTHING, outputs, PREPARED)
    assert {name: own.called for name, own in found.decisions.items()} == {VERDICTS[disease]: True}


def test_what_was_found_before_stays(read):
    first = Decision("glaucoma", 0.1, 0.3, False)
    before = replace(NOTHING, vcdr=0.4, decisions={"glaucoma": first}, scores={"glaucoma_vcdr": 0.2}, fovea=(3.0, 4.0))
    found = read(found=before)
    assert found.decisions["glaucoma"] is first
    assert list(found.decisions) == ["glaucoma", *VERDICTS.values()]
    kept = {"decisions": {}, "point": None}
    assert replace(found, **kept) == replace(before, **kept)
    assert list(before.decisions) == ["glaucoma"]


# glaucoma, twice


def first_opinion(probability: float | None, threshold: float = 0.3) -> Findings:
    called = None if probability is None else probability >= threshold
    return replace(NOTHING, decisions={"glaucoma": Decision("glaucoma", probability, threshold, called)})


def odds(probability: float) -> float:
    return probability / (1 - probability)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(("beyond", "warned"), [(0.002, True), (-0.002, False)])
def test_opinions_that_are_far_apart_on_glaucoma_are_said(read, side, beyond, warned):
    """Each seen from its own threshold: odds over the threshold's odds. Both lie below it."""
    probability = 0.05 if side > 0 else 0.27
    own = odds(probability) / odds(0.3)
    target = own / (1 + own) + side * (0.3 + beyond)
    assert 0 < target < 0.5
    assert scores.from_threshold(probability, 0.3) == pytest.approx(own / (1 + own))
    other = odds(target) * odds(0.4)
    found = read(found=first_opinion(probability), glaucoma=other / (1 + other))
    assert found.decisions["glaucoma_second"].called is False
    assert (Code.GLAUCOMA_DISAGREEMENT in found.warnings) is warned


@pytest.mark.parametrize("point", ["high_sensitivity", "balanced", "high_specificity"])
def test_contrary_decisions_on_glaucoma_are_always_said(read, point):
    found = read(found=first_opinion(0.25), glaucoma=0.5, point=point)
    contrary = found.decisions["glaucoma_second"].called is True
    assert contrary is (point != "high_specificity")
    assert (Code.GLAUCOMA_DISAGREEMENT in found.warnings) is contrary


def test_at_their_thresholds_two_opinions_agree(read):
    assert read(found=first_opinion(0.3), glaucoma=0.4).warnings == (Code.GLAUCOMA_UNCERTAIN,)


def test_without_a_first_opinion_there_is_no_disagreement(read):
    assert read(found=first_opinion(None), glaucoma=0.99).warnings == ()
    assert read(glaucoma=0.99).warnings == ()


# its input, its contract, its description


@pytest.mark.parametrize(("level", "seen"), [(40, False), (41, True)])
def test_the_field_of_view_is_looked_for_in_grey(classifier, level, seen):
    reader = ClassifierReader(classifier.contract, None)
    picture = photo.load(np.full((192, 192, 3), level, np.uint8))
    if seen:
        assert reader.prepare(picture).image.shape == (96, 96, 3)
    else:
        with pytest.raises(PhotoError) as caught:
            reader.prepare(picture)
        assert caught.value.code is Code.NO_FIELD_OF_VIEW


def test_points_out_of_order_are_refused(classifier):
    values = classifier.contract.model_dump()
    values["decisions"]["glaucoma"]["points"]["balanced"]["threshold"] = 0.999
    with pytest.raises(ModelError, match="must rise from high_sensitivity"):
        models.parse(json.dumps(values).encode(), "x")


def test_a_decision_on_an_unknown_disease_is_refused_with_those_there_are(classifier):
    values = classifier.contract.model_dump()
    values["decisions"]["myopia"] = values["decisions"]["glaucoma"]
    for own in values["outputs"][0], values["outputs"][3]:
        values["outputs"].append(own | {"name": own["name"].replace("glaucoma", "myopia")})
    with pytest.raises(ModelError, match="decisions on myopia; known are glaucoma, referable_dr, any_dr"):
        models.parse(json.dumps(values).encode(), "x")


def test_a_decision_without_its_output_is_refused_and_so_is_an_output_without_its_decision(classifier):
    for name in VERDICTS:
        values = classifier.contract.model_dump()
        del values["decisions"][name]
        with pytest.raises(ModelError, match=r"outputs are .*; a classifier model of this contract has"):
            models.parse(json.dumps(values).encode(), "x")
        values = classifier.contract.model_dump()
        values["outputs"] = [own for own in values["outputs"] if own["name"] != name]
        with pytest.raises(ModelError, match=r"outputs are .*; a classifier model of this contract has"):
            models.parse(json.dumps(values).encode(), "x")


def test_no_decision_at_all_is_refused(classifier):
    values = classifier.contract.model_dump() | {"decisions": {}, "outputs": []}
    with pytest.raises(ModelError, match="\n  decisions: "):
        models.parse(json.dumps(values).encode(), "x")


def test_the_grid_of_a_heat_map_places_its_cells(classifier):
    to_square = classifier.contract.map_grid.to_square()
    assert to_square @ (0, 0, 1) == pytest.approx((3.5, 3.5, 1))
    assert to_square @ (11, 2, 1) == pytest.approx((91.5, 19.5, 1))


def test_it_describes_every_decision_at_every_point(classifier):
    rows = ClassifierReader(classifier.contract, None).describe()
    assert list(rows) == ["operating point", *VERDICTS, "disagreement"]
    assert rows["operating point"] == "balanced"
    assert rows["disagreement"].startswith(f"more than {classifier.contract.disagreement:g} from")
    lines = rows["referable_dr"].splitlines()
    assert lines[0] == "temperature 1"
    assert [line.split(",")[0] for line in lines[1:]] == [
        "high_sensitivity from 0.3000",
        "balanced from 0.5000",
        "high_specificity from 0.7000",
    ]
    assert "sensitivity 0.900 (0.80 to 0.95), specificity 0.900 (0.80 to 0.95)" in lines[1]


def test_it_says_what_it_refuses_and_is_compared_in_it(classifier, opinions):
    part = QualityPart(thresholds={"blurred": 0.5}, least_px={"glaucoma": 150.0}, image_quality=True)
    reader = ClassifierReader(classifier.contract.model_copy(update={"quality": part}), None)
    assert reader.describe()["refused"] == "blurred from 0.5000\nglaucoma: 150 px and more"
    one = opinions() | {"blurred": np.float32(0.4), "image_quality": np.float32(0.7)}
    seen = reader.differences([(one, one | {"blurred": np.float32(0.6)})], INT8)
    assert {own.name: own.holds for own in seen}["refusal flips"] is False
    assert all(own.holds for own in reader.differences([(one, one)], INT8))
