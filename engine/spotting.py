"""The first look alone, at one photo after the other: where is the disc? For the gate and for training."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ..postprocess.anatomy import Rules
from . import models
from .pictures.photo import Photo
from .pictures.preprocess import Geometry, Prepared, Spot, around
from .readers import READERS
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
        model = models.load(FIRST)
        self._reader = READERS[model.contract.kind](model.contract, None)
        self._runner = open_runner(model, "onnxruntime", max_batch=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()

    def look(self, photo: Photo) -> tuple[Spot | None, Looked]:
        """The disc, where one is seen, and what was looked at and given. Raises PhotoError where there is no field of view."""
        prepared: Prepared = self._reader.prepare(photo)
        outputs = {name: output[0] for name, output in self._runner(prepared.image[None]).items()}
        return self._reader.spot(outputs, prepared), (prepared, outputs)

    def around(self, photo: Photo, geometry: Geometry) -> Prepared | None:
        """The square around the disc; None where none is seen. Raises PhotoError as `look`."""
        spot, _ = self.look(photo)
        return None if spot is None else around(spot, geometry)
