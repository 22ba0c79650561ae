"""TensorRT and TensorRT-RTX: one code for both. Runs an engine that `funduscope build` made and the gate let pass."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from functools import cached_property
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ...contract import Model
from ...errors import BackendError, ModelError, OutputError, require
from ...files import write_bytes
from .. import gpu
from . import engines
from .engines import Engine, Unverified, Wanted
from .libraries import LIBRARIES, Library, Name, listening
from .slots import EXTRA, SCRATCH, Slots, Spec

_log = logging.getLogger("funduscope")
_SLOTS = 2
_STAMP_BYTES = hashlib.sha256().digest_size


class TensorRtRtx:
    """See `Runner`."""

    library: ClassVar[Library] = LIBRARIES["tensorrt-rtx"]
    slots = _SLOTS

    def __init__(
        self,
        model: Model,
        *,
        max_batch: int,
        threads: int | None = None,  # noqa: ARG002 -- of the CPU
        device: int = 0,
        engine: Engine | None = None,
        graphs: bool = True,
    ) -> None:
        """engine: this one, verified or not, as the gate needs it. graphs: record CUDA graphs. Raises: BackendError without
        GPU or library; ModelError where no engine fits, Unverified where one was not checked yet."""
        here = gpu.device(device)
        library = self.library.load()
        require("pycuda.driver", EXTRA)
        wanted = Wanted(model, self.library.name, library.__version__, here.capability, max_batch)
        if engine is None:
            engine = engines.find(wanted)
            if not engine.facts.verified:
                raise Unverified(model.path, engine)
        elif reason := engines.misfit(engine.facts, library.__version__, here.capability):
            raise ModelError(f"{engine.path}: {reason}; build it for this machine: {wanted.command}")
        self.engine, self.max_batch, self.precision = engine, max_batch, engine.facts.precision
        self._names = [output.name for output in model.contract.outputs]
        plan = engines.plan_of(engine, model.path)
        with listening(library) as log:
            self._loaded: Any = library.Runtime(log).deserialize_cuda_engine(plan)
            if self._loaded is None:
                raise ModelError(f"{engine.path}: {library.__name__} refuses it: {log.told()}")
        self._check(model)
        inputs = model.contract.input
        source = (inputs.name, Spec(tuple(map(int, inputs.shape[1:])), inputs.dtype))
        outputs = {o.name: Spec(tuple(map(int, o.shape[1:])), o.dtype) for o in model.contract.outputs}
        sizes = list(engine.facts.profile.sizes)  # the gate has seen these alone: others are padded
        while len(sizes) > 1 and sizes[-2] >= max_batch:
            sizes.pop()
        kernels = _Kernels(library, self._loaded, engine, here.cuda)
        scratch = int(self._loaded.device_memory_size_v2)
        launches = [_Launch(kernels, inputs.name, source[1], scratch, log) for _ in range(_SLOTS)]
        self._slots = Slots(
            source, outputs, sizes, launches, scratch_bytes=scratch, graphs=graphs, ready=kernels.save, device=device
        )

    def _check(self, model: Model) -> None:
        tensors = {self._loaded.get_tensor_name(k) for k in range(self._loaded.num_io_tensors)}
        expected = {model.contract.input.name, *self._names}
        if tensors != expected:
            raise ModelError(f"{self.engine.path}: it has the tensors {sorted(tensors)}, the model {sorted(expected)}")

    def __call__(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        assert 1 <= len(images) <= self.max_batch, f"{len(images)} pictures; the runner takes 1 to {self.max_batch}"
        outputs = self._slots(images)
        return {name: outputs[name] for name in self._names}

    def close(self) -> None:
        """Free the GPU's memory."""
        try:
            self._slots.close()
        finally:
            self._loaded = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class TensorRt(TensorRtRtx):
    """The same with the data-centre library."""

    library: ClassVar[Library] = LIBRARIES["tensorrt"]


