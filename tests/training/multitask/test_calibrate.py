import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from funduscope.engine.errors import DataError
from funduscope.engine.labelled import dataset
from funduscope.engine.labelled.sample import Masks, Sample
from funduscope.engine.pictures.preprocess import Geometry
from funduscope.postprocess import anatomy, scores
from funduscope.postprocess.anatomy import Rules
from funduscope.training import train
from funduscope.training.calibrate import calibrate as calibrate_run
from funduscope.training.cases import Case, prepare
from funduscope.training.multitask import calibrate, job, validation
from funduscope.training.multitask.networks import MultiTaskUNet

RULES = Rules(0.5, 0.5, "robust", 0.1, 1.0, 0.0)
SIZE = 64


def sample(glaucoma, set_name="eyes"):
    return Sample(None, set_name, "val", glaucoma=glaucoma)


def circle(radius):
    axis = np.arange(SIZE) - 32
    return axis[None, :] ** 2 + axis[:, None] ** 2 <= radius**2


def case(cup_radius=10, disc_radius=20, glaucoma=0):
    masks = Masks(circle(disc_radius), circle(cup_radius) if cup_radius else None)
    return Case(sample(glaucoma), None, masks, None, SIZE)


def rings(inner, outer, strong, weak):
    """A map that is `strong` within a radius, and `weak` from there to the outer one."""
    return np.where(circle(inner), strong, np.where(circle(outer), weak, 0)).astype(np.float32)


def maps(disc, cup):
    return {"disc": disc, "cup": cup, "fovea": np.zeros((SIZE, SIZE), np.float32), "glaucoma": np.float32(0.5)}


@pytest.mark.parametrize(("strong", "weak", "expected"), [(0.52, 0.42, 0.45), (0.62, 0.52, 0.55), (0.42, 0.32, 0.35)])
def test_thresholds_are_where_the_drawn_masks_are(strong, weak, expected):
    own = maps(rings(20, 26, strong, weak), rings(10, 14, strong, weak))
    found = calibrate.best_thresholds([case()], [own], RULES)
    assert found.disc_threshold == pytest.approx(expected, abs=0.051)
    assert found.cup_threshold == pytest.approx(expected, abs=0.051)


def test_the_two_thresholds_are_chosen_apart():
    own = maps(rings(20, 26, 0.42, 0.32), rings(10, 14, 0.68, 0.58))
    found = calibrate.best_thresholds([case()], [own], RULES)
    assert found.disc_threshold < 0.45 < 0.55 < found.cup_threshold


def test_pictures_without_masks_do_not_disturb_the_thresholds():
    own = maps(rings(20, 26, 0.52, 0.42), rings(10, 14, 0.52, 0.42))
    bare = Case(sample(1), None, None, None, SIZE)
    alone = calibrate.best_thresholds([case()], [own], RULES)
    assert calibrate.best_thresholds([bare, case()], [maps(own["cup"], own["cup"]), own], RULES) == alone


def test_thresholds_need_drawn_cups():
    own = maps(rings(20, 26, 0.5, 0.4), rings(10, 14, 0.5, 0.4))
    with pytest.raises(DataError, match="no drawn cups"):
        calibrate.best_thresholds([case(cup_radius=0)], [own], RULES)


def test_every_set_and_class_weighs_the_same():
    samples = [sample(0)] * 60 + [sample(1)] * 20 + [sample(1, "other")] * 30 + [sample(0, "other")] * 2
    weights = calibrate._weights(samples)
    assert weights.mean() == pytest.approx(1)
    sums = np.array([weights[:60].sum(), weights[60:80].sum(), weights[80:110].sum(), weights[110:].sum()])
    assert sums / sums[0] == pytest.approx([1, 1, 1, 0.1])  # two pictures do not weigh like sixty


def pairs_of(vcdrs, labels):
    return [(vcdr, sample(label)) for vcdr, label in zip(vcdrs, labels, strict=True)]


@pytest.fixture
def measured():
    rng = np.random.default_rng(0)
    labels = (rng.random(200) < 0.3).astype(int)
    return np.clip(0.45 + 0.2 * labels + rng.normal(0, 0.12, 200), 0.05, 0.95), labels


