"""FP16 as a step from ONNX to ONNX: what becomes half, what must not, and what a refusal leaves."""

import subprocess
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from funduscope.engine import models
from funduscope.engine.errors import ModelError
from funduscope.engine.readers.difference import FP16
from funduscope.export import convert, half

# torch.onnx meets its own deprecation
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
ALWAYS_FLOAT = {"Sigmoid", "Softmax", "ReduceSum", "ReduceMean", "GlobalAveragePool"}
ANY = [  # architecture, hidden, size, kind of pixels: files that other tests export as well
    pytest.param(("small-cnn", 0, 208, "colour"), marks=pytest.mark.slow),
    pytest.param(("alexnet", 16, 64, "contrast"), marks=pytest.mark.slow),
    pytest.param(("resnet18", 0, 64, "contrast"), marks=pytest.mark.slow),
    pytest.param(("densenet121", 0, 208, "colour"), marks=pytest.mark.slow),
]


def label(parameter):
    return parameter if isinstance(parameter, str) else "-".join(map(str, parameter))


@pytest.fixture(scope="module", params=["tiny", "tiny_classifier", *ANY], ids=label)
def model(request, any_classifier):
    """An fp32 file of each network."""
    if isinstance(request.param, str):
        return request.getfixturevalue(request.param)
    _, model = any_classifier(*request.param)
    return model


@pytest.fixture(scope="module")
def pictures(model, images):
    """The eyes, as large as the network takes them."""
    side = model.contract.geometry.size
    return np.stack([cv2.resize(image, (side, side)) for image in images])


@pytest.fixture(scope="module")
def proto(model):
    return onnx.load_from_string(model.data)


@pytest.fixture(scope="module")
def halved(proto):
    return half.to_half(proto)


def types(proto):
    """The type of each value of a graph, its constants among them."""
    known = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    values = {v.name: v.type.tensor_type.elem_type for v in [*known.input, *known.value_info, *known.output]}
    return values | {tensor.name: tensor.data_type for tensor in known.initializer}


