"""What each kind of model makes of its outputs: one file a kind, one line here.

A reader takes what the models before it found on a picture, and returns it with what its own model found. Screener, rows,
report, gate and evaluation know readers, not kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from ..contract import Contract
from ..errors import Code
from ..pictures.photo import Photo
from ..pictures.preprocess import Prepared
from .classifier import ClassifierReader
from .column import Column, Verdict
from .difference import Bounds, Difference
from .multitask import MultiTaskReader
from .outputs import F, Outputs
from .point import OperatingPoint


class Reader(Protocol):
    """One kind of model at work.

    Attributes:
        contract: The kind's contract.
        verdicts: The decisions that it gives; each has three columns in every row.
        columns: What else it adds to a row.
        unusable: The warning where this model cannot use a picture that another can; None: the picture is then refused.
        point: The operating point in use; None where the kind has none.
    """

    contract: ClassVar[type[Contract]]
    verdicts: ClassVar[tuple[Verdict, ...]]
    columns: ClassVar[tuple[Column, ...]]
    unusable: ClassVar[Code | None]
    point: str | None

    def __init__(self, document: Any, point: str | None) -> None: ...

    def prepare(self, photo: Photo) -> Prepared:
        """The network's input. Raises PhotoError where this model cannot use the picture."""
        ...

    def read(self, found: F, outputs: Outputs, prepared: Prepared) -> F:
        """Make findings of one picture's outputs.

        Args:
            found: What the models before this one found.
            outputs: By name, each finite, without the batch's dimension.
            prepared: What the outputs are of.

        Raises:
            PhotoError: The picture cannot be screened, by what the outputs say.
        """
        ...

    def describe(self) -> dict[str, str]:
        """How outputs become findings, for people: rows of title and text."""
        ...

    def points(self) -> Mapping[str, Sequence[OperatingPoint]]:
        """From where on each verdict can be called, by its name."""
        ...

    def differences(self, pairs: Sequence[tuple[Outputs, Outputs]], bounds: Bounds) -> list[Difference]:
        """How far two models' outputs for the same pictures differ in what is read from them."""
        ...


READERS: dict[str, type[Reader]] = {  # in the order in which they look at a picture
    "multi-task": MultiTaskReader,
    "classifier": ClassifierReader,
}


def verdicts() -> tuple[Verdict, ...]:
    """The verdicts of all kinds."""
    return tuple(verdict for reader in READERS.values() for verdict in reader.verdicts)
