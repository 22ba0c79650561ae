"""Two stages at once: threads read sources one by one, batches of what was read go through one function. Knows no retinas."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Self, TypeVar

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 -- source, item, result
R = TypeVar("R")

CLOSED = "this Screener is closed; open another one"
_log = logging.getLogger("funduscope")


class Schedule(Generic[S, I, R]):
    """Owns the threads; a context manager.

    Args:
        read: From a source to an item; runs in `workers` threads.
        run: From a batch of items to their results, in order; runs in `slots` threads.
        batch: The most items of a batch.
        slots: How many batches are under way at once.
        workers: How many sources are read at once.
    """

    def __init__(
        self,
        read: Callable[[S], I],
        run: Callable[[Sequence[I]], list[R]],
        *,
        batch: int,
        slots: int,
        workers: int,
    ) -> None:
        self._read, self._run, self._batch, self._slots = read, run, batch, slots
        self._closed = False
        self._here = threading.local()  # has an attribute in the threads below alone
        own = (self._here, "own", True)
        self._readers = ThreadPoolExecutor(workers, "funduscope-read", setattr, own)
        self._networks = ThreadPoolExecutor(slots, "funduscope-run", setattr, own)
        self._submitted: queue.SimpleQueue[tuple[I, Future[R]]] = queue.SimpleQueue()

    def stream(self, sources: Iterable[S]) -> Generator[R]:
        """Results in the order of the sources, which are taken as they are needed: a batch for each slot, and two more.

        Which items share a batch depends on their order alone, so that a run computes the same again.
        """
        waiting: deque[Future[I]] = deque()
        running: deque[Future[list[R]]] = deque()

        def start(count: int) -> None:
            batch = [waiting.popleft() for _ in range(count)]
            running.append(self._networks.submit(lambda: self._run([item.result() for item in batch])))

        for source in sources:
            waiting.append(self._readers.submit(self._read_open, source))
            if len(running) < self._slots:
                if len(waiting) == 2 * self._batch:  # one batch is taken, another is being read
                    start(self._batch)
            elif len(waiting) >= self._batch:
                if len(running) > self._slots:  # one more than run at once: no slot waits for another's results
                    yield from running.popleft().result()
                start(self._batch)
        while waiting or running:
            if len(running) > self._slots or not waiting:
                yield from running.popleft().result()
            else:
                start(min(self._batch, len(waiting)))

    def submit(self, source: S) -> Future[R]:
        """The result of one source, as soon as it is there. What waits while all slots are busy shares the next batch."""
        result: Future[R] = Future()
        self._readers.submit(self._admit, source, result)
        return result

    def _read_open(self, source: S) -> I:
        self._expect_open()
        return self._read(source)

    def _admit(self, source: S, result: Future[R]) -> None:
        """Read what was submitted, and have it taken."""
        try:
            item = self._read_open(source)
        except BaseException as error:
            if result.set_running_or_notify_cancel():
                _tell(result.set_exception, error)
            return
        self._submitted.put((item, result))
        try:
            self._networks.submit(self._take)
        except RuntimeError:  # closed meanwhile
            self._take()

    def _take(self) -> None:
        """Run what was submitted, up to a batch; an earlier call may have taken it all."""
        taken: list[tuple[I, Future[R]]] = []
        try:
            while len(taken) < self._batch:
                item, result = self._submitted.get_nowait()
                if result.set_running_or_notify_cancel():
                    taken.append((item, result))
        except queue.Empty:
            pass
        if not taken:
            return
        try:
            self._expect_open()
            done = list(zip(taken, self._run([item for item, _ in taken]), strict=True))
        except BaseException as error:
            for _, result in taken:
                _tell(result.set_exception, error)
            return
        for (_, result), value in done:
            _tell(result.set_result, value)

    def close(self) -> None:
        """Stop: what is under way ends, what waits is told that it is closed. Its own threads do not wait for one another."""
        self._closed = True
        for pool in (self._readers, self._networks):
            pool.shutdown(wait=not hasattr(self._here, "own"))

    def _expect_open(self) -> None:
        if self._closed:
            raise RuntimeError(CLOSED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _tell(end: Callable[[Any], None], what: Any) -> None:
    """Set a future's result or exception. Whatever a callback of it raises is logged, and keeps nothing from the others."""
    try:
        end(what)
    except BaseException:
        _log.exception("a callback of a future raised")
