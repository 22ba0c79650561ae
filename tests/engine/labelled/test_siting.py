"""Operating points fitted to a site's labelled pictures."""

from __future__ import annotations

import csv
import dataclasses

import cv2
import numpy as np
import pytest

from funduscope.engine import models, site
from funduscope.engine.errors import DataError, SettingsError
from funduscope.engine.labelled import dataset, siting
from funduscope.engine.readers.point import OperatingPoint
from funduscope.engine.screener import ScreenerSettings
from funduscope.postprocess import metrics, scores

POINTS = [
    OperatingPoint(own, name, 0.1)
    for own, name in ((0.3, "high_sensitivity"), (0.5, "balanced"), (0.7, "high_specificity"))
]


def drawn(count, shift, seed=0):
    """Logits and labels of a site whose logits are moved by `shift` and twice as large as they should be."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    return 2 * (rng.normal(3 * labels - 1.5, 1.0)) + shift, labels.astype(float)


def test_many_pictures_move_the_balanced_point_to_where_the_site_has_it():
    logits, labels = drawn(5000, shift=2.0)
    found = siting.decision(logits, labels, POINTS)
    z, cut = logits / found.temperature, scores.logit(found.points["balanced"].threshold)
    assert cut * found.temperature == pytest.approx(2.0, abs=0.6)
    best = metrics.Counts.at(metrics.threshold_of_youden(z, labels), z, labels)
    own = metrics.Counts.at(cut, z, labels)
    assert own.sensitivity + own.specificity == pytest.approx(best.sensitivity + best.specificity, abs=0.01)
    assert found.points["high_sensitivity"].sensitivity.value == pytest.approx(0.95, abs=0.01)
    assert found.points["high_specificity"].specificity.value == pytest.approx(0.95, abs=0.01)


def test_few_pictures_move_it_a_part_of_the_way():
    logits, labels = drawn(50, shift=2.0)
    found = siting.decision(logits, labels, POINTS)
    whole = metrics.threshold_of_youden(logits / found.temperature, labels)
    assert scores.logit(found.points["balanced"].threshold) == pytest.approx(whole * 2 / 3, abs=1e-6)


def test_points_stay_in_order_where_classes_lie_far_apart():
    labels = np.repeat([0.0, 1.0], 100)
    found = siting.decision(np.where(labels > 0, 4.0, -4.0), labels, POINTS)
    cuts = [found.points[name].threshold for name in ("high_sensitivity", "balanced", "high_specificity")]
    assert cuts == sorted(cuts)


def test_a_single_threshold_has_no_temperature():
    logits, labels = drawn(500, shift=1.0)
    found = siting.decision(logits, labels, [OperatingPoint(0.5)])
    assert found.temperature == 1.0
    assert list(found.points) == ["balanced"]
    assert found.points["balanced"].uncertain_logit == 0


def test_the_band_of_doubt_holds_the_same_pictures():
    logits, labels = drawn(500, shift=0.0)
    found = siting.decision(logits, labels, POINTS)
    assert found.points["balanced"].uncertain_logit == pytest.approx(0.1 / found.temperature)


@pytest.fixture
def table(tmp_path, fundus):
    """Sixty pictures beside a table without splits; the redder half is sick."""
    rows = []
    for k in range(60):
        picture = np.clip(fundus(200, 200, k) * np.array([0.5 + k / 60, 0.9, 0.9]), 0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{k}.png"), picture[..., ::-1])
        rows.append([f"{k}.png", 0 if k < 30 else 3, k % 7 == 0 or ""])
    with (tmp_path / "clinic.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "dr_grade", "glaucoma"], *rows])
    return tmp_path / "clinic.csv"


def test_the_command_writes_what_screening_takes(table, classifier, call, tmp_path):
    out = tmp_path / "site.json"
    told = call("calibrate", "--site", table, "--model", classifier.path, "--out", out)
    assert told.returncode == 0, told.stderr
    assert (
        "second opinion: 9 sick, 0 healthy; 50 pictures, 10 of them sick and 10 healthy, are needed; as it was"
        in told.stderr
    )
    found = site.load(out)
    assert found.name == "clinic"
    assert sorted(found.models[classifier.sha256]) == ["any_dr", "referable_dr"]
    screened = call(
        "screen",
        tmp_path / "3.png",
        tmp_path / "57.png",
        "--model",
        classifier.path,
        "--site",
        out,
        "--out",
        tmp_path / "run",
    )
    assert screened.returncode == 0, screened.stderr
    with (tmp_path / "run" / "screenings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["site"] for row in rows] == [str(found)] * 2
    threshold = found.models[classifier.sha256]["referable_dr"].points["balanced"].threshold
    assert {float(row["referable_dr_threshold"]) for row in rows} == {round(threshold, 6)}


def test_a_run_is_not_gone_on_with_under_another_site(table, classifier, call, tmp_path):
    pictures, run = [tmp_path / "3.png", tmp_path / "57.png"], tmp_path / "run"
    assert call("screen", *pictures, "--model", classifier.path, "--out", run).returncode == 0
    assert (
        call("calibrate", "--site", table, "--model", classifier.path, "--out", tmp_path / "site.json").returncode == 0
    )
    again = call(
        "screen", *pictures, "--model", classifier.path, "--site", tmp_path / "site.json", "--out", run, "--resume"
    )
    assert again.returncode != 0
    assert "begun otherwise" in again.stderr


def test_pictures_of_the_test_split_are_left_out(table, classifier):
    samples = dataset.load(table)  # split 60/20/20
    with pytest.raises(DataError, match="no disease has labelled pictures enough"):
        siting.fit(ScreenerSettings([str(classifier.path)]), samples, "clinic")


def test_a_run_or_a_site_is_calibrated_and_not_both(call, table):
    for given in ([], ["run", "--site", table]):
        told = call("calibrate", *given)
        assert told.returncode != 0
        assert "give the one or the other" in " ".join(told.stderr.split())


def test_the_last_look_is_the_one_whose_threshold_is_fitted(table):
    samples = [
        dataclasses.replace(sample, glaucoma=k % 2, dr_grade=None)
        for k, sample in enumerate(dataset.load(table, unsplit="val"))
    ]
    multitask, disc = (models.load(name) for name in ("multitask", "disc"))
    both = siting.fit(ScreenerSettings(["multitask", "disc"], backend="onnxruntime", threads=1), samples, "clinic")
    assert both.name == "clinic"
    moved = both.models[disc.sha256]["glaucoma"].points["balanced"].threshold
    with ScreenerSettings(["multitask", "disc"], backend="onnxruntime", threads=1, site=both).open() as screener:
        results = [screener(sample.image) for sample in samples[:6]]
    assert {own.decisions["glaucoma"].threshold for own in results if own.second_look} == {moved}
    alone = siting.fit(ScreenerSettings(["multitask"], backend="onnxruntime", threads=1), samples, "clinic")
    assert alone.models[multitask.sha256].keys() == {"glaucoma"}
    assert both.models[multitask.sha256] == alone.models[multitask.sha256]  # for pictures without a second look


def test_fifty_pictures_that_happen_to_separate_do_not_make_the_model_sure_of_itself():
    """The model is right as it is; the site's pictures would have its logits times four."""
    logits = np.repeat([-1.0, 1.0], 25)
    found = siting.decision(logits, (logits > 0).astype(float), POINTS)
    assert 0.35 < found.temperature < 0.45


def test_a_name_that_is_none_is_refused_before_the_work(monkeypatch, table):
    monkeypatch.setattr(siting, "_opinions", None)
    with pytest.raises(SettingsError, match="a name has 1 to 60 characters"):
        siting.fit(ScreenerSettings(["multitask"]), dataset.load(table, unsplit="val"), "n" * 61)
