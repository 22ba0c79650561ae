"""The second look as it is deployed: maps, and what its contract says of how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...engine.readers.disc import DiscRulesPart
from ..multitask import job
from ..system import Deployment, output
from .config import Config
from .networks import MAPS, Deployed

CALIBRATED = frozenset({"rules", "first_share", "glaucoma_threshold"})


def deploy(settings: Config, state: Mapping[str, Any], calibration: Mapping[str, Any]) -> Deployment:
    """See `system.System`."""
    side = settings.geometry.size
    fields = {
        "outputs": [*(output(name, side, side) for name in MAPS), output("glaucoma")],
        "first_share": calibration["first_share"],
        "rules": DiscRulesPart(**calibration["rules"]),
        "glaucoma_threshold": calibration["glaucoma_threshold"],
    }
    return Deployment(Deployed(job.from_checkpoint(settings, state["network"])).eval(), fields)
