"""Models without a network: outputs that a test paints, behind the interface of every backend. CUDA without a GPU."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from funduscope.engine import models, runners
from funduscope.engine.contract import Model
from funduscope.engine.readers.classifier import PointName
from funduscope.engine.readers.disc import Disc
from funduscope.engine.readers.multitask import MultiTask
from funduscope.engine.runners import FakeRunner
from funduscope.engine.screener import Screener

Maps = Mapping[str, np.ndarray]


def each(paint: Callable[[np.ndarray], Maps]) -> Callable[[np.ndarray], Maps]:
    """Outputs of a batch, from a function of one picture: for `FakeRunner`."""

    def outputs(images: np.ndarray) -> Maps:
        painted = [paint(image) for image in images]
        return {name: np.stack([maps[name] for maps in painted]) for name in painted[0]}

    return outputs


class Painter:
    """Paints maps whose edges lie exactly where the contract's thresholds cut."""

    def __init__(self, document: MultiTask) -> None:
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
def model() -> Model:
    """The embedded multi-task model file, verified."""
    return models.load("multitask")


@pytest.fixture(scope="session")
def painter(model: Model) -> Painter:
    return Painter(model.contract)


@pytest.fixture(scope="session")
def fake_runner(painter: Painter) -> Callable[..., FakeRunner]:
    """Makes a FakeRunner of a function of one picture: `fake_runner(paint, max_batch=4, slots=1)`."""

    def make(paint: Callable[[np.ndarray], Maps] | None = None, max_batch: int = 4, slots: int = 1) -> FakeRunner:
        maps = painter.maps()
        return FakeRunner(each(paint or (lambda image: maps)), max_batch, slots=slots)

    return make


@pytest.fixture(scope="session")
def closer(model: Model) -> Model:
    """A model of the second look without a file: its square is 96 px, and 2.6 disc diameters wide."""
    side = 96
    document = Disc(
        **model.contract.model_dump(
            exclude={"kind", "name", "outputs", "geometry", "input", "rules", "glaucoma_threshold"}
        ),
        kind="disc",
        name="closer",
        input={"name": "images", "dtype": "uint8", "shape": ["batch", side, side, 3]},
        outputs=[
            *({"name": name, "dtype": "float32", "shape": ["batch", side, side]} for name in ("disc", "cup")),
            {"name": "glaucoma", "dtype": "float32", "shape": ["batch"]},
        ],
        geometry={"path": "around-disc-1", "size": side, "fov_threshold": 24, "diameters": 2.6},
        rules={"disc_threshold": 0.5, "cup_threshold": 0.5, "vcdr_coefficient": 9.0, "vcdr_intercept": -6.0},
        glaucoma_threshold=0.45,
        first_share=0.25,
    )
    return Model(Path("closer.onnx"), b"", document)


@pytest.fixture
def fake(model: Model, fake_runner: Callable[..., FakeRunner]) -> Callable[..., Screener]:
    """Makes a Screener over FakeRunners: `fake(paint, max_batch=4)`; without `paint`, every picture has the same maps.

    models: what is opened; point: the operating point; classify: paints a classifier's outputs, which runs in ONNX Runtime
    where it is not given.
    """

    def make(
        paint: Callable[[np.ndarray], Maps] | None = None,
        max_batch: int = 4,
        *,
        models: Sequence[Model] = (model,),
        classify: Callable[[np.ndarray], Maps] | None = None,
        point: PointName | None = None,
    ) -> Screener:
        def runner(opened: Model) -> runners.Runner:
            if isinstance(opened.contract, MultiTask) or classify:
                return fake_runner(paint if isinstance(opened.contract, MultiTask) else classify, max_batch)
            return runners.open_runner(opened, "onnxruntime", max_batch=max_batch, threads=1)

        return Screener.of(models, [runner(own) for own in models], point=point, backend="fake")

    return make


@pytest.fixture
def both(fake, model: Model, classifier: Model) -> Callable[..., Screener]:
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
