"""Rows on disk: whole files only, the same content twice, and names that do no harm."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from funduscope.engine.errors import Code, OutputError
from funduscope.engine.outputs.rows import Rows, cell, write_record
from funduscope.engine.results import ModelName, Rejected, columns

MODEL = ModelName("multi-task", "multitask", "1", "0" * 64, "fake", "fp32")
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
    return Rejected(name, None, Code.DAMAGED, "the data is cut or corrupt", (MODEL,))


def read_csv(folder) -> list[dict[str, str]]:
    with (folder / "screenings.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def read_jsonl(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "screenings.jsonl").read_text().splitlines()]


def test_any_name_returns_from_both_files(tmp_path, screening):
    with Rows(tmp_path) as rows:
        for name in NAMES:
            rows.write(rejected(name))
            rows.write(dataclasses.replace(screening, name=name))
    names = [name for name in NAMES for _ in range(2)]
    assert [row["name"] for row in read_jsonl(tmp_path)] == names
    found = [row["name"] for row in read_csv(tmp_path)]
    assert [name.removeprefix("'") for name in found] == names


def test_no_cell_of_the_csv_is_a_formula(tmp_path):
    with Rows(tmp_path) as rows:
        for name in NAMES:
            rows.write(dataclasses.replace(rejected(name), reason=name))
    for row in read_csv(tmp_path):
        for own in row.values():
            assert not own.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_no_name_of_a_model_is_a_formula(tmp_path):
    names = tuple(dataclasses.replace(MODEL, name=name) for name in ("=cmd()|' /C calc'!A0", "-rf"))
    with Rows(tmp_path) as rows:
        rows.write(dataclasses.replace(rejected("a"), models=names))
    (row,) = read_csv(tmp_path)
    assert row["model"] == "'=cmd()|' /C calc'!A0 -rf"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["a", "b"], "a b"),
        ([], ""),
        (["=a", "b"], "'=a b"),
        (True, "true"),
        (False, "false"),
        (None, None),
        (0.25, 0.25),
        (-1, -1),
        ("-1", "'-1"),
    ],
)
def test_a_value_as_a_cell(value, expected):
    assert cell(value) == expected


def test_a_negative_number_is_left_a_number(tmp_path, screening):
    with Rows(tmp_path) as rows:
        rows.write(dataclasses.replace(screening, fovea=(-3.5, 2.0)))
    assert read_csv(tmp_path)[0]["fovea_x"] == "-3.5"


def test_both_files_agree_row_by_row(tmp_path, screening):
    others = {"cup": None, "vcdr": None, "decisions": {}, "warnings": (Code.CUP_NOT_FOUND, Code.FOVEA_NOT_FOUND)}
    with Rows(tmp_path) as rows:
        for result in (screening, rejected("b.jpg"), dataclasses.replace(screening, **others)):
            rows.write(result)

    def as_text(value) -> str:
        if isinstance(value, list):
            return " ".join(value)
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    in_csv, in_jsonl = read_csv(tmp_path), read_jsonl(tmp_path)
    assert [{key: as_text(value) for key, value in row.items()} for row in in_jsonl] == in_csv
    assert tuple(in_csv[0]) == tuple(in_jsonl[0]) == tuple(column.name for column in columns())
    assert len(in_csv) == 3


def test_rows_are_counted_by_code_or_status(tmp_path, screening):
    with Rows(tmp_path) as rows:
        for result in (screening, rejected("b"), rejected("c")):
            rows.write(result)
    assert rows.counts == {"ok": 1, "DAMAGED": 2}


def test_files_have_their_names_only_at_the_end(tmp_path):
    with Rows(tmp_path / "new" / "folder") as rows:
        rows.write(rejected("a"))
        names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
        assert names == ["screenings.csv.part", "screenings.jsonl.part"]
        assert (
            len((tmp_path / "new" / "folder" / "screenings.jsonl.part").read_text().splitlines()) == 1
        )  # on disk as it comes
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["screenings.csv", "screenings.jsonl"]


def test_a_run_that_was_stopped_leaves_part_files_and_the_last_whole_ones(tmp_path):
    with Rows(tmp_path) as rows:
        rows.write(rejected("before"))

    def stopped() -> None:
        with Rows(tmp_path) as rows:
            rows.write(rejected("after"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [row["name"] for row in read_jsonl(tmp_path)] == ["before"]
    assert "after" in (tmp_path / "screenings.csv.part").read_text()


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file: cannot be written .*; choose another folder or make room"):
        Rows(tmp_path / "file")
    with pytest.raises(OutputError):
        Rows(tmp_path / "file" / "below")


def test_a_file_that_is_in_the_way_is_refused(tmp_path):
    (tmp_path / "screenings.csv.part").mkdir()
    with pytest.raises(OutputError):
        Rows(tmp_path)


def written_while(folder, event) -> None:
    with Rows(folder) as rows:
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
    names = [MODEL, ModelName("classifier", "channels", "7", "1" * 64, "fake", "fp32")]
    contracts = [model.contract, classifier.contract]
    extra = {"inputs": [os.fsdecode(b"\xff.jpg")], "pictures": 1}
    write_record(tmp_path, names, contracts, datetime.now(UTC), extra)
    record = json.loads((tmp_path / "run.json").read_text())
    terms = [own.terms.model_dump() for own in contracts]
    assert record["models"] == [
        dataclasses.asdict(name) | {"terms": own} for name, own in zip(names, terms, strict=True)
    ]
    assert terms[0]["notice"] != terms[1]["notice"]
    assert record["inputs"] == ["\udcff.jpg"]
    assert record["started"] <= record["finished"]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
