import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from funduscope.postprocess import masks, measures, metrics

small_masks = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))
small_maps = arrays(np.float32, (12, 12), elements=st.floats(0, 1, width=32))


def round_map(height_px, x, y, size=96):
    """Coverage of each pixel by an ideal disc: float32 (size, size) in [0, 1]."""
    fine = 16
    axis = (np.arange(size * fine) + 0.5) / fine - 0.5
    inside = (axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2 <= (height_px / 2) ** 2
    return inside.reshape(size, fine, size, fine).mean(axis=(1, 3)).astype(np.float32)


def region(disc, cup=None):
    return masks.disc_region(disc, disc if cup is None else cup, 0.5, 0.5)


def blank(size=96):
    return np.zeros((size, size), np.float32)


def test_an_empty_mask_has_no_component():
    assert not masks.largest_component(np.zeros((5, 5), bool)).any()


def test_of_two_blobs_the_larger_is_kept():
    mask = np.zeros((20, 20), bool)
    mask[1:4, 1:4] = True
    mask[8:15, 8:15] = True
    kept = masks.largest_component(mask)
    assert kept.sum() == 49
    assert kept[8:15, 8:15].all()


def test_pixels_that_touch_at_a_corner_are_one_component():
    mask = np.eye(6, dtype=bool)
    mask[0, 5] = True
    assert masks.largest_component(mask).sum() == 6


def test_the_larger_blob_may_touch_the_border():
    mask = np.zeros((20, 20), bool)
    mask[:6, :6] = True
    mask[12:15, 12:15] = True
    assert masks.largest_component(mask).sum() == 36


def test_the_given_mask_is_not_changed():
    mask = np.zeros((9, 9), bool)
    mask[0, 0] = mask[4:6, 4:6] = True
    before = mask.copy()
    masks.largest_component(mask)[:] = False
    assert np.array_equal(mask, before)


@given(small_masks)
def test_the_component_is_a_part_of_the_mask_and_stays_when_taken_again(mask):
    kept = masks.largest_component(mask)
    assert not (kept & ~mask).any()
    assert kept.any() == mask.any()
    assert np.array_equal(masks.largest_component(kept), kept)


@given(small_masks)
def test_the_size_of_the_largest_component_does_not_depend_on_flips(mask):
    size = masks.largest_component(mask).sum()
    assert masks.largest_component(mask[::-1]).sum() == size
    assert masks.largest_component(mask[:, ::-1]).sum() == size


def test_no_pixel_above_the_threshold_is_no_region():
    assert region(blank()) is None
    assert region(np.full((32, 32), 0.5, np.float32)) is None


@pytest.mark.parametrize("pixels", [[(5, 5)], [(10, 10), (11, 11), (12, 12)]])
def test_a_speck_that_vanishes_between_the_pixels_is_no_region(pixels):
    speck = blank()
    for row, column in pixels:
        speck[row, column] = 0.55
    assert region(speck) is None


@settings(max_examples=60)
@given(small_maps, small_maps)
def test_a_region_has_a_disc_its_cup_inside_and_a_ratio_between_0_and_1(disc, cup):
    found = region(disc, cup)
    if found is None:
        return
    assert found.disc.any()
    assert found.disc.shape == found.cup.shape
    assert not (found.cup & ~found.disc).any()
    ratio = measures.vcdr(found.disc, found.cup)
    assert (ratio is None) == (not found.cup.any())
    assert ratio is None or 0 < ratio <= 1


def test_of_two_discs_the_larger_is_measured():
    found = region(np.maximum(round_map(30, 30, 30), round_map(12, 75, 75)))
    assert measures.vertical_diameter(found.disc) / found.zoom == pytest.approx(30, abs=0.3)


def test_a_cup_outside_the_disc_is_empty():
    found = region(round_map(30, 30, 30), round_map(12, 75, 75))
    assert found.disc.any()
    assert not found.cup.any()


def test_a_cup_is_cut_at_the_edge_of_the_disc():
    found = region(round_map(30, 40, 40), round_map(30, 40, 60))
    assert found.cup.any()
    assert not (found.cup & ~found.disc).any()


def test_thresholds_are_exclusive_and_apply_to_their_own_map():
    disc, cup = round_map(40, 48, 48), 0.4 * round_map(20, 48, 48)
    assert not masks.disc_region(disc, cup, 0.5, 0.5).cup.any()
    assert masks.disc_region(disc, cup, 0.5, 0.3).cup.any()
    assert masks.disc_region(np.full((32, 32), 0.5, np.float32), disc[:32, :32], 0.5, 0.5) is None


@pytest.mark.parametrize("y", [45.0, 45.25, 45.5, 45.77])
@pytest.mark.parametrize("height", [41.3, 40.7])
def test_a_disc_is_measured_between_the_pixels(height, y):
    found = region(round_map(height, 47.1, y))
    assert measures.vertical_diameter(found.disc) / found.zoom == pytest.approx(height, abs=0.3)


def test_whole_pixels_alone_would_miss_that_tolerance():
    measured = measures.vertical_diameter(round_map(41.3, 47.1, 45.5) > 0.5)
    assert measured != pytest.approx(41.3, abs=0.3)


@pytest.mark.parametrize(("x", "y"), [(48.0, 48.0), (40.3, 52.6), (5.0, 48.0), (48.0, 0.0), (94.5, 94.5)])
def test_drawn_on_the_maps_own_grid_a_region_is_the_thresholded_map(x, y):
    disc, cup = round_map(40, x, y), round_map(20, x, y)
    found = region(disc, cup)
    for mask, probabilities in ((found.disc, disc), (found.cup, cup)):
        drawn = found.draw(mask, np.eye(2, 3), disc.shape)
        assert metrics.dice(drawn, probabilities > 0.5) >= 0.97


def test_drawn_one_pixel_off_the_dice_shows_it():
    disc = round_map(40, 48, 48)
    found = region(disc)
    moved = found.draw(found.disc, np.array([[1.0, 0, 2], [0, 1, 0]]), disc.shape)
    assert metrics.dice(moved, disc > 0.5) < 0.97


def test_a_region_places_its_centre_where_the_disc_is():
    found = region(round_map(30, 40.3, 52.6))
    rows, columns = np.nonzero(found.disc)
    x, y = found.to_map() @ (columns.mean(), rows.mean(), 1)
    assert (x, y) == pytest.approx((40.3, 52.6), abs=0.05)


def test_a_region_is_drawn_on_a_larger_photo():
    found = region(round_map(30, 40, 52))
    to_photo = np.array([[3.0, 0, 10.0], [0, 2.0, 20.0]])
    drawn = found.draw(found.disc, to_photo, (300, 400))
    rows, columns = np.nonzero(drawn)
    assert drawn.shape == (300, 400)
    assert (columns.mean(), rows.mean()) == pytest.approx((3 * 40 + 10, 2 * 52 + 20), abs=1)
    assert measures.vertical_diameter(drawn) == pytest.approx(60, abs=1)
