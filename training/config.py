"""The training configuration: a TOML file with a strict schema. No setting has a default here, so a file says it all."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..engine.errors import SettingsError
from ..postprocess.measures import CentreMode
from .augment import Augmentation
from .mtl import Strategy
from .networks import TaskName

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(Strict):
    """width: multiplier of VGG-16's channels; imagenet: a safetensors file of VGG-16 features, or "" (width 1 only)."""

    width: Annotated[float, Field(gt=0, le=1)]
    dropout: Share
    imagenet: str


class GeometrySettings(Strict):
    """size: the network's square, px; fov_threshold: see `preprocess.field_of_view`; cache: side of the pictures kept in
    memory, from which augmentation draws, px."""

    size: Annotated[int, Field(ge=64, multiple_of=16)]
    fov_threshold: Annotated[int, Field(ge=0, le=255)]
    cache: Positive


class SetSettings(Strict):
    """One data set: which tasks it teaches and with what weight its pictures are drawn for each.

    region: `full`, or `disc` for crops of the disc region, which are placed at a random `disc_scale` of the square.
    """

    path: str
    weights: dict[TaskName, Annotated[float, Field(gt=0)]]
    region: Literal["full", "disc"] = "full"
    disc_scale: tuple[float, float] = (0.2, 0.5)
    terms: str


class Data(Strict):
    """sampler `shared`: one batch for all tasks, missing labels masked (the source's rule), of the largest batch size;
    `per_task`: each task draws its own batch. balance_glaucoma: draw as many pictures with as without."""

    root: str
    sampler: Literal["shared", "per_task"]
    batch: dict[TaskName, Positive]
    balance_glaucoma: bool
    workers: Positive
    sets: list[SetSettings]


class Schedule(Strict):
    """Learning rate: linear warm-up, constant, then linear to zero over the last `decay` share of all steps.

    freeze_batchnorm: share of all steps after which BatchNorm uses its running statistics in training too, so that the
    network ends under the statistics it will be used with (1: never).
    """

    strategy: Strategy
    steps: Positive
    warmup: Positive
    decay: Share
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    freeze_batchnorm: Share
    fovea_loss: Literal["l1", "bce"]
    fovea_variance_px2: Annotated[float, Field(gt=0)]
    validate_every: Positive
    bf16: bool


class Reading(Strict):
    """How maps are read where calibration does not decide: see `postprocess.findings.Rules`."""

    fovea_mode: CentreMode
    fovea_min_peak: Share


class Config(Strict):
    name: str
    seed: int
    network: Network
    geometry: GeometrySettings
    data: Data
    schedule: Schedule
    augment: Augmentation
    reading: Reading

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        for task in self.data.batch:
            if not any(task in s.weights for s in self.data.sets):
                raise ValueError(f"task {task} has a batch size, but no set teaches it")
        if self.geometry.cache < self.geometry.size:
            raise ValueError("geometry.cache is smaller than geometry.size")
        if self.network.imagenet and self.network.width != 1:
            raise ValueError("network.imagenet fits width 1 only")
        return self


def load(path: Path) -> Config:
    """Read and check a configuration. Raises SettingsError that names file and key."""
    try:
        return Config.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise SettingsError(f"{path}: the configuration is not valid\n" + "\n".join(lines)) from None
