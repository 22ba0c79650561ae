"""The gate on drawn networks: what is damaged in them is seen in its figure, and fails."""

import dataclasses
import math

import numpy as np
import pytest

from funduscope.engine.contract import GeometryPart
from funduscope.engine.diseases import DISEASES
from funduscope.engine.gate import comparison as gate
from funduscope.engine.readers.classifier import (
    Classifier,
    ClassifierReader,
    DecisionPart,
    MapGridPart,
    PointsPart,
)
from funduscope.engine.readers.difference import FP16, FP32, INT8, Bounds
from funduscope.engine.readers.multitask import MultiTask, MultiTaskReader, RulesPart
from funduscope.engine.readers.point import EstimatePart, PointPart
from funduscope.postprocess import anatomy
from funduscope.postprocess.anatomy import Rules

SIZE = 64
RULES = Rules(0.5, 0.5, "robust", 0.2, 10.0, -5.0)
THRESHOLD = 0.5
LOOSE = Bounds(
    probability=1,
    quality=1,
    vcdr_mean=1,
    height_px=SIZE,
    dice=0,
    dice_mean=0,
    flip_margin=0.005,
    map_value=1,
    heat=100,
    fovea_px=SIZE,
    identical=1,
)
NAMES = {  # of the figures, by their bounds
    "probability": "max |d probability|",
    "map_value": "max |d map|",
    "vcdr_mean": "mean |d vCDR|",
    "height_px": "max |d height| (map px)",
    "dice": "min mask Dice",
    "dice_mean": "mean mask Dice",
    "fovea_px": "max fovea distance (map px)",
    "flips": "decision flips",
    "unlike": "measurable on one side only",
    "nonfinite": "not finite",
    "identical": "max |d identical rows|",
}


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


GEOMETRY = GeometryPart(path="reduced-crop-pad-resize-2", size=SIZE, fov_threshold=24)


def reader(threshold=THRESHOLD):
    rules = RulesPart(**RULES.__dict__)
    document = MultiTask.model_construct(geometry=GEOMETRY, rules=rules, glaucoma_threshold=threshold)
    return MultiTaskReader(document, None)


def report(candidate, pictures=EYES, bounds=FP32, batch=8, threshold=THRESHOLD):
    return gate.verify_outputs(reference, candidate, pictures, reader(threshold), bounds, [batch])


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_the_same_network_passes(batch):
    found = report(reference, batch=batch)
    assert found.pictures == 3
    assert {figure.name: figure.seen for figure in found.figures} == dict.fromkeys(NAMES.values(), 0) | {
        NAMES["dice"]: 1,
        NAMES["dice_mean"]: 1,
    }
    assert found.passes()


def test_every_figure_has_its_bound():
    bounds = {name: getattr(FP32, key, 0) for key, name in NAMES.items()}
    assert {figure.name: figure.bound for figure in report(reference).figures} == bounds


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
        assert found.passes()
        assert max(found[NAMES["probability"]], found[NAMES["map_value"]]) > 0


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
        (put("fovea", round_map(45, 32, 5)), "map_value"),
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
    assert found[NAMES[figure]] != clean[NAMES[figure]]
    assert not found.passes()


def test_a_map_near_its_limit_does_not_excuse_another_that_is_lost():
    def dim(change):
        def outputs(images):
            found = reference(images)
            found["fovea"] = found["fovea"] * np.float32(RULES.fovea_min_peak + 0.004)  # may be found or not
            change(found)
            return found

        return outputs

    def verify(change):
        return gate.verify_outputs(dim(lambda _: None), dim(change), EYES, reader(), LOOSE, [8])

    assert verify(lambda _: None).passes()
    assert verify(lambda found: found.update(fovea=0 * found["fovea"]))["measurable on one side only"] == 0
    assert verify(lambda found: found.update(disc=0 * found["disc"]))["measurable on one side only"] == 3


def across_the_threshold(outputs, _):
    outputs["glaucoma"][0] = 1


def test_a_flipped_decision_fails_whatever_the_other_bounds():
    found = report(damaged(across_the_threshold), bounds=LOOSE)
    assert found["decision flips"] == 1
    assert not found.passes()


