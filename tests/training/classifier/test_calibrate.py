import json

import cv2
import numpy as np
import pytest
import torch

from funduscope.engine import contract
from funduscope.engine.errors import DataError, SettingsError
from funduscope.engine.readers.classifier import DecisionPart
from funduscope.postprocess import metrics, scores
from funduscope.training import train
from funduscope.training.balance import equal_weights
from funduscope.training.calibrate import calibrate as calibrate_run
from funduscope.training.classifier import batches, calibrate, config, job, validation
from funduscope.training.classifier.networks import OUTPUTS
from funduscope.training.config import load

READING = config.Reading(sensitivity=0.9, specificity=0.95, uncertain_share=0.1, disagreement=0.5, point="balanced")


def synthetic(temperature, count=4000, seed=0):
    """Logits that are `temperature` times too large, and labels that were drawn by the right ones."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-0.5, 2, count)
    return temperature * z, (rng.random(count) < 1 / (1 + np.exp(-z))).astype(np.int64)


def decide(temperature=3.0, weights=None, peaks=None, reading=READING, **options):
    logits, truth = synthetic(temperature, **options)
    return calibrate.decision(logits, truth, np.ones(len(truth)) if weights is None else weights, peaks, reading)


def probabilities(found, temperature=3.0):
    logits, truth = synthetic(temperature)
    return 1 / (1 + np.exp(-logits / found["temperature"])), truth


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_a_known_temperature_is_found_again(temperature):
    logits, truth = synthetic(temperature, 40_000)
    found = metrics.best_temperature(logits, truth, np.ones(len(truth)))
    assert found == pytest.approx(temperature, rel=0.03)


def test_a_weight_is_as_good_as_that_many_pictures():
    logits, truth = synthetic(2.0, 300)
    times = np.where(truth == 1, 3, 1)
    found = metrics.best_temperature(logits, truth, times.astype(float))
    repeated = metrics.best_temperature(np.repeat(logits, times), np.repeat(truth, times), np.ones(times.sum()))
    assert found == pytest.approx(repeated, abs=1e-3)
    assert found != pytest.approx(metrics.best_temperature(logits, truth, np.ones(300)), abs=1e-2)


@pytest.mark.parametrize(("logits", "expected"), [([-5.0, 5.0], 0.25), ([5.0, -5.0], 20.0)])
def test_a_temperature_stays_in_its_bounds(logits, expected):
    found = metrics.best_temperature(np.array(logits * 30), np.array([0, 1] * 30), np.ones(60))
    assert found == pytest.approx(expected, rel=0.01)


def test_the_operating_points_reach_what_was_asked_for_and_no_more():
    found, _ = decide()
    p, truth = probabilities(found)
    points = found["points"]
    sensitive = metrics.Counts.at(points["high_sensitivity"]["threshold"], p, truth)
    specific = metrics.Counts.at(points["high_specificity"]["threshold"], p, truth)
    assert 0.9 <= sensitive.sensitivity < 0.9 + 2 / truth.sum()
    assert 0.95 <= specific.specificity < 0.95 + 2 / (truth == 0).sum()
    assert (
        points["high_sensitivity"]["threshold"]
        < points["balanced"]["threshold"]
        < points["high_specificity"]["threshold"]
    )


def test_the_points_stay_in_order_where_the_classes_lie_far_apart():
    rng = np.random.default_rng(1)
    truth = (np.arange(400) % 4 == 0).astype(np.int64)
    logits = np.where(truth == 1, rng.normal(3, 1, 400), rng.normal(-3, 1, 400))
    points = calibrate.decision(logits, truth, np.ones(400), None, READING)[0]["points"]
    sensitive, balanced, specific = (points[n] for n in ("high_sensitivity", "balanced", "high_specificity"))
    assert sensitive["threshold"] <= balanced["threshold"] <= specific["threshold"]
    assert sensitive["sensitivity"]["value"] >= balanced["sensitivity"]["value"] > READING.sensitivity


def test_the_rates_of_a_point_are_those_at_its_threshold_with_their_intervals():
    found, _ = decide()
    p, truth = probabilities(found)
    for point in found["points"].values():
        counts = metrics.Counts.at(point["threshold"], p, truth)
        for rate in ("sensitivity", "specificity"):
            assert point[rate]["value"] == getattr(counts, rate)
            assert 0 < point[rate]["low"] < point[rate]["value"] < point[rate]["high"] < 1


def test_the_balanced_point_is_youdens():
    found, _ = decide()
    p, truth = probabilities(found)
    best = metrics.Counts.at(metrics.threshold_of_youden(p, truth), p, truth)
    assert metrics.Counts.at(found["points"]["balanced"]["threshold"], p, truth) == best


def test_weights_move_temperature_and_points():
    _, truth = synthetic(3.0)
    plain, _ = decide()
    weighted, _ = decide(weights=np.where((np.arange(len(truth)) % 2 == 0) & (truth == 1), 9.0, 1.0))
    assert weighted["temperature"] != plain["temperature"]
    assert weighted["points"]["balanced"]["threshold"] != plain["points"]["balanced"]["threshold"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
def test_the_asked_share_of_the_pictures_is_uncertain_at_each_point(share):
    found, _ = decide(reading=READING.model_copy(update={"uncertain_share": share}))
    p, _ = probabilities(found)
    for point in found["points"].values():
        answers = [scores.decide(float(own), point["threshold"], point["uncertain_logit"]) for own in p]
        assert answers.count(None) / len(answers) == pytest.approx(share, abs=1e-3)


def test_temperature_scaling_lowers_the_calibration_error():
    _, report = decide()
    assert report["calibration_error_before"] > 0.1
    assert report["calibration_error"] < 0.03


def test_a_decision_is_one_of_the_contracts():
    for peaks in (None, np.linspace(-1, 8, 4000)):
        found, _ = decide(peaks=peaks)
        document = DecisionPart(**json.loads(json.dumps(found)))
        assert document.model_dump() == found
        assert (document.map_scale is None) == (peaks is None)


def test_full_heat_is_what_every_other_sick_picture_reaches():
    _, truth = synthetic(3.0)
    peaks = np.where(truth == 1, np.linspace(0, 10, len(truth)), 99.0)
    found, _ = decide(peaks=peaks)
    below = (peaks[truth == 1] / found["temperature"] < found["map_scale"]).mean()
    assert below == pytest.approx(0.5, abs=1e-3)
    assert decide(peaks=np.full(len(truth), -3.0))[0]["map_scale"] == 0.1


def test_perfectly_separated_classes_do_not_leave_every_picture_uncertain():
    rng = np.random.default_rng(0)
    truth = np.arange(80) % 2
    logits = rng.normal(np.where(truth == 1, 5.0, -5.0), 1)
    found, _ = calibrate.decision(logits, truth, np.ones(80), None, READING)
    p = 1 / (1 + np.exp(-(logits / found["temperature"]).astype(np.float32)))
    point = found["points"]["balanced"]
    answers = [scores.decide(float(own), point["threshold"], point["uncertain_logit"]) for own in p]
    assert answers.count(None) <= 0.2 * len(answers)


@pytest.fixture
def finished(plan, build, graded_root, tmp_path):
    """Makes a run's folder with a checkpoint of some steps."""

    def make(steps=12, **network):
        plan["data"]["root"] = str(graded_root)
        config_ = build(plan | {"network": plan["network"] | network})
        torch.manual_seed(0)
        own = job.ClassifierJob(config_, graded_root)
        own.start(torch.device("cpu"), None)
        for batch in own.stream(0, steps):
            own.step(batch, 3e-3)
        folder = tmp_path / "run"
        folder.mkdir()
        state = {
            "config": config_.model_dump_json(),
            "step": steps,
            "device": "CPU",
            "network": own.network.state_dict(),
        }
        train.save(state, folder / "best.pt")
        return folder

    return make


