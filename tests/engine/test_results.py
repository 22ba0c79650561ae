"""What comes out: rows of one table of columns, words, drawings."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from funduscope.engine import drawing
from funduscope.engine.errors import Code, OutputError, SettingsError
from funduscope.engine.eyes import Eyes
from funduscope.engine.findings import Decision, HeatMap
from funduscope.engine.pictures import photo
from funduscope.engine.readers import READERS, verdicts
from funduscope.engine.readers.quality import SCORES
from funduscope.engine.results import UNGRADABLE, ModelName, Rejected, Screening, columns, in_words

COLUMNS = tuple(column.name for column in columns())
MODEL = ModelName("multi-task", "multitask", "1", "0" * 64, "fake", "fp32")
OTHER = ModelName("classifier", "channels", "7", "1" * 64, "fake", "fp16")


def screening(**values) -> Screening:
    return Screening(**({"name": "eye.jpg", "width": 260, "height": 200} | values))


def rejected(code: Code = Code.DAMAGED, **values) -> Rejected:
    return Rejected("eye.jpg", None, code, "why", **values)


@pytest.fixture
def seen(fake, fundus):
    with fake() as opened:
        return opened(fundus(), keep_photo=True)


# rows


def test_both_kinds_give_the_same_columns_of_json_values(fake, painter, fundus, model):
    results = []
    for maps, pixels in (
        ({}, fundus()),
        ({"cup": None, "fovea": None}, fundus()),
        ({}, np.zeros((200, 200, 3), np.uint8)),
    ):
        with fake(lambda image, maps=maps: painter.maps(**maps)) as opened:
            results.append(opened(pixels))
    complete, without_cup, bad = results
    for result in results:
        row = result.to_dict()
        assert tuple(row) == COLUMNS
        assert json.loads(json.dumps(row, allow_nan=False)) == row
        assert json.loads(result.to_json()) == row
        assert "\n" not in result.to_json()
        assert row["status"] == result.status
        assert row["model_sha256"] == [model.sha256]
        assert (row["backend"], row["precision"]) == (["fake"], [model.contract.precision])
    assert complete.to_dict()["code"] is None
    assert bad.to_dict()["code"] == "NO_FIELD_OF_VIEW"
    assert bad.to_dict()["warnings"] == []
    assert without_cup.to_dict()["warnings"] == ["CUP_NOT_FOUND", "FOVEA_NOT_FOUND"]


def test_each_columns_values_are_of_its_kind(seen):
    kinds = {"text": str, "list": list, "bool": bool, "float": float, "int": int}
    filled = dataclasses.replace(
        seen,
        name="\udcff.jpg",
        sha256="0" * 64,
        eyes=Eyes("p1", "left", "list"),
        point="balanced",
        second_look=True,
        models=tuple(dataclasses.replace(own, site="Clinic 7 0123") for own in seen.models),
        decisions={own.name: Decision(own.disease, 0.25, 0.5, False) for own in verdicts()},
        scores={**seen.scores, **dict.fromkeys((*SCORES, "vcdr_first"), 0.1)},
    )
    row = filled.to_dict()
    for column in columns():
        if column.name not in ("code", "reason"):
            assert type(row[column.name]) is kinds[column.kind], column.name
    assert rejected().to_dict()["code"] == "DAMAGED"


def test_each_column_stands_once_and_is_described():
    assert len(set(COLUMNS)) == len(COLUMNS)
    assert all(column.meaning for column in columns())
    for verdict in verdicts():
        start = COLUMNS.index(verdict.name)
        names = (verdict.name, f"{verdict.name}_probability", f"{verdict.name}_threshold")
        assert COLUMNS[start : start + 3] == names
        assert verdict.meaning in columns()[start].meaning
    assert {column.name for reader in READERS.values() for column in reader.columns} < set(COLUMNS)


def test_every_code_is_in_the_meaning_of_a_column_or_of_the_patients():
    told = " ".join(column.meaning for column in columns())
    assert [code for code in Code if code not in told] == [Code.ONE_EYE]


def test_a_decision_has_its_three_columns_and_what_is_open_has_none():
    decisions = {
        "any_dr": Decision("any_dr", 0.123456789, 0.45, None),
        "glaucoma": Decision("glaucoma", None, 0.4, None),
    }
    row = screening(decisions=decisions).to_dict()
    assert [row[f"any_dr{part}"] for part in ("", "_probability", "_threshold")] == [None, 0.123457, 0.45]
    assert [row[f"glaucoma{part}"] for part in ("", "_probability", "_threshold")] == [None, None, 0.4]
    assert [row[f"referable_dr{part}"] for part in ("", "_probability", "_threshold")] == [None, None, None]


def test_a_rejected_picture_has_what_is_known_of_it():
    row = rejected(
        models=(MODEL, OTHER), eyes=Eyes("p1", "left", "list"), warnings=(Code.LATERALITY_CONFLICT,)
    ).to_dict()
    known = {
        "name": "eye.jpg",
        "status": "error",
        "code": "DAMAGED",
        "reason": "why",
        "warnings": ["LATERALITY_CONFLICT"],
        "patient": "p1",
        "eye": "left",
        "eye_source": "list",
        "model": ["multitask", "channels"],
        "model_version": ["1", "7"],
        "model_sha256": ["0" * 64, "1" * 64],
        "backend": ["fake", "fake"],
        "precision": ["fp32", "fp16"],
    }
    assert row == dict.fromkeys(COLUMNS) | known


@pytest.mark.parametrize("code", Code)
def test_ungradable_is_a_picture_without_a_retina_or_a_disc(code):
    assert rejected(code).status == ("ungradable" if code in UNGRADABLE else "error")
    refused = {Code.NO_FIELD_OF_VIEW, Code.NOT_ROUND, Code.UNLIKELY_COLOURS, Code.DISC_NOT_FOUND, Code.LOW_RESOLUTION}
    assert refused | {Code.NOT_A_FUNDUS, Code.DARK, Code.OVEREXPOSED, Code.BLURRED} == UNGRADABLE


# words


@pytest.mark.parametrize(
    ("probability", "called", "words"),
    [(0.9123, True, "refer 0.912"), (0.1, False, "no 0.100"), (0.45, None, "open 0.450"), (None, None, "open")],
)
def test_a_decision_in_words(probability, called, words):
    assert in_words(Decision("glaucoma", probability, 0.4, called)) == words


def test_a_result_is_printed_in_a_line():
    decisions = {
        "glaucoma_second": Decision("glaucoma", 0.2, 0.4, False),
        "glaucoma": Decision("glaucoma", 0.9, 0.4, True),
        "any_dr": Decision("any_dr", 0.45, 0.45, None),
    }
    found = screening(vcdr=0.4567, decisions=decisions)
    line = "eye.jpg: vCDR 0.457, glaucoma refer 0.900, any DR open 0.450, second opinion no 0.200"
    assert str(found) == line
    warned = dataclasses.replace(found, warnings=(Code.FOVEA_NOT_FOUND, Code.ANY_DR_UNCERTAIN))
    assert str(warned) == f"{line}; FOVEA_NOT_FOUND ANY_DR_UNCERTAIN"
    assert str(rejected()) == "eye.jpg: error, DAMAGED: why"
    assert str(rejected(Code.DISC_NOT_FOUND)) == "eye.jpg: ungradable, DISC_NOT_FOUND: why"


def test_results_are_compared_without_their_photos_and_maps(seen, fundus):
    bare = dataclasses.replace(seen, photo=None, anatomy=None, placement=None)
    assert bare == seen
    assert {seen, bare, rejected(), rejected()} == {seen, rejected()}
    assert dataclasses.replace(seen, vcdr=0.0) != seen
    assert "dtype" not in repr(seen)


# drawings


@pytest.mark.parametrize("name", ["new/eye.png", "eye.PNG"])
def test_the_kept_photo_is_drawn_into_a_file(seen, tmp_path, name):
    seen.draw(tmp_path / name)
    np.testing.assert_array_equal(photo.load(tmp_path / name).pixels, drawing.contoured(seen.photo, seen))
    seen.draw(str(tmp_path / "small.jpg"), side=130)
    assert cv2.imread(str(tmp_path / "small.jpg")).shape == (100, 130, 3)


def test_a_heat_map_is_drawn_by_its_disease(both, fundus, tmp_path):
    with both() as opened:
        found = opened(fundus(), keep_photo=True)
    for disease, verdict in (("glaucoma", "glaucoma_second"), ("referable_dr", "referable_dr")):
        found.draw(tmp_path / "heat.png", heat=disease)
        wanted = drawing.heated(found.photo, found.decisions[verdict].heat)
        np.testing.assert_array_equal(photo.load(tmp_path / "heat.png").pixels, wanted)


@pytest.mark.parametrize("heat", ["any_dr", "glaucoma_second", "x"])
def test_a_heat_map_that_is_not_drawn_is_refused_with_those_there_are(both, fundus, tmp_path, heat):
    with both() as opened:
        found = opened(fundus(), keep_photo=True)
    with pytest.raises(SettingsError, match=f"array: no heat map of {heat}; there are glaucoma, referable_dr$"):
        found.draw(tmp_path / "x.png", heat=heat)
    assert not list(tmp_path.iterdir())


def test_without_heat_maps_there_are_none_to_draw(seen, tmp_path):
    with pytest.raises(SettingsError, match="no heat map of glaucoma; there are none"):
        seen.draw(tmp_path / "x.png", heat="glaucoma")


def test_a_photo_that_was_not_kept_is_read_again(fake, fundus, tmp_path):
    path = tmp_path / "eye.png"
    cv2.imwrite(str(path), fundus()[..., ::-1])
    with fake() as opened:
        kept, bare = opened(path, keep_photo=True), opened(path)
    kept.draw(tmp_path / "kept.png")
    bare.draw(tmp_path / "bare.png")
    assert (tmp_path / "kept.png").read_bytes() == (tmp_path / "bare.png").read_bytes()
    cv2.imwrite(str(path), fundus(seed=1)[..., ::-1])  # another picture under the same name
    for change in (lambda: None, path.unlink):
        change()
        with pytest.raises(SettingsError, match=r"eye\.png: there is no file of this name .*keep_photo=True"):
            bare.draw(tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_an_array_that_was_not_kept_cannot_be_read_again(fake, fundus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "array").write_bytes(b"something else")
    with fake() as opened:
        found = opened(fundus())
    with pytest.raises(SettingsError, match="array: there is no file of this name"):
        found.draw("x.png")


def test_what_cannot_be_drawn_or_written_is_refused(seen, tmp_path):
    with pytest.raises(SettingsError, match="drawings are written as"):
        seen.draw(tmp_path / "eye.txt")
    for side in (0, -1):
        with pytest.raises(SettingsError, match=f"side {side}: must be 1 or more"):
            seen.draw(tmp_path / "small.png", side=side)
    (tmp_path / "eye.png").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        seen.draw(tmp_path / "eye.png")
    for name in ("null\0.png", "null\0/eye.png", "\ud800.png"):
        with pytest.raises(OutputError, match=r"is no name of a file .*; choose another name"):
            seen.draw(tmp_path / name)
    assert [path.name for path in Path(tmp_path).iterdir()] == ["eye.png"]


def test_heat_is_left_out_of_what_is_compared_and_printed():
    heat = HeatMap(np.zeros((2, 2), np.float32), np.eye(2, 3))
    one, other = (screening(decisions={"any_dr": Decision("any_dr", 0.5, 0.4, True, own)}) for own in (heat, None))
    assert one == other
    assert repr(one) == repr(other)
