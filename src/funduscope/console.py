"""Where the command line writes: results to stdout, messages and progress to stderr."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

stderr = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
stdout = Console(highlight=False)


def progress() -> Progress:
    """A bar on stderr; nothing where that is no terminal."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)