def test_the_same_change_without_a_flip_passes_loose_bounds():
    found = report(damaged(across_the_threshold), bounds=LOOSE, threshold=0.01)
    assert found["decision flips"] == 0
    assert found.passes()


@pytest.mark.parametrize(("distance", "flips"), [(0.004, 0), (0.006, 1)])
def test_a_flip_counts_outside_the_margin_around_the_threshold(distance, flips):
    one = images(127)
    outputs = {name: output[0] for name, output in reference(one).items()}
    threshold = anatomy.measure(outputs, RULES).glaucoma + distance
    assert report(damaged(add("glaucoma", 0.05)), one, LOOSE, threshold=threshold)["decision flips"] == flips


def test_a_candidate_that_is_wrong_in_the_second_row_of_a_batch_only_is_caught_in_batches():
    def second_row(outputs, pictures):
        if len(pictures) > 1:
            outputs["disc"][1] = round_map(25, 30, 11)

    assert report(damaged(second_row), batch=1).passes()
    assert not report(damaged(second_row), batch=8).passes()


def test_every_size_of_batch_is_run_and_the_worst_is_kept():
    def in_fours(outputs, pictures):
        if len(pictures) == 4:
            outputs["glaucoma"] = outputs["glaucoma"] + np.float32(0.01)

    eyes = images(*range(40, 48))
    seen = {
        batches: gate.verify_outputs(reference, damaged(in_fours), eyes, reader(), FP32, batches)
        for batches in ((1, 8), (1, 4, 8), (4, 1))
    }
    assert [found.passes() for found in seen.values()] == [True, False, False]
    assert seen[1, 4, 8][NAMES["probability"]] == pytest.approx(0.01, abs=1e-6)


def test_identical_rows_must_give_identical_results():
    def by_row(outputs, pictures):
        if (
            len(pictures) == 8 and (pictures == pictures[0]).all()
        ):  # what no comparison of different pictures would show
            outputs["disc"][5] += np.float32(1e-4)

    found = report(damaged(by_row))
    assert found[NAMES["identical"]] == pytest.approx(1e-4, rel=1e-2)
    assert not found.passes()
    assert all(figure.holds for figure in found.figures if figure.name != NAMES["identical"])


@pytest.mark.parametrize("name", ["glaucoma", "disc"])
@pytest.mark.parametrize("value", [0, np.nan])
def test_a_candidate_that_is_wrong_on_one_repeated_picture_only_fails(name, value):
    def all_rows(outputs, pictures):
        if len(pictures) == 8 and (pictures == pictures[0]).all():
            outputs[name][:] = value

    found = report(damaged(all_rows))
    assert not found.passes()
    assert found["not finite"] == (1 if np.isnan(value) else 0)


def test_fewer_pictures_than_the_largest_batch_are_shown_repeatedly():
    def full(outputs, pictures):
        if len(pictures) == 8 and not (pictures == pictures[0]).all():
            outputs["glaucoma"][7] += np.float32(0.01)

    found = report(damaged(full))
    assert found.pictures == len(EYES) < 8
    assert found[NAMES["probability"]] == pytest.approx(0.01, abs=1e-6)
    assert not found.passes()


def test_means_are_of_all_pictures_and_not_of_the_repeated_one():
    def first(outputs, pictures):
        outputs["cup"] = np.where((pictures[:, 0, 0, 0] == 40)[:, None, None], round_map(25, 30, 7.3), outputs["cup"])

    found = report(damaged(first), images(40, 130, 220, 130), bounds=LOOSE)
    alone = report(damaged(first), images(40), bounds=LOOSE)
    assert 0 < found[NAMES["vcdr_mean"]] == pytest.approx(alone[NAMES["vcdr_mean"]] / 4)
    assert 1 > found[NAMES["dice_mean"]] > alone[NAMES["dice_mean"]]


def test_where_maps_are_not_bounded_something_must_be_measured():
    def blank(pictures):
        return {name: np.zeros_like(output) for name, output in reference(pictures).items()}

    found = {bounds: gate.verify_outputs(blank, blank, EYES, reader(), bounds, [8]) for bounds in (FP16, INT8)}
    assert [own.passes() for own in found.values()] == [True, False]
    assert math.isnan(found[INT8][NAMES["vcdr_mean"]])


