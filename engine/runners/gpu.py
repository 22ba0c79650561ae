"""Which NVIDIA GPUs are here: asked of the driver itself, so that no library needs to be installed to say "none"."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from ..errors import BackendError

_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


@dataclass(frozen=True)
class Gpu:
    """One GPU. capability: as engines are named for, such as sm_89; cuda: the newest CUDA that the driver serves."""

    name: str
    capability: str
    cuda: str


def device(index: int = 0) -> Gpu:
    """A GPU by CUDA's index. Raises BackendError with the cause where there is none."""
    driver = _driver()
    _ask(driver.cuInit(0), "the NVIDIA driver does not start")
    count, version, handle = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _ask(driver.cuDeviceGetCount(ctypes.byref(count)), "the NVIDIA driver lists no GPU")
    if count.value == 0:
        raise BackendError("no NVIDIA GPU here: the driver lists none")
    if index >= count.value:
        raise BackendError(f"no NVIDIA GPU {index} here: there are {count.value}, counted from 0")
    _ask(driver.cuDriverGetVersion(ctypes.byref(version)), "the NVIDIA driver tells no version")
    _ask(driver.cuDeviceGet(ctypes.byref(handle), index), "the GPU cannot be opened")
    name = ctypes.create_string_buffer(256)
    _ask(driver.cuDeviceGetName(name, len(name), handle), "the GPU tells no name")
    parts = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        _ask(driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle), "the GPU tells no compute capability")
        parts.append(str(value.value))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode("utf-8", "replace"), "sm_" + "".join(parts), cuda)


def capability(index: int = 0) -> str | None:
    """A GPU's compute capability; None where it is not there."""
    try:
        return device(index).capability
    except BackendError:
        return None


def _driver() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise BackendError(f"no NVIDIA GPU here: the driver's library ({_LIBRARIES[0]}) is not installed")


def _ask(code: int, otherwise: str) -> None:
    if code:
        meaning = "no CUDA-capable device" if code == _NO_DEVICE else f"CUDA error {code}"
        raise BackendError(f"no NVIDIA GPU to be used here: {otherwise} ({meaning})")
