"""Models without a network: outputs that a test paints, behind the interface of every backend. CUDA without a GPU."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from funduscope.engine import contract, runners
from funduscope.engine.screener import Screener

Maps = Mapping[str, np.ndarray]


class FakeRunner:
    """Answers with what `paint` gives for each picture; remembers the sizes of the batches."""

    precision = "fp32"
    slots = 1

    def __init__(self, paint: Callable[[np.ndarray], Maps], max_batch: int) -> None:
        self.paint = paint
        self.max_batch = max_batch
        self.batches: list[int] = []
        self.closed = False
        self.before: Callable[[], object] = lambda: None

    def __call__(self, images: np.ndarray) -> Maps:
        assert images.dtype == np.uint8
        assert images.ndim == 4
        assert 1 <= len(images) <= self.max_batch
        self.batches.append(len(images))
        self.before()
        painted = [self.paint(image) for image in images]
        return {name: np.stack([maps[name] for maps in painted]) for name in painted[0]}

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> FakeRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Painter:
    """Paints maps whose edges lie exactly where the contract's thresholds cut."""

    def __init__(self, document: contract.MultiTask) -> None:
        self.size = document.geometry.size
        self.rules = document.rules

    def ellipse(self, x: float, y: float, width: float, height: float, threshold: float) -> np.ndarray:
        """A smooth ellipse, float32 (S, S), that crosses `threshold` on its outline."""
        rows, columns = np.mgrid[: self.size, : self.size]
        inside = 1 - np.hypot((columns - x) / (width / 2), (rows - y) / (height / 2))
        middle = np.log(threshold / (1 - threshold))
        return (1 / (1 + np.exp(np.clip(-middle - 10 * inside, -60, 60)))).astype(np.float32)

    def maps(self, disc=(150, 120, 40, 48), cup=(152, 121, 20, 24), fovea=(90, 130), glaucoma=0.5) -> Maps:
        """The four outputs of one picture. disc, cup: x, y, width, height; None leaves a map empty."""
        blank = np.zeros((self.size, self.size), np.float32)
        rows, columns = np.mgrid[: self.size, : self.size]
        return {
            "disc": self.ellipse(*disc, self.rules.disc_threshold) if disc else blank,
            "cup": self.ellipse(*cup, self.rules.cup_threshold) if cup else blank,
            "fovea": np.exp(-((columns - fovea[0]) ** 2 + (rows - fovea[1]) ** 2) / 200).astype(np.float32)
            if fovea
            else blank,
            "glaucoma": np.float32(glaucoma),
        }


def paint_opinions(glaucoma: float = 0.1, referable_dr: float = 0.1, any_dr: float = 0.1) -> Maps:
    """The outputs of the drawn classifier (see `classifier`) for one picture, without heat."""
    blank = np.zeros((12, 12), np.float32)
    scores = {"glaucoma": glaucoma, "referable_dr": referable_dr, "any_dr": any_dr}
    return {name: np.float32(score) for name, score in scores.items()} | {f"{name}_map": blank for name in scores}


@pytest.fixture(scope="session")
def opinions():
    """The function `paint_opinions(glaucoma, referable_dr, any_dr)`."""
    return paint_opinions


@pytest.fixture(scope="session")
def model() -> contract.Model:
    """The embedded multi-task model file, verified."""
    return contract.read("multitask")


@pytest.fixture(scope="session")
def painter(model: contract.Model) -> Painter:
    return Painter(model.contract)


@pytest.fixture
def fake(model: contract.Model, painter: Painter, monkeypatch) -> Callable[..., Screener]:
    """Makes a Screener over FakeRunners: `fake(paint, max_batch=4)`; without `paint`, every picture has the same maps.

    models: what is opened; point: the operating point; classify: paints a classifier's outputs, which runs in ONNX Runtime
    where it is not given.
    """
    real = runners.open_runner

    def make(
        paint: Callable[[np.ndarray], Maps] | None = None,
        max_batch: int = 4,
        *,
        models: Sequence[contract.Model] = (model,),
        classify: Callable[[np.ndarray], Maps] | None = None,
        point: contract.PointName | None = None,
    ) -> Screener:
        maps = painter.maps()

        def open_runner(opened, backend, *, max_batch, threads):
            if isinstance(opened.contract, contract.MultiTask):
                return "fake", FakeRunner(paint or (lambda image: maps), max_batch)
            if classify:
                return "fake", FakeRunner(classify, max_batch)
            return real(opened, "onnxruntime", max_batch=max_batch, threads=1)

        with monkeypatch.context() as patch:
            patch.setattr(runners, "open_runner", open_runner)
            return Screener(models, "fake", max_batch, None, point)

    return make


@pytest.fixture
def both(fake, model: contract.Model, classifier: contract.Model) -> Callable[..., Screener]:
    """`fake` with the multi-task model and the classifier."""
    return functools.partial(fake, models=(model, classifier))


def _beside(name: str):
    """A helper's module from the folder runners, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "runners" / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


fake_cuda = _beside("fake_cuda")
_beside("fake_tensorrt")
_beside("example_engine")


@pytest.fixture
def cuda(monkeypatch):
    """A `fake_cuda.FakeCuda` in the place of pycuda and cuda-bindings."""
    made = fake_cuda.FakeCuda()
    made.install(monkeypatch)
    return made
