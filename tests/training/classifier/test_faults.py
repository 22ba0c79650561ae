"""Quality: what brightness says, what is gathered, what the fitted layer tells apart, and that it goes through to a contract."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from funduscope.engine.errors import DataError
from funduscope.engine.readers.quality import FAULTS, IMAGE_QUALITY, SCORES
from funduscope.training.classifier import batches, config, faults, foreign
from funduscope.training.classifier.deploy import deploy
from funduscope.training.classifier.networks import OUTPUTS, Deployed
from funduscope.training.classifier.networks import Classifier as Network
from funduscope.training.classifier.quality import MEASURES, Quality, brightness

OWN = {
    "pictures": 6,
    "foreign": 4,
    "seen": dict.fromkeys(FAULTS, 0.9),
    "refused": 0.05,
    "regularisation": 0.1,
    "least_px": {"glaucoma": 40.0},
    "best": 10.0,
}


@pytest.fixture
def seen(plan, graded_root, build):
    """A config with [quality], a network, its samples."""
    from funduscope.training.classifier import job

    pytest.importorskip("skimage")
    network = plan["network"] | {"architecture": "small-cnn", "hidden": 0}
    settings = build(plan | {"network": network, "quality": OWN})
    torch.manual_seed(0)
    return settings, Network(settings.network).eval(), job.load_samples(settings, graded_root)


def test_brightness_is_measured_inside_the_field():
    images = torch.zeros(2, 40, 40, 3, dtype=torch.uint8)
    images[:, :20] = torch.tensor([200, 100, 50], dtype=torch.uint8)
    images[1, :10] = 255
    found = brightness(images).numpy()
    assert found.shape == (2, MEASURES)
    assert found[0] == pytest.approx(
        [200 / 255, 100 / 255, 0.5, *(v / 255 for v in (200, 200, 100, 50)), 0, 0, 0], abs=1e-6
    )
    assert found[1, -2:] == pytest.approx([0.5, 0.5])
    assert brightness(torch.zeros(1, 8, 8, 3, dtype=torch.uint8)).isfinite().all()


def test_what_is_gathered_names_each_fault_where_it_is_known(seen):
    settings, network, pairs = seen
    geometry = settings.preparation(settings.geometry.size).build()
    samples = [sample for sample, _ in pairs][:3]
    found = faults.gather(network, samples, geometry, settings.quality, seed=0)
    assert found.features.shape[0] == len(found.kinds) == len(found.faults["dark"])
    assert found.kinds.count(faults.AS_IT_IS) == 3
    kinds = np.array(found.kinds)
    assert all(set(values[kinds == faults.AS_IT_IS]) == {0} for values in found.faults.values())
    for kind in foreign.DRAWN:
        assert set(found.faults["not_a_fundus"][kinds == kind]) <= {1}
        assert set(found.faults["dark"][kinds == kind]) <= {-1}
    assert set(found.faults["not_a_fundus"][kinds == "defocused"]) == {0}


@pytest.fixture
def judged(seen):
    """The photographs of `seen` that are not tested on, prepared, each with a quality that goes by its brightness."""
    settings, _, pairs = seen
    geometry = settings.preparation(settings.geometry.size).build()
    pictures = batches.prepare_all([pair for pair in pairs if pair[0].split != "test"], geometry, 1)
    return [replace(own, sample=replace(own.sample, quality=1 + 8 * float(own.image.mean()) / 255)) for own in pictures]


def fitted(seen, pictures, **changes):
    settings, network, pairs = seen
    own = settings.quality.model_copy(update=changes)
    return faults.fit(network, pairs, pictures, settings.preparation(settings.geometry.size).build(), own, seed=0)


def test_the_fitted_layer_goes_through_to_the_outputs(seen, judged):
    settings, network, _ = seen
    found = fitted(seen, judged)
    assert set(found["thresholds"]) == set(FAULTS)
    assert set(found["weights"]) == set(found["report"]) == set(SCORES)
    assert all(0 < value < 1 for value in found["thresholds"].values())
    assert all(found["report"][name]["seen"] <= 0.95 for name in FAULTS)  # no lower than was asked
    assert found["least_px"] == OWN["least_px"]
    assert found["report"]["not_a_fundus"]["auc"] > 0.8  # even an untrained network tells letters from a retina
    assert found["report"][IMAGE_QUALITY]["rank_correlation"] > 0.7  # and how bright a picture is
    diseases = dict.fromkeys(("glaucoma", "referable_dr", "any_dr"), 1.0)
    deployed = Deployed(network, diseases, Quality.of(found["weights"])).eval()
    size = settings.geometry.size
    images = torch.randint(0, 255, (2, size, size, 3), dtype=torch.uint8)
    with torch.inference_mode():
        outputs = dict(zip(deployed.outputs, deployed(images), strict=True))
        logits = Quality.of(found["weights"])(images, network.heat(images).features)
    assert tuple(outputs)[-len(SCORES) :] == SCORES
    for k, name in enumerate(SCORES):
        assert outputs[name].tolist() == pytest.approx(torch.sigmoid(logits[:, k]).tolist())


@pytest.mark.parametrize("best", [10.0, None])
def test_it_goes_through_to_what_the_contract_states(seen, judged, best):
    settings, network, _ = seen
    found = fitted(seen, judged, best=best)
    rate = {"value": 0.9, "low": 0.8, "high": 0.95}
    point = {"threshold": 0.5, "uncertain_logit": 0.1, "sensitivity": rate, "specificity": rate}
    points = dict.fromkeys(("high_sensitivity", "balanced", "high_specificity"), point)
    decisions = {name: {"temperature": 1.0, "points": points, "map_scale": None} for name in OUTPUTS}
    calibration = {"decisions": decisions, "point": "balanced", "disagreement": 0.5, "quality": found}
    deployed = deploy(settings, {"network": network.state_dict()}, calibration)
    names = SCORES if best else tuple(FAULTS)
    assert set(found["weights"]) == {*names}
    assert deployed.fields["quality"].image_quality is (best is not None)
    assert deployed.fields["quality"].outputs() == [*names]
    assert [own.name for own in deployed.fields["outputs"]] == list(deployed.network.outputs)
    assert deployed.network.outputs[-len(names) :] == names


def test_the_best_and_the_worst_there_is_are_learned(seen, judged):
    ends = [replace(own, sample=replace(own.sample, quality=5.0 * (k % 2))) for k, own in enumerate(judged)]
    found = fitted(seen, ends, best=5.0)
    assert np.isfinite(found["weights"][IMAGE_QUALITY]["weight"]).all()


def test_a_judgement_off_the_scale_or_none_at_all_is_refused_before_anything_is_looked_at(seen, judged, monkeypatch):
    monkeypatch.setattr(faults, "gather", None)
    with pytest.raises(DataError, match=r"not 0 to 0\.5; set quality\.best to the best there is"):
        fitted(seen, judged, best=0.5)
    unknown = [replace(own, sample=replace(own.sample, quality=None)) for own in judged]
    with pytest.raises(DataError, match=r"no training picture has a quality; leave out quality\.best"):
        fitted(seen, unknown)


def test_dense_layers_have_no_quality(plan, build):
    network = plan["network"] | {"architecture": "alexnet", "hidden": 64}
    with pytest.raises(ValueError, match=r"set network\.hidden to 0"):
        build(plan | {"network": network, "quality": OWN})


def test_a_quality_part_says_how_much_of_what():
    with pytest.raises(ValueError, match="seen: lacks dark"):
        config.Quality(**OWN | {"seen": {name: 0.9 for name in FAULTS if name != "dark"}})
    with pytest.raises(ValueError, match="refused"):
        config.Quality(**OWN | {"refused": 1.5})
