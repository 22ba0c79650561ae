"""The TensorRT runner, with a TensorRT and a CUDA that are none: which engines it opens, what it answers, what it leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
from fake_tensorrt import VERSION, Library, Loaded, LoadedRtx, Severity  # which conftest.py loads

from funduscope.engine import runners
from funduscope.engine.errors import BackendError, MissingExtra, ModelError, OutputError
from funduscope.engine.gate import opening
from funduscope.engine.gate.verify import verify_engine
from funduscope.engine.pictures import photo, preprocess
from funduscope.engine.readers.difference import FP32
from funduscope.engine.runners import gpu
from funduscope.engine.runners.onnx_runtime import OnnxRuntime
from funduscope.engine.runners.tensorrt import engines, libraries
from funduscope.engine.runners.tensorrt.engines import Facts, Profile, Unverified, Verified, Wanted
from funduscope.engine.runners.tensorrt.runner import TensorRt, TensorRtRtx

HERE = gpu.Gpu("NVIDIA Drawn 4090", "sm_89", "13.0")
MAX_BATCH = 4
PATIENCE_S = 20


@pytest.fixture
def exact(classifier):
    """The drawn classifier in ONNX Runtime."""
    with OnnxRuntime(classifier, max_batch=64, threads=1) as runner:
        yield runner


@pytest.fixture(scope="module")
def images(classifier, fundus):
    geometry = classifier.contract.geometry.build()
    return np.stack([preprocess.prepare(photo.load(fundus(seed=k)), geometry).image for k in range(MAX_BATCH)])


@pytest.fixture
def library(cuda, exact, monkeypatch, tmp_path):
    """TensorRT-RTX on a machine with a GPU, whose engines answer as the drawn classifier does."""
    made = Library("tensorrt_rtx", cuda, exact, LoadedRtx)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", made)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(libraries, "_loggers", {})
    monkeypatch.setattr(gpu, "device", lambda index=0: HERE)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setenv(engines.FOLDER_VARIABLE, str(tmp_path / "engines"))
    return made


@pytest.fixture
def build(library, classifier):
    """Writes an engine of the drawn classifier. sizes: fewest, best, most; plan: what it does otherwise than it should; data: a
    plan's bytes; other arguments: its facts."""

    def build(sizes=(1, 2, MAX_BATCH), *, verified=True, plan=None, data=None, model=classifier, **facts):
        passed = Verified(how="self-check", against=model.sha256, pictures=32, device=HERE.name, figures={})
        values = {
            "format": "funduscope-engine/1",
            "library": "tensorrt-rtx",
            "library_version": VERSION,
            "compute_capability": HERE.capability,
            "os": engines.this_os(),
            "model": model.contract.name,
            "model_sha256": model.sha256,
            "precision": model.contract.precision,
            "profile": Profile(**dict(zip(("min", "opt", "max"), sizes, strict=True))),
            "workspace_mb": 1024,
            "optimisation_level": 3,
            "engine_sha256": "0" * 64,
            "verified": passed if verified else False,
        }
        names = [tensor.name for tensor in (model.contract.input, *model.contract.outputs)]
        works = {
            "tensors": names,
            "profile": [sizes[0], sizes[2]],
            "adds": 0,
            "from_row": 0,
            "refuses": 0,
            "contexts": 1,
        }
        data = json.dumps(works | (plan or {})).encode() if data is None else data
        return engines.write(engines.folder(), Facts(**(values | facts)), data)

    return build


@pytest.fixture
def few_views(monkeypatch, images):
    """Four drawn pictures in the place of 32 views. Gives a list with an entry for each time that they were shown."""
    times: list[object] = []
    monkeypatch.setattr(opening, "views", lambda geometry: times.append(geometry) or images)
    return times


def differs(outputs, wanted) -> list[str]:
    assert list(outputs) == list(wanted)
    return [name for name in wanted if not np.allclose(outputs[name], wanted[name], rtol=0, atol=1e-6)]


def files() -> list[str]:
    return sorted(path.suffix for path in engines.folder().iterdir())


