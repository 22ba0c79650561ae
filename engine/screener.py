"""The way of one photograph: read, prepare, run, make findings. One picture at a time, or a stream in batches.

Every open model looks at the same decoded picture; what each makes of its outputs is its reader's.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Self, get_args

import numpy as np
from numpy.typing import NDArray

from . import models, reading, runners
from . import site as sites
from .contract import Contract, Model
from .errors import BackendError, Code, ModelError, PhotoError, SettingsError
from .eyes import Eyes, Listed
from .gate.opening import open_runner
from .look import Look, Opener
from .pictures import colours, photo, roundness
from .pictures.photo import Photo, Source
from .pictures.preprocess import Prepared
from .readers import READERS
from .readers.classifier import PointName
from .readers.outputs import Outputs
from .readers.quality import FAULTS
from .readers.reader import Reader
from .results import ModelName, Rejected, Result, Screening
from .runners import Runner, gpu
from .schedule import CLOSED, Schedule
from .site import Site
from .tuning.record import Record, Way, recall
from .workers import Lost, Workers

_log = logging.getLogger("funduscope")


@dataclass(frozen=True)
class ScreenerSettings:
    """What a screener is opened with; it travels to another process, and opens the same there.

    Attributes:
        models: Paths, or names of embedded models; none, or `default`: all that are embedded.
        backend: See `runners.BACKENDS`; `auto` takes the first that works.
        batch: The most pictures at once.
        threads: Of the backend on a CPU; None for its own choice.
        point: The classifier's operating point; None for its own choice.
        device: Index of the GPU; one other than 0 must be there, for `auto` too.
        site: A file of `funduscope calibrate --site`, or what was read of it: a site's own operating points.

    Example:
        ```python
        settings = funduscope.ScreenerSettings(batch=1, threads=1)
        with settings.open() as screener:
            print(screener("eye.jpg"))
        ```

    Raises:
        SettingsError: A value is wrong.
    """

    models: Sequence[str] = ()
    backend: str = "auto"
    batch: int = 8
    threads: int | None = None
    point: PointName | None = None
    device: int = 0
    site: str | Path | Site | None = None

    def __post_init__(self) -> None:
        if isinstance(self.site, str | os.PathLike):
            object.__setattr__(self, "site", sites.load(self.site))
        if isinstance(self.models, str | os.PathLike):
            raise SettingsError(f"models {self.models!r}: is one name; wrap it in a list: [{self.models!r}]")
        if self.batch < 1 or (self.threads is not None and self.threads < 1) or self.device < 0:
            raise SettingsError(
                f"batch {self.batch}, threads {self.threads}, device {self.device}: batch and threads must be 1 or more, "
                "device 0 or more"
            )
        if self.point is not None and self.point not in get_args(PointName):
            raise SettingsError(f"operating point {self.point}: allowed are {', '.join(get_args(PointName))}")

    def open(self) -> Screener:
        """Open the models.

        Returns:
            An open screener.

        Raises:
            ModelError: A file is not a whole model.
            BackendError: The backend or device is not here.
            SettingsError: A setting is wrong.
        """
        if self.backend == "auto" and self.device:
            gpu.device(self.device)  # was named: where it is not there, nothing takes its place
        opened = [models.load(path) for path in models.chosen(self.models)]
        if self.tunable and (record := recall(own.sha256 for own in opened)):
            try:
                return tuned(self, opened, record)
            except (BackendError, ModelError) as error:
                _log.warning("what tuning found best does not open here (%s); not used", str(error).splitlines()[0])
        return Screener(self, opened)

    @property
    def tunable(self) -> bool:
        """Whether what `tune` found is asked for: of a backend or threads that are named, it is not."""
        return self.backend == "auto" and self.threads is None

    def record(self) -> Record | None:
        """What `tune` has found for these models here; None where it was not asked yet."""
        return recall(models.load(path).sha256 for path in models.chosen(self.models))

    def runner(self, model: Model) -> tuple[str, Runner]:
        """Open one model's runner.

        Args:
            model: Whole, as `models.load` gives it.

        Returns:
            The backend's name, and a runner of it.

        Raises:
            BackendError: The backend or device is not here.
            ModelError: No TensorRT engine fits.
        """
        return open_runner(model, self.backend, max_batch=self.batch, threads=self.threads, device=self.device)


def tuned(settings: ScreenerSettings, opened: Sequence[Model], record: Record) -> Screener:
    """A screener that runs each model as was found best for many pictures, or with a batch of 1, as of a camera, on all cores.

    Raises:
        BackendError: That is not to be had.
        ModelError: The same.
    """
    one = settings.batch == 1
    files: list[Model] = []
    ways: dict[str, Way] = {}
    for model in opened:
        way = record.ways[model.sha256]
        found = next((own for own in (model, *models.variants(model)) if own.sha256 == way.sha256), None)
        if found is None:
            raise ModelError(f"{model.path}: its conversion {way.sha256[:16]} is no longer there")
        files.append(found)
        ways[found.sha256] = way

    def opener(model: Model) -> tuple[str, Runner]:
        way = ways[model.sha256]
        runner = runners.open_runner(
            model,
            way.backend,
            max_batch=settings.batch,
            threads=record.machine.cores if one else way.threads,
            device=settings.device,
        )
        return way.backend, runner

    return Screener(settings, files, opener, slots=1 if one else record.slots)


def in_order(opened: Sequence[Model]) -> list[Model]:
    """Models that are opened together, in the order in which they look.

    Raises:
        ModelError: There are none.
        SettingsError: Two are of one kind, or one looks where a kind has found something that is not among them.
    """
    if not opened:
        raise ModelError("no models; give at least one")
    found: dict[str, Model] = {}
    for model in sorted(opened, key=lambda model: list(READERS).index(model.contract.kind)):
        kind, after = model.contract.kind, READERS[model.contract.kind].after
        if kind in found:
            raise SettingsError(f"{model.path}: a second model of the kind {kind}; open one of each kind at most")
        if after is not None and after not in found:
            raise SettingsError(f"{model.path}: it looks where a {after} model has found something; open one beside it")
        found[kind] = model
    return list(found.values())


@dataclass(frozen=True, eq=False)
class _Ready:
    """A picture that waits for the models: what is known of it, and each model's input."""

    screening: Screening
    prepared: tuple[Prepared, ...]


