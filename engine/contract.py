"""The contract: a model file describes itself.

One strict JSON document in the ONNX file's metadata holds all that training knows and deployment needs, and the SHA-256 of
the whole file (the digest's own 64 characters taken as zeros). It is found by its opening words, so no ONNX parser is needed,
and it covers graph and contract alike. The digest detects damage, not malice. Here is what every kind of model says;
`readers` has what each kind adds, `models` loads files.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .pictures.preprocess import Geometry

FORMAT = "funduscope/1"
METADATA_KEY = "funduscope"
ZEROS = "0" * 64
Probability = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Tensor(Strict):
    """A named input or output of the graph.

    Attributes:
        name: In the graph.
        dtype: Of its values.
        shape: Its sizes; a string is a symbolic one.
    """

    name: str
    dtype: Literal["uint8", "float32"]
    shape: list[int | str]


class GeometryPart(Strict):
    """Preparation, see `pictures.preprocess`: the field of view of the reduced picture, cropped, resized by area, centred; or
    a square around the disc that the look before has found.

    Attributes:
        path: Which version of it.
        size: Of the square, px.
        fov_threshold: Of the field of view.
        diameters: Of the disc that a square around it is wide; absent where the square shows the whole field of view.
    """

    path: Literal["reduced-crop-pad-resize-2", "around-disc-1"]
    size: int
    fov_threshold: Annotated[int, Field(ge=0, le=255)]
    diameters: Annotated[float, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.path == "around-disc-1") != (self.diameters is not None):
            raise ValueError("diameters goes with the path around-disc-1")
        return self

    def build(self) -> Geometry:
        """The values as preprocessing takes them."""
        return Geometry(self.size, self.fov_threshold, self.diameters)


class DataPart(Strict):
    """One data set that the model learned from.

    Attributes:
        name: Of its folder.
        pictures: How many of them were trained on.
        terms: Of the set.
    """

    name: str
    pictures: int
    terms: str


class TrainingPart(Strict):
    """Where the model comes from.

    Attributes:
        network: What was trained.
        strategy: How.
        steps: How long.
        device: On what.
        data: The sets that it learned from.
        figures: Validation figures per set, at the thresholds of this contract (of a classifier, those of its balanced
            points).
    """

    network: str
    strategy: str
    steps: int
    device: str
    data: list[DataPart]
    figures: dict[str, dict[str, float]]


class TermsPart(Strict):
    """The terms of the weights, which are not the code's; see MODEL_LICENSE.

    Attributes:
        licence: Its name.
        notice: What a person must be told with every result.
    """

    licence: str
    notice: str


class Contract(Strict, ABC):
    """What every model says of itself; each key is required but one.

    Attributes:
        format: Of the contract itself.
        sha256: Of the whole file, with these 64 characters as zeros.
        kind: Which reader makes findings of its outputs.
        name: Of the model.
        version: Of the model.
        precision: Of the graph.
        converted_from: SHA-256 of the fp32 model file that a file of less precision was made from; absent in fp32.
        input: What the graph takes.
        outputs: What the graph gives.
        geometry: How a photo becomes its input.
        training: Where the model comes from.
        terms: What the weights may be used for.

    Example:
        ```python
        with funduscope.Screener.open() as screener:
            for contract in screener.contracts:
                print(contract.name, contract.version, contract.terms.licence)
        ```
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
        """The outputs that a model of this kind and contract has.

        Returns:
            Their names.
        """

    def at(self, points: Mapping[str, Mapping[str, Any]]) -> Self:  # noqa: ARG002 -- some kinds have none
        """The contract with other operating points, as of a site's own.

        Args:
            points: By the output that they are of, and their names; such as the kind's reader gives them.
        """
        return self

    def to_json(self) -> str:
        """The contract as a model file holds it.

        Returns:
            Canonical JSON, which starts with the words that `models.verified` looks for.
        """
        return json.dumps(
            self.model_dump(exclude_defaults=True), separators=(",", ":"), ensure_ascii=True, allow_nan=False
        )


@dataclass(frozen=True)
class Model:
    """A verified model file.

    Attributes:
        path: Where it is.
        data: Its bytes.
        contract: What it says of itself.
    """

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
