"""Lists of pictures as people keep them: CSV by Excel in any country, text, Excel's own files."""

from __future__ import annotations

import codecs
import csv
import itertools
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import SettingsError, require
from ..eyes import EYES, Listed
from . import shards

SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".xlsx"})
_PATH = (
    *("path", "image", "file", "filename", "name", "filepath", "imagepath", "imagefile", "imagename", "imageid"),
    *("idcode", "picture", "photo", "photograph"),
)
_PATIENT = ("patient", "patientid", "patientname", "subject", "subjectid")
_EYE = ("eye", "laterality", "side")
_TRIED = "read relative to the list, with other separators, letter forms and suffixes"
_SOME = 50  # rows by which a list is judged


def read(path: Path, suffixes: frozenset[str]) -> Iterator[Listed]:
    """The pictures of a list, relative to its own folder.

    Separators (comma, semicolon, tab), encodings (UTF-8, UTF-16, Windows-1252) and header are told from the list. Names are
    taken as they are where there is such a file; else with the separators of this system, without spaces around, in the other
    form of their letters, or with a suffix.

    Args:
        path: Of the list.
        suffixes: Of pictures.

    Raises:
        SettingsError: It cannot be read, a row is wrong, or none of its pictures is there.
    """
    rows = _rows(path)
    if not rows:
        raise SettingsError(f"{path}: the list is empty")
    header = [_plain(cell) for cell in rows[0]]
    column = next((header.index(name) for name in _PATH if name in header), None)
    patient_at, eye_at = (next((header.index(n) for n in names if n in header), None) for names in (_PATIENT, _EYE))
    finder = _Finder(path.parent, suffixes)
    if column is None and (patient_at is not None or eye_at is not None):
        raise SettingsError(
            f"{path}: its header names no pictures; the column is called {', '.join(_PATH[:5])} or the like"
        )
    body = rows if column is None else rows[1:]
    if column is None:
        column = _likeliest(path, rows, finder)
        if (
            len(rows) > 1
            and not finder.is_like_one(_cell(rows[0], column))
            and finder.is_like_one(_cell(rows[1], column))
        ):
            body = rows[1:]  # a header in words that we do not know
        patient_at = eye_at = None
    found = []
    for row in body:
        name = _cell(row, column)
        if not name.strip():
            raise SettingsError(f"{path}: the row {','.join(row)!r} names no picture")
        eye = _cell(row, eye_at).strip().lower()
        if eye not in EYES:
            allowed = ", ".join(word for word in EYES if word)
            raise SettingsError(f"{path}: eye {eye!r} in the row {','.join(row)!r}; allowed are {allowed} and empty")
        found.append(Listed(finder.find(name), _cell(row, patient_at).strip() or None, EYES[eye]))
    if not finder.found:
        raise SettingsError(
            f"{path}: none of its {len(found)} pictures is there, the first {found[0].path}; names were {_TRIED}"
        )
    yield from found


def _cell(row: Sequence[str], where: int | None) -> str:
    return row[where] if where is not None and where < len(row) else ""


def _plain(cell: str) -> str:
    """A column's name without case and separators."""
    return "".join(letter for letter in cell.lower() if letter.isalnum())


class _Finder:
    """Finds the files that a list means. found: how many were there."""

    def __init__(self, folder: Path, suffixes: frozenset[str]) -> None:
        self._folder, self.found = folder, 0
        self._suffixes = [*sorted(suffixes), *(suffix.upper() for suffix in sorted(suffixes))]

    def is_like_one(self, name: str) -> bool:
        """Whether a cell looks like the name of a picture."""
        suffix = os.path.splitext(name.strip())[1].lower()
        path = os.path.join(self._folder, name.strip())
        return suffix in self._suffixes or (
            bool(name.strip()) and (self._is_there(path) or self._with_suffix(path) is not None)
        )

    def find(self, name: str) -> str:
        """The path of the file that is meant; where there is none, as the list has it."""
        for spelling in _spellings(name):
            path = os.path.join(self._folder, spelling)
            if self._is_there(path):
                self.found += 1
                return path
            if (there := self._with_suffix(path)) is not None:
                self.found += 1
                return there
        return os.path.join(self._folder, name)

    def _with_suffix(self, path: str) -> str | None:
        """What is there of a name without its suffix; points in it may be those of a date."""
        if os.path.splitext(path)[1].lower() in self._suffixes:
            return None
        return next((path + suffix for suffix in self._suffixes if self._is_there(path + suffix)), None)

    @staticmethod
    def _is_there(path: str) -> bool:
        return "\0" not in path and os.path.lexists(shards.file_of(path))


