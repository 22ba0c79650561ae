"""The TensorRT libraries, each spelt out here alone: its names, what brings it, what it can; and the one logger of each."""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from ...errors import require

Name = Literal["tensorrt", "tensorrt-rtx"]
_log = logging.getLogger("funduscope")


@dataclass(frozen=True)
class Library:
    """One of NVIDIA's TensorRT libraries.

    Attributes:
        name: Of its backend and its extra, and in the facts of its engines.
        module: What Python imports.
        distributions: Any of them brings it; the first is the one that the extra installs.
        builds_for_others: Whether it builds for GPUs that are not here; it then measures no kernels while it builds.
    """

    name: Name
    module: str
    distributions: tuple[str, ...]
    builds_for_others: bool

    def load(self) -> ModuleType:
        """The library itself. Raises: MissingExtra, BackendError."""
        return require(self.module, self.name)

    def is_installed(self) -> bool:
        """Whether Python finds it; it may still not load."""
        return importlib.util.find_spec(self.module) is not None


LIBRARIES: dict[Name, Library] = {
    library.name: library
    for library in (
        Library(
            "tensorrt-rtx",
            "tensorrt_rtx",
            ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
            builds_for_others=True,
        ),
        Library("tensorrt", "tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"), builds_for_others=False),
    )
}

_loggers: dict[str, Any] = {}
_listening = threading.Lock()


@contextmanager
def listening(library: ModuleType) -> Iterator[Any]:
    """The library's logger, which has heard nothing yet, for one caller at a time."""
    with _listening:
        log = logger(library)
        log.heard.clear()
        yield log


def logger(library: ModuleType) -> Any:
    """The one logger of a TensorRT library: it takes the first it is given, and says that it ignores all others.

    Its `heard` are the errors since they were last cleared; `told()` joins them. Warnings go to our own log.
    """
    if library.__name__ not in _loggers:
        severity = library.ILogger.Severity

        class Logger(library.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.heard: list[str] = []

            def log(self, level: Any, message: str) -> None:
                if level in (severity.INTERNAL_ERROR, severity.ERROR):
                    self.heard.append(message)
                elif level == severity.WARNING:
                    _log.info("%s: %s", library.__name__, message)

            def told(self) -> str:
                return "; ".join(self.heard) or "it does not say why"

        _loggers[library.__name__] = Logger()
    return _loggers[library.__name__]
