"""The classifier beside the multi-task model, and alone. Its outputs are means of the picture's channels (`classifier`) or
painted (`opinions`), so that each figure can be computed by hand."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest

from funduscope.engine import contract, runners
from funduscope.engine.errors import Code, SettingsError
from funduscope.engine.pictures import photo
from funduscope.engine.results import COLUMNS, Rejected, Screening
from funduscope.engine.screener import Screener
from funduscope.postprocess import scores

DISEASES = ("glaucoma", "referable_dr", "any_dr")
OPINIONS = [
    *(f"{column}{part}" for column in ("referable_dr", "any_dr", "glaucoma_second") for part in ("", "_probability")),
    *(f"{column}_threshold" for column in ("referable_dr", "any_dr", "glaucoma_second")),
    *("operating_point", "classifier", "classifier_version", "classifier_sha256", "classifier_backend"),
    "classifier_precision",
]


def flat(red: int, green: int, blue: int, height: int = 192, width: int = 192) -> np.ndarray:
    return np.full((height, width, 3), (red, green, blue), np.uint8)


def changed(model: contract.Model, *path: str, **values: object) -> contract.Model:
    """The same file under a contract with `values` set at `path`."""
    document = model.contract.model_dump()
    part = document
    for key in path:
        part = part[key]
    part.update(values)
    return dataclasses.replace(model, contract=contract.Classifier.model_validate(document))


def odds(probability: float) -> float:
    return probability / (1 - probability)


# what the classifier says


@pytest.mark.parametrize("pixels", [flat(51, 128, 230), flat(204, 26, 77, height=300)], ids=["square", "wide"])
def test_probabilities_are_what_the_graph_gives(fake, classifier, pixels):
    with fake(models=[classifier]) as opened:
        found = opened(pixels).classification
    lit = round(96 * 192 / pixels.shape[0]) / 96  # of the square; the rest is black
    assert found.referable_dr.probability == pytest.approx(pixels[0, 0, 0] / 255 * lit, abs=1e-6)
    assert found.glaucoma.probability == pytest.approx(pixels[0, 0, 1] / 255 * lit, abs=1e-6)
    assert found.any_dr.probability == pytest.approx(pixels[0, 0, 2] / 255 * lit, abs=1e-6)
    assert [found.of(disease) for disease in DISEASES] == [found.glaucoma, found.referable_dr, found.any_dr]


@pytest.mark.parametrize(
    ("point", "thresholds", "positive"),
    [
        ("high_sensitivity", (0.2, 0.3, 0.25), (True, True, True)),
        ("balanced", (0.4, 0.5, 0.45), (True, False, True)),
        (None, (0.4, 0.5, 0.45), (True, False, True)),
        ("high_specificity", (0.6, 0.7, 0.65), (False, False, True)),
    ],
)
def test_the_operating_point_sets_thresholds_and_decisions(fake, classifier, point, thresholds, positive):
    with fake(models=[classifier], point=point) as opened:
        assert opened.point == (point or "balanced")
        found = opened(flat(102, 128, 230))  # .4, .502, .902
    opinions = [found.classification.of(disease) for disease in DISEASES]
    assert tuple(opinion.threshold for opinion in opinions) == thresholds
    assert tuple(opinion.positive for opinion in opinions) == positive
    assert found.classification.point == opened.point
    assert found.warnings == ()
    row = found.to_dict()
    assert row["operating_point"] == opened.point
    assert (row["glaucoma_second"], row["referable_dr"], row["any_dr"]) == positive
    assert (row["glaucoma_second_threshold"], row["referable_dr_threshold"], row["any_dr_threshold"]) == thresholds
    assert (row["glaucoma_second_probability"], row["referable_dr_probability"]) == (0.501961, 0.4)


def test_a_probability_at_the_threshold_is_positive(fake, classifier, opinions):
    values = {"threshold": float(np.float32(0.4)), "uncertain_logit": 0.0}
    for probability, positive in ((0.4, True), (0.3999, False)):
        one = changed(classifier, "decisions", "glaucoma", "points", "balanced", **values)
        with fake(models=[one], classify=lambda image, p=probability: opinions(p)) as opened:
            assert opened(flat(90, 90, 90)).classification.glaucoma.positive is positive


@pytest.mark.parametrize(
    ("disease", "probability", "positive", "warnings"),
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
def test_near_to_its_threshold_the_classifier_abstains(
    fake, classifier, opinions, disease, probability, positive, warnings
):
    with fake(models=[classifier], classify=lambda image: opinions(**{disease: probability})) as opened:
        found = opened(flat(90, 90, 90))
    opinion = found.classification.of(disease)
    assert opinion.positive is positive
    assert opinion.probability == pytest.approx(probability)
    assert found.warnings == warnings
    assert found.to_dict()["glaucoma_second" if disease == "glaucoma" else disease] is positive


def test_all_warnings_of_uncertainty_stand_together(fake, classifier, opinions):
    with fake(models=[classifier], classify=lambda image: opinions(0.4, 0.5, 0.45)) as opened:
        assert opened(flat(90, 90, 90)).warnings == (
            Code.GLAUCOMA_UNCERTAIN,
            Code.DR_UNCERTAIN,
            Code.ANY_DR_UNCERTAIN,
        )


def test_at_zero_and_one_there_is_an_answer(fake, classifier, opinions):
    for probability, positive in ((0.0, False), (1.0, True)):
        with fake(models=[classifier], classify=lambda image, p=probability: opinions(p, p, p)) as opened:
            found = opened(flat(90, 90, 90)).classification
        assert [found.of(disease).positive for disease in DISEASES] == [positive] * 3


# two models, one picture


def test_both_models_look_at_one_decode(both, fundus, tmp_path, monkeypatch):
    path = tmp_path / "eye.png"
    cv2.imwrite(str(path), fundus()[..., ::-1])
    calls, read = [], photo.read

    def counted(*arguments):
        calls.append(arguments)
        return read(*arguments)

    monkeypatch.setattr(photo, "read", counted)
    with both() as opened:
        found = opened(path)
        assert len(calls) == 1
        assert len(list(opened.stream([path] * 3))) == 3
    assert len(calls) == 4
    assert found.vcdr is not None
    assert found.classification is not None


def test_together_each_model_says_what_it_says_alone(both, fake, model, classifier, fundus):
    with both() as opened, fake() as first, fake(models=[classifier]) as second:
        together, measured, classified = (one(fundus()) for one in (opened, first, second))
    assert together.classification == classified.classification
    shared = {"classification", "warnings", "findings", "placement", "photo"}
    for field in dataclasses.fields(Screening):
        if field.name not in shared:
            assert getattr(together, field.name) == getattr(measured, field.name), field.name
    row = together.to_dict()
    assert (row["model"], row["model_sha256"]) == (model.contract.name, model.sha256)
    assert (row["classifier"], row["classifier_version"]) == ("channels", "7")
    assert (row["classifier_sha256"], row["classifier_backend"]) == (classifier.sha256, "onnxruntime")


def test_the_contracts_stand_in_one_order(both, fake, model, classifier):
    for models in ([model, classifier], [classifier, model]):
        with fake(models=models) as opened:
            assert opened.contracts == (opened.multitask, opened.classifier) == (model.contract, classifier.contract)
            assert [own.name for own in opened.models] == [own.name for own in opened.contracts]


def test_the_classifier_alone_measures_nothing(fake, classifier):
    with fake(models=[classifier]) as opened:
        assert opened.multitask is None
        assert opened.contracts == (classifier.contract,)
        found = opened(flat(51, 200, 230, height=200, width=260))
    assert isinstance(found, Screening)
    for name in ("vcdr", "disc", "cup", "fovea", "glaucoma", "glaucoma_probability", "threshold", "model", "findings"):
        assert getattr(found, name) is None
    assert found.eyes.eye is None
    assert not found.mask("disc").any()
    assert found.mask("disc").shape == (200, 260)
    assert found.contour("cup").shape == (0, 2)
    row = found.to_dict()
    assert tuple(row) == COLUMNS
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert row["status"] == "ok"
    assert row["model"] is row["glaucoma"] is row["vcdr"] is row["disc_x"] is None
    assert None not in [row[name] for name in OPINIONS]


def test_the_columns_name_what_only_the_classifier_fills(fake, fundus):  # the list of the tests here is whole
    with fake() as opened:
        row = opened(fundus()).to_dict()
    assert {name for name in COLUMNS if row[name] is None} == {*OPINIONS, "code", "reason", "patient", "sha256"}


@pytest.mark.parametrize("kind", ["model", "classifier"])
def test_a_second_model_of_a_kind_is_refused_and_the_first_is_freed(request, fake, monkeypatch, kind):
    one, closed = request.getfixturevalue(kind), []

    class Runner:
        precision = "fp32"

        def close(self):
            closed.append(self)

    monkeypatch.setattr(runners, "open_runner", lambda *arguments, **options: ("fake", Runner()))
    words = f"{one.path}: a second model of the kind {one.contract.kind}; open one of each kind at most"
    with pytest.raises(SettingsError) as caught:
        Screener([one, one], "fake", 4, None, None)
    assert str(caught.value) == words
    assert len(closed) == 1


def test_an_operating_point_without_a_classifier_is_refused(fake):
    with pytest.raises(SettingsError, match="operating point balanced: only a classifier has operating points"):
        fake(point="balanced")


def test_an_unknown_operating_point_is_refused_before_the_first_picture(classifier):
    with pytest.raises((SettingsError, AssertionError)), Screener.open(classifier.path, threads=1, point="best"):
        pass


def test_files_are_opened_by_their_paths(classifier, cc0):
    with Screener.open(classifier.path, "multitask", threads=1, point="high_specificity") as opened:
        found = opened(cc0)
    assert [own.name for own in opened.models] == ["multitask", "channels"]
    assert found.model == opened.models[0]
    assert found.classification.model == opened.models[1]
    assert found.classification.point == "high_specificity"


def test_closing_frees_both(both, opinions):
    with both(classify=lambda image: opinions()) as opened:
        pair = opened._multitask.runner, opened._classifier.runner
        assert not any(runner.closed for runner in pair)
    assert all(runner.closed for runner in pair)


# glaucoma, twice


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(("beyond", "warned"), [(0.002, True), (-0.002, False)])
def test_models_that_are_far_apart_on_glaucoma_say_so(both, model, painter, opinions, side, beyond, warned):
    """Each seen from its own threshold: odds over the threshold's odds. Both lie below it."""
    with both(lambda image: painter.maps()) as opened:
        from_vcdr = opened(flat(90, 90, 90)).glaucoma_vcdr
    network = 0.9 - from_vcdr if side < 0 else 0.0
    with both(lambda image: painter.maps(glaucoma=network)) as opened:
        first = opened(flat(90, 90, 90))
    own = odds(first.glaucoma_probability) / odds(model.contract.glaucoma_threshold)
    target = own / (1 + own) + side * (0.3 + beyond)
    assert 0 < target < 0.5
    other = odds(target) * odds(0.4)
    second = other / (1 + other)
    with both(lambda image: painter.maps(glaucoma=network), classify=lambda image: opinions(second)) as opened:
        found = opened(flat(90, 90, 90))
    assert (Code.GLAUCOMA_DISAGREEMENT in found.warnings) is warned
    seen = scores.from_threshold(first.glaucoma_probability, model.contract.glaucoma_threshold)
    assert seen == pytest.approx(own / (1 + own))


