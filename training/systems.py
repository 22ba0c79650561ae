"""Which systems there are, by kind. Another one is a folder, and a line here."""

from __future__ import annotations

from typing import Any

from .classifier.system import CLASSIFIER
from .disc.system import DISC
from .multitask.system import MULTITASK
from .system import System

SYSTEMS: dict[str, System[Any]] = {
    "multi-task": MULTITASK,
    "disc": DISC,
    "classifier": CLASSIFIER,
}
