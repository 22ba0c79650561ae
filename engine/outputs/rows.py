"""Where results go: JSONL and CSV rows, and a record of the run. Rows are on disk as they come, under `.part` names until
the run has ended, so that a finished file is always a whole one."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

from ...version import __version__
from ..contract import Contract
from ..files import refused, write_text
from ..results import ModelName, Result, columns

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # a spreadsheet would run a cell that starts so


class Sink(Protocol):
    """Takes results one after the other."""

    def write(self, result: Result) -> None: ...


class Rows:
    """Writes `screenings.jsonl` and `screenings.csv` into a folder; a context manager. Raises OutputError."""

    def __init__(self, folder: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = folder
        self._paths = folder / "screenings.jsonl", folder / "screenings.csv"
        self._files: list[TextIO] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in self._paths:
                self._files.append(_part(path).open("w", encoding="utf-8", errors="surrogateescape", newline=""))
        except OSError as error:
            for file in self._files:
                file.close()
            raise refused(folder, error) from None
        self._csv = csv.writer(self._files[1])
        self._csv.writerow([column.name for column in columns()])

    def write(self, result: Result) -> None:
        """One row in both files, flushed."""
        row = result.to_dict()
        self.counts[row["code"] or row["status"]] += 1
        try:
            self._files[0].write(json.dumps(row, allow_nan=False) + "\n")
            self._csv.writerow([cell(value) for value in row.values()])
            for file in self._files:
                file.flush()
        except OSError as error:
            raise refused(self._folder, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        try:
            with self._files[0], self._files[1]:
                for file in self._files:
                    file.flush()
                    os.fsync(file.fileno())
            if kind is None:
                for path in self._paths:
                    _part(path).replace(path)
        except OSError as error:
            raise refused(self._folder, error) from None


def write_record(
    folder: Path, models: Sequence[ModelName], contracts: Sequence[Contract], started: datetime, extra: dict[str, Any]
) -> None:
    """Write `run.json`: what ran, on what, when, under which terms. Raises OutputError."""
    record = {
        "funduscope": __version__,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "models": [
            model.__dict__ | {"terms": own.terms.model_dump()} for model, own in zip(models, contracts, strict=True)
        ],
        "machine": {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()},
        **extra,
    }
    write_text(folder / "run.json", json.dumps(record, indent=2) + "\n")


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def cell(value: Any) -> Any:
    """A value as a CSV cell: lists joined, truth in lower case, what a spreadsheet would run made text."""
    if isinstance(value, list):
        value = " ".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