@pytest.mark.parametrize("graphs", [True, False])
def test_a_verified_engine_answers_as_the_model(build, cuda, classifier, exact, images, graphs):
    engine = build()
    with TensorRtRtx(classifier, max_batch=MAX_BATCH, graphs=graphs) as runner:
        assert (runner.engine, runner.max_batch, runner.precision, runner.slots) == (engine, MAX_BATCH, "fp32", 2)
        for n in range(1, MAX_BATCH + 1):
            outputs = runner(images[:n])
            assert list(outputs) == [tensor.name for tensor in classifier.contract.outputs]
            assert differs(outputs, exact(images[:n])) == []
    assert (cuda.replays > 0) == graphs
    assert cuda.held() == {}


def test_an_engine_that_computes_something_else_gives_something_else(build, classifier, exact, images):
    build(plan={"adds": 1e-3})  # the test above can fail
    with TensorRtRtx(classifier, max_batch=MAX_BATCH) as runner:
        assert differs(runner(images), exact(images)) == [tensor.name for tensor in classifier.contract.outputs]


def test_two_threads_run_two_batches_at_once(build, library, classifier, exact, images):
    build()
    meeting, meets = threading.Barrier(2), []
    library.during = lambda: meets and meeting.wait(PATIENCE_S)
    with TensorRtRtx(classifier, max_batch=MAX_BATCH) as runner, ThreadPoolExecutor(2) as pool:
        meets.append(True)
        jobs = [(batch, pool.submit(runner, batch)) for batch in (images[:1], images[1:3], images[2:], images[3:])]
        for batch, job in jobs:
            assert differs(job.result(PATIENCE_S), exact(batch)) == []


def test_the_data_centre_library_is_run_by_the_same_code(build, library, classifier, exact, images, monkeypatch):
    other = Library("tensorrt", library.cuda, exact, Loaded)  # it has no runtime configuration
    other.__version__ = "10.13.3"
    monkeypatch.setitem(sys.modules, "tensorrt", other)
    engine = build(library="tensorrt", library_version=other.__version__)
    runner = runners.open_runner(classifier, "tensorrt", max_batch=MAX_BATCH)
    with runner:
        assert isinstance(runner, TensorRt)
        assert runner.engine == engine
        assert differs(runner(images), exact(images)) == []
    assert files() == [".engine", ".json"]


# ---- which sizes are run


@pytest.mark.parametrize(
    ("sizes", "max_batch", "run"),
    [
        ((1, 2, 4), 4, {1, 2, 4}),
        ((1, 2, 4), 3, {1, 2, 4}),  # the gate has not seen batches of 3
        ((1, 2, 4), 2, {1, 2}),
        ((1, 2, 4), 1, {1}),
        ((1, 4, 4), 4, {1, 4}),
        ((3, 3, 4), 4, {3, 4}),
        ((3, 3, 4), 1, {3}),  # fewer pictures than the engine takes at least
    ],
)
def test_batches_are_padded_to_sizes_that_the_engine_takes(
    build, library, classifier, exact, images, sizes, max_batch, run
):
    build(sizes)
    with TensorRtRtx(classifier, max_batch=max_batch, graphs=False) as runner:
        assert runner.max_batch == max_batch
        for n in range(1, max_batch + 1):
            assert differs(runner(images[:n]), exact(images[:n])) == []
        with pytest.raises(AssertionError, match=f"the runner takes 1 to {max_batch}"):
            runner(np.concatenate([images, images]))
    assert {shape[0] for shape in library.shapes} == run
    assert {shape[1:] for shape in library.shapes} == {images.shape[1:]}


def test_each_slot_has_a_context_for_each_size_and_is_told_of_it_once(build, library, classifier, images):
    build()
    with TensorRtRtx(classifier, max_batch=MAX_BATCH, graphs=False) as runner:
        assert sorted(shape[0] for shape in library.shapes) == [1, 1, 2, 2, 4, 4]
        for n in (1, 4, 2, 1):
            runner(images[:n])
    assert len(library.shapes) == 6


# ---- which engine is opened


