"""What all benchmarks share. Every figure is kept and printed with the machine and the versions that it was measured on."""

from __future__ import annotations

import functools
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import pytest
import sizes

from funduscope.engine import contract, models
from funduscope.engine.pictures import photo, preprocess
from funduscope.engine.pictures.preprocess import Prepared
from funduscope.engine.tuning.record import this_machine

_VERSIONS = ("numpy", "opencv-python-headless", "simplejpeg", "onnxruntime", "openvino", "torch")


@functools.cache
def _machine() -> dict[str, Any]:
    here = this_machine()
    installed = {d.name.lower(): d.version for d in importlib.metadata.distributions() if d.name}
    return {
        "processor": here.processor,
        "flags": here.flags,
        "cores": here.cores,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,  # of other work, before the first
        "versions": {name: installed[name] for name in _VERSIONS if name in installed},
    }


def pytest_sessionstart() -> None:
    _machine()


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["funduscope"] = _machine()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line("machine: " + ", ".join(f"{key} {value}" for key, value in _machine().items()))


@pytest.fixture(scope="session")
def cc0() -> Path:
    return sizes.SAMPLE


@pytest.fixture(scope="session")
def model() -> contract.Model:
    return models.load("multitask")


@pytest.fixture(scope="session")
def prepared(cc0: Path, model: contract.Model) -> Prepared:
    return preprocess.prepare(photo.load(cc0), model.contract.geometry.build())
