"""A labelled picture as the engine prepares it, its labels moved along: the one way that training and validation take."""

from __future__ import annotations

from dataclasses import dataclass

from ..engine.errors import DataError, PhotoError
from ..engine.labelled.sample import Masks, Sample
from ..engine.pictures import photo, preprocess
from ..engine.pictures.preprocess import Prepared


@dataclass(frozen=True, eq=False)
class Case:
    """One picture with its labels in the square's pixels."""

    sample: Sample
    prepared: Prepared
    masks: Masks | None
    fovea: tuple[float, float] | None
    width: float  # of the whole photo, in the square's pixels


def prepare(sample: Sample, geometry: preprocess.Geometry) -> Case:
    """Read and prepare one picture; masks follow by nearest neighbour. Raises DataError with the picture's name."""
    try:
        picture = photo.load(sample.image)
        prepared = preprocess.prepare(picture, geometry)
    except PhotoError as error:
        raise DataError(f"{sample.image}: {error}") from None
    return moved(sample, prepared, picture.width)


def moved(sample: Sample, prepared: Prepared, width: int) -> Case:
    """A prepared picture with its labels in its own pixels. Args: width: of the photo, px."""
    placement, drawn, size = prepared.placement, sample.read_masks(), prepared.image.shape[0]
    masks = None
    if drawn is not None:
        cup = placement.square_mask(drawn.cup, size) if drawn.cup is not None else None
        masks = Masks(placement.square_mask(drawn.disc, size), cup)
    fovea = placement.to_square(*sample.fovea) if sample.fovea else None
    return Case(sample, prepared, masks, fovea, width * placement.scale_x)
