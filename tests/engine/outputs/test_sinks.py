"""Rows on disk: whole files only, the same content twice, and names that do no harm."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from funduscope.engine.errors import Code, OutputError
from funduscope.engine.outputs import rows as sinks
from funduscope.engine.results import COLUMNS, ModelName, Rejected

MODEL = ModelName("multitask", "1", "0" * 64, "fake", "fp32")
NAMES = [
    "eye.jpg",
    "é ü 漢字.jpg",
    "👁️.jpg",
    " spaces .jpg",
    "line\nbreak.jpg",
    "carriage\rreturn.jpg",
    'comma, "quote".jpg',
    "=cmd()|' /C calc'!A0.jpg",
    "+1.jpg",
    "-rf.jpg",
    "@sum.jpg",
    "\tx.jpg",
    "\n=1.jpg",
    os.fsdecode(b"\xff\xfe not UTF-8.jpg"),
    "x" * 255,
]


@pytest.fixture
def screening(fake, fundus):
    with fake() as opened:
        return opened(fundus())


def rejected(name: str) -> Rejected:
    return Rejected(name, None, Code.DAMAGED, "the data is cut or corrupt", MODEL)


def read_csv(folder) -> list[dict[str, str]]:
    with (folder / "screenings.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def read_jsonl(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "screenings.jsonl").read_text().splitlines()]


def test_any_name_returns_from_both_files(tmp_path, screening):
    with sinks.Rows(tmp_path) as rows:
        for name in NAMES:
            rows.write(rejected(name))
            rows.write(dataclasses.replace(screening, name=name))
    names = [name for name in NAMES for _ in range(2)]
    assert [row["name"] for row in read_jsonl(tmp_path)] == names
    found = [row["name"] for row in read_csv(tmp_path)]
    assert [name.removeprefix("'") for name in found] == names


def test_no_cell_of_the_csv_is_a_formula(tmp_path):
    with sinks.Rows(tmp_path) as rows:
        for name in NAMES:
            rows.write(dataclasses.replace(rejected(name), reason=name))
    for row in read_csv(tmp_path):
        for cell in row.values():
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_a_negative_number_is_left_a_number(tmp_path, screening):
    with sinks.Rows(tmp_path) as rows:
        rows.write(dataclasses.replace(screening, fovea=(-3.5, 2.0)))
    assert read_csv(tmp_path)[0]["fovea_x"] == "-3.5"


def test_both_files_agree_row_by_row(tmp_path, screening):
    others = {"cup": None, "vcdr": None, "glaucoma": None, "warnings": (Code.CUP_NOT_FOUND, Code.FOVEA_NOT_FOUND)}
    with sinks.Rows(tmp_path) as rows:
        for result in (screening, rejected("b.jpg"), dataclasses.replace(screening, **others)):
            rows.write(result)

    def cell(value) -> str:
        if isinstance(value, list):
            return " ".join(value)
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    in_csv, in_jsonl = read_csv(tmp_path), read_jsonl(tmp_path)
    assert [{key: cell(value) for key, value in row.items()} for row in in_jsonl] == in_csv
    assert tuple(in_csv[0]) == tuple(in_jsonl[0]) == COLUMNS
    assert len(in_csv) == 3


def test_rows_are_counted_by_code_or_status(tmp_path, screening):
    with sinks.Rows(tmp_path) as rows:
        for result in (screening, rejected("b"), rejected("c")):
            rows.write(result)
    assert rows.counts == {"ok": 1, "DAMAGED": 2}


def test_files_have_their_names_only_at_the_end(tmp_path):
    with sinks.Rows(tmp_path / "new" / "folder") as rows:
        rows.write(rejected("a"))
        names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
        assert names == ["screenings.csv.part", "screenings.jsonl.part"]
        assert (
            len((tmp_path / "new" / "folder" / "screenings.jsonl.part").read_text().splitlines()) == 1
        )  # on disk as it comes
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["screenings.csv", "screenings.jsonl"]


def test_a_run_that_was_stopped_leaves_part_files_and_the_last_whole_ones(tmp_path):
    with sinks.Rows(tmp_path) as rows:
        rows.write(rejected("before"))

    def stopped() -> None:
        with sinks.Rows(tmp_path) as rows:
            rows.write(rejected("after"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [row["name"] for row in read_jsonl(tmp_path)] == ["before"]
    assert "after" in (tmp_path / "screenings.csv.part").read_text()


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file: cannot be written .*; choose another --out or make room"):
        sinks.Rows(tmp_path / "file")
    with pytest.raises(OutputError):
        sinks.Rows(tmp_path / "file" / "below")


def test_a_file_that_is_in_the_way_is_refused(tmp_path):
    (tmp_path / "screenings.csv.part").mkdir()
    with pytest.raises(OutputError):
        sinks.Rows(tmp_path)


def written_while(folder, event) -> None:
    with sinks.Rows(folder) as rows:
        rows.write(rejected("a"))
        event()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["screenings.jsonl", "screenings.csv"])
def test_a_full_disk_is_refused(tmp_path, name):
    (tmp_path / f"{name}.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left on device"):
        written_while(tmp_path, lambda: None)
    assert not (tmp_path / name).exists()


def test_a_folder_that_was_removed_is_refused_at_the_end(tmp_path):
    with pytest.raises(OutputError, match="No such file"):
        written_while(tmp_path / "out", lambda: shutil.rmtree(tmp_path / "out"))


def test_the_record_of_a_run_says_what_ran(tmp_path, model, classifier):
    names = [MODEL, ModelName("channels", "7", "1" * 64, "fake", "fp32")]
    contracts = [model.contract, classifier.contract]
    extra = {"inputs": [os.fsdecode(b"\xff.jpg")], "pictures": 1}
    sinks.write_run(tmp_path, names, contracts, datetime.now(UTC), extra)
    record = json.loads((tmp_path / "run.json").read_text())
    terms = [own.terms.model_dump() for own in contracts]
    assert record["models"] == [
        dataclasses.asdict(name) | {"terms": own} for name, own in zip(names, terms, strict=True)
    ]
    assert terms[0]["notice"] != terms[1]["notice"]
    assert record["inputs"] == ["\udcff.jpg"]
    assert record["started"] <= record["finished"]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_files_of_an_earlier_run_are_removed_or_that_is_refused(tmp_path):
    (tmp_path / "old").write_text("x")
    sinks.remove([tmp_path / "old"])
    assert not list(tmp_path.iterdir())
    sinks.remove([tmp_path / "old"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        sinks.remove([tmp_path / "folder"])


def test_text_is_written_in_one_piece_or_refused(tmp_path):
    sinks.write_text(tmp_path / "new" / "page.html", "é")
    assert (tmp_path / "new" / "page.html").read_bytes() == "é".encode()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        sinks.write_text(tmp_path / "folder", "x")


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
            for job in [pool.submit(sinks.write_bytes, path, data) for data in versions * 5]:
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
    sinks.write_bytes(tmp_path / "plan", b"newer")
    assert seen == [(b"old", 5)]
    assert (tmp_path / "plan").read_bytes() == b"newer"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_is_cut_off_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, error):
    def fsync(_number):
        raise error

    (tmp_path / "plan").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        sinks.write_bytes(tmp_path / "plan", b"new")
    assert (tmp_path / "plan").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_long_name_and_the_usual_permissions_are_kept(tmp_path):
    path = tmp_path / ("x" * 255)
    sinks.write_bytes(path, b"new")
    (tmp_path / "plain").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
