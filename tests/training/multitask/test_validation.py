import numpy as np
import pytest
import torch

from funduscope.engine.labelled import dataset
from funduscope.engine.labelled.sample import Sample
from funduscope.engine.pictures import preprocess
from funduscope.postprocess.anatomy import Rules
from funduscope.training.cases import Case, prepare
from funduscope.training.multitask import batches, validation
from funduscope.training.multitask.networks import TASKS, Deployed, MultiTaskUNet

RULES = Rules(0.5, 0.5, "robust", 0.1, 1.0, 0.0)
SIZE = 96


@pytest.fixture
def cases(drawn_root):
    samples = dataset.load(drawn_root / "eyes")
    return [prepare(sample, preprocess.Geometry(SIZE, 24)) for sample in samples]


def perfect(case, shift=0):
    """The maps of a network that sees what was drawn, `shift` pixels to the right."""
    disc, cup = (np.roll(mask, shift, axis=1).astype(np.float32) for mask in (case.masks.disc, case.masks.cup))
    x, y = case.fovea
    fovea = batches.gaussian_map(x + shift, y, SIZE, 20.0)
    return {"disc": disc, "cup": cup, "fovea": fovea, "glaucoma": np.float32(case.sample.glaucoma)}


def nothing(_case):
    blank = np.zeros((SIZE, SIZE), np.float32)
    return {"disc": blank, "cup": blank, "fovea": blank, "glaucoma": np.float32(0.5)}


def test_perfect_maps_give_perfect_figures(cases):
    figures = validation.measure(cases, [perfect(case) for case in cases], RULES)["eyes"]
    assert figures["disc_dice"] > 0.97
    assert figures["cup_dice"] > 0.95
    assert figures["vcdr_error"] < 0.02
    assert figures["fovea_error"] < 0.003
    assert figures["auc"] == 1
    assert validation.score({"eyes": figures}, TASKS) > 0.97


def test_moved_maps_give_worse_figures(cases):
    figures = validation.measure(cases, [perfect(case, shift=5) for case in cases], RULES)["eyes"]
    assert figures["disc_dice"] < 0.9
    assert figures["fovea_error"] == pytest.approx(5 / cases[0].width, rel=0.1)
    assert figures["vcdr_error"] < 0.02


def test_what_is_not_found_counts_as_nothing(cases):
    figures = validation.measure(cases, [nothing(case) for case in cases], RULES)["eyes"]
    assert (figures["disc_dice"], figures["cup_dice"], figures["fovea_error"]) == (0, 0, 0.1)
    assert figures["vcdr_error"] == pytest.approx(np.mean([validation.true_vcdr(case.masks) for case in cases]))
    assert figures["auc"] == 0.5


def test_sets_are_measured_alone(cases):
    others = [Case(Sample(c.sample.image, "other", "val"), c.prepared, c.masks, None, c.width) for c in cases]
    maps = [perfect(case) for case in cases] + [nothing(case) for case in others]
    figures = validation.measure([*cases, *others], maps, RULES)
    assert figures["eyes"]["disc_dice"] > 0.97
    assert figures["other"] == {"disc_dice": 0, "cup_dice": 0, "vcdr_error": figures["other"]["vcdr_error"]}


def test_where_each_set_is_all_sick_or_all_healthy_the_auc_is_over_all(cases):
    own = [
        Case(Sample(c.sample.image, f"set {k % 2}", "val", glaucoma=k % 2), None, None, None, 96.0)
        for k, c in enumerate(cases)
    ]
    maps = [nothing(case) | {"glaucoma": np.float32(case.sample.glaucoma)} for case in own]
    figures = validation.measure(own, maps, RULES)
    assert figures["all"] == {"auc": 1.0}
    assert validation.score(figures, ["glaucoma"]) == 1.0


def test_the_score_is_the_mean_over_tasks_of_the_mean_over_sets():
    figures = {"a": {"disc_dice": 0.9, "fovea_error": 0.05}, "b": {"disc_dice": 0.7, "auc": 1.0, "vcdr_error": 0.3}}
    assert validation.score(figures, TASKS) == pytest.approx((0.8 + 0.5 + 1.0) / 3)


def test_pictures_are_predicted_in_order_whatever_the_batch():
    torch.manual_seed(0)
    network = Deployed(MultiTaskUNet(0.125, 0.5))
    images = [np.random.default_rng(k).integers(0, 256, (32, 32, 3), dtype=np.uint8) for k in range(9)]
    found = list(validation.predict(network, images, torch.device("cpu")))
    assert len(found) == 9
    for image, maps in zip(images, found, strict=True):
        (alone,) = validation.predict(network, [image], torch.device("cpu"))
        assert alone.keys() == maps.keys() == {"disc", "cup", "fovea", "glaucoma"}
        assert all(np.abs(alone[name] - maps[name]).max() < 1e-5 for name in maps)
    assert np.abs(found[0]["disc"] - found[1]["disc"]).max() > 1e-3


def test_labels_follow_the_picture_into_the_square(cases):
    for case in cases:
        brightness = case.prepared.image[..., 1].astype(int)
        assert brightness[case.masks.cup].mean() > 220
        assert brightness[case.masks.disc & ~case.masks.cup].mean() > 140
        x, y = np.rint(case.fovea).astype(int)
        assert brightness[y, x] < 40
