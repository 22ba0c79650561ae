"""A run: pictures, a screener and a folder, in which each picture has a row whatever happens to it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..version import __version__
from . import files
from .cluster import ClusterScreener
from .errors import PhotoError, SettingsError
from .eyes import Listed
from .outputs import dicom as reports
from .outputs import rows
from .outputs.folder import RECORD, Onto, draw, drawers_of, opened, write_rows
from .outputs.overlays import Drawings
from .outputs.store import Stamp, Store, stamp
from .pictures import photo
from .results import Result, Screening
from .screener import Screener

_DRAINS = 1.0  # seconds in which a run that is stopped still finishes what was read


class Run:
    """Screens pictures into a folder as one iterates over it; each result is in the folder's store before it comes out.

    At the end it writes, from the store, `screenings.jsonl`, `screenings.csv` and `run.json`; `patients.csv` where patients are
    named. A run that was cut, by whatever, goes on from its store with `onto="resume"`, and its files become those of one that
    was not.

    Attributes:
        counts: Rows so far, by code where there is one, else by status.
        seconds: How long it took, without what was done before it was cut; 0 until it has ended.
        known: Pictures that had a result before.
        changed: Pictures whose files have changed since: screened again.
        missed: Drawings and DICOM reports that could not be made, because the photo is gone or has changed.
        undocumented: Screened pictures without DICOM reports, by the reason, where these were asked for.
        stopped: Whether `stop` has ended it early.

    Example:
        ```python
        for result in Run(screener, [Listed("eye.jpg")], Path("results"), report=True):
            print(result)
        ```
    """

    def __init__(
        self,
        screener: Screener | ClusterScreener,
        pictures: Sequence[Listed],
        out: Path,
        *,
        onto: Onto = "new",
        overlays: bool = False,
        report: bool = False,
        parquet: bool = False,
        dicom: bool = False,
        workers: int = 2,
        timeout: float | None = None,
        inputs: Sequence[str] | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            screener: Open, and stays so; here or on a cluster.
            pictures: Such as `pictures.inputs.expand` gives them.
            out: The folder for the results.
            onto: What to do with a run that is in the folder: refuse (`new`), go on with it (`resume`), go on with more
                pictures too (`add`), or remove it (`overwrite`).
            overlays: Also draw each photo, and its heat maps, into `out`/overlays.
            report: Also write an HTML page, `out`/report.html, with its pictures in `out`/report.
            parquet: Also write `screenings.parquet`.
            dicom: Also write a structured report and a segmentation of each screened DICOM file, into `out`/dicom.
            workers: Threads that read and prepare.
            timeout: See `Screener.stream`.
            inputs: What the pictures were asked for by, for the record; the pictures' own names where nothing is given.
            left_out: How many files were passed over, by kind, for the record.
        """
        self._screener, self._pictures, self._out, self._onto = screener, list(pictures), out, onto
        self._overlays, self._report, self._parquet, self._dicom = overlays, report, parquet, dicom
        self._workers, self._timeout = workers, timeout
        self._inputs = [own.path for own in self._pictures] if inputs is None else list(inputs)
        self._left_out = dict(left_out or {})
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
        self.known = self.changed = self.missed = 0
        self.undocumented: Counter[str] = Counter()
        self.stopped = False

    def __len__(self) -> int:
        return len(self._pictures)

    def stop(self) -> None:
        """End early, from another thread or a signal: what is read is finished, what is finished is kept, no file is written."""
        self.stopped = True

    def __iter__(self) -> Iterator[Result]:
        """Screen all that have no result yet.

        Yields:
            Each picture's result, in order, when it is in the store.

        Raises:
            OutputError: The folder cannot be written, or another run writes there.
            SettingsError: The folder holds a run already, or one that does not go with this one.
        """
        if self._parquet:
            rows.expect("parquet")
        if self._dicom:
            reports.expect()
        with opened(self._out, self._onto) as store:
            started, clock = datetime.now(UTC), time.monotonic()
            drawers = self._drawers()
            numbers = self._todo(store)
            self.counts = store.counts()
            self.known = sum(self.counts.values())
            yield from self._screen(store, numbers, drawers)
            seconds = time.monotonic() - clock
            part = {"started": _iso(started), "finished": _iso(datetime.now(UTC)), "seconds": round(seconds, 3)}
            store.note("parts", [*(store.noted("parts") or []), part])
            if self.stopped:
                return
            write_rows(self._out, store, parquet=self._parquet)
            beside = [reports.Reports(self._out / reports.FOLDER)] if self._dicom else []
            missed = draw(
                self._out,
                store,
                contours=self._overlays,
                page=self._report,
                beside=beside,
                stopped=lambda: self.stopped,
            )
            if missed is None:
                return
            self.missed = missed
            self.undocumented = sum((own.left_out for own in beside), Counter[str]())
            files.write_text(self._out / RECORD, json.dumps(self._record(store), indent=2) + "\n")
        self.seconds = seconds

    def _drawers(self) -> list[Drawings]:
        return drawers_of(self._out, contours=self._overlays, page=self._report)

    def _todo(self, store: Store) -> list[int]:
        """The numbers of the pictures to screen; the store then has all pictures. Raises SettingsError."""
        if store.noted("begun") is None:
            begin(store, self._screener, self._pictures, self._inputs)
            return list(range(len(self._pictures)))
        agree(store, self._screener, self._out)
        listed = store.pictures()
        known, now = {own.path: own for own in listed}, {own.path: own for own in self._pictures}
        new, gone = [own for path, own in now.items() if path not in known], [path for path in known if path not in now]
        if other := next((own for path, own in now.items() if known.get(path, own) != own), None):
            raise SettingsError(f"{other.path}: its patient, eye or frame is not what it was when the run was begun")
        if (new or gone) and self._onto != "add":
            told = ", ".join(
                f"{len(paths)} {what} (first {paths[0]})"
                for paths, what in (([own.path for own in new], "that it does not have"), (gone, "missing that it has"))
                if paths
            )
            raise SettingsError(
                f"{self._out}: the pictures are not those of its run: {told}; name the same, or "
                "add the new ones (the rows of those that are missing stay)"
            )
        changed = [number for number, own in store.stamps().items() if _changed(listed[number].path, *own)]
        store.forget(changed)
        for drawer in drawers_of(self._out, contours=True, page=True):  # of an earlier part of the run, too
            for number in changed:
                drawer.forget(number)
        for number in changed:
            reports.forget(self._out / reports.FOLDER, number)
        self.changed = len(changed)
        store.add(new)
        done = store.stamps().keys()
        return [number for number in range(len(listed) + len(new)) if number not in done]

    def _screen(self, store: Store, numbers: Sequence[int], drawers: Sequence[Drawings]) -> Iterator[Result]:
        listed, stamps, ended = store.pictures(), list[Stamp](), 0.0

        def sources() -> Iterator[Listed]:
            for place, number in enumerate(numbers):
                if self.stopped and place % self._screener.settings.batch == 0:  # whole batches, see below
                    return
                stamps.append(stamp(listed[number].path))  # before it is read: what changes from now on is seen to
                yield listed[number]

        places = iter(range(len(numbers)))
        stream = self._screener.stream(
            sources(), workers=self._workers, keep_photo=bool(drawers), timeout=self._timeout
        )
        with closing(stream):
            # by whole batches: what is taken up again shares its batches with the same pictures, and computes the same
            for group in rows.groups(stream, self._screener.settings.batch):
                kept = [(numbers[place], stamps[place], result) for result, place in zip(group, places, strict=False)]
                store.put(kept)
                for number, _, result in kept:
                    for drawer in () if self.stopped else drawers:  # what is not drawn now is when it goes on
                        drawer.write(number, result)
                    self.counts[str(result.code or result.status)] += 1
                    yield replace(result, photo=None) if isinstance(result, Screening) else result
                if self.stopped:
                    ended = ended or time.monotonic()
                    if time.monotonic() - ended > _DRAINS:
                        return

    def _record(self, store: Store) -> dict[str, Any]:
        """What ran, on what, when, under which terms."""
        parts, was = store.noted("parts"), store.noted("begun")
        models = [model | {"terms": own} for model, own in zip(was["models"], store.noted("terms"), strict=True)]
        return {
            "funduscope": __version__,
            "started": parts[0]["started"],
            "finished": parts[-1]["finished"],
            "models": models,
            "machine": {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()},
            "inputs": store.noted("inputs"),
            "left_out": self._left_out,
            "pictures": store.total(),
            "counts": dict(self.counts),
            "seconds": round(sum(part["seconds"] for part in parts), 3),
            "parts": parts,
            "settings": {
                "batch": was["batch"],
                "workers": self._workers,
                "overlays": self._overlays,
                "report": self._report,
                "dicom": self._dicom,
                "point": was["point"],
            },
        }


