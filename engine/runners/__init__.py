"""Backends: each a class in a file of its own, named here. Two methods are the whole interface."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..contract import Model
from ..errors import BackendError, MissingExtra

BACKENDS = {"onnxruntime": "onnx_runtime:OnnxRuntime"}

_log = logging.getLogger("funduscope")


class Runner(Protocol):
    """Runs a model on batches. A context manager; two threads may call at once; returned arrays are the caller's."""

    max_batch: int

    def __init__(self, model: Model, *, max_batch: int, threads: int | None) -> None: ...
    def __call__(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """images: uint8 (N, S, S, 3) RGB, 1 <= N <= max_batch. Returns: each output by its contract's name, float32."""
        ...

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...


def open_runner(model: Model, backend: str, *, max_batch: int, threads: int | None = None) -> tuple[str, Runner]:
    """The backend's name and a runner for a verified model; `auto` takes the first that is here, and logs which.

    Raises: BackendError that names what there is; MissingExtra.
    """
    if backend == "auto":
        backend = next(iter(BACKENDS))
        _log.info("backend: %s (auto)", backend)
    if backend not in BACKENDS:
        raise BackendError(f"no backend named {backend!r}; there are: auto, {', '.join(BACKENDS)}")
    module, _, name = BACKENDS[backend].partition(":")
    try:
        runner: type[Runner] = getattr(importlib.import_module(f".{module}", __package__), name)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"the backend {backend} needs {error.name}; install it with: pip install {backend}"
        ) from error
    return backend, runner(model, max_batch=max_batch, threads=threads)
