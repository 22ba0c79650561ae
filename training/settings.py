"""What every training configuration has: strict parts of a TOML file. What a run does stands in its file, not in defaults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..engine.contract import GeometryPart
from .augment import Augmentation

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Geometry(Strict):
    """size: the network's square, px; fov_threshold: see `preprocess.field_of_view`; cache: side of the pictures kept in
    memory, from which augmentation draws, px."""

    size: Annotated[int, Field(ge=64, multiple_of=16)]
    fov_threshold: Annotated[int, Field(ge=0, le=255)]
    cache: Positive

    @model_validator(mode="after")
    def _agrees(self) -> Geometry:
        if self.cache < self.size:
            raise ValueError("cache is smaller than size")
        return self


class Set(Strict):
    """One data set: its folder below the root, and its terms, which go into the model's contract."""

    path: str
    terms: str


def tell_apart(sets: Sequence[Set]) -> None:
    """Raises ValueError where figures could not tell the sets apart: they go by their folder's name; `all` is all of them."""
    names = Counter(Path(one.path).name for one in sets)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"a set stands twice in data.sets, or two have the same folder name: {', '.join(twice)}")
    if "all" in names:
        raise ValueError(
            "a set's folder cannot be called all, which is what figures over all sets are called; rename it"
        )


class Data(Strict):
    """root: the folder that holds the sets, relative to the file; workers: threads that read and augment."""

    root: str
    workers: Positive


class Schedule(Strict):
    """Learning rate: linear warm-up, constant, then linear to zero over the last `decay` share of all steps.

    freeze_batchnorm: share of all steps after which BatchNorm uses its running statistics in training too, so that the
    network ends under the statistics it will be used with (1: never). average: decay of the exponential moving average of
    the weights that is validated and kept (0: none, the weights as they are).
    """

    steps: Positive
    warmup: Positive
    decay: Share
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    freeze_batchnorm: Share
    validate_every: Positive
    bf16: bool
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0  # absent from older checkpoints


class Terms(Strict):
    """What the weights may be used for; goes into the model's contract and from there into every report."""

    licence: Annotated[str, Field(min_length=1)]
    notice: Annotated[str, Field(min_length=1)]


class BaseConfig(Strict):
    """What the configurations of all systems share."""

    if TYPE_CHECKING:  # each system states these itself, narrower; here they would come first in a file's order
        kind: str
        data: Data
        schedule: Schedule
        reading: Strict

    name: str
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    geometry: Geometry
    augment: Augmentation
    terms: Terms

    def preparation(self, size: int) -> GeometryPart:
        """How the engine prepares pictures for this network, at its size or at the cache's."""
        return GeometryPart(path="reduced-crop-pad-resize-2", size=size, fov_threshold=self.geometry.fov_threshold)
