import dataclasses
import math

import numpy as np
import pytest

from funduscope.export import gate
from funduscope.postprocess import findings
from funduscope.postprocess.findings import Rules

SIZE = 64
RULES = Rules(0.5, 0.5, "robust", 0.2, 10.0, -5.0)
THRESHOLD = 0.5
LOOSE = gate.Bounds(
    probability=1, vcdr_mean=1, height_px=SIZE, dice=0, flip_margin=0.005, map_probability=1, fovea_px=SIZE
)


def round_map(x, y, radius):
    """A soft-edged disc, float32 (SIZE, SIZE) in [0, 1]."""
    axis = np.arange(SIZE)
    distance = np.hypot(axis[None, :] - x, axis[:, None] - y)
    return np.clip((radius - distance) / 4 + 0.5, 0, 1).astype(np.float32)


def reference(images):
    """A network that sees a disc, a cup and a fovea in every picture; the score is the picture's first byte / 255."""
    count = len(images)
    return {
        "disc": np.stack([round_map(25, 30, 14)] * count),
        "cup": np.stack([round_map(25, 30, 7)] * count),
        "fovea": np.stack([round_map(45, 32, 4)] * count),
        "glaucoma": images[:, 0, 0, 0].astype(np.float32) / 255,
    }


def images(*scores):
    made = np.zeros((len(scores), SIZE, SIZE, 3), np.uint8)
    made[:, 0, 0, 0] = scores
    return made


EYES = images(40, 130, 220)


def damaged(change):
    """The reference with its outputs changed: change(outputs, images)."""

    def candidate(pictures):
        outputs = reference(pictures)
        change(outputs, pictures)
        return outputs

    return candidate


def report(candidate, pictures=EYES, bounds=gate.FP32, batch=8, threshold=THRESHOLD):
    return gate.compare(reference, candidate, pictures, RULES, threshold, bounds, batch)


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_the_same_network_passes(batch):
    found = report(reference, batch=batch)
    assert found == gate.Report(3, 0, 0, 0, 0, 1, 0, 0, 0, 0)
    assert found.passes(gate.FP32)


def add(name, value):
    def change(outputs, _):
        outputs[name] = outputs[name] + np.float32(value)

    return change


def roll(*names, pixels=2, axis=2):
    def change(outputs, _):
        for name in names:
            outputs[name] = np.roll(outputs[name], pixels, axis=axis)

    return change


def noise(name, strength):
    def change(outputs, _):
        jitter = np.random.default_rng(0).uniform(-strength, strength, outputs[name].shape)
        outputs[name] = np.clip(outputs[name] + jitter.astype(np.float32), 0, 1)

    return change


def put(name, value):
    def change(outputs, _):
        outputs[name][1] = value

    return change


def test_differences_within_the_tolerance_pass():
    for change in (add("glaucoma", 5e-6), noise("disc", 1e-6), noise("cup", 1e-6), noise("fovea", 1e-6)):
        found = report(damaged(change))
        assert found.passes(gate.FP32)
        assert max(found.probability, found.map_probability) > 0


@pytest.mark.parametrize(
    ("change", "figure"),
    [
        (add("glaucoma", 2e-5), "probability"),
        (noise("disc", 0.4), "dice"),
        (noise("cup", 0.4), "dice"),
        (roll("disc", "cup"), "dice"),
        (roll("cup"), "dice"),
        (put("disc", round_map(25, 30, 16)), "height_px"),
        (put("cup", round_map(25, 30, 9)), "vcdr_mean"),
        (roll("disc", "cup", pixels=30), "dice"),
        (roll("fovea", pixels=5), "fovea_px"),
        (put("fovea", round_map(45, 32, 5)), "map_probability"),
        (put("disc", 0), "unlike"),
        (put("cup", 0), "unlike"),
        (put("fovea", 0), "unlike"),
        (put("disc", np.nan), "nonfinite"),
        (put("fovea", np.inf), "nonfinite"),
        (put("glaucoma", np.nan), "nonfinite"),
    ],
)
def test_damage_is_seen_in_its_figure_and_fails(change, figure):
    found, clean = report(damaged(change)), report(reference)
    assert getattr(found, figure) != getattr(clean, figure)
    assert not found.passes(gate.FP32)


def across_the_threshold(outputs, _):
    outputs["glaucoma"][0] = 1


def test_a_flipped_decision_fails_whatever_the_other_bounds():
    found = report(damaged(across_the_threshold), bounds=LOOSE)
    assert found.flips == 1
    assert not found.passes(LOOSE)


def test_the_same_change_without_a_flip_passes_loose_bounds():
    found = report(damaged(across_the_threshold), bounds=LOOSE, threshold=0.01)
    assert found.flips == 0
    assert found.passes(LOOSE)


@pytest.mark.parametrize(("distance", "flips"), [(0.004, 0), (0.006, 1)])
def test_a_flip_counts_outside_the_margin_around_the_threshold(distance, flips):
    one = images(127)
    outputs = {name: output[0] for name, output in reference(one).items()}
    threshold = findings.find(outputs, RULES).glaucoma + distance
    assert report(damaged(add("glaucoma", 0.05)), one, LOOSE, threshold=threshold).flips == flips


def test_a_candidate_that_is_wrong_in_the_second_row_of_a_batch_only_is_caught_in_batches():
    def second_row(outputs, pictures):
        if len(pictures) > 1:
            outputs["disc"][1] = round_map(25, 30, 11)

    assert report(damaged(second_row), batch=1).passes(gate.FP32)
    assert not report(damaged(second_row), batch=8).passes(gate.FP32)


def test_one_bad_picture_among_many_fails():
    def last(outputs, pictures):
        outputs["glaucoma"] = outputs["glaucoma"] + np.where(pictures[:, 0, 0, 0] == 250, 0.1, 0).astype(np.float32)

    many = images(*[40] * 30, 250)
    assert not report(damaged(last), many).passes(gate.FP32)
    assert report(damaged(last), many[:-1]).passes(gate.FP32)


def test_the_figures_are_the_largest_differences():
    found = report(damaged(add("glaucoma", 0.03)))
    assert found.probability == pytest.approx(0.03, abs=1e-6)
    found = report(damaged(roll("fovea", pixels=3)))
    assert found.fovea_px == pytest.approx(3, abs=1e-6)
    found = report(damaged(put("disc", round_map(25, 30, 16))))
    assert found.height_px == pytest.approx(4, abs=0.5)


GOOD = gate.Report(3, 0, 0, 0, 0, 1, 0, 0, 0, 0)


@pytest.mark.parametrize("bound", ["probability", "vcdr_mean", "height_px", "dice"])
def test_a_report_at_its_bound_passes_and_beyond_fails(bound):
    at = getattr(gate.FP32, bound)
    beyond = math.nextafter(at, 0 if bound == "dice" else math.inf)
    assert dataclasses.replace(GOOD, **{bound: at}).passes(gate.FP32)
    assert not dataclasses.replace(GOOD, **{bound: beyond}).passes(gate.FP32)


@pytest.mark.parametrize("count", ["flips", "nonfinite", "unlike"])
def test_a_single_flip_or_unlike_or_nonfinite_picture_fails(count):
    assert not dataclasses.replace(GOOD, **{count: 1}).passes(LOOSE)


def test_the_report_is_written_out_with_its_bounds():
    text = "\n".join(dataclasses.replace(GOOD, probability=0.0123, flips=2).lines(gate.FP32))
    assert "1.23e-02   bound 1e-05" in text
    assert "decision flips              2" in text
    assert "bound 0.9999" in text
