"""Pictures that a candidate is shown at the gate: photographs as the engine prepares them, or views of a single one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import PhotoError, SettingsError
from ..pictures import photo, preprocess
from ..pictures.photo import Photo
from ..spotting import Spotter

ON_VIEWS = "self-check"  # what an engine's facts call it where the views alone were shown


def prepared(paths: Sequence[Path], geometry: preprocess.Geometry) -> NDArray[np.uint8]:
    """The photographs as the engine prepares them, uint8 (N, S, S, 3); those that cannot be read are left out.

    Raises: SettingsError where none can.
    """

    def photos() -> Iterator[Photo]:
        for path in paths:
            with suppress(PhotoError):
                yield photo.load(path)

    return _squares(photos(), geometry)


def _squares(photos: Iterable[Photo], geometry: preprocess.Geometry) -> NDArray[np.uint8]:
    """As `prepared`; where the square lies around the disc, those in which the first look sees one."""
    images: list[NDArray[np.uint8]] = []
    with ExitStack() as stack:
        spotter = None if geometry.diameters is None else stack.enter_context(Spotter())
        for own in photos:
            with suppress(PhotoError):
                square = spotter.around(own, geometry) if spotter else preprocess.prepare(own, geometry)
                images += [] if square is None else [square.image]
    if not images:
        what = "" if geometry.diameters is None else " in which a disc is seen"
        raise SettingsError(f"the gate needs at least one readable photograph{what}; name data sets that have some")
    return np.stack(images)


def views(geometry: preprocess.Geometry) -> NDArray[np.uint8]:
    """32 views of the photograph that comes with the package, uint8 (32, S, S, 3), for where no other pictures are at hand."""
    data = (resources.files("funduscope.examples") / "retina_cc0.jpg").read_bytes()
    return views_of(photo.load(data), geometry)


def views_of(photograph: Photo, geometry: preprocess.Geometry, count: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    """Prepared views of one photograph, uint8 (count, S, S, 3): of either eye, turned by up to 20 degrees, 0.8 to 1.1
    times as large, 0.7 to 1.2 times as bright."""
    rng, made = np.random.default_rng(seed), list[Photo]()
    height, width = photograph.pixels.shape[:2]
    for _ in range(count):
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-20, 20), rng.uniform(0.8, 1.1))
        seen = cv2.warpAffine(photograph.pixels, turn, (width, height), flags=cv2.INTER_AREA)
        seen = seen[:, ::-1] if rng.random() < 0.5 else seen
        bright = np.clip(seen * rng.uniform(0.7, 1.2), 0, 255).astype(np.uint8)
        made.append(Photo(bright, photograph.name))
    return _squares(made, geometry)
