"""CUDA without a GPU: what the slot layer uses of pycuda and of cuda-bindings, in this process's memory.

It is as strict as the real ones where code can go wrong. Work runs when its stream is synchronized, recorded work when its graph
is launched; every call needs a current context; pycuda's objects cannot be freed once their context is gone. What is held is
counted.
"""

from __future__ import annotations

import enum
import functools
import itertools
import math
import sys
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import numpy as np

Work = Callable[[], None]
GARBAGE = 0xCD  # what new memory holds


class Error(Exception):
    """pycuda's base class."""


class OutOfMemoryError(Error):
    """pycuda calls it MemoryError, and it is none of Python's."""


class LogicError(Error):
    """A call that the driver does not allow."""


class LaunchError(Error):
    """What runs on the GPU failed; from then on every call does."""


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class CUstreamCaptureMode(enum.IntEnum):
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


@dataclass
class _Queue:
    """What a stream has to do, and what was recorded from it since recording began."""

    waiting: list[Work] = field(default_factory=list)
    recorded: list[Work] | None = None
    spoiled: bool = False


class FakeCuda:
    """room: bytes of device memory; refused: calls of cuda-bindings that fail; broken: why the driver does not start; failed:
    what went wrong on the GPU, of which pycuda only prints a warning where it frees something."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.refused: set[str] = set()
        self.broken: str | None = None
        self.failed: str | None = None
        self.replays = 0  # graphs launched
        self.memory: dict[int, np.ndarray] = {}
        self.streams: dict[int, _Queue] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.pinned: set[int] = set()
        self.retained = 0
        self._current: dict[int, list[_Context]] = defaultdict(list)  # CUDA's stack of each thread
        self._pushed: dict[int, list[_Context]] = defaultdict(list)  # pycuda's, whose top alone is on CUDA's
        self._handles = itertools.count(1)
        self._addresses = itertools.count(0x7F00_0000_0000, 1 << 32)

    def install(self, monkeypatch) -> None:
        """Take the place of pycuda and cuda-bindings."""
        modules = {name: ModuleType(name) for name in ("pycuda", "pycuda.driver", "cuda", "cuda.bindings")}
        modules["cuda.bindings.driver"] = ModuleType("cuda.bindings.driver")
        vars(modules["pycuda.driver"]).update(
            Error=Error,
            MemoryError=OutOfMemoryError,
            LogicError=LogicError,
            init=self._init,
            Device=lambda number: SimpleNamespace(retain_primary_context=lambda: _Context(self)),
            Context=SimpleNamespace(pop=self._pop),
            Stream=functools.partial(_Stream, self),
            mem_alloc=functools.partial(_Allocation, self),
            pagelocked_empty=self._pagelocked_empty,
            memcpy_htod_async=self._to_device,
            memcpy_dtoh_async=self._to_host,
        )
        vars(modules["cuda.bindings.driver"]).update(
            CUresult=CUresult,
            CUstreamCaptureMode=CUstreamCaptureMode,
            CUstream=int,
            **{
                name: functools.partial(self._answer, name, getattr(self, f"_{name}"), results)
                for name, results in {
                    "cuCtxGetCurrent": 1,
                    "cuCtxPopCurrent": 1,
                    "cuStreamBeginCapture": 0,
                    "cuStreamEndCapture": 1,
                    "cuGraphInstantiate": 1,
                    "cuGraphLaunch": 0,
                    "cuGraphDestroy": 0,
                    "cuGraphExecDestroy": 0,
                }.items()
            },
        )
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    # ---- what tests ask and do

    def held(self) -> dict[str, int]:
        """What is allocated, and how much of it; empty after all was given back."""
        counts = {
            "bytes": sum(memory.nbytes for memory in self.memory.values()),
            "pinned": len(self.pinned),
            "streams": len(self.streams),
            "graphs": len(self.graphs),
            "executables": len(self.executables),
            "contexts": self.retained,
        }
        return {what: count for what, count in counts.items() if count}

    def depth(self) -> int:
        """How many contexts this thread has on its stack."""
        return len(self._current[threading.get_ident()])

    def enqueue(self, stream: int, work: Work) -> None:
        """A kernel: run when the stream is synchronized, or recorded."""
        self._needs_context()
        queue = self.streams[stream]
        (queue.waiting if queue.recorded is None else queue.recorded).append(work)

    def bind(self, context: _Context) -> None:
        """Make a context current on this thread without pycuda's knowledge, as TensorRT and torch do."""
        self._current[threading.get_ident()].append(context)

    def recording(self, stream: int) -> bool:
        """Whether a graph is being recorded from the stream."""
        return self.streams[stream].recorded is not None

    def view(self, address: int, shape: tuple[int, ...], dtype: object) -> np.ndarray:
        """Device memory as a kernel sees it."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if address not in self.memory or self.memory[address].nbytes < size:
            raise LogicError(f"illegal memory access: {size} bytes at {address:#x}")
        return self.memory[address][:size].view(dtype).reshape(shape)

    def synchronize(self, stream: int) -> None:
        """Do what the stream has to do."""
        self._needs_context()
        queue = self.streams[stream]
        if self.failed:
            raise LaunchError(f"cuStreamSynchronize of stream {stream} failed: {self.failed}")
        if queue.recorded is not None:
            queue.spoiled = True
            raise LogicError("cuStreamSynchronize failed: operation not permitted when stream is capturing")
        waiting, queue.waiting = queue.waiting, []
        for work in waiting:
            work()

    # ---- pycuda.driver

    def _init(self) -> None:
        if self.broken:
            raise Error(self.broken)

    def _needs_context(self) -> _Context:
        stack = self._current[threading.get_ident()]
        if not stack or not stack[-1].valid:
            raise LogicError("invalid device context")
        return stack[-1]

    def _pop(self) -> None:
        current, pushed = self._current[threading.get_ident()], self._pushed[threading.get_ident()]
        if not pushed:
            raise LogicError("context::pop failed: cannot pop non-current context")
        current.pop()
        pushed.pop()
        current += pushed[-1:]

    def _pagelocked_empty(self, shape: tuple[int, ...], dtype: object) -> np.ndarray:
        self._needs_context()
        array = np.empty(shape, dtype)
        array.view(np.uint8).reshape(-1)[:] = GARBAGE
        key = id(array)
        self.pinned.add(key)
        weakref.finalize(array, self.pinned.discard, key)
        return array

    def _to_device(self, device: _Allocation, host: np.ndarray, stream: _Stream) -> None:
        self._copied(host)
        address = int(device)

        def copy() -> None:
            self.view(address, host.shape, host.dtype)[...] = host

        self.enqueue(stream.handle, copy)

    def _to_host(self, host: np.ndarray, device: _Allocation, stream: _Stream) -> None:
        self._copied(host)
        address = int(device)

        def copy() -> None:
            host[...] = self.view(address, host.shape, host.dtype)

        self.enqueue(stream.handle, copy)

    def _copied(self, host: np.ndarray) -> None:
        # the driver takes other memory too, but then it is no copy beside the work, and cannot be recorded
        assert host.flags.c_contiguous, "pycuda copies what is contiguous"
        assert id(host) in self.pinned or id(host.base) in self.pinned, "not page-locked"

    # ---- cuda.bindings.driver: each gives a tuple of the error code and what it returns

    def _answer(self, name: str, call: Callable, results: int, *arguments: object) -> tuple:
        if name in self.refused:
            return CUresult.CUDA_ERROR_INVALID_VALUE, *[None] * results
        return call(*arguments)

    def _cuCtxGetCurrent(self) -> tuple:
        stack = self._current[threading.get_ident()]
        return CUresult.CUDA_SUCCESS, stack[-1] if stack else None

    def _cuCtxPopCurrent(self) -> tuple:
        stack = self._current[threading.get_ident()]
        return (CUresult.CUDA_SUCCESS, stack.pop()) if stack else (CUresult.CUDA_ERROR_INVALID_CONTEXT, None)

    def _cuStreamBeginCapture(self, stream: int, mode: CUstreamCaptureMode) -> tuple:
        self._needs_context()
        self.streams[stream].recorded, self.streams[stream].spoiled = [], False
        return (CUresult.CUDA_SUCCESS,)

    def _cuStreamEndCapture(self, stream: int) -> tuple:
        queue = self.streams[stream]
        recorded, queue.recorded = queue.recorded, None
        if queue.spoiled:
            return CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None
        graph = next(self._handles)
        self.graphs[graph] = recorded or []
        return CUresult.CUDA_SUCCESS, graph

    def _cuGraphInstantiate(self, graph: int, flags: int) -> tuple:
        executable = next(self._handles)
        self.executables[executable] = list(self.graphs[graph])
        return CUresult.CUDA_SUCCESS, executable

    def _cuGraphLaunch(self, executable: int, stream: int) -> tuple:
        self._needs_context()
        self.streams[stream].waiting += self.executables[executable]
        self.replays += 1
        return (CUresult.CUDA_SUCCESS,)

    def _cuGraphDestroy(self, graph: int) -> tuple:
        self._needs_context()
        del self.graphs[graph]
        return (CUresult.CUDA_SUCCESS,)

    def _cuGraphExecDestroy(self, executable: int) -> tuple:
        self._needs_context()
        del self.executables[executable]
        return (CUresult.CUDA_SUCCESS,)


class _Context:
    """pycuda's hold on the primary context."""

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda, self.valid, self.thread = cuda, True, threading.get_ident()
        cuda.retained += 1

    def push(self) -> None:
        current, pushed = (stacks[threading.get_ident()] for stacks in (self._cuda._current, self._cuda._pushed))
        if not self.valid:
            raise LogicError("cuCtxPushCurrent failed: invalid device context")
        if pushed:
            current.pop()
        current.append(self)
        pushed.append(self)

    def detach(self) -> None:
        current, pushed = (stacks[threading.get_ident()] for stacks in (self._cuda._current, self._cuda._pushed))
        if not self.valid:
            raise LogicError("context::detach failed: cannot detach from invalid context")
        self.valid = False
        if pushed and pushed[-1] is self:
            pushed.pop()
            current += pushed[-1:]
        elif self.thread == threading.get_ident():
            # pycuda pushes it, and counts on CUDA to pop it again, which releasing a primary context does not do
            current.append(self)
        else:
            return  # pycuda leaves it to the thread that made it
        self._cuda.retained -= 1

    def can_be_left_by(self) -> bool:
        """Whether pycuda can free something of the context on this thread."""
        pushed = self._cuda._pushed[threading.get_ident()]
        return self.valid and (pushed[-1:] == [self] or self.thread == threading.get_ident())


class _Stream:
    _context: _Context | None = None

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda, self._context, self.handle = cuda, cuda._needs_context(), next(cuda._handles)
        cuda.streams[self.handle] = _Queue()
        self.synchronize = functools.partial(
            cuda.synchronize, self.handle
        )  # an error's traceback does not keep the stream

    def __del__(self) -> None:
        if self._context is not None and self._context.can_be_left_by():
            del self._cuda.streams[self.handle]


class _Allocation:
    def __init__(self, cuda: FakeCuda, size: int) -> None:
        cuda._needs_context()
        if cuda.held().get("bytes", 0) + size > cuda.room:
            raise OutOfMemoryError("cuMemAlloc failed: out of memory")
        self._cuda, self._address = cuda, next(cuda._addresses)
        cuda.memory[self._address] = np.full(size, GARBAGE, np.uint8)

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        self._cuda._needs_context()
        if self._address not in self._cuda.memory:
            raise LogicError("device_allocation::free failed: invalid handle")
        del self._cuda.memory[self._address]
