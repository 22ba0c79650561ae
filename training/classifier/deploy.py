"""The classifier as it is deployed: calibrated probabilities, heat maps, and what its contract says of how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...engine.readers.classifier import DecisionPart, MapGridPart
from ...engine.readers.quality import IMAGE_QUALITY, QualityPart
from ..system import Deployment, output
from . import job
from .config import Config
from .networks import MAPS, OUTPUTS, Deployed
from .pooled import Pooled
from .quality import Quality

CALIBRATED = frozenset({"decisions", "point", "disagreement"})


def deploy(settings: Config, state: Mapping[str, Any], calibration: Mapping[str, Any]) -> Deployment:
    """See `system.System`. Heat maps are there where the network has them."""
    decisions = {name: DecisionPart(**values) for name, values in calibration["decisions"].items()}
    network = job.from_checkpoint(settings, state["network"]).eval()
    outputs, grid = [output(name) for name in OUTPUTS], None
    if isinstance(network.network, Pooled):
        blank = torch.zeros(1, *[settings.geometry.size] * 2, 3, dtype=torch.uint8)
        with torch.inference_mode():
            side = int(network.heat(blank).maps.shape[-1])
        outputs += [output(name, side, side) for name in MAPS]
        stride, offset = network.network.map_grid()
        grid = MapGridPart(stride_px=stride, offset_px=offset)
    seen, quality, part = calibration.get("quality"), None, None
    if seen is not None:
        quality, graded = Quality.of(seen["weights"]), IMAGE_QUALITY in seen["weights"]
        part = QualityPart(thresholds=seen["thresholds"], least_px=seen["least_px"], image_quality=graded)
        outputs += map(output, part.outputs())
    fields = {
        "outputs": outputs,
        "decisions": decisions,
        "point": calibration["point"],
        "disagreement": calibration["disagreement"],
        "map_grid": grid,
        "quality": part,
    }
    temperatures = {name: own.temperature for name, own in decisions.items()}
    return Deployment(Deployed(network, temperatures, quality).eval(), fields)
