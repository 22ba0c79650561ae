"""The ladder on a GPU without one: that it comes to its end, keeps what was measured, and measures what it says."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading
from contextlib import contextmanager, nullcontext, suppress
from types import SimpleNamespace
from unittest.mock import create_autospec

import numpy as np
import pytest
from fake_tensorrt import VERSION, Library, LoadedRtx  # which conftest.py loads

from funduscope.engine.errors import ModelError
from funduscope.engine.gate import pictures
from funduscope.engine.pictures import photo, preprocess
from funduscope.engine.readers.difference import FP16, FP32
from funduscope.engine.runners import gpu
from funduscope.engine.runners.onnx_runtime import OnnxRuntime
from funduscope.engine.runners.tensorrt import engines, libraries
from funduscope.engine.runners.tensorrt.engines import Facts

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
from funduscope.export import convert  # noqa: E402 -- these need both
from funduscope.export import onnx as export  # noqa: E402
from funduscope.training.multitask.deploy import from_weights  # noqa: E402
from funduscope.training.multitask.networks import OUTPUTS  # noqa: E402

HERE = gpu.Gpu("NVIDIA Drawn 4090", "sm_89", "13.0")
PATIENCE_S = 20


@pytest.fixture
def ladder(root, monkeypatch):
    """The benchmark's module, brief."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    for name in ("gpu", "precision"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("gpu")
    brief = {"BATCHES": (1, 2), "CALLS": 2, "PICTURES": 4, "BATCH": 2, "PHOTOGRAPHS": 2, "ON_CPU": 2}
    for name, value in brief.items():
        monkeypatch.setattr(module, name, value)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    yield module
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


@pytest.fixture
def run_main(ladder, tmp_path, monkeypatch):
    """Runs it as a program; gives what is in gpu.json then."""

    def run():
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--work", str(tmp_path)])
        monkeypatch.setenv(engines.FOLDER_VARIABLE, "")  # which it sets
        with suppress(KeyboardInterrupt):
            ladder.main()
        return json.loads((tmp_path / "gpu.json").read_text())

    return run


def test_it_comes_to_its_end_whatever_does_not_run(ladder, run_main, model, monkeypatch, capsys):
    compact = from_weights(export.weights_of(model)), convert.proto_of(model), None
    small = create_autospec(ladder.precision.width_1, return_value=compact)  # called as the real one, which takes long
    monkeypatch.setattr(ladder.precision, "width_1", small)
    monkeypatch.setattr(pictures, "views", lambda geometry: pictures.views_of(photo.load(ladder.PICTURE), geometry, 2))
    monkeypatch.setattr(gpu, "device", lambda index=0: HERE)

    @contextmanager
    def runs(*arguments):
        yield lambda images: None

    @contextmanager
    def stops_at_two(*arguments):
        if arguments[-1] == 2:
            raise ModelError("the gate\nsays more")
        yield lambda images: None

    def silent(*arguments):
        raise AssertionError

    monkeypatch.setattr(ladder, "in_torch", runs)
    monkeypatch.setattr(ladder, "bare", stops_at_two)
    monkeypatch.setattr(ladder, "engine", runs)
    monkeypatch.setattr(ladder, "ours", silent)
    record = run_main()
    told = capsys.readouterr().out
    assert record["device"][0]["capability"] == HERE.capability
    assert "not run" in record["ceilings"][0] or torch.cuda.is_available()
    assert [row["way"] for row in record["end to end"][:2]] == ["onnxruntime fp32", "onnxruntime fp16"]
    assert record["end to end"][0]["photographs/s"] > 0
    for network in ("compact", "width 1"):
        own = {row["way"]: row for row in record["ladder"] if row["network"] == network}
        assert len(own) == 14
        assert own["ONNX Runtime CUDA fp32, bare"].keys() >= {"p50, ms", "p99, ms", "not run"}
        assert own["ONNX Runtime CUDA fp32, bare"]["not run"] == "ModelError: the gate"
        assert own.pop("ONNX Runtime CUDA fp32, bare").keys().isdisjoint({"images/s at 2"})
        for precision in ("fp32", "fp16"):
            assert own.pop(f"onnxruntime-cuda {precision}")["not run"].endswith("no message")
        assert all(row["images/s at 2"] > 0 and "not run" not in row for row in own.values())
        assert f"| {network} | tensorrt-rtx fp16, CUDA graph |" in told
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_what_was_measured_is_kept_where_it_is_stopped(ladder, run_main, monkeypatch, capsys):
    def rows(work):
        yield "ceilings", {"copy": 1.0}
        yield "ladder", {"way": "torch", "p50, ms": 2.5}
        raise KeyboardInterrupt

    monkeypatch.setattr(ladder, "rows", rows)
    assert run_main() == {"ceilings": [{"copy": 1.0}], "ladder": [{"way": "torch", "p50, ms": 2.5}]}
    assert "| torch | 2.50 |" in capsys.readouterr().out


