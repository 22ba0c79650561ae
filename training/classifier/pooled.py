"""Networks that end in global average pooling: their class-activation maps cost next to nothing.

Source: Zhou et al., CVPR 2016.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class Seen(NamedTuple):
    """All that a network sees: maps (N, K, h, w) in logits; features (N, C), pooled; and how likely a lesion is in each of the
    maps' cells, (N, 1, h, w) in [0, 1], or None where none is looked for."""

    maps: Tensor
    features: Tensor
    lesions: Tensor | None = None


class Pooled(nn.Module, ABC):
    """A network that ends in global average pooling and one linear layer.

    Pooling and linear layer commute: the linear layer at every position is the class-activation map, and the map's mean
    is the logit. So a heat map costs one 1x1 convolution.
    """

    last: str  # name of the linear layer, which takes the pooled features
    windows: tuple[tuple[int, int, int], ...]  # kernel, stride, padding of the layers that move the grid, first to last

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)

    @property
    def width(self) -> int:
        """Of the pooled features."""
        linear: nn.Linear = getattr(self, self.last)
        return linear.in_features

    @abstractmethod
    def extract(self, x: Tensor) -> Tensor:
        """The last features, (N, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K)."""
        return self.pooled(self.extract(x))

    def pooled(self, features: Tensor) -> Tensor:
        """Logits (N, K) of the last features."""
        linear: nn.Module = getattr(self, self.last)
        return linear(self.drop(features.mean(dim=(2, 3))))  # type: ignore[no-any-return]

    def seen(self, x: Tensor) -> Seen:
        """Class-activation maps, whose mean is what `forward` returns, and what else the network sees."""
        linear: nn.Linear = getattr(self, self.last)
        features = self.extract(x)
        return Seen(F.conv2d(features, linear.weight[:, :, None, None], linear.bias), features.mean(dim=(2, 3)))

    def map_grid(self) -> tuple[float, float]:
        """Stride and offset of the map's cells in pixels: cell k is centred on offset + k * stride."""
        return grid_of(self.windows)

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        """Names of each convolution whose BatchNorm follows it at once, so that an export can fold the one into the other."""
        return []


def grid_of(windows: Sequence[tuple[int, int, int]]) -> tuple[float, float]:
    """Stride and offset, in pixels, of the cells behind layers of kernel, stride and padding."""
    stride, offset = 1.0, 0.0
    for kernel, step, padding in windows:
        offset += stride * ((kernel - 1) / 2 - padding)
        stride *= step
    return stride, offset
