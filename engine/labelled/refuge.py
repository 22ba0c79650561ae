"""Reader of the REFUGE challenge's official folders, however its archives were unpacked.

Pictures: `.../Training400/Glaucoma/g0001.jpg`, `.../REFUGE-Validation400/V0001.jpg`, `.../Test400/T0001.jpg`.
Masks (0 cup, 128 rim, 255 background): `.../Disc_Cup_Masks/.../g0001.bmp`. Tables with the columns ImgName, Fovea_X,
Fovea_Y and sometimes a glaucoma label: `.xlsx`, or the same as `.csv`. In the training split the folder is the label.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, require
from .sample import Sample, Split

_SPLITS: dict[str, Split] = {"train": "train", "validation": "val", "test": "test"}  # word in a folder's name -> split
_FOLDERS = {"glaucoma": 1, "non-glaucoma": 0}
Key = tuple[Split, str]  # split and the picture's stem, in lower case


@dataclass(frozen=True)
class _Row:
    fovea: tuple[float, float] | None
    glaucoma: int | None


def load(folder: Path) -> list[Sample]:
    """All pictures below `folder`; what is missing is not labelled.

    Raises: DataError where there are no pictures, a picture belongs to no split, or a table cannot be read; MissingExtra.
    """
    pictures = {_key(path, folder): path for path in _files(folder, {".jpg", ".jpeg"})}
    if not pictures:
        raise DataError(
            f"{folder}: no index.csv in it, and not REFUGE's layout either (Training400/.../*.jpg and so on)"
        )
    masks = {
        _key(path, folder): path
        for path in _files(folder, {".bmp"})
        if any(parent.name.lower() == "disc_cup_masks" for parent in path.parents)
    }
    rows: dict[Key, _Row] = {}
    for table in _files(folder, {".xlsx", ".csv"}):
        rows.update(_rows(table, folder))
    samples = []
    for key, path in sorted(pictures.items()):
        row = rows.get(key, _Row(None, None))
        samples.append(
            Sample(
                image=path,
                set_name=folder.resolve().name,
                split=key[0],
                mask=masks.get(key),
                mask_has_cup=key in masks,
                mask_style="refuge",
                fovea=row.fovea,
                glaucoma=_FOLDERS.get(path.parent.name.lower()) if row.glaucoma is None else row.glaucoma,
            )
        )
    return samples


def _files(folder: Path, suffixes: set[str]) -> Iterator[Path]:
    """Files below a folder by suffix, sorted; what archivers and spreadsheets leave behind (._x, ~$x) is passed over."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in suffixes and not path.name.startswith((".", "~")):
            yield path


def _key(path: Path, folder: Path) -> Key:
    return _split(path, folder), path.stem.lower()


def _split(path: Path, folder: Path) -> Split:
    for part in reversed(path.relative_to(folder).parts[:-1]):
        for word, split in _SPLITS.items():
            if word in part.lower():
                return split
    names = "Training400, REFUGE-Validation400 or Test400"
    raise DataError(
        f"{folder}: no index.csv in it, and not REFUGE's layout either: {path} lies in no folder like {names}"
    )


def _rows(table: Path, folder: Path) -> Iterator[tuple[Key, _Row]]:
    """The labels of a table, by picture. A table without a column of pictures is another kind of file."""
    lines = iter(_csv(table) if table.suffix.lower() == ".csv" else _xlsx(table))
    header = [str(cell or "").strip().lower() for cell in next(lines, ())]
    if "imgname" not in header:
        return
    name = header.index("imgname")
    label = next((k for k, title in enumerate(header) if "label" in title), None)
    fovea = [header.index(axis) for axis in ("fovea_x", "fovea_y") if axis in header]
    split = _split(table, folder)
    for number, line in enumerate(lines, start=2):
        try:
            if not line[name]:
                continue
            x_y = [float(line[k]) for k in fovea if line[k] not in (None, "")]
            glaucoma = None if label is None or line[label] in (None, "") else int(line[label])
        except (ValueError, TypeError, IndexError) as error:
            raise DataError(f"{table}, line {number}: {error}") from None
        if glaucoma not in (None, 0, 1):
            raise DataError(f"{table}, line {number}: glaucoma label {glaucoma}; allowed are 0, 1 and empty")
        key = split, Path(str(line[name])).stem.lower()
        yield key, _Row((x_y[0], x_y[1]) if len(x_y) == 2 else None, glaucoma)


def _csv(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [line for line in csv.reader(file) if line]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: the table cannot be read ({error})") from None


def _xlsx(path: Path) -> Iterable[tuple[Any, ...]]:
    openpyxl = require("openpyxl", "train")
    try:
        book = openpyxl.load_workbook(path, data_only=True)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: the table cannot be read ({error})") from None
    return list(book.active.iter_rows(values_only=True))
