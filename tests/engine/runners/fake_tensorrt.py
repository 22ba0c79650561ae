"""TensorRT without a GPU: what the runner uses of `tensorrt_rtx` and `tensorrt`, on the memory of `fake_cuda`.

It is as strict as the real one where code can go wrong: a context keeps its shape, scratch memory is nobody else's meanwhile,
the first run of a shape cannot be recorded.
"""

from __future__ import annotations

import enum
import json
from types import ModuleType

import numpy as np

VERSION = "1.7.1"


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


class Strategy(enum.Enum):
    LAZY, EAGER, NONE = range(3)


class Allocation(enum.Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


SCRATCH_BYTES = 4096


class Cache:
    """TensorRT-RTX's compiled kernels: which sizes of batch they are for. driver: what compiled them. Both calls ask CUDA
    which GPU is current."""

    def __init__(self, library) -> None:
        self.library = library
        self.sizes: set[int] = set()

    def deserialize(self, data: bytes) -> bool:
        assert self.library.cuda.depth(), "no current CUDA context"
        self.library.offered.append(data)
        kept = json.loads(data)
        if kept["driver"] != self.library.driver:
            return False
        self.sizes |= set(kept["sizes"])
        return True

    def serialize(self) -> memoryview:
        assert self.library.cuda.depth(), "no current CUDA context"
        return memoryview(json.dumps({"driver": self.library.driver, "sizes": sorted(self.sizes)}).encode())


class Config:
    def __init__(self, library) -> None:
        self.library = library
        self.dynamic_shapes_kernel_specialization_strategy = Strategy.LAZY
        self.cache: Cache | None = None
        self.allocation = Allocation.STATIC

    def set_execution_context_allocation_strategy(self, allocation: Allocation) -> None:
        self.allocation = allocation

    def create_runtime_cache(self) -> Cache:
        return Cache(self.library)

    def set_runtime_cache(self, cache: Cache) -> None:
        self.cache = cache


class Loaded:
    """An engine of the data-centre library: a plan is JSON, and says what it does; see `plan_of`."""

    def __init__(self, library, plan) -> None:
        self.library, self.plan = library, plan
        self.num_io_tensors = len(plan["tensors"])
        self.device_memory_size_v2 = SCRATCH_BYTES

    def get_tensor_name(self, k: int) -> str:
        return self.plan["tensors"][k]

    def create_execution_context(self, settings: Config | Allocation) -> Context | None:
        if not self.plan["contexts"]:
            return self.library.tell(Severity.ERROR, "out of memory in createExecutionContext")
        assert (settings if isinstance(settings, Allocation) else settings.allocation) is Allocation.USER_MANAGED
        return Context(self, settings if isinstance(settings, Config) else None)


class LoadedRtx(Loaded):
    def create_runtime_config(self) -> Config:
        return Config(self.library)


class Context:
    def __init__(self, loaded: Loaded, config: Config | None = None) -> None:
        self.library, self.plan, self.config = loaded.library, loaded.plan, config
        self.addresses: dict[str, int] = {}
        self.scratch: int | None = None
        self.shape: tuple[int, ...] | None = None
        self.flushed = False  # what a new shape changes is done with the first run, which therefore cannot be recorded

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= SCRATCH_BYTES
        self.scratch = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.shape is None, "a graph that was recorded with this context is of another shape"
        fewest, most = self.plan["profile"]
        if not fewest <= shape[0] <= most or name != "images":
            self.library.tell(Severity.ERROR, f"{name}: {shape[0]} is not in the profile's range {fewest} to {most}")
            return False
        self.shape, self.flushed = shape, False
        self.library.shapes.append(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.plan["tensors"]

    def execute_async_v3(self, stream: int) -> bool:
        cuda, config = self.library.cuda, self.config
        if self.library.fails or self.plan["refuses"] == self.shape[0]:
            self.library.tell(Severity.ERROR, "CUDA error 700: an illegal memory access was encountered")
            return False
        if cuda.recording(stream) and not self.flushed:
            self.library.tell(Severity.ERROR, "the first run of a shape cannot be recorded")
            return False
        if config is not None and self.shape[0] not in config.cache.sizes:
            assert config.dynamic_shapes_kernel_specialization_strategy is Strategy.EAGER
            config.cache.sizes.add(self.shape[0])
            self.library.compiled.append(self.shape[0])
        self.flushed = True
        shape, addresses = self.shape, dict(self.addresses)
        cuda.enqueue(stream, lambda: self.work(shape, addresses))
        return True

    def work(self, shape, addresses):
        self.library.during()
        scratch = self.library.cuda.view(
            self.scratch, (SCRATCH_BYTES,), np.uint8
        )  # which no other batch may use meanwhile
        scratch[:] = mark = np.random.default_rng().integers(256)
        answers = self.library.answer(self.library.cuda.view(addresses["images"], shape, np.uint8).copy())
        for name, values in answers.items():
            if self.plan["adds"]:  # from this row on
                values = values.copy()
                values[self.plan["from_row"] :] += np.float32(self.plan["adds"])
            self.library.cuda.view(addresses[name], values.shape, np.float32)[...] = values
        assert (scratch == mark).all()


class Library(ModuleType):
    """As much of `tensorrt_rtx` and `tensorrt` as the runner uses. answer: the outputs for images, which its engines compute;
    fails: nothing is executed; driver: which compiles the kernels; compiled, shapes, offered: what was compiled and asked for,
    and which kernels it was given."""

    def __init__(self, name: str, cuda, answer, loaded: type[Loaded]) -> None:
        super().__init__(name)
        self.cuda, self.answer, self.loaded = cuda, answer, loaded
        self.__version__ = VERSION
        self.fails, self.driver = False, "580"
        self.during = lambda: None
        self.compiled: list[int] = []
        self.offered: list[bytes] = []
        self.shapes: list[tuple[int, ...]] = []
        library = self

        class ILogger:
            pass

        class Runtime:
            def __init__(self, logger) -> None:
                library.logger = logger

            def deserialize_cuda_engine(self, plan: bytes):
                try:
                    return library.loaded(library, json.loads(plan))
                except ValueError:
                    return library.tell(Severity.ERROR, "the plan is not of this version")

        ILogger.Severity = Severity
        self.ILogger, self.Runtime = ILogger, Runtime
        self.ExecutionContextAllocationStrategy = Allocation
        self.DynamicShapesKernelSpecializationStrategy = Strategy

    def tell(self, severity: Severity, message: str) -> None:
        self.logger.log(severity, message)
