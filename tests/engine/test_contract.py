"""What a model file says of itself: read back as it was written, or refused with the key that is wrong."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from funduscope.engine import models
from funduscope.engine.contract import ZEROS, Model
from funduscope.engine.errors import ModelError
from funduscope.engine.pictures.preprocess import Geometry
from funduscope.engine.readers.classifier import Classifier
from funduscope.engine.readers.multitask import MultiTask


def stamped(document: str) -> bytes:
    """A small file around a contract, with the digest that belongs to it."""
    blank = b"head" + document.encode() + b"tail"
    stated = json.loads(document)["sha256"].encode()
    blank = blank.replace(stated, ZEROS.encode())
    return blank.replace(ZEROS.encode(), hashlib.sha256(blank).hexdigest().encode())


def refusal(data: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        models.verified(data, "eye.onnx")
    assert str(caught.value).startswith("eye.onnx: ")
    return str(caught.value)


def changed(model: Model, *path: str | int, **values: object) -> dict:
    """A model's contract as a dict, with `values` set at `path`."""
    document = json.loads(model.contract.to_json())
    part = document
    for key in path:
        part = part[key]
    part.update(values)
    return document


def encoded(document: dict) -> str:
    return json.dumps(document, separators=(",", ":"))


@pytest.fixture(params=["model", "classifier"])
def either(request) -> Model:
    """A model of each kind."""
    return request.getfixturevalue(request.param)


def test_a_contract_returns_from_its_json(either):
    assert models.parse(either.contract.to_json().encode(), "x") == either.contract
    assert models.parse(either.contract.to_json().encode() + b"\x00 and more", "x") == either.contract


def test_a_contract_returns_as_its_own_kind(model, classifier):
    assert type(models.parse(model.contract.to_json().encode(), "x")) is MultiTask
    assert type(models.parse(classifier.contract.to_json().encode(), "x")) is Classifier


probability = st.floats(0, 1)
number = st.floats(allow_nan=False, allow_infinity=False)


@given(name=st.text(), threshold=probability, slope=number, figures=st.dictionaries(st.text(), number, max_size=3))
def test_any_values_return_from_their_json(model, name, threshold, slope, figures):
    rules = model.contract.rules.model_copy(update={"disc_threshold": threshold, "vcdr_coefficient": slope})
    training = model.contract.training.model_copy(update={"figures": {"set": figures}})
    document = model.contract.model_copy(
        update={"name": name, "rules": rules, "glaucoma_threshold": threshold, "training": training}
    )
    assert models.parse(document.to_json().encode(), "x") == document


@given(
    threshold=st.floats(0.2, 0.8),
    uncertain=st.floats(0, 50),
    scale=st.none() | st.floats(1e-9, 1e9),
    stride=st.floats(1e-3, 99),
)
def test_any_values_of_a_classifier_return_from_their_json(classifier, threshold, uncertain, scale, stride):
    values = changed(classifier, "decisions", "any_dr", map_scale=scale)
    for point, own in (("high_sensitivity", 0.1), ("balanced", threshold), ("high_specificity", 0.9)):
        values["decisions"]["any_dr"]["points"][point] |= {"threshold": own, "uncertain_logit": uncertain}
    values["map_grid"] = {"stride_px": stride, "offset_px": -stride}
    document = Classifier.model_validate(values)
    assert models.parse(document.to_json().encode(), "x") == document
    assert document.decisions["any_dr"].points.balanced.threshold == threshold


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("map_grid", None, "has ..any_dr., .glaucoma., .referable_dr..$"),
        ("outputs", [], "outputs are"),
        (
            "geometry",
            {"path": "reduced-crop-pad-resize-2", "size": 64, "fov_threshold": 40},
            "is not of geometry.size 64",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(classifier, key, value, told):
    values = changed(classifier) | {key: value}
    with pytest.raises(ModelError, match=told):
        models.parse(json.dumps(values).encode(), "x")


def test_a_small_stamped_file_is_whole(either):
    read = models.verified(stamped(either.contract.to_json()), "x")
    assert read.model_copy(update={"sha256": either.sha256}) == either.contract


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (kind, key)
        for kind, part in (("model", MultiTask), ("classifier", Classifier))
        for key in part.model_fields
        if key not in ("format", "sha256", "kind", "converted_from", "quality")
    ],
)
def test_a_missing_key_is_named(request, kind, key):
    document = changed(request.getfixturevalue(kind))
    del document[key]
    assert f"  {key}: Field required" in refusal(stamped(encoded(document)))


