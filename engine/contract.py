"""The contract: a model file describes itself.

One strict JSON document in the ONNX file's metadata holds all that training knows and deployment needs, and the SHA-256
of the whole file (the digest's own 64 characters taken as zeros). It is found by its opening words, so no ONNX parser is
needed, and it covers graph and contract alike. The digest detects damage, not malice.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from ..postprocess.findings import Rules
from .errors import ModelError
from .pictures.preprocess import Geometry, Light

FORMAT = "funduscope/1"
METADATA_KEY = "funduscope"
ZEROS = "0" * 64
_OPENING = f'{{"format":"{FORMAT}","sha256":"'.encode()
_ANY_OPENING = b'{"format":"funduscope/'
Probability = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
PointName = Literal["high_sensitivity", "balanced", "high_specificity"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Tensor(Strict):
    """A named input or output; a string in the shape is a symbolic size."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: list[int | str]


class GeometryPart(Strict):
    """Preparation: field-of-view crop, centred square, area resize, from a full-size decode.

    path: `crop-pad-resize-1` looks for the field of view in the brightest channel, `grey-crop-pad-resize-1` in grey.
    """

    path: Literal["crop-pad-resize-1", "grey-crop-pad-resize-1"]
    size: int
    fov_threshold: Annotated[int, Field(ge=0, le=255)]

    def build(self) -> Geometry:
        """The values as preprocessing takes them."""
        light: Light = "grey" if self.path.startswith("grey") else "brightest"
        return Geometry(self.size, self.fov_threshold, light)


class RulesPart(Strict):
    """Post-processing: see `postprocess.findings.Rules`."""

    disc_threshold: Probability
    cup_threshold: Probability
    fovea_mode: Literal["robust", "paper"]
    fovea_min_peak: Probability
    vcdr_coefficient: float
    vcdr_intercept: float

    def build(self) -> Rules:
        """The values as post-processing takes them."""
        return Rules(**self.model_dump())


class EstimatePart(Strict):
    """A rate on the validation split with its 95 % interval (Wilson)."""

    value: Probability
    low: Probability
    high: Probability


class PointPart(Strict):
    """An operating point: positive from this probability on, and what that gave on the validation split, where pictures
    on which the classifier abstains count by the side of the threshold on which they lie. uncertain_logit: nearer than this
    to the threshold, in logits, it abstains."""

    threshold: Probability
    uncertain_logit: Annotated[float, Field(ge=0)]
    sensitivity: EstimatePart
    specificity: EstimatePart


class PointsPart(Strict):
    high_sensitivity: PointPart
    balanced: PointPart
    high_specificity: PointPart

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.high_sensitivity.threshold <= self.balanced.threshold <= self.high_specificity.threshold:
            raise ValueError("the thresholds must rise from high_sensitivity over balanced to high_specificity")
        return self


class DecisionPart(Strict):
    """How one output of a classifier is read.

    temperature: what the graph divides the logit by; map_scale: the logit of the heat map that is drawn as full heat, null
    without a map.
    """

    temperature: Annotated[float, Field(gt=0)]
    points: PointsPart
    map_scale: Annotated[float, Field(gt=0)] | None


class DecisionsPart(Strict):
    """glaucoma; referable_dr: diabetic retinopathy of grade 2 and more; any_dr: of grade 1 and more."""

    glaucoma: DecisionPart
    referable_dr: DecisionPart
    any_dr: DecisionPart


class MapGridPart(Strict):
    """Where the heat maps' cells lie: cell k is centred on pixel offset_px + k * stride_px of the network's square."""

    stride_px: Annotated[float, Field(gt=0)]
    offset_px: float

    def to_square(self) -> NDArray[np.float64]:
        """Affine (3, 3) from cells to the square's pixels."""
        return np.array([[self.stride_px, 0, self.offset_px], [0, self.stride_px, self.offset_px], [0, 0, 1]])


class DataPart(Strict):
    """One data set that the model learned from, and that set's terms."""

    name: str
    pictures: int
    terms: str


class TrainingPart(Strict):
    """Where the model comes from. figures: validation figures per set, at the thresholds of this
    contract (of a classifier, those of its balanced points)."""

    network: str
    strategy: str
    steps: int
    device: str
    data: list[DataPart]
    figures: dict[str, dict[str, float]]


class TermsPart(Strict):
    """MODEL_LICENSE: the terms of the weights, which are not the code's."""

    licence: str
    notice: str


