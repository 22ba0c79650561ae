"""What needs a real NVIDIA GPU: the slot layer with plain kernels, then TensorRT beside ONNX Runtime's CPU.

    pytest tests/engine/test_gpu_device.py -rs

Each test is skipped, with its reason, where there is no GPU, or no pycuda, cuda-bindings, NVRTC or TensorRT that serves it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from funduscope.engine import runners
from funduscope.engine.errors import BackendError, ModelError
from funduscope.engine.gate.pictures import ON_VIEWS
from funduscope.engine.gate.verify import verify_engine, verify_model
from funduscope.engine.pictures import photo, preprocess
from funduscope.engine.readers.difference import FP32
from funduscope.engine.runners import gpu
from funduscope.engine.runners.onnx_runtime import OnnxRuntime
from funduscope.engine.runners.tensorrt.engines import FOLDER_VARIABLE, Profile
from funduscope.engine.runners.tensorrt.runner import RUNNERS
from funduscope.engine.runners.tensorrt.slots import Slots, Spec

pytestmark = pytest.mark.gpu

SHAPE = (224, 224, 3)
PIXELS = 224 * 224 * 3  # bytes of a picture
SIZES = (1, 3, 8)
SOURCE = ("images", Spec(SHAPE, "uint8"))
OUTPUTS = {"values": Spec(SHAPE, "float32"), "sum": Spec((), "float32")}
THREADS = 256  # of a block
PATIENCE_S = 60

KERNELS = """
// A block a picture: values = 2 * byte + 1, sum = the sum of the bytes, which as a float is exact for these sizes.
extern "C" __global__ void transform(const unsigned char* images, float* values, float* sum, int pixels)
{
    __shared__ int total;
    if (threadIdx.x == 0) total = 0;
    __syncthreads();
    const size_t start = (size_t)blockIdx.x * pixels;
    int own = 0;
    for (int k = threadIdx.x; k < pixels; k += blockDim.x) {
        values[start + k] = images[start + k] * 2.0f + 1.0f;
        own += images[start + k];
    }
    atomicAdd(&total, own);
    __syncthreads();
    if (threadIdx.x == 0) sum[blockIdx.x] = (float)total;
}

