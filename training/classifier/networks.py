"""The classifier's networks: small CNN, AlexNet, ResNet-18, DenseNet-121, on pictures whose grey is computed in the graph.

EfficientNet-Lite stands in a file of its own.

Layers carry torchvision's names (`features.0.weight`, `layer1.0.conv1.weight`, `features.denseblock1...`), so weights
trained elsewhere load from a local file; a first layer of three channels folds to one.
Sources: the poster "Multi-task deep network for ophthalmology screening on fundus images"; Krizhevsky, arXiv 1404.5997;
He et al., CVPR 2016; Huang et al., CVPR 2017.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.diseases import DISEASES
from ...engine.errors import SettingsError
from ...engine.labelled.sample import LESIONS
from .. import pretrained, system
from . import config
from .efficientnet import SCALING as EFFICIENTNET_SCALING
from .efficientnet import EfficientNetLite
from .pixels import IMAGENET, Pixels, Scaling
from .pooled import Pooled
from .quality import Quality

OUTPUTS: tuple[str, ...] = tuple(DISEASES)  # of the deployed network, in this order
SEVERITY = ("severe_dr", "proliferative_dr")  # learned beside them where the configuration says so
_NO_LESIONS = {
    name for name, disease in DISEASES.items() if disease.dr_grade is None
}  # retinopathy alone shows in them
MAPS = tuple(f"{name}_map" for name in OUTPUTS)

_BODY = ("features", "conv1", "bn1", "layer", "_conv", "_bn", "_blocks")  # of all but the last layers
_FIRST_NORM = {
    "conv1.weight": "bn1.running_mean",
    "features.conv0.weight": "features.norm0.running_mean",
    "_conv_stem.weight": "_bn0.running_mean",
}
_OF_LESIONS = ("network.lesions.", "network.evidence.")  # the layers that a network has only if it learns lesions
_SHARED = 0.6  # of pretrained weights that see colour and contrast, so that the sum stays about as large


class SmallCnn(Pooled):
    """The baseline: five blocks of convolution, BatchNorm, ReLU and pooling. The first convolution strides as well."""

    last = "fc"
    windows = ((3, 2, 1), *((2, 2, 0),) * 4)

    def __init__(self, channels: int, outputs: int, dropout: float) -> None:
        super().__init__(dropout)
        self.blocks = nn.Sequential()
        for k, out in enumerate((16, 32, 64, 128, 256)):
            block = OrderedDict(
                conv=nn.Conv2d(channels, out, 3, stride=1 if k else 2, padding=1, bias=False),
                norm=nn.BatchNorm2d(out),
                relu=nn.ReLU(inplace=True),
            )
            if k < 4:
                block["pool"] = nn.MaxPool2d(2)
            self.blocks.append(nn.Sequential(block))
            channels = out
        self.fc = nn.Linear(channels, outputs)

    def extract(self, x: Tensor) -> Tensor:
        return self.blocks(x)  # type: ignore[no-any-return]

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        return [(f"blocks.{k}.conv", f"blocks.{k}.norm") for k in range(5)]


def _alexnet_features(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 64, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
    )


class AlexNet(nn.Module):
    """AlexNet as torchvision has it: five convolutions, three dense layers of `hidden` units. It has no heat map."""

    def __init__(self, channels: int, outputs: int, dropout: float, hidden: int) -> None:
        super().__init__()
        self.features = _alexnet_features(channels).append(nn.MaxPool2d(3, 2))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 6 * 6, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K)."""
        return self.classifier(average_pool(self.features(x), 6).flatten(1))  # type: ignore[no-any-return]

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        return []


class PooledAlexNet(Pooled):
    """AlexNet's convolutions without the last pooling, then global average pooling: 2.5 million parameters, and heat maps."""

    last = "fc"
    windows = ((11, 4, 2), (3, 2, 0), (3, 2, 0))

    def __init__(self, channels: int, outputs: int, dropout: float) -> None:
        super().__init__(dropout)
        self.features = _alexnet_features(channels)
        self.fc = nn.Linear(256, outputs)

    def extract(self, x: Tensor) -> Tensor:
        return self.features(x)  # type: ignore[no-any-return]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the identity, or beside a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        beside = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + beside)


