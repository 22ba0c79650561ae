"""The slot layer, on CUDA that is none: see fake_cuda.py. What a GPU does with it is in test_gpu_device.py."""

from __future__ import annotations

import functools
import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from funduscope.engine.errors import BackendError, MissingExtra
from funduscope.engine.runners.tensorrt.slots import Slots, Spec

SHAPE = (4, 5, 3)
SIZES = (1, 3, 8)
SOURCE = ("images", Spec(SHAPE, "uint8"))
OUTPUTS = {"values": Spec(SHAPE, "float32"), "sum": Spec((), "float32")}
PATIENCE_S = 20  # after which what should have met did not


def expected(images: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "values": images.astype(np.float32) * 2 + 1,
        "sum": images.reshape(len(images), -1).sum(axis=1, dtype=np.float32),
    }


class Kernel:
    """A launch that computes `expected` on the device. called: the sizes it was enqueued with; ran: those that were computed;
    during: what happens meanwhile."""

    def __init__(self, cuda, during: Callable[[], object] = lambda: None) -> None:
        self.cuda, self.during = cuda, during
        self.called: list[int] = []
        self.ran: list[int] = []

    def __call__(self, stream, batch, addresses):
        self.called.append(batch)
        self.cuda.enqueue(stream, functools.partial(self.work, batch, dict(addresses)))

    def work(self, batch, addresses):
        self.during()
        for name, values in expected(self.cuda.view(addresses["images"], (batch, *SHAPE), np.uint8)).items():
            self.cuda.view(addresses[name], values.shape, values.dtype)[...] = values
        self.ran.append(batch)


class Broken(Kernel):
    """Raises, or does what else cannot be recorded, while `when` says so."""

    def __init__(self, cuda, when, how) -> None:
        super().__init__(cuda)
        self.when, self.how = when, how

    def __call__(self, stream, batch, addresses):
        super().__call__(stream, batch, addresses)
        if self.when(stream):
            self.how(stream)


def fails(stream):
    raise BackendError("the launch fails")


def draw(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE), np.uint8)


def differs(outputs, images) -> list[str]:
    """The outputs that are not those of the images."""
    wanted = expected(images)
    assert list(outputs) == list(wanted)
    return [name for name in wanted if not np.array_equal(outputs[name], wanted[name])]


@pytest.fixture
def make(cuda):
    """Opens slots over launches; what a test leaves open is closed after it."""
    opened: list[Slots] = []

    def make(*launches, sizes=SIZES, graphs=True) -> Slots:
        opened.append(Slots(SOURCE, OUTPUTS, sizes, launches, graphs=graphs))
        return opened[-1]

    yield make
    for slots in opened:
        slots.close()
    assert cuda.held() == {}
    assert cuda.depth() == 0


@pytest.fixture(params=[True, False], ids=["graphs", "plain"])
def graphs(request):
    return request.param


def test_outputs_are_right_for_any_number_of_pictures(cuda, make, graphs):
    slots = make(Kernel(cuda), graphs=graphs)
    for n in range(1, max(SIZES) + 1):
        images = draw(n, seed=n)
        outputs = slots(images)
        assert differs(outputs, images) == []
        assert {name: values.dtype for name, values in outputs.items()} == {"values": np.float32, "sum": np.float32}


def test_another_picture_gives_another_answer(cuda, make):  # the comparison can fail
    assert differs(make(Kernel(cuda))(draw(3)), draw(3, seed=1)) == ["values", "sum"]


def test_a_batch_is_padded_to_the_smallest_size_that_holds_it(cuda, make, graphs):
    kernel = Kernel(cuda)
    slots = make(kernel, sizes=(8, 1, 3), graphs=graphs)  # in any order
    for n, size in {1: 1, 2: 3, 3: 3, 4: 8, 5: 8, 8: 8}.items():
        slots(draw(n))
        assert kernel.ran[-1] == size
    assert set(kernel.called) == set(SIZES)


def test_the_rest_of_an_earlier_batch_is_not_returned(cuda, make, graphs):
    slots = make(Kernel(cuda), graphs=graphs)
    slots(draw(8, seed=1))
    images = draw(4, seed=2)
    assert differs(slots(images), images) == []


def test_returned_arrays_are_the_callers(cuda, make, graphs):
    slots = make(Kernel(cuda), graphs=graphs)
    images = draw(3)
    outputs = slots(images)
    slots(draw(3, seed=1))
    assert differs(outputs, images) == []
    slots.close()
    assert differs(outputs, images) == []
    assert all(values.flags.writeable for values in outputs.values())


