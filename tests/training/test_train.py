import json
import pickle
import shutil

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from funduscope.engine.errors import DataError, SettingsError
from funduscope.training import train
from funduscope.training.classifier import job as classifier_job
from funduscope.training.classifier.networks import Classifier
from funduscope.training.multitask import batches, job
from funduscope.training.multitask.networks import MultiTaskUNet

TASKS = ("glaucoma", "disc", "cup", "fovea")


@pytest.fixture
def trainer(write_config, tmp_path, monkeypatch):
    """Trains a plan with changed keys of its schedule into a folder, and returns what `train` does.

    The curves take longer to draw than the rest, and are left out where a test does not ask for them.
    """

    def start(plan, root, out="run", *, resume=False, minutes=None, curves=False, **schedule):
        file, folder = write_config(plan | {"schedule": plan["schedule"] | schedule}), tmp_path / out
        with monkeypatch.context() as patch:
            if not curves:
                patch.setattr(train.curves, "draw", lambda *_: None)
            return train.train(file, folder, data_root=root, resume=resume, device="cpu", minutes=minutes)

    return start


@pytest.fixture
def go(plan, drawn_root, trainer):
    """Trains the multi-task plan (with another `sampler`)."""

    def start(*arguments, sampler="per_task", **changes):
        own = plan | {"data": plan["data"] | {"sampler": sampler}}
        return trainer(own, drawn_root, *arguments, **changes)

    return start


@pytest.fixture
def classify(classifier_plan, graded_root, trainer):
    """Trains the classifier's plan (with changed keys of its data)."""

    def start(*arguments, data=(), **changes):
        own = classifier_plan | {"data": classifier_plan["data"] | dict(data)}
        return trainer(own, graded_root, *arguments, **changes)

    return start


def state(folder):
    return train.load_checkpoint(folder / "last.pt")[1]


def differences(first, second, path=""):
    """Paths at which two nested states are not equal to the bit."""
    if isinstance(first, dict):
        found = [] if first.keys() == second.keys() else [f"{path} keys"]
        return found + [
            d for k in first.keys() & second.keys() for d in differences(first[k], second[k], f"{path}/{k}")
        ]
    if isinstance(first, list | tuple):
        pairs = zip(first, second, strict=True)
        return [d for k, (a, b) in enumerate(pairs) for d in differences(a, b, f"{path}/{k}")]
    equal = torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
    return [] if equal else [path]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def stop_at(monkeypatch, step, module=job, name="task_losses"):
    """Ctrl-C in the given step (counted from 0)."""
    untouched, seen = getattr(module, name), []

    def interrupted(*arguments):
        seen.append(None)
        if len(seen) == step + 1:
            raise KeyboardInterrupt
        return untouched(*arguments)

    monkeypatch.setattr(module, name, interrupted)


def test_a_run_leaves_checkpoints_metrics_and_curves(go, tmp_path):
    assert go(curves=True)
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {"best.pt", "last.pt", "metrics.jsonl", "curves.png", "config.toml"}
    assert cv2.imread(str(run / "curves.png")).std() > 0
    assert (run / "config.toml").read_text() == (tmp_path / "tiny.toml").read_text()
    assert [line["step"] for line in lines(run)] == [2, 4]
    for line in lines(run):
        assert set(line["losses"]) == set(TASKS)
        assert all(0 < value < 100 for value in line["losses"].values())
        assert set(line["sets"]["eyes"]) == {"disc_dice", "cup_dice", "vcdr_error", "fovea_error", "auc"}
        assert 0 <= line["score"] <= 1
        assert line["device"].startswith("CPU")


def test_the_best_checkpoint_is_a_network_that_loads(go, plan, build, tmp_path):
    go()
    settings, best = train.load_checkpoint(tmp_path / "run" / "best.pt")
    assert "optimiser" not in best
    assert settings.network == build(plan).network
    MultiTaskUNet(settings.network.width, settings.network.dropout).load_state_dict(best["network"])
    scores = {line["step"]: line["score"] for line in lines(tmp_path / "run")}
    assert best["best"] == scores[best["step"]] == max(scores.values())


