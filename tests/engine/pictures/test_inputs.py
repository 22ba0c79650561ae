"""What a command line means: nothing that was named may disappear."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import cv2
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


@pytest.mark.parametrize("name", ["no suffix", "absent.jpg", "x" * 300 + ".jpg", "-n.jpg", "a[1].jpg", "a\0/b.jpg"])
def test_a_file_named_explicitly_always_stays(folder, name):
    for own in ("no suffix", "a[1].jpg"):
        (folder / own).write_bytes(b"x")
    assert expanded(name) == [name]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere", "nowhere: no such file or folder"),
        ("list.csv", "list.csv: no such file"),
        ("*.webp", r"\*\.webp: matches nothing"),
    ],
)
def test_what_is_not_there_and_can_be_no_picture_is_refused(folder, name, told):
    with pytest.raises(SettingsError, match=told):
        inputs.expand(["b.jpg", name])


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


def test_a_name_that_looks_like_a_glob_is_taken_as_it_is(folder):
    (folder / "eye[1].jpg").write_bytes(b"x")
    (folder / "gone*.jpg").symlink_to("nowhere")
    assert expanded("eye[1].jpg", "gone*.jpg") == ["eye[1].jpg", "gone*.jpg"]


def test_R09_any_name_is_found_and_kept(tmp_path, any_name):
    (tmp_path / any_name).write_bytes(b"x")
    (found,) = expanded(str(tmp_path))
    assert found == os.path.join(tmp_path, any_name)
    assert expanded(found) == [found]
    assert Path(found).exists()


def test_R10_links_to_folders_are_not_followed(folder):
    (folder / "sub" / "loop").symlink_to(folder)
    assert len(expanded(".")) == 5


def test_R10_a_deep_folder_is_walked(tmp_path):
    deep = tmp_path.joinpath(*["d"] * 50)
    deep.mkdir(parents=True)
    (deep / "x.jpg").write_bytes(b"x")
    assert expanded(str(tmp_path)) == [str(deep / "x.jpg")]


@pytest.mark.parametrize(("arguments", "told"), [([], ""), (["empty"], " in empty")])
def test_no_pictures_at_all_is_refused_with_the_known_suffixes(folder, arguments, told):
    (folder / "empty").mkdir()
    with pytest.raises(SettingsError, match=rf"no pictures{told}; .*\.bmp, \.dcm, \.dicom, \.gif, .*\.jpg"):
        inputs.expand(arguments)


def test_the_folder_of_the_results_is_not_that_of_the_pictures(folder):
    with pytest.raises(SettingsError, match="sub: is also the folder for the results"):
        inputs.expand(["sub"], leave_out=folder / "sub")
    assert [own.path for own in inputs.expand(["."], leave_out=folder / "sub")] == ["./a.PNG", "./b.jpg"]


def test_what_is_left_out_is_counted_and_named(folder, jpeg):
    for name in (
        ".hidden.jpg",
        "sub/._e.bmp",
        ".Trash-1000/a.jpg",
        "@eaDir/a.jpg",
        "$RECYCLE.BIN/a.jpg",
        "@Recycle/a.jpg",
        "sub/__MACOSX/a.jpg",
        "x.heic",
        "y.heic",
        "README",
        "old/run.json",
        "old/screenings.csv",
        "old/overlays/000000_a.jpg",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / "1.2.840.10008").write_bytes(bytes(128) + b"DICM")
    (folder / "10_left").write_bytes(jpeg)
    (folder / "none").mkdir()
    found = inputs.search([".", "none"])
    assert [own.path for own in found.pictures] == [
        "./1.2.840.10008",
        "./10_left",
        *["./a.PNG", "./b.jpg", "./sub/c.tif", "./sub/e.bmp", "./sub/deep/d.jpeg"],
    ]
    assert found.left_out == {
        ".txt": 1,
        ".csv": 1,
        ".heic": 2,
        "without a suffix": 1,
        "hidden files": 2,
        "hidden or system folders": 5,
        "folder with the results of a run (./old)": 1,
    }
    assert "2 .heic" in found.told()
    assert found.told().endswith("none: no pictures in it")


@pytest.fixture
def jpeg(fundus) -> bytes:
    return cv2.imencode(".jpg", fundus())[1].tobytes()


def test_archives_are_searched_as_folders_are(folder, jpeg):
    with tarfile.open(folder / "sub" / "one.tar", "w") as shard:
        for name in ("b/2.jpg", "b/1.JPG", "notes.txt"):
            own = tarfile.TarInfo(name)
            own.size = len(jpeg)
            shard.addfile(own, io.BytesIO(jpeg))
    with zipfile.ZipFile(folder / "two.zip", "w") as shard:
        shard.writestr("é/3.png", jpeg)
        shard.writestr("__MACOSX/é/._3.png", b"x")
    found = inputs.search(["sub", "two.zip"])
    assert [own.path for own in found.pictures if "!" in own.path] == [
        "sub/one.tar!/b/2.jpg",
        "sub/one.tar!/b/1.JPG",
        "two.zip!/é/3.png",
    ]
    assert found.left_out == {".txt in archives": 1, ".png in archives": 1, ".csv": 1}
    assert expanded("two.zip!/é/3.png") == ["two.zip!/é/3.png"]


def test_an_archive_that_cannot_be_read_is_refused(folder):
    for name, told in (
        ("x.tar", "x.tar: the archive cannot be read"),
        ("x.tar.gz", "a compressed tar cannot be read in part"),
    ):
        (folder / name).write_bytes(b"x" * 2000)
        with pytest.raises(SettingsError, match=told):
            inputs.expand([name])


def test_a_folder_that_cannot_be_searched_is_refused(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SettingsError, match=r"sub: the folder cannot be searched \(Permission denied\)"):
        expanded("sub")
