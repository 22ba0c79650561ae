"""OpenVINO on the CPU: optional, often the fastest there. bf16 is computed where the processor has it; int8 lies in the graph."""

from __future__ import annotations

import hashlib
import io
import json
import os
import queue
import threading
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .. import files
from ..contract import Model
from ..errors import BackendError, ModelError, OutputError, require

FOLDER_VARIABLE = "FUNDUSCOPE_COMPILED"
_COMPILED_FOR = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
_KEPT = 16  # compiled models, the newest
_DIGEST = hashlib.sha256().digest_size
_REQUESTS = 2  # so that two threads may be inside at once
_FIRST = threading.Lock()


class OpenVino:
    """See `Runner`. Floats stay floats: OpenVINO's own choice of a smaller precision is switched off.

    The pictures of a batch are computed one after the other. A graph of a fixed size is up to twice as fast as one for any number
    of pictures, and what one picture needs fits the processor's cache.
    """

    hint = "f32"
    slots = 1

    def __init__(self, model: Model, *, max_batch: int, threads: int | None, device: int = 0) -> None:  # noqa: ARG002 -- a GPU's
        openvino = require("openvino", "openvino")
        self.max_batch, self.precision = max_batch, self._precision(model)
        core = openvino.Core()
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self.hint, "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            streams = (
                _REQUESTS if threads * _REQUESTS <= (os.cpu_count() or 1) else 1
            )  # calls at once, each with its own
            settings |= {"INFERENCE_NUM_THREADS": threads * streams, "NUM_STREAMS": streams}
            if streams > 1:  # pinned, two models would share one core and leave the other
                settings["ENABLE_CPU_PINNING"] = False
        self._check(core)
        try:
            compiled = _compiled(core, model, settings)
        except Exception as error:  # OpenVINO raises RuntimeError for every cause
            raise ModelError(f"{model.path}: OpenVINO refuses it: {error}") from error
        self._outputs = [output.name for output in model.contract.outputs]
        self._input = model.contract.input.name
        self._closed = threading.Lock()  # which is never released
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(_REQUESTS):
            self._free.put(compiled.create_infer_request())
        with _FIRST, self._request() as request:
            # the library makes its table of types at the first look at any tensor, and lets go of the interpreter meanwhile:
            # two threads whose first pictures meet there wait for one another for ever
            request.get_tensor(self._input).data  # noqa: B018

    def _precision(self, model: Model) -> str:
        return model.contract.precision

    def _check(self, core: Any) -> None:
        """Raises BackendError where the processor cannot do what the class is for."""

    @contextmanager
    def _request(self) -> Any:
        request = self._free.get()
        try:
            assert not self._closed.locked(), "the runner is closed"
            yield request
        finally:
            self._free.put(request)  # or the word that there are none, for the next who waits

    def __call__(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        assert 1 <= len(images) <= self.max_batch, f"{len(images)} pictures; the runner takes 1 to {self.max_batch}"
        with self._request() as request:
            found = {
                name: np.empty((len(images), *request.get_tensor(name).shape[1:]), np.float32) for name in self._outputs
            }
            for k in range(len(images)):
                request.infer({self._input: np.ascontiguousarray(images[k : k + 1])}, share_outputs=True)
                for name, output in found.items():
                    output[k] = request.get_tensor(name).data[0]
        return found

    def close(self) -> None:
        """Free the model after the batches that run; calls that wait are refused."""
        if self._closed.acquire(blocking=False):
            for _ in range(_REQUESTS):
                self._free.get()
            self._free.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _compiled(core: Any, model: Model, settings: dict[str, Any]) -> Any:
    """The model ready to run: as an earlier opening kept it, which is far quicker, or else compiled, and kept."""
    shape = [1, *model.contract.input.shape[1:]]
    about = [model.sha256, shape, settings, *(core.get_property("CPU", name) for name in _COMPILED_FOR)]
    key = hashlib.sha256(json.dumps([require("openvino", "openvino").get_version(), *about], default=str).encode())
    place = files.cache(FOLDER_VARIABLE, "compiled") / f"{key.hexdigest()[:32]}.blob"
    with suppress(Exception):  # absent, damaged, or of no use to the library: it is made again
        data = place.read_bytes()
        if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
            return core.import_model(io.BytesIO(data[_DIGEST:]), "CPU", settings)
    graph = core.read_model(model.data)
    graph.reshape(shape)
    compiled = core.compile_model(graph, "CPU", settings)
    with suppress(OutputError, OSError, RuntimeError):  # RuntimeError: of the library. It is compiled each time then
        blob = io.BytesIO()
        compiled.export_model(blob)
        files.write_bytes(place, hashlib.sha256(blob.getvalue()).digest() + blob.getvalue())
        for old in sorted(place.parent.glob("*.blob"), key=lambda path: path.stat().st_mtime_ns)[:-_KEPT]:
            old.unlink()
    return compiled


class OpenVinoBf16(OpenVino):
    """The same with the floats of the graph computed in bfloat16."""

    hint = "bf16"

    def _precision(self, model: Model) -> str:
        return "int8" if model.contract.precision == "int8" else "bf16"

    def _check(self, core: Any) -> None:
        abilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in abilities:
            raise BackendError(f"openvino-bf16: this processor computes in {', '.join(abilities)}, not in BF16")
