"""Rows on disk: whole files only, the same content in each form, and names that do no harm."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from funduscope.engine.errors import Code, MissingExtra, OutputError
from funduscope.engine.outputs import rows
from funduscope.engine.outputs.rows import cell
from funduscope.engine.results import ModelName, Rejected, columns

MODEL = ModelName("multi-task", "multitask", "1", "0" * 64, "fake", "fp32")
NOT_UTF8 = os.fsdecode(b"\xff\xfe not UTF-8.jpg")
NAMES = [
    "eye.jpg",
    "é ü 漢字.jpg",
    "e\u0301.jpg",  # the same letter in its other form
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
    "x" * 255,
    "half a pair \ud800.jpg",
    NOT_UTF8,
]
SHOWN = [*NAMES[:-2], r"half a pair \ud800.jpg", r"\xff\xfe not UTF-8.jpg"]


@pytest.fixture
def screening(fake, fundus):
    with fake() as opened:
        return opened(fundus())


def rejected(name: str) -> Rejected:
    return Rejected(name, None, Code.DAMAGED, "the data is cut or corrupt", (MODEL,))


def write(results, folder: Path, *forms: str) -> None:
    for form in forms or ("jsonl", "csv"):
        rows.write((own.to_dict() for own in results), folder / f"screenings.{form}", form)


def read_csv(folder) -> list[dict[str, str]]:
    with (folder / "screenings.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_jsonl(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "screenings.jsonl").read_text("utf-8").splitlines()]


def test_R09_any_name_returns_from_every_file(tmp_path, screening):
    parquet = pytest.importorskip("pyarrow.parquet")
    write([dataclasses.replace(screening, name=name) for name in NAMES], tmp_path, "jsonl", "csv", "parquet")
    assert [row["name"] for row in read_jsonl(tmp_path)] == SHOWN
    assert [row["name"].removeprefix("'") for row in read_csv(tmp_path)] == SHOWN
    table = parquet.read_table(tmp_path / "screenings.parquet").to_pylist()
    assert [row["name"] for row in table] == SHOWN
    assert [row["name_bytes"] for row in table] == [None] * (len(NAMES) - 1) + [os.fsencode(NOT_UTF8).hex()]


def test_no_cell_of_the_csv_is_a_formula(tmp_path):
    write([dataclasses.replace(rejected(name), reason=name) for name in NAMES], tmp_path)
    for row in read_csv(tmp_path):
        for own in row.values():
            assert not own.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_no_name_of_a_model_is_a_formula(tmp_path):
    names = tuple(dataclasses.replace(MODEL, name=name) for name in ("=cmd()|' /C calc'!A0", "-rf"))
    write([dataclasses.replace(rejected("a"), models=names)], tmp_path)
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
    write([dataclasses.replace(screening, fovea=(-3.5, 2.0))], tmp_path)
    assert read_csv(tmp_path)[0]["fovea_x"] == "-3.5"


@pytest.fixture
def mixed(screening):
    others = {"cup": None, "vcdr": None, "decisions": {}, "warnings": (Code.CUP_NOT_FOUND, Code.FOVEA_NOT_FOUND)}
    return [screening, rejected("b.jpg"), dataclasses.replace(screening, **others)]


def test_both_files_agree_row_by_row(tmp_path, mixed):
    write(mixed, tmp_path)

    def as_text(value) -> str:
        if isinstance(value, list):
            return " ".join(value)
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    in_csv, in_jsonl = read_csv(tmp_path), read_jsonl(tmp_path)
    assert [{key: as_text(value) for key, value in row.items()} for row in in_jsonl] == in_csv
    assert tuple(in_csv[0]) == tuple(in_jsonl[0]) == tuple(column.name for column in columns())
    assert len(in_csv) == 3


def test_parquet_has_the_values_of_jsonl_under_types(tmp_path, mixed):
    parquet = pytest.importorskip("pyarrow.parquet")
    write(mixed, tmp_path, "jsonl", "parquet")
    table = parquet.read_table(tmp_path / "screenings.parquet")
    assert table.to_pylist() == read_jsonl(tmp_path)
    types = {field.name: str(field.type) for field in table.schema}
    assert types["vcdr"] == "double"
    assert types["glaucoma"] == "bool"
    assert types["width"] == "int64"
    assert types["warnings"] == "list<element: string>"


def test_without_rows_the_columns_are_there(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write([], tmp_path, "jsonl", "csv", "parquet")
    names = [column.name for column in columns()]
    assert (tmp_path / "screenings.csv").read_bytes().decode() == ",".join(names) + "\r\n"
    assert (tmp_path / "screenings.jsonl").read_text() == ""
    assert parquet.read_table(tmp_path / "screenings.parquet").schema.names == names


def test_without_pyarrow_the_line_that_installs_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"funduscope\[parquet\]"):
        write([], tmp_path, "parquet")
    assert not list(tmp_path.iterdir())


def test_a_file_has_its_name_only_at_the_end(tmp_path):
    write([rejected("before")], tmp_path)

    def stopped():
        yield rejected("after").to_dict()
        assert len(list(tmp_path.glob(".*.part"))) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows.write(stopped(), tmp_path / "screenings.csv", "csv")
    assert [row["name"] for row in read_csv(tmp_path)] == ["before"]
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file: is a file, and a folder is needed"):
        write([], tmp_path / "file")


def test_R07_a_folder_that_was_removed_is_refused_at_the_end(tmp_path):
    def removed():
        yield rejected("a").to_dict()
        shutil.rmtree(tmp_path / "out")

    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="No such file"):
        rows.write(removed(), tmp_path / "out" / "screenings.csv", "csv")
