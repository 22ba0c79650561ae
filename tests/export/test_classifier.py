import copy
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from funduscope.engine import contract, models, runners
from funduscope.engine.errors import ModelError, SettingsError
from funduscope.engine.readers.classifier import MapGridPart
from funduscope.export import onnx as export
from funduscope.training import train
from funduscope.training.classifier import config
from funduscope.training.classifier.networks import MAPS, OUTPUTS, Deployed

# torch.onnx meets its own deprecation
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
TEMPERATURES = {"glaucoma": 2.0, "referable_dr": 0.5, "any_dr": 1.25}


@pytest.fixture(scope="session")
def proto(classifier_network):
    """The classifier's graph, exported once."""
    deployed = Deployed(classifier_network, TEMPERATURES)
    return export.to_onnx(deployed.folded(), 64)


@pytest.fixture
def quick(proto, monkeypatch):
    """`export.export` without exporting the graph again."""
    monkeypatch.setattr(export, "to_onnx", lambda *_: copy.deepcopy(proto))
    return export.export


@pytest.fixture
def model(quick, classifier_run, photographs, tmp_path):
    written, report = quick(classifier_run, tmp_path / "two.onnx", photographs, name="two", version="0.1")
    assert report.passes()
    return written


def ran(proto, images):
    """The outputs of a graph on pictures, by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images}), strict=True))


def in_torch(deployed, images):
    with torch.inference_mode():
        outputs = deployed(torch.from_numpy(images))
    return {name: output.numpy() for name, output in zip(deployed.outputs, outputs, strict=True)}


def largest_difference(first, second):
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


def test_the_contract_of_a_classifier_reads_back(model, classifier_run, decisions):
    document = models.load(model.path).contract
    assert document == model.contract
    assert (document.kind, document.name, document.version, document.precision) == ("classifier", "two", "0.1", "fp32")
    assert document.model_dump()["decisions"] == decisions
    assert (document.point, document.disagreement) == ("balanced", 0.5)
    assert document.geometry == contract.GeometryPart(path="reduced-crop-pad-resize-2", size=64, fov_threshold=40)
    assert document.map_grid == MapGridPart(stride_px=32.0, offset_px=15.0)
    assert [output.name for output in document.outputs] == [*OUTPUTS, *MAPS]
    assert [output.shape for output in document.outputs] == [["batch"]] * 3 + [["batch", 2, 2]] * 3
    assert document.input.shape == ["batch", 64, 64, 3]
    assert document.training.model_dump() == json.loads((classifier_run / "calibration.json").read_text())["training"]
    assert document.terms.licence.startswith("research use only")


def test_a_calibration_of_other_weights_is_refused(classifier_run, photographs, tmp_path):
    state = train.load_checkpoint(classifier_run / "best.pt")[1]
    next(iter(state["network"].values())).mul_(1.01)
    train.save(state, classifier_run / "best.pt")
    with pytest.raises(SettingsError, match="run `funduscope calibrate"):
        export.export(classifier_run, tmp_path / "x.onnx", photographs, name="x", version="1")


def test_the_file_passes_the_gate_and_gives_what_torch_gives(model, classifier_network, images):
    deployed = Deployed(classifier_network, TEMPERATURES).eval()
    report = export.verify_export(deployed, model, images)
    assert report.passes(), report.lines()
    outputs, expected = ran(model.data, images), in_torch(deployed, images)
    assert largest_difference(outputs, expected) < 1e-4
    assert expected["glaucoma"].std() > 1e-3
    assert expected["glaucoma_map"].std() > 0.05


def test_the_gate_refuses_another_network_and_other_temperatures(model, classifier_network, images):
    other = copy.deepcopy(classifier_network)
    with torch.no_grad():
        other.network.fc.bias += 0.01
    for deployed in (Deployed(other, TEMPERATURES), Deployed(classifier_network, TEMPERATURES | {"any_dr": 1.26})):
        report = export.verify_export(deployed.eval(), model, images)
        assert not report.passes()
        assert report["max |d probability|"] > 1e-5


@pytest.mark.parametrize("amount", [0.02, np.nan])
def test_a_file_with_a_changed_weight_is_refused_and_removed(
    proto, classifier_run, photographs, tmp_path, monkeypatch, amount
):
    damaged = copy.deepcopy(proto)
    (bias,) = [tensor for tensor in damaged.graph.initializer if tensor.name.endswith("network.fc.bias")]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(amount), bias.name))
    monkeypatch.setattr(export, "to_onnx", lambda *_: damaged)
    message = "not finite +10 " if np.isnan(amount) else r"max \|d probability\| .* FAILS"
    with pytest.raises(ModelError, match=rf"refused: it differs from its reference(.|\n)*{message}"):
        export.export(classifier_run, tmp_path / "two.onnx", photographs, name="two", version="0.1")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_the_temperatures_are_in_the_graph(proto, classifier_network, images):
    with torch.inference_mode():
        logits = classifier_network(torch.from_numpy(images))
    outputs = ran(proto, images)
    for name, temperature in TEMPERATURES.items():
        z = logits[name].numpy() / temperature
        assert outputs[name] == pytest.approx(1 / (1 + np.exp(-z)), abs=1e-5)
        assert outputs[f"{name}_map"].mean(axis=(1, 2)) == pytest.approx(z, abs=1e-4)


def test_the_batch_is_symbolic_and_the_pixels_are_bytes_that_are_cast_first(proto):
    onnx.checker.check_model(proto, full_check=True)
    (images,) = proto.graph.input
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim] == ["batch", 64, 64, 3]
    assert [output.name for output in proto.graph.output] == [*OUTPUTS, *MAPS]
    (first,) = [node for node in proto.graph.node if "images" in node.input]
    assert first.op_type == "Cast"
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}


def test_the_same_picture_gives_the_same_row_in_any_batch(model, images):
    with runners.open_runner(model, "onnxruntime", max_batch=8, threads=1) as runner:
        together, alone = runner(images[:8]), runner(images[3:4])
        repeated = runner(np.repeat(images[3:4], 5, axis=0))
    for name in (*OUTPUTS, *MAPS):
        assert np.abs(together[name][3] - alone[name][0]).max() < 1e-5
        assert np.abs(repeated[name] - alone[name]).max() < 1e-5
        assert np.abs(together[name][2] - alone[name][0]).max() > 1e-5


def test_a_picture_and_its_grey_are_the_same_to_the_graph(proto, images, luma):
    grey = np.repeat(luma(images)[..., None], 3, axis=3)
    assert largest_difference(ran(proto, images), ran(proto, grey)) < 1e-6


def noise(size):
    """Three random pictures, one of them dark."""
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    images[1] //= 2
    return images


def settings(architecture, hidden, kind):
    return config.Network(
        architecture=architecture, input=kind, hidden=hidden, dropout=0.5, severity=False, imagenet=""
    )


EVERY = [
    ("small-cnn", 0),
    ("alexnet", 0),
    ("alexnet", 16),
    ("resnet18", 0),
    ("densenet121", 0),
    ("efficientnet-lite0", 0),
]


@pytest.mark.parametrize(
    ("architecture", "hidden", "size", "kind"),
    [
        ("small-cnn", 0, 208, "colour"),
        ("efficientnet-lite0", 0, 64, "contrast"),
        *(
            pytest.param(*own, marks=pytest.mark.slow)
            for own in (
                ("alexnet", 0, 64, "contrast"),
                ("alexnet", 0, 208, "colour"),
                ("alexnet", 16, 64, "contrast"),
                ("alexnet", 16, 208, "colour"),  # its dense layers see as many cells of any size
                ("resnet18", 0, 64, "contrast"),
                ("resnet18", 0, 208, "colour"),
                ("efficientnet-lite0", 0, 224, "colour"),
                ("densenet121", 0, 208, "colour"),
            )
        ),
    ],
)
def test_every_network_exports_at_any_size_and_agrees_with_torch(any_classifier, architecture, hidden, size, kind):
    deployed, model = any_classifier(architecture, hidden, size, kind)
    proto = onnx.load_from_string(model.data)
    images = noise(size)
    expected = in_torch(deployed, images)
    assert list(expected) == [*OUTPUTS, *(() if hidden else MAPS)]
    assert "Shape" not in {node.op_type for node in proto.graph.node}  # a GPU provider of ONNX Runtime has none
    assert largest_difference(ran(proto, images), expected) < 1e-4
    assert largest_difference(ran(proto, images[1:2]), {name: output[1:2] for name, output in expected.items()}) < 1e-4


@pytest.mark.parametrize(("architecture", "hidden"), EVERY)
def test_folding_keeps_the_outputs_and_the_network(untrained, architecture, hidden):
    deployed = Deployed(untrained(settings(architecture, hidden, "grey")), TEMPERATURES).eval()
    before = {name: tensor.clone() for name, tensor in deployed.state_dict().items()}
    images = noise(96)
    folded = deployed.folded()
    assert largest_difference(in_torch(deployed, images), in_torch(folded, images)) < 1e-4
    assert all(torch.equal(tensor, before[name]) for name, tensor in deployed.state_dict().items())
    norms = [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == (
        62 if architecture == "densenet121" else 0
    )  # before a convolution there is nothing to fold into


def test_folding_would_be_noticed_were_it_wrong(untrained):
    deployed = Deployed(untrained(settings("small-cnn", 0, "grey")), TEMPERATURES).eval()
    folded = deployed.folded()
    folded.network.network.blocks[2].conv.bias.data += 0.01
    images = noise(96)
    assert largest_difference(in_torch(deployed, images), in_torch(folded, images)) > 1e-4


@pytest.mark.parametrize("key", ["decisions", "point", "disagreement"])
def test_a_calibration_that_lacks_something_is_told_with_what_mends_it(classifier_run, key):
    file = classifier_run / "calibration.json"
    calibration = json.loads(file.read_text())
    del calibration[key]
    file.write_text(json.dumps(calibration))
    with pytest.raises(SettingsError, match=rf"its calibration lacks {key}; run `funduscope calibrate .*` again"):
        export.planned(classifier_run, "x", "1")


def test_a_network_with_dense_layers_has_no_maps_in_its_contract(untrained, classifier_settings, run_of):
    own = settings("alexnet", 8, "grey")
    changed = classifier_settings.model_copy(update={"network": own})
    plan = export.planned(run_of(untrained(own), changed), "two", "0.1")
    assert plan.document.map_grid is None
    assert [output.name for output in plan.document.outputs] == list(plan.network.outputs) == list(OUTPUTS)
    assert not plan.network.training


@pytest.mark.parametrize(
    ("architecture", "cells"),
    [("small-cnn", 7), ("alexnet", 13), ("resnet18", 7), ("densenet121", 7), ("efficientnet-lite0", 7)],
)
def test_the_contract_states_the_maps_sides(untrained, classifier_settings, run_of, architecture, cells):
    own = settings(architecture, 0, "grey")
    geometry = classifier_settings.geometry.model_copy(update={"size": 224, "cache": 224})
    changed = classifier_settings.model_copy(update={"network": own, "geometry": geometry})
    plan = export.planned(run_of(untrained(own), changed), "two", "0.1")
    stride, offset = plan.network.network.network.map_grid()
    assert plan.document.map_grid == MapGridPart(stride_px=stride, offset_px=offset)
    assert {tuple(output.shape) for output in plan.document.outputs[3:]} == {("batch", cells, cells)}
