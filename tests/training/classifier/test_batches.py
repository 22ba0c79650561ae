from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from funduscope.engine.errors import DataError
from funduscope.engine.labelled.sample import Sample
from funduscope.engine.pictures import photo, preprocess
from funduscope.training.classifier import batches, job
from funduscope.training.classifier.batches import Picture
from funduscope.training.classifier.config import SetSettings
from funduscope.training.classifier.networks import OUTPUTS, SEVERITY

NO_CHANGE = dict.fromkeys(("rotation_degrees", "log_scale", "shift", "log_gain", "log_gamma", "blur_sigma_px"), 0.0)


@pytest.fixture
def drawer(plan, build, graded_root):
    """Makes the Batches of a plan over the training pictures."""

    def make(changed=plan):
        config = build(changed)
        taught, _ = job.prepared(config, job.load_samples(config, graded_root))
        return batches.Batches(taught, config, OUTPUTS)

    return make


def tensors(batch):
    return [batch.images, batch.targets, batch.has]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))


def test_a_step_is_the_same_after_a_restart(drawer):
    straight, restarted = list(drawer().stream(0, 5)), list(drawer().stream(3, 5))
    assert same(straight[3], restarted[0])
    assert same(straight[4], restarted[1])
    assert same(straight[3], drawer().of_step(3))


def test_steps_and_seeds_differ(drawer, plan):
    first = drawer().of_step(0)
    assert not same(first, drawer().of_step(1))
    assert not same(first, drawer(plan | {"seed": 4}).of_step(0))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("first", "last"), [(0, 7), (5, 7), (7, 7)])
def test_a_stream_gives_every_step_once_and_in_order(drawer, edited, workers, first, last):
    own = drawer(edited("data", workers=workers))
    steps = list(own.stream(first, last))
    assert len(steps) == last - first
    assert all(same(step, own.of_step(k)) for k, step in enumerate(steps, first))


def test_a_batch_has_the_types_and_shapes_of_the_losses(drawer):
    batch = drawer().of_step(0)
    assert (batch.images.dtype, batch.images.shape) == (torch.uint8, (8, 64, 64, 3))
    assert (batch.targets.dtype, batch.targets.shape) == (torch.float32, (8, 3))
    assert (batch.has.dtype, batch.has.shape) == (torch.bool, (8, 3))
    assert set(batch.targets.unique().tolist()) == {0.0, 1.0}


def engines_own(graded_root, size=64):
    """Every picture of the sets as the engine prepares it, as bytes."""
    geometry = preprocess.Geometry(size, 40)
    return {
        preprocess.prepare(photo.load(path), geometry).image.tobytes(): path
        for path in sorted(graded_root.rglob("*.jpg"))
    }


def drawn(own, steps=6):
    """Pictures of some steps, each with whether a disease is known in it."""
    for step in range(steps):
        batch = own.of_step(step)
        for image, targets in zip(batch.images, batch.targets, strict=True):
            yield image.numpy(), bool(targets.any())


@pytest.mark.parametrize("augment", ["unhealthy", "both"])
def test_only_the_pictures_that_are_meant_to_be_changed_are(drawer, edited, graded_root, augment):
    engines = engines_own(graded_root)
    pictures = list(drawn(drawer(edited("data", augment=augment))))
    assert {sick for _, sick in pictures} == {False, True}
    for image, sick in pictures:
        assert (image.tobytes() in engines) == (augment == "unhealthy" and not sick)


def test_a_healthy_picture_of_a_larger_cache_is_made_smaller(drawer, edited, graded_root):
    larger = [np.frombuffer(data, np.uint8).reshape(96, 96, 3) for data in engines_own(graded_root, 96)]
    expected = {cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA).tobytes() for image in larger}
    for image, sick in drawn(drawer(edited("geometry", cache=96))):
        assert image.shape == (64, 64, 3)
        assert (image.tobytes() in expected) == (not sick)


def test_a_label_that_a_set_does_not_teach_does_not_make_a_picture_unhealthy():
    sick = Sample(None, "grades", "train", glaucoma=1, dr_grade=0)
    assert batches.unhealthy(sick)
    assert not batches.unhealthy(sick.teaching({"dr": 1.0}))
    assert batches.unhealthy(replace(sick, dr_grade=1).teaching({"dr": 1.0}))


def test_without_ranges_an_unhealthy_picture_is_the_engines_too(drawer, plan, graded_root):
    own = drawer(plan | {"augment": NO_CHANGE | {"flip": False}})
    assert {image.tobytes() for image, _ in drawn(own)} <= engines_own(graded_root).keys()


def numbered(path, weights, *samples):
    """Pictures of one set, all of whose pixels are zero."""
    settings = SetSettings(path=path, weights=weights, terms="none")
    blank = np.zeros((64, 64, 3), np.uint8)
    return [Picture(Sample(None, path, "train", **labels), settings, blank) for labels in samples]


