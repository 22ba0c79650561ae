"""What a model's contract says of where it comes from, gathered from a finished run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..engine.labelled.sample import Sample
from .settings import Set


def provenance(
    network: str,
    strategy: str,
    state: Mapping[str, Any],
    pairs: Sequence[tuple[Sample, Set]],
    figures: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """The part `training` of a contract. Args: network, strategy: in words; state: of the checkpoint; pairs: the pictures
    that could be prepared, with their sets; figures: of the validation split."""
    sets = {set_settings.path: set_settings for _, set_settings in pairs}
    counts = Counter(set_settings.path for sample, set_settings in pairs if sample.split == "train")
    return {
        "network": network,
        "strategy": strategy,
        "steps": state["step"],
        "device": state["device"],
        "data": [
            {"name": path, "pictures": counts[path], "terms": set_settings.terms} for path, set_settings in sets.items()
        ],
        "figures": figures,
    }
