import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from funduscope.postprocess import measures

small_masks = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))
nested_masks = arrays(np.uint8, (10, 10), elements=st.integers(0, 2)).map(lambda m: (m > 0, m == 2))
MODES = ("robust", "paper")


def gaussian(x, y, size=256, variance=50.0):
    axis = np.arange(size)
    rows, columns = np.exp(-((axis - y) ** 2) / (2 * variance)), np.exp(-((axis - x) ** 2) / (2 * variance))
    return np.outer(rows, columns).astype(np.float32)


def distance(found, x, y):
    return float(np.hypot(found[0] - x, found[1] - y))


def test_the_vertical_diameter_is_the_longest_column_not_the_box():
    staircase = np.zeros((8, 8), bool)
    staircase[0:4, 0] = staircase[3:8, 1] = True
    assert measures.vertical_diameter(staircase) == 5
    assert measures.bounding_box_height(staircase) == 8


def test_a_hole_does_not_count_in_the_vertical_diameter():
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    ring[:, [0, 1, 3, 4]] = False
    assert measures.vertical_diameter(ring) == 4
    assert measures.bounding_box_height(ring) == 5


@pytest.mark.parametrize("shape", [(5, 5), (0, 0)])
def test_an_empty_mask_has_no_height(shape):
    empty = np.zeros(shape, bool)
    assert measures.vertical_diameter(empty) == 0
    assert measures.bounding_box_height(empty) == 0


@given(small_masks)
def test_the_vertical_diameter_is_never_above_the_box(mask):
    assert measures.vertical_diameter(mask) <= measures.bounding_box_height(mask) <= mask.shape[0]


@given(small_masks)
def test_heights_do_not_depend_on_flips(mask):
    for flipped in (mask[::-1], mask[:, ::-1]):
        assert measures.vertical_diameter(flipped) == measures.vertical_diameter(mask)
        assert measures.bounding_box_height(flipped) == measures.bounding_box_height(mask)


@given(nested_masks)
def test_the_ratio_is_between_0_and_1_or_not_measurable(pair):
    disc, cup = pair
    ratio = measures.vcdr(disc, cup)
    assert (ratio is None) == (not cup.any())
    assert ratio is None or 0 < ratio <= 1


@given(nested_masks)
def test_the_ratio_does_not_depend_on_flips(pair):
    disc, cup = pair
    assert measures.vcdr(disc[::-1, ::-1], cup[::-1, ::-1]) == measures.vcdr(disc, cup)


@pytest.mark.parametrize("cup", [0, 1])
def test_the_ratio_of_an_empty_mask_is_none(cup):
    full, empty = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    assert measures.vcdr(full if cup == 0 else empty, empty) is None


def test_the_ratio_of_known_masks():
    disc, cup = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    disc[2:18, 3:17] = cup[6:14, 6:14] = True
    assert measures.vcdr(disc, cup) == 0.5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("x", "y"), [(128.0, 128.0), (60.3, 100.7), (200.25, 31.5)])
def test_the_centre_of_a_clean_map(mode, x, y):
    assert distance(measures.centre_of_mass(gaussian(x, y), mode), x, y) < 0.1


def test_a_faint_background_moves_the_papers_centre_but_not_the_robust_one():
    saliency = gaussian(60, 100) + np.float32(0.001)
    assert distance(measures.centre_of_mass(saliency, "paper"), 60, 100) > 5
    assert distance(measures.centre_of_mass(saliency, "robust"), 60, 100) < 0.5


def test_at_the_border_the_papers_centre_is_drawn_inwards():
    saliency = gaussian(5, 100)
    assert measures.centre_of_mass(saliency, "paper")[0] == pytest.approx(7.67, abs=0.01)
    assert measures.centre_of_mass(saliency, "robust")[0] == pytest.approx(5, abs=0.5)


def test_a_weaker_second_blob_moves_the_papers_centre_but_not_the_robust_one():
    saliency = np.maximum(gaussian(60, 100), 0.8 * gaussian(200, 100))
    assert distance(measures.centre_of_mass(saliency, "paper"), 60, 100) > 50
    assert distance(measures.centre_of_mass(saliency, "robust"), 60, 100) < 0.5


@pytest.mark.parametrize("mode", MODES)
def test_a_map_of_zeros_has_no_centre(mode):
    assert measures.centre_of_mass(np.zeros((16, 16), np.float32), mode) is None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("x", "y"), [(3, 11), (0, 0), (15, 15)])
def test_a_single_spike_is_its_own_centre(mode, x, y):
    saliency = np.zeros((16, 16), np.float32)
    saliency[y, x] = 0.7
    assert measures.centre_of_mass(saliency, mode) == (x, y)


@pytest.mark.parametrize("mode", MODES)
def test_an_even_map_has_its_centre_in_the_middle(mode):
    assert measures.centre_of_mass(np.ones((9, 17), np.float32), mode) == (8, 4)


@pytest.mark.parametrize("mode", MODES)
@given(x=st.floats(20, 44), y=st.floats(20, 44))
def test_the_centre_moves_along_with_a_flip(mode, x, y):
    saliency = gaussian(x, y, 64, 20.0)
    across = measures.centre_of_mass(saliency, mode)
    assert measures.centre_of_mass(saliency[:, ::-1], mode) == pytest.approx((63 - across[0], across[1]), abs=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_the_centre_does_not_depend_on_the_maps_strength(mode):
    saliency = gaussian(30, 40, 64)
    assert measures.centre_of_mass(saliency / 8, mode) == pytest.approx(measures.centre_of_mass(saliency, mode))


@pytest.mark.parametrize(
    ("disc", "fovea", "eye"),
    [
        ((300, 200), (200, 220), "right"),
        ((100, 200), (200, 220), "left"),
        ((300, 200), (200, 300), "right"),  # as much below as beside
        ((300, 200), (200, 301), None),  # more
        ((300, 200), (200, 99), None),
        ((250, 200), (200, 200), "right"),  # a disc's diameter
        ((249, 200), (200, 200), None),  # nearer
        ((151, 200), (200, 200), None),
        ((150, 200), (200, 200), "left"),
        ((200, 200), (200, 200), None),
    ],
)
def test_the_eye_is_told_by_the_side_of_the_disc(disc, fovea, eye):
    assert measures.eye_of(disc, fovea, 50) == eye


points = st.tuples(st.floats(0, 1000), st.floats(0, 1000))


@given(disc=points, fovea=points, diameter=st.floats(1, 300))
def test_a_mirrored_picture_shows_the_other_eye(disc, fovea, diameter):
    other = {"right": "left", "left": "right", None: None}
    mirrored = [(-x, y) for x, y in (disc, fovea)]
    assert measures.eye_of(*mirrored, diameter) == other[measures.eye_of(disc, fovea, diameter)]
    upside_down = [(x, -y) for x, y in (disc, fovea)]
    assert measures.eye_of(*upside_down, diameter) == measures.eye_of(disc, fovea, diameter)


@pytest.mark.parametrize("scale", [0.1, 7])
def test_the_eye_does_not_depend_on_the_pictures_size(scale):
    for x in (120, 180, 220, 300):
        small = measures.eye_of((x * scale, 200 * scale), (200 * scale, 210 * scale), 50 * scale)
        assert small == measures.eye_of((x, 200), (200, 210), 50)