@pytest.mark.parametrize("sampler", ["per_task", "shared"])
@pytest.mark.parametrize("strategy", ["mtl-io", "alternating", "sum"])
def test_every_strategy_and_sampler_moves_all_parameters(go, tmp_path, strategy, sampler):
    go(strategy=strategy, sampler=sampler, steps=1, bf16=sampler == "shared")
    torch.manual_seed(3)
    started = MultiTaskUNet(0.125, 0.5)
    trained = state(tmp_path / "run")
    assert set(trained["optimiser"]) == (set(TASKS) if strategy == "mtl-io" else {"all"})
    for name, parameter in started.named_parameters():
        assert not torch.equal(trained["network"][name], parameter), name


def test_training_lowers_the_loss(go, tmp_path):
    go(steps=16, validate_every=8, lr=3e-3, warmup=1)
    first, last = (line["losses"] for line in lines(tmp_path / "run"))
    assert last["disc"] < first["disc"]
    assert last["fovea"] < first["fovea"]


def test_a_classifiers_run_leaves_checkpoints_metrics_and_curves(classify, classifier_plan, tmp_path):
    assert classify(curves=True)
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {"best.pt", "last.pt", "metrics.jsonl", "curves.png", "config.toml"}
    assert cv2.imread(str(run / "curves.png")).std() > 0
    assert [line["step"] for line in lines(run)] == [2, 4]
    for line in lines(run):
        assert list(line["losses"]) == ["exp-uwbce"]
        assert set(line["sets"]) == {"eyes", "grades", "all"}
        assert set(classifier_job.ClassifierJob.curves) <= line["sets"]["all"].keys()
        assert 0 <= line["score"] <= 1
    settings, best = train.load_checkpoint(run / "best.pt")
    assert "optimiser" not in best
    assert settings.loss.model_dump() == classifier_plan["loss"]
    Classifier(settings.network).load_state_dict(best["network"])
    scores = {line["step"]: line["score"] for line in lines(run)}
    assert best["best"] == scores[best["step"]] == max(scores.values())


def test_training_teaches_a_classifier_to_tell_drawn_eyes_apart(classify, tmp_path):
    assert classify(steps=30, validate_every=10, lr=3e-3, warmup=1)
    first, _, last = lines(tmp_path / "run")
    assert last["losses"]["exp-uwbce"] < 0.7 * first["losses"]["exp-uwbce"]
    assert last["sets"]["all"]["glaucoma_auc"] > 0.9
    assert last["sets"]["all"]["referable_dr_auc"] > 0.9


def test_the_averaged_weights_are_validated_and_kept(classify, tmp_path):
    for average in (0.0, 0.9):
        assert classify(f"{average}", steps=4, validate_every=4, average=average)
    plain, own = state(tmp_path / "0.0"), state(tmp_path / "0.9")
    assert differences(plain["network"], own["network"]) == []  # training itself goes on with the weights as they are
    assert plain["average"] == {}
    best = train.load_checkpoint(tmp_path / "0.9" / "best.pt")[1]
    assert differences(best["network"], own["average"]) == []
    assert "/network.fc.weight" in differences(best["network"], own["network"])
    assert "average" not in best
    assert lines(tmp_path / "0.0")[0]["losses"] == lines(tmp_path / "0.9")[0]["losses"]


def test_a_run_that_diverges_ends_with_what_to_do(classify, tmp_path):
    with pytest.raises(SettingsError, match=r"at step \d: training has diverged; lower schedule.lr \(here 1e\+30\)"):
        classify(steps=4, validate_every=4, lr=1e30, warmup=1)
    assert not (tmp_path / "run" / "best.pt").exists()


def test_a_classifier_of_another_configuration_is_not_resumed(classify, classifier_plan, go):
    classify(steps=1)
    with pytest.raises(SettingsError, match="schedule changed"):
        classify(steps=1, select="auc", resume=True)
    classifier_plan["loss"]["linear_from"] = 5.0
    with pytest.raises(SettingsError, match="loss changed"):
        classify(steps=1, resume=True)
    with pytest.raises(SettingsError, match=r"kind.* changed"):
        go(steps=1, resume=True)


def test_the_same_run_twice_is_the_same_to_the_bit(go, tmp_path):
    go("one", steps=2)
    go("two", steps=2)
    assert differences(state(tmp_path / "one"), state(tmp_path / "two")) == []


