"""One open model: its runner, the reader of what that gives, and the model that looks closer after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..postprocess import scores
from .contract import Model
from .pictures.preprocess import Prepared
from .readers import READERS
from .readers.outputs import Looked, Outputs
from .readers.reader import Reader
from .results import ModelName
from .runners import Runner
from .site import Site

Opener = Callable[[Model], tuple[str, Runner]]  # gives the backend's name too


class Look:
    """One open model: its runner, and the reader of what that gives.

    Attributes:
        later: The model that looks where this one shows it to; it need not be open.
    """

    later: Look | None = None

    def __init__(self, model: Model, point: str | None, opener: Opener, site: Site | None) -> None:
        own = {} if site is None else site.of(model)
        document = model.contract.at({name: decision.points for name, decision in own.items()})
        self.contract = document
        self._temperatures = {name: part.temperature for name, part in own.items() if part.temperature != 1}
        self.reader: Reader = READERS[document.kind](document, point)
        backend, self.runner = opener(model)
        self.name = ModelName(
            document.kind,
            document.name,
            document.version,
            document.sha256,
            backend,
            self.runner.precision,
            str(site or ""),
        )

    def run(self, prepared: Sequence[Prepared]) -> list[tuple[Looked | None, ...]]:
        """What the network gives for each picture, and for which square: where that shows nothing, for a closer one. Then what
        the later look gives, of all in one batch; None where it was not shown anything.
        """
        looked = self._look(prepared)
        for k, (square, outputs) in enumerate(looked):
            closer = self.reader.again(outputs, square)
            looked[k] = next((own for own in self._look(closer) if self.reader.shows(own[1], own[0])), looked[k])
        if self.later is None:
            return [(own,) for own in looked]
        reader, spots = self.later.reader, [self.reader.spot(outputs, square) for square, outputs in looked]
        seen = iter(self.later._look([reader.prepare(spot) for spot in spots if spot]))
        both = list[tuple[Looked | None, ...]]()
        for own, spot in zip(looked, spots, strict=True):
            later = next(seen) if spot else None
            both.append((own, later and (later[0], reader.merged(later, own))))
        return both

    def all(self) -> list[Look]:
        """The model, and the later one where it is open."""
        return [self, *([self.later] if self.later else [])]

    def _look(self, squares: Sequence[Prepared]) -> list[Looked]:
        seen: list[Looked] = []
        for start in range(0, len(squares), self.runner.max_batch):
            part = squares[start : start + self.runner.max_batch]
            outputs = self.runner(np.stack([own.image for own in part]))
            seen += [(own, self._row(outputs, k, own.turns)) for k, own in enumerate(part)]
        return seen

    def _row(self, outputs: Outputs, k: int, turns: int) -> Outputs:
        row = {name: output[k] for name, output in outputs.items()}
        if turns:
            row = {name: np.rot90(own, -turns).copy() if own.ndim == 2 else own for name, own in row.items()}
        for name, temperature in self._temperatures.items():
            if np.isfinite(row[name]):
                row[name] = np.asarray(scores.tempered(float(row[name]), temperature), np.float32)
        return row
