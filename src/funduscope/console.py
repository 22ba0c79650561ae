"""Where the command line writes: results to stdout, messages and progress to stderr."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .engine.errors import OutputError

stderr = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
stdout = Console(highlight=False)


def progress() -> Progress:
    """A bar on stderr; nothing where that is no terminal."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)


class Stdout:
    """stdout, which says as any other output does that it cannot be written. Args: stream: None where there is none."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or io.StringIO()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Raises OutputError."""
        with self._refused():
            return self._stream.write(text)

    def flush(self) -> None:
        """Raises OutputError."""
        with self._refused():
            self._stream.flush()

    @contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # what is left in the buffer must not fail once more when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            told = f"stdout: cannot be written ({error.strerror}); make room, or send it elsewhere"
            raise OutputError(told) from error