def test_without_an_engine_the_command_that_builds_one_is_named(library, classifier):
    command = f"funduscope build {classifier.path} --library tensorrt-rtx --batch 1,4,4"
    with pytest.raises(ModelError, match=rf"no engine of .* for this machine in .*engines; build it: {command}"):
        TensorRtRtx(classifier, max_batch=MAX_BATCH)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"compute_capability": "sm_120"}, "for the GPU sm_120, here sm_89"),
        ({"library_version": "1.6.0"}, "for tensorrt-rtx 1.6.0, here 1.7.1"),
        ({"os": "windows_amd64"}, "for the operating system windows_amd64, here "),
        ({"library": "tensorrt"}, "for tensorrt, wanted tensorrt-rtx"),
        ({"sizes": (1, 2, 3)}, "for batches to 3, wanted 4"),
        (
            {"compute_capability": "sm_75", "library_version": "1"},
            "for tensorrt-rtx 1, here 1.7.1; the GPU sm_75, here",
        ),
    ],
)
def test_an_engine_that_does_not_serve_is_named_with_the_reason(build, classifier, changes, reason):
    engine = build(**changes)
    with pytest.raises(ModelError, match="no engine of") as caught:
        TensorRtRtx(classifier, max_batch=MAX_BATCH)
    assert f"{engine.path.name}: {reason}" in str(caught.value)


def test_an_engine_of_another_model_is_not_taken(build, classifier, mapless):
    engine = build(model=mapless)
    with pytest.raises(ModelError, match="no engine of"):
        TensorRtRtx(classifier, max_batch=MAX_BATCH)
    wanted = Wanted(classifier, "tensorrt-rtx", VERSION, HERE.capability, MAX_BATCH)
    assert wanted.misfit(engine.facts) == f"for the model {mapless.sha256[:16]}, here {classifier.sha256[:16]}"


def test_an_engine_without_its_facts_is_not_taken(build, classifier):
    build().facts_path.unlink()
    with pytest.raises(ModelError, match=r"no facts beside it .*funduscope build"):
        TensorRtRtx(classifier, max_batch=MAX_BATCH)


def test_a_damaged_engine_is_not_loaded(build, library, classifier):
    engine = build()
    engine.path.write_bytes(engine.path.read_bytes() + b" ")
    again = f"funduscope build {classifier.path} --library tensorrt-rtx --for sm_89 --batch 1,2,4 "
    with pytest.raises(ModelError, match=rf"damaged: its SHA-256 .*; build it again: {again}"):
        TensorRtRtx(classifier, max_batch=MAX_BATCH)
    assert not hasattr(library, "logger")  # no library saw it


def test_of_those_that_serve_the_smallest_is_taken(build, classifier):
    build((1, 8, 32))
    small = build((1, 2, 5))
    build((1, 2, 3))
    with TensorRtRtx(classifier, max_batch=MAX_BATCH) as runner:
        assert runner.engine == small


def test_an_engine_that_is_given_must_be_for_this_machine(build, library, classifier):
    engine = build(compute_capability="sm_120")
    with pytest.raises(
        ModelError, match=r"for the GPU sm_120, here sm_89; build it for this machine: funduscope build"
    ):
        TensorRtRtx(classifier, max_batch=MAX_BATCH, engine=engine)
    assert not hasattr(library, "logger")


def test_no_gpu_no_library_or_no_pycuda_is_a_backend_that_cannot_be_had(build, library, classifier, monkeypatch):
    build()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pycuda", None)
        patch.setitem(sys.modules, "pycuda.driver", None)
        with pytest.raises(MissingExtra, match=r"pip install 'funduscope\[cuda\]'"):
            TensorRtRtx(classifier, max_batch=MAX_BATCH)
    assert not hasattr(library, "logger")  # known before an engine is loaded
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt_rtx", None)
        with pytest.raises(MissingExtra, match=r"pip install 'funduscope\[tensorrt-rtx\]'"):
            TensorRtRtx(classifier, max_batch=MAX_BATCH)
    monkeypatch.setattr(gpu, "device", no_gpu)
    with pytest.raises(BackendError, match="no NVIDIA GPU here"):
        TensorRtRtx(classifier, max_batch=MAX_BATCH)


def no_gpu(index=0):
    raise BackendError("no NVIDIA GPU here: the driver lists none")


# ---- what the library refuses


