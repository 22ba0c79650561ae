"""FP16 as one step from ONNX to ONNX, without torch: the learned core in half, the pixels and the answers in float."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from ..engine.errors import ModelError, require

if TYPE_CHECKING:
    import onnx

_LINEAR = ("Conv", "Gemm", "MatMul")
_ALWAYS_FLOAT = ["Sigmoid", "Softmax", "ReduceSum", "ReduceMean", "GlobalAveragePool"]


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its learned core in half precision, and casts before and after it.

    What lies around the core is not touched: the arithmetic on pixels (prenorm must be exact), sigmoids, sums and means
    stay in float, as do inputs and outputs. BatchNorm was folded by the export, in float.
    Raises ModelError where there is no learned layer.
    """
    onnx = require("onnx", "convert")
    float16 = require("onnxconverter_common", "convert").float16
    inside = core(model.graph)
    nodes = [node for node in model.graph.node if node.name in inside]
    around = [node for node in model.graph.node if node.name not in inside]
    made, used = {v for node in nodes for v in node.output}, {v for node in nodes for v in node.input} - {""}
    elsewhere = {v for node in around for v in node.input} | {value.name for value in model.graph.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    known = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value for value in [*known.input, *known.value_info, *known.output]}
    graph = onnx.helper.make_graph(
        nodes,
        "core",
        [types[name] for name in sorted(used - made - set(weights))],
        [types[name] for name in sorted(made & elsewhere)],
        [weights[name] for name in weights if name in used],
        value_info=[types[name] for name in sorted(made - elsewhere)],
    )
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    # the converter is given the core alone: around it, it would cast pixels to half and back
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of every weight that underflows; the gate sees what comes of it
        part = float16.convert_float_to_float16(part, keep_io_types=True, op_block_list=_ALWAYS_FLOAT)
    _keep_scales(part.graph, weights)
    _use_inside(part.graph, onnx.TensorProto.FLOAT)
    halved = {tensor.name: tensor for tensor in part.graph.initializer}
    for node in part.graph.node:  # a constant that is used on both sides is there twice
        node.input[:] = [f"{name}_half" if name in halved and name in elsewhere else name for name in node.input]
    for name, tensor in halved.items():
        tensor.name = f"{name}_half" if name in elsewhere else name
    whole = type(model)()
    whole.CopyFrom(model)
    del whole.graph.node[:], whole.graph.initializer[:], whole.graph.value_info[:]
    whole.graph.node.extend([*around, *part.graph.node])
    whole.graph.initializer.extend([w for name, w in weights.items() if name in elsewhere or name not in used])
    whole.graph.initializer.extend(halved.values())
    float16.sort_topology(whole.graph)
    onnx.checker.check_model(whole, full_check=True)
    return whole


def core(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes from the first learned layer on each way to the last. Raises ModelError where there is none."""
    layers = learned(graph)
    if not layers:
        raise ModelError("the graph has no learned layer with the names that `funduscope export` gives")
    after: set[str] = set()  # values that a learned layer led to
    for node in graph.node:
        if node.name in layers or after.intersection(node.input):
            after.update(node.output)
    before: set[str] = set()  # values that lead to a learned layer
    for node in reversed(graph.node):
        if node.name in layers or before.intersection(node.output):
            before.update(node.input)
    return set(layers) | {n.name for n in graph.node if after.intersection(n.output) and before.intersection(n.output)}


def learned(graph: onnx.GraphProto) -> list[str]:
    """Names of the linear layers with parameters of the network, which `funduscope export` names as torch does."""
    return [
        node.name
        for node in graph.node
        if node.op_type in _LINEAR and any(value.endswith((".weight", ".bias")) for value in node.input[1:])
    ]


def _use_inside(graph: onnx.GraphProto, float32: int) -> None:
    """What leaves the core and is used in it as well: the converter gives the cast to both, which only the way out takes."""
    leaving = {value.name for value in graph.output if value.type.tensor_type.elem_type == float32}
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    for node in graph.node:
        if node.op_type not in _ALWAYS_FLOAT:
            node.input[:] = [casts.get(name, name) if name in leaving else name for name in node.input]


def _keep_scales(graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto]) -> None:
    """A Resize takes its scales in float, whatever it resizes."""
    scales = {node.input[2] for node in graph.node if node.op_type == "Resize" and len(node.input) > 2}
    for tensor in graph.initializer:
        if tensor.name in scales:
            tensor.CopyFrom(weights[tensor.name])
