"""Each set left out in turn, with tiny settings."""

import json
from pathlib import Path

import numpy as np
import pytest

from funduscope.engine.errors import SettingsError
from funduscope.training import train
from funduscope.training.classifier import leave_out


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    monkeypatch.setattr(train.curves, "draw", lambda *_: None)


@pytest.fixture
def given(classifier_plan, write_config, graded_root, tmp_path):
    """A configuration whose sets teach the same, a folder, and the data."""
    sets = [own | {"weights": {"glaucoma": 1.0, "dr": 1.0}} for own in classifier_plan["data"]["sets"]]
    plan = classifier_plan | {"data": classifier_plan["data"] | {"sets": sets}}
    plan["schedule"] |= {"steps": 2}
    return write_config(plan), tmp_path / "out", graded_root


def test_every_set_has_its_rows_and_a_second_call_trains_nothing(given, monkeypatch):
    page = leave_out.run(*given)
    rows = [json.loads(line) for line in (given[1] / "results.jsonl").read_text().splitlines()]
    assert {(row["set"], row["target"]) for row in rows} == {
        (name, target) for name in ("eyes", "grades") for target in ("glaucoma", "referable_dr", "any_dr")
    }
    assert all(row["n"] == 8 and 0 <= row["auc_unseen"] <= 1 for row in rows)
    assert len(page.splitlines()) == 2 + len(rows)
    monkeypatch.setattr(train, "run", None)
    assert leave_out.run(*given) == page


def test_what_was_left_out_was_not_trained_on_and_is_looked_at_whole(given):
    leave_out.run(*given)
    with np.load(given[1] / "eyes" / "logits.npz") as found:
        seen = [name.split("/")[0] for name in found["pictures"]]
    assert seen.count("eyes") == 32
    assert seen.count("grades") == 16  # val and test
    state = train.load_checkpoint(given[1] / "eyes" / "best.pt")[0]
    assert [own.path for own in state.data.sets] == ["grades"]


def test_it_stops_and_goes_on(given):
    assert len(leave_out.run(*given, minutes=0.0).splitlines()) == 2
    assert len(leave_out.run(*given).splitlines()) == 8


def test_runs_of_another_configuration_are_not_taken_for_its_own(given, classifier_plan, write_config):
    leave_out.run(*given)
    other = write_config(classifier_plan | {"schedule": classifier_plan["schedule"] | {"lr": 0.01}})
    with pytest.raises(SettingsError, match="schedule changed"):
        leave_out.run(other, *given[1:])


def test_pictures_of_one_name_in_two_folders_are_two(given):
    folder = given[2] / "eyes"
    index = (folder / "index.csv").read_text().splitlines()
    place = index[0].split(",").index("image")
    for k, line in enumerate(index[1:], 1):
        cells = line.split(",")
        file = folder / cells[place]
        cells[place] = f"{k}/picture{file.suffix}"
        (folder / str(k)).mkdir()
        file.rename(folder / cells[place])
        index[k] = ",".join(cells)
    (folder / "index.csv").write_text("\n".join(index) + "\n")
    leave_out.run(*given)
    with np.load(given[1] / "eyes" / "logits.npz") as found:
        assert len(set(found["pictures"])) == len(found["pictures"]) == 48


def test_a_set_that_alone_teaches_a_disease_is_passed_over(given, classifier_plan, write_config):
    eyes, grades = classifier_plan["data"]["sets"]
    sets = [eyes | {"weights": {"glaucoma": 1.0, "dr": 1.0}}, grades | {"weights": {"dr": 1.0}}]
    path = write_config(classifier_plan | {"data": classifier_plan["data"] | {"sets": sets}})
    leave_out.run(path, *given[1:])
    assert not (given[1] / "eyes").exists()
    assert (given[1] / "grades" / "logits.npz").exists()


@pytest.mark.parametrize(("sick", "labels"), [(0.5, 50), (0.1, 100)])
def test_a_site_labels_until_it_has_enough_of_each(sick, labels, monkeypatch):
    rng = np.random.default_rng(0)
    truth = (np.arange(2000) < 2000 * sick).astype(np.int64)
    z = rng.normal(truth, 1.0)
    monkeypatch.setattr(leave_out, "_of", lambda *_: (z, truth))
    point = {"temperature": 1.0, "points": {"balanced": {"threshold": 0.6, "uncertain_logit": 0.3}}}
    sensitivity, specificity, count = leave_out._at_site(None, None, "glaucoma", "eyes", point, (z, truth))
    assert count == pytest.approx(labels, rel=0.1)
    assert 0.5 < sensitivity < 0.9
    assert 0.5 < specificity < 0.9


def test_another_kind_is_refused(tmp_path):
    configs = Path(__file__).parents[3] / "training" / "configs"
    with pytest.raises(SettingsError, match="must be classifier"):
        leave_out.run(configs / "multitask-compact.toml", tmp_path / "out", tmp_path)