def test_a_plan_that_the_library_refuses_is_named_with_its_words(build, library, classifier):
    engine = build(data=b"of another time")
    with pytest.raises(ModelError, match=r"tensorrt_rtx refuses it: the plan is not of this version$") as caught:
        TensorRtRtx(classifier, max_batch=MAX_BATCH)
    assert str(engine.path) in str(caught.value)
    library.loaded = lambda library, plan: None
    build(data=b"{}")
    with pytest.raises(ModelError, match="refuses it: it does not say why"):  # nor what it said earlier
        TensorRtRtx(classifier, max_batch=MAX_BATCH)


def test_an_engine_with_other_tensors_is_refused(build, cuda, classifier):
    build(plan={"tensors": ["images", "disc"]})
    with pytest.raises(ModelError, match=r"it has the tensors \['disc', 'images'\], the model \['any_dr', "):
        TensorRtRtx(classifier, max_batch=MAX_BATCH)
    assert cuda.held() == {}


def test_no_execution_context_is_told_with_the_librarys_words(build, cuda, classifier):
    build(plan={"contexts": 0})
    with pytest.raises(BackendError, match="no execution context: out of memory in createExecutionContext"):
        TensorRtRtx(classifier, max_batch=MAX_BATCH)
    assert cuda.held() == {}


def test_a_size_that_does_not_run_is_told_when_the_engine_is_opened(build, cuda, classifier):
    build(plan={"refuses": 2})
    with pytest.raises(BackendError, match="TensorRT does not run a batch of 2: CUDA error 700: an illegal"):
        TensorRtRtx(classifier, max_batch=MAX_BATCH)
    assert cuda.held() == {}


def test_a_size_outside_the_engines_range_is_told_with_the_librarys_words(build, classifier):
    build(plan={"profile": [1, 3]})  # its facts say 4
    with pytest.raises(BackendError, match="a batch of 4: images: 4 is not in the profile's range 1 to 3"):
        TensorRtRtx(classifier, max_batch=MAX_BATCH)


def test_a_batch_that_does_not_run_is_told_and_the_next_may(build, library, classifier, exact, images):
    build()
    with TensorRtRtx(classifier, max_batch=MAX_BATCH, graphs=False) as runner:
        library.fails = True
        for _ in range(3):  # more often than there are slots
            with pytest.raises(BackendError, match="TensorRT does not run a batch of 2: CUDA error 700"):
                runner(images[:2])
        library.fails = False
        assert differs(runner(images[:2]), exact(images[:2])) == []


def test_warnings_of_the_library_go_to_the_log(build, library, classifier, caplog):
    build()
    with TensorRtRtx(classifier, max_batch=1), caplog.at_level(logging.INFO, logger="funduscope"):
        library.tell(Severity.WARNING, "lazy loading is off")
        library.tell(Severity.INFO, "hello")
    assert [record.message for record in caplog.records] == ["tensorrt_rtx: lazy loading is off"]


def test_closing_gives_all_back(build, cuda, classifier, images):
    build()
    runner = TensorRtRtx(classifier, max_batch=MAX_BATCH)
    runner(images)
    runner.close()
    assert cuda.held() == {}
    runner.close()
    with pytest.raises(AssertionError, match="closed"):
        runner(images)


# ---- the gate


def test_an_unverified_engine_is_not_opened(build, cuda, classifier):
    engine = build(verified=False)
    with pytest.raises(Unverified, match=f"funduscope verify {classifier.path} {engine.path}") as caught:
        TensorRtRtx(classifier, max_batch=MAX_BATCH)
    assert isinstance(caught.value, ModelError)
    assert caught.value.engine == engine
    assert cuda.held() == {}


def test_an_engine_from_elsewhere_is_verified_when_first_opened(build, classifier, exact, images, few_views, caplog):
    engine = build(verified=False)
    with caplog.at_level(logging.INFO, logger="funduscope"):
        name, runner = opening.open_runner(classifier, "tensorrt-rtx", max_batch=2)
    assert f"{engine.path}: first opened here; self-check" in caplog.text
    with runner:
        assert (name, runner.engine.path) == ("tensorrt-rtx", engine.path)
        assert differs(runner(images[:2]), exact(images[:2])) == []
    passed = engines.facts_of(engine.path).facts.verified
    assert (passed.how, passed.against, passed.device) == ("self-check", classifier.sha256, HERE.name)
    assert passed.pictures == len(images)
    assert passed.figures["max |d probability|"] <= FP32.probability
    runners.open_runner(classifier, "tensorrt-rtx", max_batch=2).close()
    assert len(few_views) == 1


