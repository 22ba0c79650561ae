"""The engine builder with the real TensorRT-RTX, which needs no GPU: what builds, what is taken from the folder, what is said.

No engine runs here.
"""

import contextlib
import json
import logging
import sys
import threading
import time
from dataclasses import replace

import onnx
import pytest
from onnx import helper

from funduscope.engine import models
from funduscope.engine.errors import BackendError, MissingExtra, ModelError, OutputError, SettingsError
from funduscope.engine.gate import comparison as gate
from funduscope.engine.gate import pictures
from funduscope.engine.readers.difference import Difference
from funduscope.engine.runners import gpu
from funduscope.engine.runners.tensorrt import engines, libraries
from funduscope.engine.runners.tensorrt.engines import Facts, Profile
from funduscope.engine.runners.tensorrt.libraries import logger
from funduscope.export import half, int8, tensorrt
from funduscope.export import onnx as export
from funduscope.export.stamp import stamp
from funduscope.training.multitask.networks import Deployed, MultiTaskUNet

trt = pytest.importorskip("tensorrt_rtx")
# torch.onnx meets its own deprecation
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
RTX = "tensorrt-rtx"
NAMES = ("multitask", "disc", "classifier")
SIZES = Profile(min=1, opt=8, max=32)
TARGETS = ("sm_86", "sm_89", "sm_120")


@pytest.fixture(scope="module")
def bundled(cc0, tmp_path_factory):
    """The models that come with the package, and each in half precision and in signed int8."""
    folder = tmp_path_factory.mktemp("bundled")
    plain = {name: models.load(name) for name in NAMES}
    halves = {f"{name}-fp16": in_half(model, folder / f"{name}-fp16.onnx") for name, model in plain.items()}
    eighths = {f"{name}-int8": in_int8(model, cc0, folder / f"{name}-int8.onnx") for name, model in plain.items()}
    return plain | halves | eighths


def in_half(model, out):
    """The gate has its own tests."""
    document = model.converted("fp16")
    return stamp(half.to_half(onnx.load_from_string(model.data)), document, out)


def in_int8(model, photograph, out):
    """Signed, calibrated on one picture: which numbers it has does not matter here."""
    images = pictures.prepared([photograph], model.contract.geometry.build())
    passed = gate.Report(1, (Difference("damage", 0.0, 1.0),))
    proto, _ = int8.to_int8(onnx.load_from_string(model.data), images, lambda _: passed, signed=True)
    return stamp(proto, model.converted("int8"), out)


def build(model, where, sizes=SIZES, target="sm_89", **more):
    return tensorrt.build(model, RTX, sizes, target, where, **more)


