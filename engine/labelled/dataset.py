"""Readers of labelled fundus pictures: a folder with `index.csv`, and the official layout of the REFUGE challenge.

An empty cell means *not labelled*, never 0. Labels stay in the pixels of the stored picture.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import logging
import math
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

from PIL import Image

from ..diseases import DISEASES
from ..errors import DataError
from ..eyes import EYES
from . import refuge
from .sample import SPLITS, Sample, Split

_log = logging.getLogger("funduscope")
_OTHERS = [name for name, own in DISEASES.items() if own.dr_grade is None and name != "glaucoma"]  # a column each
_COLUMNS = (
    *("image", "split", "mask", "mask_has", "fovea_x", "fovea_y", "glaucoma", *_OTHERS, "dr_grade", "patient", "eye"),
    *("scale", "lesions", "twin", "quality", "expert_vcdr"),
)
_EXPERTS = "expert_vcdr.csv"  # beside index.csv, with the columns image and expert_vcdr
_WORDS = {"true": "1", "false": "0"}
_ALIKE = 0.8  # two names of which one may be meant for the other, as difflib measures
_SHARES: dict[Split, float] = {"train": 0.6, "val": 0.2, "test": 0.2}  # where a folder has no split of its own
_ORIENTATION = 274  # EXIF tag


def load(folder: Path, unsplit: Split | None = None) -> list[Sample]:
    """All samples of a data set: `index.csv` where there is one, else REFUGE's official folders.

    Args: folder: or a table like `index.csv` under another name, whose pictures lie beside it; unsplit: the split of all where
    the table has no such column, in place of 60/20/20 by patient.
    Raises: DataError with the file and what is wrong in it.
    """
    folder = Path(folder)
    if folder.is_file():
        samples = _read_index(folder, unsplit)
        check(samples)
        return samples
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder or table")
    samples = _read_index(folder / "index.csv", unsplit) if (folder / "index.csv").is_file() else refuge.load(folder)
    check(samples)
    return samples


def check(samples: Iterable[Sample]) -> None:
    """Refuse labels that cannot be trusted. Raises DataError.

    They are: a missing picture or mask, a mask of another size than its picture, a fovea outside it, a picture twice, a
    picture or patient in two splits.
    """
    problems: list[str] = []
    pictures: set[Path] = set()
    splits: dict[tuple[str, str], set[str]] = defaultdict(set)
    for sample in samples:
        problems += _problems(sample)
        if sample.image in pictures:
            problems.append(f"{sample.image}: listed twice")
        pictures.add(sample.image)
        if sample.patient:
            splits[sample.set_name, sample.patient].add(sample.split)
    problems += [f"{name}: patient {who} is in splits {sorted(s)}" for (name, who), s in splits.items() if len(s) > 1]
    if problems:
        raise DataError("Labels that cannot be used:\n  " + "\n  ".join(problems[:20]) + _more(len(problems) - 20))


def _problems(sample: Sample) -> list[str]:
    if not sample.image.is_file():
        return [f"{sample.image}: no such picture"]
    if sample.mask is not None and not sample.mask.is_file():
        return [f"{sample.mask}: no such mask"]
    if sample.lesions is not None and not sample.lesions.is_file():
        return [f"{sample.lesions}: no such drawing of lesions"]
    drawn = [drawing for drawing in (sample.mask, sample.lesions) if drawing is not None]
    if not drawn and sample.fovea is None:
        return []
    try:
        width, height = size_of(sample.image)
        sizes = [size_of(drawing) for drawing in drawn]
    except (OSError, ValueError, SyntaxError) as error:
        return [f"{sample.image}, or its mask: the header cannot be read ({error})"]
    problems = []
    for drawing, size in zip(drawn, sizes, strict=True):
        if size != (width, height):
            problems.append(f"{drawing}: {size[0]} x {size[1]} px, but its picture has {width} x {height}")
    if sample.fovea and not (-0.5 <= sample.fovea[0] < width and -0.5 <= sample.fovea[1] < height):
        problems.append(f"{sample.image}: the fovea {sample.fovea} lies outside the picture ({width} x {height})")
    return problems


def size_of(path: Path) -> tuple[int, int]:
    """Width and height as displayed, from the header alone."""
    with Image.open(path) as header:
        width, height = header.size
        rotated = "exif" in header.info and header.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    return (height, width) if rotated else (width, height)


def _more(count: int) -> str:
    return f"\n  and {count} more" if count > 0 else ""


def _read_index(index: Path, unsplit: Split | None) -> list[Sample]:
    folder = index.parent
    try:
        with index.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = [name.strip().lower() for name in next(reader, [])]
            rows = [dict(zip(columns, row, strict=False)) for row in reader if row]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{index}: cannot be read ({error})") from None
    if "image" not in columns:
        raise DataError(f"{index}: column ['image'] is missing")
    if others := [_with_likeness(name, columns) for name in columns if name not in _COLUMNS]:
        _log.warning("%s: columns that are not read: %s", index, ", ".join(others))
    if not rows:
        raise DataError(f"{index}: no rows")
    experts = _experts(folder / _EXPERTS, {row.get("image") or "" for row in rows})
    for row in rows:
        row["patient"] = (row.get("patient") or "").strip()
        row["expert_vcdr"] = row.get("expert_vcdr") or experts.get(row.get("image") or "", "")
    if "split" not in columns and unsplit is None:
        _split(rows)
    samples = []
    for line, row in enumerate(rows, start=2):
        try:
            samples.append(_sample_of_row(folder, {"split": unsplit or "", **row}))
        except ValueError as error:
            raise DataError(f"{index}, line {line}: {error}") from None
    return samples


def _experts(table: Path, pictures: Collection[str]) -> dict[str, str]:
    """Experts' cup-to-disc ratios by picture, of a table that is there or is not. Args: pictures: of the index."""
    if not table.is_file():
        return {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            lines = [dict(zip(header, (cell.strip() for cell in row), strict=False)) for row in reader if row]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read ({error})") from None
    if missing := [name for name in ("image", "expert_vcdr") if name not in header]:
        raise DataError(f"{table}: column {missing} is missing")
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        image, ratio = line.get("image", ""), line.get("expert_vcdr", "")
        if image not in pictures or image in found:
            why = "is listed twice" if image in found else "is not in the index"
            raise DataError(f"{table}, line {number}: {image!r} {why}")
        try:
            _ratio(ratio)
        except ValueError as error:
            raise DataError(f"{table}, line {number}: {error}") from None
        found[image] = ratio
    return found


def _ratio(text: str | None) -> float | None:
    """A cup-to-disc ratio. Raises ValueError."""
    if not text:
        return None
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"expert_vcdr {text}; allowed is what lies from 0 to 1")
    return value


