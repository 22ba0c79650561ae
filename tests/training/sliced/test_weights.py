import pytest
import torch

from funduscope.engine.errors import SettingsError
from funduscope.training import train
from funduscope.training.multitask.networks import MultiTaskUNet
from funduscope.training.sliced import weights


@pytest.fixture
def run(tmp_path, plan, build):
    torch.manual_seed(0)
    folder = tmp_path / "run"
    folder.mkdir()
    state = {"config": build(plan).model_dump_json(), "step": 4, "network": MultiTaskUNet(0.125, 0.5).state_dict()}
    train.save(state, folder / "best.pt")
    return folder


def test_weights_travel_in_parts_and_come_back(run, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PART_BYTES", 300_000)
    parts = weights.pack(run, tmp_path / "parts")
    assert len(parts) > 1
    assert all(part.stat().st_size <= 300_000 for part in parts)
    assert sorted((tmp_path / "parts").iterdir()) == parts

    settings, back = train.load_checkpoint(weights.unpack(tmp_path / "parts", tmp_path / "back"))
    own_settings, own = train.load_checkpoint(run / "best.pt")
    assert settings == own_settings
    assert back["step"] == 4
    assert back["network"].keys() == own["network"].keys()
    for name, tensor in own["network"].items():
        expected = tensor.half().float() if tensor.dim() == 4 else tensor
        assert back["network"][name].dtype == tensor.dtype
        assert torch.equal(back["network"][name], expected), name


def test_a_missing_part_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PART_BYTES", 300_000)
    weights.pack(run, tmp_path / "parts")[1].unlink()
    with pytest.raises(SettingsError, match="not a Funduscope checkpoint"):
        weights.unpack(tmp_path / "parts", tmp_path / "back")
