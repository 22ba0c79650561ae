"""Which labelled pictures a candidate is shown at the gate."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..gate.pictures import ON_VIEWS, prepared, views
from ..pictures import preprocess
from . import dataset


def chosen(data: Sequence[Path], split: str | None, count: int = 64) -> list[Path]:
    """About so many pictures of a split (None: of all), an equal part of each data set, drawn with a fixed seed: an index is
    often sorted by label."""
    per_set, paths = -(-count // len(data)), list[Path]()
    for folder in data:
        own = [sample.image for sample in dataset.load(folder) if split in (None, sample.split)]
        paths += random.Random(0).sample(own, min(per_set, len(own)))
    return paths


def shown(data: Sequence[Path] | None, split: str, geometry: preprocess.Geometry) -> NDArray[np.uint8]:
    """What a candidate is shown: pictures of a split of the data sets, or the views."""
    return prepared(chosen(data, split), geometry) if data else views(geometry)


def how(data: Sequence[Path] | None) -> str:
    """What the gate's word rests on."""
    return f"verified on {', '.join(folder.resolve().name for folder in data)}" if data else ON_VIEWS