def test_a_run_is_calibrated(finished):
    run = finished()
    result = calibrate_run(run)
    assert result == json.loads((run / "calibration.json").read_text())
    decisions = {name: DecisionPart(**values) for name, values in result["decisions"].items()}
    assert result["report"].keys() == result["decisions"].keys() == set(OUTPUTS)
    assert all(decisions[name].map_scale >= 0.1 for name in OUTPUTS)
    training = contract.TrainingPart(**result["training"])
    assert (training.steps, training.device) == (12, "CPU")
    assert training.network == "small-cnn, global average pooling, grey 64 px"
    assert training.strategy == "exp-uwbce, uniform sampling, unhealthy augmented"
    assert [(own.name, own.pictures, own.terms) for own in training.data] == [
        ("eyes", 16, "drawn for tests"),
        ("grades", 16, "drawn, too"),
    ]


def test_a_run_learned_from_the_pictures_that_could_be_prepared(finished, graded_root):
    run = finished(steps=1)
    expected = calibrate_run(run)
    assert cv2.imwrite(str(graded_root / "eyes" / "images" / "eye0.jpg"), np.zeros((160, 160, 3), np.uint8))
    result = calibrate_run(run)
    assert [own["pictures"] for own in result["training"]["data"]] == [15, 16]
    assert result["decisions"] == expected["decisions"]