def test_a_missing_kind_is_named(either):
    document = changed(either)
    del document["kind"]
    assert "\n  kind: None; this Funduscope reads multi-task, disc, classifier" in refusal(stamped(encoded(document)))


@pytest.mark.parametrize(
    "path",
    [
        ("decisions", "glaucoma", "temperature"),
        ("decisions", "glaucoma", "map_scale"),
        ("decisions", "any_dr", "points", "high_specificity"),
        ("decisions", "any_dr", "points", "balanced", "sensitivity", "low"),
        ("map_grid", "offset_px"),
        ("geometry", "fov_threshold"),
    ],
    ids=".".join,
)
def test_a_missing_key_at_depth_is_named(classifier, path):
    document = part = changed(classifier)
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    assert f"\n  {'.'.join(path)}: Field required" in refusal(stamped(encoded(document)))


@pytest.mark.parametrize(
    ("path", "values", "named"),
    [
        ((), {"colour": 1}, "colour"),
        (("rules",), {"colour": 1}, "rules.colour"),
        (("training", "data", 0), {"colour": 1}, "training.data.0.colour"),
        ((), {"glaucoma_threshold": "0.5"}, "glaucoma_threshold"),
        ((), {"glaucoma_threshold": 1.5}, "glaucoma_threshold"),
        ((), {"glaucoma_threshold": float("nan")}, "glaucoma_threshold"),
        (("rules",), {"vcdr_intercept": float("nan")}, "rules.vcdr_intercept"),
        (("rules",), {"vcdr_coefficient": float("inf")}, "rules.vcdr_coefficient"),
        (("rules",), {"disc_threshold": None}, "rules.disc_threshold"),
        (("rules",), {"fovea_mode": "best"}, "rules.fovea_mode"),
        (("geometry",), {"size": 256.0}, "geometry.size"),
        (("geometry",), {"path": "crop-pad-resize-2"}, "geometry.path"),
        ((), {"precision": "fp8"}, "precision"),
        ((), {"outputs": "disc"}, "outputs"),
        (("input",), {"dtype": "float64"}, "input.dtype"),
        (("terms",), {"notice": 3}, "terms.notice"),
    ],
)
def test_a_wrong_value_is_named_with_file_and_key(model, path, values, named):
    message = refusal(stamped(encoded(changed(model, *path, **values))))
    assert "the contract is not valid" in message
    assert f"\n  {named}: " in message


BALANCED = ("decisions", "glaucoma", "points", "balanced")


@pytest.mark.parametrize(
    ("path", "values", "named"),
    [
        ((), {"colour": 1}, "colour"),
        ((), {"rules": {}}, "rules"),
        ((), {"glaucoma_threshold": 0.5}, "glaucoma_threshold"),
        (("decisions",), {"colour": 1}, "decisions.colour"),
        (("decisions", "glaucoma"), {"colour": 1}, "decisions.glaucoma.colour"),
        (("decisions", "glaucoma"), {"temperature": 0.0}, "decisions.glaucoma.temperature"),
        (BALANCED, {"uncertain_logit": -0.1}, "decisions.glaucoma.points.balanced.uncertain_logit"),
        (("decisions", "any_dr"), {"map_scale": 0.0}, "decisions.any_dr.map_scale"),
        (BALANCED[:-1], {"best": {}}, "decisions.glaucoma.points.best"),
        (BALANCED, {"colour": 1}, "decisions.glaucoma.points.balanced.colour"),
        (BALANCED, {"threshold": 1.5}, "decisions.glaucoma.points.balanced.threshold"),
        (BALANCED, {"threshold": float("nan")}, "decisions.glaucoma.points.balanced.threshold"),
        ((*BALANCED, "specificity"), {"high": "1"}, "decisions.glaucoma.points.balanced.specificity.high"),
        ((), {"point": "best"}, "point"),
        ((), {"disagreement": -0.1}, "disagreement"),
        (("map_grid",), {"stride_px": 0.0}, "map_grid.stride_px"),
        (("map_grid",), {"stride_x": 1.0}, "map_grid.stride_x"),
        (("geometry",), {"path": "grey"}, "geometry.path"),
    ],
)
def test_a_wrong_value_of_a_classifier_is_named_with_file_and_key(classifier, path, values, named):
    message = refusal(stamped(encoded(changed(classifier, *path, **values))))
    assert "the contract is not valid" in message
    assert f"\n  {named}: " in message


