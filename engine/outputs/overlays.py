"""A folder of drawings: each photo with its contours, and its heat maps."""

from __future__ import annotations

from pathlib import Path

from .. import drawing
from ..files import remove, write_bytes
from ..results import Result, Screening


class Overlays:
    """Draws each screened photo into a folder, numbered in input order. Results must have kept their photos."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        remove(folder.glob("[0-9][0-9][0-9][0-9][0-9][0-9]_*.jpg"))  # of an earlier run, under other numbers

    def write(self, result: Result) -> None:
        """Draw one result; a rejected one has no drawing, but keeps its number. Raises OutputError."""
        if isinstance(result, Screening) and result.photo is not None:
            stem = (
                Path(result.name).stem.encode("utf-8", "replace")[:180].decode("utf-8", "ignore")
            )  # file names end at 255
            pictures = {"": drawing.contoured(result.photo, result)} if result.disc else {}
            for disease, heat in drawing.heat_maps(result).items():
                pictures[f".{disease}"] = drawing.heated(result.photo, heat)
            for part, picture in pictures.items():
                jpeg = drawing.encoded(picture, ".jpg")
                write_bytes(self._folder / f"{self._number:06d}_{stem}{part}.jpg", jpeg)
        self._number += 1