@pytest.mark.parametrize("point", ["high_sensitivity", "balanced", "high_specificity"])
def test_contrary_decisions_on_glaucoma_are_always_said(both, painter, opinions, point):
    with both(lambda image: painter.maps(), classify=lambda image: opinions(0.5), point=point) as opened:
        found = opened(flat(90, 90, 90))
    assert found.glaucoma is False
    assert (Code.GLAUCOMA_DISAGREEMENT in found.warnings) is (found.classification.glaucoma.positive is True)


def test_referable_retinopathy_is_retinopathy(both, opinions):
    with both(classify=lambda image: opinions(0.1, 0.9, 0.01)) as opened:
        found = opened(flat(90, 90, 90)).classification
    assert (found.referable_dr.positive, found.any_dr.positive) == (True, True)
    assert found.any_dr.probability == pytest.approx(0.01)


@pytest.mark.parametrize(("any_dr", "expected"), [(0.1, None), (0.45, None), (0.9, True)])
def test_where_referable_retinopathy_is_open_any_is_not_denied(both, opinions, any_dr, expected):
    with both(classify=lambda image: opinions(0.1, 0.5, any_dr)) as opened:
        found = opened(flat(90, 90, 90))
    assert found.classification.referable_dr.positive is None
    assert found.classification.any_dr.positive is expected
    assert (Code.ANY_DR_UNCERTAIN in found.warnings) is (expected is None)


