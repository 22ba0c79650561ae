"""Opens runners that may serve: an engine that was never verified on this machine goes through the gate first."""

from __future__ import annotations

import logging

from .. import runners
from ..contract import Model
from ..errors import BackendError, ModelError, OutputError
from ..runners import AUTO, Runner
from ..runners.tensorrt.engines import Engine, Unverified
from .pictures import ON_VIEWS, views

_log = logging.getLogger("funduscope")


def open_runner(
    model: Model, backend: str, *, max_batch: int, threads: int | None = None, device: int = 0
) -> tuple[str, Runner]:
    """The backend's name and a runner for a verified model; `auto` takes the first of AUTO that works.
    Logs which, and why not those before it.

    Args:
        model: Whole, as `models.load` gives it.
        backend: One of `runners.BACKENDS`, or `auto`.
        max_batch: The most pictures of a call.
        threads: Of the CPU; None for the backend's own choice.
        device: Index of the GPU.

    Raises:
        BackendError: That names what there is, or why the one that was asked for cannot be had; MissingExtra.
        ModelError: No TensorRT engine fits.
    """
    own = model.contract.name
    if backend != "auto":
        runner = _open(model, backend, max_batch, threads, device)
        _log.info("%s: backend %s (named)", own, backend)
        return backend, runner
    for name in AUTO[:-1]:
        try:
            runner = _open(model, name, max_batch, threads, device)
        except (
            BackendError,
            ModelError,
            OutputError,
        ) as error:  # the last: that it was verified cannot be written down
            _log.info("%s: not %s: %s", own, name, str(error).splitlines()[0])
            continue
        _log.info("%s: backend %s (auto)", own, name)
        return name, runner
    runner = _open(model, AUTO[-1], max_batch, threads, device)
    _log.info("%s: backend %s (auto)", own, AUTO[-1])
    return AUTO[-1], runner


def _open(model: Model, backend: str, max_batch: int, threads: int | None, device: int) -> Runner:
    try:
        return runners.open_runner(model, backend, max_batch=max_batch, threads=threads, device=device)
    except Unverified as error:
        verify_new(model, error.engine, device)
    return runners.open_runner(model, backend, max_batch=max_batch, threads=threads, device=device)


def verify_new(model: Model, engine: Engine, device: int = 0) -> None:
    """Verify an engine that was built elsewhere, on the views, before it serves here for the first time; see `verify_engine`."""
    from .verify import verify_engine  # which loads ONNX Runtime: to import funduscope, it need not be whole

    _log.info("%s: first opened here; %s", engine.path, ON_VIEWS)
    verify_engine(model, engine, views(model.contract.geometry.build()), ON_VIEWS, device)