def names(folder):
    """What is in a folder of engines, without locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_model_builds_for_other_gpus_with_any_batch_to_32(bundled, tmp_path, name, precision, target):
    model = bundled[name if precision == "fp32" else f"{name}-{precision}"]
    engine, is_new = build(model, tmp_path, target=target)
    assert is_new
    assert engine.facts == Facts(
        format="funduscope-engine/1",
        library=RTX,
        library_version=trt.__version__,
        compute_capability=target,
        os=engines.this_os(),
        model=model.contract.name,
        model_sha256=model.sha256,
        precision=precision,
        profile=SIZES,
        workspace_mb=4096,
        optimisation_level=3,
        engine_sha256=engine.facts.engine_sha256,
        verified=False,
    )
    assert engines.facts_of(engine.path) == engine
    assert len(engines.plan_of(engine)) > len(model.data) / 2  # the weights are in it
    assert names(tmp_path) == [engine.path.name, engine.facts_path.name]


def test_half_precision_makes_smaller_engines(bundled, tmp_path):
    for name in NAMES:
        sizes = [len(engines.plan_of(build(bundled[own], tmp_path)[0])) for own in (name, f"{name}-fp16")]
        assert sizes[1] < 0.7 * sizes[0]


def check_full_size(model, tmp_path):
    """It builds as it is and in half precision, for each kind of GPU."""
    for own in (model, in_half(model, tmp_path / "half.onnx")):
        for target in TARGETS:
            engine, is_new = build(own, tmp_path / "engines", target=target)
            assert is_new
            assert engine.facts.compute_capability == target
            assert len(engines.plan_of(engine)) > 0.9 * len(own.data)


@pytest.mark.slow
def test_the_full_width_multi_task_network_builds(tmp_path):
    deployed = Deployed(MultiTaskUNet(1.0, 0.0)).eval()
    document = models.load("multitask").contract
    proto = export.to_onnx(deployed.folded(), document.geometry.size)
    model = stamp(proto, document, tmp_path / "full.onnx")
    assert len(model.data) > 80e6
    check_full_size(model, tmp_path)


@pytest.mark.slow
def test_the_largest_classifier_builds(any_classifier, tmp_path):
    _, model = any_classifier("densenet121", 0, 208, "colour")
    assert len(model.data) > 25e6
    check_full_size(model, tmp_path)


# the folder


@pytest.fixture
def counted(monkeypatch):
    """The real builder, which remembers the keys that it built."""
    built, real = [], tensorrt._plan

    def plan(library, log, model, facts, *rest):
        built.append(facts.key)
        return real(library, log, model, facts, *rest)

    monkeypatch.setattr(tensorrt, "_plan", plan)
    return built


def test_a_second_build_of_the_same_is_taken_from_the_folder(classifier, tmp_path, counted):
    first, was_built = build(classifier, tmp_path)
    second, again = build(classifier, tmp_path)
    assert (was_built, again) == (True, False)
    assert second == first
    assert counted == [first.facts.key]


def test_an_engine_that_the_gate_let_pass_stays_so(classifier, tmp_path, counted):
    engine, _ = build(classifier, tmp_path)
    passed = engines.Verified(how="self-check", against=classifier.sha256, pictures=32, device="a GPU", figures={})
    kept = engines.state(engine, engine.facts.model_copy(update={"verified": passed}))
    assert build(classifier, tmp_path) == (kept, False)


@pytest.mark.parametrize("other", [{"workspace_mb": 512}, {"optimisation_level": 1}], ids=str)
def test_other_settings_build_again_in_the_same_place(classifier, tmp_path, counted, other):
    first, _ = build(classifier, tmp_path)
    second, is_new = build(classifier, tmp_path, **other)
    assert is_new
    assert second.path == first.path
    assert engines.facts_of(first.path).facts == second.facts
    assert {name: getattr(second.facts, name) for name in other} == other
    assert build(classifier, tmp_path, **other) == (second, False)
    assert build(classifier, tmp_path)[1]
    assert len(counted) == 3


def test_a_damaged_plan_is_built_again(classifier, tmp_path, counted):
    first, _ = build(classifier, tmp_path)
    plan = bytearray(first.path.read_bytes())
    plan[len(plan) // 2] ^= 4
    first.path.write_bytes(plan)
    second, is_new = build(classifier, tmp_path)
    assert is_new
    assert engines.plan_of(second) == second.path.read_bytes() != bytes(plan)
    second.path.unlink()
    assert build(classifier, tmp_path)[1]
    assert len(counted) == 3


def test_damaged_facts_are_built_again(classifier, tmp_path, counted):
    first, _ = build(classifier, tmp_path)
    first.facts_path.write_text("{}")
    assert build(classifier, tmp_path)[1]
    first.facts_path.unlink()
    assert build(classifier, tmp_path)[1]
    assert engines.facts_of(first.path).facts.engine_sha256
    assert len(counted) == 3


def test_another_model_profile_or_target_has_its_own_engine(classifier, mapless, tmp_path, counted):
    made = [
        build(classifier, tmp_path),
        build(mapless, tmp_path),
        build(classifier, tmp_path, sizes=Profile(min=1, opt=4, max=8)),
        build(classifier, tmp_path, target="sm_120"),
    ]
    assert all(is_new for _, is_new in made)
    assert len({engine.path for engine, _ in made}) == len({engine.facts.key for engine, _ in made}) == 4
    for engine, _ in made:
        assert engines.facts_of(engine.path) == engine
    assert len(names(tmp_path)) == 8


def test_of_two_builders_one_builds_and_the_other_takes_it(classifier, tmp_path, monkeypatch):
    built, inside, real = [], threading.Event(), tensorrt._plan

    def slow(*arguments):
        built.append(threading.current_thread().name)
        inside.set()
        time.sleep(0.3)  # in which the other one comes
        return real(*arguments)

    monkeypatch.setattr(tensorrt, "_plan", slow)
    results = {}

    def work(name):
        results[name] = build(classifier, tmp_path)

    first = threading.Thread(target=work, args=["first"])
    second = threading.Thread(target=work, args=["second"])
    first.start()
    assert inside.wait(30)
    second.start()
    for thread in (first, second):
        thread.join(60)
    assert len(built) == 1
    assert (results["first"][1], results["second"][1]) == (True, False)
    assert results["first"][0] == results["second"][0]


def test_processes_that_build_different_engines_do_not_wait_for_one_another(classifier, mapless, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorrt, "listening", contextlib.nullcontext)  # each has a library of its own
    together = threading.Barrier(2, timeout=30)  # broken, were one to wait for the other

    def plan(*_):
        together.wait()
        return b"plan"

    monkeypatch.setattr(tensorrt, "_plan", plan)
    threads = [threading.Thread(target=build, args=[model, tmp_path]) for model in (classifier, mapless)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not together.broken
    assert len(list(tmp_path.glob("*.engine"))) == 2


@pytest.mark.parametrize("place", ["notes.txt", "notes.txt/engines"])
def test_a_folder_that_cannot_be_is_told(classifier, tmp_path, place):
    (tmp_path / "notes.txt").write_text("a file")
    with pytest.raises(OutputError, match=r"notes.txt: is a file, and a folder is needed"):
        build(classifier, tmp_path / place)


def test_a_folder_that_may_not_be_written_to_is_told(classifier, tmp_path, monkeypatch):
    def refused(*_arguments, **_more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", refused)  # root may write anywhere
    with pytest.raises(OutputError, match=r"cannot be written .Permission denied"):
        build(classifier, tmp_path)


# what is refused


def test_an_unknown_target_is_refused_with_those_there_are(classifier, tmp_path):
    with pytest.raises(SettingsError, match=r"sm_60: this TensorRT-RTX \(.*\) builds for .*sm_86, sm_89, .*sm_120"):
        build(classifier, tmp_path / "new", target="sm_60")
    assert not (tmp_path / "new").exists()


def test_tensorrt_does_not_build_for_gpus_that_are_not_here(classifier, tmp_path):
    with pytest.raises(SettingsError, match="sm_89: tensorrt builds only for the GPU that it runs on"):
        tensorrt.build(classifier, "tensorrt", SIZES, "sm_89", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_without_a_target_it_is_this_machines_gpu(classifier, tmp_path, monkeypatch):
    def none(*_):
        raise BackendError("no NVIDIA GPU here: told by a test")

    monkeypatch.setattr(gpu, "device", none)
    with pytest.raises(BackendError, match="told by a test"):
        build(classifier, tmp_path / "new", target=None)
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(gpu, "device", lambda *_: gpu.Gpu("a GPU", "sm_77", "13.0"))
    monkeypatch.setattr(tensorrt, "_plan", lambda _trt, _log, _model, _facts, capability, *_: str(capability).encode())
    for target in (
        None,
        "sm_77",
    ):  # which the library does not list: it is named in the command that builds an engine again
        engine, _ = build(classifier, tmp_path / str(target), target=target)
        assert engine.facts.compute_capability == "sm_77"
        assert engines.plan_of(engine) == b"ComputeCapability.CURRENT"
    monkeypatch.setitem(sys.modules, "tensorrt", trt)  # which asks for nothing: it builds for no other
    engine, _ = tensorrt.build(classifier, "tensorrt", SIZES, None, tmp_path)
    assert engines.plan_of(engine) == b"None"


def test_without_a_target_and_a_gpu_it_does_not_build_for_others(classifier, tmp_path, monkeypatch):
    with contextlib.suppress(BackendError):
        pytest.skip(f"there is a GPU: {gpu.device().name}")
    monkeypatch.setattr(gpu, "device", lambda *_: gpu.Gpu("a GPU", "sm_89", "13.0"))
    with pytest.raises(ModelError, match=r"tensorrt_rtx does not build it for sm_89: .*[Cc][Uu][Dd][Aa]"):
        build(classifier, tmp_path, target=None)
    assert names(tmp_path) == []


@pytest.mark.parametrize(("library", "module"), [(RTX, "tensorrt_rtx"), ("tensorrt", "tensorrt"), (RTX, "filelock")])
def test_a_missing_library_is_told_with_the_pip_line(classifier, tmp_path, monkeypatch, library, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"needs {module}, .* pip install 'funduscope\[{library}\]'"):
        tensorrt.build(classifier, library, SIZES, None, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def with_operator(model, operator, domain, out):
    """The drawn classifier with one more operator behind the pixels."""
    proto = onnx.load_from_string(model.data)
    cast, transpose = proto.graph.node[:2]
    odd = helper.make_node(operator, [cast.output[0]], ["odd"], name="the_odd_one", domain=domain)
    transpose.input[0] = "odd"
    proto.graph.node.insert(1, odd)
    if domain:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    return stamp(proto, model.contract, out)


def test_an_operator_that_it_does_not_know_is_told_in_its_words(classifier, tmp_path):
    odd = with_operator(classifier, "Abacus", "funduscope.test", tmp_path / "odd.onnx")
    with pytest.raises(
        ModelError, match=r"odd.onnx: tensorrt_rtx cannot read it: Abacus the_odd_one: .*Plugin not found"
    ):
        build(odd, tmp_path / "engines")
    assert names(tmp_path / "engines") == []
    assert build(classifier, tmp_path / "engines")[1]  # what it said then is forgotten


def test_an_operator_that_it_knows_and_does_not_take_is_named(classifier, tmp_path):
    odd = with_operator(classifier, "Unique", "", tmp_path / "odd.onnx")  # of which its own words are "false"
    with pytest.raises(ModelError, match=r"odd.onnx: tensorrt_rtx cannot read it: Unique the_odd_one"):
        build(odd, tmp_path / "engines")
    assert names(tmp_path / "engines") == []


def test_bytes_that_are_no_graph_are_told(classifier, tmp_path):
    with pytest.raises(ModelError, match=r"tensorrt_rtx cannot read it: [^ ]"):
        build(replace(classifier, data=b"no graph"), tmp_path)
    assert names(tmp_path) == []


def test_an_error_that_is_told_while_a_plan_comes_is_a_failure(classifier, tmp_path):
    def progress(phase, done, total):
        if (phase, done) == ("Building engine", 1):
            logger(trt).heard.append("a kernel went wrong")

    with pytest.raises(ModelError, match=r"does not build it for sm_89: a kernel went wrong$"):
        build(classifier, tmp_path, progress=progress)
    assert names(tmp_path) == []
    assert build(classifier, tmp_path, progress=lambda *_: None)[1]  # the same without it


def test_what_goes_wrong_in_one_build_is_not_told_of_another(classifier, mapless, tmp_path):
    begun, results = threading.Event(), {}

    def work():
        results["other"] = build(mapless, tmp_path, progress=lambda *_: begun.set())

    other = threading.Thread(target=work)

    def progress(phase, done, total):
        if (phase, done) == ("Building engine", 1):
            logger(trt).heard.append("a kernel went wrong")
            other.start()
            assert not begun.wait(0.5)  # were it to build now, it would clear what was heard

    with pytest.raises(ModelError, match=r"does not build it for sm_89: a kernel went wrong$"):
        build(classifier, tmp_path, progress=progress)
    other.join(60)
    assert results["other"][1]


def test_a_failed_build_removes_nothing_that_was_there(classifier, tmp_path):
    first, _ = build(classifier, tmp_path)
    with pytest.raises(ModelError, match="went wrong"):
        build(
            classifier,
            tmp_path,
            workspace_mb=512,
            progress=lambda *_: logger(trt).heard.append("a kernel went wrong"),
        )
    assert engines.facts_of(first.path) == first
    assert engines.plan_of(first)


def test_a_build_that_gives_no_plan_is_a_failure(classifier, tmp_path, monkeypatch):
    class Stop(trt.IProgressMonitor):
        def phase_start(self, *_):
            pass

        def step_complete(self, *_):
            return False  # which ends the build

        def phase_finish(self, *_):
            pass

    monkeypatch.setattr(tensorrt, "_monitor", lambda *_: Stop())
    with pytest.raises(ModelError, match=r"tensorrt_rtx does not build it for sm_89: ."):
        build(classifier, tmp_path, progress=lambda *_: None)
    assert names(tmp_path) == []


def test_progress_is_told_in_phases_that_rise_to_their_total(classifier, tmp_path):
    told = []
    build(classifier, tmp_path, progress=lambda *step: told.append(step))
    phases = {}
    for phase, done, total in told:
        phases.setdefault(phase, []).append((done, total))
    assert "Building engine" in phases
    for steps in phases.values():
        totals = {total for _, total in steps}
        assert 0 not in totals or totals == {0}
        assert steps[0][0] == 0
        assert steps[-1][0] == steps[-1][1]
        assert all(done <= total for done, total in steps)
    (total,) = {total for _, total in phases["Building engine"]}
    rising = [done for done, _ in phases["Building engine"]]
    assert rising == sorted(rising)
    assert (rising[0], rising[-1]) == (0, total)


# the timings of kernels, which TensorRT measures and TensorRT-RTX, in its place here, takes as well


@pytest.fixture
def timed(monkeypatch):
    """A function that builds as `tensorrt` does."""
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(gpu, "device", lambda *_: gpu.Gpu("a GPU", "sm_89", "13.0"))
    return lambda model, where: tensorrt.build(model, "tensorrt", SIZES, None, where)


def timings(where):
    return where / f"timings-tensorrt-{trt.__version__}-sm_89.cache"


NO_OPERATIONS = pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")


@NO_OPERATIONS
def test_timings_are_kept_for_the_next_build(classifier, mapless, tmp_path, timed):
    engine, _ = timed(classifier, tmp_path)
    assert names(tmp_path) == [engine.path.name, engine.facts_path.name, timings(tmp_path).name]
    assert timed(mapless, tmp_path)[1]


@NO_OPERATIONS
def test_timings_that_are_not_taken_start_anew(classifier, tmp_path, timed, caplog):
    timings(tmp_path).write_bytes(b"no timings")
    with caplog.at_level(logging.INFO, logger="funduscope"):
        assert timed(classifier, tmp_path)[1]
    assert timings(tmp_path).read_bytes().startswith(b"ptrt")


@NO_OPERATIONS
def test_timings_that_cannot_be_kept_do_not_throw_a_plan_away(classifier, tmp_path, timed, caplog):
    timings(tmp_path).mkdir()
    with caplog.at_level(logging.INFO, logger="funduscope"):
        engine, is_new = timed(classifier, tmp_path)
    assert is_new
    assert engines.plan_of(engine)
    assert "timings are not kept: " in caplog.text


class Config:
    """Of a builder that refuses timings in its own way."""

    def __init__(self, log, refusal):
        self.log, self.refusal, self.cache = log, refusal, None

    def create_timing_cache(self, data):
        if data == b"bad" and self.refusal == "says so":
            self.log.heard.append("the header is wrong")
        return None if data == b"bad" and self.refusal == "gives none" else data

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        self.cache = cache
        return not (cache == b"bad" and self.refusal == "sets none")


@pytest.mark.parametrize("refusal", ["gives none", "sets none", "says so"])
def test_refused_timings_leave_empty_ones_and_no_error_behind(tmp_path, refusal, caplog):
    log = logger(trt)
    log.heard[:] = ["an earlier error"]
    config, path = Config(log, refusal), tmp_path / "timings.cache"
    path.write_bytes(b"good")
    assert tensorrt._timings(config, log, path) == config.cache == b"good"
    path.write_bytes(b"bad")
    with caplog.at_level(logging.INFO, logger="funduscope"):
        assert tensorrt._timings(config, log, path) == config.cache == b""
    assert "timings.cache: not taken" in caplog.text
    assert log.heard == ["an earlier error"]
    path.unlink()
    assert tensorrt._timings(config, log, path) == b""


# settings


@pytest.mark.parametrize(
    ("installed", "foreign", "chosen"),
    [
        ({"tensorrt", "tensorrt_rtx"}, False, "tensorrt"),
        ({"tensorrt", "tensorrt_rtx"}, True, RTX),
        ({"tensorrt"}, False, "tensorrt"),
        ({"tensorrt"}, True, "tensorrt"),
        ({"tensorrt_rtx"}, False, RTX),
        ({"tensorrt_rtx"}, True, RTX),
        (set(), False, RTX),
        (set(), True, RTX),
    ],
)
def test_the_library_is_the_one_that_is_installed(monkeypatch, installed, foreign, chosen):
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: name if name in installed else None)
    assert tensorrt.choose_library(None, foreign=foreign) == chosen
    for name in ("tensorrt", RTX):  # what is asked for is taken; whether it is there shows when it builds
        assert tensorrt.choose_library(name, foreign=foreign) == name


def test_an_unknown_library_is_refused():
    with pytest.raises(SettingsError, match="library abacus: allowed are tensorrt-rtx, tensorrt"):
        tensorrt.choose_library("abacus", foreign=False)


def test_the_facts_are_readable_json_and_not_verified(classifier, tmp_path):
    engine, _ = build(classifier, tmp_path)
    facts = json.loads(engine.facts_path.read_text())
    assert facts["verified"] is False
    assert facts["profile"] == {"min": 1, "opt": 8, "max": 32}
    assert facts["library_version"] == trt.__version__
