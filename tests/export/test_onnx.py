import copy
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from funduscope.engine import contract, models, runners
from funduscope.engine.errors import ModelError, SettingsError
from funduscope.engine.gate import comparison as gate
from funduscope.engine.gate import pictures
from funduscope.engine.gate.verify import reader_of
from funduscope.engine.pictures import preprocess
from funduscope.engine.readers.difference import FP32
from funduscope.export import onnx as export
from funduscope.export.stamp import stamp
from funduscope.training.multitask import deploy
from funduscope.training.multitask.networks import OUTPUTS, Deployed

# torch.onnx meets its own deprecation
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")


@pytest.fixture(scope="session")
def proto(network):
    """The network's graph, exported once."""
    return export.to_onnx(Deployed(network).folded(), 64)


@pytest.fixture
def quick(proto, monkeypatch):
    """`export.export` without exporting the graph again."""
    monkeypatch.setattr(export, "to_onnx", lambda *_: copy.deepcopy(proto))
    return export.export


@pytest.fixture
def model(quick, run, photographs, tmp_path):
    written, report = quick(run, tmp_path / "tiny.onnx", photographs, name="tiny", version="0.1")
    assert report.passes()
    return written


def in_torch(deployed):
    def reference(batch):
        with torch.inference_mode():
            return {n: o.numpy() for n, o in zip(OUTPUTS, deployed(torch.from_numpy(batch)), strict=True)}

    return reference


def compared(network, model, images, batch):
    with runners.open_runner(model, "onnxruntime", max_batch=batch, threads=1) as runner:
        return gate.verify_outputs(in_torch(Deployed(network)), runner, images, reader_of(model), FP32, [batch])


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_an_exported_network_passes_the_gate_at_any_batch(network, model, images, batch):
    report = compared(network, model, images, batch)
    assert report.passes(), report.lines()
    assert report.pictures == 10


def test_the_gate_had_something_to_compare(network, images):
    outputs = in_torch(Deployed(network))(images)
    assert (outputs["disc"].max(axis=(1, 2)) > 0.6).all()
    assert (outputs["cup"].max(axis=(1, 2)) > 0.6).all()
    assert (outputs["fovea"].max(axis=(1, 2)) > 0.2).all()


def test_another_network_does_not_pass(network, model, images):
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.heads["disc"].bias += 0.2
        other.glaucoma[1].bias += 0.1
    report = compared(other, model, images, 8)
    assert not report.passes()
    assert report["max |d probability|"] > FP32.probability


def test_the_gate_of_an_export_is_between_the_network_and_its_file(network, model, images):
    report = export.verify_export(Deployed(network), model, images)
    assert report.passes(), report.lines()
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.heads["disc"].bias += 0.2
    assert not export.verify_export(Deployed(other), model, images).passes()


def test_the_batch_is_symbolic_and_the_pixels_are_bytes(proto):
    (images,) = proto.graph.input
    assert images.name == "images"
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim] == ["batch", 64, 64, 3]
    assert [output.name for output in proto.graph.output] == ["disc", "cup", "fovea", "glaucoma"]
    for output in proto.graph.output:
        assert output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert output.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_graph_is_valid_folded_and_casts_before_it_transposes(proto):
    onnx.checker.check_model(proto, full_check=True)
    operators = Counter(node.op_type for node in proto.graph.node)
    assert "BatchNormalization" not in operators
    assert operators["Conv"] == 13 + 8 + 3
    (first,) = [node for node in proto.graph.node if "images" in node.input]
    assert first.op_type == "Cast"
    assert [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")] == [export.OPSET]


def test_no_trace_of_the_machine_is_in_the_file(model):
    assert str(Path(export.__file__).parents[1]).encode() not in model.data
    assert b"site-packages" not in model.data
    loaded = onnx.load_from_string(model.data)
    assert [entry.key for entry in loaded.metadata_props] == [contract.METADATA_KEY]
    assert not any(node.doc_string or node.metadata_props for node in loaded.graph.node)


def test_the_same_picture_gives_the_same_row_in_any_batch(model, images):
    with runners.open_runner(model, "onnxruntime", max_batch=8, threads=1) as runner:
        together, alone = runner(images[:8]), runner(images[3:4])
        repeated = runner(np.repeat(images[3:4], 5, axis=0))
    for name in OUTPUTS:
        assert np.abs(together[name][3] - alone[name][0]).max() < 1e-5
        assert np.abs(repeated[name] - alone[name]).max() < 1e-5
        assert np.abs(together[name][2] - alone[name][0]).max() > 1e-5


def test_folding_keeps_the_outputs_and_the_network(network, images):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = Deployed(network).folded()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    first, second = in_torch(Deployed(network))(images), in_torch(folded)(images)
    assert all(np.abs(first[name] - second[name]).max() < 1e-4 for name in OUTPUTS)


def test_the_contract_holds_the_calibration(model, run):
    document, calibration = model.contract, json.loads((run / "calibration.json").read_text())
    assert (document.name, document.version, document.precision) == ("tiny", "0.1", "fp32")
    assert document.rules.model_dump() == calibration["rules"]
    assert document.glaucoma_threshold == calibration["glaucoma_threshold"]
    assert document.training.model_dump() == calibration["training"]
    assert (document.geometry.size, document.geometry.fov_threshold) == (64, 24)
    assert models.load(model.path) == model
    assert (document.kind, document.geometry.path) == ("multi-task", "reduced-crop-pad-resize-2")


def test_a_run_that_is_not_calibrated_is_refused(run, photographs, tmp_path):
    (run / "calibration.json").unlink()
    with pytest.raises(SettingsError, match="not calibrated; run `funduscope calibrate"):
        export.export(run, tmp_path / "tiny.onnx", photographs, name="tiny", version="0.1")


def test_a_run_without_a_checkpoint_is_refused(run, photographs, tmp_path):
    (run / "best.pt").unlink()
    with pytest.raises(SettingsError, match="no such checkpoint"):
        export.export(run, tmp_path / "tiny.onnx", photographs, name="tiny", version="0.1")


def test_a_file_that_fails_the_gate_is_refused_and_removed(proto, run, photographs, tmp_path, monkeypatch):
    damaged = copy.deepcopy(proto)
    (bias,) = [tensor for tensor in damaged.graph.initializer if tensor.name.endswith("heads.disc.bias")]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.5), bias.name))
    monkeypatch.setattr(export, "to_onnx", lambda *_: damaged)
    with pytest.raises(ModelError, match=r"refused: it differs from its reference(.|\n)*mask Dice"):
        export.export(run, tmp_path / "tiny.onnx", photographs, name="tiny", version="0.1")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_pictures_that_cannot_be_read_are_left_out_of_the_gate(photographs, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    geometry = preprocess.Geometry(64, 24)
    assert len(pictures.prepared([tmp_path / "broken.jpg", *photographs[:2]], geometry)) == 2
    with pytest.raises(SettingsError, match="at least one readable photograph"):
        pictures.prepared([tmp_path / "broken.jpg"], geometry)


def test_an_exported_file_becomes_a_network_in_torch_again(model, images, network):
    back = deploy.from_weights(export.weights_of(model))
    with torch.inference_mode():
        outputs = dict(zip(OUTPUTS, back(torch.from_numpy(images)), strict=True))
    expected = in_torch(Deployed(network))(images)
    assert all(np.abs(outputs[name].numpy() - expected[name]).max() < 1e-4 for name in OUTPUTS)


def test_a_foreign_file_does_not_become_a_network(graph, document, tmp_path):
    foreign = stamp(graph, document, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="do not have the names"):
        deploy.from_weights(export.weights_of(foreign))
