"""What the doctor says of engines, extras and libraries."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from example_engine import PLAN, facts  # which conftest.py loads

from funduscope.engine import doctor
from funduscope.engine.errors import BackendError
from funduscope.engine.runners import gpu
from funduscope.engine.runners.tensorrt import engines
from funduscope.engine.runners.tensorrt.engines import Verified

BUILD = "funduscope build"


def listed(monkeypatch, capability: str | None) -> list[doctor.Finding]:
    """What the doctor says of engines on a machine with such a GPU."""

    def device(index=0):
        if capability is None:
            raise BackendError("no NVIDIA GPU here: told by a test")
        return gpu.Gpu("a GPU", capability, "13.0")

    real = importlib.metadata.version
    monkeypatch.setattr(gpu, "device", device)
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "1.7.1.116" if name.startswith("tensorrt-rtx") else real(name)
    )
    found = doctor.examine()
    assert not [own for own in found if own.state == "problem"]  # nothing of this keeps anyone from screening
    return [own for own in found if own.what.startswith(("engine", "TensorRT engines"))]


@pytest.fixture
def cabinet(tmp_path, monkeypatch) -> Path:
    """A folder with engines that fit, that do not, and that are damaged."""
    passed = Verified(how="verified on clinic", against="cd" * 32, pictures=32, device="a GPU", figures={})
    engines.write(tmp_path, facts(), PLAN)
    engines.write(tmp_path, facts(precision="fp16", verified=passed), PLAN)
    engines.write(tmp_path, facts(compute_capability="sm_120"), PLAN)
    engines.write(tmp_path, facts(library="tensorrt", library_version="10.13"), PLAN)
    engines.write(tmp_path, facts(precision="int8"), PLAN).path.write_bytes(PLAN[5:])
    engines.write(tmp_path, facts(model_sha256="cd" * 32), PLAN).facts_path.unlink()
    monkeypatch.setenv("FUNDUSCOPE_ENGINES", str(tmp_path))
    return tmp_path


def test_the_doctor_says_which_engines_fit_and_why_others_do_not(cabinet, monkeypatch):
    found = {own.detail: own for own in listed(monkeypatch, "sm_89")}
    assert len(found) == 6

    def one(words: str) -> doctor.Finding:
        (own,) = [own for detail, own in found.items() if words in detail]
        return own

    assert one("fits; not verified yet").what == "engine multitask fp32 to batch 32"
    assert one("fits; not verified yet").state == "ok"
    assert one("fits; verified on clinic").what == "engine multitask fp16 to batch 32"
    assert one("fits; verified on clinic").state == "ok"
    assert one("for the GPU sm_120, here sm_89").state == "absent"
    assert one("for tensorrt 10.13, here none").state == "absent"
    assert one("damaged: its SHA-256").detail.startswith("refused: ")
    assert one("damaged: its SHA-256").state == "absent"
    assert one("no facts beside it").detail.startswith("refused: ")
    assert one("no facts beside it").state == "absent"


@pytest.mark.parametrize("distribution", ["tensorrt", "tensorrt-cu12", "tensorrt-cu13"])
def test_the_doctor_knows_tensorrt_by_each_name_that_it_is_installed_under(cabinet, monkeypatch, distribution):
    installed = {distribution: "10.13", "filelock": "3.15"}

    def version(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(gpu, "device", lambda index=0: gpu.Gpu("a GPU", "sm_89", "13.0"))
    monkeypatch.setattr(importlib.metadata, "version", version)
    found = doctor.examine()
    (own,) = [own for own in found if "-tensorrt-10.13-" in own.detail]
    assert (own.state, own.detail.split(" (")[0]) == ("ok", "fits; not verified yet")
    assert doctor.Finding("ok", "extra tensorrt", "complete") in found


def test_the_doctor_examines_what_is_not_installed_but_only_on_the_path(monkeypatch):
    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    found = doctor.examine()
    (own,) = [own for own in found if own.what == "funduscope"]
    assert own.state == "absent"
    assert "not installed" in own.detail
    assert {"NVIDIA GPU", "model multitask"} <= {own.what for own in found}
    assert not [own for own in found if own.state == "problem" or own.what.startswith("extra")]


def test_the_doctor_asks_of_an_extra_what_the_extras_in_it_need(monkeypatch):
    lines = [
        "a>=1",
        'funduscope[train,convert]; extra == "export"',
        'c; extra == "export"',
        'b>=1; extra == "train"',
        'd; extra == "convert"',
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: lines)
    found = {own.what: own for own in doctor.examine()}
    assert found["a"] == doctor.Finding("problem", "a", "pip install a")
    for extra, lacks in (("export", "c, b, d"), ("train", "b"), ("convert", "d")):
        detail = f"lacks {lacks}: pip install 'funduscope[{extra}]'"
        assert found[f"extra {extra}"] == doctor.Finding("absent", f"extra {extra}", detail)
    assert found["extra dicom"].detail == "complete"


def test_the_doctor_says_why_an_onnx_runtime_does_not_load(monkeypatch):
    def require(module, extra):
        raise BackendError(f"{module} is installed but does not load: no libgomp.so.1")

    monkeypatch.setattr(doctor, "require", require)
    assert [own.detail.split(": ")[1] for own in doctor.examine() if own.state == "problem"] == ["no libgomp.so.1"]


def test_without_a_gpu_no_engine_fits(cabinet, monkeypatch):
    found = listed(monkeypatch, None)
    assert len(found) == 6
    assert {own.state for own in found} == {"absent"}
    assert sum("the GPU sm_89, here none" in own.detail for own in found) == 3


def test_no_engines_are_told_with_what_makes_them(tmp_path, monkeypatch):
    monkeypatch.setenv("FUNDUSCOPE_ENGINES", str(tmp_path / "none"))
    (found,) = listed(monkeypatch, "sm_89")
    assert (found.state, found.what) == ("absent", "TensorRT engines")
    assert BUILD in found.detail


def test_the_doctors_exit_code_does_not_depend_on_engines(cabinet, monkeypatch):
    done = subprocess.run(
        [sys.executable, "-m", "funduscope", "doctor"], capture_output=True, text=True, timeout=120
    )  # the variable is inherited
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "engine multitask fp16 to batch 32" in told
    assert "refused: " in told
