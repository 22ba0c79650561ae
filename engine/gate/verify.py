"""Lets candidates through the gate: a model that a runner runs, or an engine, beside its reference on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .. import models
from ..contract import Model
from ..errors import ModelError
from ..readers import READERS
from ..readers.difference import BOUNDS
from ..readers.outputs import Outputs
from ..readers.reader import Reader
from ..runners import Runner, gpu
from ..runners.onnx_runtime import OnnxRuntime
from ..runners.tensorrt import engines
from ..runners.tensorrt.engines import Engine, Verified
from ..runners.tensorrt.runner import RUNNERS
from .comparison import Report, outputs_of, verify_outputs

_log = logging.getLogger("funduscope")


def reference_of(model: Model) -> Model:
    """The fp32 model beside which a file is verified: itself, or what it was converted from, embedded or beside it.

    Raises: ModelError where that is not to be found.
    """
    origin = model.contract.converted_from
    if origin is None:
        return model
    for path in (*models.embedded().values(), *sorted(model.path.parent.glob("*.onnx"))):
        try:
            found = models.load(path)
        except ModelError:
            continue
        if found.sha256 == origin:
            return found
    raise ModelError(
        f"{model.path}: the gate needs the fp32 model that it was converted from; put that file beside it (SHA-256 {origin})"
    )


def reader_of(model: Model) -> Reader:
    """The reader of a model's outputs, at its contract's own operating point."""
    return READERS[model.contract.kind](model.contract, None)


def expected_of(reference: Model, images: NDArray[np.uint8], batch: int) -> Outputs:
    """What an fp32 model says of pictures uint8 (N, S, S, 3) on ONNX Runtime's CPU, so many at once."""
    with OnnxRuntime(reference, max_batch=batch, threads=None) as runner:
        return outputs_of(runner, images, batch)


def verify_model(
    reference: Model,
    candidate: Runner,
    images: NDArray[np.uint8],
    sizes: Sequence[int],
    expected: Outputs | None = None,
) -> Report:
    """Verify what a runner makes of pictures beside a model file on ONNX Runtime's CPU, within its precision's bounds.

    Args:
        reference: The fp32 model.
        candidate: Of the same outputs.
        images: uint8 (N, S, S, 3).
        sizes: Of the batches that the candidate is given.
        expected: What `expected_of` gave for these pictures, where it was asked before.

    Returns:
        The report, whether it passes or not.
    """
    expected = expected or expected_of(reference, images, max(sizes))
    bounds = BOUNDS[candidate.precision]
    return verify_outputs(expected, candidate, images, reader_of(reference), bounds, list(sizes))


def verify_engine(model: Model, engine: Engine, images: NDArray[np.uint8], how: str, device: int = 0) -> Report:
    """Verify a TensorRT engine on this machine's GPU: what passes is written into its facts, what fails is deleted.

    Args:
        model: The file that it was built of.
        engine: On disk.
        images: uint8 (N, S, S, 3).
        how: What was shown, for the facts.
        device: Index of the GPU.

    Returns:
        The report of one that passes.

    Raises:
        BackendError: This machine cannot run it.
        ModelError: It is another model's, the fp32 model is not to be found, or, with the report, it does not pass.
        OutputError: Its facts cannot be written.
    """
    if engine.facts.model_sha256 != model.sha256:
        raise ModelError(f"{engine.path}: it was built of another model ({engine.facts.model}) than {model.path}")
    here, profile, reference = gpu.device(device), engine.facts.profile, reference_of(model)
    with RUNNERS[engine.facts.library](model, max_batch=profile.max, engine=engine, device=device) as candidate:
        report = verify_model(reference, candidate, images, profile.sizes)
    if not report.passes():
        engines.delete(engine)
        _log.warning("%s: deleted, the gate does not let it pass", engine.path)
        lines = "\n  ".join(report.lines())
        raise ModelError(f"{engine.path}: deleted: on {here.name} it differs from {reference.path}\n  {lines}")
    passed = Verified(
        how=how, against=reference.sha256, pictures=report.pictures, device=here.name, figures=report.record()
    )
    engines.state(engine, engine.facts.model_copy(update={"verified": passed}))
    return report
