"""Pictures in tar and zip files, read without unpacking. A member is called `shard.tar!/folder/eye.jpg`."""

from __future__ import annotations

import functools
import os
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import Code, PhotoError, SettingsError

SUFFIXES = frozenset({".tar", ".zip"})
COMPRESSED = frozenset({".tgz", ".gz", ".bz2", ".xz", ".zst", ".tbz2", ".txz"})  # of a tar: not readable at any place
_INSIDE = "!/"


def parted(path: str) -> tuple[str, str] | None:
    """A member's shard and its name there; None for the path of a file."""
    shard, inside, name = path.partition(_INSIDE)
    return (shard, name) if inside and os.path.splitext(shard)[1].lower() in SUFFIXES else None


def file_of(path: str) -> str:
    """The file that holds a picture: the shard of a member, else the path itself."""
    parts = parted(path)
    return parts[0] if parts else path


def members(shard: str) -> Iterator[str]:
    """The paths of all regular files in a shard, in its order; the shard itself at the end where it is cut.

    Raises: SettingsError where it is no shard at all.
    """
    index = _opened(shard)
    for name in index.names():
        yield f"{shard}{_INSIDE}{name}"
    if index.cut:
        yield shard


def read(path: str, limit: int) -> bytes:
    """The bytes of a member. Args: limit: the most. Raises PhotoError."""
    parts = parted(path)
    assert parts is not None
    shard, name = parts
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise PhotoError(Code.NOT_A_FILE, "its name leads out of the archive")
    try:
        return _opened(shard).read(name, limit)
    except (OSError, SettingsError):
        raise PhotoError(Code.UNREADABLE, "the archive cannot be read") from None
    except KeyError:
        raise PhotoError(Code.NOT_FOUND, "the archive has no such file") from None


def _opened(shard: str) -> _Tar | _Zip:
    try:
        status = Path(shard).stat()
    except OSError as error:
        raise SettingsError(f"{shard}: the archive cannot be read ({error.strerror})") from None
    return _index(shard, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _index(shard: str, _size: int, _modified: int) -> _Tar | _Zip:
    """An archive's index, read once for each version of its file."""
    try:
        return (_Tar if shard.lower().endswith(".tar") else _Zip)(shard)
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise SettingsError(f"{shard}: the archive cannot be read ({error}); write it anew") from None


@dataclass(frozen=True)
class _Extent:
    offset: int
    size: int


class _Tar:
    """Where each member lies. One that is cut gives what comes before."""

    def __init__(self, shard: str) -> None:
        self._shard, self._extents, self.cut = shard, dict[str, _Extent](), False
        length = os.path.getsize(shard)  # noqa: PTH202
        with tarfile.open(shard, "r:") as file:
            try:
                for member in file:
                    if member.isreg() and not member.issparse():
                        self._extents[member.name] = _Extent(member.offset_data, member.size)
                        self.cut = member.offset_data + member.size > length
            except tarfile.ReadError:
                self.cut = True

    def names(self) -> list[str]:
        return list(self._extents)

    def read(self, name: str, limit: int) -> bytes:
        extent = self._extents[name]
        _check(extent.size, limit)
        with Path(self._shard).open("rb") as file:
            file.seek(extent.offset)
            data = file.read(extent.size)
        if len(data) < extent.size:
            raise PhotoError(Code.DAMAGED, "the archive ends in it")
        return data


class _Zip:
    cut = False

    def __init__(self, shard: str) -> None:
        self._file = zipfile.ZipFile(shard)
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        return [own.filename for own in self._file.infolist() if not own.is_dir()]

    def read(self, name: str, limit: int) -> bytes:
        own = self._file.getinfo(name)
        _check(own.file_size, limit)
        try:
            with self._lock, self._file.open(own) as member:
                return _whole(member, own.file_size)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise PhotoError(Code.DAMAGED, f"its data in the archive is cut, corrupt or encrypted ({error})") from None


def _whole(member: IO[bytes], size: int) -> bytes:
    data = member.read(size + 1)  # no more than the index says, whatever comes out
    if len(data) != size:
        raise PhotoError(Code.DAMAGED, "its data in the archive is not as long as the archive says")
    member.read()  # the end, where the checksum is told
    return data


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise PhotoError(Code.TOO_LARGE, f"{size} bytes; the limit is {limit}")
