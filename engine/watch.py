"""A folder that a camera writes into: each picture is screened when it is whole, once, across restarts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from .errors import SettingsError
from .eyes import Listed
from .outputs.folder import drawers_of, opened, write_rows
from .outputs.store import Stamp, Store, stamp
from .pictures import inputs
from .results import Result, Screening
from .run import agree, begin
from .screener import Screener

SETTLED = 0.5  # seconds for which a file has not changed: it is whole
_PAUSE = 0.1  # seconds between looks, or as long as a look takes


class Watch:
    """Screens what comes into a folder, as one iterates over it, until `stop`. Its folder of results is that of a run.

    A file is whole when its size and time have not changed for half a second; one that is renamed into place, at once. One whose
    bytes change later is screened again. At the end the rows are written as after a run.

    Attributes:
        counts: Rows so far, by code where there is one, else by status.

    Example:
        ```python
        for result in Watch(screener, Path("camera"), Path("results")):
            print(result)
        ```
    """

    def __init__(self, screener: Screener, folder: Path, out: Path, *, overlays: bool = False) -> None:
        """Nothing is read or written yet.

        Args:
            screener: Open, and stays so.
            folder: That is watched, with all below it.
            out: The folder for the results; may lie within.
            overlays: Also draw each photo when it has been screened.

        Raises:
            SettingsError: There is no such folder.
        """
        if not folder.is_dir():
            raise SettingsError(f"{folder}: is no folder to watch")
        self._screener, self._folder, self._out, self._overlays = screener, folder, out, overlays
        self.counts: Counter[str] = Counter()
        self._stopped = False

    def stop(self) -> None:
        """End, from another thread or a signal, when what is whole has been screened."""
        self._stopped = True

    def __iter__(self) -> Iterator[Result]:
        """Wait for pictures.

        Yields:
            Each picture's result, when it is in the store.

        Raises:
            OutputError: The folder of results cannot be written, or another run writes there.
            SettingsError: That folder holds a run of other models or settings.
        """
        with opened(self._out, "add") as store:
            if store.noted("begun") is None:
                begin(store, self._screener, [], [str(self._folder)])
            agree(store, self._screener, self._out)
            self.counts = store.counts()
            numbers = {own.path: number for number, own in enumerate(store.pictures())}
            done = store.stamps()
            known: dict[str, Stamp] = {path: done[k][0] if k in done else None for path, k in numbers.items()}
            coming: dict[str, tuple[Stamp, float]] = {}
            while True:
                ended, began = self._stopped, time.monotonic()
                whole = self._whole(known, coming)
                yield from self._screen(store, whole, numbers, known)
                if ended:
                    break
                time.sleep(max(_PAUSE, time.monotonic() - began) if not whole else 0)
            write_rows(self._out, store)

    def _whole(self, known: dict[str, Stamp], coming: dict[str, tuple[Stamp, float]]) -> list[str]:
        """The files that are new or have changed, and are whole."""
        now, found = time.monotonic(), list[str]()
        seen = set[str]()
        for path in inputs.walk(str(self._folder), self._out, inputs.Inputs()):
            own = stamp(path)
            if own is None or own == known.get(path):
                continue
            seen.add(path)
            before, since = coming.setdefault(path, (own, now))
            if before != own:
                coming[path] = own, now
            elif now - since >= SETTLED or time.time() - own[1] / 1e9 >= SETTLED:
                found.append(path)
        for path in [*found, *(coming.keys() - seen)]:  # whole, or gone again
            coming.pop(path, None)
        return found

    def _screen(
        self, store: Store, paths: list[str], numbers: dict[str, int], known: dict[str, Stamp]
    ) -> Iterator[Result]:
        new = [Listed(path) for path in paths if path not in numbers]
        if new:
            numbers |= {own.path: k for k, own in enumerate(new, start=store.total())}
            store.add(new)
        drawers = drawers_of(self._out, contours=self._overlays, page=False)
        stamps = {path: stamp(path) for path in paths}  # before they are read
        with closing(self._screener.stream(paths, keep_photo=self._overlays)) as results:
            for path, result in zip(paths, results, strict=True):
                store.put([(numbers[path], stamps[path], result)])
                known[path] = stamps[path]
                self.counts[str(result.code or result.status)] += 1
                for drawer in drawers:
                    drawer.forget(numbers[path])
                    drawer.write(numbers[path], result)
                yield replace(result, photo=None) if isinstance(result, Screening) else result