def test_at_their_thresholds_two_models_agree(both, model, painter, opinions):
    threshold = model.contract.glaucoma_threshold
    with both(lambda image: painter.maps()) as opened:
        from_vcdr = opened(flat(90, 90, 90)).glaucoma_vcdr
    network = 2 * threshold - from_vcdr
    assert 0 <= network <= 1
    with both(lambda image: painter.maps(glaucoma=network), classify=lambda image: opinions(0.4)) as opened:
        found = opened(flat(90, 90, 90))
    assert found.glaucoma_probability == pytest.approx(threshold)
    assert found.warnings == (Code.GLAUCOMA_UNCERTAIN,)


def test_without_a_first_opinion_there_is_no_disagreement(both, painter, opinions):
    with both(lambda image: painter.maps(cup=None, glaucoma=0.0), classify=lambda image: opinions(0.99)) as opened:
        found = opened(flat(90, 90, 90))
    assert found.warnings == (Code.CUP_NOT_FOUND,)


# what one of the two cannot use

DARK = {"red": (100, 0, 0), "blue": (0, 0, 255), "violet": (60, 20, 60), "dim": (40, 40, 40)}


@pytest.mark.parametrize("colour", DARK)
def test_a_picture_too_dark_for_the_classifier_alone_keeps_its_measures(both, fake, classifier, colour):
    pixels = flat(*DARK[colour])
    with both() as opened, fake() as first:
        found, measured = opened(pixels), first(pixels)
    assert (found.status, found.warnings) == ("ok", (Code.CLASSIFIER_UNGRADABLE,))
    assert found.classification is None
    row = found.to_dict()
    assert [row[name] for name in OPINIONS] == [None] * len(OPINIONS)
    assert row == measured.to_dict() | {"warnings": ["CLASSIFIER_UNGRADABLE"]}
    with fake(models=[classifier]) as opened:
        alone = opened(pixels)
    assert isinstance(alone, Rejected)
    assert (alone.status, alone.code) == ("ungradable", Code.NO_FIELD_OF_VIEW)
    assert (alone.model, alone.classifier.name) == (None, "channels")