def _spellings(name: str) -> Iterator[str]:
    """A name as it is, then other ways in which it may be meant, the likelier first."""
    bare = name.strip()
    yield name
    yield bare
    forms = [bare]
    if "\\" in bare or re.match("[A-Za-z]:/|//", bare):
        slashes = bare.replace("\\", "/")
        parts = [part for part in re.sub(r"^[A-Za-z]:|^//[^/]+", "", slashes).split("/") if part]
        forms = [slashes, *("/".join(parts[k:]) for k in range(len(parts)))]  # of a drive or share: as much as there is
    for form in forms:
        yield form
        yield unicodedata.normalize("NFC", form)
        yield unicodedata.normalize("NFD", form)


def _likeliest(path: Path, rows: Sequence[Sequence[str]], finder: _Finder) -> int:
    """The column that looks most like pictures. Raises SettingsError where a second one names as many others."""
    width = max(map(len, rows[:_SOME]))
    columns = [[_cell(row, k) for row in rows[:_SOME]] for k in range(width)]
    alike = [sum(map(finder.is_like_one, cells)) for cells in columns]
    best = alike.index(max(alike))
    stems = [[os.path.splitext(cell.strip())[0] for cell in cells] for cells in columns]
    if alike[best] and (others := [k for k in range(width) if alike[k] == alike[best] and stems[k] != stems[best]]):
        both = " and ".join(repr(_cell(rows[0], k)) for k in (best, *others))
        raise SettingsError(f"{path}: {both} both name pictures; call the column to read {_PATH[0]}, one picture a row")
    return best


def _rows(path: Path) -> list[list[str]]:
    """All rows that are not empty. Raises SettingsError."""
    try:
        rows = _of_excel(path) if path.suffix.lower() == ".xlsx" else _of_text(path)
    except (OSError, csv.Error, ValueError) as error:
        raise SettingsError(f"{path}: the list cannot be read ({error})") from None
    return [row for row in rows if any(cell.strip() for cell in row)]


def _of_excel(path: Path) -> list[list[str]]:
    try:
        book = require("openpyxl", "excel").load_workbook(path, read_only=True, data_only=True)
    except (KeyError, OSError) as error:
        raise ValueError(error) from None
    except Exception as error:  # of a zip that is no workbook, by several libraries
        if type(error).__module__.startswith(("openpyxl", "zipfile")):
            raise ValueError(error) from None
        raise
    return [
        ["" if cell is None else str(cell) for cell in row] for row in book.worksheets[0].iter_rows(values_only=True)
    ]


def _of_text(path: Path) -> list[list[str]]:
    data = path.read_bytes()
    texts = _texts(data)
    parsed = [_parsed(text) for text in texts]
    if len(parsed) == 1:
        return parsed[0]
    # bytes that are not UTF-8: names as the system has them, or Windows letters; whichever is there
    return max(parsed, key=lambda rows: _there(rows[:_SOME], path.parent))


def _there(rows: Sequence[Sequence[str]], folder: Path) -> int:
    cells = itertools.chain.from_iterable(rows)
    return sum(os.path.lexists(os.path.join(folder, own)) for own in cells if own.strip() and "\0" not in own)


def _texts(data: bytes) -> list[str]:
    """What the bytes may say, the likelier first."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return [data.decode("utf-16")]
    if data.startswith(codecs.BOM_UTF8):
        return [data.decode("utf-8-sig", "surrogateescape")]
    for start, encoding in (
        (1, "utf-16-le"),
        (0, "utf-16-be"),
    ):  # without a mark: every other byte of Latin letters is 0
        if len(data) > 3 and data[start::2].count(0) > len(data) // 4:
            return [data.decode(encoding)]
    try:
        return [data.decode()]
    except UnicodeDecodeError:
        return [data.decode("utf-8", "surrogateescape"), data.decode("cp1252", "replace")]


def _parsed(text: str) -> list[list[str]]:
    separator = ""
    if found := re.match(r'"?sep=(.)"?[ ,;\t]*\r?\n', text, re.IGNORECASE):  # a line by which Excel is told
        separator, text = found[1], text[found.end() :]
    first = re.sub(r'"[^"]*"', "", next((line for line in text.splitlines() if line.strip()), ""))
    separator = separator or max(",;\t", key=first.count)
    if separator not in first:
        separator = "\x1f"  # one column: names may have commas
    return list(csv.reader(text.splitlines(keepends=True), delimiter=separator))
