"""The commands that convert, build and verify, and the backends of `screen`: in processes that see no GPU; what is refused before
it comes to that, in this one."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from funduscope.engine import models, runners
from funduscope.engine.contract import Model
from funduscope.engine.runners.tensorrt import engines

onnx = pytest.importorskip("onnx")
from funduscope.export import half  # noqa: E402 -- these need onnx
from funduscope.export.stamp import stamp  # noqa: E402

GPU_CAUSE = "no NVIDIA GPU"


@pytest.fixture(scope="module")
def funduscope(tmp_path_factory):
    """The function (arguments) -> the finished process. Where there is a GPU, it is hidden; the cache of engines is empty."""
    hidden = {"CUDA_VISIBLE_DEVICES": "", "FUNDUSCOPE_ENGINES": str(tmp_path_factory.mktemp("cache"))}
    plain = {"PYTHONIOENCODING": "utf-8", "COLUMNS": "100", "NO_COLOR": "1"}

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "funduscope", *map(str, arguments)]
        environment = {**os.environ, **plain, **hidden, **variables}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def message(done: subprocess.CompletedProcess[str]) -> str:
    """stderr, without the line breaks of the console."""
    return " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def clinic(tmp_path_factory, fundus) -> Path:
    """A labelled data set of drawn eyes: four to learn from, four to choose by, four to test on."""
    folder = tmp_path_factory.mktemp("data") / "clinic"
    (folder / "images").mkdir(parents=True)
    lines = ["image,glaucoma,split"]
    for k in range(12):
        cv2.imwrite(str(folder / "images" / f"{k}.png"), fundus(seed=k)[..., ::-1])
        lines.append(f"images/{k}.png,{k % 2},{('train', 'val', 'test')[k % 3]}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def multitask() -> Model:
    return models.load("multitask")


def changed(model: Model, change, out: Path, precision: str = "fp32") -> Model:
    document = model.contract if precision == "fp32" else model.converted(precision)
    return stamp(change(onnx.load_from_string(model.data)), document, out)


@pytest.fixture(scope="module")
def halved(multitask, tmp_path_factory) -> Model:
    """The bundled multi-task model in half precision."""
    return changed(multitask, half.to_half, tmp_path_factory.mktemp("half") / "half.onnx", "fp16")


def wrong_disc(proto):
    (bias,) = [tensor for tensor in proto.graph.initializer if tensor.name.endswith("heads.disc.bias")]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(3), bias.name))
    return proto


# convert


@pytest.mark.parametrize(
    "count", [4, pytest.param(32, marks=pytest.mark.slow)], ids=["of a set", "views of the own photograph"]
)
def test_a_model_is_converted_to_half_once(call, clinic, tmp_path, count):
    pictures = ("--data", clinic) if count == 4 else ()
    done = call("convert", "classifier", "--to", "fp16", *pictures, "--out", tmp_path / "half.onnx")
    assert done.returncode == 0, done.stderr
    written = models.load(tmp_path / "half.onnx")
    assert written.contract.precision == "fp16"
    assert written.contract.name == models.load("classifier").contract.name
    assert done.stdout.startswith(f"{tmp_path / 'half.onnx'} ")
    assert done.stdout.rstrip().endswith(f"sha256 {written.sha256}")
    assert f"pictures {count}" in message(done)  # the gate's report
    assert "decision flips 0 at most 0" in message(done)
    assert "FAILS" not in done.stderr
    options = ("--to", "fp16", "--data", clinic, "--out", tmp_path / "again.onnx")
    again = call("convert", tmp_path / "half.onnx", *options)
    assert again.returncode == 3
    assert "it is fp16 already; convert the fp32 file" in message(again)
    assert [path.name for path in tmp_path.iterdir()] == ["half.onnx"]


@pytest.mark.slow
def test_a_model_is_converted_to_int8_with_a_data_set(call, clinic, tmp_path):
    out = tmp_path / "int8.onnx"
    done = call("convert", "multitask", "--to", "int8", "--signed", "--data", clinic, "--out", out)
    assert done.returncode == 0, done.stderr
    written = models.load(out)
    assert written.contract.precision == "int8"
    assert done.stderr.splitlines()[0].startswith("0 layers in float: passes")  # the frontier
    assert "pictures 4" in message(done)  # the val split
    assert written.sha256 in done.stdout
    assert len(written.data) < 0.4 * len(models.load("multitask").data)
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "int8"], "--to int8: name data sets with --data; it is calibrated on their pictures"),
        (["--to", "fp8"], "--to fp8: allowed are fp16, int8"),
        (["--to", "fp16", "--data", "absent"], "absent: no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_conversion_that_cannot_be_is_said_with_code_3(call, tmp_path, arguments, words):
    done = call("convert", "classifier", *arguments, "--out", tmp_path / "x.onnx")
    assert done.returncode == 3
    assert words in message(done)
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("a_file/x.onnx", "a_file: is a file, and a folder is needed; choose another folder"),
        ("a_folder", "is a folder; choose another name"),
    ],
)
def test_a_place_that_takes_no_file_is_said_with_code_5(call, clinic, tmp_path, place, words):
    (tmp_path / "a_file").write_text("")
    (tmp_path / "a_folder").mkdir()
    for command in (["convert", "classifier", "--to", "fp16"], ["export", tmp_path, "--data", clinic]):
        done = call(*command, "--out", tmp_path / place)
        assert done.returncode == 5, done.stderr
        assert words in message(done)
        assert list((tmp_path / "a_folder").iterdir()) == []


def test_an_unknown_model_is_not_converted(call, tmp_path):
    done = call("convert", "unknown", "--to", "fp16", "--out", tmp_path / "x.onnx")
    assert done.returncode == 3
    assert "unknown: no such model file" in message(done)


# build


@pytest.fixture(scope="module")
def built(funduscope, classifier, tmp_path_factory):
    """A build for two GPUs that are not here."""
    pytest.importorskip("tensorrt_rtx")
    out = tmp_path_factory.mktemp("built") / "new" / "engines"
    return funduscope("build", classifier.path, "--for", "sm_86", "--for", "sm_89", "--out", out), out


def test_a_build_for_other_gpus_lists_its_files(built):
    done, out = built
    assert done.returncode == 0, done.stderr
    files = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert sorted(files) == sorted(str(path) for path in out.glob("*.engine"))
    assert [line.split("  ")[-1] for line in done.stdout.splitlines()] == ["built", "built"]
    facts = [engines.facts_of(Path(file)).facts for file in files]
    assert [own.compute_capability for own in facts] == ["sm_86", "sm_89"]
    assert all(own.verified is False for own in facts)
    assert facts[0].profile.sizes == (1, 8, 32)


def test_it_says_that_they_are_not_verified_and_why(built):
    for target in ("sm_86", "sm_89"):
        words = f"not verified: it is for {target}; the gate runs where it is first opened ({GPU_CAUSE}"
        assert words in message(built[0])


def test_a_second_build_says_that_they_were_there(funduscope, built, classifier):
    _, out = built
    done = funduscope("build", classifier.path, "--for", "sm_89", "--for", "sm_120", "--out", out)
    assert done.returncode == 0
    assert [line.split("  ")[-1] for line in done.stdout.splitlines()] == ["was there", "built"]


@pytest.mark.parametrize("names", [(), pytest.param(("default",), marks=pytest.mark.slow)], ids=["", "default"])
def test_without_a_name_and_by_default_all_models_are_built_into_the_cache(funduscope, tmp_path, names):
    pytest.importorskip("tensorrt_rtx")
    done = funduscope("build", *names, "--for", "sm_89", "--batch", "1,1,2", FUNDUSCOPE_ENGINES=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    found = {engines.facts_of(path).facts.model for path in (tmp_path / "cache").glob("*.engine")}
    assert found == {models.load(name).contract.name for name in models.embedded()}
    assert len(done.stdout.splitlines()) == len(found)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 4, GPU_CAUSE),
        (["--for", "sm_60"], 3, "sm_60: this TensorRT-RTX"),
        (["--for", "sm_89", "--library", "tensorrt"], 3, "tensorrt builds only for the GPU that it runs on"),
        (["--library", "abacus"], 3, "library abacus: allowed are tensorrt-rtx, tensorrt"),
        (["--for", "sm_89", "--batch", "8,1,32"], 3, "batches of 8,1,32: must be three rising numbers"),
        (["--for", "sm_89", "--optimisation-level", "6"], 2, "--optimisation-level"),
    ],
    ids=lambda value: (" ".join(value) or "for this machine") if isinstance(value, list) else None,
)
def test_a_build_that_cannot_be_is_said_with_its_code(funduscope, classifier, tmp_path, arguments, code, words):
    pytest.importorskip("tensorrt_rtx")
    done = funduscope("build", classifier.path, *arguments, "--out", tmp_path / "engines")
    assert done.returncode == code
    assert words in message(done)
    assert done.stdout == ""
    assert not (tmp_path / "engines").exists()


def test_a_build_into_what_is_no_folder_is_said_with_code_5(call, classifier, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / "notes.txt").write_text("a file")
    for out in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "engines"):
        done = call("build", classifier.path, "--for", "sm_89", "--out", out)
        assert done.returncode == 5
        assert "notes.txt: is a file, and a folder is needed" in message(done)
    assert (tmp_path / "notes.txt").read_text() == "a file"


# verify


def test_a_half_file_passes_and_the_report_is_on_stdout(call, halved, clinic):
    done = call("verify", "multitask", halved.path, "--data", clinic, "--batch", "1,2,4")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["pictures", "4"]  # the test split
    assert lines[-1] == "passes (verified on clinic)"
    assert "max |d probability|" in done.stdout
    assert "at most 0.005" in done.stdout  # the bounds of fp16
    assert "FAILS" not in done.stdout


def test_without_data_it_is_a_self_check_on_32_views(call, classifier):
    done = call("verify", classifier.path, classifier.path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["pictures", "32"]
    assert done.stdout.splitlines()[-1] == "passes (self-check on 32 views)"


def test_a_file_runs_on_another_backend_for_the_gate(call, halved, clinic):
    pytest.importorskip("openvino")
    options = ("--data", clinic, "--batch", "1,2,4", "--backend", "openvino")
    assert call("verify", "multitask", halved.path, *options).returncode == 0


def test_the_gate_looks_at_one_backend(call):
    done = call("verify", "multitask", "multitask", "--backend", "auto")
    assert done.returncode == 3
    assert f"--backend auto: the gate looks at one backend; name it: {', '.join(runners.BACKENDS)}" in message(done)


def test_a_file_that_says_something_else_exits_with_3_after_its_report(call, multitask, clinic, tmp_path):
    wrong = changed(multitask, wrong_disc, tmp_path / "wrong.onnx")
    done = call("verify", "multitask", wrong.path, "--data", clinic, "--batch", "1,2,4")
    assert done.returncode == 3
    assert "FAILS" in done.stdout
    told = (
        "wrong.onnx with onnxruntime: does not pass beside multitask in ONNX Runtime fp32; see the lines marked FAILS"
    )
    assert told in message(done)
    assert wrong.path.exists()


def test_the_reference_is_an_fp32_model(call, halved, clinic):
    done = call("verify", halved.path, "multitask", "--data", clinic)
    assert done.returncode == 3
    assert "half.onnx: it is fp16; the gate compares with the fp32 model" in message(done)


def test_a_damaged_file_exits_with_3(call, halved, clinic, tmp_path):
    data = bytearray(halved.data)
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(data)
    done = call("verify", "multitask", tmp_path / "damaged.onnx", "--data", clinic)
    assert done.returncode == 3
    assert "damaged.onnx: damaged: its SHA-256 does not match its contract" in message(done)
    assert done.stdout == ""


def test_models_of_different_kinds_are_not_compared(call, clinic):
    done = call("verify", "multitask", "classifier", "--data", clinic)
    assert done.returncode == 3
    assert "classifier: it has other inputs or outputs than multitask" in message(done)


def test_an_engine_is_not_verified_without_a_gpu_and_stays(funduscope, built, classifier, clinic):
    (path,) = built[1].glob("*sm_86*.engine")
    before = engines.facts_of(path)
    done = funduscope("verify", classifier.path, path, "--data", clinic)
    assert done.returncode == 4
    assert GPU_CAUSE in message(done)
    assert engines.facts_of(path) == before
    assert engines.plan_of(before)


def test_an_engine_without_facts_exits_with_3(call, clinic, tmp_path):
    (tmp_path / "x.engine").write_bytes(b"plan")
    done = call("verify", "multitask", tmp_path / "x.engine", "--data", clinic)
    assert done.returncode == 3
    assert "no facts beside it" in message(done)
    assert "funduscope build" in message(done)


# screen


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_gpus_backend_without_a_gpu_exits_with_4_and_writes_nothing(funduscope, cc0, tmp_path, backend):
    done = funduscope("screen", cc0, "--out", tmp_path / "out", "--backend", backend)
    assert done.returncode == 4
    assert GPU_CAUSE in message(done)
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_backend_is_refused_with_those_there_are(call, cc0, tmp_path):
    done = call("screen", cc0, "--out", tmp_path / "out", "--backend", "abacus")
    assert done.returncode == 4
    assert f"no backend named 'abacus'; there are: auto, {', '.join(runners.BACKENDS)}" in message(done)
    assert list(tmp_path.iterdir()) == []


def screened(out: Path) -> dict[str, str]:
    with (out / "screenings.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return row


def test_openvino_screens_as_onnx_runtime_does_and_the_row_says_so(call, cc0, tmp_path):
    pytest.importorskip("openvino")
    rows = {}
    for backend in ("openvino", "onnxruntime"):
        done = call("screen", cc0, "--out", tmp_path / backend, "--backend", backend)
        assert done.returncode == 0, done.stderr
        rows[backend] = screened(tmp_path / backend)
        assert rows[backend]["backend"].split() == [backend] * len(models.embedded())
        record = json.loads((tmp_path / backend / "run.json").read_text())
        assert {model["backend"] for model in record["models"]} == {backend}
    for column in ("vcdr", "glaucoma_probability", "referable_dr_probability"):
        first, second = (float(rows[backend][column]) for backend in rows)
        assert first == pytest.approx(second, abs=2e-4)


def test_auto_says_what_it_takes_and_why_not_the_others(funduscope, cc0, tmp_path):
    done = funduscope("-v", "screen", cc0, "--out", tmp_path / "loud", "--model", "classifier")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("classifier: ")]
    assert [line.split(":")[1].strip() for line in lines] == [
        "not tensorrt",
        "not tensorrt-rtx",
        "not onnxruntime-cuda",
        "backend onnxruntime (auto)",
    ]
    assert all(GPU_CAUSE in line for line in lines[:3])
    assert screened(tmp_path / "loud")["backend"] == "onnxruntime"
    quiet = funduscope("screen", cc0, "--out", tmp_path / "quiet", "--model", "classifier")
    assert "classifier: " not in quiet.stderr
