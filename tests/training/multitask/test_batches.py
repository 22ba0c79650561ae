import numpy as np
import pytest
import torch

from funduscope.engine.labelled import dataset
from funduscope.engine.labelled.sample import Sample
from funduscope.training.multitask import batches
from funduscope.training.multitask.config import SetSettings

TASKS = ("glaucoma", "disc", "cup", "fovea")


@pytest.fixture
def drawer(plan, build, drawn_root):
    """Makes the Batches of a plan over the training pictures of `eyes`; a label can be taken from some of them."""

    def make(changed=plan, without=None):
        config = build(changed)
        geometry = config.preparation(config.geometry.cache).build()
        samples = [s for s in dataset.load(drawn_root / "eyes") if s.split == "train"]
        if without:
            samples = [without(k, s) for k, s in enumerate(samples)]
        pictures = batches.cache_all([(s, own) for own in config.data.sets for s in samples], geometry, 1)
        return batches.Batches(pictures, config)

    return make


@pytest.fixture
def edited(plan):
    """The plan with changed keys under `data`."""
    return lambda **changes: plan | {"data": plan["data"] | changes}


def same(first, second):
    """Whether two steps hold the same batches."""
    return first.keys() == second.keys() and all(
        torch.equal(a, b) for task in first for a, b in zip(tensors(first[task]), tensors(second[task]), strict=True)
    )


def tensors(batch):
    return [batch.images, *batch.targets.values(), *batch.has.values()]


@pytest.mark.parametrize("sampler", ["per_task", "shared"])
def test_a_step_is_the_same_after_a_restart(drawer, edited, sampler):
    plan = edited(sampler=sampler)
    straight = list(drawer(plan).stream(0, 5))
    restarted = list(drawer(plan).stream(3, 5))
    assert same(straight[3], restarted[0])
    assert same(straight[4], restarted[1])
    assert same(straight[3], drawer(plan).of_step(3))


def test_steps_and_seeds_differ(drawer, plan):
    first = drawer().of_step(0)
    assert not same(first, drawer().of_step(1))
    assert not same(first, drawer(plan | {"seed": 4}).of_step(0))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("first", "last"), [(0, 7), (5, 7), (7, 7)])
def test_a_stream_gives_every_step_once_and_in_order(drawer, edited, workers, first, last):
    own = drawer(edited(workers=workers))
    steps = list(own.stream(first, last))
    assert len(steps) == last - first
    assert all(same(step, own.of_step(k)) for k, step in enumerate(steps, first))


def test_each_task_draws_its_own_labelled_batch(drawer, plan):
    def without(k, sample):
        return sample if k % 2 else Sample(sample.image, "eyes", "train", glaucoma=sample.glaucoma)

    own = drawer(plan, without)
    for k in range(5):
        step = own.of_step(k)
        assert tuple(step) == TASKS
        assert {task: len(batch.images) for task, batch in step.items()} == plan["data"]["batch"]
        assert all(batch.has[task].all() for task, batch in step.items())


def test_a_shared_batch_is_one_for_all_tasks_with_every_label_in_it(drawer, edited):
    def without(k, sample):
        if k % 2:
            return Sample(sample.image, "eyes", "train", glaucoma=1)
        return Sample(sample.image, "eyes", "train", sample.mask, True, fovea=sample.fovea)

    plan = edited(sampler="shared", balance_glaucoma=False, batch=dict.fromkeys(TASKS, 8))
    own = drawer(plan, without)
    for k in range(5):
        step = own.of_step(k)
        batch = step["disc"]
        assert all(other is batch for other in step.values())
        assert len(batch.images) == 8
        assert all(batch.has[task].any() for task in TASKS)
        assert not batch.has["disc"].all()


def test_only_tasks_with_a_batch_size_are_drawn(drawer, edited):
    assert tuple(drawer(edited(batch={"cup": 1, "glaucoma": 1})).of_step(0)) == ("glaucoma", "cup")


def test_a_batch_has_the_types_and_shapes_of_the_losses(drawer):
    batch = drawer().of_step(0)["cup"]
    assert (batch.images.dtype, batch.images.shape) == (torch.uint8, (3, 64, 64, 3))
    for name in ("disc", "cup", "fovea"):
        assert (batch.targets[name].dtype, batch.targets[name].shape) == (torch.float32, (3, 64, 64))
    assert batch.targets["glaucoma"].dtype == torch.float32
    assert batch.targets["glaucoma"].shape == (3,)
    assert set(batch.targets["disc"].unique().tolist()) == {0.0, 1.0}


