"""A service over a runner without a network: its classifier takes the mean of a channel for a disease's probability."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from funduscope import Screener
from funduscope.engine import models
from funduscope.engine.readers.quality import SCORES
from funduscope.engine.runners import FakeRunner
from funduscope.service import ServiceSettings

CELLS = 7


@pytest.fixture(scope="session")
def outputs() -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Outputs of the embedded classifier: each picture has its own, by its mean red, and no fault."""
    sizes = {own.name: own.shape[1:] for own in models.load("classifier").contract.outputs}

    def made(images: np.ndarray) -> dict[str, np.ndarray]:
        red = images[..., 0].mean(axis=(1, 2), dtype=np.float64) / 255
        painted = {name: np.stack([np.full(size, value, np.float32) for value in red]) for name, size in sizes.items()}
        return painted | {name: np.zeros(len(images), np.float32) for name in SCORES}

    return made


@pytest.fixture
def screener(outputs) -> Iterator[Screener]:
    with Screener.of([models.load("classifier")], [FakeRunner(outputs)], backend="fake") as opened:
        yield opened


@pytest.fixture(scope="session")
def jpeg(fundus) -> Callable[[int], bytes]:
    """The bytes of a drawn picture, each of another brightness: `jpeg(seed)`."""

    def made(seed: int = 0) -> bytes:
        picture = np.clip(fundus(200, 260, seed=seed).astype(int) + 3 * seed, 0, 255).astype(np.uint8)
        picture[fundus(200, 260, seed=seed).max(axis=2) == 0] = 0
        return cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()

    return made


@pytest.fixture
def client(screener) -> Iterator[Callable[..., Any]]:
    """Makes a client of a service that is ready: `client(queue=2)`; see ServiceSettings."""
    pytest.importorskip("starlette")
    testclient = pytest.importorskip("starlette.testclient", exc_type=ImportError)
    from contextlib import ExitStack

    from funduscope.service import application

    with ExitStack() as stack:

        def made(over: Screener = screener, **settings: Any) -> Any:
            app = application(ServiceSettings(**settings), over)
            opened = stack.enter_context(testclient.TestClient(app, raise_server_exceptions=False))
            for _ in range(2000):
                if opened.get("/health/ready").status_code == 200:
                    return opened
            raise AssertionError("never ready")

        yield made