@dataclass(frozen=True)
class _Intake:
    """From a source to what waits for the models. Travels to processes that only read and prepare."""

    readers: tuple[Reader, ...]
    models: tuple[ModelName, ...]

    def __call__(self, source: Source, name: str | None = None, keep_photo: bool = False) -> _Ready | Rejected:
        try:
            read = photo.load(source, name)
        except PhotoError as error:
            eyes, warnings = _eyes(error)
            return Rejected(error.name, error.sha256, error.code, error.reason, self.models, eyes, warnings)
        eyes, conflict = _eyes(read)
        warnings = (*read.warnings, *conflict)
        try:
            prepared = self._prepare(read)
            colours.expect(prepared[0].image)
            unlike = roundness.warned(prepared[0].image)
        except PhotoError as error:
            return Rejected(read.name, read.sha256, error.code, error.reason, self.models, eyes, warnings)
        screening = Screening(
            name=read.name,
            sha256=read.sha256,
            width=read.width,
            height=read.height,
            eyes=eyes,
            warnings=(*warnings, *unlike),
            models=self.models,
            frame=read.frame,
            photo=read if keep_photo else None,
        )
        return _Ready(screening, prepared)

    def _prepare(self, read: Photo) -> tuple[Prepared, ...]:
        """Each model's input. Raises PhotoError; DARK where there is light enough for some models."""
        prepared: list[Prepared] = []
        for reader in self.readers:
            try:
                prepared.append(reader.prepare(read))
            except PhotoError as error:
                if prepared and error.code == Code.NO_FIELD_OF_VIEW:
                    raise PhotoError(FAULTS["dark"].code, FAULTS["dark"].advice) from None
                raise
        return tuple(prepared)

    def lost(self, source: Source, how: Lost) -> Rejected:
        """The row of a picture that has crashed or held up its process."""
        code, reason = {
            "crashed": (Code.WORKER_CRASH, "reading it has crashed its process, twice"),
            "late": (Code.TIMED_OUT, "reading it took longer than it may, twice"),
        }[how]
        listed = source if isinstance(source, Listed) else None
        name = photo.label_of(source)
        eyes = Eyes(listed.patient, listed.eye, "list" if listed.eye else None) if listed else Eyes()
        return Rejected(name, None, code, reason, self.models, eyes)


