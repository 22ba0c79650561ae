"""How a value gets into a row."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Column:
    """One column of the rows.

    Attributes:
        name: As rows call it.
        meaning: For the documentation.
        value: Its value in a result; None where there is none.
        kind: Of its values.
        digits: To which numbers are rounded.
        score_of: The disease that this number is a score of, by which it can be judged on labelled pictures.
        of_rejected: Whether a picture without a result has it too.
    """

    name: str
    meaning: str
    value: Callable[[Any], Any]
    kind: Literal["text", "list", "bool", "float", "int"] = "float"
    digits: int | None = None
    score_of: str | None = None
    of_rejected: bool = False

    def of(self, result: Any) -> Any:
        """The value as a row has it."""
        value = self.value(result)
        if isinstance(value, str):
            return readable(value)
        return value if value is None or self.digits is None else round(float(value), self.digits)


def readable(text: str) -> str:
    """Text that every reader of files takes: bytes of a name that are not UTF-8 as `\\xNN`."""
    try:
        return os.fsencode(text).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, which no file's name has
        return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Verdict:
    """A decision that a kind of model gives.

    Attributes:
        name: Of the decision among a result's `decisions`, and of its first column.
        disease: What it is on; its threshold and probability are columns under `name` too.
        title: For people.
        meaning: For the documentation.
    """

    name: str
    disease: str
    title: str
    meaning: str
