"""Losses from logits, one value per picture, in fp32 whatever the network ran in.

Source: Pascal et al., Sci Rep 2022; the focal loss with its lost minus sign put back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def bce_map(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, mean over pixels. Args: logits (N, S, S); target (N, S, S) in [0, 1]. Returns (N,)."""
    return F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none").mean(dim=(1, 2))


def l1_map(logits: Tensor, target: Tensor) -> Tensor:
    """L1 between the sigmoid and the target, mean over pixels. Args: (N, S, S). Returns (N,).

    The source's text sums over pixels, its run took the mean; a sum would weigh 65,536 times more beside the others.
    """
    return (torch.sigmoid(logits.float()) - target.float()).abs().mean(dim=(1, 2))


def focal(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss, -(1 - p_t)^gamma log p_t. Args: logits (N,); target (N,) 0 or 1. Returns (N,)."""
    signed = torch.where(target > 0.5, logits.float(), -logits.float())  # p_t = sigmoid(signed)
    return torch.sigmoid(-signed) ** gamma * F.softplus(-signed)


def labelled_mean(values: Tensor, has: Tensor) -> Tensor:
    """Mean over the labelled pictures. Args: values (N,); has: bool (N,), at least one True."""
    return values[has].mean()


FOVEA_LOSSES: dict[str, Loss] = {"l1": l1_map, "bce": bce_map}


def of_tasks(fovea: str) -> dict[str, Loss]:
    """The loss of each task; `fovea` names one of FOVEA_LOSSES."""
    return {"glaucoma": focal, "disc": bce_map, "cup": bce_map, "fovea": FOVEA_LOSSES[fovea]}
