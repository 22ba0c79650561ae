"""The one way to the screener: bounded, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from ..engine.eyes import Listed
from ..engine.readers.outputs import Outputs
from ..engine.results import Result
from ..engine.screener import Screener
from .problems import busy

T = TypeVar("T")


class Queue:
    """Lets so many pictures wait and no more. Of one event loop.

    Attributes:
        waiting: How many wait or are worked on. One that is late counts until it is done, so that they are bounded.
    """

    def __init__(self, screener: Screener, places: int, deadline_seconds: float) -> None:
        self._screener, self._places, self._deadline = screener, places, deadline_seconds
        self.waiting = 0

    def expect_room(self, count: int = 1) -> None:
        """Raises HTTPException: 429 where there is not room for so many more."""
        if self.waiting + count > self._places:
            raise busy(429, f"{self.waiting} pictures wait, of {self._places} at most; try again later")

    async def screen(self, sources: Sequence[Listed], *, keep_photo: bool = False) -> list[Result]:
        """Screen pictures; they share batches with those of other requests.

        Raises:
            HTTPException: 429 where they are too many, 504 where they take too long.
        """
        self.expect_room(len(sources))
        return await self._all(
            [asyncio.wrap_future(self._screener.submit(own, keep_photo=keep_photo)) for own in sources]
        )

    async def run(self, model: str, images: NDArray[np.uint8]) -> Outputs:
        """Have one model run on prepared squares, which count as pictures. Raises as `screen` does."""
        self.expect_room(len(images))
        running = asyncio.get_running_loop().run_in_executor(None, self._screener.outputs, model, images)
        return (await self._all([running], len(images)))[0]

    async def _all(self, futures: Sequence[asyncio.Future[T]], each: int = 1) -> list[T]:
        """The results, in order. Args: each: how many pictures a future is of."""
        for future in futures:
            self.waiting += each
            future.add_done_callback(partial(self._leave, each))
        _, late = await asyncio.wait(futures, timeout=self._deadline)
        if late:
            raise HTTPException(504, f"not done within {self._deadline:g} seconds")
        return [future.result() for future in futures]

    def _leave(self, count: int, future: asyncio.Future[Any]) -> None:
        self.waiting -= count
        if not future.cancelled():
            future.exception()  # was looked at, if nobody waits for it any more
