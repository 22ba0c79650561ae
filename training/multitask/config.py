"""The configuration of the multi-task network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ...postprocess.measures import CentreMode
from .. import settings
from ..settings import Positive, Share, Strict
from .mtl import Strategy
from .networks import TaskName

Scale = Annotated[float, Field(gt=0, le=1)]


class Network(Strict):
    """width: multiplier of VGG-16's channels; imagenet: a .safetensors or .pth file of VGG-16 in torchvision's
    names, relative to the file, or "" (width 1 only); start: in its place, a model of the same width that was exported, from
    which it goes on (relative to the file, or ""; needs `schedule.freeze_batchnorm = 0`)."""

    width: Annotated[float, Field(gt=0, le=1)]
    dropout: Share
    imagenet: str
    start: str = ""  # absent from older checkpoints


class SetSettings(settings.Set):
    """One data set: which tasks it teaches and with what weight its pictures are drawn for each.

    region: `full`, or `disc` for crops of the disc region, which are placed at a random share of the square between the
    two of `disc_scale`; they are not validated on, since no camera gives such pictures.
    """

    weights: dict[TaskName, Annotated[float, Field(gt=0)]]
    region: Literal["full", "disc"] = "full"
    disc_scale: Annotated[tuple[Scale, Scale], Field(strict=False)] = (1.0, 1.0)


class Data(settings.Data):
    """sampler `shared`: one batch for all tasks, missing labels masked (the source's rule), as large as the largest of
    `batch` (rounded up so that each task draws as many);
    `per_task`: each task draws its own batch. balance_glaucoma: draw as many pictures with as without."""

    sampler: Literal["shared", "per_task"]
    batch: Annotated[dict[TaskName, Positive], Field(min_length=1)]
    balance_glaucoma: bool
    sets: list[SetSettings]


class Schedule(settings.Schedule):
    """strategy: see `mtl`; fovea_loss and fovea_variance_px2: of the saliency map; mask_loss: of disc and cup;
    loss_weights: under the strategy `sum`, of the tasks' losses, 1 where it is not named."""

    strategy: Strategy
    fovea_loss: Literal["l1", "bce"]
    fovea_variance_px2: Annotated[float, Field(gt=0)]
    mask_loss: Literal["bce", "bce+dice"] = "bce"  # absent from older checkpoints, as is the next
    loss_weights: Annotated[dict[TaskName, Annotated[float, Field(gt=0)]], Field(default_factory=dict)]


class Reading(Strict):
    """How maps are read where calibration does not decide: see `postprocess.anatomy.Rules`."""

    fovea_mode: CentreMode
    fovea_min_peak: Share


class Config(settings.BaseConfig):
    """The whole file."""

    kind: Literal["multi-task"]
    network: Network
    data: Data
    schedule: Schedule
    reading: Reading

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        for task in self.data.batch:
            if not any(task in s.weights for s in self.data.sets):
                raise ValueError(f"task {task} has a batch size, but no set teaches it")
        settings.tell_apart(self.data.sets)
        if any(s.disc_scale[0] > s.disc_scale[1] for s in self.data.sets):
            raise ValueError("disc_scale: the smaller share comes first")
        if "ratio" in self.data.batch and not {"disc", "cup"} <= self.data.batch.keys():
            raise ValueError("task ratio goes with disc and cup: it moves the cup of a disc that is drawn")
        if self.schedule.loss_weights and self.schedule.strategy != "sum":
            raise ValueError("schedule.loss_weights goes with the strategy sum")
        if self.network.imagenet and self.network.width != 1:
            raise ValueError("network.imagenet fits width 1 only")
        if self.network.start and (self.network.imagenet or self.schedule.freeze_batchnorm > 0):
            raise ValueError('network.start: set imagenet to "" and schedule.freeze_batchnorm to 0')
        return self