def test_a_picture_just_bright_enough_is_classified(both):
    with both() as opened:
        found = opened(flat(41, 41, 41))
    assert Code.CLASSIFIER_UNGRADABLE not in found.warnings
    assert found.classification.any_dr.probability == pytest.approx(41 / 255)


def test_a_dark_picture_is_rejected_once_and_names_both_models(both):
    with both() as opened:
        found = opened(flat(20, 20, 20))
    assert (found.status, found.code) == ("ungradable", Code.NO_FIELD_OF_VIEW)
    assert (found.model.name, found.classifier.name) == ("multitask", "channels")
    row = found.to_dict()
    assert tuple(row) == COLUMNS
    assert (row["classifier"], row["operating_point"], row["referable_dr"]) == ("channels", None, None)


@pytest.mark.parametrize("name", [*DISEASES, *(f"{disease}_map" for disease in DISEASES)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_opinion_that_is_not_finite_is_no_result(both, opinions, name, value):
    def classify(image):
        outputs = {key: np.array(output) for key, output in opinions().items()}
        outputs[name].flat[-1] = value
        return outputs

    with both(classify=classify) as opened:
        found = opened(flat(90, 90, 90))
    assert isinstance(found, Rejected)
    assert (found.status, found.code) == ("error", Code.MODEL_NONFINITE)


def test_a_measure_that_is_not_finite_is_no_result_beside_a_classifier(both, painter):
    with both(lambda image: painter.maps(glaucoma=np.nan)) as opened:
        found = opened(flat(90, 90, 90))
    assert found.code is Code.MODEL_NONFINITE
    assert (found.model.name, found.classifier.name) == ("multitask", "channels")


def test_without_a_disc_there_is_no_probability_at_all(both, painter):
    with both(lambda image: painter.maps(disc=None)) as opened:
        found = opened(flat(230, 230, 230))
    assert (found.status, found.code) == ("ungradable", Code.DISC_NOT_FOUND)
    row = found.to_dict()
    assert [name for name in COLUMNS if name.endswith("_probability") and row[name] is not None] == []
    assert row["glaucoma"] is row["glaucoma_second"] is row["referable_dr"] is row["any_dr"] is None
    assert (found.model.name, found.classifier.name) == ("multitask", "channels")


# many pictures


@pytest.mark.parametrize("batch", [1, 3, 4, 32])
def test_pictures_of_all_kinds_keep_their_order_and_their_rows(both, painter, fundus, batch):
    kinds = [fundus(seed=k) for k in range(5)]
    kinds += [flat(100, 0, 0), flat(0, 0, 200), flat(0, 0, 0), b"no picture", "absent.jpg"]
    kinds += [flat(200 - 10 * k, 100 + 7 * k, 60, height=150 + 9 * k) for k in range(6)]
    order = np.random.default_rng(3).permutation(len(kinds) * 2) % len(kinds)
    sources = [kinds[k] for k in order]

    def paint(image):
        disc = None if image[128, 128, 0] == 160 else (150, 120, 40, 48)
        return painter.maps(glaucoma=image.mean() / 255, disc=disc)

    with both(paint, max_batch=batch) as opened:
        alone = [opened(source).to_dict() for source in kinds]
        found = [result.to_dict() for result in opened.stream(sources, workers=3)]
    assert found == [alone[k] for k in order]
    assert {row["code"] for row in alone} == {None, "NO_FIELD_OF_VIEW", "UNKNOWN_FORMAT", "NOT_FOUND", "DISC_NOT_FOUND"}
    assert sum("CLASSIFIER_UNGRADABLE" in row["warnings"] for row in alone) == 2
    assert len({row["referable_dr_probability"] for row in alone}) > 8  # neighbours do differ


def test_the_classifier_sees_only_the_pictures_that_it_can_use(both, opinions):
    with both(classify=lambda image: opinions(), max_batch=4) as opened:
        sources = [flat(90, 90, 90), flat(100, 0, 0), flat(100, 0, 0), flat(90, 90, 90)] + [flat(100, 0, 0)] * 4
        assert len(list(opened.stream(sources))) == 8
        assert opened._multitask.runner.batches == [4, 4]
        assert opened._classifier.runner.batches == [2]
