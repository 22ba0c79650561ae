"""Files that are whole or not there, whoever writes them and whatever cuts them off."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from funduscope.engine import files
from funduscope.engine.errors import OutputError


def test_files_of_an_earlier_run_are_removed_or_that_is_refused(tmp_path):
    (tmp_path / "old").write_text("x")
    files.remove([tmp_path / "old"])
    assert not list(tmp_path.iterdir())
    files.remove([tmp_path / "old"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        files.remove([tmp_path / "folder"])


def test_text_is_written_in_one_piece_or_refused(tmp_path):
    files.write_text(tmp_path / "new" / "page.html", "é")
    assert (tmp_path / "new" / "page.html").read_bytes() == "é".encode()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        files.write_text(tmp_path / "folder", "x")


def test_of_many_who_write_the_same_file_each_writes_a_whole_one(tmp_path):
    path, versions, done = tmp_path / "plan", [bytes([k]) * 200_000 for k in range(8)], threading.Event()

    def read() -> int:
        seen = 0
        while not done.is_set():
            if path.exists():
                assert path.read_bytes() in versions
                seen += 1
        return seen

    with ThreadPoolExecutor(9) as pool:
        reader = pool.submit(read)
        try:
            for job in [pool.submit(files.write_bytes, path, data) for data in versions * 5]:
                job.result(60)
        finally:
            done.set()
        assert reader.result(60)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    (tmp_path / "plan").write_bytes(b"old")
    seen, real = [], os.fsync

    def fsync(number):
        seen.append(((tmp_path / "plan").read_bytes(), os.fstat(number).st_size))
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_bytes(tmp_path / "plan", b"newer")
    assert seen == [(b"old", 5)]
    assert (tmp_path / "plan").read_bytes() == b"newer"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_is_cut_off_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, error):
    def fsync(_number):
        raise error

    (tmp_path / "plan").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        files.write_bytes(tmp_path / "plan", b"new")
    assert (tmp_path / "plan").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_long_name_and_the_usual_permissions_are_kept(tmp_path):
    path = tmp_path / ("x" * 255)
    files.write_bytes(path, b"new")
    (tmp_path / "plain").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_will_be_written_is_tried_first_and_leaves_nothing(tmp_path):
    files.expect(tmp_path / "new" / "model.onnx")
    assert list(tmp_path.rglob("*")) == [tmp_path / "new"]
    (tmp_path / "old").write_text("x")
    files.expect(tmp_path / "old")
    assert (tmp_path / "old").read_text() == "x"


def test_what_will_not_be_written_is_refused_first(tmp_path):
    with pytest.raises(OutputError, match="is a folder; choose another name"):
        files.expect(tmp_path)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "below" / "x"):
        with pytest.raises(OutputError, match=r"file: is a file, and a folder is needed; choose another folder$"):
            files.expect(path)


def test_what_the_system_says_is_passed_on_where_all_are_folders(tmp_path):
    told = str(files.refused(tmp_path, OSError(28, "No space left on device")))
    assert told == f"{tmp_path}: cannot be written (No space left on device); choose another folder or make room"


def test_a_name_that_is_no_unicode_is_written_so_that_all_can_read_it(tmp_path):
    files.write_text(tmp_path / "page", "a \udcff")
    assert (tmp_path / "page").read_bytes() == b"a \\udcff"
