"""A few drawn eyes with all labels, and a configuration small enough to train on them in a second."""

import csv
import json

import cv2
import numpy as np
import pytest

from funduscope.training import config

SIDE = 160
SET = "eyes"
COLUMNS = ("image", "split", "mask", "mask_has", "fovea_x", "fovea_y", "glaucoma", "patient")


def circle(x, y, radius):
    axis = np.arange(SIDE)
    return (axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2 <= radius**2


def draw_eye(folder, name, disc_xy, cup_radius, fovea_xy):
    """One picture and its mask (0 background, 1 rim, 2 cup) below `folder`."""
    image = np.zeros((SIDE, SIDE, 3), np.float32)
    image[circle(80, 80, 76)] = (40, 70, 160)  # BGR
    image[circle(*fovea_xy, 10)] = (15, 30, 80)
    image[circle(*disc_xy, 22)] = (90, 160, 220)
    image[circle(*disc_xy, cup_radius)] = (210, 240, 255)
    mask = circle(*disc_xy, 22).astype(np.uint8) + circle(*disc_xy, cup_radius)
    for sub, ending, pixels in (("images", "jpg", cv2.GaussianBlur(image, (0, 0), 1)), ("masks", "png", mask)):
        (folder / sub).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / sub / f"{name}.{ending}"), pixels)


def draw_set(folder):
    """Ten eyes, six to train on and four to validate on; every second one has a large cup and glaucoma."""
    rng = np.random.default_rng(7)
    rows = []
    for k in range(10):
        sick, name = k % 2, f"eye{k}"
        disc_xy, fovea_xy = rng.uniform(45, 60, 2), rng.uniform(95, 115, 2)
        draw_eye(folder, name, disc_xy, 16 if sick else 8, fovea_xy)
        rows.append(
            {
                "image": f"images/{name}.jpg",
                "split": "train" if k < 6 else "val",
                "mask": f"masks/{name}.png",
                "mask_has": "disc+cup",
                "fovea_x": fovea_xy[0],
                "fovea_y": fovea_xy[1],
                "glaucoma": sick,
                "patient": f"p{k}",
            }
        )
    write_index(folder, rows)


def write_index(folder, rows):
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def inline(value):
    """A value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {inline(own)}" for key, own in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)


@pytest.fixture
def drawn_root(tmp_path):
    """A folder with one data set, `eyes`."""
    draw_set(tmp_path / "data" / SET)
    return tmp_path / "data"


@pytest.fixture
def edit_rows(drawn_root):
    """Rewrites the index of `eyes`: the given function changes its rows in place."""

    def edit(change):
        folder = drawn_root / SET
        with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        change(rows)
        write_index(folder, rows)

    return edit


@pytest.fixture
def plan():
    """The contents of a tiny configuration, to be changed by a test."""
    return {
        "name": "tiny",
        "seed": 3,
        "network": {"width": 0.125, "dropout": 0.5, "imagenet": ""},
        "geometry": {"size": 64, "fov_threshold": 24, "cache": 80},
        "data": {
            "root": "data",
            "sampler": "per_task",
            "batch": {"glaucoma": 2, "disc": 2, "cup": 3, "fovea": 2},
            "balance_glaucoma": True,
            "workers": 1,
            "sets": [
                {
                    "path": SET,
                    "weights": {"glaucoma": 1.0, "disc": 1.0, "cup": 1.0, "fovea": 1.0},
                    "terms": "drawn for tests",
                }
            ],
        },
        "schedule": {
            "strategy": "mtl-io",
            "steps": 4,
            "warmup": 2,
            "decay": 0.5,
            "lr": 1e-3,
            "weight_decay": 1e-4,
            "freeze_batchnorm": 0.7,
            "fovea_loss": "bce",
            "fovea_variance_px2": 10.0,
            "validate_every": 2,
            "bf16": False,
        },
        "augment": {
            "rotation_degrees": 20.0,
            "log_scale": 0.2,
            "shift": 0.05,
            "flip": True,
            "log_gain": 0.2,
            "log_gamma": 0.2,
            "blur_sigma_px": 1.0,
        },
        "reading": {"fovea_mode": "robust", "fovea_min_peak": 0.1},
        "terms": {"licence": "of the tests", "notice": "Nothing here is a diagnosis."},
    }


@pytest.fixture
def build():
    """A Config from a plan, without a file."""
    return config.Config.model_validate


@pytest.fixture
def write_config(tmp_path):
    """Writes a plan as a configuration file and returns its path."""

    def write(plan):
        path = tmp_path / "tiny.toml"
        path.write_text("".join(f"{key} = {inline(value)}\n" for key, value in plan.items()), encoding="utf-8")
        return path

    return write