SETS = [
    *numbered("a", {"glaucoma": 3.0}, {"glaucoma": 1}, *[{"glaucoma": 0}] * 3),
    *numbered("b", {"glaucoma": 1.0}, *[{"glaucoma": 1}] * 2),
    *numbered("c", {"dr": 2.0}, {"dr_grade": 3}, {"dr_grade": 1}, *[{"dr_grade": 0}] * 3),
]
UNIFORM = [1 / 11] * 11
BALANCED = [3 / 16, *[1 / 16] * 3, *[1 / 16] * 2, 1 / 4, *[1 / 16] * 4]  # of a half: a 3/4, b 1/4; each class a half


@pytest.mark.parametrize(("sampling", "expected"), [("uniform", UNIFORM), ("balanced", BALANCED)])
def test_pictures_are_drawn_as_often_as_asked(plan, build, sampling, expected):
    config = build(
        plan | {"data": plan["data"] | {"sampling": sampling, "batch": 64}} | {"augment": NO_CHANGE | {"flip": False}}
    )
    pictures = [replace(picture, image=picture.image + np.uint8(k)) for k, picture in enumerate(SETS)]
    own = batches.Batches(pictures, config, OUTPUTS)
    numbers = torch.cat([own.of_step(step).images[:, 0, 0, 0] for step in range(60)])
    shares = np.bincount(numbers.numpy(), minlength=11) / len(numbers)
    assert shares == pytest.approx(expected, abs=0.025)


def test_a_picture_labelled_for_both_diseases_is_drawn_for_both(plan, build):
    both = numbered("d", {"glaucoma": 1.0, "dr": 1.0}, {"glaucoma": 1, "dr_grade": 4}, {"glaucoma": 0}, {"dr_grade": 0})
    own = batches.Batches(both, build(plan | {"data": plan["data"] | {"sampling": "balanced"}}), OUTPUTS)
    assert own._chances == pytest.approx([1 / 2, 1 / 4, 1 / 4])


def test_a_disease_of_a_larger_share_is_drawn_more_often(plan, build):
    data = plan["data"] | {"sampling": "balanced", "shares": {"glaucoma": 1.0, "dr": 3.0}}
    own = batches.Batches(SETS, build(plan | {"data": data}), OUTPUTS)
    expected = np.array(BALANCED) * np.where(np.arange(11) < 6, 1 / 2, 3 / 2)
    assert own._chances == pytest.approx(expected)


def test_an_unknown_label_is_masked_and_not_taken_for_healthy():
    samples = [
        Sample(None, "eyes", "train", glaucoma=1),
        Sample(None, "eyes", "train", dr_grade=1),
        Sample(None, "eyes", "train", glaucoma=0, dr_grade=3),
    ]
    targets, has = batches.labels(samples, OUTPUTS + SEVERITY)
    assert targets.tolist() == [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 1, 1, 0]]
    assert has.tolist() == [[True, *[False] * 4], [False, *[True] * 4], [True] * 5]


def test_the_two_sets_teach_what_they_are_meant_to(drawer):
    own = drawer()
    batch = own.of_step(0)
    known = [batch.has[k].tolist() for k in range(8)]
    assert {tuple(row) for row in known} == {(True, True, True), (False, True, True)}


def written(folder, name, image):
    path = folder / name
    assert cv2.imwrite(str(path), image)
    return Sample(path, "eyes", "train", glaucoma=0), None


GREY = preprocess.Geometry(64, 40)


def test_pictures_without_a_field_of_view_are_left_out_and_counted(tmp_path, caplog):
    spot = np.zeros((160, 160, 3), np.uint8)
    spot[:4, :4] = 255
    pairs = [
        written(tmp_path, f"{k}.png", image)
        for k, image in enumerate([np.full((160, 160, 3), 41, np.uint8), spot, np.full((160, 160, 3), 40, np.uint8)])
    ]
    found = batches.prepare_all(pairs, GREY, 2)
    assert [picture.sample.image.name for picture in found] == ["0.png"]
    assert np.array_equal(found[0].image, np.full((64, 64, 3), 41, np.uint8))
    assert caplog.messages == ["eyes, train: 2 of 3 pictures left out: no field of view"]


def test_the_pictures_left_out_are_counted_by_set_and_split(tmp_path, caplog):
    lit, dark = (written(tmp_path, f"{level}.png", np.full((160, 160, 3), level, np.uint8))[0] for level in (90, 0))
    samples = [lit, dark, replace(dark, split="val"), replace(lit, set_name="grades")]
    assert len(batches.prepare_all([(sample, None) for sample in samples], GREY, 2)) == 2
    lines = ("eyes, train: 1 of 2", "eyes, val: 1 of 1")
    assert caplog.messages == [f"{line} pictures left out: no field of view" for line in lines]


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    good = written(tmp_path, "good.png", np.full((160, 160, 3), 90, np.uint8))
    bad = written(tmp_path, "bad.png", np.full((160, 160, 3), 90, np.uint8))
    bad[0].image.write_bytes(bad[0].image.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"bad\.png: DAMAGED"):
        batches.prepare_all([good, bad], GREY, 2)