def test_an_engine_from_elsewhere_is_shown_the_views_of_the_packages_picture(build, classifier):
    engine = build(verified=False)
    opening.open_runner(classifier, "tensorrt-rtx", max_batch=MAX_BATCH)[1].close()
    assert engines.facts_of(engine.path).facts.verified.pictures == 32


@pytest.mark.parametrize(
    "plan", [{"adds": 0.1}, {"adds": 0.1, "from_row": 1}, {"adds": float("nan")}], ids=["wrong", "rows", "nan"]
)
def test_an_engine_that_does_not_pass_is_deleted_and_not_served(build, cuda, classifier, few_views, caplog, plan):
    engine = build(verified=False, plan=plan)
    with pytest.raises(ModelError, match=r"(?s)deleted: on NVIDIA Drawn 4090 it differs from .*\n.*FAILS"):
        opening.open_runner(classifier, "tensorrt-rtx", max_batch=MAX_BATCH)
    assert f"{engine.path}: deleted" in caplog.text
    assert files() == []
    assert cuda.held() == {}
    with pytest.raises(ModelError, match="no engine of"):
        opening.open_runner(classifier, "tensorrt-rtx", max_batch=MAX_BATCH)


def test_the_gate_shows_every_size_of_the_profile(build, library, classifier, few_views):
    engine = build((1, 3, 5), verified=False)
    opening.verify_new(classifier, engine)
    assert {shape[0] for shape in library.shapes} == {1, 3, 5}


def test_the_facts_can_be_written_of_the_multitask_model_too(build, library, model, fundus):
    geometry = model.contract.geometry.build()
    shown = np.stack([preprocess.prepare(photo.load(fundus(seed=k)), geometry).image for k in range(2)])
    engine = build((1, 2, 2), verified=False, model=model)
    with OnnxRuntime(model, max_batch=2, threads=1) as runner:
        library.answer = lambda batch: runner(batch)
        report = verify_engine(model, engine, shown, "self-check")
    assert report.passes()
    assert engines.facts_of(engine.path).facts.verified.figures == report.record()


# ---- TensorRT-RTX's compiled kernels


def test_compiled_kernels_are_kept_beside_the_engine(build, library, classifier):
    path = build().path.with_suffix(".kernels")
    TensorRtRtx(classifier, max_batch=MAX_BATCH).close()
    assert library.compiled == [1, 2, 4]  # the second slot has them from the first
    kept, written = path.read_bytes(), path.stat().st_mtime_ns
    TensorRtRtx(classifier, max_batch=MAX_BATCH).close()
    assert library.compiled == [1, 2, 4]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (kept, written)


def compiled(library, model, caplog) -> tuple[int, int, bool]:
    """How many kernels an opened engine has compiled, how many files of them it has offered to the library, and whether it
    says that they are compiled anew."""
    library.compiled, library.offered = [], []
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="funduscope"):
        TensorRtRtx(model, max_batch=MAX_BATCH).close()
    return len(library.compiled), len(library.offered), ".kernels: damaged, or of another plan, driver" in caplog.text


def test_kernels_that_the_library_does_not_take_are_compiled_anew_and_kept(build, library, classifier, caplog):
    build()
    assert compiled(library, classifier, caplog) == (3, 0, False)
    library.driver = "580.2"
    assert compiled(library, classifier, caplog) == (3, 1, True)
    assert compiled(library, classifier, caplog) == (0, 1, False)  # not at every start from now on


def test_kernels_of_another_driver_are_not_offered_to_the_library(build, library, classifier, caplog, monkeypatch):
    build()
    compiled(library, classifier, caplog)
    monkeypatch.setattr(gpu, "device", lambda index=0: dataclasses.replace(HERE, cuda="13.1"))
    assert compiled(library, classifier, caplog) == (3, 0, True)
    assert compiled(library, classifier, caplog) == (0, 1, False)


