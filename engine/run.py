"""A run: pictures, a screener and a folder, in which each picture has a row whatever happens to it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from .eyes import Listed
from .files import remove
from .outputs import patients
from .outputs.overlays import Overlays
from .outputs.patients import Patients
from .outputs.report import Report
from .outputs.rows import Rows, Sink, write_record
from .results import Result, Screening
from .screener import Screener


class Run:
    """Screens pictures into a folder as one iterates over it; each result is written before it comes out.

    Writes `screenings.jsonl`, `screenings.csv` and, when all is done, `run.json`; `patients.csv` where patients are named;
    what an earlier run has left of these is replaced.

    Attributes:
        counts: Rows so far, by code where there is one, else by status.
        seconds: How long it took; 0 until it has ended.

    Example:
        ```python
        for result in Run(screener, [Listed("eye.jpg")], Path("results"), report=True):
            print(result)
        ```
    """

    def __init__(
        self,
        screener: Screener,
        pictures: Sequence[Listed],
        out: Path,
        *,
        overlays: bool = False,
        report: bool = False,
        workers: int = 2,
        inputs: Sequence[str] | None = None,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            screener: Open, and stays so.
            pictures: Such as `pictures.inputs.expand` gives them.
            out: The folder for the results.
            overlays: Also draw each photo, and its heat maps, into `out`/overlays.
            report: Also write one HTML page, `out`/report.html.
            workers: Threads that read and prepare.
            inputs: What the pictures were asked for by, for the record; the pictures' own names where nothing is given.
        """
        self._screener, self._pictures, self._out = screener, list(pictures), out
        self._overlays, self._report, self._workers = overlays, report, workers
        self._inputs = [own.path for own in self._pictures] if inputs is None else list(inputs)
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self) -> Iterator[Result]:
        """Screen all.

        Yields:
            Each picture's result, in order, when it is written.

        Raises:
            OutputError: The folder cannot be written.
        """
        started, clock = datetime.now(UTC), time.monotonic()
        screener, keep_photo = self._screener, self._overlays or self._report
        with ExitStack() as stack:
            sinks: list[Sink] = []
            if self._overlays:
                sinks.append(Overlays(self._out / "overlays"))
            if self._report:
                page = Report(self._out / "report.html", screener.contracts, screener.models)
                sinks.append(stack.enter_context(page))
            remove([self._out / patients.FILE])
            sinks.append(stack.enter_context(Patients(self._out)))
            # the last that opens is the first that closes: the rows are whole whatever becomes of a drawing
            rows = stack.enter_context(Rows(self._out))
            sinks.append(rows)
            self.counts = rows.counts
            for result in screener.stream(self._pictures, workers=self._workers, keep_photo=keep_photo):
                for sink in sinks:
                    sink.write(result)
                yield replace(result, photo=None) if isinstance(result, Screening) else result
        self.seconds = time.monotonic() - clock
        record = {
            "inputs": self._inputs,
            "pictures": len(self._pictures),
            "counts": dict(self.counts),
            "seconds": round(self.seconds, 3),
            "settings": {
                "batch": screener.settings.batch,
                "workers": self._workers,
                "overlays": self._overlays,
                "report": self._report,
                "point": screener.point,
            },
        }
        write_record(self._out, screener.models, screener.contracts, started, record)
