"""What each system must have for the loop, calibration and export, whatever it is."""

import ast
from pathlib import Path

import pytest
import torch

from funduscope.engine.readers import READERS
from funduscope.training import systems
from funduscope.training.settings import BaseConfig
from funduscope.training.system import Deployed
from funduscope.training.systems import SYSTEMS

TRAINING = Path(systems.__file__).parent
GENERIC = ["config.py", "train.py", "calibrate.py", "system.py", "provenance.py", "../export/onnx.py"]


@pytest.fixture(params=SYSTEMS)
def kind(request):
    return request.param


def test_a_kind_that_is_trained_is_one_that_can_be_read(kind):
    assert kind in READERS


def test_a_configuration_states_its_kind_and_all_that_is_asked_of_it(kind):
    fields = SYSTEMS[kind].config.model_fields
    assert fields["kind"].annotation.__args__ == (kind,)
    assert {"data", "schedule", "reading"} <= fields.keys()
    assert issubclass(SYSTEMS[kind].config, BaseConfig)


def test_what_deployment_needs_of_a_calibration_goes_into_the_contract(kind):
    own = READERS[kind].contract.model_fields.keys() - READERS[kind].contract.__base__.model_fields.keys()
    assert SYSTEMS[kind].calibrated <= own


def named(path):
    """Names of systems, kinds and folders of systems that a file spells out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in SYSTEMS}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            origin = (node.module or "").split(".")
            found |= {"multitask", "classifier"}.intersection([*origin, *(alias.name for alias in node.names)])
    return found


@pytest.mark.parametrize("name", GENERIC)
def test_what_serves_all_systems_names_none(name):
    assert named(TRAINING / name) == set()


def test_the_table_does_name_them():  # the test above can fail
    assert named(TRAINING / "systems.py") == {"multitask", "classifier", *SYSTEMS}


class Norms(Deployed):
    """Two convolutions, of which one has a BatchNorm."""

    outputs = ("sum",)

    def __init__(self):
        super().__init__()
        self.first, self.norm = torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2)
        self.second = torch.nn.Conv2d(2, 1, 1)
        torch.nn.init.normal_(self.norm.running_mean)

    def forward(self, images):
        x = images.float().permute(0, 3, 1, 2) / 255
        return (self.second(self.norm(self.first(x))).sum(dim=(1, 2, 3)),)

    def conv_norm_pairs(self):
        return [("first", "norm")]


def test_folding_gives_the_same_without_the_norm():
    torch.manual_seed(0)
    network = Norms()
    folded = network.folded()
    images = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    with torch.no_grad():
        before, after = network.eval()(images)[0], folded(images)[0]
    torch.testing.assert_close(before, after)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert isinstance(network.norm, torch.nn.BatchNorm2d)
    assert not folded.training
