"""What a reader is: one kind of model at work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..contract import Contract
from ..pictures.preprocess import Prepared, Spot
from .column import Column, Verdict
from .difference import Bounds, Difference
from .outputs import F, Looked, Outputs
from .point import OperatingPoint
from .quality import Grade


class Reader(ABC):
    """One kind of model at work.

    Attributes:
        contract: The kind's contract.
        verdicts: The decisions that it gives; each has three columns in every row.
        columns: What else it adds to a row.
        after: The kind of the model that shows this one where to look; None: it looks at the whole picture.
        point: The operating point in use; None where the kind has none.
    """

    contract: ClassVar[type[Contract]]
    verdicts: ClassVar[tuple[Verdict, ...]]
    columns: ClassVar[tuple[Column, ...]]
    after: ClassVar[str | None] = None
    point: str | None

    @abstractmethod
    def __init__(self, document: Any, point: str | None) -> None: ...

    @abstractmethod
    def prepare(self, seen: Any) -> Prepared:
        """The network's input.

        Args:
            seen: The Photo; of a kind that looks `after` another, the Spot that this has found.

        Raises:
            PhotoError: This model cannot use the picture.
        """

    def spot(self, outputs: Outputs, prepared: Prepared) -> Spot | None:  # noqa: ARG002 -- most show nothing to others
        """Where a later look is to look closer; None where there is nothing to see. Args: as of `read`."""
        return None

    def again(self, outputs: Outputs, prepared: Prepared) -> Sequence[Prepared]:  # noqa: ARG002 -- most look once
        """What else the network is to look at, where this shows nothing. Args: as of `read`."""
        return ()

    def shows(self, outputs: Outputs, prepared: Prepared) -> bool:  # noqa: ARG002
        """Whether a further look shows something: the first that does takes the place of the picture."""
        return True

    def merged(self, looked: Looked, before: Looked) -> Outputs:  # noqa: ARG002
        """What a later look gives, with what the one before it gave. Args: both as they looked."""
        return looked[1]

    def grade(self, outputs: Outputs, prepared: Prepared) -> Grade:  # noqa: ARG002 -- most do not look at quality
        """Whether the picture is fit to be read, by any model: asked before any reads it. Args: as of `read`."""
        return Grade()

    @abstractmethod
    def read(self, found: F, outputs: Outputs, prepared: Prepared) -> F:
        """Make findings of one picture's outputs.

        Args:
            found: What the models before this one found.
            outputs: By name, each finite, without the batch's dimension.
            prepared: What the outputs are of.

        Raises:
            PhotoError: This model finds nothing to measure.
        """

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """How outputs become findings, for people: rows of title and text."""

    def points(self) -> Mapping[str, Sequence[OperatingPoint]]:
        """From where on each verdict can be called, by its name."""
        return {}

    @abstractmethod
    def differences(self, pairs: Sequence[tuple[Outputs, Outputs]], bounds: Bounds) -> list[Difference]:
        """How far two models' outputs for the same pictures differ in what is read from them."""