def test_another_seed_is_another_run(classify, classifier_plan, tmp_path):
    classify("one", steps=2)
    classifier_plan["seed"] = 4
    classify("two", steps=2)
    assert "/network/network.fc.weight" in differences(state(tmp_path / "one"), state(tmp_path / "two"))


@pytest.mark.parametrize(("strategy", "sampler"), [("mtl-io", "per_task"), ("sum", "shared")])
def test_an_interrupted_run_goes_on_exactly(go, tmp_path, monkeypatch, strategy, sampler):
    settings = {"strategy": strategy, "sampler": sampler, "steps": 6, "validate_every": 3}
    assert go("straight", **settings)
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            go("stopped", **settings)
    assert state(tmp_path / "stopped")["step"] == 3
    assert differences(state(tmp_path / "straight"), state(tmp_path / "stopped")) != []
    assert go("stopped", resume=True, **settings)
    assert differences(state(tmp_path / "straight"), state(tmp_path / "stopped")) == []
    assert [line["step"] for line in lines(tmp_path / "stopped")] == [3, 6]
    assert [line["score"] for line in lines(tmp_path / "stopped")] == [
        line["score"] for line in lines(tmp_path / "straight")
    ]


@pytest.mark.parametrize(
    ("data", "bf16", "average"),
    [
        ({}, False, 0.0),
        ({"sampling": "balanced", "augment": "both", "workers": 2}, True, 0.0),
        pytest.param({"sampling": "balanced", "augment": "both"}, False, 0.8, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_classifier_goes_on_exactly(classify, tmp_path, monkeypatch, data, bf16, average):
    settings = {
        "data": data,
        "bf16": bf16,
        "average": average,
        "steps": 6,
        "validate_every": 3,
        "freeze_batchnorm": 0.7,
    }
    assert classify("straight", **settings)
    with monkeypatch.context() as patch:
        stop_at(patch, 5, classifier_job, "elementwise")
        with pytest.raises(KeyboardInterrupt):
            classify("stopped", **settings)
    assert state(tmp_path / "stopped")["step"] == 3
    assert differences(state(tmp_path / "straight"), state(tmp_path / "stopped")) != []
    assert classify("stopped", resume=True, **settings)
    assert differences(state(tmp_path / "straight"), state(tmp_path / "stopped")) == []
    assert [line["step"] for line in lines(tmp_path / "stopped")] == [3, 6]
    assert [line["score"] for line in lines(tmp_path / "stopped")] == [
        line["score"] for line in lines(tmp_path / "straight")
    ]


def test_a_run_stopped_by_its_time_goes_on_exactly(go, tmp_path):
    assert go("straight", steps=3, validate_every=3)
    assert not go("stopped", steps=3, validate_every=3, minutes=0.0)
    assert state(tmp_path / "stopped")["step"] == 1
    assert go("stopped", steps=3, validate_every=3, resume=True)
    for part in ("network", "optimiser"):
        assert differences(state(tmp_path / "straight")[part], state(tmp_path / "stopped")[part]) == []


def test_a_stop_chooses_no_checkpoint_and_losses_are_smoothed_across_it(go, tmp_path):
    assert go("straight", steps=3, validate_every=3)
    go("stopped", steps=3, validate_every=3, minutes=0.0)
    assert not (tmp_path / "stopped" / "best.pt").exists()
    assert go("stopped", steps=3, validate_every=3, resume=True)
    straight, stopped = (lines(tmp_path / folder)[-1] for folder in ("straight", "stopped"))
    assert straight["losses"] == stopped["losses"]
    assert state(tmp_path / "stopped")["best"] == straight["score"]


def test_fewer_steps_than_are_done_are_refused(go):
    go(steps=2)
    with pytest.raises(SettingsError, match=r"is of step 2 already; schedule\.steps says 1"):
        go(steps=1, resume=True)


def test_lines_after_the_checkpoint_are_made_again_not_doubled(go, tmp_path):
    go(steps=2)
    log = tmp_path / "run" / "metrics.jsonl"
    log.write_text(log.read_text() + log.read_text().replace('"step": 2', '"step": 4'))
    go(steps=4, resume=True)
    assert [line["step"] for line in lines(tmp_path / "run")] == [2, 4]


def test_a_finished_run_resumed_stays_as_it_is(go, tmp_path):
    go(steps=2)
    before = state(tmp_path / "run")
    assert go(steps=2, resume=True)
    assert differences(before, state(tmp_path / "run")) == []


def test_an_existing_run_is_not_overwritten(go, tmp_path):
    go(steps=1)
    before = (tmp_path / "run" / "last.pt").read_bytes()
    with pytest.raises(SettingsError, match=r"last\.pt exists"):
        go(steps=1)
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_resuming_what_never_ran_is_refused(go):
    with pytest.raises(SettingsError, match="no such checkpoint"):
        go(resume=True)


def test_a_changed_configuration_is_refused_on_resume(go):
    go(steps=1)
    with pytest.raises(SettingsError, match="schedule changed"):
        go(steps=1, lr=2e-3, resume=True)
    with pytest.raises(SettingsError, match="data changed"):
        go(steps=1, sampler="shared", resume=True)


def test_steps_and_workers_may_change_on_resume(go, plan, tmp_path):
    go(steps=1)
    plan["data"]["workers"] = 2
    assert go(steps=2, resume=True)
    assert state(tmp_path / "run")["step"] == 2


def test_frozen_norms_keep_their_statistics(go, tmp_path):
    go("frozen", steps=1, freeze_batchnorm=0.0)
    go("free", steps=1, freeze_batchnorm=1.0)
    for folder, moved in (("frozen", False), ("free", True)):
        norms = {k: v for k, v in state(tmp_path / folder)["network"].items() if k.endswith("running_mean")}
        assert all(bool(mean.any()) == moved for mean in norms.values())


def test_frozen_norms_still_learn_scale_and_shift(go, tmp_path):
    go(steps=1, freeze_batchnorm=0.0)
    network = state(tmp_path / "run")["network"]
    assert network["encoder.norms.0.bias"].any()
    assert (network["encoder.norms.0.weight"] != 1).any()


def test_freezing_leaves_everything_else_in_training():
    network = MultiTaskUNet(0.125, 0.5).train()
    train.freeze_batchnorm(network)
    for module in network.modules():
        assert module.training != isinstance(module, nn.BatchNorm2d)


def test_the_learning_rate_rises_stays_and_falls(plan, build):
    schedule = plan["schedule"] | {"steps": 10, "warmup": 4, "decay": 0.5, "lr": 1.0}
    settings = build(plan | {"schedule": schedule})
    rates = [train.learning_rate(settings.schedule, step) for step in range(10)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def forward_passes(plan, build, strategy, sampler):
    """The tasks asked of the network in each forward pass of one round."""
    settings = build(
        plan | {"schedule": plan["schedule"] | {"strategy": strategy}, "data": plan["data"] | {"sampler": sampler}}
    )
    network, asked = MultiTaskUNet(0.125, 0.5), []
    network.register_forward_pre_hook(lambda _, arguments: asked.append(tuple(arguments[1])))
    maps = torch.zeros(2, 64, 64)
    batch = batches.Batch(
        torch.zeros(2, 64, 64, 3, dtype=torch.uint8),
        {"disc": maps, "cup": maps, "fovea": maps, "glaucoma": torch.zeros(2)},
        {task: torch.ones(2, dtype=torch.bool) for task in TASKS},
    )
    losses = job.task_losses(network, dict.fromkeys(TASKS, batch), settings, torch.device("cpu"))
    assert tuple(losses) == TASKS
    for loss in losses.values():
        loss()
    return asked


@pytest.mark.parametrize(
    ("strategy", "sampler"), [("mtl-io", "shared"), ("alternating", "shared"), ("sum", "per_task")]
)
def test_each_task_has_a_forward_pass_of_its_own(plan, build, strategy, sampler):
    assert forward_passes(plan, build, strategy, sampler) == [(task,) for task in TASKS]


def test_the_sum_over_a_shared_batch_takes_one_forward_pass(plan, build):
    assert forward_passes(plan, build, "sum", "shared") == [TASKS]


def cut_mask(root, value=None, side=160):
    path = root / "eyes" / "masks" / "eye0.png"
    path.unlink()
    if value is not None:
        cv2.imwrite(str(path), np.full((side, side), value, np.uint8))


def in_rows(change):
    return lambda root, edit_rows: edit_rows(change)


def one_class(rows):
    for row in rows[:6]:
        row["glaucoma"] = 0


def no_masks(rows):
    for row in rows[:6]:
        row["mask"] = row["mask_has"] = ""


def in_two_splits(rows):
    rows.append(rows[0] | {"split": "val", "patient": ""})


def set_cell(k, **cells):
    return lambda rows: rows[k].update(cells)


REFUSALS = {
    "a mask is missing": (lambda root, _: cut_mask(root), r"eye0\.png: no such mask"),
    "a mask has a foreign value": (lambda root, _: cut_mask(root, 3), r"eye0\.png: mask values \[3\]"),
    "a mask has another size": (lambda root, _: cut_mask(root, 1, 150), r"eye0\.png: 150 x 150 px"),
    "a mask's header is broken": (
        lambda root, _: (root / "eyes/masks/eye0.png").write_bytes(b"PNG"),
        "header cannot be read",
    ),
    "a picture is missing": (in_rows(set_cell(0, image="images/none.jpg")), r"none\.jpg: no such picture"),
    "one glaucoma class": (in_rows(one_class), "the same glaucoma label"),
    "no mask to train on": (in_rows(no_masks), "no training picture is labelled for the task disc"),
    "a patient in two splits": (in_rows(set_cell(7, patient="p0")), r"patient p0 is in splits \['train', 'val'\]"),
    "a picture in two splits": (in_rows(in_two_splits), r"eye0\.jpg"),
    "a fovea outside its picture": (in_rows(set_cell(0, fovea_x=160.0)), "lies outside the picture"),
    "an unknown split": (in_rows(set_cell(0, split="training")), "line 2: split 'training'"),
    "a set is missing": (lambda root, _: shutil.rmtree(root / "eyes"), "eyes: no such folder"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_trained_on_is_refused_before_the_first_step(
    go, drawn_root, edit_rows, tmp_path, monkeypatch, case
):
    spoil, message = REFUSALS[case]
    spoil(drawn_root, edit_rows)
    monkeypatch.setattr(job, "MultiTaskUNet", lambda *_: pytest.fail("a network was made"))
    with pytest.raises(DataError, match=message):
        go()
    assert not (tmp_path / "run" / "last.pt").exists()


def test_the_unspoilt_set_is_not_refused(plan, build, drawn_root):
    assert len(job.load_samples(build(plan), drawn_root)) == 10


def test_pictures_that_teach_nothing_are_left_out(plan, build, drawn_root, edit_rows):
    edit_rows(set_cell(2, mask="", mask_has="", fovea_x="", fovea_y="", glaucoma=""))
    assert len(job.load_samples(build(plan), drawn_root)) == 9


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(plan, write_config, drawn_root, tmp_path):
    with pytest.raises(SettingsError, match="torch sees 0 CUDA devices"):
        train.train(write_config(plan), tmp_path / "run", data_root=drawn_root, device="cuda")


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("writer", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(go, tmp_path, writer):
    sign, run = tmp_path / "ran", tmp_path / "run"
    run.mkdir()
    writer({"config": Canary(sign), "network": {}}, run / "last.pt")
    with pytest.raises(SettingsError, match="not a Funduscope checkpoint"):
        go(resume=True)
    assert not sign.exists()


def test_the_canary_sings_when_it_is_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "ran"))).close()
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_foreign_file_is_no_checkpoint(tmp_path, content):
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(SettingsError, match=r"last\.pt: not a Funduscope checkpoint"):
        train.load_checkpoint(tmp_path / "last.pt")


def test_a_cut_checkpoint_is_refused(go, tmp_path):
    go(steps=1)
    path = tmp_path / "run" / "last.pt"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SettingsError, match="not a Funduscope checkpoint"):
        train.load_checkpoint(path)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    train.save({"step": 1}, tmp_path / "last.pt")

    def fails(state, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="disk full"):
        train.save({"step": 2}, tmp_path / "last.pt")
    assert torch.load(tmp_path / "last.pt", weights_only=True) == {"step": 1}
