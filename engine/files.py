"""Files that are whole or not there: written beside, flushed to disk, then renamed. Each raises OutputError."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import OutputError

_PART = ".part"


def cache(variable: str, part: str) -> Path:
    """A folder that lasts from one process to the next: what an environment variable names, or else of the user's cache."""
    if chosen := os.environ.get(variable):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "funduscope" / part


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file in one piece. Raises OutputError."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file in one piece. Raises OutputError."""
    with writing(path) as file:
        file.write(data)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that is whole on disk before it has its name; after an error there is none. Raises OutputError."""
    part = _beside(path)  # of its own: others may write the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise refused(path.parent, error) from None
    except ValueError as error:
        raise OutputError(f"{str(path)!r}: is no name of a file ({error}); choose another name") from None


def expect_empty(folder: Path) -> None:
    """See that a folder is empty, or not there yet. Raises OutputError."""
    try:
        if folder.exists() and any(folder.iterdir()):
            raise OutputError(f"{folder}: is not empty; choose a new folder")
    except OSError as error:
        raise refused(folder, error) from None


def expect(path: Path) -> None:
    """See that a file can be written, before the work that it is to hold. Raises OutputError."""
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; choose another name")
    part = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        part.unlink()
    except OSError as error:
        raise refused(path.parent, error) from None


def remove(paths: Iterable[Path]) -> None:
    """Remove files of an earlier run, where they are there. Raises OutputError."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise refused(path.parent, error) from None


def remove_parts(folder: Path) -> None:
    """Remove what was being written when a process was killed. Raises OutputError."""
    remove(folder.glob(f".*{_PART}"))


def _beside(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(8)}{_PART}")


def refused(folder: Path, error: OSError) -> OutputError:
    """What to raise where the system does not let us write."""
    for place in (folder, *folder.parents):
        if os.path.isfile(place):  # noqa: PTH113 -- Path.is_file raises where it may not look
            return OutputError(f"{place}: is a file, and a folder is needed; choose another folder")
    return OutputError(f"{folder}: cannot be written ({error.strerror}); choose another folder or make room")
