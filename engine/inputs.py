"""Which pictures a command line means: files, folders, globs, and CSV or text lists of paths."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import SettingsError
from .photo import SUFFIXES

_COLUMNS = ("path", "image", "file", "filename", "name")


def expand(arguments: Iterable[str]) -> list[str]:
    """Paths in order, each once. A file named explicitly always stays; folders are walked for pictures by suffix.

    A CSV list has one path a row, in a column named path, image, file, filename or name (else its only or first
    column), relative to the list's own folder. Raises: SettingsError where nothing is meant, or a list cannot be read.
    """
    found = dict.fromkeys(path for argument in arguments for path in _one(argument))
    if not found:
        raise SettingsError(f"no pictures there; folders are searched for {', '.join(sorted(SUFFIXES))}")
    return list(found)


def _one(argument: str) -> Iterator[str]:
    path = Path(argument)
    if path.is_dir() and path.suffix.lower() not in SUFFIXES:
        yield from _walk(path)
    elif path.suffix.lower() == ".csv" and path.is_file():
        yield from _listed(path)
    elif not path.exists() and glob.has_magic(argument):
        yield from sorted(glob.glob(argument, recursive=True))
    else:
        yield argument


def _walk(folder: Path) -> Iterator[str]:
    """Pictures below a folder, sorted; links to folders are not followed, so no walk is endless."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.path.join(parent, name)


def _listed(path: Path) -> Iterator[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            rows = [row for row in csv.reader(file) if row and row[0].strip()]
    except (OSError, csv.Error) as error:
        raise SettingsError(f"{path}: the list cannot be read ({error})") from None
    if not rows:
        raise SettingsError(f"{path}: the list is empty")
    header = [cell.strip().lower() for cell in rows[0]]
    column = next((header.index(name) for name in _COLUMNS if name in header), None)
    for row in rows if column is None else rows[1:]:
        if len(row) > (column or 0):
            yield str(path.parent / row[column or 0])