def test_a_rejected_photograph_is_the_rows_reason(ladder, model, tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "PICTURE", tmp_path / "none.jpg")
    ladder.PICTURE.write_bytes(b"no picture")
    row = next(ladder.end_to_end([model]))
    assert row["way"] == "onnxruntime fp32"
    assert row["not run"].startswith("FunduscopeError: none.jpg is rejected: UNKNOWN_FORMAT: ")


def test_images_a_second_are_those_of_two_threads_and_latency_is_that_of_one(ladder):
    seen, meeting = [], threading.Barrier(2)

    def run(images):
        seen.append(threading.get_ident())
        if threading.current_thread() is not threading.main_thread():
            meeting.wait(PATIENCE_S)  # alone it would wait in vain

    assert ladder.rate(run, np.zeros((2, 4, 4, 3), np.uint8)) > 0
    assert len(set(seen)) == 3  # the first call is made before the others
    seen.clear()
    assert list(ladder.latency(run, np.zeros((1, 4, 4, 3), np.uint8))) == ["p50, ms", "p95, ms", "p99, ms"]
    assert set(seen) == {threading.get_ident()}


@pytest.fixture
def on_cpu(monkeypatch):
    """torch in which the CPU is the GPU, as far as it is called."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda: SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor, non_blocking: tensor)
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda module: module)
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **options: real(network, backend="eager", **options))


@pytest.mark.parametrize("kind", ["eager fp32", "eager fp16", pytest.param("compile fp16", marks=pytest.mark.slow)])
def test_torch_computes_the_network_in_the_precision_that_the_row_names(ladder, on_cpu, model, cc0, kind):
    image = preprocess.prepare(photo.load(cc0), model.contract.geometry.build()).image[None]
    network = from_weights(export.weights_of(model))
    with ladder.in_torch(network, kind, 1) as run, OnnxRuntime(model, max_batch=1, threads=1) as reference:
        answers, wanted = run(image), reference(image)
    assert {answer.dtype for answer in answers} == {np.dtype(np.float32)}
    far = max(float(np.abs(a - wanted[name]).max()) for a, name in zip(answers, OUTPUTS, strict=True))
    if kind == "eager fp32":
        assert far <= FP32.map_value
    else:
        assert 1e-5 < far <= FP16.map_value
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}  # what it was given stays


def test_an_engine_is_built_for_its_batch_passes_the_gate_and_pads_nothing(
    ladder, cuda, classifier, monkeypatch, tmp_path
):
    built = []

    def build(model, library, profile, target, where):
        built.append(profile)
        facts = Facts(
            format="funduscope-engine/1",
            library=library,
            library_version=VERSION,
            compute_capability=HERE.capability,
            os=engines.this_os(),
            model=model.contract.name,
            model_sha256=model.sha256,
            precision="fp32",
            profile=profile,
            workspace_mb=1024,
            optimisation_level=3,
            engine_sha256="0" * 64,
            verified=False,
        )
        plan = {"tensors": ["images", *(output.name for output in model.contract.outputs)], "adds": 0, "from_row": 0}
        plan |= {"profile": [profile.min, profile.max], "refuses": 0, "contexts": 1}
        return engines.write(where, facts, json.dumps(plan).encode()), True

    size = classifier.contract.geometry.size
    images = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), np.uint8)
    with OnnxRuntime(classifier, max_batch=8, threads=1) as exact:
        library = Library("tensorrt_rtx", cuda, exact, LoadedRtx)
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", library)
        monkeypatch.setattr(libraries, "_loggers", {})
        monkeypatch.setattr(gpu, "device", lambda index=0: HERE)
        monkeypatch.setattr(pictures, "views", lambda geometry: images)
        monkeypatch.setattr(ladder.tensorrt, "build", build)
        with ladder.engine(classifier, "tensorrt-rtx", True, True, tmp_path, 8) as run:
            outputs, wanted = run(images), exact(images)
    assert all(np.array_equal(outputs[name], wanted[name]) for name in wanted)
    assert {shape[0] for shape in library.shapes} == {8}
    assert [profile.sizes for profile in built] == [(8,)]
    (engine,) = tmp_path.glob(f"*{engines.PLAN}")
    assert engines.facts_of(engine).facts.verified.how == pictures.ON_VIEWS


def python(root, *arguments):
    return subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True, timeout=120)


def test_what_is_needed_and_absent_is_named(root):
    done = python(root, "-S", "benchmarks/prerequisites.py")  # without installed packages
    assert done.returncode == 1
    for name in ("numpy", "opencv-python-headless", "onnxconverter-common", "torch", "hypothesis", "pydantic"):
        assert name in done.stderr
    for name in ("pycuda", "cuda-bindings", "tensorrt", "tensorrt-rtx-cu13"):
        assert f"without {name}: " in done.stdout
    assert python(root, "benchmarks/prerequisites.py").returncode == 0
