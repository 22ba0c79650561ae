"""What was measured on this machine, kept under what it was measured with: models, processor, cores, library versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from ..contract import Digest, Strict
from ..files import cache, write_text

NOT_MEASURED = "not measured with these models, processor and versions; `funduscope tune` finds the fastest way"
FOLDER_VARIABLE = "FUNDUSCOPE_TUNING"
_LIBRARIES = ("funduscope", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx-cu13")
_FLAGS = ("amx_int8", "amx_bf16", "avx512_fp16", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "asimddp")
_log = logging.getLogger("funduscope")


class Machine(Strict):
    """What the speed depends on.

    Attributes:
        processor: Its name.
        flags: Of its instructions, those that networks gain from.
        cores: Those that this process may use.
        versions: Of the libraries that compute.
    """

    processor: str
    flags: list[str]
    cores: int
    versions: dict[str, str]


class Way(Strict):
    """One way to run a model.

    Attributes:
        sha256: Of the file, which may be a conversion of the model.
        backend: See `runners.BACKENDS`.
        threads: Of the backend.
    """

    sha256: Digest
    backend: str
    threads: int


class Trial(Strict):
    """What was seen of one way.

    Attributes:
        model: Name of the model.
        precision: Of the computation.
        way: Which.
        pictures_per_second: At the batch that screening uses; None where it did not run.
        p50_ms: Of one picture alone, median.
        strain: The largest share of a bound of the gate that was used; more than 1 is refused.
        verdict: `passes`, or why it is not taken.
    """

    model: str
    precision: str
    way: Way
    pictures_per_second: float | None
    p50_ms: float | None
    strain: float | None
    verdict: str


class Record(Strict):
    """The choice, and what it rests on.

    Attributes:
        ways: By the SHA-256 of each fp32 model.
        slots: How many batches are under way at once.
        trials: All that was measured.
    """

    format: Literal["funduscope-tuning/1"]
    machine: Machine
    ways: dict[str, Way]
    slots: int
    trials: list[Trial]


def folder() -> Path:
    """Where records are kept: $FUNDUSCOPE_TUNING, or a folder of the user's cache."""
    return cache(FOLDER_VARIABLE, "tuning")


def this_machine() -> Machine:
    """The machine at hand, as this process may use it."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags.update(value.split())
    except OSError:
        pass
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return Machine(
        processor=name,
        flags=[flag for flag in _FLAGS if flag in flags],
        cores=cores,
        versions={library: version for library in _LIBRARIES if (version := _version(library))},
    )


def place(models: Iterable[str], machine: Machine) -> Path:
    """Where the record of some models on a machine is kept. Args: models: SHA-256 of each fp32 model."""
    key = json.dumps([sorted(models), machine.model_dump()], sort_keys=True)
    return folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def recall(models: Iterable[str]) -> Record | None:
    """The record for some models on this machine; None, and said why, where there is none that can be used."""
    path = place(models, this_machine())
    try:
        return Record.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        _log.info("tuning: %s", NOT_MEASURED)
    except (OSError, ValueError, RecursionError, ValidationError) as error:
        _log.warning(
            "%s: not a tuning record (%s); not used; `funduscope tune` measures anew", path, type(error).__name__
        )
    return None


def keep(record: Record) -> Path:
    """Keep a record. Raises OutputError."""
    path = place(record.ways, record.machine)
    write_text(path, json.dumps(record.model_dump(), indent=1) + "\n")
    return path


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