class Common(Strict, ABC):
    """What both kinds of model say of themselves; every key is required but one.

    converted_from: the SHA-256 of the fp32 model file that a file of less precision was made from; absent in fp32.
    """

    format: Literal["funduscope/1"]
    sha256: Digest
    kind: str
    name: str
    version: str
    precision: Literal["fp32", "fp16", "int8"]
    converted_from: Digest | None = None
    input: Tensor
    outputs: list[Tensor]
    geometry: GeometryPart
    training: TrainingPart
    terms: TermsPart

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.input.shape[1:] != [self.geometry.size, self.geometry.size, 3]:
            raise ValueError(f"input.shape {self.input.shape} is not of geometry.size {self.geometry.size}")
        if (names := sorted(output.name for output in self.outputs)) != sorted(self.needed()):
            raise ValueError(f"outputs are {names}; a {self.kind} model of this contract has {sorted(self.needed())}")
        if (self.converted_from is None) != (self.precision == "fp32"):
            raise ValueError(
                "converted_from must name the fp32 model of a file of less precision, and be absent in fp32"
            )
        return self

    @abstractmethod
    def needed(self) -> list[str]:
        """The outputs that a model of this kind has."""

    def to_json(self) -> str:
        """Canonical JSON, which starts with the words that `verified` looks for."""
        return json.dumps(
            self.model_dump(exclude_defaults=True), separators=(",", ":"), ensure_ascii=True, allow_nan=False
        )


class MultiTask(Common):
    """Disc, cup, fovea and glaucoma from one network."""

    kind: Literal["multi-task"]
    rules: RulesPart
    glaucoma_threshold: Probability

    def needed(self) -> list[str]:
        """See Common."""
        return ["disc", "cup", "fovea", "glaucoma"]


class Classifier(Common):
    """Glaucoma and diabetic retinopathy. point: the operating point where none is asked for; disagreement: how far its
    glaucoma may be from the multi-task model's, each seen from its own threshold (its balanced one) at one half, before a
    result says so; contrary decisions are always said, so that from .5 on this adds only pictures on which it abstains."""

    kind: Literal["classifier"]
    decisions: DecisionsPart
    point: PointName
    disagreement: Probability
    map_grid: MapGridPart | None

    def needed(self) -> list[str]:
        """See Common; with a map for each disease where there is a grid for them."""
        diseases = list(DecisionsPart.model_fields)
        return diseases + [f"{name}_map" for name in diseases if self.map_grid is not None]


Contract = MultiTask | Classifier
_CONTRACT: TypeAdapter[Contract] = TypeAdapter(Annotated[Contract, Field(discriminator="kind")])


@dataclass(frozen=True)
class Model:
    """A verified model file: its bytes, contract and digest."""

    path: Path
    data: bytes
    contract: Contract

    @property
    def sha256(self) -> str:
        """The digest that the contract states and the file was found to have."""
        return self.contract.sha256

    def converted(self, precision: Literal["fp16", "int8"]) -> Contract:
        """The contract of a file of less precision that is made of this fp32 one, to be stamped."""
        return self.contract.model_copy(update={"precision": precision, "converted_from": self.sha256})


def embedded() -> dict[str, Path]:
    """The models that come with the package, by name."""
    folder = Path(str(resources.files("funduscope"))) / "models"
    return {path.stem: path for path in sorted(folder.glob("*.onnx"))}


def find(model: str | Path) -> Path:
    """The file of a model: an embedded name, or a path. Raises ModelError with the names there are."""
    names = embedded()
    if str(model) in names:
        return names[str(model)]
    path = Path(model)
    if not os.path.isfile(path):  # noqa: PTH113 -- pathlib's raises on an overlong name
        raise ModelError(
            f"{model}: no such model file, nor an embedded model. Embedded are: {', '.join(names)}; default is all of them"
        )
    return path


def read(model: str | Path) -> Model:
    """Read and verify a model file. Raises ModelError where it is damaged, foreign or of another format."""
    path = find(model)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None
    return Model(path, data, verified(data, str(path)))


def verified(data: bytes, label: str) -> Contract:
    """The contract inside a model file's bytes, after its digest was checked against them."""
    at = data.find(_OPENING)
    if at < 0:
        what = "its contract has another format; this Funduscope reads " + FORMAT
        missing = "no Funduscope contract in it; export models with `funduscope export`"
        raise ModelError(f"{label}: {what if _ANY_OPENING in data else missing}")
    if data.find(_OPENING, at + 1) >= 0:
        raise ModelError(f"{label}: two contracts in one file; export it again")
    digest_at = at + len(_OPENING)
    stated = data[digest_at : digest_at + 64].decode("ascii", "replace")
    digest = hashlib.sha256(data[:digest_at])
    digest.update(ZEROS.encode())
    digest.update(data[digest_at + 64 :])
    if digest.hexdigest() != stated:
        raise ModelError(f"{label}: damaged: its SHA-256 does not match its contract; copy or export it again")
    return parse(data[at:], label)


def parse(document: bytes, label: str) -> Contract:
    """The contract at the start of `document`; what follows it is ignored. Raises ModelError that names file and key."""
    try:
        value: Any = json.JSONDecoder().raw_decode(document[: 1 << 20].decode("utf-8", "replace"))[0]
        return _CONTRACT.validate_python(value)
    except ValidationError as error:
        # pydantic puts the kind in front of the key
        places = [".".join(map(str, e["loc"][1:])) for e in error.errors()]
        lines = [f"  {place or 'contract'}: {e['msg']}" for place, e in zip(places, error.errors(), strict=True)]
        raise ModelError(f"{label}: the contract is not valid\n" + "\n".join(lines)) from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{label}: the contract is not JSON ({error})") from None