def test_one_bad_picture_among_many_fails():
    def last(outputs, pictures):
        outputs["glaucoma"] = outputs["glaucoma"] + np.where(pictures[:, 0, 0, 0] == 250, 0.1, 0).astype(np.float32)

    many = images(*[40] * 30, 250)
    assert not report(damaged(last), many).passes()
    assert report(damaged(last), many[:-1]).passes()


def test_the_figures_are_the_largest_differences():
    found = report(damaged(add("glaucoma", 0.03)))
    assert found[NAMES["probability"]] == pytest.approx(0.03, abs=1e-6)
    found = report(damaged(roll("fovea", pixels=3)))
    assert found[NAMES["fovea_px"]] == pytest.approx(3, abs=1e-6)
    found = report(damaged(put("disc", round_map(25, 30, 16))))
    assert found[NAMES["height_px"]] == pytest.approx(4, abs=0.5)


def changed(key, seen, bounds=FP32):
    """A report without differences, but for one figure."""
    good = report(reference, bounds=bounds)
    assert good.passes()
    assert NAMES[key] in {figure.name for figure in good.figures}
    figures = (
        dataclasses.replace(figure, seen=seen) if figure.name == NAMES[key] else figure for figure in good.figures
    )
    return dataclasses.replace(good, figures=tuple(figures))


@pytest.mark.parametrize(
    "bound", ["probability", "map_value", "vcdr_mean", "height_px", "dice", "dice_mean", "fovea_px", "identical"]
)
def test_a_report_at_its_bound_passes_and_beyond_fails(bound):
    at = getattr(FP32, bound)
    assert changed(bound, at).passes()
    assert not changed(bound, math.nextafter(at, 0 if bound.startswith("dice") else math.inf)).passes()
    assert not changed(bound, math.nan).passes()


@pytest.mark.parametrize("count", ["flips", "nonfinite", "unlike"])
def test_a_single_flip_or_unlike_or_nonfinite_picture_fails(count):
    assert not changed(count, 1, LOOSE).passes()


def test_the_report_is_written_out_with_its_bounds():
    text = "\n".join(changed("probability", 0.0123).lines())
    assert "max |d probability|         0.0123      at most 1e-05   FAILS" in text
    assert "min mask Dice               1           at least 0.9999\n" in text
    assert text.count("FAILS") == 1
    assert text.startswith("pictures                    3\n")
    assert "decision flips              2           at most 0   FAILS" in "\n".join(changed("flips", 2).lines())


def test_a_figure_that_is_not_there_is_not_read_as_0():
    with pytest.raises(StopIteration):
        report(reference)["max |d heat| (1: full)"]


RATE = EstimatePart(value=0.9, low=0.8, high=0.95)


def read_at(*thresholds):
    """How an output is read at three thresholds."""
    points = (PointPart(threshold=own, uncertain_logit=0.1, sensitivity=RATE, specificity=RATE) for own in thresholds)
    parts = dict(zip(PointsPart.model_fields, points, strict=True))
    return DecisionPart(temperature=1.0, points=PointsPart(**parts), map_scale=1.0)


def second_look(pictures):
    """A classifier: the probabilities are the picture's first bytes / 255, and so is every cell of its heat maps."""
    scores = pictures[:, 0, 0].astype(np.float32) / 255
    outputs = {name: scores[:, k] for k, name in enumerate(DISEASES)}
    return outputs | {f"{name}_map": np.tile(scores[:, k, None, None], (1, 4, 4)) for k, name in enumerate(DISEASES)}


def photographs(*scores):
    made = np.zeros((len(scores), 8, 8, 3), np.uint8)
    made[:, 0, 0] = scores
    return made


TWO = photographs((26, 128, 230), (200, 90, 30))