// One thread. Where *armed is set it waits until a second one has arrived, for 3e9 cycles at most, and tells how many did.
extern "C" __global__ void meet(const int* armed, int* arrived, float* met, int batch)
{
    float seen = 0.0f;
    if (*(const volatile int*)armed) {
        atomicAdd(arrived, 1);
        const long long begin = clock64();
        while (*(volatile int*)arrived < 2 && clock64() - begin < 3000000000LL) {}
        seen = (float)*(volatile int*)arrived;
    }
    for (int k = 0; k < batch; ++k) met[k] = seen;
}
"""


def needed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:  # not installed, or without the library that it is about
        pytest.skip(f"{name}: {error}")


def done(answer: tuple[Any, ...]) -> Any:
    """What a call of cuda-bindings returns besides its error code, which is checked."""
    code, *values = answer
    assert int(code) == 0, code
    return values[0] if len(values) == 1 else tuple(values)


class Device:
    """The GPU's primary context, held but not current, and the kernels above in it."""

    def __init__(self, found: gpu.Gpu) -> None:
        needed("pycuda.driver")
        self.driver, self.nvrtc = needed("cuda.bindings.driver"), needed("cuda.bindings.nvrtc")
        image = self._compile(found.capability)
        done(self.driver.cuInit(0))
        self._device = done(self.driver.cuDeviceGet(0))
        self._context = done(self.driver.cuDevicePrimaryCtxRetain(self._device))
        with self.current():
            self._module = done(self.driver.cuModuleLoadData(np.frombuffer(image, np.uint8).ctypes.data))
            self._functions = {
                name: done(self.driver.cuModuleGetFunction(self._module, name.encode()))
                for name in ("transform", "meet")
            }

    def _compile(self, capability: str) -> bytes:
        nvrtc, options = self.nvrtc, [f"--gpu-architecture={capability}".encode()]
        try:
            program = done(nvrtc.nvrtcCreateProgram(KERNELS.encode(), b"kernels.cu", 0, [], []))
        except RuntimeError as error:  # cuda-bindings come without it
            pytest.skip(f"NVRTC: {error}")
        (code,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        log = b" " * done(nvrtc.nvrtcGetProgramLogSize(program))
        done(nvrtc.nvrtcGetProgramLog(program, log))
        assert int(code) == 0, log.decode()
        image = b" " * done(nvrtc.nvrtcGetCUBINSize(program))
        done(nvrtc.nvrtcGetCUBIN(program, image))
        done(nvrtc.nvrtcDestroyProgram(program))
        return image

    def close(self) -> None:
        with self.current():
            done(self.driver.cuModuleUnload(self._module))
        done(self.driver.cuDevicePrimaryCtxRelease(self._device))

    @contextmanager
    def current(self) -> Iterator[None]:
        """The context on this thread."""
        done(self.driver.cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            done(self.driver.cuCtxPopCurrent())

    def launch(self, name: str, stream: int, blocks: int, threads: int, *arguments: np.ndarray) -> None:
        """Enqueue a kernel. arguments: each an array of one number, of the type that the kernel takes."""
        pointers = np.array([argument.ctypes.data for argument in arguments], np.uint64)
        grid, block, shared = (blocks, 1, 1), (threads, 1, 1), 0
        handle = self.driver.CUstream(stream)
        done(
            self.driver.cuLaunchKernel(
                self._functions[name], *grid, *block, shared, handle, pointers.ctypes.data, 0
            )  # arguments are copied before it returns
        )

    def transform(self, stream: int, batch: int, addresses) -> None:
        """A launch for the slots."""
        pointers = [np.array([addresses[name]], np.uint64) for name in ("images", "values", "sum")]
        self.launch("transform", stream, batch, THREADS, *pointers, np.array([PIXELS], np.int32))

    def free(self) -> int:
        """Bytes of device memory that nobody has."""
        with self.current():
            done(self.driver.cuCtxSynchronize())
            return done(self.driver.cuMemGetInfo())[0]


@pytest.fixture(scope="module")
def found() -> gpu.Gpu:
    try:
        return gpu.device()
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def device(found):
    made = Device(found)
    yield made
    made.close()


@pytest.fixture(params=[True, False], ids=["graphs", "plain"])
def graphs(request):
    return request.param


def draw(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE), np.uint8)


def differs(outputs, images) -> list[str]:
    wanted = {
        "values": images.astype(np.float32) * 2 + 1,
        "sum": images.reshape(len(images), -1).sum(axis=1, dtype=np.int64).astype(np.float32),
    }
    assert list(outputs) == list(wanted)
    return [name for name in wanted if not np.array_equal(outputs[name], wanted[name])]


@pytest.fixture
def opened(device, graphs):
    """Two slots over the first kernel."""
    slots = Slots(SOURCE, OUTPUTS, SIZES, [device.transform] * 2, graphs=graphs)
    yield slots
    slots.close()


def test_outputs_are_right_for_any_number_of_pictures(opened):
    for n in range(1, max(SIZES) + 1):
        images = draw(n, seed=n)
        assert differs(opened(images), images) == []
    assert differs(opened(draw(3)), draw(3, seed=1)) == ["values", "sum"]  # the comparison can fail


def test_what_is_launched_is_recorded(device, graphs, caplog):
    sizes: list[int] = []

    def launch(stream, batch, addresses):
        sizes.append(batch)
        device.transform(stream, batch, addresses)

    slots = Slots(SOURCE, OUTPUTS, SIZES, [launch], graphs=graphs)
    prepared = len(sizes)
    for n in (1, 2, 8):
        assert differs(slots(draw(n)), draw(n)) == []
    slots.close()
    assert sizes[prepared:] == ([] if graphs else [1, 3, 8])
    assert caplog.text == ""


def test_graphs_and_plain_launches_give_the_same(device):
    recorded, plain = (Slots(SOURCE, OUTPUTS, SIZES, [device.transform], graphs=graphs) for graphs in (True, False))
    for n in range(1, max(SIZES) + 1):
        images = draw(n, seed=n)
        one, other = recorded(images), plain(images)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    recorded.close()
    plain.close()


def test_what_cannot_be_recorded_runs_without_a_graph(device, caplog):
    recordings = 0

    def launch(stream, batch, addresses):
        nonlocal recordings
        device.transform(stream, batch, addresses)
        state = done(device.driver.cuStreamIsCapturing(device.driver.CUstream(stream)))
        if state == device.driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_ACTIVE:
            recordings += 1
            done(device.driver.cuStreamSynchronize(device.driver.CUstream(stream)))  # which is not allowed meanwhile

    slots = Slots(SOURCE, OUTPUTS, SIZES, [launch])
    assert recordings == len(SIZES)
    assert "batches of 8 run without a CUDA graph" in caplog.text
    for n in (1, 2, 8):
        assert differs(slots(draw(n)), draw(n)) == []
    slots.close()


def test_returned_arrays_are_the_callers(opened):
    images = draw(3)
    outputs = opened(images)
    opened(draw(3, seed=1))
    opened(draw(3, seed=2))  # each slot was used again
    assert differs(outputs, images) == []
    opened.close()
    assert differs(outputs, images) == []


def test_threads_get_their_own_answers(opened):
    rng = np.random.default_rng(0)
    batches = [draw(int(rng.integers(1, 9)), seed=k) for k in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for images, outputs in zip(batches, pool.map(opened, batches, timeout=PATIENCE_S), strict=True):
            assert differs(outputs, images) == []


def test_two_slots_are_on_the_device_at_once(device, graphs):
    driver = device.driver
    with device.current():
        armed, arrived = (done(driver.cuMemAlloc(4)) for _ in range(2))

    def set_to(address, value: int) -> None:
        with device.current():
            done(driver.cuMemsetD32(address, value, 1))
            done(driver.cuCtxSynchronize())

    def launch(stream, batch, addresses):
        pointers = [np.array([int(at)], np.uint64) for at in (armed, arrived, addresses["met"])]
        device.launch("meet", stream, 1, 1, *pointers, np.array([batch], np.int32))

    set_to(armed, 0)
    set_to(arrived, 0)
    slots = Slots(("images", Spec((1,), "uint8")), {"met": Spec((), "float32")}, (1, 2), [launch] * 2, graphs=graphs)
    image = np.zeros((1, 1), np.uint8)
    assert slots(image)["met"] == 0
    set_to(armed, 1)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(slots, image) for _ in range(2)]
        assert [float(job.result(PATIENCE_S)["met"][0]) for job in jobs] == [2, 2]
    set_to(arrived, 0)
    assert slots(image)["met"] == 1  # alone it waits in vain: the test can fail
    slots.close()
    with device.current():
        for address in (armed, arrived):
            done(driver.cuMemFree(address))


def test_closing_gives_all_memory_back(device, graphs):
    def once() -> int:
        slots = Slots(SOURCE, OUTPUTS, SIZES, [device.transform] * 2, graphs=graphs)
        slots(draw(8))
        held = device.free()
        slots.close()
        return held

    once()  # what the driver keeps from the first time on
    before, held = device.free(), [once() for _ in range(50)]
    after = device.free()
    assert before - held[0] > 8 * PIXELS * 5  # it sees what is taken
    assert abs(before - after) < 1_000_000, f"{before} bytes were free, then {after}"


def test_closing_leaves_no_context_on_any_thread(device):
    def current() -> int:
        return int(done(device.driver.cuCtxGetCurrent()))

    def close(slots) -> tuple[int, int]:
        before = current()
        slots.close()
        return before, current()

    before, (own, *others) = current(), [Slots(SOURCE, OUTPUTS, SIZES, [device.transform]) for _ in range(3)]
    assert close(own) == (before, before)
    with ThreadPoolExecutor(1) as pool:
        for slots in others:
            assert pool.submit(close, slots).result(PATIENCE_S) == (0, 0)
    assert current() == before


# ---- TensorRT


@pytest.fixture(scope="module")
def images(model, fundus):
    geometry = model.contract.geometry.build()
    return np.stack([preprocess.prepare(photo.load(fundus(seed=k)), geometry).image for k in range(8)])


@pytest.fixture(scope="module", params=sorted(RUNNERS))
def engine(request, found, model, images, tmp_path_factory):
    """An engine of the embedded model that was built here, and that the gate let pass."""
    needed("pycuda.driver")
    needed("cuda.bindings.driver")
    needed("filelock")
    library = needed(RUNNERS[request.param].library.module)
    from funduscope.export import tensorrt

    folder = tmp_path_factory.mktemp("engines")
    sizes = Profile(min=1, opt=4, max=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(folder))
        try:
            built, _ = tensorrt.build(model, request.param, sizes, None, folder, optimisation_level=1)
        except ModelError as error:
            if request.param == "tensorrt" or f"SM{found.capability[3:]}" in library.ComputeCapability.__members__:
                raise
            pytest.skip(f"{found.capability}, which TensorRT-RTX {library.__version__} does not list: {error}")
        verify_engine(model, built, images, ON_VIEWS)  # raises where it does not pass
        yield built


def test_an_engine_answers_as_onnx_runtime_does(engine, model, images):
    with runners.open_runner(model, engine.facts.library, max_batch=8) as runner:
        assert runner.engine.path == engine.path
        report = verify_model(model, runner, images, range(1, 9))
    assert report.passes(), "\n".join(report.lines())


def test_an_engines_graphs_change_nothing(engine, model, images):
    kind = RUNNERS[engine.facts.library]
    with kind(model, max_batch=8, graphs=True) as recorded, kind(model, max_batch=8, graphs=False) as plain:
        for n in (1, 3, 4, 8, 2, 8, 1):  # from size to size and back
            one, other = recorded(images[:n]), plain(images[:n])
            for output in one:
                np.testing.assert_allclose(one[output], other[output], rtol=0, atol=1e-6)


def test_an_engines_two_slots_give_each_thread_its_own(engine, model, images):
    with (
        RUNNERS[engine.facts.library](model, max_batch=8) as runner,
        OnnxRuntime(model, max_batch=1, threads=None) as reference,
    ):
        wanted = [reference(images[k : k + 1]) for k in range(len(images))]
        with ThreadPoolExecutor(2) as pool:
            jobs = [(k, pool.submit(runner, images[k : k + 1])) for k in list(range(len(images))) * 4]
            for k, job in jobs:
                for output, values in job.result(PATIENCE_S).items():
                    np.testing.assert_allclose(values, wanted[k][output], rtol=0, atol=FP32.map_value)
    assert np.abs(wanted[0]["disc"] - wanted[1]["disc"]).max() > FP32.map_value  # the comparison can fail
