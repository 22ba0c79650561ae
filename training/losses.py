"""Losses from logits, one value per picture, in fp32 whatever the network ran in.

Source: Pascal et al., Sci Rep 2022; the focal loss with its lost minus sign put back.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def bce_map(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, mean over pixels. Args: logits (N, S, S); target (N, S, S) in [0, 1]. Returns (N,)."""
    return F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none").mean(dim=(1, 2))


def bce_dice_map(logits: Tensor, target: Tensor) -> Tensor:
    """`bce_map` and half of 1 - soft Dice (Milletari et al., 3DV 2016). Args and returns as `bce_map`."""
    p, y = torch.sigmoid(logits.float()), target.float()
    both, whole = (p * y).sum(dim=(1, 2)), (p + y).sum(dim=(1, 2))
    return bce_map(logits, target) + 0.5 * (1 - (2 * both + 1) / (whole + 1))


def l1_map(logits: Tensor, target: Tensor) -> Tensor:
    """L1 between the sigmoid and the target, mean over pixels. Args: (N, S, S). Returns (N,).

    The source's text sums over pixels, its run took the mean; a sum would weigh 65,536 times more beside the others.
    """
    return (torch.sigmoid(logits.float()) - target.float()).abs().mean(dim=(1, 2))


def focal(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss, -(1 - p_t)^gamma log p_t. Args: logits, target: same shape, target 0 or 1. Returns: a value per element."""
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    signed = torch.where(target > 0.5, z, -z)  # p_t = sigmoid(signed)
    return torch.sigmoid(-signed) ** gamma * F.softplus(-signed)


def exp_uwbce(logits: Tensor, target: Tensor, positive: float, negative: float, linear_from: float) -> Tensor:
    """Exponential uneven-weight binary cross-entropy: W1 (exp(-log p) - 1) where y = 1, -W2 log(1 - p) where y = 0.

    In the logit z the first is W1 exp(-z), the second W2 softplus(z). The exponential is unbounded: beyond
    -z > linear_from it goes on linearly, value and gradient continuous, so that the worst misses keep their gradient.
    Args: logits, target: same shape, target 0 or 1; positive, negative: W1, W2. Returns: one value per element.
    Source: "Multi-task deep network for ophthalmology screening on fundus images" (poster).
    """
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    line = math.exp(linear_from) * (1 - z - linear_from)
    missed = torch.where(-z > linear_from, line, torch.clamp(-z, max=linear_from).exp())
    return torch.where(target > 0.5, positive * missed, negative * F.softplus(z))


def uwbce(logits: Tensor, target: Tensor, positive: float, negative: float) -> Tensor:
    """Uneven-weight binary cross-entropy, -W1 y log p - W2 (1 - y) log(1 - p); BCE at W = (1, 1). As `exp_uwbce`."""
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.where(target > 0.5, positive * F.softplus(-z), negative * F.softplus(z))


def ratio(logits: Tensor, target: Tensor) -> Tensor:
    """|vertical cup-to-disc ratio of the maps - target|; the disc's height is taken as it is, and learns nothing from it.

    A height is the mean of the two largest sums over a column, of maps twice as steep. Args: logits: of disc and cup
    (N, 2, S, S); target: (N,) in [0, 1]. Returns: (N,).
    """
    columns = torch.sigmoid(2 * logits.float()).sum(dim=2)  # (N, 2, S)
    disc, cup = columns.topk(2, dim=2).values.mean(dim=2).unbind(dim=1)
    return (cup / disc.detach().clamp(min=1.0) - target).abs()


def labelled_mean(values: Tensor, has: Tensor) -> Tensor:
    """Mean over the labelled pictures. Args: values (N,); has: bool (N,), at least one True."""
    return values[has].mean()


FOVEA_LOSSES: dict[str, Loss] = {"l1": l1_map, "bce": bce_map}
MASK_LOSSES: dict[str, Loss] = {"bce": bce_map, "bce+dice": bce_dice_map}


def of_tasks(fovea: str, masks: str = "bce") -> dict[str, Loss]:
    """The loss of each task. Args: fovea, masks: names of FOVEA_LOSSES and MASK_LOSSES."""
    drawn = MASK_LOSSES[masks]
    return {"glaucoma": focal, "disc": drawn, "cup": drawn, "fovea": FOVEA_LOSSES[fovea], "ratio": ratio}
