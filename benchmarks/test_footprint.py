"""Time and peak memory of one screening in a fresh process, beside plain ONNX Runtime on the same tensor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from funduscope.engine import contract
from funduscope.engine.pictures.preprocess import Prepared

_REPORT = """
import json, sys, time
begin = time.perf_counter()
{body}
seconds = time.perf_counter() - begin
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))  # ru_maxrss is the parent's
print(json.dumps({{"seconds": seconds, "peak_mb": peak / 1024, "value": value}}))
"""
_BODIES = {
    "engine": """
from funduscope import Screener
with Screener.open("multitask") as screener:
    value = screener(sys.argv[1]).scores["glaucoma_network"]
""",
    "bare onnxruntime": """
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
value = float(session.run(["glaucoma"] + ["disc", "cup", "fovea"], {"images": numpy.load(sys.argv[3])})[0][0])
""",
}


@pytest.mark.benchmark(group="a fresh process: import, open, one picture")
@pytest.mark.parametrize("what", list(_BODIES))
def test_fresh_process(
    benchmark: Any, what: str, cc0: Path, tmp_path: Path, model: contract.Model, prepared: Prepared
) -> None:
    tensor = tmp_path / "tensor.npy"
    np.save(tensor, prepared.image[None])
    command = [sys.executable, "-c", _REPORT.format(body=_BODIES[what]), str(cc0), str(model.path), str(tensor)]
    answers: list[dict[str, float]] = []

    def start() -> None:
        answers.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))

    benchmark.pedantic(start, rounds=3, warmup_rounds=1)
    benchmark.extra_info["import_open_one_picture_s"] = round(min(answer["seconds"] for answer in answers), 3)
    assert 0 <= answers[-1]["value"] <= 1
    benchmark.extra_info["peak_mb"] = round(max(answer["peak_mb"] for answer in answers), 1)


@pytest.mark.benchmark(group="a fresh process: a backend that is not here")
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda"])
def test_absent_backend(benchmark: Any, backend: str, cc0: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "funduscope",
        "screen",
        str(cc0),
        "--out",
        str(tmp_path / "out"),
        "--backend",
        backend,
    ]
    done = benchmark.pedantic(lambda: subprocess.run(command, capture_output=True, text=True), rounds=3)
    if done.returncode == 0:
        pytest.skip(f"{backend} is here")
    assert done.returncode == 4, done.stderr
