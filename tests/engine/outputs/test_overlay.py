"""Drawings: heat where it is hot and nowhere else, and a file of each kind."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from funduscope.engine.outputs import drawing as overlay
from funduscope.engine.pictures import photo
from funduscope.engine.results import HeatMap


def heat(width: int, height: int, hot: tuple[int, int] | None = None, level: float = 0.0) -> HeatMap:
    """A map of 10 x 10 cells over a picture. hot: the cell (x, y) with full heat; level: of all others."""
    cells = np.full((10, 10), level, np.float32)
    if hot:
        cells[hot[1], hot[0]] = 1
    across, down = width / 10, height / 10
    return HeatMap(cells, np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]]))


# heat


@pytest.mark.parametrize(("height", "width"), [(200, 260), (300, 200), (128, 128)])
def test_without_heat_the_photo_is_unchanged(fundus, height, width):
    pixels = fundus(height, width)
    np.testing.assert_array_equal(overlay.heated(photo.read(pixels), heat(width, height)), pixels)


def test_without_heat_a_smaller_drawing_is_the_smaller_photo(fundus):
    pixels = fundus(400, 520)
    found = overlay.heated(photo.read(pixels), heat(520, 400), 130)
    np.testing.assert_array_equal(found, cv2.resize(pixels, (130, 100), interpolation=cv2.INTER_AREA))


def test_the_dark_surround_is_never_heated(fundus):
    pixels = fundus(200, 260)
    pixels[:20, :20] = 12  # not quite black
    pixels[:20, 240:] = 13
    found = overlay.heated(photo.read(pixels), heat(260, 200, level=1.0))
    dark = pixels.max(axis=2) <= 12
    assert dark.sum() > 10_000
    np.testing.assert_array_equal(found[dark], pixels[dark])
    assert (found[~dark] != pixels[~dark]).any(axis=1).mean() > 0.99


def test_heat_is_drawn_where_it_is_and_nowhere_else():
    pixels = np.full((200, 400, 3), 120, np.uint8)
    found = overlay.heated(photo.read(pixels), heat(400, 200, hot=(7, 2)))
    rows, columns = np.nonzero((found != pixels).any(axis=2))
    assert (columns.mean(), rows.mean()) == pytest.approx((299.5, 49.5), abs=1)
    assert (np.ptp(columns), np.ptp(rows)) == pytest.approx((80, 40), abs=6)  # fades towards the next cells' centres


def test_heat_is_drawn_at_the_same_place_in_a_smaller_drawing():
    pixels = np.full((400, 800, 3), 120, np.uint8)
    found = overlay.heated(photo.read(pixels), heat(800, 400, hot=(7, 2)), 200)
    assert found.shape == (100, 200, 3)
    rows, columns = np.nonzero((found != 120).any(axis=2))
    assert (columns.mean(), rows.mean()) == pytest.approx((149.5, 24.5), abs=0.6)


def test_little_heat_is_blue_and_full_heat_red():
    grey = np.full((200, 200, 3), 100, np.uint8)
    mild, full = (overlay.heated(photo.read(grey), heat(200, 200, level=level))[100, 100] for level in (0.15, 1.0))
    assert mild[2] > mild[0] + 20
    assert full[0] > full[2] + 20
    assert np.abs(mild.astype(int) - 100).max() < np.abs(full.astype(int) - 100).max()  # less heat, less opaque


def test_the_photo_shows_through_full_heat():
    pixels = np.full((200, 200, 3), 60, np.uint8)
    pixels[:, 100:] = 200
    found = overlay.heated(photo.read(pixels), heat(200, 200, level=1.0)).astype(int)
    assert (found[:, 150] - found[:, 50] > 50).all()


# files


@pytest.fixture
def pictures(fundus):
    return [fundus(seed=1), np.zeros((200, 200, 3), np.uint8), fundus(300, 200, seed=2)]


def written(opened, sources, folder) -> list[str]:
    sink = overlay.Overlays(folder)
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
    sink = overlay.Overlays(tmp_path)
    with both() as opened:
        sink.write(opened(pictures[0]))
    assert not list(tmp_path.iterdir())


def test_drawings_of_an_earlier_run_are_removed_and_other_files_stay(both, pictures, tmp_path):
    for name in ("000007_old.jpg", "000007_old.glaucoma.jpg", "holiday.jpg", "1_x.jpg"):
        (tmp_path / name).write_bytes(b"x")
    found = written(both(), pictures[:1], tmp_path)
    assert [name for name in found if "eye" not in name] == ["1_x.jpg", "holiday.jpg"]
    assert len(found) == 5


# contours


def test_contours_lie_on_the_outlines(fake, pictures):
    with fake() as opened:
        found = opened(pictures[0], keep_photo=True)
    drawn = overlay.draw(found.photo, found)
    for outline, colour in ((found.disc, overlay.DISC), (found.cup, overlay.CUP)):
        rows, columns = np.nonzero((drawn == colour).all(axis=2))
        assert (columns.mean(), rows.mean()) == pytest.approx((outline.x, outline.y), abs=2)
        assert np.ptp(rows) == pytest.approx(outline.box_height_px, abs=4)


def test_without_measures_the_photo_is_drawn_as_it_is(fake, classifier, pictures):
    with fake(models=[classifier]) as opened:
        found = opened(pictures[0], keep_photo=True)
    np.testing.assert_array_equal(overlay.draw(found.photo, found), pictures[0])
