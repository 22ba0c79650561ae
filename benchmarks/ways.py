"""The ways that are measured beside one another: this engine's, and what a user would write without it.

A way that is not to be had here raises a FunduscopeError with the cause when it is opened.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from funduscope.engine import contract, models, runners
from funduscope.engine.errors import BackendError, FunduscopeError, require
from funduscope.engine.readers.quality import SCORES
from funduscope.engine.results import Screening
from funduscope.engine.screener import Screener, ScreenerSettings, tuned

BACKENDS = ("onnxruntime", "openvino", "openvino-bf16")  # of CPUs; gpu.py measures the others
LIBRARIES = PLAIN, EAGER, COMPILED = "plain ONNX Runtime", "torch eager", "torch.compile"
TUNED = "tuned"
BATCH = 8
Run = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[np.float32]]]
Opener = Callable[[], AbstractContextManager[Any]]


def opened(stack: ExitStack, openers: Mapping[str, Opener]) -> tuple[dict[str, Any], dict[str, str]]:
    """All that can be opened here, and the cause of each that cannot."""
    there, absent = dict[str, Any](), dict[str, str]()
    for label, opener in openers.items():
        try:
            there[label] = stack.enter_context(opener())
        except FunduscopeError as error:
            absent[label] = str(error).splitlines()[0]
    return there, absent


def precisions(model: contract.Model) -> dict[str, contract.Model]:
    """An fp32 model and its conversions, by their precision."""
    found: dict[str, contract.Model] = {}
    for own in (model, *models.variants(model)):
        found.setdefault(own.contract.precision, own)
    return found


def label_of(backend: str, precision: str) -> str:
    """What a backend and the precision of a file are called; `openvino-bf16` says its own of fp32 files."""
    return backend if (backend, precision) == ("openvino-bf16", "fp32") else f"{backend} {precision}"


# a network alone


def of_network(model: contract.Model, batch: int) -> dict[str, Opener]:
    """Ways to run one network on batches of one size, by label; each opens a `Run`."""
    openers: dict[str, Opener] = {
        PLAIN: partial(plain, model),
        EAGER: partial(in_torch, model),
        COMPILED: partial(in_torch, model, compiled_for=batch),
    }
    for precision, file in precisions(model).items():
        for backend in BACKENDS:
            openers[label_of(backend, precision)] = partial(runners.open_runner, file, backend, max_batch=batch)
    return openers


@contextmanager
def plain(model: contract.Model) -> Iterator[Run]:
    """ONNX Runtime as anyone would use it."""
    session = onnxruntime.InferenceSession(model.data, providers=["CPUExecutionProvider"])
    names = [output.name for output in model.contract.outputs]
    yield lambda images: dict(zip(names, session.run(names, {model.contract.input.name: images}), strict=True))


@contextmanager
def in_torch(model: contract.Model, compiled_for: int | None = None) -> Iterator[Run]:
    """torch with the same weights. Args: compiled_for: compile it for batches of this size."""
    torch = require("torch", "export")
    network = _network(model.path, compiled_for)
    names = [output.name for output in model.contract.outputs]

    def run(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        with torch.inference_mode():
            outputs = network(torch.from_numpy(images))
        return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}

    yield run


@functools.cache  # to compile takes long
def _network(path: Path, compiled_for: int | None) -> Callable[[Any], Sequence[Any]]:
    import torch
    from twins import twin  # which needs torch

    model = models.load(path)
    network = twin(model)
    if compiled_for is None:
        return network
    compiled: Callable[[Any], Sequence[Any]] = torch.compile(network, dynamic=False)
    side = model.contract.geometry.size
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # of torch about itself, which pytest makes errors
            compiled(torch.zeros(compiled_for, side, side, 3, dtype=torch.uint8))
    except Exception as error:  # a compiler is absent or fails, in whichever way
        first, *_ = str(error).strip().splitlines() or ["no message"]
        raise BackendError(f"torch.compile does not work here: {type(error).__name__}: {first[:200]}") from error
    return compiled


# from the file to the result


@dataclass(frozen=True)
class Way:
    """One way from photographs to what is said of them.

    Attributes:
        one: Looks at a file that is in memory.
        many: Looks at files.
        told: Probabilities out of what either of them gives for a picture.
    """

    one: Callable[[bytes], Any]
    many: Callable[[Sequence[Path]], Sequence[Any]]
    told: Callable[[Any], dict[str, float]]


def of_engine() -> dict[str, Opener]:
    """Ways of this engine to screen with all embedded models, by label; each opens a `Way`."""
    files = [precisions(models.load(name)) for name in models.embedded()]
    openers: dict[str, Opener] = {TUNED: as_tuned}
    for precision in files[0]:
        if all(precision in own for own in files):
            paths = [own[precision].path for own in files]
            for backend in BACKENDS:
                openers[label_of(backend, precision)] = partial(ours, paths, backend)
    return openers


def loops() -> dict[str, Opener]:
    """The same without this engine, over each library."""
    return {f"loop, {kind}": partial(loop, kind) for kind in LIBRARIES}


def end_to_end() -> dict[str, Opener]:
    """All ways from files to results."""
    return loops() | of_engine()


@contextmanager
def ours(paths: Sequence[Path], backend: str) -> Iterator[Way]:
    """This engine over a backend."""
    with Screener.open(*paths, backend=backend, batch=BATCH) as screener:
        yield _way(screener)


@contextmanager
def as_tuned() -> Iterator[Way]:
    """This engine as `funduscope tune` found best here; one picture with a batch of 1, as beside a camera."""
    record = ScreenerSettings().record()
    if record is None:
        raise BackendError("there is no record of `funduscope tune` for these models, processor and versions")
    opened = [models.load(name) for name in models.embedded()]
    with ExitStack() as stack:
        one, many = (stack.enter_context(tuned(ScreenerSettings(batch=own), opened, record)) for own in (1, BATCH))
        yield replace(_way(many), one=one)


def _way(screener: Screener) -> Way:
    def told(result: Any) -> dict[str, float]:
        assert isinstance(result, Screening), str(result)
        seen = {name: own.probability for name, own in result.decisions.items()}
        seen |= {name: result.scores.get(name) for name in SCORES}
        seen.pop("glaucoma", None)  # of a closer look at the disc, which a loop without post-processing does not find
        return {name: value for name, value in seen.items() if value is not None}

    return Way(screener, lambda paths: list(screener.stream(paths)), told)


@contextmanager
def loop(kind: str) -> Iterator[Way]:
    """What one writes first: OpenCV reads and resizes, then each network, one picture at a time.

    It neither finds the field of view nor checks the file, and measures nothing in the maps.
    """
    with ExitStack() as stack:
        networks = []
        for name in models.embedded():
            model = models.load(name)
            run: Run = stack.enter_context(of_network(model, 1)[kind]())
            networks.append((model.contract.kind, model.contract.geometry.size, run))

        def look(picture: Any) -> dict[str, Mapping[str, NDArray[np.float32]]]:
            colours = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            return {kind: run(cv2.resize(colours, (side, side))[None]) for kind, side, run in networks}

        yield Way(
            lambda data: look(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)),
            lambda paths: [look(cv2.imread(str(path))) for path in paths],
            _told_of_outputs,
        )


def _told_of_outputs(outputs: Mapping[str, Mapping[str, NDArray[np.float32]]]) -> dict[str, float]:
    """The probabilities under the names that decisions have; the classifier's glaucoma is the second opinion."""
    seen = {}
    for kind, own in outputs.items():
        for name, value in own.items():
            if value.ndim == 1:
                if name != "glaucoma":
                    seen[name] = float(value[0])
                elif kind == "classifier":
                    seen["glaucoma_second"] = float(value[0])
    return seen
