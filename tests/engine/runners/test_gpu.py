"""Which GPU is here, by a driver's library that is none; and what the backends of ONNX Runtime say where it cannot serve."""

from __future__ import annotations

import ctypes

import onnxruntime
import pytest

from funduscope.engine import runners
from funduscope.engine.errors import BackendError, ModelError
from funduscope.engine.runners import gpu

CALLS = (
    "cuInit",
    "cuDeviceGetCount",
    "cuDriverGetVersion",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
)


class Driver:
    """libcuda: each call gives an error code, and fills what it is given by reference."""

    def __init__(
        self, count=1, name=b"NVIDIA GeForce RTX 4090", capability=(8, 9), version=13000, **codes: int
    ) -> None:
        self.count, self.name, self.version, self.codes = count, name, version, codes
        self.attributes = dict(zip((75, 76), capability, strict=True))
        self.started = False

    def answer(self, call: str) -> int:
        assert self.started, "cuInit comes first"
        return self.codes.get(call, 0)

    def cuInit(self, flags):
        self.started = True
        return self.answer("cuInit")

    def cuDeviceGetCount(self, count):
        count._obj.value = self.count
        return self.answer("cuDeviceGetCount")

    def cuDriverGetVersion(self, version):
        version._obj.value = self.version
        return self.answer("cuDriverGetVersion")

    def cuDeviceGet(self, device, number):
        device._obj.value = number
        return self.answer("cuDeviceGet")

    def cuDeviceGetName(self, name, length, device):
        assert device.value == 0
        name.value = self.name[: length - 1]
        return self.answer("cuDeviceGetName")

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = self.attributes[attribute]
        return self.answer("cuDeviceGetAttribute")


@pytest.fixture
def driver(monkeypatch):
    """Puts a `Driver` in the place of libcuda."""

    def put(**values) -> None:
        monkeypatch.setattr(gpu, "_driver", lambda: Driver(**values))

    return put


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, gpu.Gpu("NVIDIA GeForce RTX 4090", "sm_89", "13.0")),
        ({"name": b"H200", "capability": (9, 0), "version": 12080}, gpu.Gpu("H200", "sm_90", "12.8")),
        ({"name": b"RTX 5090", "capability": (12, 0), "count": 4}, gpu.Gpu("RTX 5090", "sm_120", "13.0")),
        ({"name": b"\xff" * 300}, gpu.Gpu("\ufffd" * 255, "sm_89", "13.0")),
    ],
)
def test_the_first_gpu_is_named_as_engines_need_it(driver, values, expected):
    driver(**values)
    assert gpu.device() == expected


def test_no_driver_is_no_gpu(monkeypatch):
    asked = []

    def absent(name):
        asked.append(name)
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(
        BackendError, match=r"no NVIDIA GPU here: the driver's library \(libcuda.so.1\) is not installed"
    ):
        gpu.device()
    assert asked == ["libcuda.so.1", "nvcuda.dll"]


def test_the_drivers_library_is_found_by_either_name(monkeypatch):
    def windows(name):
        if name != "nvcuda.dll":
            raise OSError(name)
        return Driver()

    monkeypatch.setattr(ctypes, "CDLL", windows)
    assert gpu.device().capability == "sm_89"


def test_a_driver_without_a_gpu_is_no_gpu(driver):
    driver(cuInit=100)
    with pytest.raises(BackendError, match=r"the NVIDIA driver does not start \(no CUDA-capable device\)"):
        gpu.device()
    driver(count=0)
    with pytest.raises(BackendError, match="no NVIDIA GPU here: the driver lists none"):
        gpu.device()


@pytest.mark.parametrize("call", CALLS)
def test_any_call_that_fails_is_told_with_its_code(driver, call):
    driver(**{call: 999})
    with pytest.raises(BackendError, match=r"no NVIDIA GPU to be used here: .* \(CUDA error 999\)"):
        gpu.device()


def test_a_machine_without_a_gpu_knows():
    try:
        found = gpu.device()
    except BackendError as error:
        told = str(error)
    else:
        pytest.skip(f"there is a GPU: {found.name}")
    assert "no NVIDIA GPU" in told


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx"])
def test_backends_that_need_a_gpu_say_that_there_is_none(driver, classifier, backend):
    driver(count=0)
    with pytest.raises(BackendError, match="no NVIDIA GPU here: the driver lists none"):
        runners.open_runner(classifier, backend, max_batch=1)


@pytest.mark.parametrize(
    ("backend", "provider"),
    [("onnxruntime-cuda", "CUDAExecutionProvider"), ("onnxruntime-tensorrt", "TensorrtExecutionProvider")],
)
def test_an_onnx_runtime_for_the_cpu_alone_names_the_line_that_swaps_it(
    driver, classifier, monkeypatch, backend, provider
):
    driver()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendError) as caught:
        runners.open_runner(classifier, backend, max_batch=1)
    assert str(caught.value) == (
        f"this ONNX Runtime has no {provider} (it has CPUExecutionProvider); take: "
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    )


def test_an_onnx_runtime_that_cannot_start_its_provider_does_not_go_on_with_the_cpu(driver, classifier, monkeypatch):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    driver()
    # it is compiled in, and cannot be had: what ONNX Runtime does where CUDA's libraries are absent
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises((BackendError, ModelError), match="CPU"),
    ):
        runners.open_runner(classifier, "onnxruntime-cuda", max_batch=1)
