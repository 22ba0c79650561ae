"""A folder of drawings: of each screened photo the same few pictures, under its number in the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import drawing
from ..errors import SettingsError
from ..files import remove, remove_parts, write_bytes
from ..pictures.photo import Photo
from ..results import Result, Screening

FOLDER = "overlays"
Drawer = Callable[[Photo], NDArray[np.uint8]]


class Drawings:
    """Draws each screened photo into a folder, what is there already left out: a run that was cut goes on.

    Args:
        folder: Where to.
        parts: Of a result, what is drawn of it, by the end of the file's name.
        quality: Of the JPEGs.

    Attributes:
        missed: How many photos could not be drawn, because their files have changed or are gone.
    """

    def __init__(self, folder: Path, parts: Callable[[Screening], Mapping[str, Drawer]], quality: int = 90) -> None:
        self._folder, self._parts, self._quality = folder, parts, quality
        self.missed = 0
        remove_parts(folder)

    def write(self, number: int, result: Result) -> None:
        """Draw one result; a rejected one has no drawing. A photo that was not kept is read again. Raises OutputError."""
        if not isinstance(result, Screening):
            return
        paths = {self._folder / name: drawer for name, drawer in named(number, result, self._parts(result)).items()}
        wanted = {path: drawer for path, drawer in paths.items() if not path.exists()}
        try:
            photo = result.seen() if wanted else None
        except SettingsError:
            self.missed += 1
            return
        for path, drawer in wanted.items():
            assert photo is not None
            write_bytes(path, drawing.encoded(drawer(photo), ".jpg", self._quality))

    def forget(self, number: int) -> None:
        """Remove a picture's drawings. Raises OutputError."""
        remove(self._folder.glob(f"{number:06d}_*.jpg"))


def named(number: int, result: Screening, parts: Mapping[str, Drawer]) -> dict[str, Drawer]:
    """Parts by the names of their files."""
    return {f"{number:06d}_{stem(result)}{part}.jpg": drawer for part, drawer in parts.items()}


def stem(result: Screening) -> str:
    """A picture's name as a part of the names of files, which end at 255 bytes."""
    return Path(result.name).stem.encode("utf-8", "replace")[:180].decode("utf-8", "ignore")


def overlays(result: Screening) -> dict[str, Drawer]:
    """The photo with its contours, where there is a disc, and with each heat map."""
    parts: dict[str, Drawer] = {}
    if result.disc is not None:
        parts[""] = lambda photo: drawing.contoured(photo, result)
    for disease, heat in drawing.heat_maps(result).items():
        parts[f".{disease}"] = partial(drawing.heated, heat=heat)
    return parts
