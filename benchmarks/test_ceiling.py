"""The machine's own ceiling: convolutions and a product of matrices by turns, and a copy of memory."""

from __future__ import annotations

from typing import Any

import ceiling
import numpy as np
import pytest
import turns

BOUNDS = {"fp32": 1e-5, "bf16": 1e-2, "int8": 5e-2}  # of the difference from the exact, as a share


@pytest.mark.benchmark(group="ceiling", timer=turns.clock)
@pytest.mark.parametrize(("library", "precision"), ceiling.CANDIDATES)
def test_highest(benchmark: Any, library: str, precision: str) -> None:
    label = f"{library} {precision}"
    there, absent = ceiling.candidates()
    if label in absent:
        pytest.skip(absent[label])
    times = ceiling.measured()[label]
    assert there[label].difference(times.result) <= BOUNDS[precision]
    gflops = round(there[label].flops / times.p50_ms / 1e6, 1)
    turns.hand_over(benchmark, times, part="ceiling", way=label, precision=precision, gflops=gflops)


@pytest.mark.benchmark(group="ceiling, memory", timer=turns.clock)
def test_copy(benchmark: Any) -> None:
    with ceiling.copy() as run:
        times = turns.by_turns({"copy": run}, seconds=1)["copy"]
    assert np.count_nonzero(times.result) == ceiling.COPIED
    rate = ceiling.COPIED / times.p50_ms / 1e6
    turns.hand_over(benchmark, times, part="memory", way="copy", gb_per_second=round(rate, 1))
