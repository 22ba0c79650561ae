"""The configuration of the two-disease classifier."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ...engine.readers.quality import FAULTS, FaultName
from .. import settings
from ..settings import Positive, Share, Strict

Architecture = Literal[
    "small-cnn",
    "alexnet",
    "resnet18",
    "densenet121",
    "efficientnet-lite0",
    "efficientnet-lite1",
    "efficientnet-lite2",
]
Input = Literal["grey", "colour", "contrast"]
Taught = Literal["glaucoma", "dr"]
Weight = Annotated[float, Field(gt=0)]
Open = Annotated[float, Field(gt=0, lt=1)]


class Network(Strict):
    """input: see `pixels.Pixels`; hidden: width of AlexNet's two dense layers (4096 as published), 0 for global average
    pooling in their place; severity: also learn severe and proliferative retinopathy, so that the grades 0 to 4 are
    known in order; imagenet: "package:NAME", an installed package that holds the weights (extra `pretrained`), or a
    .safetensors or .pth file in torchvision's names, relative to the file, or ""; start: in its place, the weights of an
    earlier run of the same network, a file that `weights.write` wrote, or ""; lesions: also learn where lesions were
    drawn, see Lesions; what is found speaks in the logits and the heat maps."""

    architecture: Architecture
    input: Input
    hidden: Annotated[int, Field(ge=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    severity: bool
    imagenet: str
    start: str = ""  # absent from older checkpoints
    lesions: bool = False  # absent from older checkpoints

    @model_validator(mode="after")
    def _agrees(self) -> Network:
        if self.hidden and self.architecture != "alexnet":
            raise ValueError(f"hidden is of alexnet's dense layers; {self.architecture} has none: set it to 0")
        if self.imagenet and self.architecture == "small-cnn":
            raise ValueError("imagenet: there are no such weights for small-cnn")
        if self.lesions and not self.architecture.startswith("efficientnet"):
            raise ValueError(f"lesions: {self.architecture} cannot learn them, EfficientNet can")
        if self.imagenet and self.start:
            raise ValueError('start takes the place of imagenet; set one of them to ""')
        return self


class SetSettings(settings.Set):
    """One data set: which diseases it teaches, and with what weight its pictures are drawn under balanced sampling."""

    weights: Annotated[dict[Taught, Weight], Field(min_length=1)]


class Data(settings.Data):
    """batch: pictures a step. sampling `uniform`: all training pictures alike (the source's); `balanced`: the diseases
    alike, sets by their weight, sick and healthy alike. augment `unhealthy`: only pictures with a disease are turned and
    coloured (the source's, and in the training split only); `both`: all. shares: how often balanced sampling draws for
    each disease; none: alike."""

    batch: Positive
    sampling: Literal["uniform", "balanced"]
    augment: Literal["unhealthy", "both"]
    sets: Annotated[list[SetSettings], Field(min_length=1)]
    shares: dict[Taught, Weight] = Field(default={})  # absent from older checkpoints


class Lesions(settings.Set):
    """Drawn lesions as a further target of training, by a 1x1 convolution on features of half the heat maps' stride.

    twins: the set in data.sets with which this one shares pictures: only drawings of its training pictures are learned
    from, and none whose twin is not known. batch: pictures a step, beside data.batch; weight: of a picture's loss.
    """

    twins: str
    batch: Positive
    weight: Weight


class Quality(Strict):
    """What is learned of the picture's own faults when the run is calibrated, see `faults`.

    pictures: of each set and split; foreign: of each kind that is no retina; seen: of the pictures that have a fault, the share
    that its threshold is to see; refused: of all photographs as they are, the share that it may refuse at the most, which goes
    before; regularisation: inverse strength of the penalty on the weights; least_px: see the contract's QualityPart; best: the
    highest quality that a picture can have where pictures were judged (`quality` of an index; all sets on one scale, from 0),
    None where no judgement is to be learned.
    """

    pictures: Positive
    foreign: Positive
    seen: dict[FaultName, Open]
    refused: Open
    regularisation: Weight
    least_px: dict[str, Weight]
    best: Weight | None = None  # absent from older checkpoints

    @model_validator(mode="after")
    def _whole(self) -> Quality:
        if missing := FAULTS.keys() - self.seen.keys():
            raise ValueError(f"seen: lacks {', '.join(sorted(missing))}")
        return self


class ExpUwbce(Strict):
    """See `losses.exp_uwbce`; positive, negative: W1 and W2; linear_from: where the exponential goes on linearly."""

    name: Literal["exp-uwbce"]
    positive: Weight
    negative: Weight
    linear_from: Annotated[float, Field(gt=0, le=20)]  # far beyond, exp times a logit is not finite in fp32


class Uwbce(Strict):
    """See `losses.uwbce`."""

    name: Literal["uwbce"]
    positive: Weight
    negative: Weight


class Bce(Strict):
    """UWBCE at W = (1, 1)."""

    name: Literal["bce"]


class Focal(Strict):
    """See `losses.focal`. Below gamma 1 its gradient is not finite everywhere."""

    name: Literal["focal"]
    gamma: Annotated[float, Field(ge=1)]


Loss = Annotated[ExpUwbce | Uwbce | Bce | Focal, Field(discriminator="name")]


class Schedule(settings.Schedule):
    """select: a checkpoint by the mean of the two diseases' F1 at a probability of one half (the source's), or of their
    AUC, each the mean over the sets."""

    select: Literal["f1", "auc"]


class Reading(Strict):
    """What calibration aims at, on the validation split.

    sensitivity, specificity: of the operating points that hold the one or the other; uncertain_share: of the pictures,
    those nearest to the threshold, on which the classifier abstains; disagreement: how far its glaucoma probability may
    be from the multi-task model's, each seen from its own threshold at one half, before the result says so (contrary
    decisions are always said; from .5 on, this adds only pictures on which the classifier abstains); point: the
    operating point that is used where none is asked for.
    """

    sensitivity: Open
    specificity: Open
    uncertain_share: Annotated[float, Field(ge=0, lt=1)]
    disagreement: Share
    point: Literal["high_sensitivity", "balanced", "high_specificity"]


class Config(settings.BaseConfig):
    """The whole file."""

    kind: Literal["classifier"]
    network: Network
    data: Data
    loss: Loss
    schedule: Schedule
    reading: Reading
    lesions: Lesions | None = None
    quality: Quality | None = None  # absent from older checkpoints

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        if self.network.input == "contrast" and self.geometry.size % 32:
            raise ValueError("geometry.size must be a multiple of 32 for network.input contrast")
        if self.network.architecture.startswith("efficientnet") and self.geometry.size % 32:
            raise ValueError(
                "geometry.size must be a multiple of 32 for EfficientNet, or its heat maps lie beside the picture"
            )
        if self.network.lesions != (self.lesions is not None):
            raise ValueError("network.lesions and the part [lesions] go together")
        if self.lesions and self.lesions.twins not in {own.path for own in self.data.sets}:
            raise ValueError(f"lesions.twins: {self.lesions.twins} is none of data.sets")
        if self.quality and self.network.hidden:
            raise ValueError(
                "quality: looks at pooled features, which dense layers do not have; set network.hidden to 0"
            )
        settings.tell_apart(self.data.sets)
        for disease in ("glaucoma", "dr"):
            if not any(disease in s.weights for s in self.data.sets):
                raise ValueError(f"no set teaches {disease}")
        return self
