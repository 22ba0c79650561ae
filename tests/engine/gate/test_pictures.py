import numpy as np
import pytest

from funduscope.engine.errors import SettingsError
from funduscope.engine.gate import pictures
from funduscope.engine.pictures import photo, preprocess


def test_pictures_that_cannot_be_read_are_left_out(cc0, tmp_path):
    geometry = preprocess.Geometry(64, 24)
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a picture")
    bad = [tmp_path / "empty.jpg", tmp_path / "text.jpg", tmp_path / "absent.jpg", tmp_path]
    made = pictures.prepared([bad[0], cc0, *bad[1:], cc0], geometry)
    assert (made.shape, made.dtype) == ((2, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(made, pictures.prepared([cc0, cc0], geometry))
    with pytest.raises(SettingsError, match=r"at least one readable photograph; name data sets that have some"):
        pictures.prepared(bad, geometry)


def test_the_views_of_one_photograph_are_seeded_and_differ(cc0):
    geometry, read = preprocess.Geometry(96, 24), photo.load(cc0)
    made = pictures.views_of(read, geometry, count=4)
    assert (made.shape, made.dtype) == ((4, 96, 96, 3), np.uint8)
    np.testing.assert_array_equal(made, pictures.views_of(read, geometry, count=4))
    assert (pictures.views_of(read, geometry, count=4, seed=1) != made).any()
    assert len({one.tobytes() for one in made}) == 4
    assert all(one.mean() > 20 for one in made)


def test_without_other_pictures_it_is_32_views_of_the_packages_photograph(cc0):
    geometry = preprocess.Geometry(64, 24)
    made = pictures.views(geometry)
    np.testing.assert_array_equal(made, pictures.views_of(photo.load(cc0), geometry))
    assert len(made) == 32


def test_of_a_model_that_looks_at_the_disc_they_are_squares_around_it(cc0, fundus):
    geometry = preprocess.Geometry(96, 24, 2.6)
    made = pictures.views(geometry)
    assert len(made) == 32  # it is found in all
    bright = made.max(axis=3).astype(np.float64) ** 4  # the disc is the brightest
    weights = bright / bright.sum(axis=(1, 2), keepdims=True)
    axis = np.arange(96)
    for other in (1, 2):
        assert (weights.sum(axis=other) @ axis).mean() == pytest.approx(47.5, abs=8)
    nothing = np.full((300, 300, 3), (90, 60, 40), np.uint8)
    assert len(pictures.prepared([cc0], geometry)) == 1
    with pytest.raises(SettingsError, match="the gate needs at least one readable photograph"):
        pictures.views_of(photo.load(nothing), geometry, 2)
