"""Builds TensorRT engines from model files, by one code for `tensorrt` and `tensorrt-rtx`.

Every network is strongly typed: precision lies in the ONNX graph (`funduscope convert`), so that TensorRT 10 and 11 build the
same. TensorRT-RTX builds for GPUs that are not here, and without any.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..engine import contract, files
from ..engine.errors import ModelError, OutputError, SettingsError, require
from ..engine.runners import gpu
from ..engine.runners.tensorrt import engines
from ..engine.runners.tensorrt.engines import Engine, Facts, Profile
from ..engine.runners.tensorrt.libraries import LIBRARIES, Name, listening

_log = logging.getLogger("funduscope")
Progress = Callable[[str, int, int], None]
"""Told of a phase's name, the steps that are done, and all its steps."""


def choose_library(name: str | None, *, foreign: bool) -> Name:
    """The TensorRT that was asked for; else the one that is installed: for GPUs that are not here tensorrt-rtx first.

    Raises: SettingsError for another name; MissingExtra.
    """
    if name is not None:
        if name not in LIBRARIES:
            raise SettingsError(f"library {name}: allowed are {', '.join(LIBRARIES)}")
        return next(known for known in LIBRARIES if known == name)
    order = sorted(LIBRARIES.values(), key=lambda library: library.builds_for_others != foreign)
    return next((library.name for library in order if library.is_installed()), "tensorrt-rtx")


def build(
    model: contract.Model,
    chosen: Name,
    sizes: Profile,
    target: str | None,
    where: Path,
    *,
    workspace_mb: int = 4096,
    optimisation_level: int = 3,
    progress: Progress | None = None,
) -> tuple[Engine, bool]:
    """The engine of a model for one kind of GPU, from the folder where it is there already.

    Args: chosen: see `choose_library`; sizes: of the batches; target: such as sm_89; None for the first GPU of this machine;
    workspace_mb: the most scratch memory of a layer; optimisation_level: 0 to 5, more builds longer.
    Returns: the engine, not verified where it is new, and whether it was built now. Raises: MissingExtra, BackendError,
    SettingsError, OutputError; ModelError with TensorRT's own words where it does not build.
    """
    library = LIBRARIES[chosen]
    if target is not None and not library.builds_for_others:
        raise SettingsError(
            f"{target}: tensorrt builds only for the GPU that it runs on; tensorrt-rtx builds for others"
        )
    trt = library.load()
    filelock = require("filelock", chosen)
    capability = target or gpu.device().capability
    facts = Facts(
        format="funduscope-engine/1",
        library=chosen,
        library_version=trt.__version__,
        compute_capability=capability,
        os=engines.this_os(),
        model=model.contract.name,
        model_sha256=model.sha256,
        precision=model.contract.precision,
        profile=sizes,
        workspace_mb=workspace_mb,
        optimisation_level=optimisation_level,
        engine_sha256=contract.ZEROS,
        verified=False,
    )
    choice = _capability(trt, target) if library.builds_for_others else None
    with _alone(filelock.FileLock(where / f"{facts.key}.lock"), where):
        if (found := _existing(where, facts)) is not None:
            return found, False
        with listening(trt) as log:
            plan = _plan(trt, log, model, facts, choice, where, progress)
        return engines.write(where, facts, plan), True


@contextmanager
def _alone(lock: Any, where: Path) -> Iterator[None]:
    """A second builder waits, and takes what the first has built. Raises OutputError where the folder cannot be used."""
    try:
        where.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise files.refused(where, error) from None
    try:
        yield
    finally:
        lock.release()


def _existing(where: Path, facts: Facts) -> Engine | None:
    """The engine that the folder has for the same key and settings, whole."""
    try:
        engine = engines.facts_of(where / (facts.key + engines.PLAN))
        engines.plan_of(engine)
    except ModelError:
        return None
    same = ("workspace_mb", "optimisation_level")
    return engine if all(getattr(engine.facts, name) == getattr(facts, name) for name in same) else None


def _capability(trt: ModuleType, target: str | None) -> Any:
    """What TensorRT-RTX calls a kind of GPU. Told of none, it would build for several, not for the one that is here."""
    known = {
        f"sm_{name[2:]}": value for name, value in trt.ComputeCapability.__members__.items() if name.startswith("SM")
    }
    if target in known:
        return known[target]
    if target is None or target == gpu.capability():
        return trt.ComputeCapability.CURRENT
    raise SettingsError(f"{target}: this TensorRT-RTX ({trt.__version__}) builds for {', '.join(known)}")


def _plan(
    trt: ModuleType,
    log: Any,
    model: contract.Model,
    facts: Facts,
    capability: Any,
    where: Path,
    progress: Progress | None,
) -> bytes:
    builder = trt.Builder(log)
    flags = trt.NetworkDefinitionCreationFlag
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model.data):
        wrong = [parser.get_error(k) for k in range(parser.num_errors)]  # a description may be "false" alone
        told = "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}".strip(" :") for error in wrong)
        raise ModelError(f"{model.path}: {trt.__name__} cannot read it: {told}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, facts.workspace_mb << 20)
    config.builder_optimization_level = facts.optimisation_level
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
    if capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(capability, 0)
    shape = [int(side) for side in model.contract.input.shape[1:]]
    shapes = builder.create_optimization_profile()
    shapes.set_shape(
        model.contract.input.name, *((n, *shape) for n in (facts.profile.min, facts.profile.opt, facts.profile.max))
    )
    config.add_optimization_profile(shapes)
    if progress is not None:
        config.progress_monitor = _monitor(trt, progress)
    timings = where / f"timings-{facts.library}-{facts.library_version}-{facts.compute_capability}.cache"
    cache = None if LIBRARIES[facts.library].builds_for_others else _timings(config, log, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None or log.heard:  # it can tell of an error and give a plan all the same
        hint = " (with more workspace it may)" if "OutOfMemory" in log.told() else ""
        raise ModelError(
            f"{model.path}: {trt.__name__} does not build it for {facts.compute_capability}{hint}: {log.told()}"
        )
    if cache is not None:
        try:
            files.write_bytes(timings, bytes(cache.serialize()))
        except OutputError as error:
            _log.info("timings are not kept: %s", error)
    return bytes(plan)


def _timings(config: Any, log: Any, path: Path) -> Any:
    """TensorRT's cache of how long its kernels take, empty where it does not take what was kept; None where it has none."""
    try:
        kept = path.read_bytes()
    except OSError:
        kept = b""
    earlier = len(log.heard)
    for data in (kept, b""):
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False) and len(log.heard) == earlier:
            return cache
        _log.info("%s: not taken, timings start anew: %s", path, "; ".join(log.heard[earlier:]))
        del log.heard[earlier:]
    return None


def _monitor(trt: ModuleType, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, _parent: str | None, steps: int) -> None:
            self._steps[name] = steps
            progress(name, 0, steps)

        def step_complete(self, name: str, step: int) -> bool:
            progress(name, step + 1, self._steps[name])
            return True

        def phase_finish(self, name: str) -> None:
            steps = self._steps.pop(name)
            progress(name, steps, steps)

    return Monitor()
