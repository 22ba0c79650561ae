"""A function in processes of its own: one that crashes or hangs costs a retry, then an answer that says so. Knows no retinas."""

from __future__ import annotations

import ctypes
import multiprocessing
import pickle
import queue
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Generic, Literal, TypeVar, cast

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 -- source, item
Lost = Literal["crashed", "late"]

_ROOM = 16 * 2**20  # bytes of the memory that a worker shares with us; what is larger goes through its pipe
_TRIES = 2
_ENDS = 1.0  # seconds that a worker has to end by itself


class Workers(Generic[S, I]):
    """Calls `function(source)` in one of `count` processes, from any number of threads. Arrays come back in shared memory.

    They are started as they are needed, by spawn, so that no runtime is forked; one whose parent dies ends too.

    Args:
        function: Travels to the processes, as do sources and answers.
        count: How many processes.
        timeout: Seconds that an answer may take.
        lost: The answer where a source has crashed or held up a process twice.
    """

    def __init__(self, function: Callable[[S], I], *, count: int, timeout: float, lost: Callable[[S, Lost], I]) -> None:
        self._lost, self._timeout = lost, timeout
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all = [_Worker(function) for _ in range(count)]
        for worker in self._all:
            self._idle.put(worker)

    def __call__(self, source: S) -> I:
        """The function's answer, or `lost`'s. What the function raises is raised here."""
        worker = self._idle.get()
        try:
            how: Lost = "crashed"
            for _ in range(_TRIES):
                try:
                    return cast(I, worker.ask(source, self._timeout))
                except TimeoutError:
                    how = "late"
                except (EOFError, OSError):
                    how = "crashed"
                worker.stop(kill=True)
            return self._lost(source, how)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes; no call may be under way."""
        for worker in self._all:
            worker.stop()


class _Worker:
    """One process, started with its first question."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self._process: multiprocessing.process.BaseProcess | None = None

    def ask(self, source: Any, timeout: float) -> Any:
        """Raises TimeoutError, EOFError, OSError, and what the function raises."""
        if self._process is None:
            self._start()
        self._pipe.send(source)
        if not self._pipe.poll(timeout):
            raise TimeoutError
        done, data, sizes = self._pipe.recv()
        ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
        shared = memoryview(self._shared).cast("B")
        buffers = [bytearray(shared[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
        answer = pickle.loads(data, buffers=buffers)
        if not done:
            raise answer
        return answer

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._shared = context.RawArray(ctypes.c_ubyte, _ROOM)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._function, theirs, self._shared), daemon=True)
        self._process.start()
        theirs.close()

    def stop(self, kill: bool = False) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        self._pipe.close()
        if not kill:
            process.join(_ENDS)
        if process.is_alive():
            process.kill()
            process.join(_ENDS)


def _serve(function: Callable[[Any], Any], pipe: Connection, shared: Any) -> None:
    """What a process does: answer until its parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a whole group gets them; they are the parent's to handle
        signal.signal(number, signal.SIG_IGN)
    room = memoryview(shared).cast("B")
    while True:
        try:
            source = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            done, answer = True, function(source)
        except Exception as error:
            done, answer = False, error
        taken: list[int] = []

        def kept(buffer: pickle.PickleBuffer, taken: list[int] = taken) -> bool:
            """Put an array's bytes beside the others; true, and they go with the rest, where there is no room."""
            data, start = buffer.raw(), sum(taken)
            if start + data.nbytes > len(room):
                return True
            room[start : start + data.nbytes] = data
            taken.append(data.nbytes)
            return False

        pipe.send((done, pickle.dumps(answer, protocol=5, buffer_callback=kept), taken))
