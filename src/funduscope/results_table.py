"""The table of results on the terminal: one line a picture, its name whole or folded from the left; reasons may take more."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from . import console
from .engine.findings import Decision
from .engine.readers import READERS
from .engine.results import ModelName, Rejected, Result, in_words

_LEAST = 16  # cells of a name, however narrow the terminal
_LEAST_REASON = 40  # of a line of why a picture has no result
_GAP = "  "
_STYLES = {True: "bold red", False: "green", None: "yellow"}


def show(results: Sequence[Result], models: Sequence[ModelName], more: int) -> None:
    """Print results under the verdicts of the open models; then how many more there are."""
    verdicts = [verdict for own in models for verdict in READERS[own.kind].verdicts]
    widths = [max(len(verdict.title), len("refer 0.000")) for verdict in verdicts]
    measured = any("vcdr" in (column.name for column in READERS[own.kind].columns) for own in models)
    columns = [("vCDR", 5)] * measured + [(v.title, w) for v, w in zip(verdicts, widths, strict=True)]
    taken = sum(width + len(_GAP) for _, width in columns)
    longest = max((cell_len(_printable(result.name)) for result in results), default=0)
    room = max(_LEAST, min(max(longest, len("picture")), console.stdout.width - taken))
    header = [set_cell_size("picture", room), *(set_cell_size(title, width) for title, width in columns)]
    console.stdout.print(Text(_GAP.join(header).rstrip(), style="bold"), soft_wrap=True)
    for result in results:
        line = Text(folded(result.name, room))
        if isinstance(result, Rejected):
            told = f"{result.status}, {result.code}: {result.reason}"
            wide = max(console.stdout.width - room - len(_GAP), _LEAST_REASON)
            for k, part in enumerate(Text(told, style="red").wrap(console.stdout, wide)):
                part.rstrip()
                line.append("\n" + " " * room if k else "").append(_GAP).append_text(part)
        else:
            if measured:
                line.append(_GAP + ("–    " if result.vcdr is None else f"{result.vcdr:.3f}"))
            for verdict, width in zip(verdicts, widths, strict=True):
                line.append(_GAP)
                line.append_text(_decision(result.decisions.get(verdict.name), width))
        line.rstrip()
        console.stdout.print(line, soft_wrap=True)
    if more:
        console.stdout.print(f"and {more} more", style="dim")


def folded(name: str, cells: int) -> str:
    """A name in so many cells: what is too long loses its beginning, for the end tells pictures apart."""
    name = _printable(name)
    if cell_len(name) <= cells:
        return set_cell_size(name, cells)
    while cell_len(name) > cells - 1:
        name = name[1:]
    return set_cell_size(f"…{name}", cells)


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name.encode("utf-8", "replace").decode())


def _decision(decision: Decision | None, width: int) -> Text:
    if decision is None:
        return Text("–".ljust(width))
    return Text(in_words(decision).ljust(width), style=_STYLES[decision.called])
