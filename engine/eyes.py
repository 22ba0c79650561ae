"""Whose eye a picture shows, and who says so."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Eye = Literal["right", "left"]
_RIGHT, _LEFT = ("right", "od", "r", "re", "right eye"), ("left", "os", "l", "le", "left eye")
EYES: dict[str, Eye | None] = {"": None, **dict.fromkeys(_RIGHT, "right"), **dict.fromkeys(_LEFT, "left")}


@dataclass(frozen=True)
class Listed:
    """A picture that is named, with what its list says of it. A screener takes it like a path.

    Attributes:
        path: Of its file; a `Path` becomes a str.
        patient: Who it shows.
        eye: Which eye it shows: `right` or `left`.
        frame: Which frame of a DICOM file with several, from 1 on.
        data: The file's bytes, where they are in memory: then `path` is but a name, and nothing is opened. Not for a `Run`,
            which goes on from files.

    Raises:
        TypeError: Path, patient or frame is of another type.
        ValueError: There is no such eye or frame.
    """

    path: str
    patient: str | None = None
    eye: Eye | None = None
    frame: int | None = None
    data: bytes | None = field(default=None, repr=False, hash=False)

    def __post_init__(self) -> None:
        given: Any = self
        if not isinstance(given.path, str | os.PathLike):
            raise TypeError(f"path must be a str or a Path, not {type(given.path).__name__}")
        if not isinstance(given.patient, str | None):
            raise TypeError(f"patient must be a str or None, not {type(given.patient).__name__}")
        if given.eye not in (None, *get_args(Eye)):
            raise ValueError(f"eye {given.eye!r}: must be right, left or None")
        if not isinstance(given.frame, int | None):
            raise TypeError(f"frame must be an int or None, not {type(given.frame).__name__}")
        if given.frame is not None and given.frame < 1:
            raise ValueError(f"frame {given.frame}: must be 1 or more")
        object.__setattr__(self, "path", os.fspath(given.path))


@dataclass(frozen=True)
class Eyes:
    """Whose eye a picture shows.

    Attributes:
        patient: A name or pseudonym.
        eye: `right` or `left`.
        source: Where `eye` comes from: the list of pictures, the file (DICOM), or the picture itself (the side of the fovea
            on which the disc lies).
    """

    patient: str | None = None
    eye: Eye | None = None
    source: Literal["list", "file", "picture"] | None = None
