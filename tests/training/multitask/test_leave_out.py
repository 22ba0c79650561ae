"""Each set left out in turn, with tiny settings."""

import json
import shutil
from pathlib import Path

import pytest

from funduscope.engine.errors import SettingsError
from funduscope.training import train
from funduscope.training.multitask import leave_out


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    monkeypatch.setattr(train.curves, "draw", lambda *_: None)


@pytest.fixture
def given(plan, write_config, drawn_root, edit_rows, tmp_path):
    """A configuration with the drawn set twice, a folder, and the data."""

    def change(rows):
        for k, row in enumerate(rows):
            row["split"] = "train" if k < 4 else "val" if k < 6 else "test"

    edit_rows(change)
    (first,) = plan["data"]["sets"]
    shutil.copytree(drawn_root / first["path"], drawn_root / "others")
    plan = plan | {"data": plan["data"] | {"sets": [first, first | {"path": "others"}]}}
    plan["schedule"] |= {"steps": 2}
    return write_config(plan), tmp_path / "out", drawn_root


def test_every_set_has_its_figures_and_a_second_call_trains_nothing(given, monkeypatch):
    page = leave_out.run(*given)
    rows = json.loads((given[1] / "results.json").read_text())
    assert len(rows) == 2
    for row in rows.values():
        assert row["seen"].keys() == row["unseen"].keys()
        assert {"disc_dice", "cup_dice", "vcdr_error", "fovea_error", "auc"} <= row["seen"].keys()
    assert len(page.splitlines()) >= 2 + 2 * 5
    state = train.load_checkpoint(given[1] / "others" / "best.pt")[0]
    assert "others" not in [own.path for own in state.data.sets]
    monkeypatch.setattr(train, "run", None)
    assert leave_out.run(*given) == page


def test_it_stops_and_goes_on(given):
    assert len(leave_out.run(*given, minutes=0.0).splitlines()) == 2
    assert len(leave_out.run(*given).splitlines()) > 2


def test_another_kind_is_refused(tmp_path):
    configs = Path(__file__).parents[3] / "training" / "configs"
    with pytest.raises(SettingsError, match="must be multi-task"):
        leave_out.run(configs / "classifier-compact.toml", tmp_path / "out", tmp_path)