def test_the_regression_solves_its_own_equations(measured):
    vcdrs, labels = measured
    coefficient, intercept = calibrate.fit_logistic(pairs_of(vcdrs, labels))
    weights = np.where(labels == 1, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    wrong = weights * (1 / (1 + np.exp(-(coefficient * vcdrs + intercept))) - labels)
    assert wrong.sum() == pytest.approx(0, abs=0.05)
    assert wrong @ vcdrs + coefficient / 1e3 == pytest.approx(0, abs=0.05)
    assert coefficient > 3


def test_the_regression_is_scikit_learns_with_equal_classes(measured):
    vcdrs, labels = measured
    reference = LogisticRegression(C=1e3, class_weight="balanced").fit(vcdrs[:, None], labels)
    expected = (reference.coef_[0, 0], reference.intercept_[0])
    assert calibrate.fit_logistic(pairs_of(vcdrs, labels)) == pytest.approx(expected, rel=1e-3)
    unbalanced = LogisticRegression(C=1e3).fit(vcdrs[:, None], labels)
    assert unbalanced.intercept_[0] != pytest.approx(expected[1], rel=1e-2)


@pytest.mark.parametrize("label", [0, 1])
def test_the_regression_needs_both_classes(label):
    with pytest.raises(DataError, match="with and without glaucoma"):
        calibrate.fit_logistic(pairs_of([0.3, 0.6], [label, label]))


def seen(images):
    """The maps of a network that reads disc, cup and fovea off the brightness of the drawn eyes."""
    for image in images:
        green = image[..., 1].astype(np.float32)
        disc, cup = np.clip((green - 75) / 80, 0, 1), np.clip((green - 165) / 80, 0, 1)
        yield {"disc": disc, "cup": cup, "fovea": np.zeros_like(disc), "glaucoma": np.float32(cup.mean())}


@pytest.fixture
def run(tmp_path, plan, build, drawn_root, monkeypatch):
    """A finished run whose network is replaced by `seen`."""
    folder = tmp_path / "run"
    folder.mkdir()
    plan["data"]["root"] = str(drawn_root)
    network = MultiTaskUNet(0.125, 0.5)
    state = {"config": build(plan).model_dump_json(), "step": 4, "device": "CPU", "network": network.state_dict()}
    train.save(state, folder / "best.pt")
    monkeypatch.setattr(validation, "predict", lambda _network, images, _device: seen(images))
    return folder


def test_a_run_is_calibrated(run):
    result = calibrate_run(run)
    assert result == json.loads((run / "calibration.json").read_text())
    rules = Rules(**result["rules"])
    assert 0.3 <= rules.disc_threshold <= 0.7
    assert rules.vcdr_coefficient > 0
    assert 0 < result["glaucoma_threshold"] < 1
    assert result["fit_on"] == "predicted"
    assert result["training"]["steps"] == 4
    assert result["training"]["data"] == [{"name": "eyes", "pictures": 6, "terms": "drawn for tests"}]
    assert result["training"]["figures"]["eyes"]["disc_dice"] > 0.9


def test_the_threshold_parts_the_drawn_eyes(run, drawn_root):
    result = calibrate_run(run)
    rules, threshold = Rules(**result["rules"]), result["glaucoma_threshold"]
    for k, maps_of in enumerate(seen([c.prepared.image for c in cases_of(drawn_root)])):
        assert (anatomy.measure(maps_of, rules).glaucoma >= threshold) == k % 2


def cases_of(root):
    samples = [s for s in dataset.load(root / "eyes") if s.split == "val"]
    return [prepare(sample, Geometry(64, 24)) for sample in samples]


def test_the_regression_is_fitted_on_what_ships_or_as_the_paper_does(run, drawn_root):
    cases = cases_of(drawn_root)
    found = {}
    for way in ("predicted", "paper"):
        rules = Rules(**calibrate_run(run, fit_on=way)["rules"])
        outputs = seen([case.prepared.image for case in cases])
        measured = [anatomy.measure(maps_of, rules).vcdr for maps_of in outputs]
        vcdrs = measured if way == "predicted" else [validation.true_vcdr(case.masks) for case in cases]
        expected = calibrate.fit_logistic([(v, c.sample) for v, c in zip(vcdrs, cases, strict=True)])
        found[way] = (rules.vcdr_coefficient, rules.vcdr_intercept)
        assert found[way] == pytest.approx(expected)
    assert found["predicted"] != found["paper"]


def test_calibration_can_take_its_data_from_elsewhere(run, drawn_root, tmp_path):
    expected = calibrate_run(run)
    moved = drawn_root.rename(tmp_path / "moved")
    assert calibrate_run(run, data_root=moved) == expected


def test_the_rules_before_calibration_are_plain(plan, build):
    rules = job.uncalibrated(build(plan).reading)
    assert (rules.disc_threshold, rules.cup_threshold) == (0.5, 0.5)
    assert scores.logistic(0.5, rules.vcdr_coefficient, rules.vcdr_intercept) == pytest.approx(0.6224593)
    assert (rules.fovea_mode, rules.fovea_min_peak) == ("robust", 0.1)


def test_a_validation_split_of_one_class_is_refused(run, edit_rows):
    def healthy(rows):
        for row in rows[6:]:
            row["glaucoma"] = 0

    edit_rows(healthy)
    with pytest.raises(DataError, match="the task glaucoma of both classes"):
        calibrate_run(run)
    assert not (run / "calibration.json").exists()
