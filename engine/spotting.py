"""The first look alone, at one photo after the other: where is the disc? For the gate and for training."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ..postprocess.anatomy import Rules
from . import models
from .look import Look
from .pictures.photo import Photo
from .pictures.preprocess import Geometry, Prepared, Spot, around
from .readers.multitask import MultiTask
from .readers.outputs import Looked
from .runners import open_runner

FIRST = "multitask"  # the embedded model


def rules_of_first() -> Rules:
    """How the embedded model's maps are read."""
    contract = models.load(FIRST).contract
    assert isinstance(contract, MultiTask)
    return contract.rules.build()


class Spotter:
    """The embedded multi-task model, on the CPU. A context manager."""

    def __init__(self) -> None:
        backend = "onnxruntime"
        self._look = Look(models.load(FIRST), None, lambda own: (backend, open_runner(own, backend, max_batch=1)), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._look.runner.close()

    def look(self, photo: Photo) -> tuple[Spot | None, Looked]:
        """The disc, where one is seen, and what was looked at and given. Raises PhotoError where there is no field of view."""
        reader = self._look.reader
        ((looked, *_),) = self._look.run([reader.prepare(photo)])
        assert looked is not None
        return reader.spot(looked[1], looked[0]), looked

    def around(self, photo: Photo, geometry: Geometry) -> Prepared | None:
        """The square around the disc; None where none is seen. Raises PhotoError as `look`."""
        spot, _ = self.look(photo)
        return None if spot is None else around(spot, geometry)
