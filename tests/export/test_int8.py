"""INT8 as a step from ONNX to ONNX: what is quantised and how, and the search for the layers that stay in float."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from funduscope.engine import models
from funduscope.engine.errors import ModelError
from funduscope.engine.gate import comparison as gate
from funduscope.engine.readers.difference import Difference
from funduscope.engine.runners.tensorrt import engines
from funduscope.export import convert, half, int8, tensorrt

# torch.onnx meets its own deprecation
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
PASSED = gate.Report(1, (Difference("damage", 0.0, 1.0),))


@pytest.fixture(scope="module")
def proto(tiny):
    return onnx.load_from_string(tiny.data)


@pytest.fixture(scope="module")
def layers(proto):
    return half.learned(proto.graph)


@pytest.fixture(scope="module")
def quantised(proto, images):
    """The graph in int8, with unsigned activations."""
    return int8.to_int8(proto, images, lambda _: PASSED)[0]


@pytest.fixture(scope="module")
def signed(tiny, images, tmp_path_factory):
    """File and report with signed activations."""
    out = tmp_path_factory.mktemp("signed") / "int8.onnx"
    return convert.to_int8(tiny, out, images[:5], images[5:], signed=True)


def nodes_of(proto, kind):
    return [node for node in proto.graph.node if node.op_type == kind]


def constants(proto):
    return {tensor.name: tensor for tensor in proto.graph.initializer}


def makers(proto):
    """The node that makes each value."""
    return {value: node for node in proto.graph.node for value in node.output}


def in_int8(proto, layers):
    """The layers whose weights come out of a DequantizeLinear."""
    made = makers(proto)
    named = {node.name: node for node in proto.graph.node}
    return {name for name in layers if (own := made.get(named[name].input[1])) and own.op_type == "DequantizeLinear"}


def test_all_layers_and_what_lies_between_are_quantised(proto, quantised, layers):
    assert len(layers) == 25
    assert in_int8(quantised, layers) == set(layers)
    made, inside = makers(quantised), half.core(proto.graph)
    for node in quantised.graph.node:
        if node.name in inside:
            assert made[node.input[0]].op_type == "DequantizeLinear", node.name
    assert in_int8(proto, layers) == set()  # the test can fail


def test_pixels_and_answers_stay_in_float(proto, quantised):
    inside = half.core(proto.graph)
    around = {node.name for node in proto.graph.node} - inside
    assert {node.op_type for node in proto.graph.node if node.name in around} >= {"Cast", "Div", "Sigmoid"}
    before, after = ({n.name: n for n in own.graph.node if n.name in around} for own in (proto, quantised))
    for name, node in before.items():
        if node.op_type in ("Cast", "Transpose", "Div", "Sub"):
            assert after[name] == node
        assert list(after[name].output) == list(node.output)
    assert list(quantised.graph.output) == list(proto.graph.output)
    assert list(quantised.graph.input) == list(proto.graph.input)
    onnx.checker.check_model(quantised, full_check=True)


def test_weights_are_int8_with_a_scale_for_each_output_channel(proto, quantised, layers):
    made, known, before = makers(quantised), constants(quantised), constants(proto)
    own = {node.name: node for node in proto.graph.node}
    for node in quantised.graph.node:
        if node.name not in layers:
            continue
        dequantise = made[node.input[1]]
        weights, scales, zeros = (numpy_helper.to_array(known[name]) for name in dequantise.input)
        assert weights.dtype == zeros.dtype == np.int8
        assert (zeros == 0).all()
        (axis,) = [attribute.i for attribute in dequantise.attribute if attribute.name == "axis"]
        wanted = numpy_helper.to_array(before[own[node.name].input[1]])
        assert scales.shape == zeros.shape == (wanted.shape[axis],)
        assert axis == 0
        along = (-1, *[1] * (wanted.ndim - 1))
        # every weight lies within half a step of its own channel
        assert (np.abs(weights * scales.reshape(along) - wanted) <= 0.501 * scales.reshape(along)).all()
        assert len(np.unique(scales)) > 1 or len(scales) == 1


def test_biases_stay_in_float(quantised, layers):
    known = constants(quantised)
    for node in quantised.graph.node:
        if node.name in layers:
            assert known[node.input[2]].data_type == TensorProto.FLOAT


def activations(proto):
    """The zero points of what is computed with, by the quantised value."""
    known = constants(proto)
    return {n.input[0]: numpy_helper.to_array(known[n.input[2]]) for n in nodes_of(proto, "QuantizeLinear")}


def test_activations_are_unsigned_unless_signed_ones_are_asked_for(quantised, signed):
    zeros = activations(quantised)
    assert {zero.dtype for zero in zeros.values()} == {np.dtype(np.uint8)}
    assert {int(zero) for zero in zeros.values()} > {0}
    zeros = activations(onnx.load_from_string(signed[0].data))
    assert len(zeros) == 60 - 2 * len(signed[2][-1].in_float)  # a layer's input and its output
    assert {zero.dtype for zero in zeros.values()} == {np.dtype(np.int8)}
    assert {int(zero) for zero in zeros.values()} == {0}


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("name", ["tiny", "tiny_classifier"])
def test_the_file_passes_the_gate_and_says_what_it_is(request, name, images, tmp_path, is_signed):
    model = request.getfixturevalue(name)
    out = tmp_path / "new" / "int8.onnx"
    written, report, frontier = convert.to_int8(model, out, images[:5], images[5:], signed=is_signed)
    assert report.passes(), report.lines()
    assert report.pictures == 5
    assert written == models.load(out)
    assert written.contract == model.converted("int8").model_copy(update={"sha256": written.sha256})
    assert report["max |d probability|"] > 1e-6  # it is another computation
    # what fifty steps make of the network differs between processors; a layer or two may have to stay in float
    assert [step.report.passes() for step in frontier] == [False] * (len(frontier) - 1) + [True]
    assert len(frontier[-1].in_float) == len(frontier) - 1 <= 2
    assert [path.name for path in out.parent.iterdir()] == ["int8.onnx"]


@pytest.fixture
def few(layers, monkeypatch):
    """Every fourth layer, as though there were no others: a search through all of them takes hundreds of graphs."""
    few = layers[::4]
    monkeypatch.setattr(int8, "learned", lambda graph: few)
    return few


class Gate:
    """Refuses while the int8 layers together do more damage than 1; remembers what it was shown."""

    def __init__(self, layers, damage):
        self.layers, self.damage = layers, damage
        self.seen = []

    def __call__(self, proto):
        self.seen.append(in_int8(proto, self.layers))
        total = sum(self.damage.get(layer, 0.0) for layer in self.seen[-1])
        return gate.Report(1, (Difference("damage", total, 1.0),))


def test_the_most_damaging_layers_stay_in_float_as_few_as_it_takes(proto, few, images):
    damage = {few[1]: 0.7, few[5]: 2.0, few[2]: 1.5, few[0]: 0.2}
    verify = Gate(few, damage)
    made, frontier = int8.to_int8(proto, images[:2], verify)
    first, second = few[5], few[2]
    assert [step.in_float for step in frontier] == [(), (first,), (first, second)]
    assert [round(step.report["damage"], 6) for step in frontier] == [4.4, 2.4, 0.9]
    assert [step.report.passes() for step in frontier] == [False, False, True]
    assert in_int8(made, few) == set(few) - {first, second}
    in_float = [set(few) - seen for seen in verify.seen]  # each layer is tried, then each beside the first
    assert in_float[1 : 1 + len(few)] == [{layer} for layer in few]
    assert in_float[1 + len(few) :] == [{first, layer} for layer in few if layer != first]


def test_a_graph_that_passes_at_once_is_not_searched(proto, layers, images):
    verify = Gate(layers, {layers[5]: 0.9})
    made, frontier = int8.to_int8(proto, images[:2], verify)
    assert verify.seen == [set(layers)]
    assert [step.in_float for step in frontier] == [()]
    assert in_int8(made, layers) == set(layers)


@pytest.mark.parametrize("k", [0, 1, 12, 24])
def test_a_layer_in_float_is_float_up_to_the_next_layer(proto, layers, images, k):
    made = int8.Quantiser(proto, images[:2], signed=False).quantised(without=[layers[k]])
    assert in_int8(made, layers) == set(layers) - {layers[k]}
    producer, known, inside = makers(made), constants(made), half.core(proto.graph)
    (layer,) = [node for node in made.graph.node if node.name == layers[k]]
    assert known[layer.input[1]].data_type == TensorProto.FLOAT
    assert layer.input[1] in constants(proto)
    follows, count = set(layer.output), 0
    for node in made.graph.node:
        if node.name in inside and node.name not in layers and follows.intersection(node.input):
            count += 1
            follows.update(node.output)
            assert node.op_type not in ("QuantizeLinear", "DequantizeLinear")
    assert (
        count == {0: 1, 1: 3, 12: 4, 24: 0}[k]
    )  # ReLU; ReLU, pooling and the skip; ReLU, maximum, resize, concat; none
    for node in made.graph.node:  # other layers are given int8 all the same
        if node.name in layers and node.name != layers[k]:
            assert producer[node.input[0]].op_type == "DequantizeLinear"


def test_a_file_without_a_single_layer_in_int8_is_not_called_int8(proto, few, images):
    verify = Gate(few, dict.fromkeys(few, 2.0))
    with pytest.raises(ModelError, match="with any choice of layers"):
        int8.to_int8(proto, images[:2], verify)
    assert {len(seen) for seen in verify.seen} == set(range(1, len(few) + 1))


def refusing(*_):
    return gate.Report(3, (Difference("decision flips", 2, 0),))


@pytest.mark.usefixtures("few")
def test_what_the_gate_never_lets_pass_is_refused_with_its_report(proto, images):
    with pytest.raises(ModelError, match=r"any choice of layers\n(.|\n)*decision flips +2 +at most 0 +FAILS"):
        int8.to_int8(proto, images[:2], refusing)


def test_a_refused_conversion_leaves_no_file_and_the_older_one(tiny, images, tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "verify_converted", refusing)
    monkeypatch.setattr(int8, "learned", lambda graph: half.learned(graph)[:2])  # a shorter search
    with pytest.raises(ModelError, match="the gate refuses it"):
        convert.to_int8(tiny, tmp_path / "int8.onnx", images[:2], images[:2], signed=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "int8.onnx").write_bytes(tiny.data)
    with pytest.raises(ModelError, match="the gate refuses it"):
        convert.to_int8(tiny, tmp_path / "int8.onnx", images[:2], images[:2], signed=False)
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]
    assert models.load(tmp_path / "int8.onnx").data == tiny.data


def test_the_original_is_not_touched(tiny, proto, quantised):
    assert proto == onnx.load_from_string(tiny.data)
    assert quantised != proto


def test_other_pictures_give_other_scales(proto, quantised, images):  # the next test can fail
    dark = int8.to_int8(proto, images // 4, lambda _: PASSED)[0]
    assert dark.SerializeToString() != quantised.SerializeToString()


@pytest.mark.slow
def test_the_same_pictures_give_the_same_file_in_any_process(tiny, signed, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    script = """
import sys
from pathlib import Path
import numpy as np
from funduscope.engine import models
from funduscope.export import convert
images = np.load(sys.argv[2])
print(convert.to_int8(models.load(sys.argv[1]), Path(sys.argv[3]), images[:5], images[5:], signed=True)[0].sha256)
"""
    for seed in ("1", "2"):  # of Python's sets
        command = [sys.executable, "-c", script, *map(str, (tiny.path, tmp_path / "images.npy", tmp_path / seed))]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert done.stdout.strip() == signed[0].sha256, done.stderr
    digests = {hashlib.sha256((tmp_path / seed).read_bytes()).digest() for seed in ("1", "2")}
    assert digests == {hashlib.sha256(signed[0].data).digest()}


def test_tensorrt_builds_signed_files_and_refuses_unsigned_ones_in_its_own_words(tiny, signed, images, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    sizes = engines.profile("1,2,4")
    engine, is_new = tensorrt.build(signed[0], "tensorrt-rtx", sizes, "sm_89", tmp_path / "engines")
    assert (is_new, engine.facts.precision, engine.facts.compute_capability) == (True, "int8", "sm_89")
    unsigned, *_ = convert.to_int8(tiny, tmp_path / "unsigned.onnx", images[:5], images[5:], signed=False)
    with pytest.raises(ModelError, match=r"unsigned.onnx: tensorrt_rtx cannot read it: .*zero point is not supported"):
        tensorrt.build(unsigned, "tensorrt-rtx", sizes, "sm_89", tmp_path / "engines")
    assert len(list((tmp_path / "engines").glob("*.engine"))) == 1
