import dataclasses

import numpy as np
import pytest

from funduscope.postprocess import anatomy, scores

RULES = anatomy.Rules(
    disc_threshold=0.5,
    cup_threshold=0.5,
    fovea_mode="robust",
    fovea_min_peak=0.2,
    vcdr_coefficient=10.0,
    vcdr_intercept=-5.0,
)
SIZE = 64


def box(top, bottom, left, right, value=1.0):
    made = np.zeros((SIZE, SIZE), np.float32)
    made[top:bottom, left:right] = value
    return made


def maps(**changes):
    fovea = np.zeros((SIZE, SIZE), np.float32)
    fovea[30, 50] = 0.9
    whole = {
        "disc": box(10, 30, 10, 30),
        "cup": box(15, 25, 15, 25),
        "fovea": fovea,
        "glaucoma": np.float32(0.8),
    }
    return whole | changes


def test_all_findings_of_a_clear_picture():
    found = anatomy.measure(maps(), RULES)
    assert found.vcdr == pytest.approx(0.5, abs=0.02)
    assert found.fovea == (50, 30)
    assert found.glaucoma_network == pytest.approx(0.8)
    assert found.glaucoma_vcdr == pytest.approx(scores.logistic(found.vcdr, 10, -5))
    assert found.glaucoma == pytest.approx((found.glaucoma_network + found.glaucoma_vcdr) / 2)


def test_without_a_disc_only_the_networks_score_and_the_fovea_remain():
    found = anatomy.measure(maps(disc=box(0, 0, 0, 0)), RULES)
    assert (found.region, found.vcdr, found.glaucoma_vcdr, found.glaucoma) == (None, None, None, None)
    assert found.glaucoma_network == pytest.approx(0.8)
    assert found.fovea == (50, 30)


@pytest.mark.parametrize("cup", [box(0, 0, 0, 0), box(40, 50, 40, 50)], ids=["empty", "outside the disc"])
def test_without_a_cup_there_is_a_region_but_no_ratio_and_no_average(cup):
    found = anatomy.measure(maps(cup=cup), RULES)
    assert found.region is not None
    assert (found.vcdr, found.glaucoma_vcdr, found.glaucoma) == (None, None, None)


def test_a_faint_fovea_map_has_no_fovea():
    faint = maps(fovea=box(30, 31, 50, 51, 0.19))
    assert anatomy.measure(faint, RULES).fovea is None
    assert anatomy.measure(faint, dataclasses.replace(RULES, fovea_min_peak=0.1)).fovea == (50, 30)


def test_the_fovea_is_read_in_the_mode_of_the_rules():
    blurred = maps()["fovea"] + np.float32(0.01)
    robust = anatomy.measure(maps(fovea=blurred), RULES).fovea
    paper = anatomy.measure(maps(fovea=blurred), dataclasses.replace(RULES, fovea_mode="paper")).fovea
    assert robust == pytest.approx((50, 30))
    assert paper != pytest.approx((50, 30), abs=1)


def test_only_the_largest_disc_counts_but_the_fovea_map_is_not_cleaned():
    disc = np.maximum(box(10, 30, 10, 30), box(50, 55, 50, 55))
    assert anatomy.measure(maps(disc=disc), RULES).vcdr == pytest.approx(0.5, abs=0.02)
    fovea = np.maximum(box(30, 31, 50, 51, 0.9), box(30, 31, 10, 11, 0.9))
    paper = dataclasses.replace(RULES, fovea_mode="paper")
    assert anatomy.measure(maps(fovea=fovea), paper).fovea == pytest.approx((30, 30))
