"""Two slots of pinned and device memory on a CUDA GPU, so that one batch copies while another is computed.

What computes is a function that enqueues work on a stream: TensorRT's execution context, or any kernel. Memory and streams are
pycuda's; CUDA graphs, which it lacks, are recorded through cuda-bindings on the same stream.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError, require

EXTRA = "cuda"
_log = logging.getLogger("funduscope")

Launch = Callable[[int, int, Mapping[str, int]], None]
"""Enqueue the work for a batch: (stream handle, pictures, device address of each tensor, and of SCRATCH where asked for)."""
SCRATCH = ""  # the name under which a launch finds memory that is its own for the time of a batch


@dataclass(frozen=True)
class Spec:
    """A tensor: the shape of one picture's part, and the type."""

    shape: tuple[int, ...]
    dtype: str


class Slots:
    """Owns the memory; safe to call from several threads, of which as many run at once as there are launches."""

    def __init__(
        self,
        source: tuple[str, Spec],
        outputs: Mapping[str, Spec],
        sizes: Sequence[int],
        launches: Sequence[Launch],
        *,
        scratch_bytes: int = 0,
        graphs: bool = True,
        ready: Callable[[], object] = lambda: None,
        device: int = 0,
    ) -> None:
        """source: the input's name and spec; sizes: a batch is padded up to one of these; launches: one a slot;
        scratch_bytes: of device memory for each launch; ready: called at the end, as the launches in the GPU's context;
        device: index of the GPU.

        Every size is run once and recorded here, so that no later call pays for it. Raises: MissingExtra, BackendError.
        """
        self._driver, self._bindings = require("pycuda.driver", EXTRA), require("cuda.bindings.driver", EXTRA)
        self._sizes = sorted(sizes)
        self._context = _primary_context(self._driver, device)
        self._made, self._closed = 0, threading.Lock()  # which is never released
        self._free: queue.SimpleQueue[_Slot | None] = queue.SimpleQueue()
        try:
            with self._current():
                for launch in launches:
                    slot = _Slot(self._driver, source, outputs, self._sizes[-1], launch, scratch_bytes)
                    self._free.put(slot)
                    self._made += 1
                    slot.prepare(self._sizes, graphs)
                ready()
        except BaseException:
            with suppress(BackendError):
                self.close()
            raise

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """images: (N, ...) of the source's spec, N up to the largest size. Returns: each output (N, ...), the caller's."""
        slot = self._free.get()
        try:
            assert not self._closed.locked(), "the runner is closed"
            assert slot is not None
            with self._current():
                return slot.run(images, next(size for size in self._sizes if size >= len(images)))
        finally:
            self._free.put(slot)  # or the word that there are none, for the next who waits

    def close(self) -> None:
        """Free all memory of the device after the batches that run; calls that wait are refused. Any thread may close.

        Raises: BackendError once, where the GPU fails; what can be freed is freed all the same.
        """
        if not self._closed.acquire(blocking=False):
            return
        slots = [self._free.get() for _ in range(self._made)]
        self._free.put(None)
        first: Exception | None = None
        with self._failures():
            self._context.push()
            # pycuda releases the context on any thread while it is the current one there, but leaves it on CUDA's own stack
            for release in (
                *(slot.free for slot in slots if slot),
                self._bindings.cuCtxPopCurrent,
                self._context.detach,
            ):
                try:
                    release()
                except self._driver.Error as error:
                    first = first or error
            if first is not None:
                raise first

    @contextmanager
    def _current(self) -> Iterator[None]:
        """The GPU's primary context, which TensorRT, ONNX Runtime and torch share, on this thread. Raises BackendError."""
        with self._failures():
            self._context.push()
            try:
                yield
            finally:
                self._driver.Context.pop()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise BackendError(f"the GPU fails: {error}") from error