RUNNERS: dict[Name, type[TensorRtRtx]] = {runner.library.name: runner for runner in (TensorRt, TensorRtRtx)}


class _Kernels:
    """TensorRT-RTX compiles its kernels when an engine is first run; they are kept in a file beside the engine, behind a
    SHA-256 of them, the plan and the driver. All of it needs a current CUDA context."""

    def __init__(self, library: ModuleType, loaded: Any, engine: Engine, driver: str) -> None:
        self._library, self._loaded = library, loaded
        self._path = engine.path.with_suffix(engines.KERNELS)
        self._for = f"{engine.facts.engine_sha256} {driver}\n".encode()
        self._cache: Any = None
        self._kept = b""

    def context(self) -> Any:
        """A new execution context; None where TensorRT gives none."""
        return self._loaded.create_execution_context(self._settings)

    def save(self) -> None:
        """Keep what was compiled, where the folder lets us."""
        if self._cache is None or (compiled := bytes(self._cache.serialize())) == self._kept:
            return
        try:
            write_bytes(self._path, self._stamp(compiled) + compiled)
        except OutputError as error:
            _log.info("compiled kernels are not kept: %s", error)

    @cached_property
    def _settings(self) -> Any:
        """Of all contexts, with the kernels that were kept."""
        strategy = self._library.ExecutionContextAllocationStrategy.USER_MANAGED  # a slot's contexts share its memory
        if not hasattr(self._loaded, "create_runtime_config"):
            return strategy
        config = self._loaded.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        if hasattr(config, "dynamic_shapes_kernel_specialization_strategy"):
            # kernels that are compiled in the background could not be recorded in a graph
            config.dynamic_shapes_kernel_specialization_strategy = (
                self._library.DynamicShapesKernelSpecializationStrategy.EAGER
            )
        if hasattr(config, "create_runtime_cache"):
            self._cache = config.create_runtime_cache()
            if self._path.exists() and not self._load():
                _log.info("%s: damaged, or of another plan, driver or GPU: kernels are compiled anew", self._path)
            config.set_runtime_cache(self._cache)
        return config

    def _load(self) -> bool:
        """Whether the library takes what was kept; it sees only what is whole, and of this plan and driver."""
        try:
            kept = self._path.read_bytes()
        except OSError:
            return False
        stamp, kernels = kept[:_STAMP_BYTES], kept[_STAMP_BYTES:]
        if stamp != self._stamp(kernels) or not self._cache.deserialize(kernels):
            return False
        self._kept = kernels
        return True

    def _stamp(self, kernels: bytes) -> bytes:
        return hashlib.sha256(self._for + kernels).digest()


class _Launch:
    """An execution context for each size of batch: a recorded graph belongs to the context as it was then."""

    def __init__(self, kernels: _Kernels, source: str, spec: Spec, scratch_bytes: int, heard: Any) -> None:
        self._kernels, self._source, self._spec, self._heard = kernels, source, spec, heard
        self._scratch_bytes = scratch_bytes
        self._contexts: dict[int, Any] = {}

    def __call__(self, stream: int, batch: int, addresses: Mapping[str, int]) -> None:
        if batch not in self._contexts:
            self._contexts[batch] = self._context(batch, addresses)
        if not self._contexts[batch].execute_async_v3(stream):
            raise BackendError(f"TensorRT does not run a batch of {batch}: {self._heard.told()}")

    def _context(self, batch: int, addresses: Mapping[str, int]) -> Any:
        made = self._kernels.context()
        if made is None:
            raise BackendError(f"TensorRT gives no execution context: {self._heard.told()}")
        if self._scratch_bytes:
            made.set_device_memory(addresses[SCRATCH], self._scratch_bytes)
        done = made.set_input_shape(self._source, (batch, *self._spec.shape))
        if not done or not all(made.set_tensor_address(name, at) for name, at in addresses.items() if name != SCRATCH):
            raise BackendError(f"TensorRT does not take a batch of {batch}: {self._heard.told()}")
        return made
