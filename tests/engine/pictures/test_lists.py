"""Lists of pictures as people keep them: every way in which they are written is read, and what is wrong is told."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from funduscope.engine.errors import SettingsError
from funduscope.engine.eyes import Listed
from funduscope.engine.pictures import inputs, lists
from funduscope.engine.pictures.photo import SUFFIXES


def read(path: Path) -> list[Listed]:
    return list(lists.read(path, SUFFIXES))


def listed(folder: Path, text: str, *, there: str = "abcd") -> list[Listed]:
    """The pictures of a list, of which some are there."""
    for name in there:
        (folder / f"{name}.jpg").touch()
    (folder / "list.csv").write_text(text)
    return read(folder / "list.csv")


def names(found: list[Listed], folder: Path) -> list[str]:
    return [os.path.relpath(own.path, folder) for own in found]


THREE = [("a.jpg", "p1", "right"), ("b.jpg", "p1", "left"), ("c.jpg", None, None)]
ROWS = [["Image Path", "Patient ID", "Laterality"], ["a.jpg", "p1", "OD"], ["b.jpg", "p1", "OS"], ["c.jpg", "", ""]]


def written(separator: str, end: str = "\n") -> str:
    return "".join(separator.join(row) + end for row in ROWS)


@pytest.mark.parametrize(
    "data",
    [
        written(",").encode(),
        written(";", "\r\n").encode(),
        written("\t").encode(),
        written(";").encode("utf-8-sig"),
        written("\t", "\r\n").encode("utf-16"),
        written("\t").encode("utf-16-le"),
        written(",").encode("utf-16-be"),
        b"sep=;\r\n" + written(";", "\r\n").encode(),
        b'"sep=;"\r\n' + written(";", "\r\n").encode(),
        b"SEP=; \n" + written(";").encode(),
        written(";").replace("a.jpg", '"a.jpg"').encode(),
    ],
    ids=[
        "comma",
        "semicolon",
        "tab",
        "BOM",
        "UTF-16",
        "UTF-16 LE",
        "UTF-16 BE",
        "sep=",
        "quoted sep=",
        "SEP=",
        "quoted",
    ],
)
def test_a_list_is_read_however_it_is_saved(tmp_path, data):
    for name in "abc":
        (tmp_path / f"{name}.jpg").touch()
    (tmp_path / "list.csv").write_bytes(data)
    found = read(tmp_path / "list.csv")
    assert [(Path(own.path).name, own.patient, own.eye) for own in found] == THREE
    assert inputs.expand([str(tmp_path / "list.csv")]) == found


def test_an_excel_file_is_a_list(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in ROWS:
        book.active.append([cell or None for cell in row])
    book.save(tmp_path / "list.xlsx")
    for name in "abc":
        (tmp_path / f"{name}.jpg").touch()
    found = read(tmp_path / "list.xlsx")
    assert [(Path(own.path).name, own.patient, own.eye) for own in found] == THREE
    (tmp_path / "bad.xlsx").write_bytes(b"x" * 100)
    with pytest.raises(SettingsError, match=r"bad\.xlsx: the list cannot be read"):
        read(tmp_path / "bad.xlsx")


@pytest.mark.parametrize(
    "header", ["path", "Image", "FILE", "file name", "File_Path", "id_code", "Image ID", "picture", "\ufeffname"]
)
def test_a_column_is_known_by_many_names(tmp_path, header):
    assert names(listed(tmp_path, f"n,{header}\n1,a.jpg\n2,b.jpg\n"), tmp_path) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    "text",
    [
        *("a.jpg\nb.jpg\n", "1,a.jpg\n2,b.jpg\n", "nr,Augenbild\n1,a.jpg\n2,b.jpg\n", "Augenbild\na.jpg\nb.jpg\n"),
        *("ID,level\na,0\nb,2\n", "a\nb\n"),
    ],
)
def test_without_a_known_header_the_column_is_the_one_with_pictures(tmp_path, text):
    assert names(listed(tmp_path, text), tmp_path) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("cell", "file"),
    [
        (" a.jpg ", "a.jpg"),
        ("sub\\a.jpg", "sub/a.jpg"),
        ("D:\\eyes\\sub\\a.jpg", "sub/a.jpg"),
        ("\\\\server\\share\\sub\\a.jpg", "sub/a.jpg"),
        ("10_left", "10_left.jpeg"),
        ("10_left", "10_left.PNG"),
        ("10.11.2020 left", "10.11.2020 left.jpg"),
        ("D:/eyes/sub/a.jpg", "sub/a.jpg"),
        ("//server/share/sub/a.jpg", "sub/a.jpg"),
        (unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg")),
        (unicodedata.normalize("NFD", "é.jpg"), unicodedata.normalize("NFC", "é.jpg")),
    ],
)
def test_a_name_is_found_in_another_spelling(tmp_path, cell, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    assert names(listed(tmp_path, f"path\n{cell}\n", there=""), tmp_path) == [file]


def test_a_name_that_is_there_is_taken_as_it_is(tmp_path):
    for name in (" a.jpg", "a.jpg", "x\\a.jpg"):
        (tmp_path / name).touch()
    assert names(listed(tmp_path, "path\n a.jpg\nx\\a.jpg\n", there=""), tmp_path) == [" a.jpg", "x\\a.jpg"]


def test_windows_letters_are_read(tmp_path):
    (tmp_path / "Müller.jpg").touch()
    (tmp_path / "list.csv").write_bytes("path\nMüller.jpg\n".encode("cp1252"))
    assert names(read(tmp_path / "list.csv"), tmp_path) == ["Müller.jpg"]


def test_a_name_that_is_not_there_stays_as_the_list_has_it(tmp_path):
    found = listed(tmp_path, "path\na.jpg\nabsent\\x.jpg\n")
    assert names(found, tmp_path) == ["a.jpg", "absent\\x.jpg"]


def test_a_list_of_which_nothing_is_there_is_refused_as_a_whole(tmp_path):
    words = r"list\.csv: none of its 2 pictures is there, the first .*x\.jpg; names were read relative to the list"
    with pytest.raises(SettingsError, match=words):
        listed(tmp_path, "path\nx.jpg\ny.jpg\n")


def test_a_list_may_name_pictures_in_archives(tmp_path):
    (tmp_path / "s.tar").touch()
    assert names(listed(tmp_path, "path\ns.tar!/x.jpg\n", there=""), tmp_path) == ["s.tar!/x.jpg"]


def test_a_list_holds_any_name(tmp_path, any_name):
    quoted = '"' + any_name.replace('"', '""') + '"'
    (tmp_path / any_name).touch()
    (tmp_path / "list.csv").write_bytes(b"path\n" + os.fsencode(quoted) + b"\n")
    assert names(read(tmp_path / "list.csv"), tmp_path) == [any_name]


@pytest.mark.parametrize(
    ("cell", "eye"),
    [
        *((word, "right") for word in ("right", "Right", "RIGHT", "OD", "od", "R", "r", " od ", "RE", "Right eye")),
        *((word, "left") for word in ("left", "Left", "LEFT", "OS", "os", "L", "l", "\tL", "LE", "left eye")),
        *((word, None) for word in ("", "  ")),
    ],
)
def test_an_eye_is_known_by_any_of_its_names(tmp_path, cell, eye):
    (found,) = listed(tmp_path, f"path,eye\na.jpg,{cell}\n")
    assert found == Listed(str(tmp_path / "a.jpg"), None, eye)


@pytest.mark.parametrize("cell", ["both", "rightt", "OU", "0", "RA", "rechts"])
def test_an_eye_that_is_none_is_refused_with_its_row(tmp_path, cell):
    words = rf"list\.csv: eye '{cell.lower()}' in the row 'b\.jpg,{cell},7'; allowed are right, od, .* left, os, .* and empty"
    with pytest.raises(SettingsError, match=words):
        listed(tmp_path, f"path,eye,n\na.jpg,OD,6\nb.jpg,{cell},7\n")


def test_a_list_says_whose_eye_a_picture_shows(tmp_path):
    text = "Eye , id,PATIENT,Image\nOD,1,p 1,a.jpg\nOS,2, p 1 ,b.jpg\n,3,,c.jpg\nL,4,é,d.jpg\n"
    assert [(Path(one.path).name, one.patient, one.eye) for one in listed(tmp_path, text)] == [
        ("a.jpg", "p 1", "right"),
        ("b.jpg", "p 1", "left"),
        ("c.jpg", None, None),
        ("d.jpg", "é", "left"),
    ]


def test_a_short_row_says_nothing_of_the_eye(tmp_path):
    assert listed(tmp_path, "path,patient,eye\na.jpg\nb.jpg,p1\n") == [
        Listed(str(tmp_path / "a.jpg")),
        Listed(str(tmp_path / "b.jpg"), "p1"),
    ]


def test_a_list_without_a_header_says_nothing_of_the_eye(tmp_path):
    found = listed(tmp_path, "a.jpg,p1,right\nb.jpg,p1,both\n")
    assert found == [Listed(str(tmp_path / "a.jpg")), Listed(str(tmp_path / "b.jpg"))]


def test_a_picture_that_is_listed_as_two_eyes_is_refused(tmp_path):
    listed(tmp_path, "path,eye\na.jpg,OD\na.jpg,OS\n")
    with pytest.raises(SettingsError, match="listed twice, as right eye of nobody named and as left eye"):
        inputs.expand([str(tmp_path / "list.csv")])
    listed(tmp_path, "path,eye\na.jpg,OD\na.jpg,OD\n")
    found = inputs.expand([str(tmp_path / "list.csv")])
    assert found == [Listed(str(tmp_path / "a.jpg"), None, "right")]


def test_two_lists_that_contradict_each_other_are_refused_however_they_spell_a_path(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "a.jpg").touch()
    for name, row in (
        ("one.csv", "a.jpg,p1,right"),
        ("lists/two.csv", "../a.jpg,p2,left"),
        ("lists/same.csv", "../a.jpg,p1,OD"),
    ):
        (tmp_path / name).write_text(f"path,patient,eye\n{row}\n")
    with pytest.raises(SettingsError, match="listed twice"):
        inputs.expand([str(tmp_path / "one.csv"), str(tmp_path / "lists" / "two.csv")])
    found = inputs.expand([str(tmp_path / "one.csv"), str(tmp_path / "lists" / "same.csv"), str(tmp_path / "a.jpg")])
    assert found == [Listed(str(tmp_path / "a.jpg"), "p1", "right")]


def test_a_header_that_names_patients_but_no_pictures_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="its header names no pictures"):
        listed(tmp_path, "thing,patient\na.jpg,p1\n")


def test_what_a_list_says_counts_more_than_a_folder(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "list.csv").write_text("path,eye\na.jpg,OD\n")
    assert inputs.expand([str(tmp_path), str(tmp_path / "list.csv")]) == [
        Listed(str(tmp_path / "a.jpg"), None, "right")
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the list is empty"),
        ("\n\n", "the list is empty"),
        ("id,path\n1,a.jpg\n2,\n", r"the row '2,' names no picture"),
    ],
)
def test_a_list_that_names_nothing_is_refused(tmp_path, text, words):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(SettingsError, match=words):
        read(tmp_path / "list.csv")


def test_a_list_that_cannot_be_parsed_is_refused(tmp_path):
    (tmp_path / "list.csv").write_text("path\n" + "x" * 200_000)
    with pytest.raises(SettingsError, match=r"list\.csv: the list cannot be read"):
        read(tmp_path / "list.csv")


def test_two_columns_of_pictures_without_a_name_we_know_are_not_chosen_from_in_silence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'a\.jpg' and 'b\.jpg' both name pictures; call the column to read path"):
        listed(tmp_path, "a.jpg,b.jpg\nc.jpg,d.jpg\n")
    assert names(listed(tmp_path, "a.jpg,a\nc.jpg,c\n"), tmp_path) == ["a.jpg", "c.jpg"]  # named a second time
    assert names(listed(tmp_path, "path,second\na.jpg,b.jpg\n"), tmp_path) == ["a.jpg"]
