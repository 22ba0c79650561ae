"""The network of the second look: the multi-task one, of which disc and cup alone are used."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import system
from ..multitask.networks import MultiTaskUNet

OUTPUTS = ("disc", "cup")


class Deployed(system.Deployed):
    """The network as it is exported: maps in [0, 1] under the contract's output names."""

    outputs = OUTPUTS

    def __init__(self, network: MultiTaskUNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: uint8 (N, S, S, 3). Returns: disc and cup (N, S, S), float32 in [0, 1]."""
        logits = self.network(images, OUTPUTS)
        return tuple(torch.sigmoid(logits[name]) for name in OUTPUTS)

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        return [(f"network.{conv}", f"network.{norm}") for conv, norm in self.network.conv_norm_pairs()]
