"""A folder with the results of a run: what may go into it, and the files that are written from its store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from .. import files
from ..contract import TermsPart
from ..errors import SettingsError
from . import dicom, patients, report, rows
from .overlays import FOLDER, Drawings, overlays
from .patients import Patients
from .store import FILE as STORE
from .store import NoRun, Store, claimed

Onto = Literal["new", "resume", "add", "overwrite"]
RECORD = "run.json"
FILES = (f"{rows.STEM}.jsonl", f"{rows.STEM}.csv", patients.FILE, report.FILE, RECORD)


@contextmanager
def opened(folder: Path, onto: Onto) -> Iterator[Store]:
    """The store of a folder that is held against other runs, with room made for what will be written.

    Raises: OutputError where it cannot be written or another run writes there, SettingsError where it holds a run that is not
    to be touched.
    """
    with claimed(folder):
        expect(folder, onto)
        if onto == "overwrite" or not begun(folder):
            erase(folder)
        files.remove_parts(folder)
        for name in FILES:
            files.expect(folder / name)
        with Store(folder, write=True) as store:
            yield store


def begun(folder: Path) -> bool:
    """Whether a folder holds a run. Raises SettingsError where its store is damaged."""
    try:
        with Store(folder) as store:
            return store.noted("begun") is not None
    except NoRun:
        return False


def expect(folder: Path, onto: Onto = "new") -> None:
    """See that a run may go into a folder, before the work. Raises SettingsError where it holds one that is not to be touched,
    OutputError where it is a file."""
    if folder.is_file():
        raise files.refused(folder, NotADirectoryError(20, "Not a directory"))
    if onto == "new" and begun(folder):
        raise SettingsError(f"{folder}: holds a run already; resume it, overwrite it, or name another folder")


def erase(folder: Path) -> None:
    """Remove all that a run has written into a folder, and nothing else. Raises OutputError."""
    files.remove(folder / f"{STORE}{suffix}" for suffix in ("", "-wal", "-shm"))
    files.remove(folder / name for name in (*FILES, f"{rows.STEM}.parquet"))
    for drawings in (FOLDER, report.FOLDER):
        files.remove((folder / drawings).glob("[0-9][0-9][0-9][0-9][0-9][0-9]_*.jpg"))
    dicom.erase(folder / dicom.FOLDER)


def write_rows(folder: Path, store: Store, *, parquet: bool = False) -> None:
    """Write the rows of pictures and patients. Raises OutputError."""
    for form in ("jsonl", "csv", "parquet")[: 3 if parquet else 2]:
        rows.write(store.rows(), folder / f"{rows.STEM}.{form}", form)
    with Patients(folder) as named:
        for _, result in store.results(of_patients=True):
            named.write(result)
    if not named.patients:
        files.remove([folder / patients.FILE])


def draw(
    folder: Path,
    store: Store,
    *,
    contours: bool = False,
    page: bool = True,
    beside: Sequence[dicom.Reports] = (),
    stopped: Callable[[], bool] = bool,
) -> int | None:
    """Draw what is asked for of a run and not there yet, and write its page, unless it is stopped meanwhile.

    Args: beside: what else is written of each photo.
    Returns: photos that could not be drawn, because they are gone or have changed; None where it was stopped.
    Raises: OutputError.
    """
    drawers: list[Drawings | dicom.Reports] = [*drawers_of(folder, contours=contours, page=page), *beside]
    for number, result in store.results() if drawers else ():
        if stopped():
            return None
        for drawer in drawers:
            drawer.write(number, result)
    if page:
        terms = [TermsPart(**own) for own in store.noted("terms")]
        report.write(folder, store.results(), store.counts(), store.models(), terms)
    return max((drawer.missed for drawer in drawers), default=0)


def drawers_of(folder: Path, *, contours: bool, page: bool) -> list[Drawings]:
    """What draws photos with their contours and heat, and the small pictures of the page."""
    made = [Drawings(folder / FOLDER, overlays)] if contours else []
    return [*made, report.drawings(folder)] if page else made
