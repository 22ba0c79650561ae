"""Whose eye a picture shows, and who says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Eye = Literal["right", "left"]
_RIGHT, _LEFT = ("right", "od", "r", "re", "right eye"), ("left", "os", "l", "le", "left eye")
EYES: dict[str, Eye | None] = {"": None, **dict.fromkeys(_RIGHT, "right"), **dict.fromkeys(_LEFT, "left")}


@dataclass(frozen=True)
class Listed:
    """A picture that is named, with what its list says of it. A screener takes it like a path.

    Attributes:
        path: Of its file.
        patient: Who it shows.
        eye: Which eye it shows.
    """

    path: str
    patient: str | None = None
    eye: Eye | None = None


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
