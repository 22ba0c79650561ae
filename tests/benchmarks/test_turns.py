"""The turns: nothing is missed, none is favoured, and figures are of what was measured."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import turns


class Clock:
    """A clock that stands still but for what is run by it."""

    def __init__(self):
        self.now = 0.0
        self.ran: list[str] = []

    def __call__(self) -> float:
        return self.now

    def run(self, name, *seconds):
        """Something that takes so long, in each call and then always as in the last."""
        waiting = list(seconds)

        def run():
            self.ran.append(name)
            self.now += waiting.pop(0) if len(waiting) > 1 else waiting[0]
            return name.upper()

        return run


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(turns, "PAUSE_S", 0)


def test_each_is_measured_once_in_every_turn_until_the_time_is_up():
    clock = Clock()
    times = turns.by_turns({"a": clock.run("a", 9, 1, 2), "b": clock.run("b", 9, 3)}, seconds=11, least=1, clock=clock)
    assert times["a"].seconds == [1, 2, 2]  # without the warm-up
    assert times["b"].seconds == [3, 3, 3]
    assert times["a"].result == "A"
    assert [sorted(clock.ran[k : k + 2]) for k in range(0, 8, 2)] == [["a", "b"]] * 4


def test_there_are_so_many_turns_however_long_they_take():
    clock = Clock()
    assert turns.by_turns({"a": clock.run("a", 100)}, seconds=1, least=4, clock=clock)["a"].seconds == [100] * 4


def test_none_always_comes_after_the_same_other():
    clock = Clock()
    turns.by_turns({name: clock.run(name, 1) for name in "abc"}, seconds=1, least=40, clock=clock)
    assert len(set(pairwise(clock.ran))) > 6
    measured = clock.ran[3:]
    assert {name: measured[0::3].count(name) > 5 for name in "abc"} == dict.fromkeys("abc", True)


def test_what_is_done_before_is_not_measured():
    clock = Clock()
    times = turns.by_turns(
        {"a": clock.run("a", 1)}, seconds=1, least=2, before={"a": clock.run("before", 50)}, clock=clock
    )
    assert times["a"].seconds == [1, 1]
    assert clock.ran == ["before", "a"] * 3


def test_each_may_work_on_another_number_of_pictures():
    clock = Clock()
    runs = {"a": clock.run("a", 1), "b": clock.run("b", 3)}
    times = turns.by_turns(runs, seconds=1, least=2, pictures={"a": 2, "b": 6}, clock=clock)
    assert times["a"].pictures_per_second == times["b"].pictures_per_second == 2
    assert times["a"].faster_than(times["b"]) == 1


def test_figures():
    times = turns.Times([k / 1000 for k in range(1, 101)], pictures=8)
    assert times.p50_ms == pytest.approx(50.5)
    assert times.p99_ms == pytest.approx(99.01)
    assert times.pictures_per_second == pytest.approx(8 / 0.0505)
    assert times.figures() == {"p50_ms": 50.5, "p99_ms": 99.01, "pictures_per_second": 158.42}


def test_a_ratio_is_of_the_same_turn():
    slow = np.array([2.0, 2.0, 20.0, 200.0, 2.0])  # the machine was busy in two of the turns
    assert turns.Times(slow / 4).faster_than(turns.Times(slow)) == 4
    assert turns.Times(slow / 4, pictures=2).faster_than(turns.Times(slow, pictures=2)) == 4
    assert turns.Times(slow, pictures=8).faster_than(turns.Times(slow, pictures=1)) == 8
    assert turns.Times(slow[::-1] / 4).faster_than(turns.Times(slow)) != 40


def test_pytest_benchmark_is_told_what_was_measured():
    seen = []

    def pedantic(target, rounds):
        for _ in range(rounds):
            begin = turns.clock()
            target()
            seen.append(turns.clock() - begin)

    fixture = SimpleNamespace(pedantic=pedantic, extra_info={})
    turns.hand_over(fixture, turns.Times([0.25, 0.5, 4]), way="x")
    assert seen == pytest.approx([0.25, 0.5, 4])
    assert fixture.extra_info["way"] == "x"
    assert fixture.extra_info["p50_ms"] == 500
    assert fixture.extra_info["turns"] == 3
