"""The multi-task network as it is deployed: probabilities and maps, and what its contract says of how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from ...engine.errors import ModelError
from ...engine.readers.multitask import RulesPart
from ..system import Deployment, output
from . import job
from .config import Config
from .networks import MAPS, Deployed, MultiTaskUNet

CALIBRATED = frozenset({"rules", "glaucoma_threshold"})
D = TypeVar("D", bound=Deployed)
_HEADS = (*(f"heads.{name}" for name in MAPS), "glaucoma")
_FIRST, _CHANNELS = "network.encoder.features.0.weight", 64  # VGG-16's first convolution, and its channels at width 1


def deploy(settings: Config, state: Mapping[str, Any], calibration: Mapping[str, Any]) -> Deployment:
    """See `system.System`."""
    side = settings.geometry.size
    fields = {
        "outputs": [*(output(name, side, side) for name in MAPS), output("glaucoma")],
        "rules": RulesPart(**calibration["rules"]),
        "glaucoma_threshold": calibration["glaucoma_threshold"],
    }
    return Deployment(Deployed(job.from_checkpoint(settings, state["network"])).eval(), fields)


def from_weights(weights: Mapping[str, Tensor]) -> Deployed:
    """The network with the weights of an exported fp32 file (see `export.onnx.weights_of`); BatchNorm stays folded.

    For comparisons where no checkpoint is at hand. Raises: ModelError where they are those of another network.
    """
    return loaded(Deployed(unfilled(weights)), weights)


def unfilled(weights: Mapping[str, Tensor]) -> MultiTaskUNet:
    """The network that has such weights. Raises: ModelError."""
    if _FIRST not in weights:
        raise ModelError(
            "the weights do not have the names that `funduscope export` gives those of a multi-task network"
        )
    return MultiTaskUNet(weights[_FIRST].shape[0] / _CHANNELS, 0.0)


def loaded(network: D, weights: Mapping[str, Tensor]) -> D:
    """A network with an exported file's weights; heads whose outputs are not deployed are not in it. Raises: ModelError."""
    network = network.folded()
    known = {name: weights[name] for name in network.state_dict() if name in weights}
    unused = tuple(f"network.{part}" for part in _HEADS if part.split(".")[-1] not in network.outputs)
    missing = network.load_state_dict(known, strict=False).missing_keys
    if missing := [name for name in missing if not name.startswith(unused)]:
        raise ModelError(f"weights of the multi-task network are not there: {', '.join(missing[:3])}")
    return network.eval()
