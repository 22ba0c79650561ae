"""What each kind of model makes of its outputs: one file a kind, one line here.

A reader takes what the models before it found on a picture, and returns it with what its own model found. Screener, rows,
report, gate and evaluation know readers, not kinds.
"""

from __future__ import annotations

from .classifier import ClassifierReader
from .column import Verdict
from .disc import DiscReader
from .multitask import MultiTaskReader
from .reader import Reader

READERS: dict[str, type[Reader]] = {  # in the order in which they look at a picture
    "multi-task": MultiTaskReader,
    "disc": DiscReader,
    "classifier": ClassifierReader,
}


def verdicts() -> tuple[Verdict, ...]:
    """The verdicts of all kinds."""
    return tuple(verdict for reader in READERS.values() for verdict in reader.verdicts)
