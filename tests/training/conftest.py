"""A few drawn eyes with all labels, and configurations small enough to train on them in a second."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from funduscope.training.classifier.config import Config as ClassifierConfig
from funduscope.training.multitask.config import Config

SIDE = 160
ROOT = Path(__file__).parents[2]
ROOMS = ("Makefile", "src", "engine", "postprocess", "export", "training", "examples")
SET = "eyes"
COLUMNS = ("image", "split", "mask", "mask_has", "fovea_x", "fovea_y", "glaucoma", "patient", "dr_grade")


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


def draw_graded_eye(path, glaucoma, grade, rng):
    """One picture: glaucoma is a large bright disc, retinopathy dark spots, as many as the grade says."""
    image = np.zeros((SIDE, SIDE, 3), np.float32)
    image[circle(80, 80, 76)] = (40, 90, 160)
    for x, y in rng.uniform(40, 120, (8 * grade, 2)):
        image[circle(x, y, 6)] = (10, 20, 60)
    image[circle(*rng.uniform(50, 65, 2), 30 if glaucoma else 10)] = (200, 240, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.GaussianBlur(image, (0, 0), 1))


def draw_graded_set(folder, seed):
    """32 eyes, 16 to train on, 8 to validate on and 8 to test on, of every grade with and without glaucoma."""
    rng, rows = np.random.default_rng(seed), []
    for k in range(32):
        name, glaucoma, grade = f"images/eye{k}.jpg", k % 2, k // 2 % 4
        draw_graded_eye(folder / name, glaucoma, grade, rng)
        split = "train" if k < 16 else "val" if k < 24 else "test"
        rows.append({"image": name, "split": split, "glaucoma": glaucoma, "dr_grade": grade, "patient": f"p{k}"})
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
def graded_root(tmp_path):
    """A folder with two data sets for the classifier, `eyes` and `grades`."""
    for seed, name in enumerate((SET, "grades")):
        draw_graded_set(tmp_path / "graded" / name, seed)
    return tmp_path / "graded"


def editor(folder):
    """Rewrites the index of a set: the given function changes its rows in place."""

    def edit(change):
        with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        change(rows)
        write_index(folder, rows)

    return edit


@pytest.fixture
def edit_rows(drawn_root):
    """Rewrites the index of `eyes`."""
    return editor(drawn_root / SET)


@pytest.fixture
def edit_graded(graded_root):
    """Rewrites the index of the classifier's `eyes`."""
    return editor(graded_root / SET)


@pytest.fixture
def plan():
    """The contents of a tiny configuration, to be changed by a test."""
    return {
        "kind": "multi-task",
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
def classifier_plan():
    """The contents of a tiny configuration of the classifier, to be changed by a test."""
    return {
        "kind": "classifier",
        "name": "tiny",
        "seed": 3,
        "network": {
            "architecture": "small-cnn",
            "input": "grey",
            "hidden": 0,
            "dropout": 0.5,
            "severity": False,
            "imagenet": "",
        },
        "geometry": {"size": 64, "fov_threshold": 40, "cache": 64},
        "data": {
            "root": "graded",
            "workers": 1,
            "batch": 8,
            "sampling": "uniform",
            "augment": "unhealthy",
            "sets": [
                {"path": SET, "weights": {"glaucoma": 1.0, "dr": 1.0}, "terms": "drawn for tests"},
                {"path": "grades", "weights": {"dr": 1.0}, "terms": "drawn, too"},
            ],
        },
        "loss": {"name": "exp-uwbce", "positive": 1.0, "negative": 1.0, "linear_from": 6.0},
        "schedule": {
            "steps": 4,
            "warmup": 2,
            "decay": 0.5,
            "lr": 1e-3,
            "weight_decay": 5e-4,
            "freeze_batchnorm": 1.0,
            "validate_every": 2,
            "select": "f1",
            "bf16": False,
        },
        "augment": {
            "rotation_degrees": 180.0,
            "log_scale": 0.0,
            "shift": 0.0,
            "flip": True,
            "log_gain": 0.1,
            "log_gamma": 0.0,
            "blur_sigma_px": 0.0,
        },
        "reading": {
            "sensitivity": 0.9,
            "specificity": 0.9,
            "uncertain_share": 0.1,
            "disagreement": 0.5,
            "point": "balanced",
        },
        "terms": {"licence": "of the tests", "notice": "Nothing here is a diagnosis."},
    }


@pytest.fixture
def build():
    """A Config from a plan, without a file."""
    return Config.model_validate


@pytest.fixture
def build_classifier():
    """The same for the classifier."""
    return ClassifierConfig.model_validate


@pytest.fixture
def write_config(tmp_path):
    """Writes a plan as a configuration file and returns its path."""

    def write(plan):
        path = tmp_path / "tiny.toml"
        path.write_text("".join(f"{key} = {inline(value)}\n" for key, value in plan.items()), encoding="utf-8")
        return path

    return write


@pytest.fixture
def pictures(drawn_root, edit_rows):
    """The drawn eyes, the last four to test on."""

    def change(rows):
        for row in rows[6:]:
            row["split"] = "test"
        for row in rows[4:6]:
            row["split"] = "val"

    edit_rows(change)
    return drawn_root


@pytest.fixture
def script(tmp_path):
    """Calls a script of a checkout of its own, so that the links of this one stay."""
    for room in ROOMS:
        (tmp_path / "checkout" / room).parent.mkdir(exist_ok=True)
        (tmp_path / "checkout" / room).symlink_to(ROOT / room)

    def call(name, **settings):
        path = tmp_path / "checkout/training/sliced" / name
        environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            ["bash", path],
            env=environment | {key: str(value) for key, value in settings.items()},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call
