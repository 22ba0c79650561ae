"""How many floating-point operations a network takes, counted from its ONNX graph."""

from __future__ import annotations

from math import prod

import onnx

_COUNTED = ("Conv", "Gemm", "MatMul")
_NOT_COUNTABLE = (  # multiply too, and no network here has them
    "ConvInteger",
    "ConvTranspose",
    "Einsum",
    "GRU",
    "LSTM",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "RNN",
)


def count(model: onnx.ModelProto) -> int:
    """Operations of convolutions and matrix products for one picture, a multiplication and an addition as two.

    What works on one value at a time (activations, pooling, scaling) is left out: it is a few in a thousand.

    Args:
        model: A symbolic dimension of it is the batch.

    Raises:
        ValueError: A layer cannot be counted.
    """
    alone = onnx.ModelProto()
    alone.CopyFrom(model)
    graph = alone.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = 1
    graph = onnx.shape_inference.infer_shapes(alone, strict_mode=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type in _COUNTED:
            tensors = [shapes.get(name, []) for name in (node.input[0], node.input[1], node.output[0])]
            if not all(shape and all(shape) for shape in tensors):
                raise ValueError(f"{node.output[0]}: {node.op_type} of unknown shape cannot be counted")
            total += 2 * prod(tensors[2]) * _summed(node, *tensors[:2])
        elif node.op_type in _NOT_COUNTABLE:
            raise ValueError(f"{node.output[0]}: {node.op_type} cannot be counted")
    return total


def _summed(node: onnx.NodeProto, left: list[int], right: list[int]) -> int:
    """How many products make one value of the output."""
    if node.op_type == "Conv":
        return prod(right[1:])  # channels of a group, height, width
    transposed = any(own.name == "transA" and own.i for own in node.attribute)
    return left[-2 if transposed else -1]
