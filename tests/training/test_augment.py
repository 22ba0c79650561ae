import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funduscope.engine.labelled import dataset
from funduscope.engine.pictures import photo, preprocess
from funduscope.training import augment
from funduscope.training.augment import Augmentation
from funduscope.training.multitask import batches
from funduscope.training.multitask.config import Config

CACHE = 160
NOTHING = {
    "rotation_degrees": 0.0,
    "log_scale": 0.0,
    "shift": 0.0,
    "flip": False,
    "log_gain": 0.0,
    "log_gamma": 0.0,
    "blur_sigma_px": 0.0,
}


def settings(**changes):
    return Augmentation(**NOTHING | changes)


def configured(plan, cache, **changes):
    geometry = plan["geometry"] | {"cache": cache}
    return Config.model_validate(plan | {"geometry": geometry, "augment": NOTHING | changes})


def spot(x, y):
    """A cached picture with one bright round spot, which is the disc, the cup and the fovea."""
    axis = np.arange(CACHE)
    inside = (axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2 <= 8**2
    image = np.zeros((CACHE, CACHE, 3), np.uint8)
    image[inside] = 200
    return image, 2 * inside.astype(np.uint8), (x, y)


def centre(weights):
    rows, columns = np.indices(weights.shape)
    return np.array([(columns * weights).sum(), (rows * weights).sum()], float) / weights.sum()


def centres_after(config, cached, seed):
    """Where picture, mask and fovea target have the spot after augmentation."""
    image, mask, fovea, _ = batches.augmented(cached, config, np.random.default_rng(seed))
    peak = np.unravel_index(fovea.argmax(), fovea.shape)
    return centre(image[..., 1]), centre(mask == 2), np.array(peak[::-1], float)


def largest_distance(points):
    return max(np.hypot(*(a - b)) for a in points for b in points)


MOVES = {"rotation_degrees": 180.0, "log_scale": 0.3, "shift": 0.1, "flip": True}
COLOURS = {"log_gain": 0.2, "log_gamma": 0.2, "blur_sigma_px": 1.0}


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("region", ["full", "disc"])
def test_picture_masks_and_fovea_move_together(plan, region, seed):
    config = configured(plan, CACHE, **MOVES, **COLOURS)
    own = config.data.sets[0].model_copy(update={"region": region, "disc_scale": (0.4, 0.6)})
    cached = batches.Cached(None, own, *spot(95.0, 70.0))
    assert largest_distance(centres_after(config, cached, seed)) < 1


def test_a_label_that_stayed_behind_is_noticed(plan):
    config = configured(plan, CACHE, **MOVES)
    image, mask, _ = spot(95.0, 70.0)
    cached = batches.Cached(None, config.data.sets[0], image, mask, (80.0, 70.0))
    assert all(largest_distance(centres_after(config, cached, seed)) > 1 for seed in range(25))


def test_the_spot_is_not_always_in_one_place(plan):
    config = configured(plan, CACHE, **MOVES)
    cached = batches.Cached(None, config.data.sets[0], *spot(95.0, 70.0))
    assert largest_distance([centres_after(config, cached, seed)[0] for seed in range(10)]) > 5


def test_a_disc_region_is_placed_at_its_scale(plan):
    config = configured(plan, CACHE)
    cached = batches.Cached(None, config.data.sets[0], *spot(80, 80), scale=(0.5, 0.5))
    _, mask, _, _ = batches.augmented(cached, config, np.random.default_rng(0))
    expected = np.pi * (8 * 0.5 * 64 / CACHE) ** 2
    assert (mask == 2).sum() == pytest.approx(expected, rel=0.35)


@pytest.fixture
def samples(drawn_root):
    return dataset.load(drawn_root / "eyes")


def test_without_augmentation_training_sees_the_engines_own_picture(plan, samples):
    config = configured(plan, 64)
    geometry = preprocess.Geometry(64, 24)
    for sample in samples:
        engines = preprocess.prepare(photo.load(sample.image), geometry)
        cached = batches.prepare(sample, config.data.sets[0], geometry)
        image, mask, fovea, _ = batches.augmented(cached, config, np.random.default_rng(0))
        drawn = sample.read_masks()
        assert np.array_equal(image, engines.image)
        assert np.array_equal(mask > 0, engines.placement.square_mask(drawn.disc, 64))
        assert np.array_equal(mask == 2, engines.placement.square_mask(drawn.cup, 64))
        peak = np.unravel_index(fovea.argmax(), fovea.shape)
        assert peak[::-1] == pytest.approx(engines.placement.to_square(*sample.fovea), abs=0.5)


@pytest.mark.parametrize("change", [{"shift": 0.05}, {"log_gain": 0.2}, {"rotation_degrees": 5.0}, {"log_gamma": 0.2}])
def test_with_any_augmentation_it_is_another_picture(plan, samples, change):
    config = configured(plan, 64, **change)
    cached = batches.prepare(samples[0], config.data.sets[0], preprocess.Geometry(64, 24))
    image, *_ = batches.augmented(cached, config, np.random.default_rng(0))
    assert not np.array_equal(image, cached.image)


def test_colour_leaves_the_labels_alone(plan, samples):
    cached = batches.prepare(samples[0], configured(plan, 64).data.sets[0], preprocess.Geometry(64, 24))
    _, mask, fovea, _ = batches.augmented(cached, configured(plan, 64, **COLOURS), np.random.default_rng(0))
    assert np.array_equal(mask, cached.mask)
    assert np.array_equal(fovea, batches.gaussian_map(*cached.fovea, 64, 10.0))


def test_a_flip_mirrors_about_half_of_the_pictures(plan, samples):
    config = configured(plan, 64, flip=True)
    cached = batches.prepare(samples[0], config.data.sets[0], preprocess.Geometry(64, 24))
    mirrored = 0
    for seed in range(40):
        image, *_ = batches.augmented(cached, config, np.random.default_rng(seed))
        same = np.array_equal(image, cached.image)
        assert same or np.abs(image.astype(int) - cached.image[:, ::-1]).max() <= 1
        mirrored += not same
    assert 10 < mirrored < 30


def test_a_move_stays_in_its_ranges():
    ranges = settings(rotation_degrees=10.0, log_scale=0.2, shift=0.1)
    for seed in range(50):
        matrix = augment.affine(ranges, 200, 100, np.random.default_rng(seed))
        angle = np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0]))
        zoom = np.hypot(matrix[0, 0], matrix[1, 0]) * 2
        moved = np.subtract(augment.move_point(matrix, 99.5, 99.5), 49.5)
        assert abs(angle) <= 10
        assert abs(np.log(zoom)) <= 0.2 + 1e-9
        assert np.abs(moved).max() <= 10


