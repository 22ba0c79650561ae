"""Validation of the second look where the first one that ships has shown it to, with that one's own score of glaucoma."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from ...engine.labelled.sample import Sample
from ...engine.spotting import Spotter
from ...postprocess.anatomy import Rules
from ..multitask import validation
from ..multitask.networks import MultiTaskUNet
from ..multitask.validation import Maps
from .config import Config
from .crops import Crop, seen
from .networks import Deployed

CURVES = {"disc_dice": "disc Dice", "cup_dice": "cup Dice", "vcdr_error": "vCDR error"}


def crops(settings: Config, samples: Iterable[Sample]) -> list[Crop]:
    """The squares of those pictures in which the first look sees a disc."""
    geometry = settings.preparation(settings.geometry.size).build()
    with Spotter() as spotter:
        found = [seen(sample, geometry, spotter) for sample in samples]
    return [crop for crop in found if crop]


def predict(network: MultiTaskUNet, squares: Sequence[Crop], device: torch.device) -> list[Maps]:
    """The outputs for each square, in fp32, with the first look's score."""
    images = [own.case.prepared.image for own in squares]
    outputs = validation.predict(Deployed(network), images, device)
    return [
        {**maps, "glaucoma": np.asarray(own.network, np.float32)} for maps, own in zip(outputs, squares, strict=True)
    ]


def measure(squares: Sequence[Crop], maps: Sequence[Maps], rules: Rules) -> dict[str, dict[str, float]]:
    """As of the multi-task network, without what is the first look's."""
    found = validation.measure([own.case for own in squares], maps, rules)
    own = {name: {key: value for key, value in row.items() if key in CURVES} for name, row in found.items()}
    return {name: row for name, row in own.items() if row}
