"""Figures on labelled pictures, beside figures that were computed by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from funduscope.engine.errors import DataError
from funduscope.engine.findings import Decision
from funduscope.engine.labelled import dataset, evaluation
from funduscope.engine.labelled.sample import Sample
from funduscope.engine.readers.quality import QualityPart

pytestmark = pytest.mark.usefixtures("any_colours")

# green, red, blue: what the drawn classifier takes for glaucoma, referable and any retinopathy; then the labels
PICTURES = [
    ((204, 51, 90), 1, 0),
    ((153, 179, 90), 1, 1),
    ((76, 204, 90), 1, 2),
    ((51, 230, 90), 0, 3),
    ((128, 102, 180), 0, 4),
    ((26, 153, 180), 0, None),
    ((105, 26, 180), 0, 0),  # .412: the classifier abstains on glaucoma
]


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1])


@pytest.fixture
def clinic(tmp_path) -> Path:
    """The pictures above, and a black one with both diseases."""
    folder = tmp_path / "clinic"
    lines = ["image,split,glaucoma,dr_grade"]
    for k, ((green, red, blue), glaucoma, grade) in enumerate([*PICTURES, ((0, 0, 0), 1, 2)]):
        write(folder / f"{k}.png", np.full((192, 192, 3), (red, green, blue), np.uint8))
        lines.append(f"{k}.png,test,{glaucoma},{'' if grade is None else grade}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


def evaluated(opened, folder: Path) -> dict:
    with opened:
        figures = evaluation.evaluate(opened, evaluation.choose(dataset.load(folder), "test"))
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    return figures[folder.name]


def test_the_classifiers_figures_are_those_by_hand(fake, classifier, clinic):
    found = evaluated(fake(models=[classifier]), clinic)
    assert set(found) == {"n", "n_rejected", "decisions", "quality", "scores"}
    assert set(found["decisions"]) == {"glaucoma_second", "referable_dr", "any_dr"}
    assert found["quality"] == {}
    assert found["scores"] == {}
    assert (found["n"], found["n_rejected"]) == (8, 1)
    glaucoma, referable, any_dr = (found["decisions"][name] for name in ("glaucoma_second", "referable_dr", "any_dr"))
    # sick .8, .6, .298 and the black one; healthy .2, .502, .102, .412; from .4
    assert (glaucoma["auc"]["n"], glaucoma["auc"]["n_not_measurable"]) == (8, 1)
    assert glaucoma["auc"]["value"] == pytest.approx((4 + 4 + 2) / 12)
    at = glaucoma["at_threshold"]
    assert (at["threshold"], at["tp"], at["fn"], at["fp"], at["tn"]) == (0.4, 2, 1, 2, 2)
    assert at["sensitivity"] == pytest.approx({"value": 2 / 3, "low": 0.20766, "high": 0.93852}, abs=1e-4)
    assert at["specificity"] == pytest.approx({"value": 1 / 2, "low": 0.15004, "high": 0.84996}, abs=1e-4)
    assert glaucoma["n_uncertain_sick"] + glaucoma["n_uncertain_healthy"] == 1
    called = {whose: (own["called"], own["n"]) for whose, own in glaucoma["called"].items()}
    assert called == {"sick": (2, 4), "healthy": (1, 4)}  # the black one is sick and not called
    assert glaucoma["called"]["sick"]["value"] == 1 / 2
    # of grade 2 to 4: .8, .902, .4; of grade 0 and 1: .2, .702, .102; from .5
    assert (referable["auc"]["n"], referable["auc"]["n_not_measurable"]) == (7, 1)
    assert referable["auc"]["value"] == pytest.approx((3 + 3 + 2) / 9)
    at = referable["at_threshold"]
    assert (at["threshold"], at["tp"], at["fn"], at["fp"], at["tn"]) == (0.5, 2, 1, 1, 2)
    assert referable["n_uncertain_sick"] + referable["n_uncertain_healthy"] == 0
    # of grade 1 to 4: .353, .353, .353, .706; of grade 0: .353, .706; from .45
    assert any_dr["auc"]["value"] == pytest.approx((3 * (0.5 + 0) + (1 + 0.5)) / 8)
    at = any_dr["at_threshold"]
    assert (at["tp"], at["fn"], at["fp"], at["tn"]) == (1, 3, 1, 1)


def test_scores_of_quality_are_held_against_the_sets_own_judgement(fake, classifier, clinic, opinions):
    lines = (clinic / "index.csv").read_text().splitlines()
    judged = [
        f"{lines[0]},quality",
        *(f"{line},{quality}" for line, quality in zip(lines[1:4], (9, 5, 7), strict=True)),
    ]
    (clinic / "index.csv").write_text("\n".join(judged) + "\n")
    part = QualityPart(thresholds={"blurred": 0.99, "dark": 0.99}, least_px={}, image_quality=True)
    knowing = dataclasses.replace(classifier, contract=classifier.contract.model_copy(update={"quality": part}))

    def classify(image):
        return opinions() | {
            "blurred": np.float32(image[0, 0, 1] / 255),
            "dark": np.float32(0.5),
            "image_quality": np.float32(image[0, 0, 1] / 255),
        }

    found = evaluated(fake(models=[knowing], classify=classify), clinic)["quality"]
    assert found["blurred"]["n"] == 3
    assert found["blurred"]["mean"] == pytest.approx(np.corrcoef([3, 2, 1], [3, 1, 2])[0, 1])
    assert found["image_quality"]["mean"] == found["blurred"]["mean"]
    assert found["dark"]["mean"] is None


def test_the_operating_point_moves_the_counts_and_not_the_area(fake, classifier, clinic):
    found = {
        point: evaluated(fake(models=[classifier], point=point), clinic)["decisions"]["glaucoma_second"]
        for point in ("high_sensitivity", "balanced", "high_specificity")
    }
    assert [own["at_threshold"]["threshold"] for own in found.values()] == [0.2, 0.4, 0.6]
    counts = [tuple(own["at_threshold"][key] for key in ("tp", "fn", "fp", "tn")) for own in found.values()]
    assert counts == [(3, 0, 3, 1), (2, 1, 2, 2), (2, 1, 0, 4)]
    assert len({own["auc"]["value"] for own in found.values()}) == 1


def test_a_disease_that_is_not_labelled_has_no_figure(fake, classifier, clinic):
    lines = [",".join(line.split(",")[:3]) for line in (clinic / "index.csv").read_text().splitlines()]
    (clinic / "index.csv").write_text("\n".join(lines) + "\n")
    assert set(evaluated(fake(models=[classifier]), clinic)["decisions"]) == {"glaucoma_second"}


def test_one_class_alone_has_no_area_and_no_rate_of_the_other(fake, classifier, clinic):
    lines = (clinic / "index.csv").read_text().splitlines()
    (clinic / "index.csv").write_text("\n".join(lines[:4]) + "\n")
    found = evaluated(fake(models=[classifier]), clinic)["decisions"]["glaucoma_second"]
    assert found["auc"] == {"n": 3, "n_not_measurable": 0, "value": None, "low": None, "high": None}
    assert found["at_threshold"]["specificity"] is None
    assert found["at_threshold"]["sensitivity"]["value"] == pytest.approx(2 / 3)


def test_a_set_of_rejected_pictures_has_no_counts(fake, classifier, clinic):
    lines = (clinic / "index.csv").read_text().splitlines()
    (clinic / "index.csv").write_text("\n".join([lines[0], lines[-1]]) + "\n")
    found = evaluated(fake(models=[classifier]), clinic)
    assert (found["n"], found["n_rejected"]) == (1, 1)
    assert set(found["decisions"]["glaucoma_second"]) == {"auc", "called"}
    assert found["decisions"]["glaucoma_second"]["called"]["sick"]["called"] == 0


def test_both_models_are_measured_at_once(both, fake, painter, classifier, clinic):
    def paint(image):
        return painter.maps(glaucoma=image[128, 128, 1] / 255)

    found = evaluated(both(paint), clinic)
    for own in found["decisions"].values():
        own.pop("heat_in_disc", None)  # at the discs that the multi-task model found
    first, second = evaluated(fake(paint), clinic), evaluated(fake(models=[classifier]), clinic)
    assert found == first | {"decisions": first["decisions"] | second["decisions"]}
    assert set(first["decisions"]) == {"glaucoma"}
    assert set(found["scores"]) == {"glaucoma_network", "glaucoma_vcdr"}
    assert found["scores"]["glaucoma_network"]["value"] == pytest.approx((4 + 4 + 2) / 12)
    assert found["scores"]["glaucoma_vcdr"]["value"] == pytest.approx(1 / 2)  # all have the same
    assert found["decisions"]["glaucoma"]["auc"]["n_not_measurable"] == 1


def test_a_picture_too_dark_for_the_classifier_is_not_measurable(both, clinic):
    write(clinic / "0.png", np.full((192, 192, 3), (40, 0, 0), np.uint8))
    found = evaluated(both(), clinic)
    assert found["n_rejected"] == 2
    assert found["decisions"]["glaucoma"]["auc"]["n_not_measurable"] == 2
    assert found["decisions"]["glaucoma_second"]["auc"]["n_not_measurable"] == 2


def test_each_set_stands_alone(fake, classifier, clinic):
    samples = dataset.load(clinic)
    other = [Sample(one.image, "other", "test", glaucoma=1 - one.glaucoma) for one in samples]
    with fake(models=[classifier]) as opened:
        figures = evaluation.evaluate(opened, [*samples, *other])
    areas = [figures[name]["decisions"]["glaucoma_second"]["auc"]["value"] for name in ("clinic", "other")]
    assert areas == pytest.approx([10 / 12, 2 / 12])
    assert set(figures["other"]["decisions"]) == {"glaucoma_second"}


def test_pictures_with_any_label_are_chosen_of_their_split():
    def one(name, split="test", **labels):
        return Sample(Path(name), "clinic", split, **labels)

    labelled = [one("a", glaucoma=0), one("b", dr_grade=0), one("c", fovea=(1, 2)), one("d", mask=Path("m"))]
    assert evaluation.choose([one("e"), *labelled, one("f", "val", glaucoma=1)], "test") == labelled


def test_without_pictures_there_is_nothing_to_measure(fake):
    with fake() as opened, pytest.raises(DataError, match="no pictures to evaluate"):
        evaluation.evaluate(opened, [])


# how much of the heat lies at the disc

FIELD, DISC = (30, 20, 160), (90, 70, 20)  # left, top, side
ROWS, COLUMNS = np.mgrid[:200, :240]
BESIDE = [np.maximum(0, np.maximum(start - axis, axis - start - 19)) for axis, start in ((COLUMNS, 90), (ROWS, 70))]
NEAR = np.hypot(*BESIDE) <= 10  # a disc's radius around the disc, whose corners it rounds
CHANCE = (20**2 + 4 * 20 * 10 + 4 * 69) / 160**2  # the square, its sides, and of each corner a quarter of a circle


def drawn_disc(folder: Path, disc_level: int) -> Path:
    """A square field on black, a square disc in it, and its mask."""
    pixels, mask = np.zeros((200, 240, 3), np.uint8), np.zeros((200, 240), np.uint8)
    for picture, (left, top, side), value in (
        (pixels, FIELD, 90),
        (pixels, DISC, disc_level),
        (mask, DISC, 1),
    ):
        picture[top : top + side, left : left + side] = value
    write(folder / "0.png", pixels)
    cv2.imwrite(str(folder / "mask.png"), mask)
    (folder / "index.csv").write_text("image,split,mask,mask_has,glaucoma\n0.png,test,mask.png,disc,1\n")
    return folder


def test_even_heat_is_at_the_disc_by_chance(fake, classifier, tmp_path):
    found = evaluated(fake(models=[classifier]), drawn_disc(tmp_path / "clinic", 90))["decisions"]
    for verdict in ("glaucoma_second", "referable_dr", "any_dr"):
        assert (found[verdict]["heat_in_disc"]["n"], found[verdict]["heat_in_disc"]["n_not_measurable"]) == (1, 0)
        assert found[verdict]["heat_in_disc"]["chance"] == pytest.approx(CHANCE)
        assert found[verdict]["heat_in_disc"]["share"] == pytest.approx(CHANCE, rel=1e-4)
    assert set(found["referable_dr"]) == {"heat_in_disc"}  # not labelled


@pytest.mark.parametrize(("level", "above"), [(255, True), (0, False)])
def test_heat_at_the_disc_is_more_than_by_chance_and_cold_less(fake, classifier, tmp_path, level, above):
    folder = drawn_disc(tmp_path / "clinic", level)
    found = evaluated(fake(models=[classifier]), folder)["decisions"]["glaucoma_second"]["heat_in_disc"]
    with fake(models=[classifier]) as opened:
        heat = opened(folder / "0.png").decisions["glaucoma_second"].heat.on_photo(240, 200)
    lit = np.zeros((200, 240), bool)
    left, top, side = FIELD
    lit[top : top + side, left : left + side] = True
    if level == 0:
        lit[DISC[1] : DISC[1] + DISC[2], DISC[0] : DISC[0] + DISC[2]] = False
    assert found["share"] == pytest.approx((heat * lit)[NEAR].sum() / (heat * lit).sum(), rel=1e-6)
    assert found["chance"] == pytest.approx(lit[NEAR].sum() / lit.sum())
    assert (found["share"] > 1.2 * found["chance"]) is above
    assert above or found["share"] < found["chance"]


def test_a_picture_without_heat_is_counted_and_not_measured(fake, classifier, opinions, tmp_path):
    folder = drawn_disc(tmp_path / "clinic", 90)
    write(folder / "1.png", np.full((200, 240, 3), 90, np.uint8))
    with (folder / "index.csv").open("a") as index:
        index.write("1.png,test,mask.png,disc,0\n")
    heat = iter((1, 0))
    hot = fake(
        models=[classifier], classify=lambda image: opinions() | {"glaucoma_map": np.full((12, 12), next(heat), "f4")}
    )
    found = evaluated(hot, folder)["decisions"]
    glaucoma, any_dr = (found[name]["heat_in_disc"] for name in ("glaucoma_second", "any_dr"))
    assert (glaucoma["n"], glaucoma["n_not_measurable"], glaucoma["share"]) == (2, 1, pytest.approx(CHANCE))
    assert any_dr == {"n": 2, "n_drawn": 2, "n_not_measurable": 2, "share": None, "chance": None}


def test_where_no_disc_is_drawn_the_found_one_serves(both, fake, classifier, painter, tmp_path):
    folder = drawn_disc(tmp_path / "clinic", 90)
    (folder / "index.csv").write_text("image,split,glaucoma\n0.png,test,1\n")
    with both(lambda image: painter.maps()) as opened:
        disc = opened(folder / "0.png").mask("disc")
    radius = np.flatnonzero(disc.any(axis=1)).size // 2
    rows, columns = np.nonzero(disc)
    near = np.hypot(ROWS - rows.mean(), COLUMNS - columns.mean()) <= np.sqrt(disc.sum() / np.pi) + radius
    found = evaluated(both(lambda image: painter.maps()), folder)["decisions"]["glaucoma_second"]["heat_in_disc"]
    assert (found["n"], found["n_drawn"], found["n_not_measurable"]) == (1, 0, 0)
    assert found["chance"] == pytest.approx(near.sum() / 160**2, rel=0.1)
    assert "heat_in_disc" not in evaluated(fake(models=[classifier]), folder)["decisions"]["glaucoma_second"]


def drawn_lesion(folder: Path, *, drawn: bool = True) -> Path:
    """The picture with the bright square, which is drawn as a lesion."""
    drawn_disc(folder, 255)
    bits = cv2.imread(str(folder / "mask.png"), cv2.IMREAD_UNCHANGED) * np.uint8(4 if drawn else 0)
    cv2.imwrite(str(folder / "lesions.png"), bits)
    (folder / "index.csv").write_text("image,split,lesions\n0.png,test,lesions.png\n")
    return folder


NEAR_LESION = np.hypot(*BESIDE) <= 0.02 * 240


def spot(x: int, y: int) -> np.ndarray:
    """A heat map of 12 x 12 cells with one hot cell."""
    cells = np.zeros((12, 12), "f4")
    cells[y, x] = 1
    return cells


@pytest.mark.parametrize(("hot", "at"), [((5, 5), True), ((9, 9), False)])
def test_heat_at_lesions_is_measured_beside_chance(fake, classifier, opinions, tmp_path, hot, at):
    folder = drawn_lesion(tmp_path / "clinic")
    outputs = opinions() | {"referable_dr_map": spot(*hot)}
    models = {"models": [classifier], "classify": lambda image: outputs}
    found = evaluated(fake(**models), folder)["decisions"]
    with fake(**models) as opened:
        heat = opened(folder / "0.png").decisions["referable_dr"].heat.on_photo(240, 200)
    field = np.zeros((200, 240), bool)
    field[20:180, 30:190] = True
    own = found["referable_dr"]["heat_in_lesions"]
    assert (own["n"], own["n_not_measurable"], own["pointing"]) == (1, 0, at)
    assert own["share"] == pytest.approx((heat * field)[NEAR_LESION].sum() / (heat * field).sum(), rel=1e-6)
    assert own["chance"] == pytest.approx(NEAR_LESION.sum() / 160**2)
    assert (own["share"] > own["chance"]) is at
    assert found["any_dr"]["heat_in_lesions"]["n_not_measurable"] == 1  # it has no heat
    assert "glaucoma_second" not in found


def test_even_heat_points_at_lesions_by_chance(fake, classifier, opinions, tmp_path):
    even = opinions() | {"any_dr_map": np.ones((12, 12), "f4")}
    models = fake(models=[classifier], classify=lambda image: even)
    own = evaluated(models, drawn_lesion(tmp_path / "clinic"))["decisions"]["any_dr"]["heat_in_lesions"]
    assert own["share"] == pytest.approx(own["chance"], rel=1e-4)
    assert own["pointing"] == pytest.approx(own["chance"], rel=1e-4)


def test_a_picture_on_which_no_lesion_was_drawn_does_not_count(fake, classifier, tmp_path):
    folder = drawn_lesion(tmp_path / "clinic", drawn=False)
    assert evaluated(fake(models=[classifier]), folder)["decisions"] == {}


def test_without_heat_maps_there_is_no_such_figure(fake, model, tmp_path):
    found = evaluated(fake(models=[model]), drawn_disc(tmp_path / "clinic", 255))
    assert "heat_in_disc" not in found["decisions"]["glaucoma"]
    assert found["disc_dice"]["n"] == 1


def told(figure):
    """It without its interval."""
    return {key: value for key, value in figure.items() if key not in ("low", "high")}


def test_measures_are_beside_what_was_drawn(fake, painter, tmp_path):
    """Four pictures alike, of which one is black: two with the masks, fovea and eye that are found, one with others."""
    folder = tmp_path / "clinic"
    grey = np.full((200, 240, 3), 90, np.uint8)
    for k in range(4):
        write(folder / f"{k}.png", grey * (k < 3))
    with fake() as opened:
        found = opened(grey)
    disc, cup = found.mask("disc"), found.mask("cup")
    moved = np.roll(disc, 10, axis=1)
    cv2.imwrite(str(folder / "same.png"), disc.astype(np.uint8) + (cup & disc))
    cv2.imwrite(str(folder / "disc.png"), disc.astype(np.uint8))
    cv2.imwrite(str(folder / "moved.png"), moved.astype(np.uint8) * 2)  # all of it is cup
    x, y = found.fovea
    lines = ["image,split,mask,mask_has,fovea_x,fovea_y,scale,eye"]
    lines += [f"{k}.png,test,same.png,disc+cup,{x},{y},0.5,right" for k in (0, 3)]
    lines += [f"1.png,test,disc.png,disc,{x},{y},0.5,right", f"2.png,test,moved.png,disc+cup,{x + 3},{y + 4},0.5,left"]
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    figures = evaluated(fake(), folder)
    assert (figures["n"], figures["n_rejected"]) == (4, 1)
    beside = 2 * (disc & moved).sum() / (disc.sum() + moved.sum())
    within = 2 * (cup & moved).sum() / (cup.sum() + moved.sum())
    assert 0.1 < within < beside < 0.9
    assert told(figures["disc_dice"]) == {
        "n": 4,
        "n_not_measurable": 1,
        "mean": pytest.approx((1 + 1 + beside + 0) / 4),
    }
    assert told(figures["cup_dice"]) == {
        "n": 3,
        "n_not_measurable": 1,
        "mean": pytest.approx((1 + within + 0) / 3, abs=0.01),
    }
    error = ((1 - found.vcdr) + found.vcdr) / 3  # of the moved one, whose cup is its disc, and of the black one
    assert told(figures["vcdr_error"]) == {"n": 3, "n_not_measurable": 1, "mean": pytest.approx(error, abs=0.02)}
    counts = {"n": 4, "n_not_measurable": 1}
    assert told(figures["fovea_error_px"]) == counts | {
        "mean": pytest.approx(10 / 3),
        "median": pytest.approx(0, abs=1e-6),
    }
    percent = pytest.approx(100 * 5 / 240 / 3)
    assert told(figures["fovea_error_percent"]) == counts | {"mean": percent, "median": pytest.approx(0, abs=1e-6)}
    assert figures["disc_dice"]["low"] < figures["disc_dice"]["mean"] < figures["disc_dice"]["high"]
    assert figures["laterality"] == {"right": 2, "wrong": 1, "unknown": 1}


def test_a_disc_that_is_not_found_is_not_measurable_where_retinopathy_is_decided(both, painter, tmp_path):
    found = evaluated(both(lambda image: painter.maps(disc=None)), drawn_disc(tmp_path / "clinic", 255))
    assert (found["n_rejected"], found["disc_dice"]["n_not_measurable"], found["disc_dice"]["mean"]) == (0, 1, 0)


def test_what_was_drawn_is_read_once_for_all_figures(both, painter, tmp_path, monkeypatch):
    read, real = [], Sample.read_masks
    monkeypatch.setattr(Sample, "read_masks", lambda sample: read.append(sample) or real(sample))
    found = evaluated(both(lambda image: painter.maps()), drawn_disc(tmp_path / "clinic", 255))
    assert found["disc_dice"]["n"] == found["decisions"]["glaucoma_second"]["heat_in_disc"]["n_drawn"] == 1
    assert len(read) == 1


def test_each_result_is_told_as_it_comes(fake, clinic):
    samples, told = dataset.load(clinic), []
    with fake() as opened:
        evaluation.evaluate(opened, samples, lambda sample, result: told.append((sample, result.name)))
    assert told == [(sample, str(sample.image)) for sample in samples]


def test_the_ratio_is_held_against_that_of_experts(fake, painter, clinic):
    heights = {1: 24, 2: 36, 3: 30}  # cups of discs 48 high
    lines = ["image,expert_vcdr", "1.png,.4", "2.png,.8", "3.png,.7", "7.png,.5"]
    (clinic / "expert_vcdr.csv").write_text("\n".join(lines) + "\n")

    def paint(image):
        k = next(k for k, (colour, *_) in enumerate(PICTURES) if abs(int(image[128, 128, 1]) - colour[0]) < 3)
        return painter.maps(disc=(150, 120, 40, 48), cup=(152, 121, 20, heights.get(k, 24)))

    with fake(paint) as opened:
        ratios = [opened(clinic / f"{k}.png").vcdr for k in heights]
    found = evaluated(fake(paint), clinic)
    error, bias, correlation = (found[f"expert_vcdr_{name}"] for name in ("error", "bias", "correlation"))
    assert (error["n"], error["n_not_measurable"]) == (4, 1)  # the black one
    truth = np.array([0.4, 0.8, 0.7])
    assert error["mean"] == pytest.approx(np.abs(ratios - truth).mean())
    assert bias["mean"] == pytest.approx((ratios - truth).mean())
    assert correlation["mean"] == pytest.approx(np.corrcoef(ratios, truth)[0, 1])


def test_each_decision_counts_by_the_threshold_that_it_was_made_with():
    decisions = [(1, 0.6, 0.5), (0, 0.55, 0.6), (0, 0.55, 0.5), (1, 0.55, 0.6), (1, 0.7, 0.6)]
    for order in (decisions, decisions[::-1]):
        known = [(label, Decision("glaucoma", p, from_, p >= from_)) for label, p, from_ in order]
        row = evaluation._decision(known)
        assert {key: row["at_threshold"][key] for key in ("threshold", "tp", "fp", "fn", "tn")} == {
            "threshold": 0.6,
            "tp": 2,
            "fp": 1,
            "fn": 1,
            "tn": 1,
        }
