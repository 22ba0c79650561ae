"""Batches built ahead by a few threads, while the network computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(of_step: Callable[[int], T], first: int, last: int, workers: int) -> Iterator[T]:
    """`of_step(k)` for k = first .. last - 1, in order; `workers` + 1 of them are under way at once."""
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(of_step, k) for k in range(first, min(last, first + workers + 1))]
        for step in range(first, last):
            yield waiting.pop(0).result()
            if (following := step + workers + 1) < last:
                waiting.append(pool.submit(of_step, following))
