"""INT8 as one step from ONNX to ONNX: static quantisation with pictures, and a search for the layers that must stay float.

Weights are quantised per output channel, activations per tensor (QDQ nodes, which ONNX Runtime, OpenVINO and TensorRT
read). What is kept in float is measured, layer by layer, on what the outputs mean: vCDR, fovea and decisions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine.errors import ModelError, require
from ..engine.gate.comparison import Report
from .half import core, learned

if TYPE_CHECKING:
    import onnx

_OPERATORS = ["Conv", "Gemm", "MatMul", "Relu", "MaxPool", "Concat", "Resize", "ReduceMax", "Add", "AveragePool"]
Verify = Callable[["onnx.ModelProto"], Report]


@dataclass(frozen=True)
class Step:
    """One point of the frontier: which layers were in float, and what the gate saw."""

    in_float: tuple[str, ...]
    report: Report


def to_int8(
    model: onnx.ModelProto, images: NDArray[np.uint8], verify: Verify, *, signed: bool = False
) -> tuple[onnx.ModelProto, list[Step]]:
    """Quantise all learned layers; where the gate refuses that, keep as few of them in float as `search` needs.

    Args: images: for calibration, uint8 (N, S, S, 3); verify: the gate on pictures that are not among these; signed:
    symmetric signed activations, which TensorRT needs (on a CPU unsigned ones are faster and more exact).
    Returns: the graph, and the steps that led to it.
    Raises: ModelError where it does not pass with a single layer left in int8.
    """
    quantiser, steps = Quantiser(model, images, signed), list[Step]()
    for step in search(quantiser, verify):
        steps.append(step)
        if step.report.passes():
            return quantiser.quantised(without=step.in_float), steps
    raise ModelError("int8: the gate refuses it with any choice of layers\n  " + "\n  ".join(steps[0].report.lines()))


def search(quantiser: Quantiser, verify: Verify) -> Iterator[Step]:
    """Ever more layers in float: none, then each time the one more with which the candidate uses least of the gate's bounds."""

    def tried(*in_float: str) -> Step:
        return Step(in_float, verify(quantiser.quantised(without=in_float)))

    step = tried()
    yield step
    for _ in quantiser.layers[1:]:
        candidates = [tried(*step.in_float, layer) for layer in quantiser.layers if layer not in step.in_float]
        step = min(candidates, key=lambda candidate: (not candidate.report.passes(), candidate.report.strain()))
        yield step


class Quantiser:
    """Calibrates once, quantises often. layers: the learned ones, by the names of their nodes."""

    def __init__(self, model: onnx.ModelProto, images: NDArray[np.uint8], signed: bool) -> None:
        self._onnx = require("onnx", "convert")
        self._quantization = require("onnxruntime.quantization", "convert")
        self._model, self._signed = model, signed
        self._core, self.layers = core(model.graph), learned(model.graph)
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "model.onnx"
            self._onnx.save(model, plain)
            calibrator = require("onnxruntime.quantization.calibrate", "convert").create_calibrator(
                plain, _OPERATORS, augmented_model_path=str(Path(folder) / "augmented.onnx")
            )
            calibrator.collect_data(_Reader(model.graph.input[0].name, images))
            self._ranges = calibrator.compute_data()

    def quantised(self, without: Collection[str]) -> onnx.ModelProto:
        """The graph in int8, but for the named layers, and for what follows them up to the next layer."""
        chosen: dict[str, bool] = {}  # by the value that a node of the core makes
        for node in self._model.graph.node:
            if node.name in self._core:
                before = [chosen[value] for value in node.input if value in chosen]
                in_int8 = node.name not in without if node.name in self.layers else all(before)
                chosen.update(dict.fromkeys(node.output, in_int8))
        nodes = [n.name for n in self._model.graph.node if any(chosen.get(value) for value in n.output)]
        types = self._quantization.QuantType
        quantizer = require("onnxruntime.quantization.qdq_quantizer", "convert").QDQQuantizer(
            self._onnx.shape_inference.infer_shapes(self._model),
            per_channel=True,
            reduce_range=False,
            weight_qType=types.QInt8,
            activation_qType=types.QInt8 if self._signed else types.QUInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=_OPERATORS,
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": self._signed, "QuantizeBias": False},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # as the format wants it; the new nodes are at the end
        made: onnx.ModelProto = quantizer.model.model
        return made


class _Reader:
    """The pictures one by one, as the calibrator asks for them."""

    def __init__(self, name: str, images: NDArray[np.uint8]) -> None:
        self._feeds: Iterator[dict[str, Any]] = ({name: image[None]} for image in images)

    def get_next(self) -> dict[str, Any] | None:
        """The next feed; None at the end."""
        return next(self._feeds, None)
