"""The golden vectors: from tensors on disk, by what their files say alone, to the row."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent / "goldens"
_SPEC = importlib.util.spec_from_file_location("goldens_make", FOLDER / "make.py")
make = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make)
CASES = sorted(path.stem for path in FOLDER.glob("*.json"))


def case(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def looks(name):
    values = (FOLDER / f"{name}.f32").read_bytes()
    return [
        (
            look["contract"],
            {
                key: np.frombuffer(values, "<f4", int(np.prod(at["shape"])), at["offset"]).reshape(at["shape"])
                for key, at in look["tensors"].items()
            },
        )
        for look in case(name)["looks"]
    ]


def differences(ours, theirs):
    """Columns that do not agree."""
    assert ours.keys() == theirs.keys()
    return [
        key
        for key, value in ours.items()
        if not (
            value
            == pytest.approx(theirs[key], abs=1e-6 if "px" not in key and not key.endswith(("_x", "_y")) else 1e-2)
            if isinstance(value, float) and isinstance(theirs[key], float)
            else value == theirs[key]
        )
    ]


def test_every_case_has_its_files():
    assert sorted(make.CASES) == CASES
    assert len(CASES) > 10


@pytest.mark.parametrize("name", CASES)
def test_the_row_is_the_golden_one(name):
    assert differences(make.row_of(looks(name)), case(name)["row"]) == []


def test_every_kind_of_answer_is_among_them():
    rows = [case(name)["row"] for name in CASES]
    assert {row["code"] for row in rows} == {None, "DISC_NOT_FOUND", "BLURRED"}
    assert {row["eye"] for row in rows} == {None, "left", "right"}
    seen = {warning for row in rows for warning in row["warnings"]}
    assert seen >= {"CUP_NOT_FOUND", "FOVEA_NOT_FOUND", "GLAUCOMA_DISAGREEMENT", "DR_UNCERTAIN", "GLAUCOMA_UNCERTAIN"}
    assert seen >= {"DISC_NOT_FOUND", "DISC_IMPLAUSIBLE", "LOW_RESOLUTION"}
    for verdict in ("glaucoma", "referable_dr", "any_dr", "glaucoma_second"):
        assert {row[verdict] for row in rows} >= {True, False}, verdict


def test_a_changed_tensor_changes_the_row():
    (document, tensors), *_ = looks("plain")
    changed = tensors | {"cup": make.blob(44, 31, 6, 7)}
    assert "vcdr" in differences(make.row_of([(document, changed)]), case("plain")["row"])