def test_the_cup_lies_inside_the_disc(drawer):
    targets = drawer().of_step(0)["cup"].targets
    assert 0 < targets["cup"].sum() < targets["disc"].sum()
    assert not (targets["cup"] > targets["disc"]).any()


def cached(sample, weights=None):
    settings = SetSettings(path="eyes", weights=weights or dict.fromkeys(TASKS, 1.0), terms="none")
    return batches.Cached(sample, settings, None, None, None)


def test_a_missing_label_is_zeros_without_has():
    whole = cached(Sample(None, "eyes", "train", "mask", True, fovea=(1, 2), glaucoma=1))
    bare = cached(Sample(None, "eyes", "train"))
    image, mask = np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 2, np.uint8)
    batch = batches.collate([(image, mask, np.ones((4, 4), np.float32), whole), (image, None, None, bare)])
    for task in TASKS:
        assert batch.has[task].tolist() == [True, False]
        assert batch.targets[task][0].min() == 1
        assert batch.targets[task][1].max() == 0


def test_an_experts_ratio_teaches_where_no_cup_is_drawn():
    known = cached(Sample(None, "eyes", "train", expert_vcdr=0.4), {"ratio": 1.0})
    bare = cached(Sample(None, "eyes", "train"), {"ratio": 1.0})
    image = np.zeros((4, 4, 3), np.uint8)
    batch = batches.collate([(image, None, None, known), (image, None, None, bare)])
    assert batch.has["ratio"].tolist() == [True, False]
    assert batch.targets["ratio"].tolist() == pytest.approx([0.4, 0.0])
    assert not batch.has["cup"].any()


def test_a_mask_without_a_cup_teaches_the_disc_only():
    own = cached(Sample(None, "eyes", "train", "mask", mask_has_cup=False))
    image, mask = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.uint8)
    batch = batches.collate([(image, mask, None, own)])
    assert batch.has["disc"].all()
    assert not batch.has["cup"].any()


def test_a_label_that_its_set_is_not_meant_to_teach_is_left_alone():
    own = cached(Sample(None, "crops", "train", "mask", True, glaucoma=1), {"disc": 1.0})
    batch = batches.collate([(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.uint8), None, own)])
    assert [task for task in TASKS if batch.has[task].any()] == ["disc"]


def glaucoma_share(own, steps=5):
    return float(np.mean([own.of_step(k)["glaucoma"].targets["glaucoma"].mean() for k in range(steps)]))


@pytest.mark.parametrize(("balance", "expected"), [(True, 1 / 2), (False, 1 / 6)])
def test_glaucoma_is_balanced_where_asked(drawer, edited, balance, expected):
    plan = edited(balance_glaucoma=balance, batch={"glaucoma": 60})
    own = drawer(plan, lambda k, s: Sample(s.image, "eyes", "train", glaucoma=int(k == 0)))
    assert glaucoma_share(own) == pytest.approx(expected, abs=0.1)


TWO = (("eyes", 3.0), ("others", 1.0))


def test_sets_are_drawn_by_their_weights(drawer, edited, plan):
    sets = [plan["data"]["sets"][0] | {"path": path, "weights": {"disc": weight}} for path, weight in TWO]
    own = drawer(edited(batch={"disc": 60}, sets=sets))
    drawn = [k for step in range(5) for k in own._draw("disc", 60, np.random.default_rng(step))]
    assert np.mean(np.array(drawn) < 6) == pytest.approx(3 / 4, abs=0.08)


def test_a_set_without_a_weight_for_a_task_is_not_drawn_for_it(drawer, edited, plan):
    parts = (("eyes", {"disc": 1.0}), ("others", {"cup": 1.0}))
    sets = [plan["data"]["sets"][0] | {"path": path, "weights": weights} for path, weights in parts]
    own = drawer(edited(batch={"disc": 2, "cup": 2}, sets=sets))
    assert max(own._draw("disc", 50, np.random.default_rng(0))) < 6
    assert min(own._draw("cup", 50, np.random.default_rng(0))) >= 6


def test_the_fovea_target_is_a_gaussian_with_peak_1():
    target = batches.gaussian_map(20.0, 30.0, 64, variance=50.0)
    assert target[30, 20] == 1
    assert target[30, 25] == pytest.approx(np.exp(-0.25))
    assert target[35, 25] == pytest.approx(np.exp(-0.5))
    assert target.dtype == np.float32


def test_a_batch_moves_to_a_device_as_a_whole(drawer):
    batch = drawer().of_step(0)["cup"]
    moved = batch.to(torch.device("meta"))
    assert all(tensor.is_meta for tensor in tensors(moved))
    assert moved.targets.keys() == batch.targets.keys()