def test_two_slots_are_in_use_at_once(cuda, make, graphs):
    meeting = threading.Barrier(2)
    met: list[bool] = []

    def meet():
        if meets:
            meeting.wait(PATIENCE_S)  # raises where no second batch is on the device
            met.append(True)

    meets = False
    slots = make(Kernel(cuda, meet), Kernel(cuda, meet), graphs=graphs)
    meets = True
    with ThreadPoolExecutor(2) as pool:
        jobs = [(images, pool.submit(slots, images)) for images in (draw(3, seed=1), draw(8, seed=2))]
        for images, job in jobs:
            assert differs(job.result(PATIENCE_S), images) == []
    assert met == [True, True]


def test_one_slot_takes_one_batch_after_the_other(cuda, make):
    inside, most = [], []

    def count():
        inside.append(1)
        time.sleep(0.001)  # lets others in, if they can come
        most.append(len(inside))
        inside.pop()

    slots = make(Kernel(cuda, count))
    with ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(slots, draw(1)) for _ in range(20)]:
            job.result(PATIENCE_S)
    assert max(most) == 1


def test_with_more_threads_than_slots_each_gets_its_own_answers(cuda, make, graphs):
    slots = make(*(Kernel(cuda, during=lambda: time.sleep(0.0005)) for _ in range(2)), graphs=graphs)
    rng = np.random.default_rng(0)
    batches = [draw(int(rng.integers(1, 9)), seed=k) for k in range(120)]
    with ThreadPoolExecutor(8) as pool:
        for images, outputs in zip(batches, pool.map(slots, batches), strict=True):
            assert differs(outputs, images) == []


def test_every_size_is_run_and_recorded_before_the_first_call(cuda, make):
    kernels = Kernel(cuda), Kernel(cuda)
    make(*kernels)
    for kernel in kernels:
        assert kernel.ran == [1, 3, 8]
        assert kernel.called == [1, 1, 3, 3, 8, 8]  # a first run loads what cannot be loaded while recording
    assert cuda.held()["executables"] == len(kernels) * len(SIZES)


def test_a_recorded_batch_is_replayed_without_its_launch(cuda, make):
    kernel = Kernel(cuda)
    slots = make(kernel)
    launched = list(kernel.called)
    for n in (1, 2, 8):
        slots(draw(n))
    assert kernel.called == launched
    assert cuda.replays == 3


def test_without_graphs_each_batch_is_launched(cuda, make):
    kernel = Kernel(cuda)
    slots = make(kernel, graphs=False)
    assert kernel.called == [1, 3, 8]
    for n in (1, 2, 8):
        slots(draw(n))
    assert kernel.called == [1, 3, 8, 1, 3, 8]
    assert cuda.replays == 0
    assert "graphs" not in cuda.held()


@pytest.mark.parametrize("why", ["begin", "raises", "synchronizes", "instantiate"])
def test_what_cannot_be_recorded_runs_without_a_graph(cuda, make, caplog, why):
    hows = {"raises": fails, "synchronizes": cuda.synchronize}
    kernel = Broken(cuda, cuda.recording, hows[why]) if why in hows else Kernel(cuda)
    refused = {"begin": "cuStreamBeginCapture", "instantiate": "cuGraphInstantiate"}
    cuda.refused = {refused[why]} if why in refused else set()
    with caplog.at_level(logging.WARNING, logger="funduscope"):
        slots = make(kernel)
    for size in SIZES:
        assert f"batches of {size} run without a CUDA graph" in caplog.text
    assert "graphs" not in cuda.held()
    for n in (1, 2, 8):
        images, launched = draw(n, seed=n), len(kernel.called)
        assert differs(slots(images), images) == []
        assert len(kernel.called) == launched + 1
    assert cuda.replays == 0


def test_one_size_that_cannot_be_recorded_leaves_the_others_their_graphs(cuda, make, caplog):
    kernel = Broken(cuda, lambda stream: cuda.recording(stream) and kernel.called[-1] == 3, fails)
    with caplog.at_level(logging.WARNING, logger="funduscope"):
        slots = make(kernel)
    assert [record.args for record in caplog.records] == [(3,)]
    for n in (1, 3, 8):
        assert differs(slots(draw(n)), draw(n)) == []
    assert cuda.replays == 2


def test_nothing_is_said_where_all_is_recorded(cuda, make, caplog):
    with caplog.at_level(logging.INFO, logger="funduscope"):
        make(Kernel(cuda))
    assert caplog.text == ""