@pytest.mark.parametrize("kind", ["detector", "Classifier", 1, None])
def test_an_unknown_kind_is_refused_with_those_there_are(either, kind):
    message = refusal(stamped(encoded(changed(either, kind=kind))))
    assert f"\n  kind: {kind!r}; this Funduscope reads multi-task, disc, classifier" in message


def test_a_contract_of_one_kind_is_not_one_of_the_other(model, classifier):
    message = refusal(stamped(encoded(changed(model, kind="classifier"))))
    assert "\n  decisions: Field required" in message
    assert "\n  rules: Extra inputs are not permitted" in message
    message = refusal(stamped(encoded(changed(classifier, kind="multi-task"))))
    assert "\n  rules: Field required" in message
    assert "\n  decisions: Extra inputs are not permitted" in message


@pytest.mark.parametrize("key", ["decisions", "point", "disagreement", "map_grid"])
def test_a_multi_task_contract_with_a_key_of_the_classifier_is_refused(model, classifier, key):
    values = {key: changed(classifier)[key]}
    assert f"\n  {key}: Extra inputs are not permitted" in refusal(stamped(encoded(changed(model, **values))))


@pytest.mark.parametrize(
    ("path", "named"),
    [((), "classifier"), (("rules",), "rules.classifier"), (("training", "figures"), "training.figures.classifier")],
)
def test_a_key_that_is_called_like_a_kind_is_named(model, path, named):
    message = refusal(stamped(encoded(changed(model, *path, classifier=1))))
    assert f"\n  {named}: " in message


def test_a_contract_is_frozen(model, classifier):
    with pytest.raises(ValueError, match="frozen"):
        model.contract.glaucoma_threshold = 0.1
    with pytest.raises(ValueError, match="frozen"):
        classifier.contract.decisions["glaucoma"].temperature = 2.0


def test_values_reach_preparation_and_post_processing(model):
    assert model.contract.geometry.build().size == model.contract.geometry.size
    assert model.contract.rules.build().__dict__ == model.contract.rules.model_dump()


def test_the_path_of_preparation_says_in_which_light(model, classifier):
    assert model.contract.geometry.build() == Geometry(256, 24)
    assert classifier.contract.geometry.build() == Geometry(96, 40)


def test_retinopathy_and_its_referable_part_need_the_same_pixels(classifier):
    document = classifier.contract.model_dump()
    quality = {"thresholds": {"blurred": 0.5}, "least_px": {"referable_dr": 300.0, "any_dr": 150.0}}
    score = {"name": "blurred", "dtype": "float32", "shape": ["batch"]}
    with pytest.raises(ValidationError, match="least_px of referable_dr and any_dr must be the same"):
        Classifier.model_validate(document | {"quality": quality, "outputs": [*document["outputs"], score]})


def test_a_model_that_says_how_good_a_picture_is_has_an_output_for_it(classifier):
    document = classifier.contract.model_dump()
    names = ("blurred", "image_quality")
    scores = [{"name": name, "dtype": "float32", "shape": ["batch"]} for name in names]
    quality = {"thresholds": {"blurred": 0.5}, "least_px": {}, "image_quality": True}
    made = Classifier.model_validate(document | {"quality": quality, "outputs": [*document["outputs"], *scores]})
    assert made.needed()[-2:] == [*names]
    with pytest.raises(ValidationError, match="outputs are"):
        Classifier.model_validate(document | {"quality": quality, "outputs": [*document["outputs"], scores[0]]})