def ran(proto, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def test_inputs_and_outputs_stay_what_they_are(proto, halved):
    assert list(halved.graph.input) == list(proto.graph.input)
    assert list(halved.graph.output) == list(proto.graph.output)
    assert halved.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert {output.type.tensor_type.elem_type for output in halved.graph.output} == {TensorProto.FLOAT}


def test_the_graph_is_valid(halved):
    onnx.checker.check_model(halved, full_check=True)
    names = [tensor.name for tensor in halved.graph.initializer]
    assert len(names) == len(set(names))


def test_every_learned_layer_is_computed_in_half(proto, halved):
    known, layers = types(halved), half.learned(halved.graph)
    assert layers == half.learned(proto.graph)
    for node in halved.graph.node:
        if node.name in layers:
            assert {known[value] for value in [*node.input, *node.output]} == {TensorProto.FLOAT16}, node.name


def test_about_half_of_the_weights_bytes_are_saved(proto, halved):
    learned = sum(tensor.ByteSize() for tensor in proto.graph.initializer if tensor.name.endswith((".weight", ".bias")))
    assert halved.ByteSize() < proto.ByteSize() - 0.45 * learned


def test_pixels_answers_sums_and_means_stay_in_float(proto, halved):
    known, inside = types(halved), half.core(proto.graph)
    around = [node for node in halved.graph.node if node.name in {n.name for n in proto.graph.node} - inside]
    assert {"Cast", "Transpose", "Sigmoid"} <= {node.op_type for node in around}
    for node in [*around, *(node for node in halved.graph.node if node.op_type in ALWAYS_FLOAT)]:
        assert TensorProto.FLOAT16 not in {known[value] for value in [*node.input, *node.output] if value}, node.name


def test_a_resize_takes_its_scales_in_float(tiny):
    halved = half.to_half(onnx.load_from_string(tiny.data))
    known = types(halved)
    resizes = [node for node in halved.graph.node if node.op_type == "Resize"]
    assert len(resizes) == 4
    for node in resizes:
        assert known[node.input[0]] == known[node.output[0]] == TensorProto.FLOAT16
        assert known[node.input[2]] == TensorProto.FLOAT


def test_the_original_is_not_touched(model, proto, halved):
    assert proto.SerializeToString() == onnx.load_from_string(model.data).SerializeToString()
    assert halved.SerializeToString() != proto.SerializeToString()


def test_what_the_first_layer_is_given_is_the_same_to_the_last_bit(proto, halved, pictures):
    inside = half.core(proto.graph)
    made = {value for node in proto.graph.node if node.name not in inside for value in node.output}
    given = sorted({value for node in proto.graph.node if node.name in inside for value in node.input} & made)
    assert given
    known = [onnx.shape_inference.infer_shapes(own) for own in (proto, halved)]
    parts = [onnx.utils.Extractor(own).extract_model(["images"], given) for own in known]
    first, second = (ran(part, {"images": pictures[:4]}) for part in parts)
    for name in given:
        assert first[name].tobytes() == second[name].tobytes()
        assert first[name].dtype == np.float32


def test_the_file_passes_the_gate_and_says_what_it_is(model, pictures, tmp_path):
    written, report = convert.to_fp16(model, tmp_path / "half.onnx", pictures)
    assert report.passes(), report.lines()
    assert report.pictures == len(pictures)
    assert written == models.load(tmp_path / "half.onnx")
    assert written.contract == model.converted("fp16").model_copy(update={"sha256": written.sha256})
    assert written.sha256 != model.sha256
    assert report["max |d probability|"] > 0  # it is another computation
    assert {f.bound for f in report.figures if f.name == "max |d probability|"} == {FP16.probability}
    assert [path.name for path in tmp_path.iterdir()] == ["half.onnx"]


def test_a_half_file_is_not_converted_again(tiny, images, tmp_path):
    written, _ = convert.to_fp16(tiny, tmp_path / "half.onnx", images[:2])
    before = written.data
    with pytest.raises(ModelError, match="it is fp16 already; convert the fp32 file"):
        convert.to_fp16(written, tmp_path / "half.onnx", images[:2])
    assert (tmp_path / "half.onnx").read_bytes() == before
    with pytest.raises(ModelError, match="it is fp16 already"):
        convert.to_int8(written, tmp_path / "int8.onnx", images[:2], images[:2], signed=False)
    assert [path.name for path in tmp_path.iterdir()] == ["half.onnx"]


def test_a_graph_without_learned_layers_is_refused(graph, classifier, images, tmp_path):
    with pytest.raises(ModelError, match="no learned layer"):
        half.to_half(graph)
    with pytest.raises(ModelError, match="no learned layer"):
        convert.to_fp16(classifier, tmp_path / "half.onnx", images)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def damaging(monkeypatch):
    """A conversion that moves the disc's edge."""
    real = half.to_half

    def to_half(proto):
        made = real(proto)
        (bias,) = [tensor for tensor in made.graph.initializer if tensor.name.endswith("heads.disc.bias")]
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float16(0.7), bias.name))
        return made

    monkeypatch.setattr(half, "to_half", to_half)


@pytest.mark.usefixtures("damaging")
def test_a_refused_conversion_leaves_no_file(tiny, images, tmp_path):
    with pytest.raises(ModelError, match=r"refused: it differs from its reference(.|\n)*map.* FAILS"):
        convert.to_fp16(tiny, tmp_path / "new" / "half.onnx", images)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.usefixtures("damaging")
def test_a_refused_conversion_leaves_the_older_file(tiny, images, tmp_path):
    (tmp_path / "half.onnx").write_bytes(tiny.data)
    with pytest.raises(ModelError, match="refused"):
        convert.to_fp16(tiny, tmp_path / "half.onnx", images)
    assert models.load(tmp_path / "half.onnx").data == tiny.data
    assert [path.name for path in tmp_path.iterdir()] == ["half.onnx"]


