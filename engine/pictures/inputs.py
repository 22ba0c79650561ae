"""Which pictures a command line means: files, folders, globs, archives, and lists of paths; and what was left out."""

from __future__ import annotations

import functools
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SettingsError
from ..eyes import Listed
from . import lists, shards
from .photo import SUFFIXES, is_picture

_SYSTEM = frozenset(
    {
        *("$recycle.bin", "recycler", "#recycle", "@recycle", "#snapshot", "@eadir", "@tmp"),
        *("system volume information", "lost+found", "__macosx"),
    }
)
_HIDDEN, _FOLDERS = "hidden files", "hidden or system folders"


@dataclass
class Inputs:
    """What is meant.

    Attributes:
        pictures: In order, each once.
        left_out: How many files and folders were passed over in the folders, by suffix or kind.
        empty: Folders and archives in which there are none.
    """

    pictures: list[Listed] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)

    def told(self) -> str:
        """What was passed over, for people; empty where nothing was."""
        parts = [f"{count} {kind}" for kind, count in self.left_out.most_common()]
        return ", ".join([*parts, *(f"{name}: no pictures in it" for name in self.empty)])


def expand(arguments: Iterable[str], leave_out: Path | None = None) -> list[Listed]:
    """The pictures alone; see `search`."""
    return search(arguments, leave_out).pictures


def search(arguments: Iterable[str], leave_out: Path | None = None) -> Inputs:
    """The pictures that are meant. A file named explicitly always stays; folders are searched, with all below them, for
    pictures by suffix, for pictures and DICOM files without one, and for archives (tar, zip).

    A glob that the shell has left is expanded here. Of lists see `lists.read`. Hidden and system folders, and those that hold
    the results of a run, are not searched.

    Args:
        arguments: Files, folders, globs, archives, lists (CSV, TSV, text, Excel).
        leave_out: A folder that is not searched, where results go.

    Returns:
        Pictures in order, each once, however its path is spelt; and what was left out.

    Raises:
        SettingsError: No picture is meant, something named is not there, a list, archive or folder cannot be read, or lists
            contradict each other.
    """
    found: dict[tuple[str, str], Listed] = {}
    inputs = Inputs()
    real = functools.cache(os.path.realpath)  # a folder holds many pictures
    for name in (path for argument in arguments for path in _globbed(argument)):
        for picture in _pictures(name, leave_out, inputs):
            place = _place(picture.path, real)
            known = found.setdefault(place, picture)
            if known.patient is None and known.eye is None:
                if picture.patient or picture.eye:  # a list knows more than a folder
                    found[place] = picture
            elif (picture.patient or picture.eye) and (picture.patient, picture.eye) != (known.patient, known.eye):
                raise SettingsError(
                    f"{picture.path}: listed twice, as {_whose(known)} and as {_whose(picture)}; correct one of them"
                )
    inputs.pictures = list(found.values())
    if not inputs.pictures:
        where = f" in {', '.join(inputs.empty)}" if inputs.empty else ""
        raise SettingsError(f"no pictures{where}; folders are searched for {', '.join(sorted(SUFFIXES))} and archives")
    return inputs


def _whose(picture: Listed) -> str:
    return f"{picture.eye or 'an'} eye of {picture.patient or 'nobody named'}"


def _place(path: str, real: Callable[[str], str]) -> tuple[str, str]:
    """Where a picture lies: the same for all spellings of its path, while two links to one file are two pictures."""
    folder, name = os.path.split(path)
    try:
        return real(folder), name
    except ValueError:  # a NUL, which no path has: it becomes a row that says so
        return folder, name


def _globbed(argument: str) -> list[str]:
    """What an argument means. Raises SettingsError where it cannot be a picture and is not there."""
    if os.path.lexists(argument):
        return [argument]
    suffix = os.path.splitext(argument)[1].lower()
    if glob.has_magic(argument):
        if matched := sorted(glob.glob(argument, recursive=True)):
            return matched
        raise SettingsError(f"{argument}: matches nothing")
    if suffix in SUFFIXES or shards.parted(argument):
        return [argument]  # a row will say that it is not there
    raise SettingsError(f"{argument}: no such file or folder")


def _pictures(name: str, leave_out: Path | None, inputs: Inputs) -> Iterator[Listed]:
    suffix = os.path.splitext(name)[1].lower()  # os.path answers on any name, where pathlib raises on an overlong one
    if os.path.isdir(name) and suffix not in SUFFIXES:  # noqa: PTH112
        yield from _or_empty(walk(name, leave_out, inputs), name, inputs)
    elif suffix in lists.SUFFIXES and os.path.isfile(name):  # noqa: PTH113
        yield from lists.read(Path(name), SUFFIXES)
    elif suffix in shards.SUFFIXES and os.path.isfile(name):  # noqa: PTH113
        yield from _or_empty(_members(name, inputs), name, inputs)
    elif suffix in shards.COMPRESSED and os.path.isfile(name):  # noqa: PTH113
        raise SettingsError(f"{name}: a compressed tar cannot be read in part; unpack it, or pack it as .tar or .zip")
    else:
        yield Listed(name)


def _or_empty(paths: Iterator[str], name: str, inputs: Inputs) -> Iterator[Listed]:
    count = 0
    for count, path in enumerate(paths, start=1):  # noqa: B007
        yield Listed(path)
    if not count:
        inputs.empty.append(name)


def walk(folder: str, leave_out: Path | None, inputs: Inputs) -> Iterator[str]:
    """Pictures below a folder, sorted; links to folders are not followed, so no walk is endless."""
    away = None if leave_out is None else os.path.realpath(leave_out)
    for parent, folders, files in os.walk(folder, onerror=_refuse_folder):
        if away is not None and os.path.realpath(parent) == away:
            if parent == folder:
                raise SettingsError(f"{folder}: is also the folder for the results; name another one for these")
            folders.clear()
            continue
        if "run.sqlite" in files or {"run.json", "screenings.csv"} <= set(files):
            inputs.left_out[f"folder with the results of a run ({parent})"] += 1
            folders.clear()
            continue
        hidden = [name for name in folders if name.startswith(".") or name.lower() in _SYSTEM]
        if hidden:
            inputs.left_out[_FOLDERS] += len(hidden)
        folders[:] = sorted(set(folders).difference(hidden))
        for name in sorted(files):
            yield from _file(os.path.join(parent, name), name, inputs)


def _file(path: str, name: str, inputs: Inputs) -> Iterator[str]:
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith("."):
        inputs.left_out[_HIDDEN] += 1
    elif suffix in SUFFIXES:
        yield path
    elif suffix in shards.SUFFIXES:
        yield from _members(path, inputs)
    elif suffix and not suffix[1:].isdigit():  # DICOM files are often called by a UID: digits and dots
        inputs.left_out[suffix] += 1
    elif is_picture(path):
        yield path
    else:
        inputs.left_out["without a suffix"] += 1


def _members(shard: str, inputs: Inputs) -> Iterator[str]:
    for path in shards.members(shard):
        if path == shard:  # it is cut: a row says so
            yield path
            continue
        name = path.rsplit("/", 1)[1]
        suffix = os.path.splitext(name)[1].lower()
        if suffix in SUFFIXES and not name.startswith(".") and "__MACOSX/" not in path:
            yield path
        else:
            inputs.left_out[f"{suffix or 'without a suffix'} in archives"] += 1


def _refuse_folder(error: OSError) -> None:
    raise SettingsError(f"{error.filename}: the folder cannot be searched ({error.strerror})")
