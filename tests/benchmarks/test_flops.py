"""The count of operations, by hand and beside torch's own."""

from __future__ import annotations

import pytest

onnx = pytest.importorskip("onnx")
import flops  # noqa: E402 -- which needs it
from onnx import TensorProto, helper  # noqa: E402

from funduscope.engine import models  # noqa: E402


def graph(operation: str, given, weight, out, **attributes):
    """A network of one layer. Args: given, weight, out: shapes."""
    node = helper.make_node(operation, ["x", "w"], ["y"], **attributes)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", given), ("y", out))]
    constant = helper.make_tensor("w", TensorProto.FLOAT, weight, b"\0" * 4 * _product(weight), raw=True)
    return helper.make_model(
        helper.make_graph([node], "one", ends[:1], ends[1:], [constant]), opset_imports=[helper.make_opsetid("", 20)]
    )


def _product(shape):
    return shape[0] * _product(shape[1:]) if shape else 1


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (graph("Conv", ["n", 3, 10, 12], [16, 3, 3, 5], ["n", 16, 8, 8]), 2 * 16 * 8 * 8 * 3 * 3 * 5),
        (graph("Conv", ["n", 8, 9, 9], [8, 1, 3, 3], ["n", 8, 7, 7], group=8), 2 * 8 * 7 * 7 * 3 * 3),
        (graph("Gemm", ["n", 20], [20, 7], ["n", 7]), 2 * 20 * 7),
        (graph("Gemm", ["n", 20], [7, 20], ["n", 7], transB=1), 2 * 20 * 7),
        (graph("MatMul", ["n", 5, 20], [20, 7], ["n", 5, 7]), 2 * 5 * 20 * 7),
    ],
    ids=["convolution", "by groups", "dense", "dense, transposed", "product"],
)
def test_layers_that_are_counted_by_hand(made, expected):
    assert flops.count(made) == expected


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="y: ConvTranspose cannot be counted"):
        flops.count(graph("ConvTranspose", ["n", 3, 8, 8], [3, 4, 2, 2], ["n", 4, 9, 9]))
    unknown = graph("MatMul", ["n", 5, 20], [20, 7], ["n", 5, 7])
    unknown.graph.node.insert(0, helper.make_node("Identity", ["a"], ["b"]))
    unknown.graph.node[1].input[0] = "b"
    unknown.graph.input.append(helper.make_value_info("a", helper.make_tensor_type_proto(TensorProto.FLOAT, None)))
    with pytest.raises(ValueError, match="y: MatMul of unknown shape"):
        flops.count(unknown)


@pytest.mark.parametrize("name", models.embedded())
def test_an_embedded_network_has_as_many_as_torch_counts_and_its_conversions_too(name):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode
    from twins import twin

    model = models.load(name)
    side = model.contract.geometry.size
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        twin(model)(torch.zeros(1, side, side, 3, dtype=torch.uint8))
    for own in (model, *models.variants(model)):
        assert flops.count(onnx.load_from_string(own.data)) == counter.get_total_flops()
