"""EfficientNet-Lite 0 to 2: inverted residuals of depthwise convolutions, ReLU6, no squeeze-and-excitation.

Layers carry the names of the package efficientnet-lite-pytorch (`_blocks.3._expand_conv.weight`), under which Google's
ImageNet weights are to be had in PyTorch. Those were trained with TensorFlow's padding, which is kept: a stride of two pads
more at the end than at the start.
Sources: Tan and Le, ICML 2019; TensorFlow's efficientnet/lite.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pixels import Scaling
from .pooled import Pooled, Seen, grid_of

Lite = Literal["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"]

SCALING = Scaling((127 / 255,) * 3, (128 / 255,) * 3)  # (x - 127) / 128 of bytes
_NORM_EPS = 1e-3  # TensorFlow's; the weights were trained with it
_RARE = -3.0  # the logit of a lesion in a cell before anything is learned
_STEM, _HEAD = 32, 1280  # the lite networks do not widen these


class Stage(NamedTuple):
    """Blocks of one kind; the first strides and changes the width."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
_SCALES: dict[Lite, tuple[float, float]] = {  # of width and depth
    "efficientnet-lite0": (1.0, 1.0),
    "efficientnet-lite1": (1.0, 1.1),
    "efficientnet-lite2": (1.1, 1.2),
}


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: as little as gives ceil(side / stride), the odd pixel at the end."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(channels, out, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            (top, bottom), (left, right) = (_padding(int(n), self.kernel_size[0], self.stride[0]) for n in x.shape[2:])
            x = F.pad(x, (left, right, top, bottom))
        if self.groups == 1 or x.device.type != "cpu" or x.dtype != torch.bfloat16:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):  # torch's gradient of a depthwise convolution is slow in bf16 there
            return super().forward(x.float()).to(x.dtype)


def _padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)
    return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_NORM_EPS)


class InvertedResidual(nn.Module):
    """1x1 to a wider space, a depthwise convolution there, 1x1 back without activation; beside the identity if it fits."""

    def __init__(self, channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        wide = channels * stage.expansion
        self.residual = stride == 1 and channels == stage.channels
        self.expands = stage.expansion > 1
        if self.expands:
            self._expand_conv = SameConv2d(channels, wide, 1)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SameConv2d(wide, wide, stage.kernel, stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = SameConv2d(wide, stage.channels, 1)
        self._bn2 = _norm(stage.channels)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        wide = F.relu6(self._bn1(self._depthwise_conv(wide)))
        out: Tensor = self._bn2(self._project_conv(wide))
        return x + out if self.residual else out

    def pairs(self) -> list[tuple[str, str]]:
        """See `Pooled.conv_norm_pairs`."""
        expand = [("_expand_conv", "_bn0")] if self.expands else []
        return [*expand, ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]


class EfficientNetLite(Pooled):
    """3.4 (lite0), 4.2 (lite1) or 4.9 million parameters before the last layer; a map's cells are 32 px apart.

    With `lesions`, it also finds lesions of so many kinds on a grid twice as fine, and what it finds speaks in each logit:
    a kind's logits are pooled with their own softmax as weights, so that the surest cells count, and enter by a linear
    layer. Each cell's part of that sum is added to the class-activation map, whose mean thus stays the logit.

    `windows` holds for pictures whose side is a multiple of 32: of an odd side, padding is the same on both ends.
    """

    last = "_fc"

    def __init__(self, kind: Lite, channels: int, outputs: int, dropout: float, lesions: int = 0) -> None:
        super().__init__(dropout)
        width, depth = _SCALES[kind]
        self._conv_stem = SameConv2d(channels, _STEM, 3, 2)
        self._bn0 = _norm(_STEM)
        self._blocks = nn.ModuleList()
        strided, before = [(3, 2)], _STEM
        for k, stage in enumerate(_STAGES):
            inner = 0 < k < len(_STAGES) - 1  # the lite networks do not deepen the first and the last
            own = stage._replace(
                repeats=math.ceil(depth * stage.repeats) if inner else stage.repeats,
                channels=_width(width * stage.channels),
            )
            if own.stride == 2:
                self._coarsest, self.finer_channels = len(self._blocks), before
                strided.append((own.kernel, own.stride))
            for repeat in range(own.repeats):
                self._blocks.append(InvertedResidual(before, own, 1 if repeat else own.stride))
                before = own.channels
        self.windows = tuple((kernel, stride, (kernel - stride) // 2) for kernel, stride in strided)
        self._conv_head = SameConv2d(before, _HEAD, 1)
        self._bn1 = _norm(_HEAD)
        self._fc = nn.Linear(_HEAD, outputs)
        self.lesions = nn.Conv2d(self.finer_channels, lesions, 1) if lesions else None
        self.evidence = nn.Linear(lesions, outputs, bias=False) if lesions else None

    def begin(self) -> None:
        """Before any training: lesions are rare, and nothing speaks of them yet."""
        if self.lesions is not None and self.evidence is not None:
            nn.init.constant_(cast(Tensor, self.lesions.bias), _RARE)
            nn.init.zeros_(self.evidence.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.learn(x)[0]

    def learn(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (N, K), and where lesions are looked for, of each kind and cell (N, L, h, w), in logits; None without."""
        finer, last = self.levels(x)
        logits = self.pooled(last)
        if self.lesions is None or self.evidence is None:
            return logits, None
        found: Tensor = self.lesions(finer)
        return logits + self.evidence(_parts(found).sum(dim=(2, 3))), found

    def seen(self, x: Tensor) -> Seen:
        if self.lesions is None or self.evidence is None:
            return super().seen(x)
        finer, last = self.levels(x)
        found: Tensor = self.lesions(finer)
        parts = _parts(found)
        cells = parts.shape[2] * parts.shape[3]
        coarse = F.conv2d(last, self._fc.weight[:, :, None, None], self._fc.bias)
        maps = F.interpolate(coarse, scale_factor=2.0) + F.conv2d(parts, cells * self.evidence.weight[:, :, None, None])
        return Seen(maps, last.mean(dim=(2, 3)), torch.sigmoid(found).amax(dim=1, keepdim=True))

    def map_grid(self) -> tuple[float, float]:
        return super().map_grid() if self.lesions is None else self.finer_grid()

    def extract(self, x: Tensor) -> Tensor:
        return self.levels(x)[1]

    def levels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features of twice as fine a grid (N, `finer_channels`, 2 h, 2 w), and the last."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        finer = x
        for k, block in enumerate(self._blocks):
            if k == self._coarsest:
                finer = x
            x = block(x)
        return finer, F.relu6(self._bn1(self._conv_head(x)))

    def finer_grid(self) -> tuple[float, float]:
        """As `map_grid`, of the finer features."""
        return grid_of(self.windows[:-1])

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        inner = [
            (f"_blocks.{k}.{conv}", f"_blocks.{k}.{norm}")
            for k, block in enumerate(self._blocks)
            if isinstance(block, InvertedResidual)
            for conv, norm in block.pairs()
        ]
        return [("_conv_stem", "_bn0"), *inner, ("_conv_head", "_bn1")]


def _parts(found: Tensor) -> Tensor:
    """Each cell's part of a kind's pooled logit: its logit, weighted by the softmax over all cells. (N, L, h, w), float32."""
    flat = found.float().flatten(2)
    return (torch.softmax(flat, dim=2) * flat).view(found.shape)


def _width(channels: float) -> int:
    """To the nearest multiple of 8, but never below nine tenths."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
