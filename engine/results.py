"""What comes out: a `Screening`, or a `Rejected` that says why not. Both give one flat row under the same columns.

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
from .errors import Code
from .photo import Photo
from .preprocess import Placement

UNGRADABLE = frozenset({Code.NO_FIELD_OF_VIEW, Code.DISC_NOT_FOUND})  # a picture, but not one that can be read
Structure = Literal["disc", "cup"]
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


@dataclass(frozen=True)
class Screening:
    """One screened photograph. None: not measurable, with the reason among `warnings`.

    width, height: of the photo, px. vcdr: vertical cup-to-disc ratio, in [0, 1]. glaucoma_probability: the mean of
    glaucoma_network (the classifier after the encoder) and glaucoma_vcdr (logistic regression on the vCDR); glaucoma:
    whether it reaches `threshold`.
    photo: kept only where `keep_photo` was asked for.
    """

    name: str
    sha256: str | None
    width: int
    height: int
    warnings: tuple[Code, ...]
    vcdr: float | None
    disc: Outline
    cup: Outline | None
    fovea: tuple[float, float] | None
    glaucoma: bool | None
    glaucoma_probability: float | None
    glaucoma_network: float
    glaucoma_vcdr: float | None
    threshold: float
    model: ModelName
    findings: Findings = field(repr=False, compare=False)
    placement: Placement = field(repr=False, compare=False)
    photo: Photo | None = field(default=None, repr=False, compare=False)

    @property
    def status(self) -> Status:
        """Always `ok`."""
        return "ok"

    def mask(self, structure: Structure) -> NDArray[np.bool_]:
        """The mask of disc or cup on the photo, bool (H, W)."""
        region = self.findings.region
        assert region is not None
        return region.draw(getattr(region, structure), self.placement.matrix(), (self.height, self.width))

    def contour(self, structure: Structure) -> NDArray[np.float64]:
        """The outer contour of disc or cup, float64 (N, 2), x and y in the photo's pixels; N = 0 for no cup."""
        region = self.findings.region
        assert region is not None
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
        return _in_order(row | _model_columns(self.model))


@dataclass(frozen=True)
class Rejected:
    """One picture without a result, and why. It travels the same way as a Screening."""

    name: str
    sha256: str | None
    code: Code
    reason: str
    model: ModelName

    @property
    def status(self) -> Status:
        """`ungradable` for a picture in which no retina or disc can be seen, else `error`."""
        return "ungradable" if self.code in UNGRADABLE else "error"

    def to_dict(self) -> dict[str, Any]:
        """One flat row of JSON values under `COLUMNS`; all measures are None."""
        row: dict[str, Any] = {"name": self.name, "status": self.status, "code": str(self.code), "reason": self.reason}
        return _in_order(row | {"warnings": [], "sha256": self.sha256} | _model_columns(self.model))


Result = Screening | Rejected

COLUMNS = (
    *("name", "status", "code", "reason", "warnings", "sha256", "width", "height", "vcdr"),
    *(f"{structure}_{key}" for structure in ("disc", "cup") for key in Outline.__dataclass_fields__),
    *("fovea_x", "fovea_y", "glaucoma", "glaucoma_probability", "glaucoma_network", "glaucoma_vcdr", "threshold"),
    *("model", "model_version", "model_sha256", "backend", "precision"),
)


def _model_columns(model: ModelName) -> dict[str, Any]:
    return {
        "model": model.name,
        "model_version": model.version,
        "model_sha256": model.sha256,
        "backend": model.backend,
        "precision": model.precision,
    }


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
