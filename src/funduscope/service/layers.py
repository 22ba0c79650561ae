"""What is drawn of a picture, each part on its own: to be laid over the photo, or left out."""

from __future__ import annotations

import base64
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..engine import drawing
from ..engine.errors import PhotoError
from ..engine.pictures.photo import Photo
from ..engine.results import Result, Screening

_QUALITY = 95  # of a photo as JPEG


def of(result: Result, photo: Photo | None) -> dict[str, Any]:
    """Contours and fovea in the photo's pixels, and heat maps as PNGs of its shape, clear where there is none.

    Args:
        result: Of a rejected picture there is nothing to draw.
        photo: Of the result; without it there is no heat, which lies on the retina alone.
    """
    if not isinstance(result, Screening):
        return {"contours": {}, "fovea": None, "heat": {}}
    maps = {} if photo is None else drawing.heat_maps(result)
    contours = {"disc": result.contour("disc"), "cup": result.contour("cup")}
    return {
        "contours": {name: points.round(2).tolist() for name, points in contours.items() if len(points)},
        "fovea": result.fovea and [round(value, 2) for value in result.fovea],
        "heat": {
            disease: _png(drawing.encoded(drawing.heat_layer(photo, heat), ".png"))
            for disease, heat in maps.items()
            if photo is not None
        },
    }


def _png(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def drawn(result: Screening, wanted: str) -> Response:
    """One drawing as PNG. Args: wanted: a disease's heat, "" for the contours. Raises HTTPException: 422: no such heat map."""
    photo = result.seen()
    if not wanted:
        return Response(drawing.encoded(drawing.contoured(photo, result), ".png"), media_type="image/png")
    maps = drawing.heat_maps(result)
    if wanted not in maps:
        raise HTTPException(422, f"there is no such heat map of this picture; there are: {', '.join(maps) or 'none'}")
    return Response(drawing.encoded(drawing.heated(photo, maps[wanted]), ".png"), media_type="image/png")


def shown(photo: Photo) -> Response:
    """The whole photo as a JPEG, which every browser shows. Raises HTTPException: 422: it is damaged."""
    try:
        return Response(drawing.encoded(photo.pixels, ".jpg", _QUALITY), media_type="image/jpeg")
    except PhotoError as error:
        raise HTTPException(422, str(error)) from None
