"""What comes out: a `Screening`, or a `Rejected` that says why not. Both give one flat row under the same columns."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from . import drawing, files
from .errors import Code, PhotoError, SettingsError
from .eyes import Eyes
from .findings import Decision, Findings
from .pictures import photo as pictures
from .pictures.photo import Photo
from .readers import READERS, verdicts
from .readers.column import Column, Verdict, readable
from .readers.quality import FAULTS
from .readers.reader import Reader

UNGRADABLE = frozenset(  # a picture, not one to read
    {Code.NO_FIELD_OF_VIEW, Code.NOT_ROUND, Code.UNLIKELY_COLOURS, Code.DISC_NOT_FOUND, Code.LOW_RESOLUTION}
    | {fault.code for fault in FAULTS.values()}
)
Status = Literal["ok", "ungradable", "error"]


@dataclass(frozen=True)
class ModelName:
    """Which model, on what: stands in every row.

    Attributes:
        kind: Such as `multi-task`.
        name: As its contract has it.
        version: As its contract has it.
        sha256: Of its file.
        backend: What computed.
        precision: Of the computation.
        site: Whose operating points it is read with, and the beginning of their digest; empty where they are its own.
    """

    kind: str
    name: str
    version: str
    sha256: str
    backend: str
    precision: str
    site: str = ""


class _Result:
    """What a Screening and a Rejected can both do."""

    def to_dict(self) -> dict[str, Any]:
        """The result as one flat row.

        Returns:
            JSON values by the names of `columns()`, in order; what is not known or not measurable is None.
        """
        row: dict[str, Any] = {}
        for column in columns():
            known = isinstance(self, Screening) or column.of_rejected
            row[column.name] = column.of(self) if known else None
        return row

    def to_json(self) -> str:
        """The row of `to_dict` as JSON.

        Returns:
            One line, without NaN.
        """
        return json.dumps(self.to_dict(), allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class Screening(_Result, Findings):
    """One screened photograph: what was found (see `Findings`), and in what by what.

    Attributes:
        name: The picture's, as it was named.
        sha256: Of the file's bytes; None for arrays.
        models: Those that are open, in order.
        frame: Of a DICOM file, where one was asked for.
        photo: Kept where it was asked for.

    Example:
        ```python
        result = screener("eye.jpg")
        if result.status == "ok":
            print(result.vcdr, result.decisions["glaucoma"].called)
            result.draw("drawing.jpg")
        ```
    """

    name: str
    sha256: str | None = None
    models: tuple[ModelName, ...] = ()
    frame: int | None = None
    photo: Photo | None = field(default=None, repr=False, compare=False)

    @property
    def status(self) -> Status:
        """Always `ok`."""
        return "ok"

    @property
    def measured_by(self) -> str:
        """The kind of the model that disc, cup, vCDR and the decision on glaucoma are of, where one measures them."""
        return "disc" if self.second_look else "multi-task"

    @property
    def code(self) -> None:
        """Always None: nothing is wrong."""

    @property
    def reason(self) -> None:
        """Always None."""

    def draw(self, path: str | os.PathLike[str], heat: str | None = None, side: int = drawing.SIDE) -> None:
        """Draw the photo with contours and fovea, or with a heat map, into a file. A photo that was not kept is read again.

        Args:
            path: Where to; its suffix says the format (`.jpg`, `.png`, `.bmp`, `.tif`).
            heat: A disease (`referable_dr`, `glaucoma`) whose heat map is drawn in place of the contours.
            side: The most px of the drawing's longer side.

        Raises:
            SettingsError: The photo was not kept and is no file, or there is no such heat map, format or size.
            OutputError: It cannot be written.
        """
        if side < 1:
            raise SettingsError(f"side {side}: must be 1 or more")
        photo = self.seen()
        if heat is None:
            picture = drawing.contoured(photo, self, side)
        else:
            maps = drawing.heat_maps(self)
            if heat not in maps:
                raise SettingsError(f"{self.name}: no heat map of {heat}; there are {', '.join(maps) or 'none'}")
            picture = drawing.heated(photo, maps[heat], side)
        files.write_bytes(Path(path), drawing.encoded(picture, Path(path).suffix))

    def seen(self) -> Photo:
        """The photo that was screened: kept, or else read again.

        Returns:
            Its pixels, decoded where they are asked for.

        Raises:
            SettingsError: It was not kept, and there is no file of its name with the same bytes.
        """
        if self.photo is not None:
            return self.photo
        try:
            photo = pictures.load(self.name, frame=self.frame)
        except PhotoError:
            photo = None
        if photo is None or photo.sha256 != self.sha256:
            raise SettingsError(
                f"{self.name}: there is no file of this name with the photo that was screened; screen it with "
                "keep_photo=True to draw it"
            )
        return photo

    def __str__(self) -> str:
        parts = [f"vCDR {self.vcdr:.3f}"] if self.vcdr is not None else []
        parts += [f"{v.title} {in_words(self.decisions[v.name])}" for v in verdicts() if v.name in self.decisions]
        return f"{self.name}: {', '.join(parts)}{'; ' if self.warnings else ''}{' '.join(self.warnings)}"


@dataclass(frozen=True)
class Rejected(_Result):
    """One picture without a result, and why. It travels the same way as a Screening.

    Attributes:
        name: The picture's, as it was named.
        sha256: Of the file's bytes, where they could be read.
        code: Why.
        reason: The same as a sentence.
        models: Those that are open, in order.
        eyes: Whose eye it is, as list or file say.
        warnings: What is known of it all the same.
        scores: Of its quality, in [0, 1], by the name of their column, where a network has seen it.

    Example:
        ```python
        result = screener("no such file.jpg")
        if isinstance(result, funduscope.Rejected):
            print(result.code, result.reason)
        ```
    """

    name: str
    sha256: str | None
    code: Code
    reason: str
    models: tuple[ModelName, ...] = ()
    eyes: Eyes = field(default_factory=Eyes)
    warnings: tuple[Code, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict, hash=False)

    @property
    def status(self) -> Status:
        """`ungradable` for a picture in which no retina can be seen well enough, else `error`."""
        return "ungradable" if self.code in UNGRADABLE else "error"

    def __str__(self) -> str:
        return f"{self.name}: {self.status}, {self.code}: {self.reason}"


Result = Screening | Rejected
"""What a screener gives for each picture; `status` tells the one from the other."""


def in_words(decision: Decision) -> str:
    """A decision for people, such as `refer 0.912`."""
    word = {True: "refer", False: "no", None: "open"}[decision.called]
    return word if decision.probability is None else f"{word} {decision.probability:.3f}"


def _bytes_of(name: str) -> str | None:
    if readable(name) == name:
        return None
    try:
        return os.fsencode(name).hex()
    except UnicodeEncodeError:  # no file has such a name
        return None


def columns() -> tuple[Column, ...]:
    """All columns of a row: the one table from which rows, their documentation and tables of data come.

    Returns:
        Each with its `name`, `meaning`, `kind` and number of `digits`, in order.

    Example:
        ```python
        for column in funduscope.columns():
            print(column.name, column.meaning)
        ```
    """
    return _columns(tuple(READERS.values()))


@cache
def _columns(readers: tuple[type[Reader], ...]) -> tuple[Column, ...]:
    found = [column for reader in readers for column in (*_of_verdicts(reader.verdicts), *reader.columns)]
    picture, models = ([replace(own, of_rejected=True) for own in part] for part in (_PICTURE, (*_MODELS, _SITE)))
    return (*picture, *_SIZE, *found, *models)


def _of_verdicts(given: tuple[Verdict, ...]) -> list[Column]:
    """Three columns for each verdict."""
    made = []
    for verdict in given:
        name = verdict.name

        def part(key: str, name: str = name) -> Any:
            return lambda result: getattr(result.decisions.get(name), key, None)

        made += [
            Column(name, f"{verdict.meaning}; empty where it is left open", part("called"), "bool"),
            Column(f"{name}_probability", "how likely it is, 0 to 1", part("probability"), digits=6),
            Column(f"{name}_threshold", "the decision is true from this probability on", part("threshold"), digits=6),
        ]
    return made


_CODES = (
    "There is no such file: `NOT_FOUND`, `NOT_A_FILE`; it cannot be read: `UNREADABLE`, `EMPTY_FILE`, `UNKNOWN_FORMAT`, "
    "`NEEDS_EXTRA`, `DAMAGED`; it is no photograph to screen: `TOO_LARGE`, `TOO_SMALL`, `NOT_COLOUR`, `FLOAT_IMAGE`, "
    "`MULTI_PAGE`; no retina, a squeezed one, one in other colours: `NO_FIELD_OF_VIEW`, `NOT_A_FUNDUS`, `NOT_ROUND`, "
    "`UNLIKELY_COLOURS`; one that cannot be read: `BLURRED`, `DARK`, `OVEREXPOSED`, `LOW_RESOLUTION`, or where nothing but the "
    "disc is looked at `DISC_NOT_FOUND`; the model failed: `MODEL_NONFINITE`; reading it failed: `WORKER_CRASH`, `TIMED_OUT`"
)
_WARNINGS = (
    "what an `ok` result lacks (`DISC_NOT_FOUND`, `DISC_IMPLAUSIBLE` and `SIDEWAYS`, which leave glaucoma open, `CUP_NOT_FOUND`, "
    "`FOVEA_NOT_FOUND`), is too coarse for (`LOW_RESOLUTION`), is unsure of (`DISC_OVEREXPOSED`, `DR_UNCERTAIN`, "
    "`ANY_DR_UNCERTAIN`, `GLAUCOMA_UNCERTAIN`), or contradicts (`GLAUCOMA_DISAGREEMENT` of the two models, "
    "`LATERALITY_CONFLICT`, of a rejected picture too); a field of view that is not quite round (`NOT_ROUND`); and what was "
    "assumed of the file (`END_MISSING`, `RANGE_ASSUMED`)"
)
_PICTURE = (
    Column("name", "the picture, as it was named", lambda result: result.name, "text"),
    Column("status", "`ok`, `ungradable` (no retina to be seen well enough) or `error`", lambda r: r.status, "text"),
    Column("code", f"why there is no result. {_CODES}", lambda result: result.code and str(result.code), "text"),
    Column("reason", "the same as a sentence", lambda result: result.reason, "text"),
    Column("warnings", _WARNINGS, lambda result: [str(own) for own in result.warnings], "list"),
    Column("sha256", "of the file's bytes", lambda result: result.sha256, "text"),
    Column("patient", "as the list of pictures or the DICOM file says", lambda result: result.eyes.patient, "text"),
    Column("eye", "`right` or `left`; empty where it cannot be told", lambda result: result.eyes.eye, "text"),
    Column("eye_source", "who says so: `list`, `file` or `picture`", lambda result: result.eyes.source, "text"),
    Column(
        "name_bytes",
        "the name's bytes in hex, where they are not UTF-8: `name` then shows them as `\\xNN`",
        lambda result: _bytes_of(result.name),
        "text",
    ),
)
_SIZE = (
    Column("width", "of the photo as displayed, px", lambda result: result.width, "int"),
    Column("height", "of the photo as displayed, px", lambda result: result.height, "int"),
)
_MODELS = tuple(
    Column(name, f"of each open model, in the same order: {meaning}", value, "list")
    for name, meaning, value in (
        ("model", "its name", lambda result: [own.name for own in result.models]),
        ("model_version", "its version", lambda result: [own.version for own in result.models]),
        ("model_sha256", "the SHA-256 of its file", lambda result: [own.sha256 for own in result.models]),
        ("backend", "what computed", lambda result: [own.backend for own in result.models]),
        ("precision", "of the computation", lambda result: [own.precision for own in result.models]),
    )
)
_SITE = Column(
    "site",
    "whose own operating points were used, and the beginning of their digest; empty where they are the models'",
    lambda result: next((own.site for own in result.models if own.site), None),
    "text",
)
