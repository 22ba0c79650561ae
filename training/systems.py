"""Which systems there are, by kind. A third one is a folder, and a line here."""

from __future__ import annotations

from typing import Any

from .classifier.system import CLASSIFIER
from .multitask.system import MULTITASK
from .system import System

SYSTEMS: dict[str, System[Any]] = {
    "multi-task": MULTITASK,
    "classifier": CLASSIFIER,
}
