"""The multi-task U-Net: a VGG-16 encoder, one decoder, heads for disc, cup and fovea, glaucoma branched after the encoder.

Source: Pascal et al., Sci Rep 2022. A width multiplier gives the compact variants. Convolutions carry torchvision's
VGG-16 names (`encoder.features.0.weight` ...), so ImageNet features load at width 1; norms live in a list of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.errors import SettingsError, require
from .. import pretrained, system

TaskName = Literal["glaucoma", "disc", "cup", "fovea", "ratio"]
TASKS: tuple[TaskName, ...] = ("glaucoma", "disc", "cup", "fovea")  # the source's order of steps
LEARNED: tuple[TaskName, ...] = (
    *TASKS,
    "ratio",
)  # after them: what experts' cup-to-disc ratios teach where no cup is drawn
MAPS = ("disc", "cup", "fovea")
OUTPUTS = (*MAPS, "glaucoma")  # of the deployed network, in this order

_ENCODER = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # VGG-16: channels, convolutions per level
_DECODER = (256, 128, 64, 64)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class Encoder(nn.Module):
    """VGG-16's convolutions, each with BatchNorm; returns the features before each pooling, finest first."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.features = nn.ModuleDict()
        self.norms = nn.ModuleList()
        self.levels: list[list[str]] = []
        self.channels: list[int] = []
        index, channels = 0, 3
        for base, depth in _ENCODER:
            level = []
            for _ in range(depth):
                out = _scaled(base, width)
                self.features[str(index)] = nn.Conv2d(channels, out, 3, padding=1)
                self.norms.append(nn.BatchNorm2d(out))
                level.append(str(index))
                channels, index = out, index + 2  # torchvision counts the ReLU
            index += 1  # and the pooling
            self.levels.append(level)
            self.channels.append(channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        features, norms = [], iter(self.norms)
        for depth, level in enumerate(self.levels):
            if depth:
                x = F.max_pool2d(x, 2)
            for name in level:
                x = F.relu(next(norms)(self.features[name](x)), inplace=True)
            features.append(x)  # (N, C_depth, S / 2^depth, S / 2^depth)
        return features


class DecoderLevel(nn.Module):
    """Upsample twofold, concatenate the skip, two convolutions: in -> in / 2 -> out."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        half = channels // 2
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, half, 3, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.convolutions(torch.cat([x, skip], dim=1))  # type: ignore[no-any-return]


class MultiTaskUNet(nn.Module):
    """uint8 pictures in, logits per task out; computes only what the asked tasks need."""

    def __init__(self, width: float, dropout: float) -> None:
        super().__init__()
        self.encoder = Encoder(width)
        self.decoder = nn.ModuleList()
        channels = self.encoder.channels[-1]
        for base, skip in zip(_DECODER, self.encoder.channels[-2::-1], strict=True):
            out = _scaled(base, width)
            self.decoder.append(DecoderLevel(channels + skip, out))
            channels = out
        self.heads = nn.ModuleDict({name: nn.Conv2d(channels, 1, 1) for name in MAPS})
        self.glaucoma = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.encoder.channels[-1], 1))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.apply(_initialise)

    def forward(self, images: Tensor, tasks: Iterable[str] = TASKS) -> dict[str, Tensor]:
        """Logits of the asked tasks.

        Args: images: uint8 (N, S, S, 3) RGB, S a multiple of 16.
        Returns: glaucoma (N,); disc, cup, fovea (N, S, S); ratio: those of disc and cup, (N, 2, S, S).
        """
        wanted = tuple(tasks)
        x = images.float().permute(0, 3, 1, 2)  # (N, 3, S, S); float first: TensorRT cannot transpose uint8
        features = self.encoder((x / 255 - self.mean) / self.std)
        logits = {}
        if "glaucoma" in wanted:
            with torch.autocast(x.device.type, enabled=False):  # a score in bfloat16 has steps that can be seen
                pooled = features[-1].amax(dim=(2, 3)).to(self.glaucoma[1].weight)
                logits["glaucoma"] = self.glaucoma(pooled)[:, 0]  # (N,)
        if any(task != "glaucoma" for task in wanted):
            x = features[-1]
            for level, skip in zip(self.decoder, features[-2::-1], strict=True):
                x = level(x, skip)  # (N, C, S, S) after the last
            logits |= {name: self.heads[name](x)[:, 0] for name in MAPS if name in wanted}  # (N, S, S)
            if "ratio" in wanted:
                both = [logits[name] if name in logits else self.heads[name](x)[:, 0] for name in ("disc", "cup")]
                logits["ratio"] = torch.stack(both, dim=1)
        return logits

    def reach(self, task: str) -> list[nn.Parameter]:
        """The parameters that a task's loss reaches."""
        parts: list[nn.Module] = [self.encoder]
        parts += (
            [self.glaucoma] if task == "glaucoma" else [self.decoder, self.heads["cup" if task == "ratio" else task]]
        )
        return [parameter for part in parts for parameter in part.parameters()]

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        """Names of each convolution and the BatchNorm that follows it at once, for folding the one into the other."""
        pairs = [(f"encoder.features.{name}", f"encoder.norms.{k}") for k, name in enumerate(self.encoder.features)]
        for level in range(len(self.decoder)):
            pairs += [(f"decoder.{level}.convolutions.{k}", f"decoder.{level}.convolutions.{k + 1}") for k in (0, 3)]
        return pairs

    def load_imagenet(self, file: Path) -> None:
        """Start the encoder from VGG-16 features in torchvision's names, no BatchNorm. Raises SettingsError."""
        stored = pretrained.load(file)
        weights = {k.removeprefix("features."): v for k, v in stored.items() if k.startswith("features.")}
        ours: Mapping[str, Tensor] = self.encoder.features.state_dict()
        if weights.keys() != ours.keys() or any(weights[k].shape != ours[k].shape for k in ours):
            raise SettingsError(
                f"{file}: not VGG-16's convolutions in torchvision's names; width 1 starts from those only"
            )
        self.encoder.features.load_state_dict(weights)

    def load_exported(self, file: Path) -> None:
        """Go on from a model that was exported at this width.

        Its norms are folded into its convolutions, so ours only add its biases. They have no statistics of pictures, and must
        be frozen from the first step on (`schedule.freeze_batchnorm = 0`).
        Raises: SettingsError for another network's; MissingExtra.
        """
        onnx = require("onnx", "export")
        try:
            graph = onnx.load(file).graph
        except Exception as error:  # protobuf and the checker raise whatever they meet
            raise SettingsError(f"{file}: is no exported model ({type(error).__name__})") from error
        prefix = "network."
        found = {
            part.name.removeprefix(prefix): torch.tensor(onnx.numpy_helper.to_array(part), dtype=torch.float32)
            for part in graph.initializer
            if part.name.startswith(prefix)
        }
        stored, norms = self.state_dict(), dict(self.conv_norm_pairs())
        own = {name: value for name, value in stored.items() if name.rpartition(".")[0] not in norms.values()}
        shapes = {name: value.shape for name, value in own.items()}
        shapes |= {f"{conv}.bias": stored[f"{norm}.bias"].shape for conv, norm in norms.items()}
        wrong = [name for name, shape in shapes.items() if name not in found or found[name].shape != shape]
        if wrong:
            raise SettingsError(
                f"{file}: is not of this network ({wrong[0]} differs); start from one of the same width"
            )
        stored |= {name: found[name] for name in own}
        for conv, norm in norms.items():
            added = found[f"{conv}.bias"]
            nothing = nn.BatchNorm2d(len(added))  # mean 0, variance 1
            nothing.load_state_dict(
                nothing.state_dict() | {"weight": torch.full_like(added, math.sqrt(1 + nothing.eps)), "bias": added}
            )
            stored |= {f"{norm}.{name}": value for name, value in nothing.state_dict().items()}
            if f"{conv}.bias" in own:
                stored[f"{conv}.bias"] = torch.zeros_like(added)
        self.load_state_dict(stored)


class Deployed(system.Deployed):
    """The network as it is exported: probabilities and maps in [0, 1] under the contract's output names."""

    outputs: tuple[str, ...] = OUTPUTS

    def __init__(self, network: MultiTaskUNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: uint8 (N, S, S, 3). Returns: `outputs`: maps (N, S, S), glaucoma (N,), float32 in [0, 1]."""
        logits = self.network(images, self.outputs)
        return tuple(torch.sigmoid(logits[name]) for name in self.outputs)

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        return [(f"network.{conv}", f"network.{norm}") for conv, norm in self.network.conv_norm_pairs()]


def _scaled(channels: int, width: float) -> int:
    """Channels at a width, in multiples of 8 (vector units like them)."""
    return max(8, int(channels * width + 4) // 8 * 8)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
