"""A run on disk, `run.sqlite`: which pictures, under which settings, and what was found of each.

A run that was cut goes on from here, and every file of results is written from here. Whoever has SQLite can read the rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, cast

import filelock

from ..errors import OutputError, SettingsError
from ..eyes import Eye, Listed
from ..files import refused
from ..pictures.shards import file_of
from ..results import ModelName, Result
from .packing import as_bytes, as_text, packed, unpacked

FILE = "run.sqlite"
_LOCK = ".run.lock"
_FORMAT = 2  # 2: with frames
_NO_RUN = f"{{}}: holds no run ({FILE}); name a folder that a run has written"
_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE pictures (number INTEGER PRIMARY KEY, path BLOB NOT NULL, patient BLOB, eye TEXT, frame INTEGER);
CREATE TABLE results (number INTEGER PRIMARY KEY, size INTEGER, modified INTEGER, sha256 TEXT, status TEXT NOT NULL,
    code TEXT, patient INTEGER NOT NULL, row TEXT NOT NULL, found BLOB NOT NULL);
CREATE INDEX of_patients ON results (number) WHERE patient;
"""
Stamp = tuple[int, int] | None
"""Of a file: its size, and when it was modified, ns; None where there is none."""


def stamp(path: str) -> Stamp:
    """A file's stamp; of a member of an archive, the archive's."""
    try:
        status = Path(file_of(path)).stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


class NoRun(SettingsError):
    """A folder without a run."""


class Store:
    """An open store; a context manager. Raises OutputError where it cannot be written, SettingsError where it is no store."""

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        """Open the store of a folder; with `write`, make it where there is none."""
        self._path = folder / FILE
        if not write and not self._path.is_file():
            raise NoRun(_NO_RUN.format(folder))
        with self._told():
            if write:
                self._file = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
                self._file.execute("PRAGMA journal_mode = WAL")
                self._file.execute("PRAGMA synchronous = NORMAL")  # whole after a power cut, but for the last moments
            else:
                self._file = sqlite3.connect(self._path.absolute().as_uri() + "?mode=ro", uri=True)
            try:
                if not self._file.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
                    if not write:  # it was cut when it was made
                        raise NoRun(_NO_RUN.format(folder))
                    self._file.executescript(f"BEGIN; {_TABLES} COMMIT;")
                    self.note("format", _FORMAT)
                if (found := self.noted("format")) != _FORMAT:
                    raise SettingsError(f"{self._path}: is of format {found}; this version reads {_FORMAT}")
            except BaseException:
                self._file.close()
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the database as ours."""
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.IntegrityError) as error:
            raise OutputError(f"{self._path}: {error}; make room, or choose another folder") from None
        except (sqlite3.DatabaseError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"{self._path}: is damaged or no store of a run ({error}); choose another folder"
            ) from None

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """What is written in here is there as a whole or not at all."""
        with self._told(), self._file:
            self._file.execute("BEGIN IMMEDIATE")
            yield

    def begin(self, pictures: Sequence[Listed], **notes: Any) -> None:
        """Make it the store of a run, as a whole. Args: notes: see `note`."""
        with self._whole():
            self._append(pictures)
            for key, value in notes.items():
                self._note(key, value)

    def note(self, key: str, value: Any) -> None:
        """Keep something about the run. Args: value: JSON."""
        with self._told():
            self._note(key, value)

    def _note(self, key: str, value: Any) -> None:
        self._file.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, json.dumps(value)))

    def noted(self, key: str) -> Any:
        """What was kept; None where nothing was."""
        with self._told():
            found = self._file.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
            return None if found is None else json.loads(found[0])

    def models(self) -> tuple[ModelName, ...]:
        """All that are open."""
        with self._told():
            return tuple(ModelName(**own) for own in self.noted("begun")["models"])

    def add(self, pictures: Sequence[Listed]) -> None:
        """Append pictures to the run."""
        with self._whole():
            self._append(pictures)

    def _append(self, pictures: Sequence[Listed]) -> None:
        self._file.executemany(
            "INSERT INTO pictures VALUES (?, ?, ?, ?, ?)",
            (
                (k, as_bytes(p.path), p.patient and as_bytes(p.patient), p.eye, p.frame)
                for k, p in enumerate(pictures, start=self.total())
            ),
        )

    def pictures(self) -> list[Listed]:
        """All pictures of the run, in order."""
        with self._told():
            rows = self._file.execute("SELECT path, patient, eye, frame FROM pictures ORDER BY number")
            return [
                Listed(as_text(path), patient and as_text(patient), cast(Eye | None, eye), frame)
                for path, patient, eye, frame in rows
            ]

    def total(self) -> int:
        """How many pictures the run has."""
        with self._told():
            return int(self._file.execute("SELECT count(*) FROM pictures").fetchone()[0])

    def put(self, results: Sequence[tuple[int, Stamp, Result]]) -> None:
        """Keep results with the stamps of their files, by the pictures' numbers; all or none."""
        with self._whole():
            for number, own, result in results:
                row = result.to_dict()
                values = (*(own or (None, None)), result.sha256, row["status"], row["code"], row["patient"] is not None)
                self._file.execute(
                    "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (number, *values, json.dumps(row, allow_nan=False), packed(result)),
                )

    def forget(self, numbers: Sequence[int]) -> None:
        """Drop results."""
        with self._whole():
            self._file.executemany("DELETE FROM results WHERE number = ?", ((number,) for number in numbers))

    def stamps(self) -> dict[int, tuple[Stamp, str | None]]:
        """Of each picture with a result: the stamp that its file had, and its SHA-256."""
        with self._told():
            rows = self._file.execute("SELECT number, size, modified, sha256 FROM results")
            return {n: (None if size is None else (size, modified), sha256) for n, size, modified, sha256 in rows}

    def counts(self) -> Counter[str]:
        """Results by code where there is one, else by status."""
        with self._told():
            return Counter(dict(self._file.execute("SELECT coalesce(code, status), count(*) FROM results GROUP BY 1")))

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """The rows, in order."""
        with self._told():
            for (row,) in self._file.execute("SELECT row FROM results ORDER BY number"):
                yield json.loads(row)

    def results(self, of_patients: bool = False) -> Iterator[tuple[int, Result]]:
        """Each picture's number and result, in order; without photos. Args: of_patients: only where the patient is known."""
        models, chosen = self.models(), "WHERE patient" if of_patients else ""
        with self._told():
            for number, found in self._file.execute(f"SELECT number, found FROM results {chosen} ORDER BY number"):
                yield number, unpacked(found, models)

    def one(self, number: int) -> tuple[Listed, Result] | None:
        """A picture and its result, without the photo; None where there is none yet."""
        models = self.models()
        with self._told():
            found = self._file.execute(
                "SELECT path, p.patient, eye, frame, found FROM results JOIN pictures p USING (number) WHERE number = ?",
                (number,),
            ).fetchone()
            if found is None:
                return None
            path, patient, eye, frame, data = found
            return Listed(as_text(path), patient and as_text(patient), eye, frame), unpacked(data, models)

    def close(self) -> None:
        """Nothing is lost without it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder, so that no other run writes there; one whose process has died is taken over.

    Raises: OutputError where another run holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / _LOCK, timeout=0):
            yield
    except filelock.Timeout:
        raise OutputError(f"{folder}: another run is writing here; wait for it, or choose another folder") from None
    except OSError as error:
        raise refused(folder, error) from None
