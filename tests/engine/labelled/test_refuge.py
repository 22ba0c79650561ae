"""REFUGE's official folders, in miniature, in the shapes in which they are found."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pytest

from funduscope.engine import errors
from funduscope.engine.errors import DataError
from funduscope.engine.labelled import dataset, refuge


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((40, 50, 3), 90, np.uint8))


def mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.full((40, 50), 255, np.uint8)
    drawn[10:30, 10:30] = 128
    drawn[15:25, 15:25] = 0
    cv2.imwrite(str(path), drawn)


def table(path: Path, *rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


def unpacked(root: Path, inner: str, suffix: str) -> Path:
    """The three splits. inner: whether archives were unpacked into folders of their own name, too."""
    train = root / (f"REFUGE-Training400/{inner}" if inner else "Training400")
    notes = root / "Annotation-Training400" / ("Annotation-Training400" if inner else "")
    for name, kind in (("g0001", "Glaucoma"), ("n0001", "Non-Glaucoma"), ("n0002", "Non-Glaucoma")):
        picture(train / kind / f"{name}.jpg")
        if name != "n0002":
            mask(notes / "Disc_Cup_Masks" / kind / f"{name}.bmp")
    table(
        notes / f"Fovea_location.{suffix}",
        ["ID", "ImgName", "Fovea_X", "Fovea_Y"],
        [1, "g0001.jpg", 20.5, 30.25],
        [2, "n0001.jpg", 21, 31],
    )
    picture(root / "REFUGE-Validation400" / "V0001.jpg")
    mask(root / "REFUGE-Validation400-GT" / "Disc_Cup_Masks" / "V0001.bmp")
    table(
        root / "REFUGE-Validation400-GT" / f"Fovea_locations.{suffix}",
        ["ID", "ImgName", "Fovea_X", "Fovea_Y", "Glaucoma Label"],
        [1, "V0001.jpg", 22, 32, 1],
    )
    for name in ("T0001", "T0002", "T0003"):
        picture(root / ("REFUGE-Test400" if inner else "Test400") / f"{name}.jpg")
    mask(root / "REFUGE-Test-GT" / "Disc_Cup_Masks" / "T0001.bmp")
    table(
        root / "REFUGE-Test-GT" / f"Glaucoma_label_and_Fovea_location.{suffix}",
        ["ImgName", "Label(Glaucoma=1)", "Fovea_X", "Fovea_Y"],
        ["T0001.jpg", 0, 23, 33],
        ["T0002.jpg", None, None, None],
    )
    return root


@pytest.mark.parametrize("inner", ["", "Training400"])
@pytest.mark.parametrize("suffix", ["xlsx", "csv"])
def test_every_split_is_read_with_what_is_labelled(tmp_path, inner, suffix):
    samples = dataset.load(unpacked(tmp_path / "REFUGE", inner, suffix))
    found = {s.image.stem: (s.split, s.glaucoma, s.fovea, s.mask is not None, s.mask_has_cup) for s in samples}
    assert found == {
        "g0001": ("train", 1, (20.5, 30.25), True, True),
        "n0001": ("train", 0, (21, 31), True, True),
        "n0002": ("train", 0, None, False, False),
        "V0001": ("val", 1, (22, 32), True, True),
        "T0001": ("test", 0, (23, 33), True, True),
        "T0002": ("test", None, None, False, False),
        "T0003": ("test", None, None, False, False),
    }
    assert {s.set_name for s in samples} == {"REFUGE"}


def test_masks_keep_refuges_values(tmp_path):
    first = dataset.load(unpacked(tmp_path, "", "csv"))[0]
    drawn = first.read_masks()
    assert (drawn.disc.sum(), drawn.cup.sum()) == (400, 100)


def test_columns_match_in_any_case(tmp_path):
    root = unpacked(tmp_path, "", "csv")
    table(root / "REFUGE-Test-GT" / "more.csv", ["IMGNAME ", "fovea_x", "FOVEA_Y"], ["t0003.JPG", "4", "5"])
    assert {s.image.stem: s.fovea for s in refuge.load(root)}["T0003"] == (4, 5)


def test_what_archivers_leave_is_passed_over(tmp_path):
    root = unpacked(tmp_path, "", "xlsx")
    (root / "__MACOSX" / "Training400").mkdir(parents=True)
    (root / "__MACOSX" / "Training400" / "._g0001.jpg").write_bytes(b"x")
    (root / "Annotation-Training400" / "~$Fovea_location.xlsx").write_bytes(b"x")
    (root / "notes.csv").write_text("a,b\n1,2\n")
    assert len(dataset.load(root)) == 7


def test_a_picture_of_no_split_is_refused_with_what_was_looked_for(tmp_path):
    root = unpacked(tmp_path, "", "csv")
    picture(root / "more" / "x.jpg")
    with pytest.raises(
        DataError,
        match=r": no index\.csv in it, and not .*x\.jpg lies in no folder like Training400, REFUGE-Validation400 or Test400",
    ):
        dataset.load(root)


def test_a_folder_without_pictures_is_refused_with_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r": no index\.csv in it, and not REFUGE's layout"):
        dataset.load(tmp_path)


@pytest.mark.parametrize(
    ("row", "words"), [(["T0001.jpg", 2, 1, 1], "label 2"), (["T0001.jpg", 0, "left", 1], "left"), (["T0001.jpg"], "")]
)
def test_a_cell_that_cannot_be_meant_is_refused_with_its_line(tmp_path, row, words):
    root = unpacked(tmp_path, "", "csv")
    name = root / "REFUGE-Test-GT" / "Glaucoma_label_and_Fovea_location.csv"
    table(name, ["ImgName", "Label(Glaucoma=1)", "Fovea_X", "Fovea_Y"], row)
    with pytest.raises(DataError, match=rf"Glaucoma_label_and_Fovea_location\.csv, line 2: .*{words}"):
        dataset.load(root)


@pytest.mark.parametrize("name", ["Fovea_location.xlsx", "Fovea_location.csv"])
def test_a_damaged_table_is_refused(tmp_path, name):
    root = unpacked(tmp_path, "", "xlsx")
    (root / "Annotation-Training400" / name).write_bytes(b"\xff\xfe no table")
    with pytest.raises(DataError, match="the table cannot be read"):
        dataset.load(root)


def test_a_fovea_outside_its_picture_is_refused(tmp_path):
    root = unpacked(tmp_path, "", "csv")
    table(root / "REFUGE-Test-GT" / "more.csv", ["ImgName", "Fovea_X", "Fovea_Y"], ["T0003.jpg", 400, 5])
    with pytest.raises(DataError, match="outside the picture"):
        dataset.load(root)


def test_a_spreadsheet_without_openpyxl_gives_the_pip_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(errors.MissingExtra, match=r"pip install 'funduscope\[train\]'"):
        dataset.load(unpacked(tmp_path, "", "xlsx"))
