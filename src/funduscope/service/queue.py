"""The one way to the screener: bounded, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.exceptions import HTTPException

from ..engine.eyes import Listed
from ..engine.results import Result
from ..engine.screener import Screener
from .problems import busy


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
        futures: list[asyncio.Future[Result]] = []
        for source in sources:
            future = asyncio.wrap_future(self._screener.submit(source, keep_photo=keep_photo))
            self.waiting += 1
            future.add_done_callback(self._leave)
            futures.append(future)
        _, late = await asyncio.wait(futures, timeout=self._deadline)
        if late:
            raise HTTPException(504, f"not screened within {self._deadline:g} seconds")
        return [future.result() for future in futures]

    def _leave(self, future: asyncio.Future[Result]) -> None:
        self.waiting -= 1
        if not future.cancelled():
            future.exception()  # was looked at, if nobody waits for it any more