def by_hand(nodes, outputs, **constants):
    """A graph over x, float32 (N, 2, 4, 4), that every output has the shape of."""
    shape = ["batch", 2, 4, 4]
    made = helper.make_graph(
        [helper.make_node(kind, own, [out], name=f"node_{out}", **more) for kind, own, out, more in nodes],
        "by hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


MIX = np.array([[0.5, -0.25], [1, 2]])[..., None, None]  # of channels: exact in half
X = {"x": np.random.default_rng(0).integers(-8, 9, (3, 2, 4, 4)).astype(np.float32)}  # so are these


def test_a_constant_that_is_used_in_the_core_and_outside_is_there_in_both_precisions():
    third = 1 / 3  # what half cannot hold
    nodes = [
        ("Mul", ["x", "third"], "outside", {}),
        ("Conv", ["x", "a.weight"], "first", {}),
        ("Mul", ["first", "third"], "between", {}),
        ("Conv", ["between", "b.weight"], "second", {}),
        ("Add", ["second", "outside"], "sum", {}),
        ("Identity", ["outside"], "same", {}),
    ]
    made = by_hand(nodes, ["sum", "same"], third=third, **{"a.weight": MIX, "b.weight": MIX})
    halved = half.to_half(made)
    constants = {tensor.name: tensor for tensor in halved.graph.initializer}
    assert constants["third"].data_type == TensorProto.FLOAT
    assert constants["third_half"].data_type == TensorProto.FLOAT16
    first, second = ran(made, X), ran(halved, X)
    np.testing.assert_array_equal(second["same"], first["same"])
    np.testing.assert_allclose(second["sum"], first["sum"], atol=0.02)
    assert np.abs(second["sum"] - first["sum"]).max() > 0


def test_a_value_that_is_used_in_the_core_and_outside_leaves_it_in_float():
    nodes = [
        ("Conv", ["x", "a.weight"], "first", {}),
        ("Sigmoid", ["first"], "seen", {}),
        ("Conv", ["first", "b.weight"], "second", {}),
        ("Add", ["first", "second"], "sum", {}),
    ]
    made = by_hand(nodes, ["seen", "sum"], **{"a.weight": MIX, "b.weight": MIX})
    halved = half.to_half(made)
    first, second = ran(made, X), ran(halved, X)
    known = types(halved)
    assert (known["first"], known["second"]) == (TensorProto.FLOAT, TensorProto.FLOAT)
    (layer,) = [node for node in halved.graph.node if node.name == "node_second"]
    assert {known[value] for value in layer.input} == {TensorProto.FLOAT16}
    for name in ("seen", "sum"):
        np.testing.assert_allclose(second[name], first[name], atol=1e-6)


def test_a_sigmoid_between_layers_is_computed_in_float():
    nodes = [
        ("Conv", ["x", "a.weight"], "first", {}),
        ("Sigmoid", ["first"], "gate", {}),
        ("Conv", ["gate", "b.weight"], "second", {}),
        ("Add", ["second", "x"], "sum", {}),
    ]
    made = by_hand(nodes, ["sum"], **{"a.weight": MIX, "b.weight": MIX})
    halved = half.to_half(made)
    known = types(halved)
    (sigmoid,) = [node for node in halved.graph.node if node.op_type == "Sigmoid"]
    assert {known[value] for value in [*sigmoid.input, *sigmoid.output]} == {TensorProto.FLOAT}
    np.testing.assert_allclose(ran(halved, X)["sum"], ran(made, X)["sum"], atol=5e-3)


def test_a_layer_that_is_an_output_itself_gives_float():
    nodes = [("Conv", ["x", "a.weight"], "first", {}), ("Conv", ["first", "b.weight"], "second", {})]
    made = by_hand(nodes, ["first", "second"], **{"a.weight": MIX, "b.weight": MIX})
    halved = half.to_half(made)
    first, second = ran(made, X), ran(halved, X)
    for name in ("first", "second"):
        assert second[name].dtype == np.float32
        np.testing.assert_array_equal(second[name], first[name])  # all of these numbers are exact in half


@pytest.mark.slow
def test_conversion_works_without_torch(tiny, images, tmp_path):
    np.save(tmp_path / "images.npy", images[:2])
    script = """
import sys
for name in ("torch", "onnxscript", "sklearn", "safetensors", "matplotlib", "funduscope.training"):
    sys.modules[name] = None
from pathlib import Path
import numpy as np
from funduscope.engine import models
from funduscope.export import convert
images = np.load(sys.argv[2])
print(convert.to_fp16(models.load(sys.argv[1]), Path(sys.argv[3]), images)[0].contract.precision)
print(convert.to_int8(models.load(sys.argv[1]), Path(sys.argv[4]), images, images, signed=True)[0].contract.precision)
"""
    paths = [tiny.path, *(tmp_path / name for name in ("images.npy", "half.onnx", "int8.onnx"))]
    done = subprocess.run([sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["fp16", "int8"]
    assert models.load(tmp_path / "half.onnx").contract.precision == "fp16"
