"""Two stages at once: what comes out in which order, how much is under way, and what becomes of errors and of the end."""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from funduscope.engine.schedule import CLOSED, Schedule

PATIENCE_S = 20
UNLUCKY = 1013


class Stages:
    """Both functions: a source is its own item, and its result ten times as much. Remembers what it was given."""

    def __init__(self) -> None:
        self.read_by: list[str] = []
        self.batches: list[list[int]] = []
        self.most_at_once = 0
        self.gate = threading.Event()  # a batch waits for it
        self.started = threading.Semaphore(0)  # released where a batch begins
        self.gate.set()
        self._lock, self._inside = threading.Lock(), 0

    def read(self, source: int) -> int:
        self.read_by.append(threading.current_thread().name)
        if source < 0:
            raise ValueError(f"no {source}")
        return source

    def run(self, items) -> list[int]:
        with self._lock:
            self.batches.append(list(items))
            self._inside += 1
            self.most_at_once = max(self.most_at_once, self._inside)
        self.started.release()
        try:
            assert self.gate.wait(PATIENCE_S)
            if UNLUCKY in items:
                raise ArithmeticError("thirteen")
            return [10 * item for item in items]
        finally:
            with self._lock:
                self._inside -= 1

    def schedule(self, batch=4, slots=1, workers=2) -> Schedule[int, int, int]:
        return Schedule(self.read, self.run, batch=batch, slots=slots, workers=workers)


@pytest.fixture
def stages() -> Stages:
    return Stages()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("funduscope")]


