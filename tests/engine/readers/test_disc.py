"""The reader of the second look alone: what the first look found, and maps of a square around the disc, in; findings out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from pydantic import ValidationError

from funduscope.engine.errors import Code
from funduscope.engine.findings import Findings
from funduscope.engine.pictures import photo
from funduscope.engine.readers.difference import FP32
from funduscope.engine.readers.disc import Disc, DiscReader
from funduscope.engine.readers.multitask import MultiTaskReader
from funduscope.postprocess import scores

SIDE, WIDTH = 96, 500


def ellipse(x, y, across, down):
    """A smooth ellipse, float32 (SIDE, SIDE), that crosses one half on its outline."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = 1 - np.hypot((columns - x) / (across / 2), (rows - y) / (down / 2))
    return (1 / (1 + np.exp(-10 * inside))).astype(np.float32)


def maps(disc=(47.5, 47.5, 36, 38), cup=(46, 48, 18, 19), glaucoma=0.25):
    blank = np.zeros((SIDE, SIDE), np.float32)
    painted = {"disc": ellipse(*disc) if disc else blank, "cup": ellipse(*cup) if cup else blank}
    return {**painted, "glaucoma": np.asarray(glaucoma, np.float32)}


@pytest.fixture
def reader(closer) -> DiscReader:
    return DiscReader(closer.contract, None)


@pytest.fixture
def looked(model, painter, reader):
    """What the first look found, and the square that it shows the second one: `looked(**maps of the first)`."""

    def make(**painted):
        first = MultiTaskReader(model.contract, None)
        prepared = first.prepare(photo.load(np.full((WIDTH, WIDTH, 3), 90, np.uint8)))
        outputs = painter.maps(**painted)
        found = first.read(Findings(width=WIDTH, height=WIDTH), outputs, prepared)
        spot = first.spot(outputs, prepared)
        return found, None if spot is None else reader.prepare(spot)

    return make


def test_disc_cup_and_vcdr_are_of_the_closer_look(reader, looked):
    found, prepared = looked(glaucoma=0.75)
    assert prepared.image.shape == (SIDE, SIDE, 3)
    closer = reader.read(found, maps(), prepared)
    assert closer.second_look is True
    scale = prepared.placement.scale_y
    for outline, (x, y, across, down) in ((closer.disc, (47.5, 47.5, 36, 38)), (closer.cup, (46, 48, 18, 19))):
        assert (outline.x, outline.y) == pytest.approx(prepared.placement.to_photo(x, y), abs=0.5 / scale)
        assert outline.vertical_diameter_px == pytest.approx(down / scale, rel=0.03)
        assert outline.area_px == pytest.approx(np.pi / 4 * across * down / scale**2, rel=0.03)
    closer_alone = closer.cup.vertical_diameter_px / closer.disc.vertical_diameter_px
    assert closer_alone == pytest.approx(0.5, abs=0.02)
    assert closer.vcdr == pytest.approx((found.vcdr + closer_alone) / 2)
    assert closer.scores["vcdr_first"] == found.vcdr
    assert closer.scores["glaucoma_network"] == 0.25
    assert closer.scores["glaucoma_vcdr"] == pytest.approx(scores.logistic(closer.vcdr, 9.0, -6.0))
    mean = (0.25 + closer.scores["glaucoma_vcdr"]) / 2
    assert closer.decisions["glaucoma"].probability == pytest.approx(mean)
    assert closer.decisions["glaucoma"].threshold == 0.45
    assert closer.decisions["glaucoma"].called is False
    assert (closer.fovea, closer.eyes) == (found.fovea, found.eyes)
    mask = closer.mask("disc")
    assert np.count_nonzero(mask) == pytest.approx(closer.disc.area_px, rel=0.02)
    assert closer.contour("cup").mean(axis=0) == pytest.approx((closer.cup.x, closer.cup.y), abs=1)


@pytest.mark.parametrize(
    "seen",
    [
        maps(disc=None),
        maps(cup=None),
        maps(cup=(8, 8, 10, 10)),
        maps(disc=(47.5, 47.5, 90, 20)),
    ],
    ids=["no disc", "no cup", "cup elsewhere", "flat"],
)
def test_what_the_first_look_found_stands_where_it_sees_no_whole_disc_with_a_cup(reader, looked, seen):
    found, prepared = looked()
    assert reader.read(found, seen, prepared) == dataclasses.replace(found, second_look=False)


