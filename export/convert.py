"""From one exported model to the same in FP16 or INT8. ONNX to ONNX, without torch; each is stamped and verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..engine import contract, files
from ..engine.errors import ModelError, require
from ..engine.gate.comparison import Report
from ..engine.gate.verify import verify_model
from ..engine.runners.onnx_runtime import OnnxRuntime
from . import half, int8
from .stamp import stamp, stamp_verified

if TYPE_CHECKING:
    import onnx

BATCHES = (1, 8)


def to_fp16(model: contract.Model, out: Path, images: NDArray[np.uint8]) -> tuple[contract.Model, Report]:
    """Write the model in half precision.

    Args: images: prepared pictures for the gate, uint8 (N, S, S, 3). Raises: ModelError where the model is not fp32, or
    the gate refuses what came of it; OutputError.
    """
    files.expect(out)
    proto = half.to_half(proto_of(model))
    return stamp_verified(proto, model.converted("fp16"), out, lambda made: verify_converted(model, made, images))


def to_int8(
    model: contract.Model, out: Path, calibration: NDArray[np.uint8], images: NDArray[np.uint8], *, signed: bool
) -> tuple[contract.Model, Report, list[int8.Step]]:
    """Write the model quantised, with as few layers in float as the gate allows.

    Args: calibration, images: prepared pictures, to calibrate on and for the gate; signed: see `int8.to_int8`.
    Returns: the file, the gate's report, and the frontier. Raises: as `to_fp16`.
    """
    files.expect(out)
    document = model.converted("int8")
    trial = out.with_name(out.name + ".trial")
    try:
        proto, steps = int8.to_int8(
            proto_of(model),
            calibration,
            lambda made: verify_converted(model, stamp(made, document, trial), images),
            signed=signed,
        )
    finally:
        trial.unlink(missing_ok=True)
    return *stamp_verified(proto, document, out, lambda made: verify_converted(model, made, images)), steps


def verify_converted(reference: contract.Model, candidate: contract.Model, images: NDArray[np.uint8]) -> Report:
    """The gate between two model files, both on ONNX Runtime's CPU."""
    with OnnxRuntime(candidate, max_batch=max(BATCHES), threads=None) as runner:
        return verify_model(reference, runner, images, BATCHES)


def proto_of(model: contract.Model) -> onnx.ModelProto:
    """The graph of an fp32 file. Raises ModelError where it is in another precision already."""
    if model.contract.precision != "fp32":
        raise ModelError(
            f"{model.path}: it is {model.contract.precision} already; convert the fp32 file that `export` wrote"
        )
    proto: onnx.ModelProto = require("onnx", "convert").load_from_string(model.data)
    return proto
