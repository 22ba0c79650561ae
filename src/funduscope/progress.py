"""How far a run is: a bar on a terminal, else a line now and then; or JSON lines for another program."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

from rich.progress import BarColumn, Progress, TextColumn

from . import console
from .engine.readers.column import readable
from .engine.results import Rejected, Result
from .engine.run import Run

How = Literal["auto", "json", "none"]
_EVERY = {"line": 30.0, "json": 1.0}  # seconds


class Told:
    """What can be said of a run at any moment. Args: clock: seconds."""

    def __init__(self, run: Run, clock: float) -> None:
        self._run, self._began, self.last = run, clock, ""

    def take(self, result: Result) -> None:
        """One more picture."""
        if isinstance(result, Rejected):
            self.last = f"{readable(result.name)}: {result.code}"

    def values(self, clock: float) -> dict[str, object]:
        """For a program: done and total pictures, pictures a second of now, seconds left, results by code or status."""
        done, seconds = sum(self._run.counts.values()), clock - self._began
        rate = (done - self._run.known) / seconds if seconds > 0 else 0.0
        left = round((len(self._run) - done) / rate) if rate else None
        return {
            "done": done,
            "total": len(self._run),
            "rate": round(rate, 2),
            "seconds_left": left,
            "counts": dict(self._run.counts),
            "last_rejected": self.last or None,
        }

    def line(self, clock: float) -> str:
        """The same for people."""
        own = self.values(clock)
        left = own["seconds_left"]
        assert left is None or isinstance(left, int)
        ahead = f", {spoken(left)} left" if left else ""
        refused = f"; last: {self.last}" if self.last else ""
        return (
            f"{own['done']} of {own['total']}, {own['rate']:.1f} a second{ahead}; {counted(self._run.counts)}{refused}"
        )


def followed(run: Run, how: How = "auto") -> Iterator[Result]:
    """A run's results, while stderr is told how far it is."""
    told = Told(run, time.monotonic())
    if how == "auto" and console.stderr.is_terminal:
        yield from _bar(run, told)
        return
    kind = {"auto": "line", "json": "json", "none": ""}[how]
    said = time.monotonic()
    for result in run:
        told.take(result)
        yield result
        now = time.monotonic()
        if kind and now - said >= _EVERY[kind]:
            said = now
            _say(kind, told, now)
    if kind == "json":
        _say(kind, told, time.monotonic())


def _say(kind: str, told: Told, now: float) -> None:
    console.stderr.print(json.dumps(told.values(now)) if kind == "json" else told.line(now))


def _bar(results: Iterable[Result], told: Told) -> Iterator[Result]:
    columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
    with Progress(*columns, console=console.stderr, transient=True) as bar:
        task = bar.add_task("", total=None)
        for result in results:
            told.take(result)
            own = told.values(time.monotonic())
            bar.update(task, total=own["total"], completed=own["done"], description=told.line(time.monotonic()))  # type: ignore[arg-type]
            yield result


def counted(counts: Counter[str]) -> str:
    """Such as `12 ok, 1 DAMAGED`."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def spoken(seconds: int) -> str:
    """A time for people, such as `2 h 10 min`."""
    minutes, hours = round(seconds / 60), seconds // 3600
    if hours:
        return f"{hours} h {seconds % 3600 // 60} min"
    return f"{minutes} min" if minutes else f"{seconds} s"