def test_no_move_maps_corner_to_corner():
    matrix = augment.affine(settings(), 200, 100, np.random.default_rng(0))
    assert augment.move_point(matrix, -0.5, -0.5) == pytest.approx((-0.5, -0.5))
    assert augment.move_point(matrix, 199.5, 199.5) == pytest.approx((99.5, 99.5))


@given(st.integers(0, 10_000))
def test_no_colour_change_gives_the_same_pixels(seed):
    image = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(augment.colour(image, settings(), np.random.default_rng(seed)), image)


def test_channels_get_gains_of_their_own():
    image = np.full((8, 8, 3), 100, np.uint8)
    changed = augment.colour(image, settings(log_gain=0.3), np.random.default_rng(0))
    assert changed.shape == image.shape
    assert len(set(changed[0, 0].tolist())) == 3


CAMERAS = [{"log_channel_gamma": 0.3}, {"log_saturation": 0.5}, {"log_resolution": 0.7}, {"jpeg_loss": 80}]


def smooth(side=64):
    """A picture with edges and colours."""
    image = np.random.default_rng(5).integers(30, 200, (side // 8, side // 8, 3), np.uint8)
    return np.kron(image, np.ones((8, 8, 1), np.uint8))


@pytest.mark.parametrize("change", CAMERAS)
def test_each_camera_changes_pictures_a_little(change):
    image = smooth()
    changed = [augment.colour(image, settings(**change), np.random.default_rng(seed)) for seed in range(30)]
    assert {(one.shape, one.dtype) for one in changed} == {(image.shape, image.dtype)}
    apart = [np.abs(one.astype(int) - image).mean() for one in changed]
    assert max(apart) > 1
    assert max(apart) < 40
    if change.keys() & {"log_resolution", "jpeg_loss"}:  # those are for half of the pictures
        assert 5 < sum(value == 0 for value in apart) < 25


@pytest.mark.parametrize("change", CAMERAS)
def test_the_same_draw_gives_the_same_camera(change):
    first, second = (augment.colour(smooth(), settings(**change), np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second)


def test_saturation_leaves_grey_alone():
    grey = np.repeat(smooth()[..., :1], 3, axis=2)
    for seed in range(10):
        changed = augment.colour(grey, settings(log_saturation=0.5), np.random.default_rng(seed))
        assert np.abs(changed.astype(int) - grey).max() <= 1


def test_a_camera_that_is_off_draws_nothing():
    rng, untouched = np.random.default_rng(0), np.random.default_rng(0)
    augment.camera(smooth(), settings(), rng)
    assert rng.random() == untouched.random()


@pytest.mark.parametrize("change", [{"jpeg_loss": 96}, {"jpeg_loss": -1}, {"log_resolution": -0.1}])
def test_a_camera_out_of_range_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        settings(**change)


def test_a_negative_range_is_refused():
    with pytest.raises(ValueError, match="shift"):
        settings(shift=-0.1)
