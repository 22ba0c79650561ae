"""From the file to the result with all models: every way by turns, and what one would write without this engine."""

from __future__ import annotations

import functools
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sizes
import turns
import ways

from funduscope.engine import models
from funduscope.engine.screener import Screener

ONE_S, STREAM_S = 40, 25  # seconds for all ways
LEAST_OF_ONE = 100  # turns, so that one in a hundred is something
COUNT = {"packed": 64, "camera": 32}  # files of a stream: whole batches for two slots
FEW = 6  # of them for a loop, which has no batches to fill
REFERENCE = "onnxruntime fp32"
TOLERANCE = 0.05  # of a probability: precisions differ, and a loop does not look for the field of view
ALL = "+".join(models.embedded())
PARTS = ("classifier", "multitask+disc")  # which look by themselves
LABELS = tuple(ways.end_to_end())
LOOPS = tuple(ways.loops())


@functools.cache
def one_picture() -> tuple[dict[str, turns.Times], dict[str, str]]:
    """One file in memory, at the lowest latency."""
    with ExitStack() as stack:
        there, absent = ways.opened(stack, ways.end_to_end())
        runs = {label: partial(way.one, sizes.jpeg("sample")) for label, way in there.items()}
        times = turns.by_turns(runs, seconds=ONE_S, least=LEAST_OF_ONE)
        return {label: told(own, [own.result], there[label]) for label, own in times.items()}, absent


@functools.cache
def stream(size: str) -> tuple[dict[str, turns.Times], dict[str, str]]:
    """Many files, as fast as they come."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        paths = [folder / f"{k:02}.jpg" for k in range(COUNT[size])]
        for path in paths:
            path.write_bytes(sizes.jpeg(size))
        there, absent = ways.opened(stack, ways.end_to_end())
        taken = {label: paths[: FEW if label in LOOPS else None] for label in there}
        runs = {label: partial(way.many, taken[label]) for label, way in there.items()}
        times = turns.by_turns(
            runs, seconds=STREAM_S, least=3, pictures={label: len(own) for label, own in taken.items()}
        )
        return {label: told(own, own.result, there[label]) for label, own in times.items()}, absent


def told(times: turns.Times, results: Any, way: ways.Way) -> turns.Times:
    """The times with the probabilities of each picture in place of the results."""
    return turns.Times(times.seconds, times.pictures, [way.told(own) for own in results])


def agree(times: turns.Times, reference: turns.Times) -> None:
    """See that all pictures were looked at, and that as much was seen in them."""
    assert len(times.result) == times.pictures
    for own, other in zip(times.result, reference.result, strict=False):
        assert own.keys() == other.keys()
        for name, probability in own.items():
            assert abs(probability - other[name]) <= TOLERANCE, name


@pytest.mark.benchmark(group="one picture in memory, all models", timer=turns.clock)
@pytest.mark.parametrize("label", LABELS)
def test_one_picture(benchmark: Any, label: str) -> None:
    found, absent = one_picture()
    if label in absent:
        pytest.skip(absent[label])
    agree(found[label], found[REFERENCE])
    ratio = round(found[label].faster_than(found[f"loop, {ways.PLAIN}"]), 2)
    turns.hand_over(benchmark, found[label], part="one picture", way=label, ours=label not in LOOPS, times_loop=ratio)


@pytest.mark.benchmark(timer=turns.clock)
@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("size", list(COUNT))
def test_stream(benchmark: Any, size: str, label: str) -> None:
    found, absent = stream(size)
    if label in absent:
        pytest.skip(absent[label])
    agree(found[label], found[REFERENCE])
    benchmark.group = f"stream of {COUNT[size]} pictures of {sizes.SIDES[size]} px, all models"
    ratio = round(found[label].faster_than(found[f"loop, {ways.PLAIN}"]), 2)
    turns.hand_over(
        benchmark, found[label], part="stream", size=size, way=label, ours=label not in LOOPS, times_loop=ratio
    )


@functools.cache
def parts_and_all() -> dict[str, turns.Times]:
    """Models that look by themselves, and all on one decode."""
    with ExitStack() as stack:
        opened = {
            name: stack.enter_context(Screener.open(*name.split("+"), backend="onnxruntime")) for name in (*PARTS, ALL)
        }
        runs = {name: partial(screener, sizes.jpeg("sample")) for name, screener in opened.items()}
        return turns.by_turns(runs, seconds=6, least=20)


@pytest.mark.benchmark(group="one picture in memory, models that look by themselves and all", timer=turns.clock)
@pytest.mark.parametrize("which", [*PARTS, ALL])
def test_parts_and_all(benchmark: Any, which: str) -> None:
    times = parts_and_all()
    assert times[which].result.status == "ok"
    alone = sum(times[name].p50_ms for name in PARTS)
    turns.hand_over(
        benchmark, times[which], part="parts and all", way=which, to_sum_of_parts=round(times[which].p50_ms / alone, 2)
    )
