"""Backends: each a class in a file of its own, named here. Two methods are the whole interface."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..contract import Model
from ..errors import BackendError, ModelError, OutputError
from .tensorrt.engines import Unverified

BACKENDS = {
    "onnxruntime": "onnx_runtime:OnnxRuntime",
    "onnxruntime-cuda": "onnx_runtime:OnnxRuntimeCuda",
    "onnxruntime-tensorrt": "onnx_runtime:OnnxRuntimeTensorRt",
    "tensorrt": "tensorrt.runner:TensorRt",
    "tensorrt-rtx": "tensorrt.runner:TensorRtRtx",
    "openvino": "openvino:OpenVino",
    "openvino-bf16": "openvino:OpenVinoBf16",
}
AUTO = (
    "tensorrt",
    "tensorrt-rtx",
    "onnxruntime-cuda",
    "onnxruntime",
)  # the first that works; none of them builds anything

_log = logging.getLogger("funduscope")


class Runner(Protocol):
    """Runs a model on batches. A context manager; two threads may call at once; returned arrays are the caller's.

    precision: of the computation; slots: how many batches it works on at once.
    """

    max_batch: int
    precision: str
    slots: int

    def __init__(self, model: Model, *, max_batch: int, threads: int | None) -> None: ...
    def __call__(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """images: uint8 (N, S, S, 3) RGB, 1 <= N <= max_batch. Returns: each output by its contract's name, float32."""
        ...

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...


def open_runner(model: Model, backend: str, *, max_batch: int, threads: int | None = None) -> tuple[str, Runner]:
    """The backend's name and a runner for a verified model; `auto` takes the first of AUTO that works, and logs why.

    Raises: BackendError that names what there is, or why the one that was asked for cannot be had; MissingExtra;
    ModelError where no TensorRT engine fits.
    """
    if backend != "auto":
        return backend, _open(model, backend, max_batch, threads)
    for name in AUTO[:-1]:
        try:
            runner = _open(model, name, max_batch, threads)
        except (BackendError, ModelError, OutputError) as error:  # the last: a self-check cannot be written down
            _log.info("backend: not %s: %s", name, str(error).splitlines()[0])
            continue
        _log.info("backend: %s (auto)", name)
        return name, runner
    _log.info("backend: %s (auto)", AUTO[-1])
    return AUTO[-1], _open(model, AUTO[-1], max_batch, threads)


def _open(model: Model, backend: str, max_batch: int, threads: int | None) -> Runner:
    if backend not in BACKENDS:
        raise BackendError(f"no backend named {backend!r}; there are: auto, {', '.join(BACKENDS)}")
    module, _, name = BACKENDS[backend].partition(":")
    runner: type[Runner] = getattr(importlib.import_module(f".{module}", __package__), name)
    try:
        return runner(model, max_batch=max_batch, threads=threads)
    except Unverified as error:
        engine = error.engine
    from ..gate import verify

    verify.first_open(model, engine)
    return runner(model, max_batch=max_batch, threads=threads)
