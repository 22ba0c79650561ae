"""Which pictures a command line means: files, folders, globs, and CSV lists of paths."""

from __future__ import annotations

import csv
import functools
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import SettingsError
from ..eyes import EYES, Listed
from .photo import SUFFIXES

_COLUMNS = ("path", "image", "file", "filename", "name")


def expand(arguments: Iterable[str], leave_out: Path | None = None) -> list[Listed]:
    """The pictures that are meant. A file named explicitly always stays; folders are walked for pictures by suffix.

    A glob that the shell has left is expanded here; one that matches nothing stays, and becomes a row that says so.
    A CSV list has one path a row, in a column named path, image, file, filename or name (else its only or first
    column), relative to the list's own folder; columns `patient` and `eye` (right, left, OD, OS, R, L, or empty) say
    whose eye it is.

    Args:
        arguments: Files, folders, globs, CSV lists.
        leave_out: A folder that is not searched, where results go.

    Returns:
        Pictures in order, each once, however its path is spelt.

    Raises:
        SettingsError: No picture is meant, a list or folder cannot be read, or lists contradict each other.
    """
    named = (path for argument in arguments for path in _globbed(argument))
    found: dict[tuple[str, str], Listed] = {}
    real = functools.cache(os.path.realpath)  # a folder holds many pictures
    for name in named:
        for picture in _pictures(name, leave_out):
            place = _place(picture.path, real)
            known = found.setdefault(place, picture)
            if known.patient is None and known.eye is None:
                if picture.patient or picture.eye:  # a list knows more than a folder
                    found[place] = picture
            elif (picture.patient or picture.eye) and (picture.patient, picture.eye) != (known.patient, known.eye):
                raise SettingsError(f"{picture.path}: listed twice, as {known} and as {picture}")
    if not found:
        raise SettingsError(f"no pictures there; folders are searched for {', '.join(sorted(SUFFIXES))}")
    return list(found.values())


def _place(path: str, real: Callable[[str], str]) -> tuple[str, str]:
    """Where a picture lies: the same for all spellings of its path, while two links to one file are two pictures."""
    folder, name = os.path.split(path)
    try:
        return real(folder), name
    except ValueError:  # a NUL, which no path has: it becomes a row that says so
        return folder, name


def _globbed(argument: str) -> list[str]:
    if os.path.lexists(argument) or not glob.has_magic(argument):
        return [argument]
    return sorted(glob.glob(argument, recursive=True)) or [argument]


def _pictures(name: str, leave_out: Path | None) -> Iterator[Listed]:
    suffix = os.path.splitext(name)[1].lower()  # os.path answers on any name, where pathlib raises on an overlong one
    if os.path.isdir(name) and suffix not in SUFFIXES:  # noqa: PTH112
        yield from map(Listed, _walk(name, leave_out))
    elif suffix == ".csv" and os.path.isfile(name):  # noqa: PTH113
        yield from _listed(Path(name))
    else:
        yield Listed(name)


def _walk(folder: str, leave_out: Path | None) -> Iterator[str]:
    """Pictures below a folder, sorted; links to folders are not followed, so no walk is endless."""
    for parent, folders, files in os.walk(folder, onerror=_refuse_folder):
        if leave_out is not None and os.path.realpath(parent) == os.path.realpath(leave_out):
            folders.clear()
            continue
        folders.sort()
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.path.join(parent, name)


def _refuse_folder(error: OSError) -> None:
    raise SettingsError(f"{error.filename}: the folder cannot be searched ({error.strerror})")


def _listed(path: Path) -> Iterator[Listed]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, csv.Error) as error:
        raise SettingsError(f"{path}: the list cannot be read ({error})") from None
    if not rows:
        raise SettingsError(f"{path}: the list is empty")
    header = [cell.strip().lower() for cell in rows[0]]
    column = next((header.index(name) for name in _COLUMNS if name in header), None)
    if column is None and {"patient", "eye"} & set(header):
        raise SettingsError(f"{path}: its header names no pictures; the column is called {' or '.join(_COLUMNS)}")

    def cell(row: list[str], where: int | None) -> str:
        return row[where] if where is not None and where < len(row) else ""

    patient_at, eye_at = (header.index(n) if column is not None and n in header else None for n in ("patient", "eye"))
    for row in rows if column is None else rows[1:]:
        name = cell(row, column or 0)
        if not name:
            raise SettingsError(f"{path}: the row {','.join(row)!r} names no picture")
        eye = cell(row, eye_at).strip().lower()
        if eye not in EYES:
            raise SettingsError(
                f"{path}: eye {eye!r} in the row {','.join(row)!r}; allowed are right, left, OD, OS, R, L and empty"
            )
        yield Listed(str(path.parent / name), cell(row, patient_at).strip() or None, EYES[eye])
