"""The folder of drawings: a file of each kind, numbered as the pictures are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from funduscope.engine.outputs.overlays import Overlays


@pytest.fixture
def pictures(fundus):
    return [fundus(seed=1), np.zeros((200, 200, 3), np.uint8), fundus(300, 200, seed=2)]


def written(opened, sources, folder) -> list[str]:
    sink = Overlays(folder)
    with opened:
        for k, source in enumerate(sources):
            sink.write(opened(source, f"a/eye {k}.x.png", keep_photo=True))
    return sorted(path.name for path in folder.iterdir())


def test_each_picture_has_its_contours_and_its_heat(both, pictures, tmp_path):
    parts = ("glaucoma.jpg", "jpg", "referable_dr.jpg")
    assert written(both(), pictures, tmp_path) == [
        f"{number}.x.{p}" for number in ("000000_eye 0", "000002_eye 2") for p in parts
    ]
    for path in tmp_path.iterdir():
        shape = (200, 260, 3) if path.name.startswith("000000") else (300, 200, 3)
        assert cv2.imread(str(path)).shape == shape


def test_the_multi_task_model_alone_draws_contours(fake, pictures, tmp_path):
    assert written(fake(), pictures, tmp_path) == ["000000_eye 0.x.jpg", "000002_eye 2.x.jpg"]


def test_the_classifier_alone_draws_heat(fake, classifier, pictures, tmp_path):
    names = [f"{k:06d}_eye {k}.x.{disease}.jpg" for k in (0, 2) for disease in ("glaucoma", "referable_dr")]
    assert written(fake(models=[classifier]), pictures, tmp_path) == names


def test_the_files_show_each_diseases_own_heat(fake, classifier, opinions, tmp_path):
    def classify(image):
        outputs = opinions()
        for name, cell in (("glaucoma_map", (2, 2)), ("referable_dr_map", (9, 9))):
            outputs[name] = np.zeros((12, 12), np.float32)
            outputs[name][cell] = 1
        return outputs

    grey = np.full((240, 240, 3), 120, np.uint8)
    written(fake(models=[classifier], classify=classify), [grey], tmp_path)
    for disease, centre in (("glaucoma", 50), ("referable_dr", 190)):
        drawn = cv2.imread(str(tmp_path / f"000000_eye 0.x.{disease}.jpg")).astype(int)
        rows, columns = np.nonzero(np.abs(drawn - 120).max(axis=2) > 30)
        assert (columns.mean(), rows.mean()) == pytest.approx((centre, centre), abs=3)


def test_a_picture_that_was_not_kept_has_no_drawing(both, pictures, tmp_path):
    sink = Overlays(tmp_path)
    with both() as opened:
        sink.write(opened(pictures[0], keep_photo=False))
    assert not list(tmp_path.iterdir())


def test_drawings_of_an_earlier_run_are_removed_and_other_files_stay(both, pictures, tmp_path):
    for name in ("000007_old.jpg", "000007_old.glaucoma.jpg", "holiday.jpg", "1_x.jpg"):
        (tmp_path / name).write_bytes(b"x")
    found = written(both(), pictures[:1], tmp_path)
    assert [name for name in found if "eye" not in name] == ["1_x.jpg", "holiday.jpg"]
    assert len(found) == 5