def test_closing_gives_all_back(cuda, make, graphs):
    slots = make(Kernel(cuda), Kernel(cuda), graphs=graphs)
    slots(draw(5))
    assert set(cuda.held()) >= {"bytes", "pinned", "streams", "contexts"}
    slots.close()  # while `slots` and its launches live on
    assert cuda.held() == {}
    assert cuda.depth() == 0  # nothing of ours is left current on this thread
    slots.close()
    assert cuda.held() == {}


def test_memory_does_not_grow_over_calls(cuda, make, graphs):
    slots = make(Kernel(cuda), graphs=graphs)
    before = cuda.held()
    for n in (1, 8, 2) * 5:
        slots(draw(n))
    assert cuda.held() == before


def test_too_little_memory_names_the_amount_and_gives_back_what_was_taken(cuda):
    pixels = (500, 500, 3)
    source, outputs = ("images", Spec(pixels, "uint8")), {"values": Spec(pixels, "float32")}
    cuda.room = 45_000_000  # for one slot, of 8 * 750,000 * (1 + 4) bytes
    launched: list[int] = []
    with pytest.raises(BackendError, match=r"the GPU has no 30 MB left for batches of 8; take smaller batches"):
        Slots(source, outputs, SIZES, [lambda stream, batch, addresses: launched.append(batch)] * 2)
    assert launched  # the first slot was whole
    assert cuda.held() == {}
    assert cuda.depth() == 0


def test_a_launch_that_fails_at_once_gives_back_what_was_taken(cuda):
    with pytest.raises(BackendError, match="the launch fails"):
        Slots(SOURCE, OUTPUTS, SIZES, [Kernel(cuda), Broken(cuda, lambda stream: True, fails)])
    assert cuda.held() == {}
    assert cuda.depth() == 0


def test_a_failed_launch_leaves_slot_and_thread_as_they_were(cuda, make):
    broken = False
    slots = make(Broken(cuda, lambda stream: broken, fails), graphs=False)
    broken = True

    def attempt() -> int:
        with pytest.raises(BackendError, match="the launch fails"):
            slots(draw(2))
        return cuda.depth()

    with ThreadPoolExecutor(2) as pool:
        depths = [job.result(PATIENCE_S) for job in [pool.submit(attempt) for _ in range(5)]]
        assert [*depths, attempt()] == [0] * 6
        broken = False
        images = draw(2, seed=3)
        assert differs(pool.submit(slots, images).result(PATIENCE_S), images) == []  # its one slot is free


def test_a_failed_replay_names_the_error_and_leaves_the_slot_free(cuda, make):
    slots = make(Kernel(cuda))
    cuda.refused = {"cuGraphLaunch"}
    for _ in range(2):
        with pytest.raises(BackendError, match="refuses a recorded batch: CUDA_ERROR_INVALID_VALUE"):
            slots(draw(1))
    assert cuda.depth() == 0
    cuda.refused = set()
    assert differs(slots(draw(1)), draw(1)) == []


@pytest.mark.parametrize("with_pycuda", [True, False])
def test_the_context_of_another_owner_stays_current(cuda, with_pycuda):
    own = sys.modules["pycuda.driver"].Device(0).retain_primary_context()
    own.push() if with_pycuda else cuda.bind(own)
    slots = Slots(SOURCE, OUTPUTS, SIZES, [Kernel(cuda)])
    assert differs(slots(draw(2)), draw(2)) == []
    slots.close()
    assert sys.modules["cuda.bindings.driver"].cuCtxGetCurrent()[1] is own
    assert cuda.depth() == 1
    assert cuda.held() == {"contexts": 1}


def test_slots_may_be_closed_by_another_thread(cuda):
    slots = Slots(SOURCE, OUTPUTS, SIZES, [Kernel(cuda), Kernel(cuda)])

    def close() -> int:
        slots.close()
        return cuda.depth()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(close).result(PATIENCE_S) == 0
    assert cuda.held() == {}
    assert cuda.depth() == 0


def test_a_gpu_that_has_failed_is_told_once_and_all_is_given_back(cuda):
    slots = Slots(SOURCE, OUTPUTS, SIZES, [Kernel(cuda), Kernel(cuda)])
    first, _ = cuda.streams
    cuda.failed = "an illegal memory access was encountered"
    with pytest.raises(BackendError, match=f"the GPU fails: .* of stream {first} failed: an illegal memory access"):
        slots.close()
    assert cuda.held() == {}
    assert cuda.depth() == 0
    slots.close()


