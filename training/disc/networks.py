"""The network of the second look: the multi-task one, of which all but the fovea is exported."""

from __future__ import annotations

from ..multitask import networks

MAPS = ("disc", "cup")
OUTPUTS = (*MAPS, "glaucoma")


class Deployed(networks.Deployed):
    """The network as it is exported."""

    outputs = OUTPUTS
