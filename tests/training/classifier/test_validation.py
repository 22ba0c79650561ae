import numpy as np
import pytest
import torch

from funduscope.engine.labelled.sample import Sample
from funduscope.training.classifier import config, validation
from funduscope.training.classifier.batches import Picture
from funduscope.training.classifier.networks import OUTPUTS, Classifier

CPU = torch.device("cpu")


def samples_of(name, *labels):
    return [Sample(None, name, "val", glaucoma=glaucoma, dr_grade=grade) for glaucoma, grade in labels]


EYES = samples_of("eyes", (1, None), (1, None), (0, None), (0, None), (0, 3))
GRADES = samples_of("grades", (None, 0), (None, 1), (None, 2), (None, 4))
LOGITS = {
    "glaucoma": np.array([2.0, -1.0, 0.0, -3.0, -2.0, 9, 9, 9, 9]),  # a logit of 0 is called
    "referable_dr": np.array([9, 9, 9, 9, 1.0, -1.0, 1.0, 3.0, 2.0]),
    "any_dr": np.array([9, 9, 9, 9, 1.0, -1.0, 1.0, 3.0, 2.0]),
}


def test_figures_are_of_each_set_alone_and_of_all():
    figures = validation.measure([*EYES, *GRADES], LOGITS)
    assert list(figures) == ["eyes", "grades", "all"]
    eyes = {k: v for k, v in figures["eyes"].items() if k.startswith("glaucoma")}
    counts = {"glaucoma_tp": 1, "glaucoma_fp": 1, "glaucoma_fn": 1, "glaucoma_tn": 2}
    rates = {"glaucoma_precision": 1 / 2, "glaucoma_recall": 1 / 2, "glaucoma_f1": 1 / 2, "glaucoma_accuracy": 3 / 5}
    low, high = eyes.pop("glaucoma_auc_low"), eyes.pop("glaucoma_auc_high")
    assert 0 < low < 5 / 6 < high < 1
    assert eyes == counts | rates | {"glaucoma_auc": pytest.approx(5 / 6)}
    assert (figures["all"]["referable_dr_tp"], figures["all"]["referable_dr_fp"]) == (3, 1)
    assert figures["grades"]["any_dr_f1"] == 1
    assert figures["grades"]["any_dr_auc"] == 1


def test_what_a_set_cannot_measure_is_absent():
    figures = validation.measure([*EYES, *GRADES], LOGITS)
    assert not any(key.startswith("glaucoma") for key in figures["grades"])
    assert "referable_dr_auc" not in figures["eyes"]
    assert figures["eyes"]["referable_dr_recall"] == 1
    bare = samples_of("bare", (None, None))
    assert validation.measure(bare, {name: np.zeros(1) for name in OUTPUTS}) == {}


def test_the_score_is_the_mean_of_the_two_diseases():
    figures = validation.measure([*EYES, *GRADES], LOGITS)
    assert validation.score(figures, "f1") == pytest.approx((1 / 2 + 6 / 7) / 2)
    assert validation.score(figures, "auc") == pytest.approx((5 / 6 + 1) / 2)


def test_an_f1_that_does_not_exist_counts_as_nothing():
    assert validation.score({"all": {"glaucoma_f1": 0.5}}, "f1") == 0.25


def measured(area, *, sick, healthy, disease="glaucoma"):
    return {
        f"{disease}_auc": area,
        f"{disease}_tp": sick,
        f"{disease}_fn": 0,
        f"{disease}_tn": healthy,
        f"{disease}_fp": 0,
    }


def test_sets_weigh_the_same_in_the_auc_those_with_few_of_a_class_less():
    figures = {
        "a": measured(0.9, sick=20, healthy=300) | measured(0.7, sick=40, healthy=40, disease="referable_dr"),
        "b": measured(0.5, sick=90, healthy=20),
        "c": {"any_dr_auc": 0.1},
        "all": {"glaucoma_auc": 0.0, "referable_dr_auc": 0.0},
    }
    assert validation.score(figures, "auc") == pytest.approx(0.7)
    figures["d"] = measured(0.2, sick=7, healthy=2)  # a tenth of 20
    assert validation.score(figures, "auc") == pytest.approx(((0.9 + 0.5 + 0.1 * 0.2) / 2.1 + 0.7) / 2)


@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_two_sets_of_one_class_each_have_a_score_all_the_same():
    sets = [*samples_of("sick", (1, 3), (1, 2)), *samples_of("healthy", (0, 0), (0, 0))]
    figures = validation.measure(sets, {name: np.array([2.0, 1.0, -1.0, -2.0]) for name in OUTPUTS})
    assert 0 <= validation.score(figures, "auc") <= 1


def test_pictures_are_predicted_in_order_whatever_the_batch():
    torch.manual_seed(0)
    settings = config.Network(architecture="small-cnn", input="grey", hidden=0, dropout=0.5, severity=True, imagenet="")
    network = Classifier(settings)
    images = [np.random.default_rng(k).integers(0, 256, (64, 64, 3), np.uint8) for k in range(18)]
    pictures = [Picture(None, None, image) for image in images]
    found = validation.predict(network, pictures, CPU)
    assert found.keys() == {*OUTPUTS, "severe_dr", "proliferative_dr"}
    assert {(z.dtype, z.shape) for z in found.values()} == {(np.dtype(np.float64), (18,))}
    for k in (0, 15, 16, 17):
        alone = validation.predict(network, [pictures[k]], CPU)
        assert all(abs(alone[name][0] - found[name][k]) < 1e-5 for name in found)
    assert np.abs(np.diff(found["glaucoma"])).min() > 1e-5


def test_known_labels_are_read_by_target():
    has, truth = validation.known([*EYES, *GRADES], "referable_dr")
    assert has.tolist() == [False] * 4 + [True] * 5
    assert truth.tolist() == [1, 0, 0, 1, 1]