def test_a_failure_while_it_is_opened_is_the_one_that_is_told(cuda):
    def launch(stream, batch, addresses):
        cuda.failed = "an illegal memory access was encountered"
        raise BackendError("the launch fails")

    with pytest.raises(BackendError, match="the launch fails"):
        Slots(SOURCE, OUTPUTS, SIZES, [Kernel(cuda), launch])
    assert cuda.held() == {}
    assert cuda.depth() == 0


def test_closing_waits_for_what_runs_and_refuses_what_waits(cuda):
    running, go_on = threading.Event(), threading.Event()

    def during():
        if opened:
            running.set()
            assert go_on.wait(PATIENCE_S)

    opened = False
    slots = Slots(SOURCE, OUTPUTS, SIZES, [Kernel(cuda, during)])
    opened = True
    with ThreadPoolExecutor(4) as pool:
        inside = pool.submit(slots, draw(2))
        assert running.wait(PATIENCE_S)
        waiting = [pool.submit(slots, draw(1)) for _ in range(2)]
        closing = pool.submit(slots.close)
        while not slots._closed.locked():
            time.sleep(0.001)
        assert not closing.done()
        go_on.set()
        assert differs(inside.result(PATIENCE_S), draw(2)) == []
        for job in waiting:
            with pytest.raises(AssertionError, match="the runner is closed"):
                job.result(PATIENCE_S)
        closing.result(PATIENCE_S)
    assert cuda.held() == {}
    with pytest.raises(AssertionError, match="the runner is closed"):
        slots(draw(1))


def test_what_follows_the_launches_is_done_in_their_context(cuda):
    kernel, seen = Kernel(cuda), []
    Slots(SOURCE, OUTPUTS, SIZES, [kernel], ready=lambda: seen.append((cuda.depth(), list(kernel.ran)))).close()
    assert seen == [(1, [1, 3, 8])]

    def fails() -> None:
        raise BackendError("told by a test")

    with pytest.raises(BackendError, match="told by a test"):
        Slots(SOURCE, OUTPUTS, SIZES, [Kernel(cuda)], ready=fails)
    assert cuda.held() == {}


def test_no_driver_is_a_backend_that_cannot_be_had(cuda):
    cuda.broken = "cuInit failed: no CUDA-capable device is detected"
    with pytest.raises(BackendError, match="CUDA cannot be used here: cuInit failed: no CUDA-capable device"):
        Slots(SOURCE, OUTPUTS, SIZES, [Kernel(cuda)])


@pytest.mark.parametrize("package", ["pycuda", "cuda"])
def test_a_missing_package_gives_the_pip_line(cuda, monkeypatch, package):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=rf"needs {package}.*pip install 'funduscope\[cuda\]'"):
        Slots(SOURCE, OUTPUTS, SIZES, [Kernel(cuda)])
    assert cuda.held() == {}


def test_the_fake_is_as_strict_as_the_driver(cuda):  # else the tests above could not fail
    pycuda, bindings = sys.modules["pycuda.driver"], sys.modules["cuda.bindings.driver"]
    with pytest.raises(pycuda.LogicError, match="invalid device context"):
        pycuda.Stream()
    context = pycuda.Device(0).retain_primary_context()
    context.push()
    stream, device = pycuda.Stream(), pycuda.mem_alloc(8)
    host = pycuda.pagelocked_empty((4, 2), "uint8")
    host[:] = 7
    pycuda.memcpy_htod_async(device, host, stream)
    assert not (cuda.view(int(device), (8,), np.uint8) == 7).any()  # not before the stream is synchronized
    stream.synchronize()
    assert (cuda.view(int(device), (8,), np.uint8) == 7).all()
    with pytest.raises(AssertionError, match="not page-locked"):
        pycuda.memcpy_htod_async(device, np.zeros(8, np.uint8), stream)

    bindings.cuStreamBeginCapture(stream.handle, bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
    pycuda.memcpy_dtoh_async(host[:1], device, stream)
    _, graph = bindings.cuStreamEndCapture(stream.handle)
    _, executable = bindings.cuGraphInstantiate(graph, 0)
    device.free()
    bindings.cuGraphLaunch(executable, stream.handle)
    with pytest.raises(pycuda.LogicError, match="illegal memory access"):
        stream.synchronize()

    pycuda.Context.pop()
    with pytest.raises(pycuda.LogicError, match="cannot pop"):
        pycuda.Context.pop()
    context.detach()
    assert cuda.depth() == 1  # as pycuda leaves it
    assert set(cuda.held()) == {"pinned", "streams", "graphs", "executables"}
