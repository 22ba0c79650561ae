"""The second look as a system: squares around the disc, a run, its calibration, its file, and screening with it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from funduscope import Screener
from funduscope.engine import models
from funduscope.engine.errors import DataError, SettingsError
from funduscope.engine.labelled import dataset
from funduscope.engine.pictures.preprocess import Geometry
from funduscope.engine.readers.disc import Disc
from funduscope.engine.spotting import Spotter
from funduscope.training import config, train
from funduscope.training.calibrate import calibrate
from funduscope.training.disc import crops
from funduscope.training.disc.config import Config
from funduscope.training.disc.job import DiscJob

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
EYES = "eyes"


@pytest.fixture
def disc_plan(plan):
    """The contents of a tiny configuration."""
    multitasks = {"strategy", "fovea_loss", "fovea_variance_px2"}
    schedule = {key: value for key, value in plan["schedule"].items() if key not in multitasks}
    sets = [
        {"path": EYES, "weights": {"disc": 1.0, "cup": 1.0, "glaucoma": 1.0}, "terms": "drawn for tests"},
        {"path": "cut", "region": "disc", "weights": {"disc": 1.0, "cup": 1.0}, "terms": "drawn, too"},
        {"path": "told", "weights": {"ratio": 1.0}, "terms": "drawn, too"},
    ]
    own = {key: plan[key] for key in ("seed", "augment", "terms")}
    return own | {
        "kind": "disc",
        "name": "tiny-disc",
        "network": {"width": 0.125, "dropout": 0.0, "imagenet": ""},
        "geometry": {"size": 64, "fov_threshold": 24, "cache": 96, "diameters": 2.0, "cache_diameters": 3.0},
        "data": {"root": "data", "batch": {"glaucoma": 8, "disc": 8, "cup": 8, "ratio": 8}, "workers": 1, "sets": sets},
        "schedule": schedule | {"mask_loss": "bce+dice", "average": 0.5},
        "reading": {"first_share": 0.25},
    }


def keep(folder, columns, added):
    """Rewrite an index with some of its columns, and others whose values take turns."""
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, *added], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(
            {**row, **{name: values[k % len(values)] for name, values in added.items()}} for k, row in enumerate(rows)
        )


@pytest.fixture
def disc_root(drawn_root, edit_rows):
    """The drawn set; cut out around its discs; and with experts' ratios in place of drawings."""
    shutil.copytree(drawn_root / EYES, drawn_root / "cut")
    for sample in dataset.load(drawn_root / EYES):
        disc = sample.read_masks().disc
        rows, columns = np.nonzero(disc)
        top, left = int(rows.mean()) - 30, int(columns.mean()) - 30
        for folder, name in (("images", sample.image.name), ("masks", sample.mask.name)):
            path = drawn_root / "cut" / folder / name
            whole = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            part = whole[top : top + 60, left : left + 60]
            cv2.imwrite(str(path), cv2.resize(part, (180, 180), interpolation=cv2.INTER_NEAREST))
    shutil.copytree(drawn_root / EYES, drawn_root / "told")
    columns = ["image", "split", "patient"]
    keep(drawn_root / "cut", [*columns, "mask", "mask_has"], {})
    keep(drawn_root / "told", columns, {"expert_vcdr": ("0.4", "0.7")})
    return drawn_root


def test_a_square_lies_where_the_first_look_sees_the_disc(disc_root):
    sample = dataset.load(disc_root / EYES)[0]
    with Spotter() as spotter:
        crop = crops.seen(sample, Geometry(96, 24, 3.0), spotter)
    disc = crop.case.masks.disc
    rows, columns = np.nonzero(disc)
    assert (columns.mean(), rows.mean()) == pytest.approx((47.5, 47.5), abs=6)
    assert disc.sum(axis=0).max() == pytest.approx(32, abs=6)
    assert 0 <= crop.first[1]["glaucoma"] <= 1


