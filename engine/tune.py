"""Measure every way to run the models on this machine, and keep the fastest that the gate lets pass.

Each way runs in a process of its own, by turns with the others, so that what else the machine does falls on all alike. The gate
takes longer than to measure: it is asked of the fastest first, and not of ways that are plainly slower than one that passes.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Self

import filelock
import numpy as np

from . import models
from .contract import Model
from .errors import ModelError, OutputError, SettingsError
from .gate.pictures import views
from .gate.verify import expected_of
from .runners import BACKENDS, gpu
from .screener import ScreenerSettings, in_order, tuned
from .tuning.record import Machine, Record, Trial, Way, keep, place, this_machine
from .tuning.trial import BATCH

_log = logging.getLogger("funduscope")
COMMAND = [sys.executable, "-m", f"{__package__}.tuning.trial"]  # what runs one way
_PASSES, _SLOWER = "passes", "plainly slower"  # verdicts
_FIRST, _MORE, _SECONDS = 2, 2, 0.25  # turns of all, then of those that pass; a measurement
_PLAINLY = 1.5  # times as long for a batch: more than measurements that were disturbed differ by
_PATIENCE_S = 300  # for a way to be opened, or to pass the gate
_NEEDS = {"openvino": "openvino", "openvino-bf16": "openvino"}  # module of a backend that is not in the core
_PICTURES = 48  # screened to find the better arrangement


def tune(opened: Sequence[Model], say: Callable[[str], None] = _log.info) -> Record:
    """Measure, choose, and keep the choice.

    Args:
        opened: fp32 models, such as are opened together.
        say: Is told what is being done.

    Raises:
        SettingsError: A model is not fp32, they cannot be opened together, or another process is tuning the same.
        ModelError: No way passes the gate.
    """
    in_order(opened)
    for model in opened:
        if model.contract.precision != "fp32":
            raise SettingsError(f"{model.path}: it is {model.contract.precision}; tuning begins with fp32 models")
    machine = this_machine()
    with _alone(place([model.sha256 for model in opened], machine)), tempfile.TemporaryDirectory() as folder:
        trials, ways = list[Trial](), dict[str, Way]()
        shown = list[_Shown]()
        for k, model in enumerate(opened):
            say(f"{model.contract.name}: {len(list(_ways(model)))} ways")
            shown.append(_Shown.of(model, Path(folder) / str(k)))
            seen = _tried(shown[k], machine)
            trials += seen
            passing = [one for one in seen if one.verdict == _PASSES]
            if not passing:
                told = "; ".join(f"{one.way.backend} {one.verdict}" for one in seen)
                raise ModelError(f"{model.path}: no way to run it passes here: {told}")
            ways[model.sha256] = max(passing, key=lambda one: one.pictures_per_second or 0).way
        say("how the models share the cores")
        record = Record(format="funduscope-tuning/1", machine=machine, ways=ways, slots=1, trials=trials)
        record = _fastest(opened, [record, *_halved(shown, record)])
        try:
            say(f"kept in {keep(record)}")
        except OutputError as error:
            _log.warning("the tuning is not kept: %s", error)
    return record


def _ways(model: Model) -> Iterator[tuple[Model, str]]:
    """Files and backends that this machine may run, the plain one first."""
    backends = [name for name in BACKENDS if _may_run(name)]
    for file in (model, *models.variants(model)):
        yield from ((file, backend) for backend in backends)


def _may_run(backend: str) -> bool:
    if backend in _NEEDS:
        return importlib.util.find_spec(_NEEDS[backend]) is not None
    return backend == "onnxruntime" or gpu.capability() is not None


@dataclass(frozen=True)
class _Shown:
    """What all ways to run a model are shown: pictures, and what the model itself says of them, each in a file."""

    model: Model
    images: Path
    expected: Path

    @classmethod
    def of(cls, model: Model, folder: Path) -> Self:
        folder.mkdir()
        shown = cls(model, folder / "images.npy", folder / "expected.npz")
        pictures = views(model.contract.geometry.build())
        np.save(shown.images, pictures)
        np.savez(shown.expected, **dict[str, Any](expected_of(model, pictures, BATCH)))
        return shown


def _tried(shown: _Shown, machine: Machine) -> list[Trial]:
    with ExitStack() as stack:
        children = [
            stack.enter_context(_Child(shown, file, backend, machine.cores)) for file, backend in _ways(shown.model)
        ]
        for child in children:
            child.open()
        for _ in range(_FIRST):
            for child in children:
                child.measure()
        left = [child for child in children if child.runs]
        while left and not any(child.verdict == _PASSES for child in children):
            _select(left)
            left = [child for child in left if child.verdict == _SLOWER]  # once more where what passed crashed since
        return [child.trial() for child in children]


def _select(children: Sequence[_Child]) -> None:
    """Ask the gate, the fastest first; what is plainly slower than one that passes is not asked. Measure those that pass on."""
    fastest = float("inf")
    for child in sorted(children, key=lambda child: min(child.batch_s)):
        if min(child.batch_s) > _PLAINLY * fastest:
            child.verdict = _SLOWER
        elif child.passes():
            fastest = min(fastest, *child.batch_s)
    for _ in range(_MORE):
        for child in children:
            if child.verdict == _PASSES:
                child.measure()


@dataclass
class _Child:
    """One way in a process of its own; a context manager."""

    shown: _Shown
    file: Model
    backend: str
    threads: int
    verdict: str = ""
    precision: str = ""
    strain: float | None = None
    batch_s: list[float] = field(default_factory=list)
    one_s: list[float] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def runs(self) -> bool:
        """Whether it does, so far."""
        return self.verdict in ("", _PASSES, _SLOWER)

    def open(self) -> None:
        """Open the way."""
        asked = {
            "file": str(self.file.path),
            "reference": str(self.shown.model.path),
            "backend": self.backend,
            "threads": self.threads,
            "images": str(self.shown.images),
            "expected": str(self.shown.expected),
        }
        if answer := self._ask(asked, _PATIENCE_S):
            self.precision, self.verdict = answer.get("precision", ""), answer.get("error", "")

    def measure(self) -> None:
        """One turn; nothing where it does not run."""
        if self.runs and (answer := self._ask(_SECONDS, 60 * _SECONDS)):
            self.batch_s.append(answer["batch_s"])
            self.one_s += answer["one_s"]

    def passes(self) -> bool:
        """Whether the gate lets it pass."""
        if self.runs and (answer := self._ask("gate", _PATIENCE_S)):
            self.strain = answer["strain"]
            self.verdict = _PASSES if answer["passes"] else "refused by the gate"
        return self.verdict == _PASSES

    def trial(self) -> Trial:
        """What was seen."""
        return Trial(
            model=self.shown.model.contract.name,
            precision=self.precision or self.file.contract.precision,
            way=Way(sha256=self.file.sha256, backend=self.backend, threads=self.threads),
            pictures_per_second=round(BATCH / min(self.batch_s), 2) if self.batch_s else None,
            p50_ms=round(1000 * statistics.median(self.one_s), 2) if self.one_s else None,
            strain=self.strain,
            verdict=self.verdict,
        )

    def _ask(self, what: Any, patience_s: float) -> dict[str, Any] | None:
        """An answer; None where the process has ended or does not answer, which is then the verdict."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=patience_s)
            if not line:
                self._process.wait()  # its end was heard
        except (OSError, queue.Empty):
            line = ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        ended = self._process.poll()
        self._process.kill()
        self._process.wait()
        self.verdict = f"no answer in {patience_s:.0f} s" if ended is None else f"crashed (exit code {ended})"
        return None

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")


