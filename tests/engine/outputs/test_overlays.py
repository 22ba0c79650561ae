"""The folder of drawings: a file of each kind, numbered as the pictures are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from funduscope.engine.outputs.overlays import Drawings, overlays

pytestmark = pytest.mark.usefixtures("any_colours")


@pytest.fixture
def pictures(fundus):
    return [fundus(seed=1), np.zeros((200, 200, 3), np.uint8), fundus(300, 200, seed=2)]


def written(opened, sources, folder, keep_photo: bool = True) -> list[str]:
    sink = Drawings(folder, overlays)
    with opened:
        for k, source in enumerate(sources):
            sink.write(k, opened(source, f"a/eye {k}.x.png", keep_photo=keep_photo))
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


def test_a_photo_that_was_not_kept_is_read_again_or_missed(both, pictures, tmp_path):
    sink, path = Drawings(tmp_path / "out", overlays), tmp_path / "eye.png"
    cv2.imwrite(str(path), pictures[0])
    with both() as opened:
        from_file, from_array = opened(path), opened(pictures[0])
    for number, result in enumerate((from_file, from_array)):
        sink.write(number, result)
    assert sink.missed == 1
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_what_is_there_is_not_drawn_again_and_parts_of_a_killed_run_go(both, pictures, tmp_path):
    for name in ("000000_eye 0.x.jpg", "holiday.jpg", ".0123456789abcdef.part"):
        (tmp_path / name).write_bytes(b"x")
    assert len(written(both(), pictures[:1], tmp_path)) == 4
    assert (tmp_path / "000000_eye 0.x.jpg").read_bytes() == b"x"
    Drawings(tmp_path, overlays).forget(0)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
