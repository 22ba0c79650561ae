"""Squares around the disc, with their labels: where the first look that ships sees it, or where it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ...engine.errors import DataError, PhotoError
from ...engine.labelled.sample import Sample
from ...engine.pictures import photo, preprocess
from ...engine.pictures.photo import Photo
from ...engine.pictures.preprocess import Geometry, Placement, Prepared, Spot
from ...engine.readers.outputs import Looked
from ...engine.spotting import Spotter
from ...postprocess import measures
from .. import cases
from ..cases import Case


@dataclass(frozen=True, eq=False)
class Crop:
    """case: the square and its labels; first: what the first look has looked at and given."""

    case: Case
    first: Looked


def seen(sample: Sample, geometry: Geometry, spotter: Spotter) -> Crop | None:
    """The square where the first look sees a disc, as in use; None where it sees none.

    Raises: DataError with the picture's name where it cannot be read.
    """
    picture = _read(sample)
    try:
        spot, first = spotter.look(picture)
    except PhotoError as error:
        raise DataError(f"{sample.image}: {error}") from None
    if spot is None:
        return None
    case = cases.moved(sample, preprocess.around(spot, geometry), picture.width)
    return Crop(case, first)


def drawn(sample: Sample, geometry: Geometry) -> Case | None:
    """The square around the drawn disc; None where none is. What lies outside of the picture is its edge, repeated: it may be a
    crop itself, and there is no black around a disc in use.

    Raises: DataError as `seen`.
    """
    masks = sample.read_masks()
    if masks is None or not masks.disc.any():
        return None
    picture = _read(sample)
    whole = _widened(picture.pixels)
    x, y = whole.placement.to_square(*measures.centre(masks.disc))
    spot = Spot(whole, x, y, measures.vertical_diameter(masks.disc))
    return cases.moved(sample, preprocess.around(spot, geometry), picture.width)


def _read(sample: Sample) -> Photo:
    try:
        return photo.load(sample.image)
    except PhotoError as error:
        raise DataError(f"{sample.image}: {error}") from None


def _widened(pixels: NDArray[np.uint8]) -> Prepared:
    height, width = pixels.shape[:2]
    margin = max(height, width)
    below, after = 2 * margin - height, 2 * margin - width
    image = cv2.copyMakeBorder(pixels, margin, below, margin, after, cv2.BORDER_REPLICATE)
    return Prepared(np.asarray(image, np.uint8), Placement(1.0, 1.0, margin, margin))
