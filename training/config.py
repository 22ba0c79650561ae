"""The training configuration: a TOML file with a strict schema. What a run does stands in its file, not in defaults."""

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
Scale = Annotated[float, Field(gt=0, le=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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

    region: `full`, or `disc` for crops of the disc region, which are placed at a random share of the square between the
    two of `disc_scale`; they are not validated on, since no camera gives such pictures.
    """

    path: str
    weights: dict[TaskName, Annotated[float, Field(gt=0)]]
    region: Literal["full", "disc"] = "full"
    disc_scale: Annotated[tuple[Scale, Scale], Field(strict=False)] = (1.0, 1.0)
    terms: str


class Data(Strict):
    """sampler `shared`: one batch for all tasks, missing labels masked (the source's rule), as large as the largest of
    `batch` (rounded up so that each task draws as many);
    `per_task`: each task draws its own batch. balance_glaucoma: draw as many pictures with as without."""

    root: str
    sampler: Literal["shared", "per_task"]
    batch: Annotated[dict[TaskName, Positive], Field(min_length=1)]
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


class Terms(Strict):
    """What the weights may be used for; goes into the model's contract and from there into every report."""

    licence: Annotated[str, Field(min_length=1)]
    notice: Annotated[str, Field(min_length=1)]


class Config(Strict):
    name: str
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    network: Network
    geometry: GeometrySettings
    data: Data
    schedule: Schedule
    augment: Augmentation
    reading: Reading
    terms: Terms

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        for task in self.data.batch:
            if not any(task in s.weights for s in self.data.sets):
                raise ValueError(f"task {task} has a batch size, but no set teaches it")
        if len({s.path for s in self.data.sets}) < len(self.data.sets):
            raise ValueError("a set stands twice in data.sets")
        if any(s.disc_scale[0] > s.disc_scale[1] for s in self.data.sets):
            raise ValueError("disc_scale: the smaller share comes first")
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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise SettingsError(f"{path}: the configuration is not valid\n" + "\n".join(lines)) from None