class Screener:
    """Owns the open models; safe to call from several threads. Use as a context manager, or call `close`.

    Attributes:
        settings: What it was opened with.

    Example:
        ```python
        with funduscope.Screener.open() as screener:
            print(screener("eye.jpg"))
        ```
    """

    def __init__(
        self,
        settings: ScreenerSettings,
        opened: Sequence[Model],
        opener: Opener | None = None,
        slots: int | None = None,
    ) -> None:
        self.settings = settings
        self._looks: list[Look] = []
        self._schedule: Schedule[tuple[Source, bool], _Ready | Rejected, Result] | None = None
        self._closed = False
        self._slots = slots
        self._beside: ThreadPoolExecutor | None = None  # where nothing else is under way, the models look at once
        self._under_way, self._counting = 0, threading.Lock()
        site = settings.site
        assert not isinstance(site, str | os.PathLike)  # it was read when the settings were made
        with ExitStack() as undo:
            undo.callback(self.close)
            for model in in_order(opened):
                look = Look(model, settings.point, opener or settings.runner, site)
                if look.reader.after is None:
                    self._looks.append(look)
                else:
                    next(own for own in self._looks if own.contract.kind == look.reader.after).later = look
            if settings.point is not None and self.point is None:
                raise SettingsError(
                    f"operating point {settings.point}: only a classifier has operating points, and none is open"
                )
            self._intake = _Intake(tuple(look.reader for look in self._looks), self.models)
            if (slots or 1) > 1 and len(self._looks) > 1:  # tuned to a part of the cores each
                self._beside = ThreadPoolExecutor(len(self._looks) - 1, thread_name_prefix="funduscope-look")
            self._schedule = self._scheduled(2)  # its threads start with the first picture that is submitted
            undo.pop_all()

    @classmethod
    def open(
        cls,
        *names: str | Path,
        backend: str = "auto",
        batch: int = 8,
        threads: int | None = None,
        point: PointName | None = None,
        device: int = 0,
    ) -> Screener:
        """Open models; see `ScreenerSettings`.

        Args:
            names: Paths, or names of embedded models; none, or `default`: all that are embedded.
            backend: Such as `onnxruntime`; `auto` takes the first that works here.
            batch: The most pictures that `stream` runs at once.
            threads: Of the backend on a CPU; None for its own choice.
            point: The classifier's operating point; None for its own choice.
            device: Index of the GPU.

        Returns:
            An open screener.

        Raises:
            ModelError: A file is not a whole model.
            BackendError: The backend or device is not here.
            SettingsError: A setting is wrong.
        """
        return ScreenerSettings(tuple(map(str, names)), backend, batch, threads, point, device).open()

    @classmethod
    def of(
        cls, opened: Sequence[Model], runners: Sequence[Runner], *, point: PointName | None = None, backend: str = "own"
    ) -> Screener:
        """A screener over runners of one's own: of hardware that no backend here knows, or `runners.FakeRunner` in tests.

        Args:
            opened: Models, as `models.load` gives them; one of each kind at most.
            runners: One for each model, in the same order; closed with the screener, or where it does not open.
            point: The classifier's operating point; None for its own choice.
            backend: How rows call what computes.

        Returns:
            An open screener.

        Raises:
            ModelError: There are no models.
            SettingsError: Two models are of one kind, runners are not as many, or there is no such operating point.
        """
        if len(opened) != len(runners):
            raise SettingsError(f"{len(opened)} models, {len(runners)} runners: give one for each, in the same order")
        held = {model.contract.kind: runner for model, runner in zip(opened, runners, strict=True)}
        batch = min((runner.max_batch for runner in runners), default=1)
        settings = ScreenerSettings(tuple(str(model.path) for model in opened), backend, batch, point=point)
        with ExitStack() as undo:
            for runner in runners:
                undo.callback(runner.close)
            screener = cls(settings, opened, lambda model: (backend, held[model.contract.kind]))
            undo.pop_all()
        return screener

    @property
    def contracts(self) -> tuple[Contract, ...]:
        """The contracts of the open models, in the order in which they look."""
        return tuple(look.contract for look in self._all())

    @property
    def models(self) -> tuple[ModelName, ...]:
        """The names of the open models, in the order of `contracts`."""
        return tuple(look.name for look in self._all())

    @property
    def point(self) -> str | None:
        """The operating point in use; None where no open model has a choice of them."""
        return next((look.reader.point for look in self._all() if look.reader.point), None)

    def __call__(self, source: Source, name: str | None = None, *, keep_photo: bool = False) -> Result:
        """Screen one photograph, at the lowest latency. A bad picture gives a Rejected, never an exception.

        Args:
            source: Path, entry of a list, bytes, uint8 (H, W, 3) RGB array, or Photo.
            name: How the result calls it.
            keep_photo: Leave the pixels in the result, for drawing.

        Returns:
            A Screening or a Rejected.

        Raises:
            TypeError: The source is of another type, or an array of another shape.
        """
        self._expect_open()
        ready = self._intake(source, name, keep_photo)
        return ready if isinstance(ready, Rejected) else self._run([ready], self._beside)[0]

    def stream(
        self,
        sources: Iterable[Source],
        *,
        workers: int = 2,
        keep_photo: bool = False,
        timeout: float | None = None,
    ) -> Generator[Result]:
        """Screen many, in input order: reading and preparing overlap with the networks, in bounded memory.

        Args:
            sources: Taken as they are needed (an array must not change until its result has come).
            workers: Threads that read and prepare.
            keep_photo: Leave the pixels in the results, for drawing; not with a timeout.
            timeout: Seconds that reading one picture may take. Each of the workers then is a process of its own, so that a
                picture that hangs or crashes it costs a row (`TIMED_OUT`, `WORKER_CRASH`) and no more. A script that asks for
                it is to begin with `if __name__ == "__main__":`.

        Returns:
            A Screening or a Rejected for each source.

        Raises:
            SettingsError: `workers` is less than 1, or `timeout` not above 0.
            TypeError: It is one source and no list of them.

        Example:
            ```python
            for result in screener.stream(sorted(Path("eyes").glob("*.jpg"))):
                print(result)
            ```
        """
        self._expect_open()
        if isinstance(sources, str | bytes):
            raise TypeError(f"stream takes many sources, and this is one {type(sources).__name__}; wrap it in a list")
        if workers < 1:
            raise SettingsError(f"workers {workers}: must be 1 or more")
        if timeout is not None and timeout <= 0:
            raise SettingsError(f"timeout {timeout}: must be above 0 seconds")
        return self._stream(sources, workers, keep_photo, timeout)

    def _stream(
        self, sources: Iterable[Source], workers: int, keep_photo: bool, timeout: float | None
    ) -> Generator[Result]:
        with ExitStack() as stack:
            read = None
            if timeout is not None:
                processes = Workers(self._intake, count=workers, timeout=timeout, lost=self._intake.lost)
                stack.callback(processes.close)  # after the schedule, whose threads ask them
                read = processes
            schedule = stack.enter_context(self._scheduled(workers, read))
            yield from stack.enter_context(closing(schedule.stream((s, keep_photo) for s in sources)))

    def submit(self, source: Source, *, keep_photo: bool = False) -> Future[Result]:
        """Screen one of many that come by and by: those that wait while the models are busy share a batch.

        Args:
            source: As of a call.
            keep_photo: Leave the pixels in the result, for drawing.

        Returns:
            A future, whose result is a Screening or a Rejected.

        Example:
            ```python
            right, left = screener.submit("right.jpg"), screener.submit("left.jpg")
            print(right.result(), left.result())
            ```
        """
        assert self._schedule is not None
        with self._while_open():
            return self._schedule.submit((source, keep_photo))

    def outputs(self, model: str, images: NDArray[np.uint8]) -> Outputs:
        """What one open model gives, as it comes: for programs that prepare pictures and read outputs by themselves.

        Args:
            model: Its name.
            images: uint8 (N, S, S, 3) RGB, N >= 1, of the size that its contract says; more than a batch go in several.

        Returns:
            Each output by its name, float32 (N, ...).

        Raises:
            SettingsError: No open model has this name.
        """
        look = next((own for own in self._all() if own.contract.name == model), None)
        if look is None:
            raise SettingsError(f"no open model named {model!r}; there are: {', '.join(m.name for m in self.models)}")
        size = self.settings.batch
        with self._while_open():
            parts = [look.runner(images[start : start + size]) for start in range(0, len(images), size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """Free the models, each whatever becomes of the others. What is under way ends, what waits gets a RuntimeError."""
        self._closed = True
        with ExitStack() as last_first:
            for look in self._all():
                last_first.callback(look.runner.close)
            if self._beside is not None:
                last_first.callback(self._beside.shutdown)
            if self._schedule is not None:
                last_first.callback(self._schedule.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _all(self) -> list[Look]:
        """The open models, in the order in which they look."""
        return [own for look in self._looks for own in look.all()]

    def _expect_open(self) -> None:
        if self._closed:
            raise RuntimeError(CLOSED)

    @contextmanager
    def _while_open(self) -> Iterator[None]:
        """What fails because the screener is closed meanwhile says so."""
        self._expect_open()
        try:
            yield
        except Exception as error:
            if self._closed:
                raise RuntimeError(CLOSED) from error
            raise

    def _scheduled(
        self, workers: int, read: Callable[[Source], _Ready | Rejected] | None = None
    ) -> Schedule[tuple[Source, bool], _Ready | Rejected, Result]:
        slots = self._slots or max(look.runner.slots for look in self._all())
        return Schedule(
            lambda pair: read(pair[0]) if read else self._intake(pair[0], None, pair[1]),
            self._batch,
            batch=self.settings.batch,
            slots=slots,
            workers=workers,
        )

    def _batch(self, items: Sequence[_Ready | Rejected]) -> list[Result]:
        ready = [item for item in items if isinstance(item, _Ready)]
        with self._alone() as alone:
            done = iter(self._run(ready, self._beside if alone else None))
        return [item if isinstance(item, Rejected) else next(done) for item in items]

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other batch is under way."""
        with self._counting:
            self._under_way += 1
            alone = self._under_way == 1
        try:
            yield alone
        finally:
            with self._counting:
                self._under_way -= 1

    def _run(self, items: Sequence[_Ready], beside: ThreadPoolExecutor | None = None) -> list[Result]:
        """Args: beside: threads for all models but the first; without them, one looks after the other."""
        inputs = list(zip(*(item.prepared for item in items), strict=True))  # of each model
        with self._while_open():
            if not items:
                return []
            later = [
                beside.submit(look.run, own).result if beside else partial(look.run, own)
                for look, own in zip(self._looks[1:], inputs[1:], strict=True)
            ]
            looked = [self._looks[0].run(inputs[0]), *(look() for look in later)]
        readers = [look.reader for look in self._all()]
        return [
            reading.result(item.screening, readers, [*chain.from_iterable(of_picture)])
            for item, of_picture in zip(items, zip(*looked, strict=True), strict=True)
        ]


def _eyes(read: Photo | PhotoError) -> tuple[Eyes, tuple[Code, ...]]:
    """What the list and the file say of whose eye it is, and whether they contradict each other; the list has the last word."""
    listed = read.listed
    patient = (listed and listed.patient) or read.patient
    if listed and listed.eye:
        conflict = (Code.LATERALITY_CONFLICT,) if read.eye and listed.eye != read.eye else ()
        return Eyes(patient, listed.eye, "list"), conflict
    return (Eyes(patient, read.eye, "file") if read.eye else Eyes(patient)), ()
