"""The multi-task reader alone: maps in, measures and a decision out."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest

from funduscope.engine.errors import Code, PhotoError
from funduscope.engine.eyes import Eyes
from funduscope.engine.findings import Decision, Findings
from funduscope.engine.pictures import photo, preprocess
from funduscope.engine.readers.multitask import MultiTaskReader
from funduscope.postprocess import scores

RIGHT = {"disc": (150, 120, 40, 48), "fovea": (90, 130)}  # the disc lies on the nose's side, right of the fovea
NEAR = {"disc": (150, 120, 40, 48), "fovea": (105, 121)}  # nearer than a disc: it does not tell


@pytest.fixture
def reader(model) -> MultiTaskReader:
    return MultiTaskReader(model.contract, None)


@pytest.fixture
def read(reader, painter):
    """Findings of painted maps on a photo: `read(pixels, found, disc=..., cup=..., fovea=..., glaucoma=...)`."""

    def make(pixels=None, found=None, **maps) -> Findings:
        picture = photo.load(np.full((400, 500, 3), 90, np.uint8) if pixels is None else pixels)
        height, width = picture.pixels.shape[:2]
        return reader.read(found or Findings(width=width, height=height), painter.maps(**maps), reader.prepare(picture))

    return make


@pytest.mark.parametrize(("height", "width"), [(600, 900), (900, 600), (400, 400), (160, 230)])
def test_painted_ellipses_come_back_in_the_photos_pixels(reader, read, height, width):
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[: height // 8], pixels[:, : width // 10] = 0, 0  # off centre
    placement = reader.prepare(photo.load(pixels)).placement
    scale = placement.scale_x
    disc, cup, fovea = (150.0, 110.0, 44.0, 52.0), (147.0, 112.0, 20.0, 28.0), (95.0, 140.0)
    found = read(pixels, disc=disc, cup=cup, fovea=fovea)
    for outline, (x, y, across, down) in ((found.disc, disc), (found.cup, cup)):
        assert (outline.x, outline.y) == pytest.approx(placement.to_photo(x, y), abs=1 / scale)
        assert outline.vertical_diameter_px == pytest.approx(down / scale, rel=0.02)
        assert outline.box_height_px == pytest.approx(down / scale, rel=0.02)
        assert outline.area_px == pytest.approx(math.pi / 4 * across * down / scale**2, rel=0.02)
    assert found.fovea == pytest.approx(placement.to_photo(*fovea), abs=1 / scale)
    assert found.vcdr == pytest.approx(28 / 52, rel=0.02)
    assert found.placement == placement


def test_masks_and_contours_lie_where_the_outline_says(read):
    found = read(np.full((500, 700, 3), 90, np.uint8))
    for structure, outline in (("disc", found.disc), ("cup", found.cup)):
        mask = found.mask(structure)
        rows_, columns = np.nonzero(mask)
        assert mask.dtype == bool
        assert (columns.mean(), rows_.mean()) == pytest.approx((outline.x, outline.y), abs=1.5)
        assert mask.sum() == pytest.approx(outline.area_px, rel=0.03)
        contour = found.contour(structure)
        assert contour.shape[1] == 2
        # along pixel centres, so one sub-pixel less on each side
        assert np.ptp(contour[:, 1]) == pytest.approx(outline.box_height_px, rel=0.03)
        assert cv2.contourArea(contour.astype(np.float32)) == pytest.approx(outline.area_px, rel=0.05)


@pytest.mark.parametrize("network", [0.0, 0.3, 0.6, 1.0])
def test_the_decision_is_the_averaged_score_at_the_contracts_threshold(read, model, network):
    document = model.contract
    found = read(glaucoma=network)
    from_vcdr = scores.logistic(found.vcdr, document.rules.vcdr_coefficient, document.rules.vcdr_intercept)
    assert found.scores == pytest.approx({"glaucoma_network": network, "glaucoma_vcdr": from_vcdr})
    decision = found.decisions["glaucoma"]
    assert decision.probability == pytest.approx((network + from_vcdr) / 2)
    assert decision.called is (decision.probability >= document.glaucoma_threshold)
    assert (decision.disease, decision.threshold, decision.heat) == ("glaucoma", document.glaucoma_threshold, None)
    assert found.warnings == ()
    assert found.point is None


def test_a_probability_at_the_threshold_is_called(model, read, painter):
    exact = read().decisions["glaucoma"].probability
    for threshold, called in ((exact, True), (math.nextafter(exact, 1), False)):
        document = model.contract.model_copy(update={"glaucoma_threshold": threshold})
        own = MultiTaskReader(document, None)
        prepared = own.prepare(photo.load(np.full((400, 500, 3), 90, np.uint8)))
        found = own.read(Findings(width=500, height=400), painter.maps(), prepared)
        assert found.decisions["glaucoma"].called is called


def test_without_a_disc_there_is_nothing_to_measure(read):
    with pytest.raises(PhotoError, match="no optic disc was found") as caught:
        read(disc=None, glaucoma=0.99)
    assert caught.value.code is Code.DISC_NOT_FOUND


def test_where_no_disc_is_seen_the_middle_is_looked_at_ever_closer_and_then_the_whole_turned(reader, painter):
    pixels = np.full((400, 500, 3), 90, np.uint8)
    pixels[100:200, 50:150, 0] = 200
    prepared = reader.prepare(photo.load(pixels))
    assert reader.again(painter.maps(), prepared) == []
    *closer, left, right = reader.again(painter.maps(disc=None), prepared)
    assert [own.image.shape for own in closer] == [(256, 256, 3)] * 3
    scales = [own.placement.scale_x / prepared.placement.scale_x for own in closer]
    assert scales == pytest.approx([1 / 0.75, 1 / 0.6, 2], rel=0.01)
    assert all(own.finer is prepared.finer for own in (*closer, left, right))  # a later look has it too
    for own in (left, right):
        assert own.placement == prepared.placement
        np.testing.assert_array_equal(np.rot90(own.image, -own.turns), prepared.image)
    assert (left.turns, right.turns) == (1, 3)


def test_a_later_look_is_shown_the_disc_that_can_be_one(reader, painter):
    prepared = reader.prepare(photo.load(np.full((500, 500, 3), 90, np.uint8)))
    spot = reader.spot(painter.maps(), prepared)
    assert spot.finer is prepared.finer
    x, y = prepared.finer.placement.to_photo(spot.x, spot.y)
    assert (x, y) == pytest.approx((150.5 / 256 * 500, 120.5 / 256 * 500), abs=1)
    assert spot.diameter_px == pytest.approx(48 / 256 * spot.finer.field, rel=0.03)
    assert reader.spot(painter.maps(disc=None), prepared) is None
    assert reader.spot(painter.maps(disc=(150, 120, 40, 8)), prepared) is None  # no disc is so flat


def test_a_disc_without_a_cup_is_not_measurable(read, model):
    found = read(cup=None, glaucoma=0.75)
    assert found.warnings == (Code.CUP_NOT_FOUND,)
    assert found.vcdr is found.cup is None
    assert found.disc is not None
    assert found.decisions["glaucoma"] == Decision("glaucoma", None, model.contract.glaucoma_threshold, None)
    assert found.scores == {"glaucoma_network": 0.75, "glaucoma_vcdr": None}
    assert found.contour("cup").shape == (0, 2)
    assert not found.mask("cup").any()


def test_a_cup_outside_the_disc_is_no_cup(read):
    assert read(disc=(80, 120, 40, 40), cup=(180, 120, 20, 20), fovea=(150, 130)).warnings == (Code.CUP_NOT_FOUND,)


def test_without_a_fovea_there_is_a_warning(read):
    found = read(fovea=None)
    assert found.fovea is None
    assert found.warnings == (Code.FOVEA_NOT_FOUND,)
    assert found.vcdr is not None


@pytest.mark.parametrize(
    ("before", "warnings", "maps", "eyes", "expected"),
    [
        (Eyes("p1"), (), RIGHT, Eyes("p1", "right", "picture"), ()),
        (Eyes("p1"), (), NEAR, Eyes("p1"), ()),
        (Eyes(None, "right", "list"), (), RIGHT, Eyes(None, "right", "list"), ()),
        (Eyes(None, "left", "file"), (), RIGHT, Eyes(None, "left", "file"), (Code.LATERALITY_CONFLICT,)),
        (Eyes(None, "left", "file"), (), NEAR, Eyes(None, "left", "file"), ()),
        # told once
        (Eyes(None, "left", "list"), (Code.LATERALITY_CONFLICT,), RIGHT, Eyes(None, "left", "list"), ()),
    ],
)
def test_the_eye_is_told_by_the_picture_where_nothing_else_says_so(read, before, warnings, maps, eyes, expected):
    found = read(found=Findings(width=500, height=400, eyes=before, warnings=warnings), **maps)
    assert found.eyes == eyes
    assert found.warnings == (*warnings, *expected)


def test_what_was_found_before_stays(read):
    other = Decision("any_dr", 0.9, 0.5, True)
    before = Findings(
        width=500,
        height=400,
        warnings=(Code.DR_UNCERTAIN,),
        decisions={"any_dr": other},
        scores={"x": 0.1},
        point="balanced",
    )
    found = read(found=before, cup=None)
    assert found.warnings == (Code.DR_UNCERTAIN, Code.CUP_NOT_FOUND)
    assert list(found.decisions) == ["any_dr", "glaucoma"]
    assert found.decisions["any_dr"] is other
    assert list(found.scores) == ["x", "glaucoma_network", "glaucoma_vcdr"]
    assert (found.point, found.width, found.height) == ("balanced", 500, 400)
    assert list(before.decisions) == ["any_dr"]


def test_its_columns_say_what_was_found(reader, read):
    found = read(cup=None)
    row = {column.name: column.of(found) for column in reader.columns}
    assert list(row)[:3] == ["vcdr", "disc_x", "disc_y"]
    for key, value in dataclasses.asdict(found.disc).items():
        assert row[f"disc_{key}"] == round(value, 2)
        assert row[f"cup_{key}"] is None
    assert (row["fovea_x"], row["fovea_y"]) == tuple(round(own, 2) for own in found.fovea)
    assert (row["vcdr"], row["glaucoma_vcdr"], row["glaucoma_network"]) == (None, None, 0.5)
    assert {column.name for column in reader.columns if column.score_of == "glaucoma"} == {
        "glaucoma_network",
        "glaucoma_vcdr",
    }


def test_the_field_of_view_is_looked_for_in_the_brightest_channel(reader):
    assert reader.prepare(photo.load(np.full((192, 192, 3), (100, 0, 0), np.uint8))).image.shape == (256, 256, 3)
    with pytest.raises(PhotoError) as caught:
        reader.prepare(photo.load(np.full((192, 192, 3), 20, np.uint8)))
    assert caught.value.code is Code.NO_FIELD_OF_VIEW
    assert reader.point is None


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize(("beside", "told"), [(0, True), (60, False)])
def test_a_burnt_out_disc_is_looked_for_where_it_lies_in_the_upright_picture(reader, painter, turns, beside, told):
    picture = photo.load(np.full((400, 400, 3), 90, np.uint8))
    upright = reader.prepare(picture)
    image = upright.image.copy()
    image[108:132, 138 - beside : 162 - beside] = 255
    square = preprocess.turned(dataclasses.replace(upright, image=image), turns)
    found = reader.read(Findings(width=400, height=400), painter.maps(**RIGHT | {"fovea": (60, 130)}), square)
    assert (Code.DISC_OVEREXPOSED in found.warnings) is told
    assert found.vcdr is not None


def test_it_describes_its_rules_and_its_threshold(reader, model):
    rows = reader.describe()
    assert rows["glaucoma from"] == f"{model.contract.glaucoma_threshold:.4f}"
    told = dict(line.split(" ") for line in rows["rules"].splitlines())
    assert told == {key: str(value) for key, value in model.contract.rules.model_dump().items()}
