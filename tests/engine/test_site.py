"""A site's own operating points: the file, and what a screener does with it."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from funduscope.engine import models, site
from funduscope.engine.errors import SettingsError
from funduscope.engine.readers.point import EstimatePart, PointPart
from funduscope.engine.screener import Screener, ScreenerSettings
from funduscope.engine.site import SiteDecision
from funduscope.postprocess import scores

RATE = EstimatePart(value=0.9, low=0.8, high=0.95)
NAMES = ("high_sensitivity", "balanced", "high_specificity")


def decision(*thresholds, temperature=1.0, uncertain=0.0):
    points = {
        name: PointPart(threshold=own, uncertain_logit=uncertain, sensitivity=RATE, specificity=RATE)
        for name, own in zip(NAMES if len(thresholds) == 3 else ("balanced",), thresholds, strict=True)
    }
    return SiteDecision(temperature=temperature, sick=30, healthy=40, points=points)


@pytest.fixture
def at_home(classifier):
    return site.made("Clinic 7", {classifier.sha256: {"glaucoma": decision(0.1, 0.2, 0.3, temperature=2.0)}})


@pytest.fixture
def grey(fundus):
    return np.clip(fundus(300, 300, 1) * 1.4, 0, 255).astype(np.uint8)


def test_a_file_comes_back_as_it_was(at_home, tmp_path):
    site.save(at_home, tmp_path / "site.json")
    assert site.load(tmp_path / "site.json") == at_home
    assert str(at_home) == f"Clinic 7 {at_home.sha256[:12]}"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace('"threshold": 0.2', '"threshold": 0.9'), "damaged or changed by hand"),
        (lambda text: text[:-40], "not a file that"),
        (lambda text: "[]", "not a file that"),
        (lambda text: text.replace("funduscope-site/1", "funduscope-site/9"), "not a file that"),
        (lambda text: text.replace("Clinic 7", "Clinic 8"), "damaged or changed by hand"),
    ],
    ids=["changed", "cut", "another", "version", "name"],
)
def test_what_is_not_as_it_was_written_is_refused(at_home, tmp_path, change, told):
    path = tmp_path / "site.json"
    site.save(at_home, path)
    path.write_text(change(path.read_text()))
    with pytest.raises(SettingsError, match=told):
        ScreenerSettings(site=path)


def test_an_absent_file_is_told(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere\.json: No such file"):
        ScreenerSettings(site=tmp_path / "nowhere.json")


@pytest.mark.parametrize("name", ["", "a\x1b[2J", "x" * 61])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(SettingsError, match="1 to 60 characters"):
        site.made(name, {})


def test_points_of_another_model_are_refused(classifier, mapless, at_home):
    with pytest.raises(SettingsError, match=r"of another model than .*mapless"):
        ScreenerSettings([str(mapless.path)], site=at_home).open()


def test_decisions_are_read_as_the_site_has_them_and_rows_name_it(classifier, at_home, grey):
    settings = ScreenerSettings([str(classifier.path)], backend="onnxruntime")
    with settings.open() as plain, replace(settings, site=at_home).open() as ours:
        before, after = plain(grey), ours(grey)
    own, moved = before.decisions["glaucoma_second"], after.decisions["glaucoma_second"]
    assert moved.probability == pytest.approx(scores.tempered(own.probability, 2.0), abs=1e-6)
    assert (own.threshold, moved.threshold) == (0.4, 0.2)
    assert moved.called is (moved.probability >= 0.2)
    assert after.decisions["referable_dr"] == before.decisions["referable_dr"]
    assert before.to_dict()["site"] is None
    assert after.to_dict()["site"] == str(at_home)
    assert ours.contracts[0].decisions["glaucoma"].points.balanced.threshold == 0.2


def test_a_conversion_is_read_as_the_model_that_it_was_made_of(classifier, at_home):
    converted = classifier.contract.model_copy(
        update={"sha256": "c" * 64, "precision": "fp16", "converted_from": classifier.sha256}
    )
    assert at_home.of(replace(classifier, contract=converted)) == at_home.of(classifier)


def test_one_threshold_of_the_multi_task_model_is_moved():
    document = models.load("multitask").contract
    moved = document.at({"glaucoma": decision(0.8).points})
    assert moved.glaucoma_threshold == 0.8
    assert document.at({}) == document


def test_a_rejected_picture_names_it_too_and_the_settings_travel(classifier, at_home):
    settings = pickle.loads(pickle.dumps(ScreenerSettings([str(classifier.path)], site=at_home)))
    with settings.open() as screener:
        assert screener(np.zeros((300, 300, 3), np.uint8)).to_dict()["site"] == str(at_home)


def test_a_picture_whose_probability_is_no_number_is_still_refused(classifier, at_home, grey):
    from funduscope.engine.runners import FakeRunner

    def outputs(images):
        sizes = {own.name: own.shape[1:] for own in classifier.contract.outputs}
        return {name: np.full((len(images), *size), np.nan, np.float32) for name, size in sizes.items()}

    settings = ScreenerSettings([str(classifier.path)], site=at_home)
    with Screener(settings, [classifier], lambda model: ("fake", FakeRunner(outputs, 4))) as screener:
        assert str(screener(grey).code) == "MODEL_NONFINITE"


def test_the_file_holds_nothing_of_pictures_or_machines(at_home, tmp_path):
    site.save(at_home, tmp_path / "site.json")
    assert sorted(json.loads((tmp_path / "site.json").read_text())) == ["format", "models", "name", "sha256"]
