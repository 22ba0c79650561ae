import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from funduscope.engine.errors import DataError, SettingsError
from funduscope.training import train
from funduscope.training.classifier.halfway import halfway
from funduscope.training.classifier.networks import Classifier


@pytest.fixture
def finished_at(tmp_path):
    """Write a run whose best network is of these settings, with its data below a folder."""

    def write(settings, root):
        torch.manual_seed(0)
        network = Classifier(settings.network)
        own = train.with_root(settings, root)
        train.save({"config": own.model_dump_json(), "step": 4, "network": network.state_dict()}, tmp_path / "best.pt")
        return network.state_dict()

    return write


def test_each_weight_is_the_mean_of_both(plan, build, finished_at, graded_root, tmp_path):
    own = finished_at(build(plan), graded_root)
    start = {name: torch.randn_like(tensor) if tensor.is_floating_point() else tensor for name, tensor in own.items()}
    save_file(start, tmp_path / "start.safetensors")
    assert halfway(tmp_path, tmp_path / "start.safetensors") == tmp_path / "best.pt"
    settings, state = train.load_checkpoint(tmp_path / "best.pt")
    assert (settings.kind, state["step"]) == ("classifier", 4)
    for name, tensor in state["network"].items():
        expected = (own[name] + start[name]) / 2 if tensor.is_floating_point() else own[name]
        torch.testing.assert_close(tensor, expected)


def test_lesions_that_the_start_did_not_know_are_found_anew_and_speak_half_as_loud(
    drawn,
    build,
    finished_at,
    graded_root,
    tmp_path,
):
    own = finished_at(build(drawn), graded_root)
    own["network.evidence.weight"] = nn.init.normal_(own["network.evidence.weight"])
    _, state = train.load_checkpoint(tmp_path / "best.pt")
    train.save({**state, "network": own}, tmp_path / "best.pt")
    start = {name: tensor for name, tensor in own.items() if "lesions" not in name and "evidence" not in name}
    save_file(start, tmp_path / "start.safetensors")
    halfway(tmp_path, tmp_path / "start.safetensors")
    mean = train.load_checkpoint(tmp_path / "best.pt")[1]["network"]
    torch.testing.assert_close(mean["network.evidence.weight"], own["network.evidence.weight"] / 2)
    assert not torch.equal(mean["network.lesions.weight"], own["network.lesions.weight"])
    assert torch.equal(mean["network._fc.weight"], own["network._fc.weight"])
    assert torch.equal(mean["network._bn1.running_mean"], own["network._bn1.running_mean"])


def test_what_is_no_start_of_the_run_is_refused_and_the_run_stays(plan, build, finished_at, graded_root, tmp_path):
    own = finished_at(build(plan), graded_root)
    before = (tmp_path / "best.pt").read_bytes()
    for change, told in (
        ({"network.fc.bias": own["network.fc.bias"].repeat(2)}, r"network\.fc\.bias is of"),
        (None, "it has no"),
    ):
        save_file(own | change if change else {"features.weight": torch.zeros(1)}, tmp_path / "x.safetensors")
        with pytest.raises(SettingsError, match=rf"x\.safetensors: is not where .* started: {told}"):
            halfway(tmp_path, tmp_path / "x.safetensors")
    with pytest.raises(SettingsError, match="missing"):
        halfway(tmp_path, tmp_path / "missing.safetensors")
    assert (tmp_path / "best.pt").read_bytes() == before


def test_lesions_need_their_drawings(drawn, build, finished_at, tmp_path):
    own = finished_at(build(drawn), tmp_path / "nowhere")
    save_file(own, tmp_path / "start.safetensors")
    with pytest.raises(DataError):
        halfway(tmp_path, tmp_path / "start.safetensors")
