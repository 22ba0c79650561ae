"""What a command line means: nothing that was named may disappear."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from funduscope.engine.errors import SettingsError
from funduscope.engine.eyes import Listed
from funduscope.engine.pictures import inputs


def expanded(*arguments: str) -> list[str]:
    """The paths of pictures of which nothing else is said."""
    found = inputs.expand(arguments)
    assert found == [Listed(one.path, None, None) for one in found]
    return [one.path for one in found]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/c.tif", "sub/deep/d.jpeg", "sub/e.bmp", "sub/index.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_is_walked_for_pictures_in_order(folder):
    assert expanded(".") == ["./a.PNG", "./b.jpg", "./sub/c.tif", "./sub/e.bmp", "./sub/deep/d.jpeg"]


class Backwards:
    """A folder's entries in an order that no person would expect: a system may give any."""

    def __init__(self, entries):
        self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.entries)


def test_folders_and_files_are_sorted_however_the_system_lists_them(tmp_path, monkeypatch):
    names = ["a/1.jpg", "a/2.jpg", "b/a/1.jpg", "b/z/1.jpg", "c/1.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: Backwards(real(path)))
    assert expanded(str(tmp_path)) == [str(tmp_path / name) for name in names]


@pytest.mark.parametrize(
    "name", ["notes.txt", "absent.jpg", "no suffix", "x" * 300 + ".jpg", "-n.jpg", "a[1].jpg", "a\0/b.jpg"]
)
def test_a_file_named_explicitly_always_stays(folder, name):
    assert expanded(name) == [name]


def test_a_folder_is_walked_for_dicom_files_too(tmp_path):
    for name in ("a.dcm", "b.DICOM"):
        (tmp_path / name).write_bytes(b"x")
    assert expanded(str(tmp_path)) == [str(tmp_path / "a.dcm"), str(tmp_path / "b.DICOM")]


def test_a_folder_named_like_a_picture_stays_one(folder):
    (folder / "x.jpg").mkdir()
    assert expanded("x.jpg") == ["x.jpg"]


def test_a_picture_named_twice_is_screened_once(folder):
    assert expanded("sub/c.tif", "sub", "sub/c.tif") == ["sub/c.tif", "sub/e.bmp", "sub/deep/d.jpeg"]


def test_a_picture_named_by_two_spellings_is_screened_once(folder):
    spellings = ("b.jpg", "./b.jpg", str(folder / "b.jpg"), "sub/../b.jpg")
    assert expanded(*spellings) == ["b.jpg"]
    (folder / "link").symlink_to("sub/deep")
    assert expanded("link/d.jpeg", "sub/deep/d.jpeg", "link/../c.tif", "sub/c.tif") == ["link/d.jpeg", "link/../c.tif"]


def test_two_links_to_a_file_are_two_pictures(folder):
    (folder / "again.jpg").symlink_to("b.jpg")
    assert expanded("b.jpg", "again.jpg") == ["b.jpg", "again.jpg"]


def test_a_glob_is_expanded(folder):
    assert expanded("*.jpg") == ["b.jpg"]
    assert expanded("**/*.jpeg") == ["sub/deep/d.jpeg"]
    assert expanded("s*") == ["sub/c.tif", "sub/e.bmp", "sub/deep/d.jpeg"]  # a folder that it matches is walked


def test_a_glob_that_matches_nothing_stays(folder):
    assert expanded("*.webp", "b.jpg") == ["*.webp", "b.jpg"]


def test_a_name_that_looks_like_a_glob_is_taken_as_it_is(folder):
    (folder / "eye[1].jpg").write_bytes(b"x")
    (folder / "gone*.jpg").symlink_to("nowhere")
    assert expanded("eye[1].jpg", "gone*.jpg") == ["eye[1].jpg", "gone*.jpg"]


NAMES = [
    "é.jpg",
    "e\u0301.jpg",  # the same to the eye
    "👁️.jpg",
    " two  spaces .jpg",
    "line\nbreak.jpg",
    "-rf.jpg",
    "=cmd().jpg",
    'comma,and"quote.jpg',
    "x" * 251 + ".jpg",
    os.fsdecode(b"\xff\xfe.jpg"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_is_found_and_kept(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    (found,) = expanded(str(tmp_path))
    assert found == os.path.join(tmp_path, name)
    assert expanded(found) == [found]
    assert Path(found).exists()


def test_links_to_folders_are_not_followed(folder):
    (folder / "sub" / "loop").symlink_to(folder)
    assert len(expanded(".")) == 5


def test_a_deep_folder_is_walked(tmp_path):
    deep = tmp_path.joinpath(*["d"] * 50)
    deep.mkdir(parents=True)
    (deep / "x.jpg").write_bytes(b"x")
    assert expanded(str(tmp_path)) == [str(deep / "x.jpg")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path\na.jpg\nb/c.jpg\n", ["a.jpg", "b/c.jpg"]),
        ("id,Image,split\n1,a.jpg,test\n,b.jpg,test\n", ["a.jpg", "b.jpg"]),
        ("a.jpg\nb.jpg\n", ["a.jpg", "b.jpg"]),
        ("\ufeffpath\r\na.jpg\r\n\r\n", ["a.jpg"]),
        ('path\n"comma, and ""quote"".jpg"\n', ['comma, and "quote".jpg']),
        ("name,x\n/absolute/a.jpg,1\n", ["/absolute/a.jpg"]),
    ],
)
def test_a_list_names_pictures_relative_to_itself(tmp_path, text, expected):
    (tmp_path / "list.csv").write_text(text, newline="")
    assert expanded(str(tmp_path / "list.csv")) == [os.path.join(tmp_path, name) for name in expected]


@pytest.mark.parametrize("name", [name for name in NAMES if name.strip() == name], ids=ascii)
def test_a_list_holds_any_name(tmp_path, name):
    quoted = '"' + name.replace('"', '""') + '"'
    (tmp_path / "list.csv").write_bytes(b"path\n" + os.fsencode(quoted) + b"\n")
    assert expanded(str(tmp_path / "list.csv")) == [os.path.join(tmp_path, name)]


def listed(folder: Path, text: str) -> list[Listed]:
    (folder / "list.csv").write_text(text)
    return inputs.expand([str(folder / "list.csv")])


@pytest.mark.parametrize(
    ("cell", "eye"),
    [
        *((word, "right") for word in ("right", "Right", "RIGHT", "OD", "od", "R", "r", " od ")),
        *((word, "left") for word in ("left", "Left", "LEFT", "OS", "os", "L", "l", "\tL")),
        *((word, None) for word in ("", "  ")),
    ],
)
def test_an_eye_is_known_by_any_of_its_names(tmp_path, cell, eye):
    (found,) = listed(tmp_path, f"path,eye\na.jpg,{cell}\n")
    assert found == Listed(str(tmp_path / "a.jpg"), None, eye)


@pytest.mark.parametrize("cell", ["both", "rightt", "OU", "0", "re", "rechts"])
def test_an_eye_that_is_none_is_refused_with_its_row(tmp_path, cell):
    words = rf"list\.csv: eye '{cell.lower()}' in the row 'b\.jpg,{cell},7'; allowed are right, left, OD, OS, R, L and empty"
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
    with pytest.raises(SettingsError, match="listed twice"):
        listed(tmp_path, "path,eye\na.jpg,OD\na.jpg,OS\n")
    assert listed(tmp_path, "path,eye\na.jpg,OD\na.jpg,OD\n") == [Listed(str(tmp_path / "a.jpg"), None, "right")]


def test_two_lists_that_contradict_each_other_are_refused_however_they_spell_a_path(tmp_path):
    (tmp_path / "lists").mkdir()
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
        listed(tmp_path, "photo,patient\na.jpg,p1\n")


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
        expanded(str(tmp_path / "list.csv"))


def test_a_list_that_cannot_be_parsed_is_refused(tmp_path):
    (tmp_path / "list.csv").write_text("path\n" + "x" * 200_000)
    with pytest.raises(SettingsError, match=r"list\.csv: the list cannot be read"):
        expanded(str(tmp_path / "list.csv"))


@pytest.mark.parametrize("arguments", [[], ["empty"]])
def test_no_pictures_at_all_is_refused_with_the_known_suffixes(folder, arguments):
    (folder / "empty").mkdir()
    with pytest.raises(SettingsError, match=r"no pictures there; .*\.bmp, \.dcm, \.dicom, \.jpeg, \.jpg, \.png"):
        inputs.expand(arguments)


def test_a_folder_that_cannot_be_searched_is_refused(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SettingsError, match=r"sub: the folder cannot be searched \(Permission denied\)"):
        expanded("sub")
