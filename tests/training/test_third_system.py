"""A system that nothing knows of, added by its own parts and one line: trained, calibrated, exported and screened with."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from funduscope import Decision, Screener
from funduscope.engine.contract import Contract, Probability
from funduscope.engine.errors import SettingsError
from funduscope.engine.labelled import dataset
from funduscope.engine.pictures import photo, preprocess
from funduscope.engine.readers import READERS
from funduscope.engine.readers.column import Verdict
from funduscope.engine.readers.difference import Difference
from funduscope.engine.readers.reader import Reader
from funduscope.postprocess import metrics
from funduscope.training import config, settings, train
from funduscope.training.calibrate import calibrate as calibrate_run
from funduscope.training.provenance import provenance
from funduscope.training.system import Deployed, Deployment, System, output
from funduscope.training.systems import SYSTEMS

pytest.importorskip("onnxscript")
from funduscope.export import onnx as export

# torch.onnx meets its own deprecation
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")


class Redness(Contract):
    kind: Literal["redness"]
    threshold: Probability

    def needed(self):
        return ["redness"]


class RednessReader(Reader):
    contract: ClassVar = Redness
    verdicts: ClassVar = (Verdict("red_dr", "referable_dr", "red DR", "whether the picture is red"),)
    columns: ClassVar = ()
    point = None

    def __init__(self, document, point):
        self.geometry, self.threshold = document.geometry.build(), document.threshold

    def prepare(self, photo):
        return preprocess.prepare(photo, self.geometry)

    def read(self, found, outputs, prepared):
        p = float(outputs["redness"])
        decision = Decision("referable_dr", p, self.threshold, p >= self.threshold)
        return replace(found, decisions={**found.decisions, "red_dr": decision})

    def describe(self):
        return {}

    def differences(self, pairs, bounds):
        seen = max(abs(float(a["redness"] - b["redness"])) for a, b in pairs)
        return [Difference("max |d redness|", seen, bounds.probability)]


class Data(settings.Data):
    sets: list[settings.Set]


class Reading(settings.Strict):
    sensitivity: settings.Share


class Config(settings.BaseConfig):
    kind: Literal["redness"]
    data: Data
    schedule: settings.Schedule
    reading: Reading


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, images):
        return self.linear(images.float().mean(dim=(1, 2)) / 255)[:, 0]


class Red(Deployed):
    outputs = ("redness",)

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return (torch.sigmoid(self.network(images)),)

    def conv_norm_pairs(self):
        return []


def pairs_of(config, root):
    return [(sample, own) for own in config.data.sets for sample in dataset.load(root / own.path)]


def prepared(config, pairs, split):
    geometry = config.preparation(config.geometry.size).build()
    chosen = [sample for sample, _ in pairs if sample.split == split]
    images = np.stack([preprocess.prepare(photo.load(sample.image), geometry).image for sample in chosen])
    return torch.from_numpy(images), [sample.diseased("referable_dr") for sample in chosen]


class Job:
    curves: ClassVar = {"auc": "AUC"}

    def __init__(self, config, root):
        self.settings, self.pairs = config, pairs_of(config, root)

    def start(self, device, folder):
        self.network = Network()
        self.optimiser = torch.optim.Adam(self.network.parameters())
        self.taught, self.held = (prepared(self.settings, self.pairs, split) for split in ("train", "val"))

    def stream(self, first, last):
        return iter(range(first, last))

    def step(self, batch, lr):
        self.optimiser.param_groups[0]["lr"] = lr
        images, labels = self.taught
        loss = nn.functional.binary_cross_entropy_with_logits(self.network(images), torch.tensor(labels).float())
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return {"bce": float(loss.detach())}

    def validate(self):
        with torch.inference_mode():
            area = metrics.auc(self.network(self.held[0]).tolist(), self.held[1]).value
        return {"eyes": {"auc": area}}, area


def from_checkpoint(state):
    network = Network()
    network.load_state_dict(state["network"])
    return network


def calibrate(config, state, root, fit_on):
    pairs = pairs_of(config, root)
    images, labels = prepared(config, pairs, "val")
    with torch.inference_mode():
        scores = torch.sigmoid(from_checkpoint(state)(images)).double().numpy()
    threshold = metrics.threshold_of_sensitivity(
        scores, np.array(labels), config.reading.sensitivity, np.ones(len(labels))
    )
    return {"threshold": float(threshold), "training": provenance("mean", "bce", state, pairs, {})}


def deploy(config, state, calibration):
    fields = {"outputs": [output("redness")], "threshold": calibration["threshold"]}
    return Deployment(Red(from_checkpoint(state)).eval(), fields)


REDNESS = System(Config, Job, calibrate, frozenset({"threshold"}), deploy)


@pytest.fixture
def line(monkeypatch):
    """The line in the table of systems, and that in the table of readers."""
    monkeypatch.setitem(SYSTEMS, "redness", REDNESS)
    monkeypatch.setitem(READERS, "redness", RednessReader)


@pytest.fixture
def red_plan(plan):
    """The contents of its configuration."""
    shared = {key: plan[key] for key in ("seed", "geometry", "augment", "terms")}
    multitasks = {"strategy", "fovea_loss", "fovea_variance_px2"}
    schedule = {key: value for key, value in plan["schedule"].items() if key not in multitasks}
    sets = [{"path": "eyes", "terms": "drawn for tests"}]
    return shared | {
        "kind": "redness",
        "name": "red",
        "data": {"root": "graded", "workers": 1, "sets": sets},
        "schedule": schedule | {"steps": 40, "validate_every": 20, "lr": 0.1},
        "reading": {"sensitivity": 0.9},
    }


@pytest.mark.usefixtures("line")
def test_it_is_trained_calibrated_exported_and_screened_with(red_plan, write_config, graded_root, tmp_path):
    run = tmp_path / "run"
    assert train.train(write_config(red_plan), run, data_root=graded_root, device="cpu")
    assert cv2.imread(str(run / "curves.png")).std() > 0
    calibration = calibrate_run(run)
    pictures = sorted((graded_root / "eyes" / "images").iterdir())
    model, report = export.export(run, tmp_path / "red.onnx", pictures[:8], name="red", version="1")
    assert report.passes()
    assert isinstance(model.contract, Redness)
    assert model.contract.threshold == calibration["threshold"]
    assert model.contract.training.steps == train.load_checkpoint(run / "best.pt")[1]["step"]
    with Screener.open(model.path) as screener:
        called = [screener(path).decisions["red_dr"].called for path in pictures]
    assert set(called) == {True, False}


def test_without_its_line_it_is_refused_with_those_there_are(red_plan, write_config):
    with pytest.raises(SettingsError, match=r"'kind' is 'redness'; there are multi-task, disc, classifier"):
        config.load(write_config(red_plan))


@pytest.mark.usefixtures("line")
def test_its_configuration_is_strict_too(red_plan, write_config):
    with pytest.raises(SettingsError, match=r"  reading\.sensitivity: "):
        config.load(write_config(red_plan | {"reading": {"sensitivity": 2}}))
