"""Two models, one picture: the multi-task model and the classifier in one screener, each alone, and what they leave out."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest

from funduscope.engine.contract import Model
from funduscope.engine.errors import Code, SettingsError
from funduscope.engine.pictures import photo
from funduscope.engine.readers.quality import SCORES
from funduscope.engine.results import Rejected, Screening, columns
from funduscope.engine.runners import FakeRunner
from funduscope.engine.screener import Screener

pytestmark = pytest.mark.usefixtures("any_colours")

DISEASES = ("glaucoma", "referable_dr", "any_dr")
VERDICTS = ("glaucoma_second", "referable_dr", "any_dr")
COLUMNS = tuple(column.name for column in columns())
OPINIONS = [
    *(f"{column}{part}" for column in VERDICTS for part in ("", "_probability", "_threshold")),
    "operating_point",
]
OF_MODELS = ("model", "model_version", "model_sha256", "backend", "precision")


def flat(red: int, green: int, blue: int, height: int = 192, width: int = 192) -> np.ndarray:
    return np.full((height, width, 3), (red, green, blue), np.uint8)


@pytest.mark.parametrize("pixels", [flat(51, 128, 230), flat(204, 26, 77, height=300)], ids=["square", "wide"])
def test_probabilities_are_what_the_graph_gives(fake, classifier, pixels):
    with fake(models=[classifier]) as opened:
        found = opened(pixels).decisions
    lit = round(96 * 192 / pixels.shape[0]) / 96  # of the square; the rest is black
    for channel, name in enumerate(("referable_dr", "glaucoma_second", "any_dr")):
        assert found[name].probability == pytest.approx(pixels[0, 0, channel] / 255 * lit, abs=1e-6)


@pytest.mark.parametrize("point", [None, "high_sensitivity", "balanced", "high_specificity"])
def test_the_operating_point_is_in_the_row(fake, classifier, point):
    with fake(models=[classifier], point=point) as opened:
        assert opened.point == (point or "balanced")
        found = opened(flat(102, 128, 230))  # .4, .502, .902
    row = found.to_dict()
    assert row["operating_point"] == found.point == opened.point
    for name in VERDICTS:
        own = found.decisions[name]
        assert (row[name], row[f"{name}_threshold"]) == (own.called, own.threshold)
    assert (row["glaucoma_second_probability"], row["referable_dr_probability"]) == (0.501961, 0.4)


# together


def test_both_models_look_at_one_decode(both, fundus, tmp_path, monkeypatch):
    path = tmp_path / "eye.png"
    cv2.imwrite(str(path), fundus()[..., ::-1])
    calls, load = [], photo.load

    def counted(*arguments):
        calls.append(arguments)
        return load(*arguments)

    monkeypatch.setattr(photo, "load", counted)
    with both() as opened:
        found = opened(path)
        assert len(calls) == 1
        assert len(list(opened.stream([path] * 3))) == 3
    assert len(calls) == 4
    assert found.vcdr is not None
    assert set(found.decisions) == {"glaucoma", *VERDICTS}


def test_together_each_model_says_what_it_says_alone(both, fake, model, classifier, fundus):
    with both() as opened, fake() as first, fake(models=[classifier]) as second:
        together, measured, classified = (one(fundus()) for one in (opened, first, second))
    assert together.decisions == measured.decisions | classified.decisions
    assert together.models == measured.models + classified.models
    assert together.point == classified.point
    shared = {"decisions", "models", "point", "warnings", "anatomy", "placement", "photo"}
    for field in dataclasses.fields(Screening):
        if field.name not in shared:
            assert getattr(together, field.name) == getattr(measured, field.name), field.name
    row = together.to_dict()
    assert row["model"] == [model.contract.name, "channels"]
    assert row["model_version"] == [model.contract.version, "7"]
    assert row["model_sha256"] == [model.sha256, classifier.sha256]
    assert row["backend"] == ["fake", "fake"]
    assert row["precision"] == ["fp32", "fp32"]


def test_the_contracts_stand_in_one_order(fake, model, classifier):
    for models in ([model, classifier], [classifier, model]):
        with fake(models=models) as opened:
            assert opened.contracts == (model.contract, classifier.contract)
            assert [own.name for own in opened.models] == [own.name for own in opened.contracts]


def test_the_classifier_alone_measures_nothing(fake, classifier):
    with fake(models=[classifier]) as opened:
        assert opened.contracts == (classifier.contract,)
        found = opened(flat(51, 200, 230, height=200, width=260))
    assert isinstance(found, Screening)
    for name in ("vcdr", "disc", "cup", "fovea", "anatomy", "placement"):
        assert getattr(found, name) is None
    assert set(found.decisions) == set(VERDICTS)
    assert found.scores == {}
    assert found.eyes.eye is None
    assert not found.mask("disc").any()
    assert found.mask("disc").shape == (200, 260)
    assert found.contour("cup").shape == (0, 2)
    row = found.to_dict()
    assert tuple(row) == COLUMNS
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert row["status"] == "ok"
    assert row["model"] == ["channels"]
    assert row["glaucoma"] is row["vcdr"] is row["disc_x"] is row["glaucoma_network"] is None
    assert None not in [row[name] for name in OPINIONS]


def test_the_columns_name_what_only_the_classifier_fills(fake, fundus):  # the list of the tests here is whole
    with fake() as opened:
        row = opened(fundus()).to_dict()
    assert {name for name in COLUMNS if row[name] is None} == {
        *OPINIONS,
        *SCORES,
        "code",
        "reason",
        "patient",
        "sha256",
        "name_bytes",
        "site",
        "second_look",
        "vcdr_first",
    }


# opening and closing


@pytest.mark.parametrize("kind", ["model", "classifier"])
def test_a_second_model_of_a_kind_is_refused_and_the_first_is_freed(request, kind):
    one: Model = request.getfixturevalue(kind)
    pair = [FakeRunner(lambda images: {}), FakeRunner(lambda images: {})]
    words = f"{one.path}: a second model of the kind {one.contract.kind}; open one of each kind at most"
    with pytest.raises(SettingsError) as caught:
        Screener.of([one, one], pair)
    assert str(caught.value) == words
    assert any(runner.closed for runner in pair)


def test_an_operating_point_without_a_classifier_is_refused_and_the_model_is_freed(fake_runner, model):
    runner = fake_runner()
    with pytest.raises(SettingsError, match="operating point balanced: only a classifier has operating points"):
        Screener.of([model], [runner], point="balanced")
    assert runner.closed


def test_an_unknown_operating_point_is_refused_before_the_first_picture(classifier):
    with pytest.raises(SettingsError, match="operating point best: allowed are"):
        Screener.open(classifier.path, threads=1, point="best")


def test_files_are_opened_by_their_paths(classifier, cc0):
    with Screener.open(classifier.path, "multitask", threads=1, point="high_specificity") as opened:
        found = opened(cc0)
    assert [own.name for own in opened.models] == ["multitask", "channels"]
    assert found.models == opened.models
    assert found.point == "high_specificity"


def test_closing_frees_both(fake_runner, model, classifier, opinions):
    pair = [fake_runner(), fake_runner(lambda image: opinions())]
    with Screener.of([model, classifier], pair):
        assert not any(runner.closed for runner in pair)
    assert all(runner.closed for runner in pair)


# glaucoma, twice


def test_models_that_disagree_on_glaucoma_say_so(both, painter, opinions):
    with both(lambda image: painter.maps(), classify=lambda image: opinions(0.9)) as opened:
        found = opened(flat(90, 90, 90))
    assert (found.decisions["glaucoma"].called, found.decisions["glaucoma_second"].called) == (False, True)
    assert found.warnings == (Code.GLAUCOMA_DISAGREEMENT,)
    assert found.to_dict()["warnings"] == ["GLAUCOMA_DISAGREEMENT"]


def test_without_a_first_opinion_there_is_no_disagreement(both, painter, opinions):
    with both(lambda image: painter.maps(cup=None, glaucoma=0.0), classify=lambda image: opinions(0.99)) as opened:
        found = opened(flat(90, 90, 90))
    assert found.warnings == (Code.CUP_NOT_FOUND,)


# what one of the two cannot use

DARK = {"red": (40, 0, 0), "blue": (0, 0, 40), "violet": (40, 20, 40), "dim": (40, 40, 40)}


@pytest.mark.parametrize("colour", DARK)
def test_a_picture_too_dark_for_one_of_two_is_decided_on_by_neither(both, fake, classifier, colour):
    pixels = flat(*DARK[colour])
    with both() as opened, fake() as first, fake(models=[classifier]) as second:
        found, measured, alone = opened(pixels), first(pixels), second(pixels)
    assert (found.status, found.code) == ("ungradable", Code.DARK)
    assert "more flash" in found.reason
    assert [own.name for own in found.models] == ["multitask", "channels"]
    assert measured.status == "ok"
    assert (alone.status, alone.code) == ("ungradable", Code.NO_FIELD_OF_VIEW)


def test_a_picture_just_bright_enough_is_classified(both):
    with both() as opened:
        found = opened(flat(41, 41, 41))
    assert found.decisions["any_dr"].probability == pytest.approx(41 / 255)


def test_a_dark_picture_is_rejected_once_and_names_both_models(both):
    with both() as opened:
        found = opened(flat(20, 20, 20))
    assert (found.status, found.code) == ("ungradable", Code.NO_FIELD_OF_VIEW)
    assert [own.name for own in found.models] == ["multitask", "channels"]
    row = found.to_dict()
    assert tuple(row) == COLUMNS
    assert (row["model"], row["operating_point"], row["referable_dr"]) == (["multitask", "channels"], None, None)


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
    assert [own.name for own in found.models] == ["multitask", "channels"]


def test_without_a_disc_glaucoma_is_open_and_retinopathy_decided(both, painter, opinions):
    with both(lambda image: painter.maps(disc=None), classify=lambda image: opinions(0.99, 0.99, 0.99)) as opened:
        found = opened(flat(230, 230, 230))
    assert (found.status, found.warnings) == ("ok", (Code.DISC_NOT_FOUND,))
    assert [found.decisions[name].called for name in ("glaucoma", *VERDICTS)] == [None, None, True, True]
    row = found.to_dict()
    assert row["glaucoma_probability"] is row["glaucoma_threshold"] is row["vcdr"] is row["disc_x"] is None
    assert row["glaucoma_second_probability"] == pytest.approx(0.99)  # said, and not decided on
    assert str(found).startswith("array: glaucoma open, ")


# many pictures


@pytest.mark.parametrize("batch", [1, 3, 4, 32])
def test_pictures_of_all_kinds_keep_their_order_and_their_rows(both, painter, fundus, batch):
    kinds = [fundus(seed=k) for k in range(5)]
    kinds += [flat(40, 0, 0), flat(0, 0, 40), flat(0, 0, 0), b"no picture", "absent.jpg"]
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
    assert {row["code"] for row in alone} == {None, "NO_FIELD_OF_VIEW", "UNKNOWN_FORMAT", "NOT_FOUND", "DARK"}
    assert sum("DISC_NOT_FOUND" in row["warnings"] for row in alone) == 1
    assert len({row["referable_dr_probability"] for row in alone}) > 8  # neighbours do differ


def test_no_model_sees_a_picture_that_another_cannot_use(fake_runner, model, classifier, opinions):
    first, second = fake_runner(), fake_runner(lambda image: opinions())
    with Screener.of([model, classifier], [first, second]) as opened:
        sources = [flat(90, 90, 90), flat(40, 0, 0), flat(40, 0, 0), flat(90, 90, 90)] + [flat(40, 0, 0)] * 4
        assert len(list(opened.stream(sources))) == 8
    assert first.batches == second.batches == [2]
