"""Quality of the picture: a linear layer on what the classifier's network sees and on how bright the picture is. `faults` fits
it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...engine.readers.quality import FAULTS, IMAGE_QUALITY, SCORES

_INSIDE = 0.1  # brightest channel of a pixel inside the field of view
_DIM, _BURNT = 0.2, 0.98
MEASURES = 10  # of brightness


def brightness(images: Tensor) -> Tensor:
    """How bright pictures are. images: uint8 (N, S, S, 3) RGB. Returns: float32 (N, MEASURES) in [0, 1]: the highest values of
    all and of green; how much is inside the field of view; there, the mean of the brightest channel and of each; and the shares
    that are dim, burnt out in any channel, and in green."""
    x = images.float().permute(0, 3, 1, 2) / 255
    brightest, green = x.amax(dim=1, keepdim=True), x[:, 1:2]
    inside = (brightest > _INSIDE).float()
    area = inside.sum(dim=(2, 3)).clamp(min=1)
    parts = [brightest, x, *(own.float() for own in (brightest < _DIM, brightest > _BURNT, green > _BURNT))]
    shares = [(part * inside).sum(dim=(2, 3)) / area for part in parts]
    return torch.cat([brightest.amax(dim=(2, 3)), green.amax(dim=(2, 3)), inside.mean(dim=(2, 3)), *shares], dim=1)


class Quality(nn.Module):
    """Logits (N, outputs). width: of the network's features; graded: whether it also says how good a picture is as a whole."""

    def __init__(self, width: int, *, graded: bool) -> None:
        super().__init__()
        self.outputs = SCORES if graded else tuple(FAULTS)
        self.linear = nn.Linear(width + MEASURES, len(self.outputs))

    def forward(self, images: Tensor, features: Tensor) -> Tensor:
        """images: uint8 (N, S, S, 3) RGB; features: (N, width), pooled."""
        logits: Tensor = self.linear(torch.cat([features, brightness(images)], dim=1))
        return logits

    @classmethod
    def of(cls, weights: Mapping[str, Any]) -> Self:
        """With weights as `faults.fit` gives them."""
        own = [weights[name] for name in SCORES if name in weights]
        weight, bias = (torch.tensor([row[part] for row in own]) for part in ("weight", "bias"))
        made = cls(weight.shape[1] - MEASURES, graded=IMAGE_QUALITY in weights)
        made.linear.load_state_dict({"weight": weight, "bias": bias})
        return made
