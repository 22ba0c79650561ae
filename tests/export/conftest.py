"""Tiny networks of both systems that have learned a little, and a graph small enough to stamp by hand."""

import functools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import nn

from funduscope.engine import contract
from funduscope.engine.pictures import preprocess
from funduscope.engine.pictures.photo import Photo
from funduscope.engine.readers.multitask import MultiTask
from funduscope.export import onnx as export
from funduscope.export.stamp import stamp
from funduscope.training import config, train
from funduscope.training.classifier.networks import OUTPUTS, Classifier
from funduscope.training.multitask import batches
from funduscope.training.multitask.networks import MultiTaskUNet

SIZE = 64
RULES = {
    "disc_threshold": 0.5,
    "cup_threshold": 0.5,
    "fovea_mode": "robust",
    "fovea_min_peak": 0.1,
    "vcdr_coefficient": 8.0,
    "vcdr_intercept": -4.0,
}
TRAINING = {"network": "tiny", "strategy": "sum", "steps": 60, "device": "CPU", "data": [], "figures": {}}


@pytest.fixture(scope="session")
def photographs(fundus, tmp_path_factory):
    """Ten files with drawn eyes."""
    folder = tmp_path_factory.mktemp("photographs")
    paths = [folder / f"eye{k}.png" for k in range(10)]
    for k, path in enumerate(paths):
        cv2.imwrite(str(path), fundus(180, 200, k)[..., ::-1])
    return paths


@pytest.fixture(scope="session")
def images(photographs):
    """The eyes as the engine prepares them: uint8 (10, 64, 64, 3)."""
    eyes = [cv2.imread(str(path))[..., ::-1] for path in photographs]
    geometry = preprocess.Geometry(SIZE, 24)
    return np.stack([preprocess.prepare(Photo(np.ascontiguousarray(eye), "eye"), geometry).image for eye in eyes])


@pytest.fixture(scope="session")
def network(images):
    """A tiny network after fifty steps: the maps of an untrained one are noise, which no tolerance fits."""
    torch.manual_seed(0)
    network = MultiTaskUNet(0.125, 0.0)
    green = torch.from_numpy(images[..., 1])
    fovea = torch.from_numpy(batches.gaussian_map(20.0, 32.0, SIZE, 20.0))
    targets = {
        "glaucoma": torch.arange(len(images)) % 2,
        "disc": green > 135,
        "cup": green > 212,
        "fovea": fovea.expand(len(images), -1, -1),
    }
    weights = {"glaucoma": 1.0, "disc": 30.0, "cup": 150.0, "fovea": 30.0}  # of the few pixels that show something
    adam = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(50):
        logits = network(torch.from_numpy(images))
        loss = sum(
            F.binary_cross_entropy_with_logits(logits[task], targets[task].float(), pos_weight=torch.tensor(weight))
            for task, weight in weights.items()
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
    return network.eval()


def write_run(folder, network):
    """The multi-task network as a finished and calibrated run in a new folder."""
    shipped = config.load(Path(config.__file__).parent / "configs" / "multitask-compact.toml")
    parts = {
        "network": shipped.network.model_copy(update={"width": 0.125}),
        "geometry": shipped.geometry.model_copy(update={"size": SIZE}),
    }
    state = {"config": shipped.model_copy(update=parts).model_dump_json(), "step": 60, "network": network.state_dict()}
    folder.mkdir()
    train.save(state, folder / "best.pt")
    calibration = {"rules": RULES, "glaucoma_threshold": 0.5, "training": TRAINING}
    calibration["network"] = train.digest(network.state_dict())
    (folder / "calibration.json").write_text(json.dumps(calibration))
    return folder


@pytest.fixture
def run(network, tmp_path):
    """The network as a finished and calibrated run."""
    return write_run(tmp_path / "run", network)


@pytest.fixture(scope="session")
def tiny(network, tmp_path_factory):
    """The network's file, exported once; for what is done to files afterwards."""
    return exported(write_run(tmp_path_factory.mktemp("tiny") / "run", network))


def exported(run):
    """A run's file beside it, without the gate."""
    plan = export.planned(run, "tiny", "0.1")
    proto = export.to_onnx(plan.network.folded(), plan.document.geometry.size)
    return stamp(proto, plan.document, run.with_suffix(".onnx"))


def decision(temperature, low, middle, high):
    """As a calibration has it."""
    rate = {"value": 0.9, "low": 0.8, "high": 0.95}
    thresholds = {"high_sensitivity": low, "balanced": middle, "high_specificity": high}
    rates = {"uncertain_logit": 0.2, "sensitivity": rate, "specificity": rate}
    points = {name: {"threshold": threshold, **rates} for name, threshold in thresholds.items()}
    return {"temperature": temperature, "points": points, "map_scale": 1.5}


@pytest.fixture(scope="session")
def decisions():
    """How the three outputs of the classifier are read."""
    parts = ((2.0, 0.2, 0.5, 0.8), (0.5, 0.3, 0.4, 0.6), (1.25, 0.1, 0.2, 0.3))
    return {name: decision(*own) for name, own in zip(OUTPUTS, parts, strict=True)}


@pytest.fixture(scope="session")
def classifier_settings():
    """The shipped configuration at a tiny size."""
    shipped = config.load(Path(config.__file__).parent / "configs" / "classifier-source.toml")
    return shipped.model_copy(update={"geometry": shipped.geometry.model_copy(update={"size": SIZE, "cache": SIZE})})


@pytest.fixture(scope="session")
def classifier_network(classifier_settings, images):
    """The small CNN after a few steps, with which its logits move away from one another."""
    torch.manual_seed(0)
    network = Classifier(classifier_settings.network)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    labels = torch.arange(len(images)) % 2
    for _ in range(10):
        logits = network(torch.from_numpy(images))
        loss = sum(F.binary_cross_entropy_with_logits(z, labels.float()) for z in logits.values())
        adam.zero_grad()
        loss.backward()
        adam.step()
    return network.eval()


def write_classifier_run(folder, network, settings, decisions):
    """A classifier as a finished and calibrated run in a new folder."""
    folder.mkdir()
    weights = network.state_dict()
    train.save({"config": settings.model_dump_json(), "step": 60, "network": weights}, folder / "best.pt")
    calibration = {"decisions": decisions, "point": "balanced", "disagreement": 0.5, "training": TRAINING}
    calibration["network"] = train.digest(weights)
    (folder / "calibration.json").write_text(json.dumps(calibration))
    return folder


@pytest.fixture
def run_of(decisions, tmp_path):
    """A network of a classifier as a finished and calibrated run."""
    return lambda network, settings: write_classifier_run(tmp_path / "own", network, settings, decisions)


@pytest.fixture
def classifier_run(classifier_network, classifier_settings, decisions, tmp_path):
    """The classifier as a finished and calibrated run."""
    return write_classifier_run(tmp_path / "classifier", classifier_network, classifier_settings, decisions)


@pytest.fixture(scope="session")
def tiny_classifier(classifier_network, classifier_settings, decisions, tmp_path_factory):
    """The classifier's file, exported once."""
    folder = tmp_path_factory.mktemp("tiny") / "classifier"
    return exported(write_classifier_run(folder, classifier_network, classifier_settings, decisions))


def draw_untrained(settings):
    """A network with statistics of its own, so that folding has something to fold, with biases, as those of 0 would not be in
    a file, and with logits of about 1."""
    torch.manual_seed(0)
    network = Classifier(settings)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.25)
            nn.init.uniform_(module.weight, 0.8, 1.25)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.05)
    *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    noise = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        last.weight /= torch.stack(list(network.eval()(noise).values())).abs().max()
    return network


