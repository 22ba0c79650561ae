"""Let candidates through the gate: which pictures they are shown, beside what they run, and what is written down of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import models
from ..contract import Model
from ..errors import ModelError, PhotoError, SettingsError
from ..pictures import photo, preprocess
from ..readers import READERS, Reader
from ..readers.difference import BOUNDS
from ..runners import Runner, gpu
from ..runners.onnx_runtime import OnnxRuntime
from ..runners.tensorrt import engines
from ..runners.tensorrt.engines import Engine, Verified
from ..runners.tensorrt.runner import RUNNERS
from . import comparison as gate

_log = logging.getLogger("funduscope")
SELF_CHECK = "self-check"


def pictures(paths: Sequence[Path], geometry: preprocess.Geometry) -> NDArray[np.uint8]:
    """The photographs as the engine prepares them, uint8 (N, S, S, 3); those that cannot be read are left out.

    Raises: SettingsError where none can.
    """
    images: list[NDArray[np.uint8]] = []
    for path in paths:
        try:
            images.append(preprocess.prepare(photo.load(path), geometry).image)
        except PhotoError:
            continue
    if not images:
        raise SettingsError("the gate needs at least one readable photograph; name data sets that have some")
    return np.stack(images)


def reference_of(model: Model) -> Model:
    """The fp32 model that the gate holds a file against: itself, or what it was converted from, embedded or beside it.

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


def views(geometry: preprocess.Geometry) -> NDArray[np.uint8]:
    """32 views of the photograph that comes with the package, for a self-check."""
    data = (resources.files("funduscope.examples") / "retina_cc0.jpg").read_bytes()
    return gate.views(photo.load(data), geometry)


def run(reference: Model, candidate: Runner, images: NDArray[np.uint8], sizes: Sequence[int]) -> gate.Report:
    """The gate between a model file on ONNX Runtime's CPU and a runner, within the bounds of the runner's precision.

    Args: images: uint8 (N, S, S, 3); sizes: of the batches that the candidate is given.
    """
    with OnnxRuntime(reference, max_batch=max(sizes), threads=None) as expected:
        return gate.compare(expected, candidate, images, reader_of(reference), BOUNDS[candidate.precision], list(sizes))


def reader_of(model: Model) -> Reader:
    """The reader of a model's outputs, at its contract's own operating point."""
    return READERS[model.contract.kind](model.contract, None)


def engine(model: Model, found: Engine, images: NDArray[np.uint8], how: str, device: int = 0) -> gate.Report:
    """The gate for a TensorRT engine, on this machine's GPU: what passes is written into its facts, what fails is deleted.

    Args: model: the file that it was built of. Raises: BackendError where this machine cannot run it; ModelError where it is
    another model's or the fp32 model is not to be found, and, with the report, where it does not pass.
    """
    if found.facts.model_sha256 != model.sha256:
        raise ModelError(f"{found.path}: it was built of another model ({found.facts.model}) than {model.path}")
    here, profile, reference = gpu.device(device), found.facts.profile, reference_of(model)
    with RUNNERS[found.facts.library](model, max_batch=profile.max, engine=found, device=device) as candidate:
        report = run(reference, candidate, images, profile.sizes)
    if not report.passes():
        engines.delete(found)
        _log.warning("%s: deleted, the gate does not let it pass", found.path)
        lines = "\n  ".join(report.lines())
        raise ModelError(f"{found.path}: deleted: on {here.name} it differs from {reference.path}\n  {lines}")
    passed = Verified(
        how=how, against=reference.sha256, pictures=report.pictures, device=here.name, figures=report.record()
    )
    engines.state(found, found.facts.model_copy(update={"verified": passed}))
    return report


def first_open(model: Model, found: Engine, device: int = 0) -> None:
    """The self-check of an engine that was built elsewhere, before it serves for the first time."""
    _log.info("%s: first opened here; self-check", found.path)
    engine(model, found, views(model.contract.geometry.build()), SELF_CHECK, device)
