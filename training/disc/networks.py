"""The network of the second look: the multi-task one, of which disc and cup alone are exported."""

from __future__ import annotations

from ..multitask import networks

OUTPUTS = ("disc", "cup")


class Deployed(networks.Deployed):
    """The network as it is exported."""

    outputs = OUTPUTS
