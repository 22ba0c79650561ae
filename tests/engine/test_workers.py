"""A process that crashes or hangs costs a retry and an answer; the others go on."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from funduscope.engine.errors import Code
from funduscope.engine.eyes import Eyes, Listed
from funduscope.engine.workers import Workers


def lost(source: str, how: str) -> str:
    return f"{how}: {source}"


@pytest.fixture
def workers():
    """Two processes that evaluate Python."""
    made = Workers(eval, count=2, timeout=2.0, lost=lost)
    yield made
    made.close()


def test_answers_are_the_functions(workers):
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(workers, [f"{k} * 2" for k in range(20)])) == [2 * k for k in range(20)]


def test_arrays_come_whole_whether_they_fit_the_shared_memory_or_not(workers):
    small, large = workers("[__import__('numpy').arange(k, dtype='f4').reshape(-1, 2) for k in (0, 4, 100_000)]"), None
    large = workers("__import__('numpy').arange(9_000_000, dtype='f4')")
    for found, count in zip([*small, large], (0, 4, 100_000, 9_000_000), strict=True):
        np.testing.assert_array_equal(found.ravel(), np.arange(count, dtype="f4"))
    small[2][:] = 0  # the caller's own
    assert workers("__import__('numpy').ones(3)").tolist() == [1, 1, 1]


def test_what_the_function_raises_is_raised(workers):
    with pytest.raises(ZeroDivisionError):
        workers("1 / 0")
    assert workers("1 + 1") == 2


def test_R05_a_crash_costs_one_retry_and_then_an_answer(workers, tmp_path):
    log = str(tmp_path / "log")
    note = f"__import__('os').mkdir({log!r} + str(len(__import__('glob').glob({log!r} + '*'))))"
    crash = f"({note}, __import__('os').kill(__import__('os').getpid(), 11))"
    assert workers(crash) == f"crashed: {crash}"
    assert len(list(tmp_path.iterdir())) == 2  # tried twice
    assert workers("1 + 1") == 2
    once = f"__import__('os')._exit(3) if not __import__('os').path.exists({log!r} + '2') and ({note} or True) else 7"
    assert workers(once) == 7


def test_R06_a_hanging_process_is_ended(workers):
    start = time.monotonic()
    hang = "__import__('time').sleep(60)"
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(workers, [hang, "1 + 1"]))
    assert answers == [f"late: {hang}", 2]
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_R04_a_signal_to_the_whole_group_is_the_owners_to_handle(workers, number):
    before = {workers("__import__('os').getpid()") for _ in range(4)}
    for pid in before:
        os.kill(pid, number)
    assert {workers("__import__('os').getpid()") for _ in range(4)} == before


def test_processes_end_with_their_owner(workers):
    pids = {workers("__import__('os').getpid()") for _ in range(4)}
    workers.close()
    for pid in pids:
        status = Path(f"/proc/{pid}/status")
        assert not status.exists() or "Z" in status.read_text()


def test_a_picture_that_hangs_or_crashes_its_process_is_a_row(fake, fundus, tmp_path):
    cv2.imwrite(str(tmp_path / "eye.png"), fundus()[..., ::-1])
    good = Listed(str(tmp_path / "eye.png"), "p1", "left")
    with fake() as opened:
        apart, here = list(opened.stream([good] * 3, timeout=30)), list(opened.stream([good] * 3))
        assert [own.to_dict() for own in apart] == [own.to_dict() for own in here]
        for how, code in (("crashed", Code.WORKER_CRASH), ("late", Code.TIMED_OUT)):
            row = opened._intake.lost(good, how)
            assert (row.code, row.name, row.eyes, row.status) == (code, good.path, Eyes("p1", "left", "list"), "error")
        with pytest.raises(Exception, match="timeout 0: must be above 0"):
            opened.stream([good], timeout=0)
