"""The source's comparison with tiny settings: every network is trained, cut and gone on with, and the table has its rows."""

import json

import numpy as np
import pytest

from funduscope.engine.errors import SettingsError
from funduscope.engine.labelled.sample import Masks, Sample
from funduscope.training import config, train
from funduscope.training.cases import Case
from funduscope.training.multitask import compare, job


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    monkeypatch.setattr(train.curves, "draw", lambda *_: None)


def test_a_patient_is_in_one_part_and_the_test_split_stays(pictures, plan, write_config):
    settings = config.load(write_config(plan))
    pairs = job.load_samples(settings, pictures)
    for folds in (2, 3):
        parts = [compare.folded(pairs, fold, folds) for fold in range(folds)]
        for part in parts:
            assert [s.split == "test" for s, _ in part] == [s.split == "test" for s, _ in pairs]
        held = [
            sum(part[k][0].split == "val" for part in parts) for k in range(len(pairs)) if pairs[k][0].split != "test"
        ]
        assert held == [1] * len(held)  # each in one fold


def test_each_task_alone_and_all_by_each_strategy(plan, write_config):
    found = dict(compare.variants(config.load(write_config(plan))))
    assert list(found) == ["glaucoma", "disc", "cup", "fovea", "sum", "alternating", "mtl-io"]
    assert [list(found[task].data.batch) for task in ("disc", "cup")] == [["disc"], ["cup"]]
    assert found["disc"].data.sets[0].weights == {"disc": 1.0}
    assert [found[own].schedule.strategy for own in compare.STRATEGIES] == list(compare.STRATEGIES)


def test_it_stops_and_goes_on_and_takes_no_other_runs_for_its_own(pictures, plan, write_config, tmp_path, monkeypatch):
    path, out = write_config(plan | {"schedule": plan["schedule"] | {"steps": 2}}), tmp_path / "out"
    assert "| mtl-io | 0 |" in compare.run(path, out, pictures, folds=2, minutes=0.0)
    page = compare.run(path, out, pictures, folds=2)
    lines = page.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["one network a task", *compare.STRATEGIES]
    assert all(line.split("|")[2].strip() == "2" for line in lines[2:])
    rows = json.loads((out / "results.json").read_text())
    assert all(
        {"disc_dice", "cup_dice", "vcdr_error", "fovea_error", "auc"} <= own.keys()
        for row in rows.values()
        for own in row
    )
    monkeypatch.setattr(train, "run", None)  # nothing is trained any more
    assert compare.run(path, out, pictures, folds=2) == page
    assert (out / "tables.md").read_text() == page
    assert "| mtl-io | 0 |" in compare.run(path, out, pictures, folds=3, minutes=0.0)  # has runs of its own
    path = write_config(plan | {"schedule": plan["schedule"] | {"steps": 3}})
    with pytest.raises(SettingsError, match="schedule changed"):
        compare.run(path, out, pictures, folds=2)


def test_maps_are_read_as_they_were_kept(tmp_path):
    rng = np.random.default_rng(0)
    maps = [
        {name: rng.random((8, 8), np.float32) for name in compare.MAPS} | {"glaucoma": np.float32(0.25)}
        for _ in range(3)
    ]
    shown = [Case(Sample(tmp_path / f"{k}.png", "eyes", "test"), None, None, None, 8.0) for k in range(3)]
    np.savez(tmp_path / "maps.npz", pictures=compare._names(shown), **compare._packed(maps))
    with pytest.raises(SettingsError, match="of other pictures"):
        compare.kept(tmp_path, ["disc"], shown[::-1])
    for own, back in zip(maps, compare.kept(tmp_path, ["disc", "glaucoma"], shown), strict=True):
        assert np.abs(own["disc"] - back["disc"]).max() <= 0.5 / 255 + 1e-6
        assert back["glaucoma"] == own["glaucoma"]


def test_one_fold_is_none(plan, write_config, tmp_path):
    with pytest.raises(SettingsError, match="take 2 or more"):
        compare.run(write_config(plan), tmp_path / "out", tmp_path, folds=1)


def test_a_task_that_is_missing_is_named(plan, write_config, tmp_path):
    batch = {"glaucoma": 2, "disc": 2}
    with pytest.raises(SettingsError, match=r"data\.batch lacks cup, fovea"):
        compare.run(write_config(plan | {"data": plan["data"] | {"batch": batch}}), tmp_path / "out", tmp_path)


def test_a_disc_that_is_not_found_counts_against_the_score_from_the_vcdr(plan, write_config, tmp_path):
    """Ten sick eyes and ten healthy ones; the discs of the sick are found, and of one healthy eye."""
    base = config.load(write_config(plan))
    shown, maps = [], []
    for k in range(40):
        sick, split = k % 2, "val" if k < 20 else "test"
        sample = Sample(tmp_path / f"{k}.png", "eyes", split, glaucoma=sick)
        masks = Masks(np.zeros((64, 64), bool), np.zeros((64, 64), bool))
        found = np.zeros((64, 64), np.float32)
        found[20:44, 20:44] = sick or k in (0, 20)
        cup = np.zeros_like(found)
        cup[26:38, 26:38] = found[26:38, 26:38]
        shown.append(Case(sample, None, masks, None, 64.0))
        maps.append({"disc": found, "cup": cup, "fovea": found, "glaucoma": np.float32(0.5)})
    figures = compare.figures(base, shown, maps)["eyes"]
    assert figures["auc_vcdr"] == pytest.approx(0.95)  # one of the ten healthy is level with the sick
    assert figures["auc_mean"] == pytest.approx(0.95)
