"""Things measured by turns: what else the machine does falls on all of them alike, so that their ratios hold."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

K = TypeVar("K")
PAUSE_S = 0.005  # before each measurement: threads of what ran before stop spinning, and leave the cores


@dataclass(frozen=True)
class Times:
    """What was measured of one thing.

    Attributes:
        seconds: Of each turn, in order; turn k of all that were measured together lies at the same time.
        pictures: How many it worked on in each.
        result: What it gave, before the first turn.
    """

    seconds: Sequence[float]
    pictures: int = 1
    result: Any = field(default=None, repr=False)

    @property
    def p50_ms(self) -> float:
        """The median."""
        return float(1000 * np.percentile(self.seconds, 50))

    @property
    def p99_ms(self) -> float:
        """Of a hundred turns, one took longer; of fewer turns it is near the longest."""
        return float(1000 * np.percentile(self.seconds, 99))

    @property
    def pictures_per_second(self) -> float:
        """At the median."""
        return 1000 * self.pictures / self.p50_ms

    def faster_than(self, other: Times) -> float:
        """How many times the pictures in the same time: the median over the turns of both."""
        ratios = np.divide(other.seconds, self.seconds)
        return float(np.median(ratios)) * self.pictures / other.pictures

    def figures(self) -> dict[str, float]:
        """What is kept."""
        return {
            "p50_ms": round(self.p50_ms, 3),
            "p99_ms": round(self.p99_ms, 3),
            "pictures_per_second": round(self.pictures_per_second, 2),
        }


def by_turns(
    runs: Mapping[K, Callable[[], Any]],
    *,
    seconds: float,
    least: int = 5,
    pictures: Mapping[K, int] | int = 1,
    before: Mapping[K, Callable[[], Any]] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[K, Times]:
    """Measure all in turn, until the time is up.

    In each turn the order is drawn anew, so that none always comes after the same other.

    Args:
        runs: What to measure.
        seconds: For all together, the warm-up not counted.
        least: Turns, however long they take.
        pictures: How many each works on, or all.
        before: What to do before some of them, each time anew, which is not measured.
        clock: Seconds.
    """
    ready = before or {}

    def prepare(name: K) -> None:
        if name in ready:
            ready[name]()

    results = dict[K, Any]()
    for name, run in runs.items():  # which warms up
        prepare(name)
        results[name] = run()
    times: dict[K, list[float]] = {name: [] for name in runs}
    order, draw, until = list(runs), random.Random(0), clock() + seconds
    turns = 0
    while turns < least or clock() < until:
        draw.shuffle(order)
        for name in order:
            prepare(name)
            time.sleep(PAUSE_S)
            begin = clock()
            runs[name]()
            times[name].append(clock() - begin)
        turns += 1
    counts = dict.fromkeys(runs, pictures) if isinstance(pictures, int) else pictures
    return {name: Times(own, counts[name], results[name]) for name, own in times.items()}


_told = 0.0


def clock() -> float:
    """The time as pytest-benchmark is told it, while it is handed what was measured by turns."""
    return _told


def hand_over(benchmark: Any, times: Times, **info: Any) -> None:
    """Give pytest-benchmark what was measured: it keeps and compares it as if it had measured itself.

    Args:
        benchmark: The fixture, of a test marked `pytest.mark.benchmark(timer=turns.clock)`.
        times: What was measured.
        info: What to keep beside it.
    """
    waiting = iter(times.seconds)

    def pass_by() -> None:
        global _told
        _told += next(waiting)

    benchmark.extra_info.update(times.figures(), turns=len(times.seconds), **info)
    benchmark.pedantic(pass_by, rounds=len(times.seconds))
