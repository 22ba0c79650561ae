"""Backends: each a class in a file of its own, named here, that does what `Runner` says."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..contract import Model
from ..errors import BackendError
from .fake import FakeRunner as FakeRunner

BACKENDS = {
    "onnxruntime": "onnx_runtime:OnnxRuntime",
    "onnxruntime-cuda": "onnx_runtime:OnnxRuntimeCuda",
    "onnxruntime-tensorrt": "onnx_runtime:OnnxRuntimeTensorRt",
    "tensorrt": "tensorrt.runner:TensorRt",
    "tensorrt-rtx": "tensorrt.runner:TensorRtRtx",
    "openvino": "openvino:OpenVino",
    "openvino-bf16": "openvino:OpenVinoBf16",
}
# `auto` takes the first that works; none of them builds anything
AUTO = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime")


class Runner(Protocol):
    """Runs a model on batches. A context manager; two threads may call at once; returned arrays are the caller's.

    Attributes:
        max_batch: The most pictures of a call.
        precision: Of the computation.
        slots: How many batches it works on at once.
    """

    max_batch: int
    precision: str
    slots: int

    def __init__(self, model: Model, *, max_batch: int, threads: int | None, device: int) -> None:
        """Load a model.

        Args:
            model: Its verified bytes are what is loaded, never the file again.
            max_batch: The most pictures of a call.
            threads: Of the CPU for one call; None for the library's own choice.
            device: Index of the GPU; a backend without one takes no notice.

        Raises:
            BackendError: The library, device or provider is not to be had here; MissingExtra, by `require`, where a library
                is not installed.
            ModelError: All that is here, but this model cannot be run on it, or its graph has not the contract's tensors.
        """
        ...

    def __call__(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Run a batch. A call with no or too many pictures is an AssertionError that says `1 to {max_batch}`; one after `close`
        says `the runner is closed`.

        Args:
            images: uint8 (N, S, S, 3) RGB, 1 <= N <= max_batch.

        Returns:
            Each output by its name, float32 (N, ...), in the contract's order.
        """
        ...

    def close(self) -> None:
        """Free what it holds, after the calls that run. May be called again."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...


def open_runner(model: Model, backend: str, *, max_batch: int, threads: int | None = None, device: int = 0) -> Runner:
    """A runner of a backend that is asked for by name; see `gate.opening`, which serves engines too that are new here.

    Raises:
        BackendError: That names what there is, or why this one cannot be had; MissingExtra.
        ModelError: No TensorRT engine fits; Unverified where one does that the gate has not let pass yet.
    """
    if backend not in BACKENDS:
        raise BackendError(f"no backend named {backend!r}; there are: auto, {', '.join(BACKENDS)}")
    module, _, name = BACKENDS[backend].partition(":")
    runner: type[Runner] = getattr(importlib.import_module(f".{module}", __package__), name)
    return runner(model, max_batch=max_batch, threads=threads, device=device)