class _Slot:
    def __init__(
        self,
        driver: Any,
        source: tuple[str, Spec],
        outputs: Mapping[str, Spec],
        most: int,
        launch: Launch,
        scratch_bytes: int,
    ) -> None:
        self._driver, self._launch = driver, launch
        self._source, self._outputs = source[0], list(outputs)
        self._host: dict[str, NDArray[Any]] = {}
        self._device: dict[str, Any] = {}
        self._graphs: dict[int, _Graph] = {}
        self._stream: Any = driver.Stream()
        specs = {source[0]: source[1], **outputs}
        total = scratch_bytes + sum(
            most * math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in specs.values()
        )
        try:
            for name, spec in specs.items():
                self._host[name] = driver.pagelocked_empty((most, *spec.shape), spec.dtype)
                self._device[name] = driver.mem_alloc(self._host[name].nbytes)
            if scratch_bytes:
                self._device[SCRATCH] = driver.mem_alloc(scratch_bytes)
        except driver.MemoryError as error:
            self.free()
            raise BackendError(
                f"the GPU has no {total / 1e6:.0f} MB left for batches of {most}; take smaller batches"
            ) from error

    def prepare(self, sizes: Sequence[int], graphs: bool) -> None:
        """Run every size once, which loads its kernels, then record it."""
        self._host[self._source][:] = 0
        for size in sizes:
            self._enqueue(size)
            self._stream.synchronize()
            if graphs:
                graph = _Graph.record(self._stream, lambda size=size: self._enqueue(size))  # type: ignore[misc]
                if graph is None:
                    _log.warning("batches of %d run without a CUDA graph: they cannot be recorded here", size)
                else:
                    self._graphs[size] = graph

    def run(self, images: NDArray[np.uint8], size: int) -> dict[str, NDArray[Any]]:
        """The outputs for the pictures, which are padded with what was there before."""
        self._host[self._source][: len(images)] = images
        if size in self._graphs:
            self._graphs[size].launch()
        else:
            self._enqueue(size)
        self._stream.synchronize()
        return {name: self._host[name][: len(images)].copy() for name in self._outputs}

    def _enqueue(self, size: int) -> None:
        self._driver.memcpy_htod_async(self._device[self._source], self._host[self._source][:size], self._stream)
        self._launch(self._stream.handle, size, {name: int(memory) for name, memory in self._device.items()})
        for name in self._outputs:
            self._driver.memcpy_dtoh_async(self._host[name][:size], self._device[name], self._stream)

    def free(self) -> None:
        try:
            self._stream.synchronize()
        finally:  # the GPU may have failed
            for graph in self._graphs.values():
                graph.free()
            for memory in self._device.values():
                memory.free()
            # the stream too: pycuda cannot destroy it once its context is gone
            self._graphs, self._device, self._host, self._stream = {}, {}, {}, None


class _Graph:
    """Work that was recorded from a stream, and is launched on it as a whole."""

    def __init__(self, driver: Any, stream: Any, graph: Any, executable: Any) -> None:
        self._driver, self._stream, self._graph, self._executable = driver, stream, graph, executable

    @classmethod
    def record(cls, stream: Any, enqueue: Callable[[], None]) -> _Graph | None:
        """None where the work cannot be recorded; the stream is usable as before."""
        driver = require("cuda.bindings.driver", EXTRA)
        handle = driver.CUstream(stream.handle)
        success, mode = driver.CUresult.CUDA_SUCCESS, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        if driver.cuStreamBeginCapture(handle, mode)[0] != success:
            return None
        whole = True
        try:
            enqueue()
        except Exception as error:  # what failed to be recorded failed for a reason of its own
            _log.info("recording a CUDA graph: %s", error)
            whole = False  # CUDA gives what was recorded before it all the same
        code, graph = driver.cuStreamEndCapture(handle)
        if code != success or not int(graph):
            return None
        code, executable = driver.cuGraphInstantiate(graph, 0) if whole else (None, None)
        if code != success:
            driver.cuGraphDestroy(graph)
            return None
        return cls(driver, handle, graph, executable)

    def launch(self) -> None:
        (code,) = self._driver.cuGraphLaunch(self._executable, self._stream)
        if code != self._driver.CUresult.CUDA_SUCCESS:
            raise BackendError(f"the GPU refuses a recorded batch: {code.name}")

    def free(self) -> None:
        self._driver.cuGraphExecDestroy(self._executable)
        self._driver.cuGraphDestroy(self._graph)


def _primary_context(driver: Any, device: int) -> Any:
    try:
        driver.init()
        return driver.Device(device).retain_primary_context()
    except driver.Error as error:
        raise BackendError(f"CUDA cannot be used here: {error}") from error
