"""The configuration of the second look: that of the multi-task network, and how wide the square around the disc is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ...engine.contract import GeometryPart
from ...postprocess.measures import CentreMode
from .. import settings
from ..multitask import config as multitask
from ..multitask.mtl import Strategy
from .networks import OUTPUTS

Diameters = Annotated[float, Field(ge=1)]


class Geometry(settings.Geometry):
    """diameters: of the disc that the square is wide; cache_diameters: that a picture kept in memory is, which is wider, so
    that augmentation can move the square."""

    diameters: Diameters
    cache_diameters: Diameters


class Data(multitask.Data):
    """sampler, balance_glaucoma: as of the multi-task network."""

    sampler: Literal["shared", "per_task"] = "shared"
    balance_glaucoma: bool = False


class Schedule(multitask.Schedule):
    """There is no fovea."""

    strategy: Strategy = "sum"
    fovea_loss: Literal["l1", "bce"] = "bce"
    fovea_variance_px2: Annotated[float, Field(gt=0)] = 1.0


class Reading(multitask.Reading):
    """first_share: of the first look's maps in the mean of both. Calibration decides the rest; there is no fovea."""

    first_share: settings.Share
    fovea_mode: CentreMode = "robust"
    fovea_min_peak: settings.Share = 1.0


class Config(multitask.Config):
    """The whole file."""

    kind: Literal["disc"]  # type: ignore[assignment]
    geometry: Geometry
    data: Data
    schedule: Schedule
    reading: Reading

    @model_validator(mode="after")
    def _has_no_more(self) -> Config:
        if more := self.data.batch.keys() - {*OUTPUTS, "ratio"}:
            raise ValueError(f"data.batch: {', '.join(sorted(more))} is not seen in a square around the disc")
        if missing := set(OUTPUTS) - self.data.batch.keys():
            raise ValueError(f"data.batch lacks {', '.join(sorted(missing))}, which the model gives")
        if self.geometry.cache_diameters < self.geometry.diameters:
            raise ValueError("geometry.cache_diameters is smaller than diameters")
        return self

    def preparation(self, size: int) -> GeometryPart:
        """See BaseConfig."""
        wide = self.geometry.diameters if size == self.geometry.size else self.geometry.cache_diameters
        return GeometryPart(path="around-disc-1", size=size, fov_threshold=self.geometry.fov_threshold, diameters=wide)