def held_logits(run, root):
    settings, state = train.load_checkpoint(run / "best.pt")
    pairs = [pair for pair in job.load_samples(settings, root) if pair[0].split == "val"]
    held = batches.prepare_all(pairs, settings.preparation(64).build(), 1)
    network = job.from_checkpoint(settings, state["network"])
    return held, validation.predict(network, held, torch.device("cpu"))


def test_the_figures_are_those_at_the_balanced_thresholds(finished, graded_root):
    run = finished()
    result = calibrate_run(run)
    held, logits = held_logits(run, graded_root)
    figures = result["training"]["figures"]
    assert set(figures) == {"eyes", "grades", "all"}
    for target in OUTPUTS:
        own = result["decisions"][target]
        has, truth = validation.known([picture.sample for picture in held], target)
        p = 1 / (1 + np.exp(-logits[target][has] / own["temperature"]))
        counts = metrics.Counts.at(own["points"]["balanced"]["threshold"], p, truth)
        assert figures["all"][f"{target}_recall"] == counts.sensitivity
        assert figures["all"][f"{target}_precision"] == counts.precision
        assert figures["all"][f"{target}_auc"] == pytest.approx(metrics.auc(p, truth).value)
    assert "glaucoma_auc" not in figures["grades"]


def test_each_set_and_class_weighs_the_same(finished, monkeypatch):
    seen = []
    monkeypatch.setattr(calibrate, "equal_weights", lambda groups: seen.append(groups) or np.ones(len(groups)))
    calibrate_run(finished(steps=2))
    assert [len(groups) for groups in seen] == [8, 16, 16]
    assert set(seen[0]) == {("eyes", 0), ("eyes", 1)}
    assert set(seen[1]) == set(seen[2]) == {(name, label) for name in ("eyes", "grades") for label in (0, 1)}


def test_calibration_can_take_its_data_from_elsewhere(finished, graded_root, tmp_path):
    run = finished(steps=2)
    expected = calibrate_run(run)
    moved = graded_root.rename(tmp_path / "moved")
    assert calibrate_run(run, data_root=moved) == expected


