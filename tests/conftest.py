"""What all tests share: where real pictures are, and pictures that are drawn."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("funduscope", deadline=None, derandomize=True, database=None)
settings.load_profile("funduscope")
cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture(scope="session")
def cc0() -> Path:
    """A real fundus photograph, 1411 x 1411, in the public domain."""
    return ROOT / "examples" / "retina_cc0.jpg"


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the labelled data sets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("FUNDUSCOPE_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no labelled pictures in {folder}; set FUNDUSCOPE_DATA to their folder")
    return folder


def draw_fundus(height: int = 200, width: int = 260, seed: int = 0) -> np.ndarray:
    """A drawn fundus photograph, uint8 (height, width, 3) RGB: a lit circle on black, a disc with a cup, and vessels."""
    rng = np.random.default_rng(seed)
    side = min(height, width)
    centre, radius = (width // 2, height // 2), int(0.47 * side)
    disc = (int(centre[0] + 0.25 * side), int(centre[1] + rng.integers(-5, 6)))
    picture = np.zeros((height, width, 3), np.uint8)
    cv2.circle(picture, centre, radius, (170, 80, 40), -1)
    for angle in rng.uniform(0, 2 * np.pi, 6):
        end = int(disc[0] + side * np.cos(angle)), int(disc[1] + side * np.sin(angle))
        cv2.line(picture, disc, end, (110, 30, 20), 2)
    cv2.circle(picture, disc, int(0.09 * side), (235, 190, 110), -1)
    cv2.circle(picture, disc, int(0.04 * side), (250, 235, 190), -1)
    picture = cv2.GaussianBlur(picture, (0, 0), 1.5)
    inside = np.zeros((height, width), np.uint8)
    cv2.circle(inside, centre, radius, 1, -1)
    return picture * inside[..., None]


@pytest.fixture(scope="session")
def fundus():
    """The function `draw_fundus(height, width, seed)`."""
    return draw_fundus