def begin(
    store: Store, screener: Screener | ClusterScreener, pictures: Sequence[Listed], inputs: Sequence[str]
) -> None:
    """Make a store that of a run by this screener."""
    terms = [own.terms.model_dump() for own in screener.contracts]
    store.begin(pictures, begun=_identity(screener), terms=terms, inputs=list(inputs))


def agree(store: Store, screener: Screener | ClusterScreener, folder: Path) -> None:
    """Raises SettingsError where the run was begun with other models, settings or version."""
    before, now = store.noted("begun"), _identity(screener)
    if differing := [key for key in now if now[key] != before.get(key)]:
        told = "; ".join(f"{key}: then {_short(before.get(key))}, now {_short(now[key])}" for key in differing)
        raise SettingsError(
            f"{folder}: its run was begun otherwise ({told}); go on with it as it was begun, or screen into another folder"
        )


def _identity(screener: Screener | ClusterScreener) -> dict[str, Any]:
    """What decides what a picture's result is."""
    return {
        "funduscope": __version__,
        "models": [asdict(model) for model in screener.models],
        "point": screener.point,
        "batch": screener.settings.batch,
    }


def _changed(path: str, before: Stamp, sha256: str | None) -> bool:
    """Whether a file holds other bytes than those that were screened. One that is gone keeps its result."""
    now = stamp(path)
    if now is None or now == before:
        return False
    try:
        return sha256 is None or hashlib.sha256(photo.read_bytes(path)).hexdigest() != sha256
    except PhotoError:
        return True


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


def _short(value: Any) -> str:
    """For a message: models by what tells them apart."""
    if isinstance(value, list):
        return ", ".join(
            f"{m['name']} {m['version']} {m['sha256'][:8]} on {m['backend']} {m['precision']}" for m in value
        )
    return str(value)
