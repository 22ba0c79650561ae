"""Two stages at once: threads read sources one by one, batches of what was read go through one function. Knows no retinas."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Self, TypeVar

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 -- source, item, result
R = TypeVar("R")


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
        self._readers = ThreadPoolExecutor(workers, thread_name_prefix="funduscope-read")
        self._networks = ThreadPoolExecutor(slots, thread_name_prefix="funduscope-run")
        self._submitted: queue.SimpleQueue[tuple[I, Future[R]]] = queue.SimpleQueue()

    def stream(self, sources: Iterable[S]) -> Generator[R]:
        """Results in the order of the sources, which are taken as they are needed: a batch for each slot, and two more.

        Which items share a batch depends on their order alone, so that a run computes the same again.
        """
        waiting: deque[Future[I]] = deque()
        running: deque[Future[list[R]]] = deque()

        def start(count: int) -> None:
            items = [waiting.popleft().result() for _ in range(count)]
            running.append(self._networks.submit(self._run, items))

        for source in sources:
            waiting.append(self._readers.submit(self._read, source))
            if len(running) < self._slots:
                if len(waiting) == 2 * self._batch:  # one batch is taken, another is being read
                    start(self._batch)
            elif len(waiting) > self._batch:
                yield from running.popleft().result()
                start(self._batch)
        while waiting or running:
            if len(running) == self._slots or not waiting:
                yield from running.popleft().result()
            else:
                start(min(self._batch, len(waiting)))

    def submit(self, source: S) -> Future[R]:
        """The result of one source, as soon as it is there. What waits while all slots are busy shares the next batch."""
        result: Future[R] = Future()

        def arrived(item: Future[I]) -> None:
            if item.cancelled():
                _cancel(result)
            elif error := item.exception():
                if result.set_running_or_notify_cancel():
                    result.set_exception(error)
            else:
                self._submitted.put((item.result(), result))
                self._networks.submit(self._take)

        self._readers.submit(self._read, source).add_done_callback(arrived)
        return result

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
            done = self._run([item for item, _ in taken])
        except BaseException as error:
            for _, result in taken:
                result.set_exception(error)
            return
        for (_, result), value in zip(taken, done, strict=True):
            result.set_result(value)

    def close(self) -> None:
        """Stop: what is under way ends, what waits is cancelled."""
        for pool in (self._readers, self._networks):
            pool.shutdown(cancel_futures=True)
        while True:
            try:
                _cancel(self._submitted.get_nowait()[1])
            except queue.Empty:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _cancel(result: Future[Any]) -> None:
    """Cancel what was not run, and tell whoever waits for it."""
    result.cancel()
    result.set_running_or_notify_cancel()
