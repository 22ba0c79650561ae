import pytest
import torch

from funduscope.engine.errors import SettingsError
from funduscope.training import pretrained, train
from funduscope.training.classifier.job import ClassifierJob
from funduscope.training.classifier.networks import Classifier
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


def test_another_run_starts_from_the_whole_of_a_network(classifier_plan, build_classifier, graded_root, tmp_path):
    torch.manual_seed(0)
    own = build_classifier(classifier_plan)
    network = Classifier(own.network)
    train.save({"config": own.model_dump_json(), "step": 4, "network": network.state_dict()}, tmp_path / "best.pt")
    file = weights.write(tmp_path, tmp_path / "start.safetensors")
    assert file.stat().st_size < (tmp_path / "best.pt").stat().st_size * 0.7

    changed = classifier_plan | {"network": classifier_plan["network"] | {"start": file.name}}
    changed["geometry"] = classifier_plan["geometry"] | {"size": 96, "cache": 96}
    job = ClassifierJob(build_classifier(changed), graded_root)
    job.start(torch.device("cpu"), tmp_path)
    for name, tensor in network.state_dict().items():
        expected = tensor.half().float() if tensor.dim() == 4 else tensor
        assert torch.equal(job.network.state_dict()[name], expected.to(tensor.dtype)), name
    assert all(tensor.dtype == torch.float32 for tensor in pretrained.load(file).values())