def test_the_operating_points_can_aim_elsewhere_without_training(finished, plan, write_config):
    run = finished()
    before = calibrate_run(run)
    reading = {"uncertain_share": 0.8, "point": "high_sensitivity", "disagreement": 0.25}
    other = write_config(plan | {"reading": plan["reading"] | reading})
    after = calibrate_run(run, reading=other)
    assert after == json.loads((run / "calibration.json").read_text())
    assert (after["point"], after["disagreement"]) == ("high_sensitivity", 0.25)
    assert (before["point"], before["disagreement"]) == (plan["reading"]["point"], plan["reading"]["disagreement"])
    points = [result["decisions"]["referable_dr"]["points"]["balanced"] for result in (before, after)]
    assert points[0]["uncertain_logit"] < points[1]["uncertain_logit"]
    assert after["training"] | {"figures": 0} == before["training"] | {"figures": 0}


def test_what_is_asked_of_the_other_system_is_refused(finished, root):
    run = finished(steps=1)
    with pytest.raises(SettingsError, match="a classifier measures no masks"):
        calibrate_run(run, fit_on="paper")
    with pytest.raises(SettingsError, match="its kind is multi-task, the run's is classifier"):
        calibrate_run(run, reading=root / "training" / "configs" / "multitask-compact.toml")
    assert not (run / "calibration.json").exists()


def test_a_network_without_maps_has_no_heat_to_scale(finished):
    result = calibrate_run(finished(steps=1, architecture="alexnet", hidden=8))
    assert {own["map_scale"] for own in result["decisions"].values()} == {None}
    assert result["training"]["network"] == "alexnet, dense layers of 8, grey 64 px"


def test_the_peaks_are_the_highest_cells_of_each_map(finished, graded_root):
    run = finished(steps=1)
    held, _ = held_logits(run, graded_root)
    settings, state = train.load_checkpoint(run / "best.pt")
    network = job.from_checkpoint(settings, state["network"]).eval()
    peaks = calibrate.map_peaks(network, held)
    assert peaks.shape == (16, 3)
    with torch.no_grad():
        maps = network.network.seen(network.pixels(torch.from_numpy(held[5].image[None]))).maps
    assert peaks[5] == pytest.approx(maps[0].flatten(1).max(dim=1).values.numpy())


def test_full_heat_of_each_output_is_taken_from_its_own_map(finished, graded_root):
    run = finished()
    decisions = calibrate_run(run)["decisions"]
    held, _ = held_logits(run, graded_root)
    settings, state = train.load_checkpoint(run / "best.pt")
    peaks = calibrate.map_peaks(job.from_checkpoint(settings, state["network"]).eval(), held)
    samples = [picture.sample for picture in held]
    for k, target in enumerate(OUTPUTS):
        has, truth = validation.known(samples, target)
        groups = [(s.set_name, y) for s in samples if (y := s.diseased(target)) is not None]
        own = peaks[has, k] / decisions[target]["temperature"]
        median = metrics.threshold_of_sensitivity(own, truth, 0.5, equal_weights(groups))
        assert decisions[target]["map_scale"] == pytest.approx(max(0.1, median))


def test_a_validation_split_of_one_class_is_refused(finished, edit_graded):
    run = finished(steps=1)
    edit_graded(lambda rows: [row.update(glaucoma=0) for row in rows if row["split"] == "val"])
    with pytest.raises(DataError, match="the split val needs pictures with and without glaucoma"):
        calibrate_run(run)
    assert not (run / "calibration.json").exists()


def test_a_validation_split_whose_sick_pictures_are_too_dark_is_refused(finished, graded_root):
    run = finished(steps=1)
    for k in (17, 19, 21, 23):
        assert cv2.imwrite(str(graded_root / "eyes" / "images" / f"eye{k}.jpg"), np.zeros((160, 160, 3), np.uint8))
    with pytest.raises(DataError):
        calibrate_run(run)


def test_the_shipped_configuration_asks_for_what_calibration_can_give(root):
    reading = load(root / "training" / "configs" / "classifier-source.toml").reading
    found, _ = decide(reading=reading)
    assert DecisionPart(**found).points.high_sensitivity.sensitivity.value >= reading.sensitivity
