"""What this machine does at most, in each precision that something here computes in: large convolutions, a product of
matrices, and a copy of memory."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from turns import Times, by_turns

from funduscope.engine.errors import BackendError, require

CANDIDATES = (  # what computes, and in which precision
    ("NumPy", "fp32"),
    ("ONNX Runtime", "fp32"),
    ("ONNX Runtime", "int8"),
    ("OpenVINO", "fp32"),
    ("OpenVINO", "bf16"),
    ("OpenVINO", "int8"),
)
MATRIX = 2048  # side of the matrices that NumPy multiplies
CHANNELS, SIDE, DEPTH = 256, 56, 2  # of the convolutions, 3 x 3, one after the other; all fits the caches
COPIED = 1 << 28  # bytes, many times the caches
SECONDS = 8  # to measure all candidates
_STEP = 4 / 127  # of int8, in deviations: four are kept


@dataclass(frozen=True)
class Work:
    """What a candidate does.

    Attributes:
        run: Does it; float32.
        flops: Of one run.
        exact: What it should give.
    """

    run: Callable[[], NDArray[np.float32]]
    flops: int
    exact: NDArray[np.float32]

    def difference(self, made: NDArray[np.float32]) -> float:
        """From what it should give: root mean square, as a share of that."""
        return float(np.linalg.norm(made - self.exact) / np.linalg.norm(self.exact))


@dataclass(frozen=True)
class Convolutions:
    """One after the other; all normal, so that what comes out of each is as large as what goes in.

    Attributes:
        x: float32 (CHANNELS, SIDE, SIDE).
        weights: float32 (CHANNELS, CHANNELS, 3, 3) each.
    """

    x: NDArray[np.float32]
    weights: list[NDArray[np.float32]]

    @staticmethod
    def drawn() -> Convolutions:
        """The same ones every time."""
        rng = np.random.default_rng(0)
        weights = [rng.standard_normal((CHANNELS, CHANNELS, 3, 3), np.float32) for _ in range(DEPTH)]
        x = rng.standard_normal((CHANNELS, SIDE, SIDE), np.float32)
        return Convolutions(x, [own / np.float32((9 * CHANNELS) ** 0.5) for own in weights])

    @property
    def flops(self) -> int:
        """Of all."""
        return 2 * len(self.weights) * 9 * CHANNELS**2 * SIDE**2

    def exact(self) -> NDArray[np.float32]:
        """What they give, float32 (CHANNELS, SIDE, SIDE), tap by tap."""
        made = self.x
        for weight in self.weights:
            padded = np.pad(made, ((0, 0), (1, 1), (1, 1)))
            made = np.zeros_like(made)
            for i in range(3):
                for j in range(3):
                    made += np.tensordot(weight[:, :, i, j], padded[:, i : i + SIDE, j : j + SIDE], 1)
        return made

    def graph(self, int8: bool) -> bytes:
        """As an ONNX file; in int8 with everything quantised."""
        nodes, constants = [], []
        weight_step = _STEP / (9 * CHANNELS) ** 0.5
        if int8:
            steps = {"step": np.float32(_STEP), "weight_step": np.float32(weight_step), "zero": np.int8(0)}
            constants += [numpy_helper.from_array(np.array(value), name) for name, value in steps.items()]
        last = "x"
        for k, weight in enumerate(self.weights):
            own = f"weight_{k}"
            if int8:
                rounded = np.clip(np.rint(weight / weight_step), -127, 127).astype(np.int8)
                constants.append(numpy_helper.from_array(rounded, f"{own}_int8"))
                nodes += [
                    helper.make_node("DequantizeLinear", [f"{own}_int8", "weight_step", "zero"], [own]),
                    helper.make_node("QuantizeLinear", [last, "step", "zero"], [f"{last}_int8"]),
                    helper.make_node("DequantizeLinear", [f"{last}_int8", "step", "zero"], [f"{last}_rounded"]),
                ]
                last = f"{last}_rounded"
            else:
                constants.append(numpy_helper.from_array(weight, own))
            nodes.append(helper.make_node("Conv", [last, own], [f"made_{k}"], pads=[1, 1, 1, 1]))
            last = f"made_{k}"
        shape = [1, CHANNELS, SIDE, SIDE]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", last)]
        made = helper.make_graph(nodes, "convolutions", ends[:1], ends[1:], constants)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return bytes(model.SerializeToString())


def work(library: str, precision: str) -> Work:
    """What one of `CANDIDATES` does. Raises BackendError where it cannot be had here."""
    if library == "NumPy":
        rng = np.random.default_rng(0)
        a, b = (rng.standard_normal((MATRIX, MATRIX), np.float32) for _ in range(2))
        return Work(lambda: a @ b, 2 * MATRIX**3, a @ b)
    layers = Convolutions.drawn()
    graph, x = layers.graph(precision == "int8"), layers.x[None]
    if library == "ONNX Runtime":
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        return Work(lambda: np.asarray(session.run(None, {"x": x})[0][0]), layers.flops, layers.exact())
    core = require("openvino", "openvino").Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in able:
        raise BackendError(f"this processor computes in {', '.join(able)}, not in BF16")
    hints = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(core.read_model(graph), "CPU", hints).create_infer_request()

    def run() -> NDArray[np.float32]:
        request.infer({"x": x})
        return np.asarray(request.get_output_tensor().data[0])

    return Work(run, layers.flops, layers.exact())


@functools.cache
def candidates() -> tuple[dict[str, Work], dict[str, str]]:
    """All of `CANDIDATES` that can be had here, by label, and why not the others."""
    there, absent = {}, {}
    for library, precision in CANDIDATES:
        try:
            there[f"{library} {precision}"] = work(library, precision)
        except BackendError as error:
            absent[f"{library} {precision}"] = str(error)
    return there, absent


@functools.cache
def measured() -> dict[str, Times]:
    """All candidates, by turns."""
    return by_turns({label: own.run for label, own in candidates()[0].items()}, seconds=SECONDS)


@functools.cache
def highest() -> dict[str, Work]:
    """Of each precision the fastest candidate's: what a network in that precision is held against."""
    best: dict[str, tuple[float, str]] = {}
    for label, times in measured().items():
        precision = label.split()[-1]
        seconds_a_flop = times.p50_ms / candidates()[0][label].flops
        best[precision] = min(best.get(precision, (np.inf, "")), (seconds_a_flop, label))
    return {precision: candidates()[0][label] for precision, (_, label) in best.items()}


@contextmanager
def copy() -> Iterator[Callable[[], Any]]:
    """What copies `COPIED` bytes, each core its share; gives the copy."""
    source, target = np.ones(COPIED, np.uint8), np.zeros(COPIED, np.uint8)
    cores = os.cpu_count() or 1
    shares = list(zip(np.array_split(source, cores), np.array_split(target, cores), strict=True))
    with ThreadPoolExecutor(cores) as pool:

        def run() -> NDArray[np.uint8]:
            for _ in pool.map(lambda share: np.copyto(share[1], share[0]), shares):
                pass
            return target

        yield run