class ResNet18(Pooled):
    """ResNet-18: four stages of two basic blocks."""

    last = "fc"
    windows = ((7, 2, 3), *((3, 2, 1),) * 4)

    def __init__(self, channels: int, outputs: int, dropout: float) -> None:
        super().__init__(dropout)
        self.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        before = 64
        for stage, out in enumerate((64, 128, 256, 512), start=1):
            blocks = nn.Sequential(BasicBlock(before, out, 1 if stage == 1 else 2), BasicBlock(out, out, 1))
            setattr(self, f"layer{stage}", blocks)
            before = out
        self.fc = nn.Linear(before, outputs)

    def extract(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        pairs = [("conv1", "bn1")]
        for name, module in self.named_modules():
            if isinstance(module, BasicBlock):
                pairs += [(f"{name}.conv{k}", f"{name}.bn{k}") for k in (1, 2)]
                if module.downsample is not None:
                    pairs.append((f"{name}.downsample.0", f"{name}.downsample.1"))
        return pairs


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 1x1 to 4 x growth, BatchNorm, ReLU, 3x3 to growth; the input stays in front of the output."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, new], dim=1)


class DenseNet121(Pooled):
    """DenseNet-121: four dense blocks of 6, 12, 24 and 16 layers, growth 32."""

    last = "classifier"
    windows = ((7, 2, 3), (3, 2, 1), *((2, 2, 0),) * 3)

    def __init__(self, channels: int, outputs: int, dropout: float, growth: int = 32) -> None:
        super().__init__(dropout)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        width = 2 * growth
        layers["conv0"] = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        layers["norm0"] = nn.BatchNorm2d(width)
        layers["relu0"] = nn.ReLU(inplace=True)
        layers["pool0"] = nn.MaxPool2d(3, 2, 1)
        for number, depth in enumerate((6, 12, 24, 16), start=1):
            block = OrderedDict[str, nn.Module](
                (f"denselayer{k + 1}", DenseLayer(width + k * growth, growth)) for k in range(depth)
            )
            layers[f"denseblock{number}"] = nn.Sequential(block)
            width += depth * growth
            if number < 4:
                transition = OrderedDict[str, nn.Module](
                    norm=nn.BatchNorm2d(width),
                    relu=nn.ReLU(inplace=True),
                    conv=nn.Conv2d(width, width // 2, 1, bias=False),
                    pool=nn.AvgPool2d(2),
                )
                layers[f"transition{number}"] = nn.Sequential(transition)
                width //= 2
        layers["norm5"] = nn.BatchNorm2d(width)
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(width, outputs)

    def extract(self, x: Tensor) -> Tensor:
        return F.relu(self.features(x))

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        inner = [name for name, module in self.named_modules() if isinstance(module, DenseLayer)]
        return [("features.conv0", "features.norm0"), *((f"{name}.conv1", f"{name}.norm2") for name in inner)]


def average_pool(x: Tensor, side: int) -> Tensor:
    """Adaptive average pooling to (N, C, side, side) as two matrix products, which export for every size.

    Cell k averages the rows floor(k h / side) to ceil((k + 1) h / side), as torch's adaptive_avg_pool2d does.
    """

    def weights(length: int) -> Tensor:
        matrix = torch.zeros(side, length)
        for k in range(side):
            start, stop = k * length // side, -(-(k + 1) * length // side)
            matrix[k, start:stop] = 1 / (stop - start)
        return matrix.to(x)

    if x.shape[2:] == (side, side):
        return x
    return weights(int(x.shape[2])) @ x @ weights(int(x.shape[3])).T


class Heat(NamedTuple):
    """logits: (N, K). maps: where they come from, (N, K, h, w): class-activation maps, in logits. Of a network that learns
    lesions, those of retinopathy are multiplied by how likely a lesion is in each cell, as the map alone is warm far around one.
    features: (N, C), pooled."""

    logits: Tensor
    maps: Tensor
    features: Tensor


class Classifier(nn.Module):
    """uint8 pictures in, logits per named target out."""

    def __init__(self, settings: config.Network) -> None:
        super().__init__()
        self.architecture = settings.architecture
        self.targets = OUTPUTS + (SEVERITY if settings.severity else ())
        lite = settings.architecture.startswith("efficientnet")
        self.pixels = Pixels(settings.input, EFFICIENTNET_SCALING if lite else IMAGENET)
        channels, outputs, dropout = self.pixels.channels, len(self.targets), settings.dropout
        self.network: Pooled | AlexNet
        match settings.architecture:
            case "small-cnn":
                self.network = SmallCnn(channels, outputs, dropout)
            case "alexnet" if settings.hidden:
                self.network = AlexNet(channels, outputs, dropout, settings.hidden)
            case "alexnet":
                self.network = PooledAlexNet(channels, outputs, dropout)
            case "resnet18":
                self.network = ResNet18(channels, outputs, dropout)
            case "densenet121":
                self.network = DenseNet121(channels, outputs, dropout)
            case "efficientnet-lite0" | "efficientnet-lite1" | "efficientnet-lite2":
                kinds = len(LESIONS) if settings.lesions else 0
                self.network = EfficientNetLite(settings.architecture, channels, outputs, dropout, kinds)
        self.apply(_initialise)
        if isinstance(self.network, EfficientNetLite):
            self.network.begin()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """images: uint8 (N, S, S, 3) RGB. Returns: logits (N,) by target."""
        logits = self.network(self.pixels(images))
        return {name: logits[:, k] for k, name in enumerate(self.targets)}

    def learn(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """What training asks for. images: as in `forward`.

        Returns: logits (N, K), and of a network that learns lesions their maps (N, L, h, w) in logits.
        """
        x = self.pixels(images)
        return self.network.learn(x) if isinstance(self.network, EfficientNetLite) else (self.network(x), None)

    def heat(self, images: Tensor) -> Heat:
        """What is deployed of a network with maps. images: as in `forward`."""
        assert isinstance(self.network, Pooled)
        maps, features, lesions = self.network.seen(self.pixels(images))
        logits = maps.mean(dim=(2, 3))
        if lesions is not None:
            shown = torch.tensor([name not in _NO_LESIONS for name in self.targets]).to(maps).view(1, -1, 1, 1)
            maps = maps * (shown * lesions + (1 - shown))
        return Heat(logits, maps, features)

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        """See `Pooled.conv_norm_pairs`."""
        return [(f"network.{conv}", f"network.{norm}") for conv, norm in self.network.conv_norm_pairs()]

    def load_whole(self, file: Path) -> None:
        """Start from the whole of an earlier network, last layer included, as `weights.write` writes it. A layer for lesions
        that it has not learned starts anew, one that is not wanted here is left.

        Raises: SettingsError for another network's.
        """
        stored, own = pretrained.load(file), self.state_dict()
        stored = {k: v for k, v in stored.items() if k in own or not k.startswith(_OF_LESIONS)}
        wanted = {
            k for k in own if not k.endswith("batches_tracked") and (k in stored or not k.startswith(_OF_LESIONS))
        }
        wrong = {k for k in wanted if k not in stored or stored[k].shape != own[k].shape} | (stored.keys() - own.keys())
        if wrong:
            names = ", ".join(sorted(wrong)[:3])
            raise SettingsError(f'{file}: is not of this network ({names} differ); set network.start to ""')
        self.load_state_dict(stored, strict=False)

    def load_imagenet(self, file: Path) -> None:
        """Start from weights in torchvision's names (EfficientNet's package's), see `pretrained.load`; the last layer stays.

        Raises: SettingsError for others.
        """
        stored = pretrained.load(file)
        ours: Mapping[str, Tensor] = self.network.state_dict()
        first = next(name for name in ours if name.endswith("weight"))  # the first convolution
        channels = ours[first].shape[1]
        if channels == 1 and first in stored and stored[first].shape[1] == 3:
            stored |= _folded(stored, first, self.pixels.scaling)
        if channels == 6 and first in stored and stored[first].shape[1] == 3:  # contrast is looked at as colour is
            stored[first] = _SHARED * torch.cat([stored[first]] * 2, dim=1)
        last = list(ours)[-2:]  # weight and bias
        usable = {k: v for k, v in stored.items() if k in ours and k not in last and ours[k].shape == v.shape}
        body = {k for k in ours if k.startswith(_BODY) and not k.endswith("batches_tracked")}
        if missing := sorted(body - usable.keys()):
            raise SettingsError(
                f"{file}: lacks {', '.join(missing[:3])} in the names and shapes of {self.architecture}"
            )
        self.network.load_state_dict(usable, strict=False)


def _folded(stored: Mapping[str, Tensor], first: str, scaling: Scaling) -> dict[str, Tensor]:
    """The first convolution, trained on normalised RGB, for grey in [0, 1]: sums over the channels of weight / deviation.

    What the mean took off goes into the bias, or, for a convolution without one, into the running mean of its BatchNorm.
    """
    scaled = stored[first] / torch.tensor(scaling.std).view(1, 3, 1, 1)
    offset = (scaled * torch.tensor(scaling.mean).view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    folded = {first: scaled.sum(dim=1, keepdim=True)}
    bias = first.removesuffix("weight") + "bias"
    norm = _FIRST_NORM.get(first, "")
    if bias in stored:
        folded[bias] = stored[bias] - offset
    elif norm in stored:
        folded[norm] = stored[norm] + offset
    return folded


class Deployed(system.Deployed):
    """The network as it is exported: calibrated probabilities, heat maps and quality where the network has them."""

    def __init__(self, network: Classifier, temperatures: Mapping[str, float], quality: Quality | None = None) -> None:
        super().__init__()
        self.network, self.quality = network, quality
        self.temperatures: Tensor
        self.register_buffer("temperatures", torch.tensor([temperatures[n] for n in OUTPUTS]), persistent=False)
        maps = MAPS if isinstance(network.network, Pooled) else ()
        self.outputs = OUTPUTS + maps + (() if quality is None else quality.outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: uint8 (N, S, S, 3) RGB.

        Returns: `outputs`: probabilities (N,) in [0, 1], then maps (N, h, w) in calibrated logits, then what `quality` says of
        the picture (N,) in [0, 1], float32.
        """
        count = len(OUTPUTS)
        if not isinstance(self.network.network, Pooled):
            logits = self.network.network(self.network.pixels(images))
            return tuple(torch.sigmoid(logits[:, :count] / self.temperatures).unbind(1))
        logits, maps, features = self.network.heat(images)
        maps = maps[:, :count] / self.temperatures[:, None, None]
        seen = () if self.quality is None else torch.sigmoid(self.quality(images, features)).unbind(1)
        return (*torch.sigmoid(logits[:, :count] / self.temperatures).unbind(1), *maps.unbind(1), *seen)

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        return [(f"network.{conv}", f"network.{norm}") for conv, norm in self.network.conv_norm_pairs()]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