def until(condition) -> None:
    """Waits for what another thread does."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


# a stream


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 9, 50])
def test_a_stream_gives_each_result_in_its_sources_order(stages, count, workers, slots):
    with stages.schedule(slots=slots, workers=workers) as schedule:
        assert list(schedule.stream(range(count))) == [10 * k for k in range(count)]
    assert [k for batch in sorted(stages.batches) for k in batch] == list(range(count))


def test_the_order_holds_where_one_source_takes_longer(stages):
    def read(source):
        if source % 5 == 0:
            time.sleep(0.01)
        return source

    with Schedule(read, stages.run, batch=3, slots=2, workers=4) as schedule:
        assert list(schedule.stream(range(30))) == [10 * k for k in range(30)]


@pytest.mark.parametrize(("slots", "count"), [(1, 10), (2, 10), (1, 17), (2, 23)])
def test_who_shares_a_batch_does_not_depend_on_time(slots, count):
    seen = set()
    for delay_s in (0, 0.002):
        stages = Stages()

        def read(source, delay_s=delay_s):
            time.sleep(delay_s * (source % 3))
            return source

        with Schedule(read, stages.run, batch=4, slots=slots, workers=2) as schedule:
            list(schedule.stream(range(count)))
        seen.add(tuple(sorted(map(tuple, stages.batches))))
    (batches,) = seen
    assert [len(batch) for batch in batches[:-1]] == [4] * (len(batches) - 1)  # filled
    assert 1 <= len(batches[-1]) <= 4


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_no_more_is_taken_than_a_batch_for_each_slot_and_two_more(stages, slots, batch):
    taken = itertools.count()
    last = 0

    def endless():
        nonlocal last
        while True:
            last = next(taken)
            yield last

    with stages.schedule(batch=batch, slots=slots) as schedule:
        stream = schedule.stream(endless())
        for given in range(1, 40):
            assert next(stream) == 10 * (given - 1)
            assert last + 1 <= given + (slots + 2) * batch
        stream.close()


def test_as_many_batches_run_at_once_as_there_are_slots_and_no_more():
    for slots in (1, 2, 3):
        stages, meeting = Stages(), threading.Barrier(slots, timeout=PATIENCE_S)

        def run(items, stages=stages, meeting=meeting):
            meeting.wait()  # breaks where a batch waits for another to end
            return stages.run(items)

        with Schedule(stages.read, run, batch=2, slots=slots, workers=1) as schedule:
            assert list(schedule.stream(range(12))) == [10 * k for k in range(12)]
        assert 1 <= stages.most_at_once <= slots


def test_reading_goes_on_while_a_batch_runs(stages):
    stages.gate.clear()
    with stages.schedule(batch=2) as schedule:
        results = []
        consumer = threading.Thread(target=lambda: results.extend(schedule.stream(range(8))))
        consumer.start()
        assert stages.started.acquire(timeout=PATIENCE_S)
        until(lambda: len(stages.read_by) >= 4)  # the batch that runs, and the next
        stages.gate.set()
        consumer.join(PATIENCE_S)
    assert results == [10 * k for k in range(8)]
    assert all(name.startswith("funduscope-read") for name in stages.read_by)


def test_an_error_of_reading_comes_out_after_the_results_before_its_batch(stages):
    with stages.schedule(batch=2) as schedule:
        stream = schedule.stream([0, 1, 2, 3, 4, -1, 6, 7])
        assert [next(stream) for _ in range(4)] == [0, 10, 20, 30]
        with pytest.raises(ValueError, match="no -1"):
            list(stream)
        assert list(schedule.stream([5])) == [50]  # the next may be better


def test_an_error_of_a_batch_comes_out(stages):
    with stages.schedule(batch=2) as schedule:
        with pytest.raises(ArithmeticError, match="thirteen"):
            list(schedule.stream(range(1012, 1020)))
        assert list(schedule.stream([5])) == [50]


def test_an_error_of_the_sources_comes_out(stages):
    def sources():
        yield 1
        raise LookupError("no more")

    with stages.schedule() as schedule, pytest.raises(LookupError, match="no more"):
        list(schedule.stream(sources()))


def test_a_stream_that_is_left_leaves_what_waits(stages):
    stages.gate.clear()
    schedule = stages.schedule(batch=1)
    stream = schedule.stream(range(100))
    threading.Timer(0.05, stages.gate.set).start()
    assert next(stream) == 0
    stream.close()
    schedule.close()
    assert len(stages.batches) < 5


# one by one


def test_what_is_submitted_has_its_result(stages):
    with stages.schedule() as schedule:
        futures = [schedule.submit(k) for k in range(20)]
        assert [own.result(PATIENCE_S) for own in futures] == [10 * k for k in range(20)]
        assert len(concurrent.futures.wait(futures, PATIENCE_S).done) == 20
    assert max(map(len, stages.batches)) <= 4


def test_one_alone_does_not_wait_for_others(stages):
    with stages.schedule(batch=100) as schedule:
        assert schedule.submit(7).result(PATIENCE_S) == 70
    assert stages.batches == [[7]]


def test_what_waits_while_the_slots_are_busy_shares_a_batch(stages):
    stages.gate.clear()
    with stages.schedule(batch=4, workers=1) as schedule:
        futures = [schedule.submit(0)]
        assert stages.started.acquire(timeout=PATIENCE_S)
        futures += [schedule.submit(k) for k in range(1, 10)]
        until(lambda: len(stages.read_by) == 10)
        stages.gate.set()
        assert [own.result(PATIENCE_S) for own in futures] == [10 * k for k in range(10)]
    assert stages.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]


@pytest.mark.parametrize("slots", [1, 2])
def test_submitted_from_many_threads_each_has_its_own(stages, slots):
    with stages.schedule(slots=slots) as schedule, concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda k: schedule.submit(k).result(PATIENCE_S), range(200))) == [
            10 * k for k in range(200)
        ]
    assert stages.most_at_once <= slots


def test_a_batch_that_fails_fails_for_those_in_it_and_no_other(stages):
    stages.gate.clear()
    with stages.schedule(batch=2, workers=1) as schedule:
        first = schedule.submit(0)
        assert stages.started.acquire(timeout=PATIENCE_S)
        rest = [schedule.submit(k) for k in (1012, UNLUCKY, 1014, 1015)]
        until(lambda: len(stages.read_by) == 5)
        stages.gate.set()
        assert first.result(PATIENCE_S) == 0
        assert [type(own.exception(PATIENCE_S)) for own in rest] == [
            ArithmeticError,
            ArithmeticError,
            type(None),
            type(None),
        ]
        assert [own.result() for own in rest[2:]] == [10140, 10150]


def test_a_source_that_cannot_be_read_fails_alone(stages):
    with stages.schedule() as schedule:
        futures = [schedule.submit(k) for k in (1, -1, 2)]
        with pytest.raises(ValueError, match="no -1"):
            futures[1].result(PATIENCE_S)
        assert [futures[k].result(PATIENCE_S) for k in (0, 2)] == [10, 20]


def test_what_is_cancelled_before_its_batch_is_not_run(stages):
    stages.gate.clear()
    with stages.schedule(batch=4, workers=1) as schedule:
        first = schedule.submit(0)
        assert stages.started.acquire(timeout=PATIENCE_S)
        rest = [schedule.submit(k) for k in range(1, 4)]
        until(lambda: len(stages.read_by) == 4)
        assert rest[1].cancel()
        assert not first.cancel()  # it runs
        stages.gate.set()
        assert [own.result(PATIENCE_S) for own in (first, rest[0], rest[2])] == [0, 10, 30]
        assert len(concurrent.futures.wait([first, *rest], PATIENCE_S).done) == 4
    assert stages.batches == [[0], [1, 3]]


def test_what_is_cancelled_before_it_could_not_be_read_is_cancelled_quietly(stages, caplog):
    reading, go_on = threading.Event(), threading.Event()

    def read(source):
        reading.set()
        assert go_on.wait(PATIENCE_S)
        raise ValueError("too late")

    with caplog.at_level(logging.DEBUG), Schedule(read, stages.run, batch=1, slots=1, workers=1) as schedule:
        result = schedule.submit(1)
        assert reading.wait(PATIENCE_S)
        assert result.cancel()
        go_on.set()
        assert len(concurrent.futures.wait([result], PATIENCE_S).done) == 1
        with pytest.raises(CancelledError):
            result.result()
    assert caplog.text == ""


# what callbacks do


@pytest.fixture
def held(stages):
    """Makes a Schedule that reads nothing before its event is set, and the event: `held(batch=4, slots=1)`."""

    def make(**options) -> tuple[Schedule[int, int, int], threading.Event]:
        go_on = threading.Event()

        def read(source):
            assert go_on.wait(PATIENCE_S)
            return stages.read(source)

        return Schedule(read, stages.run, **{"batch": 4, "slots": 1, "workers": 2} | options), go_on

    return make


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), ValueError("mine")], ids=repr)
def test_what_a_callback_raises_keeps_no_result_from_the_others(held, error):
    def raises(future):
        raise error

    schedule, go_on = held()
    with schedule:
        futures = [schedule.submit(k) for k in (1, 2, -1, 3, -2, 4)]
        for own in futures:
            own.add_done_callback(raises)
        go_on.set()
        assert [futures[k].result(PATIENCE_S) for k in (0, 1, 3, 5)] == [10, 20, 30, 40]
        assert [type(futures[k].exception(PATIENCE_S)) for k in (2, 4)] == [ValueError, ValueError]
        assert schedule.submit(5).result(PATIENCE_S) == 50  # the threads are still there


def test_a_batch_of_another_length_fails_for_all_in_it(stages):
    with Schedule(stages.read, lambda items: [], batch=4, slots=1, workers=1) as schedule:
        futures = [schedule.submit(k) for k in range(4)]
        assert [type(own.exception(PATIENCE_S)) for own in futures] == [ValueError] * 4


@pytest.mark.parametrize("source", [1, -1], ids=["run", "read"])
def test_a_callback_may_close_it(held, source):
    closed_by = []
    schedule, go_on = held()

    def close(future):
        schedule.close()
        closed_by.append(threading.current_thread().name)

    with schedule:
        schedule.submit(source).add_done_callback(close)
        go_on.set()
        until(lambda: closed_by)
    assert closed_by[0].startswith("funduscope")


def test_what_is_still_read_when_a_callback_closes_is_told(stages):
    reading, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def read(source):
        if source:
            reading.set()
            assert go_on.wait(PATIENCE_S)
        return source

    def close(future):
        assert reading.wait(PATIENCE_S)
        schedule.close()
        closed.set()

    stages.gate.clear()
    with Schedule(read, stages.run, batch=1, slots=1, workers=2) as schedule:
        late = schedule.submit(1)
        schedule.submit(0).add_done_callback(close)
        stages.gate.set()
        assert closed.wait(PATIENCE_S)
        go_on.set()
        with pytest.raises(RuntimeError, match=CLOSED):
            late.result(PATIENCE_S)


# the end


def test_closing_ends_what_runs_and_tells_what_waits(stages):
    stages.gate.clear()
    schedule = stages.schedule(batch=1, workers=1)
    futures = [schedule.submit(k) for k in range(6)]
    assert stages.started.acquire(timeout=PATIENCE_S)
    threading.Timer(0.05, stages.gate.set).start()
    schedule.close()
    assert futures[0].result(0) == 0
    done = concurrent.futures.wait(futures, PATIENCE_S).done  # whoever waits for them is told
    assert len(done) == 6
    assert [str(own.exception()) for own in futures[1:]] == [CLOSED] * 5
    assert stages.batches == [[0]]


def test_closing_tells_what_was_not_read_yet(stages):
    reading, go_on = threading.Event(), threading.Event()

    def read(source):
        reading.set()
        assert go_on.wait(PATIENCE_S)
        return source

    schedule = Schedule(read, stages.run, batch=1, slots=1, workers=1)
    futures = [schedule.submit(k) for k in range(3)]
    assert reading.wait(PATIENCE_S)
    threading.Timer(0.05, go_on.set).start()
    schedule.close()
    assert [str(own.exception(PATIENCE_S)) for own in futures] == [CLOSED] * 3
    assert stages.batches == []


def test_what_is_submitted_while_it_closes_has_an_end(stages, monkeypatch):
    class ClosedMeanwhile(concurrent.futures.ThreadPoolExecutor):
        def submit(self, *work):
            future = super().submit(*work)
            if threading.current_thread() is threading.main_thread():
                concurrent.futures.wait([future], PATIENCE_S)
                schedule.close()
            return future

    monkeypatch.setattr("funduscope.engine.schedule.ThreadPoolExecutor", ClosedMeanwhile)
    schedule = stages.schedule()
    assert concurrent.futures.wait([schedule.submit(1)], PATIENCE_S).done


def test_closed_it_takes_nothing_more(stages):
    schedule = stages.schedule()
    schedule.close()
    schedule.close()
    with pytest.raises(RuntimeError):
        schedule.submit(1)
    with pytest.raises(RuntimeError):
        list(schedule.stream([1]))
