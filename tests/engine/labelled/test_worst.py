"""The pictures on which models are farthest from the labels: their errors, and what is drawn of them."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest

from funduscope.engine.errors import OutputError
from funduscope.engine.labelled import dataset, evaluation
from funduscope.engine.labelled.worst import Worst

pytestmark = pytest.mark.usefixtures("any_colours")


@pytest.fixture
def clinic(tmp_path):
    """Three eyes whose discs are drawn ever farther from where the network sees them, a fovea, and a black picture."""
    folder = tmp_path / "clinic"
    folder.mkdir()
    lines = ["image,split,mask,mask_has,fovea_x,fovea_y,glaucoma"]
    for k in range(3):
        cv2.imwrite(str(folder / f"eye{k}.png"), np.full((256, 256, 3), 90, np.uint8))
        mask = np.zeros((256, 256), np.uint8)
        cv2.ellipse(mask, (150 + 8 * k, 120), (20, 24), 0, 0, 360, 1, -1)
        cv2.ellipse(mask, (152 + 8 * k, 121), (10, 12), 0, 0, 360, 2, -1)
        cv2.imwrite(str(folder / f"mask{k}.png"), mask)
        lines.append(f"eye{k}.png,test,mask{k}.png,disc+cup,{90 - 10 * k},130,{k % 2}")
    cv2.imwrite(str(folder / "black.png"), np.zeros((256, 256, 3), np.uint8))
    lines.append("black.png,test,mask0.png,disc+cup,90,130,1")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_the_worst_come_first_and_all_stand_in_the_table(fake, painter, clinic, tmp_path):
    out = tmp_path / "worst"
    worst = Worst(out, count=2)
    with fake(lambda image: painter.maps(fovea=(90, 130), glaucoma=0.75)) as opened:
        evaluation.evaluate(opened, evaluation.choose(dataset.load(clinic), "test"), worst.add)
    worst.finish()
    with (out / "errors.csv").open(newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["eye0.png", "eye1.png", "eye2.png", "black.png"]
    assert float(rows["eye0.png"]["disc"]) < float(rows["eye1.png"]["disc"]) < float(rows["eye2.png"]["disc"])
    assert float(rows["eye2.png"]["cup"]) > 0.5
    assert float(rows["eye1.png"]["fovea"]) == pytest.approx(100 * 10 / 256, abs=0.4)
    assert float(rows["eye0.png"]["vcdr"]) == pytest.approx(0, abs=0.03)
    network = (0.75 + 1) / 2  # with what the vCDR says at the most
    assert 0.3 < float(rows["eye0.png"]["glaucoma"]) < network
    assert float(rows["eye1.png"]["glaucoma"]) == pytest.approx(1 - float(rows["eye0.png"]["glaucoma"]), abs=1e-3)
    assert set(rows["black.png"].values()) == {"clinic", "black.png", ""}  # nothing is said of it
    for kind in ("disc", "cup", "fovea"):
        assert sorted(path.name for path in out.glob(f"{kind}-*")) == [f"{kind}-1-eye2.jpg", f"{kind}-2-eye1.jpg"]
    near, whole = (cv2.imread(str(out / name)) for name in ("disc-1-eye2.jpg", "fovea-1-eye2.jpg"))
    assert near.shape == (512, 512, 3)
    assert whole.shape == (256, 256, 3)
    for picture in (near, whole):
        assert (picture.min(axis=2) > 200).any()  # what experts drew, in white


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(OutputError, match="is not empty; choose a new folder"):
        Worst(tmp_path)