def test_a_cup_that_the_first_look_missed_is_found(reader, looked):
    found, prepared = looked(cup=None)
    assert found.warnings == (Code.CUP_NOT_FOUND,)
    closer = reader.read(found, maps(), prepared)
    assert closer.warnings == ()
    assert closer.decisions["glaucoma"].called is not None
    assert closer.scores["vcdr_first"] is None
    assert closer.scores["glaucoma_vcdr"] == pytest.approx(scores.logistic(closer.vcdr, 9.0, -6.0))


def test_each_map_is_the_mean_of_both_looks_and_the_score_is_the_closer_ones(reader, model, painter):
    first = MultiTaskReader(model.contract, None)
    prepared = first.prepare(photo.load(np.full((WIDTH, WIDTH, 3), 90, np.uint8)))
    painted = painter.maps(glaucoma=0.75)
    square = reader.prepare(first.spot(painted, prepared))
    joined = reader.merged((square, maps(disc=None, cup=None)), (prepared, painted))
    assert joined["glaucoma"] == 0.25
    for name in ("disc", "cup"):
        alone = 4 * joined[name]  # a quarter is the first look's, and the second has seen nothing
        at = model.contract.rules.model_dump()[f"{name}_threshold"]
        height = (alone > at).sum(axis=0).max() / square.placement.scale_y
        assert height == pytest.approx({"disc": 48, "cup": 24}[name] / prepared.placement.scale_y, rel=0.05)
        rows, columns = np.nonzero(alone > at)
        seen = square.placement.to_photo(columns.mean(), rows.mean())
        x, y = {"disc": (150, 120), "cup": (152, 121)}[name]
        assert seen == pytest.approx(prepared.placement.to_photo(x, y), abs=1.5 / prepared.placement.scale_y)


def test_a_disc_at_the_edge_of_the_field_is_looked_at_too(reader, looked):
    found, prepared = looked(disc=(236, 128, 38, 44), cup=(236, 128, 18, 20), fovea=(128, 130))
    beyond = round(prepared.placement.to_square(WIDTH, 0)[0]) + 2
    assert beyond < SIDE
    assert not prepared.image[:, beyond:].any()  # the picture ends there
    x, y = prepared.placement.to_square(found.disc.x, found.disc.y)
    assert (x, y) == pytest.approx((47.5, 47.5), abs=1)


def test_where_no_disc_is_seen_there_is_nothing_to_look_at(looked):
    assert looked(disc=(150, 120, 120, 120))[1] is None  # too large for one


def test_a_site_moves_its_threshold(closer):
    part = {"balanced": type("Point", (), {"threshold": 0.3})()}
    assert closer.contract.at({"glaucoma": part}).glaucoma_threshold == 0.3
    assert closer.contract.at({}) == closer.contract


def test_a_contract_without_a_square_around_the_disc_is_refused(closer):
    document = closer.contract.model_dump()
    whole = document | {"geometry": {"path": "reduced-crop-pad-resize-2", "size": SIDE, "fov_threshold": 24}}
    with pytest.raises(ValidationError, match="must be around-disc-1"):
        Disc.model_validate(whole)
    half = document | {"geometry": {**document["geometry"], "diameters": None}}
    with pytest.raises(ValidationError, match="diameters goes with the path around-disc-1"):
        Disc.model_validate(half)


def test_the_gate_sees_a_cup_that_grows(reader):
    same = reader.differences([(maps(), maps())], FP32)
    assert all(own.holds for own in same)
    grown = {own.name: own for own in reader.differences([(maps(), maps(cup=(46, 48, 18, 30)))], FP32)}
    assert not grown["mean |d vCDR|"].holds
    assert not grown["max |d map|"].holds
    assert grown["decision flips"].seen == 1
    gone = {own.name: own for own in reader.differences([(maps(), maps(disc=None))], FP32)}
    assert gone["measurable on one side only"].seen == 1


def test_it_tells_its_rules_without_those_of_a_fovea(reader):
    told = reader.describe()
    assert "cup_threshold 0.5" in told["rules"]
    assert "fovea" not in told["rules"]
    assert told["glaucoma from"] == "0.4500"
