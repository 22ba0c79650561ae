"""What models find on a photograph: disc, cup, fovea, decisions, heat maps. Values; who finds them are the readers.

Coordinates are pixels of the photo as displayed (EXIF orientation applied), pixel centres at integers. What could not be
measured is None, with the reason among the warnings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..postprocess import measures
from ..postprocess.anatomy import Anatomy
from .errors import Code
from .eyes import Eyes
from .pictures.preprocess import Placement

Structure = Literal["disc", "cup"]


@dataclass(frozen=True)
class Outline:
    """A disc or cup.

    Attributes:
        x: Of the centre.
        y: Of the centre.
        vertical_diameter_px: Height of the tallest pixel column of the mask, which is REFUGE's definition.
        box_height_px: Height of the bounding box.
        area_px: Area, px².
    """

    x: float
    y: float
    vertical_diameter_px: float
    box_height_px: float
    area_px: float


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Where in the picture a model sees a disease.

    Attributes:
        cells: Of a class-activation map, float32 (h, w) in [0, 1]; 1 is the heat of a typical sick picture's hottest place.
        grid: Affine (2, 3) from cells to the photo's pixels.
    """

    cells: NDArray[np.float32]
    grid: NDArray[np.float64]

    def on_photo(self, width: int, height: int, scale: float = 1.0) -> NDArray[np.float32]:
        """The map on the photo, bilinear.

        Args:
            width: Of the drawing, px.
            height: Of the drawing, px.
            scale: Of the drawing, where it is smaller than the photo.

        Returns:
            float32 (height, width) in [0, 1].
        """
        matrix = scale * self.grid + np.array([[0, 0, (scale - 1) / 2]] * 2)
        border = cv2.BORDER_REPLICATE
        drawn = cv2.warpAffine(self.cells, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border)
        return np.asarray(np.clip(drawn, 0, 1), np.float32)


@dataclass(frozen=True)
class Decision:
    """One verdict on one disease, whichever model gave it.

    Attributes:
        disease: A name among `diseases.DISEASES`.
        probability: In [0, 1]; None where it could not be measured.
        threshold: The disease is called from this probability on; None where the model found nothing to measure.
        called: None where it is left open: not measurable, too near to the threshold to say, or the picture too coarse for it.
        heat: Where in the picture it is seen, of models with heat maps.
    """

    disease: str
    probability: float | None
    threshold: float | None
    called: bool | None
    heat: HeatMap | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the models that have looked so far found on one photograph. Each reader returns it with what its own model found.

    Attributes:
        width: Of the photo, px.
        height: Of the photo, px.
        warnings: What is missing, unsure or contradicted.
        eyes: Whose eye it is.
        vcdr: Vertical cup-to-disc ratio, in [0, 1].
        disc: The optic disc.
        cup: The optic cup.
        fovea: Its centre (x, y).
        decisions: By the name of their verdict (`glaucoma`, `glaucoma_second`, `referable_dr`, `any_dr`).
        scores: What verdicts were made of, and other numbers in [0, 1], by the name of their column.
        point: The operating point of the decisions that have a choice of them.
        anatomy: Disc, cup and fovea in map pixels.
        placement: Where the map lies in the photo.
        second_look: Whether disc, cup and vCDR are of the closer look at the disc; None where none was taken.
    """

    width: int
    height: int
    warnings: tuple[Code, ...] = ()
    eyes: Eyes = field(default_factory=Eyes)
    vcdr: float | None = None
    disc: Outline | None = None
    cup: Outline | None = None
    fovea: tuple[float, float] | None = None
    decisions: Mapping[str, Decision] = field(default_factory=dict, hash=False)
    scores: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    point: str | None = None
    anatomy: Anatomy | None = field(default=None, repr=False, compare=False)
    placement: Placement | None = field(default=None, repr=False, compare=False)
    second_look: bool | None = None

    def mask(self, structure: Structure) -> NDArray[np.bool_]:
        """The mask of disc or cup on the photo.

        Args:
            structure: `disc` or `cup`.

        Returns:
            bool (height, width); all False where there is none.
        """
        if self.anatomy is None or self.anatomy.region is None or self.placement is None:
            return np.zeros((self.height, self.width), bool)
        region = self.anatomy.region
        return region.draw(getattr(region, structure), self.placement.matrix(), (self.height, self.width))

    def contour(self, structure: Structure) -> NDArray[np.float64]:
        """The outer contour of disc or cup.

        Args:
            structure: `disc` or `cup`.

        Returns:
            float64 (N, 2), x and y in the photo's pixels; N = 0 where there is none.
        """
        if self.anatomy is None or self.anatomy.region is None or self.placement is None:
            return np.empty((0, 2))
        region = self.anatomy.region
        found, _ = cv2.findContours(
            getattr(region, structure).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        if not found:
            return np.empty((0, 2))
        longest = max(found, key=len).astype(np.float64)  # (N, 1, 2)
        return np.asarray(cv2.transform(cv2.transform(longest, region.to_map()), self.placement.matrix())[:, 0])


def outline(mask: NDArray[np.bool_], diameter: int, to_photo: NDArray[np.float64]) -> Outline | None:
    """Centre and sizes of a mask in the photo's pixels; None for an empty mask.

    Args:
        mask: bool (h, w).
        diameter: Its vertical diameter, in its own pixels.
        to_photo: Affine (2, 3) from the mask's pixels, without rotation.
    """
    area = int(np.count_nonzero(mask))
    if not area:
        return None
    x, y = to_photo @ (*measures.centre(mask), 1.0)
    across, down = to_photo[0, 0], to_photo[1, 1]
    return Outline(
        float(x),
        float(y),
        float(diameter * down),
        float(measures.bounding_box_height(mask) * down),
        float(area * across * down),
    )