def _halved(shown: Sequence[_Shown], record: Record) -> list[Record]:
    """The record with a batch for each half of the cores in place of one on all of them; nothing where the gate refuses that."""
    if record.machine.cores == 1:
        return []
    ways = dict[str, Way]()
    for own in shown:
        way = record.ways[own.model.sha256].model_copy(update={"threads": record.machine.cores // 2})
        file = next(file for file, _ in _ways(own.model) if file.sha256 == way.sha256)
        with _Child(own, file, way.backend, way.threads) as child:
            child.open()
            if not child.passes():
                _log.info("%s on half of the cores: %s", own.model.contract.name, child.verdict)
                return []
        ways[own.model.sha256] = way
    return [record.model_copy(update={"ways": ways, "slots": 2})]


def _fastest(opened: Sequence[Model], arrangements: Sequence[Record]) -> Record:
    """The one with which pictures are screened fastest."""
    data = (resources.files("funduscope.examples") / "retina_cc0.jpg").read_bytes()
    times = [9e9] * len(arrangements)
    with ExitStack() as stack:
        screeners = [
            stack.enter_context(tuned(ScreenerSettings(batch=BATCH), opened, arrangement))
            for arrangement in arrangements
        ]
        for _ in range(3):
            for k, screener in enumerate(screeners):
                begin = time.perf_counter()
                for _ in screener.stream([data] * _PICTURES):
                    pass
                times[k] = min(times[k], time.perf_counter() - begin)
    return arrangements[times.index(min(times))]


@contextmanager
def _alone(record: Path) -> Iterator[None]:
    """One process at a time tunes the same. Raises SettingsError where another does."""
    lock = filelock.FileLock(record.with_suffix(".lock"), timeout=0)
    with suppress(OSError):  # the folder cannot be written: nothing will be kept, which is said later
        record.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise SettingsError(
                "another process is tuning the same models here; wait for it, then call again"
            ) from None
    try:
        yield
    finally:
        lock.release()
