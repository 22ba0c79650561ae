"""From uint8 RGB to a classifier's input, inside the graph: one definition for training and deployment."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import config


class Scaling(NamedTuple):
    """What a network's colours are normalised with, RGB in [0, 1]: (x - mean) / std."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Scaling((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CELLS = 32  # of local contrast, across the picture
_INSIDE = 0.06  # brightest channel of a pixel inside the field of view, after prenorm
_GAIN = 4.0  # of local contrast


class Pixels(nn.Module):
    """From uint8 RGB to the network's input, always in fp32 and exact: rounding at random would break parity.

    grey: luma as 16-bit fixed point, then prenorm: divided by the picture's own maximum, times 255, truncated; over 255.
    colour: prenorm by the maximum of all channels, then `scaling`.
    contrast: colour, and behind it three channels of local contrast: four times the difference from the surroundings,
    which are a Gaussian mean over 1/32 of the side inside the field of view (after Graham's winning entry to Kaggle's
    diabetic retinopathy challenge, 2015). Small lesions stand out in it whatever the light.
    """

    def __init__(self, kind: config.Input, scaling: Scaling = IMAGENET) -> None:
        super().__init__()
        self.kind = kind
        self.scaling = scaling
        self.mean: Tensor
        self.std: Tensor
        mean, std = torch.tensor(scaling.mean), torch.tensor(scaling.std)
        if kind == "contrast":
            mean, std = torch.cat([mean, torch.full((3,), 0.5)]), torch.cat([std, std])
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, -1, 1, 1), persistent=False)

    @property
    def channels(self) -> int:
        """Of what `forward` returns."""
        return {"grey": 1, "colour": 3, "contrast": 6}[self.kind]

    def forward(self, images: Tensor) -> Tensor:
        """images: uint8 (N, S, S, 3) RGB. Returns: float32 (N, channels, S, S); grey in [0, 1], else normalised."""
        x = images.float().permute(0, 3, 1, 2)  # float first: TensorRT cannot transpose uint8
        if self.kind == "grey":
            x = torch.floor((19595 * x[:, 0:1] + 38470 * x[:, 1:2] + 7471 * x[:, 2:3] + 32768) / 65536)  # below 2^24
        brightest = x.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1)
        x = torch.floor((255 * x + 0.5) / brightest) / 255  # + .5: no quotient of whole numbers lies on a step
        if self.kind == "grey":
            return x
        if self.kind == "contrast":
            with torch.autocast(x.device.type, enabled=False):
                x = torch.cat([x, self._contrast(x)], dim=1)
        return (x - self.mean) / self.std

    def _contrast(self, x: Tensor) -> Tensor:
        """Local contrast in [0, 1], a half where there is none and outside the field of view. Args: (N, 3, S, S)."""
        inside = (x.amax(dim=1, keepdim=True) > _INSIDE).float()
        blurred, spread = _matrices(x.shape[-1], x.device)
        counts = blurred @ inside @ blurred.T
        mean = blurred @ (x * inside) @ blurred.T / counts.clamp(min=1e-3)
        surroundings = spread @ mean @ spread.T
        return (_GAIN * (x - surroundings) * inside + 0.5).clamp(0, 1)


def _matrices(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What makes of a picture's rows those of its cells, and of these the picture's again, float32 (cells, side) and (side,
    cells): the means of cells, blurred with a Gaussian of one cell (zeros beyond the edge); and linear interpolation."""
    cells = torch.arange(_CELLS, device=device)
    of_pixel = (torch.arange(side, device=device) + 0.5) * (_CELLS / side)
    apart = (of_pixel.floor() - cells[:, None]).abs()
    binomial = torch.tensor([6.0, 4.0, 1.0, 0.0], device=device) / 16
    blurred = binomial[apart.clamp(max=3).long()] * (_CELLS / side)
    spread = (1 - ((of_pixel - 0.5).clamp(0, _CELLS - 1)[:, None] - cells).abs()).clamp(0, 1)
    return blurred, spread
