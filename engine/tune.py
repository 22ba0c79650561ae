"""Measure every way to run the models on this machine, and keep the fastest that the gate lets pass.

Each way runs in a process of its own, by turns with the others, so that what else the machine does falls on all alike.
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
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Self

import numpy as np

from . import models
from .contract import Model
from .errors import ModelError, OutputError, SettingsError
from .gate.pictures import views
from .runners import BACKENDS, gpu
from .screener import ScreenerSettings, tuned
from .tuning.record import Machine, Record, Trial, Way, keep, place, this_machine
from .tuning.trial import BATCH

_log = logging.getLogger("funduscope")
COMMAND = [sys.executable, "-m", f"{__package__}.tuning.trial"]  # what runs one way
_ROUNDS, _SECONDS = 4, 0.25  # a measurement; each round is one turn of all
_PATIENCE_S = 300  # for a way to be opened and to pass the gate
_NEEDS = {"openvino": "openvino", "openvino-bf16": "openvino"}  # module of a backend that is not in the core
_PICTURES = 48  # screened to find the better arrangement


def tune(opened: Sequence[Model], say: Callable[[str], None] = _log.info) -> Record:
    """Measure, choose, and keep the choice.

    Args:
        opened: fp32 models, such as are opened together.
        say: Is told what is being done.

    Raises:
        SettingsError: A model is not fp32, or another process is tuning the same.
        ModelError: No way passes the gate.
    """
    for model in opened:
        if model.contract.precision != "fp32":
            raise SettingsError(f"{model.path}: it is {model.contract.precision}; tuning begins with fp32 models")
    machine = this_machine()
    with _alone(place([model.sha256 for model in opened], machine)):
        trials, ways = list[Trial](), dict[str, Way]()
        for model in opened:
            say(f"{model.contract.name}: {len(list(_ways(model)))} ways")
            seen = _tried(model, machine)
            trials += seen
            passing = [one for one in seen if one.verdict == "passes"]
            if not passing:
                told = "; ".join(f"{one.way.backend} {one.verdict}" for one in seen)
                raise ModelError(f"{model.path}: no way to run it passes here: {told}")
            ways[model.sha256] = max(passing, key=lambda one: one.pictures_per_second or 0).way
        say("how the models share the cores")
        record = Record(format="funduscope-tuning/1", machine=machine, ways=ways, slots=1, trials=trials)
        record = _arranged(opened, record)
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


def _tried(model: Model, machine: Machine) -> list[Trial]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        images = Path(folder) / "images.npy"
        np.save(images, views(model.contract.geometry.build()))
        children = [
            stack.enter_context(_Child(model, file, backend, machine.cores, images)) for file, backend in _ways(model)
        ]
        for child in children:
            child.begin()
        for _ in range(_ROUNDS):
            for child in children:
                child.measure()
        return [child.trial(model) for child in children]


@dataclass
class _Child:
    """One way in a process of its own; a context manager."""

    reference: Model
    file: Model
    backend: str
    threads: int
    images: Path
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

    def begin(self) -> None:
        """Open the way, and let it through the gate."""
        asked = {
            "file": str(self.file.path),
            "reference": str(self.reference.path),
            "backend": self.backend,
            "threads": self.threads,
            "images": str(self.images),
        }
        answer = self._ask(asked, _PATIENCE_S)
        if answer is not None and "error" in answer:
            self.verdict = answer["error"]
        elif answer is not None:
            self.precision, self.strain = answer["precision"], answer["strain"]
            self.verdict = "passes" if answer["passes"] else "refused by the gate"

    def measure(self) -> None:
        """One turn; nothing where it is not taken."""
        if self.verdict == "passes" and (answer := self._ask(_SECONDS, 60 * _SECONDS)):
            self.batch_s.append(answer["batch_s"])
            self.one_s += answer["one_s"]

    def trial(self, model: Model) -> Trial:
        """What was seen."""
        return Trial(
            model=model.contract.name,
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


def _arranged(opened: Sequence[Model], record: Record) -> Record:
    """The record with the faster of: one batch at a time on all cores; a batch for each half of them."""
    cores = record.machine.cores
    half = {key: way.model_copy(update={"threads": max(1, cores // 2)}) for key, way in record.ways.items()}
    arrangements = [record, record.model_copy(update={"ways": half, "slots": 2})] if cores > 1 else [record]
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


class _alone:
    """One process at a time tunes the same. Raises SettingsError where another does."""

    def __init__(self, record: Path) -> None:
        self._path = record.with_suffix(".lock")
        self._held = False

    def __enter__(self) -> Self:
        if importlib.util.find_spec("fcntl") is None:  # Windows: two may measure at once, and disturb each other
            return self
        import fcntl

        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._held = True
        except BlockingIOError:
            self._file.close()
            raise SettingsError(
                "another process is tuning the same models here; wait for it, then call again"
            ) from None
        except OSError:  # the folder cannot be written: nothing will be kept, which is said later
            pass
        return self

    def __exit__(self, *exception: object) -> None:
        if self._held:
            self._file.close()
            self._path.unlink(missing_ok=True)
