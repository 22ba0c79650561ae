"""What all benchmarks share. Every figure is printed with the machine and the versions that it was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from funduscope.engine import contract, models, runners
from funduscope.engine.pictures import photo, preprocess
from funduscope.engine.pictures.preprocess import Prepared
from funduscope.engine.screener import Screener

_VERSIONS = ("numpy", "opencv-python-headless", "onnxruntime", "simplejpeg", "torch")


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    installed = {d.name.lower(): d.version for d in importlib.metadata.distributions() if d.name}
    return {"cpu": cpu, "cores": os.cpu_count(), **{n: installed[n] for n in _VERSIONS if n in installed}}


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["funduscope"] = _machine()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line("machine: " + ", ".join(f"{key} {value}" for key, value in _machine().items()))


@pytest.fixture(scope="session")
def cc0() -> Path:
    return Path(__file__).parents[1] / "examples" / "retina_cc0.jpg"


@pytest.fixture(scope="session")
def model() -> contract.Model:
    return models.load("multitask")


@pytest.fixture(scope="session", params=[("multitask",), ("classifier",), ("multitask", "classifier")], ids="+".join)
def screener(request: pytest.FixtureRequest) -> Iterator[Screener]:
    """Each model alone, and both on one decode: that should take less than the sum of the two."""
    with Screener.open(*request.param) as opened:
        yield opened


@pytest.fixture(scope="session")
def prepared(cc0: Path, model: contract.Model) -> Prepared:
    return preprocess.prepare(photo.load(cc0), model.contract.geometry.build())


@pytest.fixture(scope="session")
def runner(model: contract.Model) -> Iterator[runners.Runner]:
    with runners.open_runner(model, "onnxruntime", max_batch=8) as opened:
        yield opened


@pytest.fixture(scope="session")
def bare(model: contract.Model) -> onnxruntime.InferenceSession:
    """ONNX Runtime as anyone would use it, without this project."""
    return onnxruntime.InferenceSession(model.data, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="session", params=[1, 8], ids=lambda n: f"batch{n}")
def batch(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="session")
def images(batch: int, prepared: Prepared) -> np.ndarray:
    return np.repeat(prepared.image[None], batch, axis=0)