def _with_likeness(name: str, columns: Collection[str]) -> str:
    """A column's name, with the known one that may be meant by it."""
    missing = [own for own in _COLUMNS if own not in columns]
    alike = difflib.get_close_matches(name, missing, n=1, cutoff=_ALIKE)
    return f"{name!r} (is {alike[0]} meant?)" if alike else repr(name)


def _split(rows: list[dict[str, str]]) -> None:
    """Split rows 60/20/20 by patient, by picture where none is named; the same names always give the same split."""
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[row["patient"] or row.get("image") or ""].append(row)
    order = sorted(groups, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest())
    placed = 0
    for name in order:
        middle = (placed + len(groups[name]) / 2) / len(rows)
        part: Split = "train" if middle < _SHARES["train"] else "val" if middle < 1 - _SHARES["test"] else "test"
        for row in groups[name]:
            row["split"] = part
        placed += len(groups[name])


def _sample_of_row(folder: Path, row: dict[str, str]) -> Sample:
    def cell(name: str, *allowed: str) -> str | None:
        value = row.get(name) or None
        if value and allowed:  # spreadsheets and pandas write 1.0 and True
            value = value.strip().lower().removesuffix(".0")
            value = _WORDS.get(value, value) or None
        if value and allowed and value not in allowed:
            raise ValueError(f"{name} {value!r}; allowed are {', '.join(allowed)} and empty")
        return value

    def number(name: str) -> float | None:
        text = cell(name)
        if text and not math.isfinite(float(text)):
            raise ValueError(f"{name} {text} is not a finite number")
        return float(text) if text else None

    eye = (cell("eye") or "").strip().lower()
    if eye not in EYES:
        raise ValueError(f"eye {eye!r}; allowed are {', '.join(word for word in EYES if word)} and empty")
    image, split, mask, lesions = cell("image"), (row.get("split") or "").strip().lower(), cell("mask"), cell("lesions")
    if not image:
        raise ValueError("no picture is named")
    if split not in SPLITS:
        raise ValueError(f"split {split!r}; allowed are {', '.join(SPLITS)}")
    mask_has, glaucoma, grade = (
        cell("mask_has", "disc", "disc+cup"),
        cell("glaucoma", "0", "1"),
        cell("dr_grade", *"01234"),
    )
    if bool(mask) != bool(mask_has):
        raise ValueError("mask and mask_has go together")
    x, y, scale = number("fovea_x"), number("fovea_y"), number("scale")
    if (x is None) != (y is None):
        raise ValueError("fovea_x and fovea_y go together")
    if scale is not None and scale <= 0:
        raise ValueError(f"scale {scale} is not positive")
    return Sample(
        image=folder / image,
        set_name=folder.resolve().name,
        split=split,
        mask=folder / mask if mask else None,
        mask_has_cup=mask_has == "disc+cup",
        fovea=None if x is None or y is None else (x, y),
        glaucoma=int(glaucoma) if glaucoma else None,
        others={name: int(value) for name in _OTHERS if (value := cell(name, "0", "1"))},
        dr_grade=int(grade) if grade else None,
        patient=cell("patient"),
        eye=EYES[eye],
        scale=scale or 1.0,
        lesions=folder / lesions if lesions else None,
        twin=cell("twin"),
        quality=number("quality"),
        expert_vcdr=_ratio(cell("expert_vcdr")),
    )
