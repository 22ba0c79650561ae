"""What comes out: a `Screening`, or a `Rejected` that says why not. Both give one flat row under the same columns.

What the multi-task model found stands in the Screening itself, what the classifier found in its `classification`.

Coordinates are pixels of the photo as displayed (EXIF orientation applied), pixel centres at integers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..postprocess import measures
from ..postprocess.findings import Findings
from .contract import PointName
from .errors import Code, Eye
from .pictures.photo import Photo
from .pictures.preprocess import Placement

UNGRADABLE = frozenset({Code.NO_FIELD_OF_VIEW, Code.DISC_NOT_FOUND})  # a picture, but not one that can be read
Structure = Literal["disc", "cup"]
Disease = Literal["glaucoma", "referable_dr", "any_dr"]
DISEASES: tuple[Disease, ...] = ("glaucoma", "referable_dr", "any_dr")  # the classifier's outputs
Status = Literal["ok", "ungradable", "error"]


@dataclass(frozen=True)
class ModelName:
    """Which model, on what: stands in every row."""

    name: str
    version: str
    sha256: str
    backend: str
    precision: str


@dataclass(frozen=True)
class Outline:
    """A disc or cup: centre and sizes. vertical_diameter_px: REFUGE's, the longest column; box_height_px: the bounding
    box's height."""

    x: float
    y: float
    vertical_diameter_px: float
    box_height_px: float
    area_px: float


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Where in the picture the classifier sees a disease: cells of a class-activation map, float32 (h, w) in [0, 1].

    grid: affine (2, 3) from cells to the photo's pixels.
    """

    cells: NDArray[np.float32]
    grid: NDArray[np.float64]

    def on_photo(self, width: int, height: int, scale: float = 1.0) -> NDArray[np.float32]:
        """The map on the photo, bilinear: float32 (height, width) in [0, 1].

        Args: scale: of the photo, where it is drawn smaller; width and height are those of the drawing.
        """
        matrix = scale * self.grid + np.array([[0, 0, (scale - 1) / 2]] * 2)
        border = cv2.BORDER_REPLICATE
        drawn = cv2.warpAffine(self.cells, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border)
        return np.asarray(np.clip(drawn, 0, 1), np.float32)


@dataclass(frozen=True)
class Opinion:
    """The classifier's word on one disease. probability: temperature-scaled; positive: whether it reaches the
    threshold, None where it is too near to it to say; of any retinopathy, also where referable retinopathy is."""

    probability: float
    threshold: float
    positive: bool | None
    heat: HeatMap | None = field(repr=False, compare=False)


@dataclass(frozen=True)
class Classification:
    """What the classifier found. referable_dr: diabetic retinopathy of grade 2 and more; any_dr: of grade 1 and more."""

    glaucoma: Opinion
    referable_dr: Opinion
    any_dr: Opinion
    point: PointName
    model: ModelName

    def of(self, disease: Disease) -> Opinion:
        """The opinion on one of DISEASES."""
        return getattr(self, disease)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Eyes:
    """Whose eye a picture shows. source: where `eye` comes from: the list of pictures, the file (DICOM), or the side of
    the fovea on which the disc lies."""

    patient: str | None = None
    eye: Eye | None = None
    source: Literal["list", "file", "picture"] | None = None


@dataclass(frozen=True)
class Screening:
    """One screened photograph. None: not measurable, with the reason among `warnings`, or its model was not asked.

    width, height: of the photo, px. vcdr: vertical cup-to-disc ratio, in [0, 1]. glaucoma_probability: the mean of
    glaucoma_network (the classifier after the encoder) and glaucoma_vcdr (logistic regression on the vCDR); glaucoma:
    whether it reaches `threshold`. model: the multi-task model. classification: the classifier's word on the diseases.
    photo: kept only where `keep_photo` was asked for.
    """

    name: str
    sha256: str | None
    width: int
    height: int
    warnings: tuple[Code, ...]
    eyes: Eyes = Eyes()
    vcdr: float | None = None
    disc: Outline | None = None
    cup: Outline | None = None
    fovea: tuple[float, float] | None = None
    glaucoma: bool | None = None
    glaucoma_probability: float | None = None
    glaucoma_network: float | None = None
    glaucoma_vcdr: float | None = None
    threshold: float | None = None
    model: ModelName | None = None
    classification: Classification | None = None
    findings: Findings | None = field(default=None, repr=False, compare=False)
    placement: Placement | None = field(default=None, repr=False, compare=False)
    photo: Photo | None = field(default=None, repr=False, compare=False)

    @property
    def status(self) -> Status:
        """Always `ok`."""
        return "ok"

    def mask(self, structure: Structure) -> NDArray[np.bool_]:
        """The mask of disc or cup on the photo, bool (H, W); all False where the multi-task model was not asked."""
        if self.findings is None or self.findings.region is None or self.placement is None:
            return np.zeros((self.height, self.width), bool)
        region = self.findings.region
        return region.draw(getattr(region, structure), self.placement.matrix(), (self.height, self.width))

    def contour(self, structure: Structure) -> NDArray[np.float64]:
        """The outer contour of disc or cup, float64 (N, 2), x and y in the photo's pixels; N = 0 where there is none."""
        if self.findings is None or self.findings.region is None or self.placement is None:
            return np.empty((0, 2))
        region = self.findings.region
        found, _ = cv2.findContours(
            getattr(region, structure).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        if not found:
            return np.empty((0, 2))
        longest = max(found, key=len).astype(np.float64)  # (N, 1, 2)
        return np.asarray(cv2.transform(cv2.transform(longest, region.to_map()), self.placement.matrix())[:, 0])

    def to_dict(self) -> dict[str, Any]:
        """One flat row of JSON values under `COLUMNS`."""
        row: dict[str, Any] = {
            "name": self.name,
            "status": self.status,
            "code": None,
            "reason": None,
            "warnings": [str(warning) for warning in self.warnings],
            "sha256": self.sha256,
            **_eye_columns(self.eyes),
            "width": self.width,
            "height": self.height,
            "vcdr": _rounded(self.vcdr),
            "fovea_x": _rounded(self.fovea[0] if self.fovea else None, 2),
            "fovea_y": _rounded(self.fovea[1] if self.fovea else None, 2),
            "glaucoma": self.glaucoma,
            "glaucoma_probability": _rounded(self.glaucoma_probability),
            "glaucoma_network": _rounded(self.glaucoma_network),
            "glaucoma_vcdr": _rounded(self.glaucoma_vcdr),
            "threshold": self.threshold,
        }
        for structure, outline in (("disc", self.disc), ("cup", self.cup)):
            for key in Outline.__dataclass_fields__:
                row[f"{structure}_{key}"] = _rounded(getattr(outline, key), 2) if outline else None
        found = self.classification
        if found is not None:
            for disease, column in _COLUMN.items():
                opinion = found.of(disease)
                row[column] = opinion.positive
                row[f"{column}_probability"] = _rounded(opinion.probability)
                row[f"{column}_threshold"] = _rounded(opinion.threshold)
            row["operating_point"] = found.point
        return _in_order(row | _model_columns(self.model, found.model if found else None))


@dataclass(frozen=True)
class Rejected:
    """One picture without a result, and why. It travels the same way as a Screening.

    warnings: what is known of it all the same: that list and file name different eyes, or that it is too dark for the
    classifier.
    """

    name: str
    sha256: str | None
    code: Code
    reason: str
    model: ModelName | None = None
    classifier: ModelName | None = None
    eyes: Eyes = Eyes()
    warnings: tuple[Code, ...] = ()

    @property
    def status(self) -> Status:
        """`ungradable` for a picture in which no retina or disc can be seen, else `error`."""
        return "ungradable" if self.code in UNGRADABLE else "error"

    def to_dict(self) -> dict[str, Any]:
        """One flat row of JSON values under `COLUMNS`; all measures are None."""
        row: dict[str, Any] = {"name": self.name, "status": self.status, "code": str(self.code), "reason": self.reason}
        row |= {"warnings": [str(warning) for warning in self.warnings], "sha256": self.sha256}
        row |= _eye_columns(self.eyes)
        return _in_order(row | _model_columns(self.model, self.classifier))


Result = Screening | Rejected

_COLUMN: dict[Disease, str] = {"referable_dr": "referable_dr", "any_dr": "any_dr", "glaucoma": "glaucoma_second"}
_OF_MODEL = {  # column of each field of ModelName, for the multi-task model and the classifier
    "name": ("model", "classifier"),
    "version": ("model_version", "classifier_version"),
    "sha256": ("model_sha256", "classifier_sha256"),
    "backend": ("backend", "classifier_backend"),
    "precision": ("precision", "classifier_precision"),
}

COLUMNS = (
    *("name", "status", "code", "reason", "warnings", "sha256"),
    *("patient", "eye", "eye_source", "width", "height", "vcdr"),
    *(f"{structure}_{key}" for structure in ("disc", "cup") for key in Outline.__dataclass_fields__),
    *("fovea_x", "fovea_y", "glaucoma", "glaucoma_probability", "glaucoma_network", "glaucoma_vcdr", "threshold"),
    *(column + part for column in _COLUMN.values() for part in ("", "_probability", "_threshold")),
    "operating_point",
    *(columns[k] for k in (0, 1) for columns in _OF_MODEL.values()),
)


def _model_columns(*models: ModelName | None) -> dict[str, Any]:
    return {
        columns[k]: getattr(model, key) for k, model in enumerate(models) if model for key, columns in _OF_MODEL.items()
    }


def _eye_columns(eyes: Eyes) -> dict[str, Any]:
    return {"patient": eyes.patient, "eye": eyes.eye, "eye_source": eyes.source}


def _in_order(row: dict[str, Any]) -> dict[str, Any]:
    return {column: row.get(column) for column in COLUMNS}


def _rounded(value: float | None, digits: int = 6) -> float | None:
    return None if value is None else round(float(value), digits)


def outline(mask: NDArray[np.bool_], to_photo: NDArray[np.float64]) -> Outline | None:
    """Centre and sizes of a region's mask in the photo's pixels. Args: to_photo: affine (2, 3) from mask pixels, no rotation."""
    area = int(np.count_nonzero(mask))
    if not area:
        return None
    rows, columns = np.nonzero(mask)
    x, y = to_photo @ (columns.mean(), rows.mean(), 1.0)
    across, down = to_photo[0, 0], to_photo[1, 1]
    return Outline(
        float(x),
        float(y),
        float(measures.vertical_diameter(mask) * down),
        float(measures.bounding_box_height(mask) * down),
        float(area * across * down),
    )
