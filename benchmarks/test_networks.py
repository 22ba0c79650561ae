"""Each network alone, on batches of one size, in every way by turns; beside what the machine does at most."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from functools import partial
from typing import Any

import ceiling
import flops
import numpy as np
import onnx
import pytest
import sizes
import turns
import ways

from funduscope.engine import models
from funduscope.engine.gate import verify
from funduscope.engine.gate.pictures import prepared
from funduscope.engine.readers.difference import BOUNDS

SECONDS = {1: 8, 8: 15}  # by batch
CASES = [
    (name, batch, label)
    for name in models.embedded()
    for batch in SECONDS
    for label in ways.of_network(models.load(name), batch)
]


@functools.cache
def measured(name: str, batch: int) -> tuple[dict[str, turns.Times], dict[str, str], dict[str, str]]:
    """Times of each way and of the ceilings (`ceiling fp32`); why not the others; and the precisions that computed."""
    model = models.load(name)
    image = prepared([sizes.SAMPLE], model.contract.geometry.build())[0]
    images = np.repeat(image[None], batch, axis=0)
    with ExitStack() as stack:
        there, absent = ways.opened(stack, ways.of_network(model, batch))
        runs = {label: partial(run, images) for label, run in there.items()}
        best = {f"ceiling {precision}": work.run for precision, work in ceiling.highest().items()}
        times = turns.by_turns({**runs, **best}, seconds=SECONDS[batch], pictures=batch)
        return times, absent, {label: getattr(run, "precision", "fp32") for label, run in there.items()}


@functools.cache
def gflop(name: str) -> float:
    """Of one picture."""
    return flops.count(onnx.load_from_string(models.load(name).data)) / 1e9


@pytest.mark.benchmark(timer=turns.clock)
@pytest.mark.parametrize(("name", "batch", "label"), CASES)
def test_network(benchmark: Any, name: str, batch: int, label: str) -> None:
    found, absent, precisions = measured(name, batch)
    if label in absent:
        pytest.skip(absent[label])
    times, precision = found[label], precisions[label]
    reader, (expected, seen) = (
        verify.reader_of(models.load(name)),
        ({key: value[0] for key, value in found[own].result.items()} for own in (ways.PLAIN, label)),
    )
    for difference in reader.differences([(expected, seen)], BOUNDS[precision]):
        assert difference.holds, f"{difference.name}: {difference.seen}"
    top = precision if precision in ceiling.highest() else "fp32"  # fp16 is computed in float here
    limit, work = found[f"ceiling {top}"], ceiling.highest()[top].flops / 1e9
    share = times.faster_than(limit) * gflop(name) * batch / work
    benchmark.group = f"network {name}, batch {batch}"
    turns.hand_over(
        benchmark,
        times,
        part="network",
        network=name,
        batch=batch,
        way=label,
        ours=label not in ways.LIBRARIES,
        precision=precision,
        gflop=round(gflop(name), 2),
        gflops=round(gflop(name) * times.pictures_per_second, 1),
        ceiling_gflops=round(1000 * work / limit.p50_ms, 1),
        share_of_ceiling=round(share, 3),
        times_plain=round(times.faster_than(found[ways.PLAIN]), 2),
    )
