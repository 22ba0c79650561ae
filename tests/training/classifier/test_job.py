from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from funduscope.engine.errors import DataError
from funduscope.training import losses
from funduscope.training.classifier import batches, config, job
from funduscope.training.classifier.job import ClassifierJob
from funduscope.training.classifier.networks import PooledAlexNet

CPU = torch.device("cpu")


@pytest.fixture
def started(plan, build, graded_root):
    """A job that is ready for its first step."""

    def make(changed=plan):
        torch.manual_seed(3)
        own = ClassifierJob(build(changed), graded_root)
        own.start(CPU, None)
        return own

    return make


def weights(own):
    return {name: tensor.clone() for name, tensor in own.network.state_dict().items()}


def same(first, second):
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


LOSSES = {
    "exp-uwbce": (
        {"positive": 2.0, "negative": 0.5, "linear_from": 4.0},
        lambda z, y: losses.exp_uwbce(z, y, 2, 0.5, 4),
    ),
    "uwbce": ({"positive": 2.0, "negative": 0.5}, lambda z, y: losses.uwbce(z, y, 2.0, 0.5)),
    "bce": ({}, lambda z, y: torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction="none")),
    "focal": ({"gamma": 3.0}, lambda z, y: losses.focal(z, y, 3.0)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_the_one_that_was_named(plan, build, name):
    own, expected = LOSSES[name]
    z, y = torch.linspace(-8, 8, 9)[:, None].repeat(1, 3), (torch.arange(27).reshape(9, 3) % 2).float()
    found = job.elementwise(build(plan | {"loss": {"name": name, **own}}).loss, z, y)
    torch.testing.assert_close(found, expected(z, y))


@pytest.mark.parametrize(
    ("architecture", "hidden"),
    [*((name, 0) for name in get_args(config.Architecture)), ("alexnet", 16)],
)
def test_a_step_moves_all_parameters(started, edited, architecture, hidden):
    own = started(edited("network", architecture=architecture, hidden=hidden, dropout=0.0))
    before = {name: parameter.detach().clone() for name, parameter in own.network.named_parameters()}
    values = own.step(next(own.stream(0, 1)), 1e-3)
    assert list(values) == ["exp-uwbce"]
    assert np.isfinite(values["exp-uwbce"])
    assert [name for name, parameter in own.network.named_parameters() if torch.equal(parameter, before[name])] == []


def test_the_loss_is_summed_over_what_is_labelled_and_told_as_a_mean(started, edited):
    own = started(edited("network", dropout=0.0))
    batch = own._drawer.of_step(0)
    assert not batch.has.all()
    seen = []
    own.optimiser.register_step_pre_hook(lambda *_: seen.append(own.network.network.fc.bias.grad.clone()))
    told = own.step(batch, 1e-3)["exp-uwbce"]

    again = started(edited("network", dropout=0.0))
    logits = torch.stack(list(again.network(batch.images).values()), dim=1)
    total = losses.exp_uwbce(logits, batch.targets, 1.0, 1.0, 6.0)[batch.has].sum()
    total.backward()
    assert told == pytest.approx(total.item() / int(batch.has.sum()), rel=1e-5)
    torch.testing.assert_close(seen[0], again.network.network.fc.bias.grad)


def test_what_is_not_labelled_does_not_count(started):
    first, second = started(), started()
    batch = first._drawer.of_step(0)
    other = batches.Batch(batch.images, torch.where(batch.has, batch.targets, 1.0), batch.has)
    assert not torch.equal(batch.targets, other.targets)
    for own, part in ((first, batch), (second, other)):
        torch.manual_seed(0)
        own.step(part, 1e-3)
    assert same(weights(first), weights(second))


def test_the_learning_rate_of_the_step_is_used(started):
    own = started()
    before = weights(own)["network.fc.bias"]
    own.step(own._drawer.of_step(0), 0.0123)
    moved = (weights(own)["network.fc.bias"] - before).abs()
    assert moved.tolist() == pytest.approx([0.0123] * 3, rel=1e-2)  # the first step of Adam


def test_a_step_in_bf16_is_nearly_the_same(started, edited):
    told = {}
    for bf16 in (False, True):
        own = started(edited("schedule", bf16=bf16))
        torch.manual_seed(0)
        told[bf16] = own.step(own._drawer.of_step(0), 1e-3)["exp-uwbce"]
        assert {parameter.dtype for parameter in own.network.parameters()} == {torch.float32}
    assert told[True] == pytest.approx(told[False], rel=0.05)
    assert told[True] != told[False]


def test_validation_gives_the_figures_and_the_score_of_the_held_pictures(started):
    own = started()
    figures, score = own.validate()
    assert set(figures) == {"eyes", "grades", "all"}
    assert {"glaucoma_auc", "glaucoma_f1", "referable_dr_auc", "any_dr_auc"} <= set(figures["all"])
    assert sum(figures["all"][f"glaucoma_{key}"] for key in ("tp", "fp", "fn", "tn")) == 8
    assert sum(figures["all"][f"any_dr_{key}"] for key in ("tp", "fp", "fn", "tn")) == 16
    assert 0 <= score <= 1
    assert not own.network.training


def test_prepared_pictures_are_not_prepared_again(plan, build, graded_root, monkeypatch):
    first, second = (ClassifierJob(build(plan), graded_root) for _ in range(2))
    first.start(CPU, None)
    monkeypatch.setattr(job, "prepared", lambda *_: pytest.fail("pictures were prepared again"))
    second.pictures = first.pictures
    second.start(CPU, None)
    assert second.held is first.held


def test_pretrained_weights_are_for_the_start_of_a_run_not_for_a_resumed_one(plan, build, graded_root, tmp_path):
    original = PooledAlexNet(3, 1000, 0.0)
    save_file(original.state_dict(), tmp_path / "alexnet.safetensors")
    network = plan["network"] | {"architecture": "alexnet", "imagenet": "alexnet.safetensors"}
    own = ClassifierJob(build(plan | {"network": network}), graded_root)
    for folder, loaded in ((tmp_path, True), (None, False)):
        own.start(CPU, folder)
        assert torch.equal(own.network.network.features[3].weight, original.features[3].weight) == loaded


def test_the_network_of_a_checkpoint_comes_back(started, plan, build):
    own = started()
    back = job.from_checkpoint(build(plan), own.network.state_dict())
    assert same(weights(own), back.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        job.from_checkpoint(build(plan | {"network": plan["network"] | {"severity": True}}), own.network.state_dict())


def test_sets_teach_only_the_labels_among_their_weights(plan, build, graded_root):
    pairs = job.load_samples(build(plan), graded_root)
    assert len(pairs) == 64
    for sample, own in pairs:
        assert sample.set_name == own.path
        assert sample.dr_grade is not None
        assert (sample.glaucoma is not None) == (own.path == "eyes")


def test_pictures_without_a_label_to_teach_are_left_out(plan, build, graded_root, edit_graded):
    plan["data"]["sets"][0]["weights"] = {"glaucoma": 1.0}

    def change(rows):
        rows[0].update(glaucoma="")
        rows[1].update(dr_grade="")

    edit_graded(change)
    names = {sample.image.name for sample, own in job.load_samples(build(plan), graded_root) if own.path == "eyes"}
    assert names == {f"eye{k}.jpg" for k in range(1, 32)}


def relabelled(split, **labels):
    def change(rows):
        for row in rows:
            if row["split"] == split:
                row.update(labels)

    return change


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"glaucoma": 0}, "with and without glaucoma; it has labels {0}"),
        ({"glaucoma": 1}, "with and without glaucoma; it has labels {1}"),
        ({"glaucoma": ""}, "with and without glaucoma; it has labels none"),
        ({"dr_grade": 1}, "with and without referable_dr; it has labels {0}"),
        ({"dr_grade": 2}, "with and without referable_dr; it has labels {1}"),
        ({"dr_grade": ""}, "with and without referable_dr; it has labels none"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_with_one_class_is_refused(plan, build, graded_root, edit_graded, split, labels, message):
    del plan["data"]["sets"][1]
    edit_graded(relabelled(split, **labels))
    with pytest.raises(DataError, match=f"the split {split} needs pictures {message}"):
        ClassifierJob(build(plan), graded_root)


def test_a_split_in_which_every_eye_has_some_retinopathy_is_refused(plan, build, graded_root, edit_graded):
    del plan["data"]["sets"][1]

    def change(rows):
        for row in rows:
            row["dr_grade"] = max(1, int(row["dr_grade"]))

    edit_graded(change)
    with pytest.raises(DataError, match="with and without any_dr"):
        ClassifierJob(build(plan), graded_root)


def test_a_test_split_of_one_class_is_not_refused(plan, build, graded_root, edit_graded):
    edit_graded(relabelled("test", glaucoma=0, dr_grade=0))
    assert len(ClassifierJob(build(plan), graded_root).samples) == 64


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_of_dark_pictures_is_refused(plan, build, graded_root, split):
    black = np.zeros((160, 160, 3), np.uint8)
    for sample, _ in job.load_samples(build(plan), graded_root):
        if sample.split == split:
            assert batches.cv2.imwrite(str(sample.image), black)

    def begin():
        own = ClassifierJob(build(plan), graded_root)
        own.start(CPU, None)
        own.validate()

    with pytest.raises(DataError):
        begin()