def classified(change, pictures=TWO, bounds=FP32, batch=8, grid=True, points=(0.2, 0.45, 0.7)):
    decisions = {name: read_at(*points) for name in DISEASES}
    map_grid = MapGridPart(stride_px=2.0, offset_px=0.5) if grid else None
    document = Classifier.model_construct(geometry=GEOMETRY, decisions=decisions, point="balanced", map_grid=map_grid)

    def candidate(images):
        outputs = {name: output.copy() for name, output in second_look(images).items()}
        change(outputs)
        return outputs

    return gate.verify_outputs(second_look, candidate, pictures, ClassifierReader(document, None), bounds, [batch])


def nothing(_outputs):
    pass


@pytest.mark.parametrize("batch", [1, 8])
def test_the_same_classifier_passes(batch):
    found = classified(nothing, batch=batch)
    bounds = {"not finite": 0, NAMES["probability"]: 1e-5, "max |d heat| (1: full)": 1e-2, "decision flips": 0}
    bounds[NAMES["identical"]] = 1e-5
    assert {figure.name: figure.bound for figure in found.figures} == bounds
    assert {figure.seen for figure in found.figures} == {0}
    assert (found.pictures, found.passes()) == (2, True)


def set_to(name, value, row=1):
    def change(outputs):
        outputs[name][row] = value

    return change


def among_others(change):
    """Does it to batches of different pictures only."""
    return lambda outputs: change(outputs) if any(np.ptp(outputs[name]) for name in DISEASES) else None


def shifted(name):
    """The heat map lies a cell to the right."""

    def change(outputs):
        outputs[name][0, 1, 1] += 0.5
        outputs[name] = np.roll(outputs[name], 1, axis=2)

    return change


@pytest.mark.parametrize("disease", DISEASES)
@pytest.mark.parametrize(
    ("change", "figure"),
    [
        (lambda name: lambda outputs: outputs[name].__iadd__(np.float32(2e-5)), "max |d probability|"),
        (lambda name: set_to(f"{name}_map", 9.0), "max |d heat| (1: full)"),
        (lambda name: shifted(f"{name}_map"), "max |d heat| (1: full)"),
        (lambda name: set_to(name, 0.99), "decision flips"),
        (lambda name: set_to(name, np.nan), "not finite"),
        (lambda name: set_to(f"{name}_map", np.inf), "not finite"),
    ],
)
def test_damage_to_a_classifier_is_seen_in_its_figure_and_fails(disease, change, figure):
    found = classified(change(disease), photographs((40, 40, 40), (40, 40, 40)))
    assert found[figure] > 0
    assert not found.passes()


def test_differences_of_a_classifier_within_the_tolerance_pass():
    def change(outputs):
        outputs["any_dr"] += np.float32(5e-6)
        outputs["glaucoma_map"] += np.float32(5e-3)

    found = classified(change)
    assert found.passes()
    assert found["max |d probability|"] > 0
    assert found["max |d heat| (1: full)"] == pytest.approx(5e-3, rel=1e-3)


@pytest.mark.parametrize(("value", "flips"), [(0.1, 1), (0.3, 0), (0.5, 1), (0.8, 2)])
def test_a_decision_is_looked_at_at_every_operating_point(value, flips):
    found = classified(among_others(set_to("referable_dr", value)), photographs((0, 0, 0), (0, 75, 0)), LOOSE)  # .29
    assert found["decision flips"] == flips
    assert found.passes() == (flips == 0)


@pytest.mark.parametrize(("distance", "flips"), [(0.004, 0), (0.006, 1)])
def test_a_classifiers_flip_counts_outside_the_margin_only(distance, flips):
    points = (0.1, 0.1, 102 / 255 + distance)
    found = classified(among_others(set_to("glaucoma", 0.5)), photographs((0, 0, 0), (102, 0, 0)), LOOSE, points=points)
    assert found["decision flips"] == flips


def test_a_classifier_without_maps_is_compared_without_them():
    def no_maps(outputs):
        for name in DISEASES:
            del outputs[f"{name}_map"]

    assert classified(no_maps, grid=False).passes()


def test_a_classifier_that_is_wrong_in_the_second_row_of_a_batch_only_is_caught_in_batches():
    def change(outputs):
        if len(outputs["glaucoma"]) > 1:
            outputs["glaucoma"][1] += np.float32(1e-3)

    assert classified(change, batch=1).passes()
    assert not classified(change, batch=8).passes()