def test_of_a_crop_it_lies_around_the_drawn_disc_and_its_edge_goes_on(disc_root):
    sample = dataset.load(disc_root / "cut")[0]
    case = crops.drawn(sample, Geometry(96, 24, 3.0))
    rows, columns = np.nonzero(case.masks.disc)
    assert (columns.mean(), rows.mean()) == pytest.approx((47.5, 47.5), abs=1)
    assert case.masks.disc.sum(axis=0).max() == pytest.approx(32, abs=2)
    assert case.prepared.image.max(axis=2).min() > 0
    cv2.imwrite(str(sample.mask), np.zeros((180, 180), np.uint8))
    assert crops.drawn(sample, Geometry(96, 24, 3.0)) is None


def test_a_picture_that_cannot_be_read_is_named(disc_root):
    sample = dataset.load(disc_root / EYES)[0]
    sample.image.write_bytes(b"nothing")
    with Spotter() as spotter, pytest.raises(DataError, match=r"eye0\.jpg: "):
        crops.seen(sample, Geometry(96, 24, 3.0), spotter)


def test_each_set_teaches_what_it_has(disc_plan, disc_root):
    job = DiscJob(Config.model_validate(disc_plan), disc_root)
    job.start(torch.device("cpu"), None)
    batch = next(job.stream(0, 1))["disc"]
    assert batch.images.shape == (8, 64, 64, 3)
    assert batch.has["ratio"].any()
    assert not (batch.has["ratio"] & (batch.has["disc"] | batch.has["glaucoma"])).any()
    assert batch.has["cup"].tolist() == batch.has["disc"].tolist()
    drawn = batch.targets["disc"][batch.has["disc"]]
    assert (drawn.sum(dim=1).amax(dim=1) / 64).mean() == pytest.approx(0.5, abs=0.15)  # one of two diameters
    tasks = ("glaucoma", "disc", "cup", "ratio")
    assert job.step(dict.fromkeys(tasks, batch), 1e-3).keys() == {*tasks}


@pytest.mark.slow
def test_it_is_trained_calibrated_exported_and_screened_with(disc_plan, disc_root, write_config, tmp_path):
    pytest.importorskip("onnxscript")
    from funduscope.export import onnx as export

    run = tmp_path / "run"
    disc_plan["schedule"] |= {"steps": 60, "validate_every": 30, "lr": 3e-3, "freeze_batchnorm": 0.5}
    assert train.train(write_config(disc_plan), run, data_root=disc_root, device="cpu")
    (*_, last) = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert last["sets"].keys() == {EYES, "told"}
    assert last["sets"]["told"].keys() == {"vcdr_error"}
    assert last["sets"][EYES]["disc_dice"] > 0.7
    found = calibrate(run)
    assert found["rules"].keys() == {"disc_threshold", "cup_threshold", "vcdr_coefficient", "vcdr_intercept"}
    assert 0 <= found["training"]["figures"][EYES]["auc"] <= 1
    pictures = sorted((disc_root / EYES / "images").iterdir())
    model, report = export.export(run, tmp_path / "closer.onnx", pictures, name="closer", version="1")
    assert report.passes()
    assert isinstance(model.contract, Disc)
    assert model.contract.geometry.diameters == 2.0
    with Screener.open("multitask", model.path, backend="onnxruntime") as screener:
        results = [screener(path) for path in pictures]
    assert sum(result.second_look is True for result in results) >= 8
    assert [own.kind for own in results[0].models] == ["multi-task", "disc"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data": {"batch": {"disc": 2, "fovea": 2}}}, "fovea is not seen in a square around the disc|task fovea"),
        ({"data": {"batch": {"disc": 2, "cup": 2}}}, "data.batch lacks glaucoma, which the model gives"),
        ({"geometry": {"cache_diameters": 1.5}}, "cache_diameters is smaller than diameters"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(disc_plan, write_config, change, told):
    for part, values in change.items():
        disc_plan[part] |= values
    with pytest.raises(SettingsError, match=told):
        config.load(write_config(disc_plan))


def test_the_configuration_that_ships_is_whole(root):
    settings = config.load(root / "training" / "configs" / "disc.toml")
    assert settings.preparation(settings.geometry.size).build() == Geometry(192, 24, 2.6)
    start = Path(root / "training" / "configs" / settings.network.start)
    assert models.load(start).contract.kind == "multi-task"