def test_damaged_kernels_are_not_offered_to_the_library(build, library, classifier, caplog):
    path = build().path.with_suffix(".kernels")
    compiled(library, classifier, caplog)
    whole = path.read_bytes()
    for damaged in (b"", whole[:20], whole[:-1], whole + b" ", b"?" + whole[1:], whole[:-2] + b"?" + whole[-1:]):
        path.write_bytes(damaged)
        assert compiled(library, classifier, caplog) == (3, 0, True)
        assert path.read_bytes() == whole
    assert compiled(library, classifier, caplog) == (0, 1, False)


def test_kernels_of_another_plan_are_not_offered_to_the_library(build, library, classifier, caplog):
    path = build().path.with_suffix(".kernels")
    compiled(library, classifier, caplog)
    old = path.read_bytes()
    build(plan={"adds": 1e-3})  # in the same place
    assert not path.exists()
    path.write_bytes(old)  # by one that had opened the old plan
    assert compiled(library, classifier, caplog) == (3, 0, True)


def test_a_folder_that_cannot_be_written_does_not_stop_it(build, classifier, exact, images, caplog):
    path = build().path
    path.with_suffix(".kernels").mkdir()  # in the place of the file
    with (
        caplog.at_level(logging.INFO, logger="funduscope"),
        TensorRtRtx(classifier, max_batch=MAX_BATCH) as runner,
    ):
        assert differs(runner(images), exact(images)) == []
    assert "compiled kernels are not kept: " in caplog.text


# ---- `auto`


@contextlib.contextmanager
def auto(model, caplog):
    with caplog.at_level(logging.INFO, logger="funduscope"):
        name, runner = opening.open_runner(model, "auto", max_batch=MAX_BATCH, threads=1)
    with runner:
        yield name, runner


def test_auto_takes_onnx_runtime_without_a_gpu_and_says_why(classifier, monkeypatch, caplog):
    monkeypatch.setattr(gpu, "_driver", no_gpu)
    with auto(classifier, caplog) as (name, _):
        assert name == "onnxruntime"
    assert [record.message for record in caplog.records] == [
        *(
            f"{classifier.contract.name}: not {own}: no NVIDIA GPU here: the driver lists none"
            for own in runners.AUTO[:-1]
        ),
        f"{classifier.contract.name}: backend onnxruntime (auto)",
    ]


def test_auto_takes_an_engine_that_serves(build, classifier, exact, images, caplog):
    build()
    with auto(classifier, caplog) as (name, runner):
        assert name == "tensorrt-rtx"
        assert differs(runner(images), exact(images)) == []
    assert ": not tensorrt: This needs tensorrt, which is not installed" in caplog.text
    assert ": backend tensorrt-rtx (auto)" in caplog.text


def test_auto_takes_the_next_where_no_engine_serves(build, library, classifier, caplog):
    build(compute_capability="sm_120")
    with auto(classifier, caplog) as (name, _):
        assert name == "onnxruntime"
    assert ": not tensorrt-rtx: no engine of" in caplog.text
    assert ": not onnxruntime-cuda: this ONNX Runtime has no CUDAExecutionProvider" in caplog.text


def test_auto_takes_the_next_where_the_engine_does_not_pass(build, classifier, few_views, caplog):
    build(verified=False, plan={"adds": 0.1})
    with auto(classifier, caplog) as (name, _):
        assert name == "onnxruntime"
    assert ": not tensorrt-rtx: " in caplog.text
    assert "deleted: on NVIDIA Drawn 4090" in caplog.text
    assert files() == []


def test_auto_takes_the_next_where_that_it_passed_cannot_be_written_down(
    build, classifier, few_views, caplog, monkeypatch
):
    build(verified=False)

    def refused(*_arguments) -> None:
        raise OutputError("the folder cannot be written")

    monkeypatch.setattr(engines, "write_text", refused)
    with pytest.raises(OutputError, match="cannot be written"):
        opening.open_runner(classifier, "tensorrt-rtx", max_batch=MAX_BATCH)
    with auto(classifier, caplog) as (name, _):
        assert name == "onnxruntime"
    assert ": not tensorrt-rtx: " in caplog.text