@pytest.fixture(scope="session")
def untrained():
    """The function `draw_untrained(settings)`."""
    return draw_untrained


@pytest.fixture(scope="session")
def any_classifier(classifier_settings, decisions, tmp_path_factory):
    """The function (architecture, hidden, size, kind) -> an untrained network as it is deployed, and its file; each is
    exported once."""

    @functools.cache
    def make(architecture, hidden, size, kind):
        own = classifier_settings.network.model_copy(
            update={"architecture": architecture, "hidden": hidden, "input": kind, "severity": True}
        )
        geometry = classifier_settings.geometry.model_copy(update={"size": size, "cache": size})
        settings = classifier_settings.model_copy(update={"network": own, "geometry": geometry})
        folder = tmp_path_factory.mktemp("any") / architecture
        run = write_classifier_run(folder, draw_untrained(own), settings, decisions)
        return export.planned(run, "any", "0.1").network, exported(run)

    return make


@pytest.fixture
def document():
    """A contract for `graph`."""
    maps = [{"name": name, "dtype": "float32", "shape": ["batch", 8, 8]} for name in ("disc", "cup", "fovea")]
    return MultiTask.model_validate(
        {
            "format": contract.FORMAT,
            "sha256": contract.ZEROS,
            "kind": "multi-task",
            "name": "tiny",
            "version": "1",
            "precision": "fp32",
            "input": {"name": "images", "dtype": "uint8", "shape": ["batch", 8, 8, 3]},
            "outputs": [*maps, {"name": "glaucoma", "dtype": "float32", "shape": ["batch"]}],
            "geometry": {"path": "reduced-crop-pad-resize-2", "size": 8, "fov_threshold": 24},
            "rules": RULES,
            "glaucoma_threshold": 0.5,
            "training": TRAINING,
            "terms": {"licence": "none", "notice": "Übung"},
        }
    )


@pytest.fixture
def graph():
    """An ONNX model: three weighted means over the channels, and one over everything."""
    batch, images = "batch", helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 8, 3])
    nodes = [helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT)]
    initializers = [helper.make_tensor("last", TensorProto.INT64, [1], [-1])]
    initializers.append(helper.make_tensor("rest", TensorProto.INT64, [3], [1, 2, 3]))
    for k, name in enumerate(("disc", "cup", "fovea")):
        initializers.append(helper.make_tensor(f"{name}_weight", TensorProto.FLOAT, [], [0.001 * (k + 1)]))
        nodes.append(helper.make_node("Mul", ["pixels", f"{name}_weight"], [f"{name}_scaled"]))
        nodes.append(helper.make_node("ReduceMean", [f"{name}_scaled", "last"], [name], keepdims=0))
    nodes.append(helper.make_node("ReduceMean", ["disc_scaled", "rest"], ["glaucoma"], keepdims=0))
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, 8, 8]) for n in ("disc", "cup", "fovea")]
    outputs.append(helper.make_tensor_value_info("glaucoma", TensorProto.FLOAT, [batch]))
    made = helper.make_graph(nodes, "tiny", [images], outputs, initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
