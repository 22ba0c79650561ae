"""The rows of a run as files: JSONL, CSV or Parquet, all under the columns of `results.columns`."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import require
from ..files import writing
from ..results import columns

Row = Mapping[str, Any]
STEM = "screenings"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # a spreadsheet would run a cell that starts so
_GROUP = 10_000  # rows of a Parquet row group


def write(rows: Iterable[Row], path: Path, form: str) -> None:
    """Write a whole file of rows. Args: form: one of FORMATS. Raises OutputError, MissingExtra."""
    with writing(path) as file:
        FORMATS[form](rows, file)


def expect(form: str) -> None:
    """See that a form can be written, before the work. Raises MissingExtra."""
    if form == "parquet":
        require("pyarrow", "parquet")


def _jsonl(rows: Iterable[Row], file: BinaryIO) -> None:
    for row in rows:
        file.write(json.dumps(row, allow_nan=False).encode() + b"\n")


def _csv(rows: Iterable[Row], file: BinaryIO) -> None:
    text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="")
    write_csv(rows, [column.name for column in columns()], text)
    text.flush()
    text.detach()


def write_csv(rows: Iterable[Row], names: Iterable[str], text: Any) -> None:
    """Rows as CSV, the header first. Args: names: of the columns where there is no row; text: to write to."""
    writer, remaining = csv.writer(text), iter(rows)
    first = next(remaining, None)
    writer.writerow(names if first is None else first)
    for row in itertools.chain([] if first is None else [first], remaining):
        writer.writerow([cell(value) for value in row.values()])


def _parquet(rows: Iterable[Row], file: BinaryIO) -> None:
    pa, pq = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
    kinds = {
        "text": pa.string(),
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
        "list": pa.list_(pa.string()),
    }
    schema = pa.schema([(column.name, kinds[column.kind]) for column in columns()])
    with pq.ParquetWriter(file, schema) as writer:
        for group in groups(rows, _GROUP):
            writer.write_table(pa.Table.from_pylist(group, schema))


FORMATS: dict[str, Callable[[Iterable[Row], BinaryIO], None]] = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}


def groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of so many, in order; the last may be shorter."""
    remaining = iter(items)
    while group := list(itertools.islice(remaining, size)):
        yield group


def cell(value: Any) -> Any:
    """A value as a CSV cell: lists joined, truth in lower case, what a spreadsheet would run made text."""
    if isinstance(value, list):
        value = " ".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
