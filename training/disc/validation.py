"""Validation of the second look where the first one that ships has shown it to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from ...engine.labelled.sample import Sample
from ...engine.readers.disc import mean_of_both
from ...engine.spotting import Spotter, rules_of_first
from ...postprocess import anatomy
from ...postprocess.anatomy import Rules
from ..multitask import validation
from ..multitask.networks import MultiTaskUNet
from ..multitask.validation import Maps
from .config import Config
from .crops import Crop, seen
from .networks import Deployed

CURVES = {"disc_dice": "disc Dice", "cup_dice": "cup Dice", "vcdr_error": "vCDR error", "auc": "AUC, network alone"}


def crops(settings: Config, samples: Iterable[Sample]) -> list[Crop]:
    """The squares of those pictures in which the first look sees a disc."""
    geometry = settings.preparation(settings.geometry.size).build()
    with Spotter() as spotter:
        found = [seen(sample, geometry, spotter) for sample in samples]
    return [crop for crop in found if crop]


def predict(network: MultiTaskUNet, squares: Sequence[Crop], first_share: float, device: torch.device) -> list[Maps]:
    """The mean of both looks' maps for each square, in fp32, with this look's score of glaucoma."""
    images = [own.case.prepared.image for own in squares]
    outputs = validation.predict(Deployed(network), images, device)
    return [
        mean_of_both((own.case.prepared, maps), own.first, first_share)
        for maps, own in zip(outputs, squares, strict=True)
    ]


def vcdrs_before(squares: Sequence[Crop]) -> list[float | None]:
    """The first look's vCDR of each."""
    rules = rules_of_first()
    return [anatomy.measure(own.first[1], rules).vcdr for own in squares]


def measure(squares: Sequence[Crop], maps: Sequence[Maps], rules: Rules) -> dict[str, dict[str, float]]:
    """As of the multi-task network, without what is the first look's."""
    found = validation.measure([own.case for own in squares], maps, rules, vcdrs_before(squares))
    own = {name: {key: value for key, value in row.items() if key in CURVES} for name, row in found.items()}
    return {name: row for name, row in own.items() if row}
