"""A runner without a network: its outputs are a function's. For tests of what lies around one, without model or device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray


class FakeRunner:
    """See `Runner`; `Screener.of` opens a screener over it.

    Attributes:
        batches: How many pictures each call had so far.
        closed: Whether it was closed.

    Example:
        ```python
        model = funduscope.engine.models.load("classifier")
        sizes = {own.name: own.shape[1:] for own in model.contract.outputs}
        runner = FakeRunner(lambda images: {n: np.full((len(images), *s), 0.9, np.float32) for n, s in sizes.items()})
        with Screener.of([model], [runner]) as screener:
            assert screener("eye.jpg").decisions["referable_dr"].called
        ```
    """

    def __init__(
        self,
        outputs: Callable[[NDArray[np.uint8]], Mapping[str, NDArray[np.float32]]],
        max_batch: int = 8,
        *,
        precision: str = "fp32",
        slots: int = 1,
    ) -> None:
        """Nothing is loaded.

        Args:
            outputs: What it answers with: from uint8 (N, S, S, 3) RGB to each output by its contract's name, float32 (N, ...).
            max_batch: The most pictures of a call.
            precision: Of the computation, as rows have it.
            slots: How many calls there may be at once.
        """
        self._outputs = outputs
        self.max_batch, self.precision, self.slots = max_batch, precision, slots
        self.batches: list[int] = []
        self.closed = False

    def __call__(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """See Runner."""
        assert not self.closed, "the runner is closed"
        assert images.dtype == np.uint8
        assert images.ndim == 4
        assert 1 <= len(images) <= self.max_batch
        self.batches.append(len(images))
        return self._outputs(images)

    def close(self) -> None:
        """See Runner."""
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
