"""What a system is: one kind of model that can be trained, and all that the loop, calibration and export ask of it.

A system is a folder here and a line in `systems`; nothing else knows it by name.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..engine import contract
from .settings import BaseConfig

C = TypeVar("C", bound=BaseConfig)


class Job(Protocol):
    """What is trained. The constructor reads and checks the labels; `start` builds all that takes memory.

    Attributes:
        network: Is trained; there from `start` on.
        settings: The run's.
        curves: The validation figures to draw, by their titles.
        optimiser: What has `state_dict` and `load_state_dict`.
    """

    network: nn.Module

    @property
    def settings(self) -> BaseConfig: ...

    @property
    def curves(self) -> Mapping[str, str]: ...

    @property
    def optimiser(self) -> Any: ...

    def start(self, device: torch.device, folder: Path | None) -> None:
        """Build network, optimiser and pictures. folder: from where pretrained weights are named; None for a resumed run."""

    def stream(self, first: int, last: int) -> Iterator[Any]:
        """Batches of steps first .. last - 1."""

    def step(self, batch: Any, lr: float) -> dict[str, float]:
        """Descend once. Returns: each loss by its name."""

    def validate(self) -> tuple[dict[str, dict[str, float]], float]:
        """Figures of the validation split per set, and one number to choose a checkpoint by (the higher the better)."""


class Deployed(nn.Module, ABC):
    """A network as it is exported.

    Attributes:
        outputs: Names of what it returns, in order.
    """

    outputs: tuple[str, ...]

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: uint8 (N, S, S, 3) RGB. Returns: `outputs`, float32, each with N rows."""

    @abstractmethod
    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        """Names of each convolution that a BatchNorm follows at once, with that BatchNorm's."""

    def folded(self) -> Self:
        """A copy for inference with every BatchNorm that follows a convolution at once folded into it."""
        copied = copy.deepcopy(self).eval()
        for conv_name, norm_name in copied.conv_norm_pairs():
            convolution, norm = copied.get_submodule(conv_name), copied.get_submodule(norm_name)
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            copied.set_submodule(conv_name, fuse_conv_bn_eval(convolution, norm))
            copied.set_submodule(norm_name, nn.Identity())
        return copied


@dataclass(frozen=True)
class Deployment:
    """How a calibrated run is deployed.

    Attributes:
        network: Calibrated, in evaluation mode.
        fields: Of the contract: its outputs, and what its kind alone has.
    """

    network: Deployed
    fields: dict[str, Any]


@dataclass(frozen=True)
class System(Generic[C]):
    """One kind of model that can be trained.

    Attributes:
        config: Of its TOML file. Its `kind` is that of the contract, too, which a reader in `engine.readers` must know.
        job: Makes what `train` runs, from the configuration and the folder of the data sets. Raises SettingsError, DataError.
        calibrate: From the configuration, a checkpoint's state, the folder of the data sets, and what the calibration is to
            be fitted on (see the command), makes what goes into calibration.json. Raises SettingsError, DataError.
        calibrated: The keys of a calibration that `deploy` needs; `training` is in each.
        deploy: From the configuration, a checkpoint's state and a calibration, makes what is exported.
    """

    config: type[C]
    job: Callable[[C, Path], Job]
    calibrate: Callable[[C, Mapping[str, Any], Path, str], dict[str, Any]]
    calibrated: frozenset[str]
    deploy: Callable[[C, Mapping[str, Any], Mapping[str, Any]], Deployment]


def output(name: str, *sides: int) -> contract.Tensor:
    """An output as the contract states it, float32, of any batch."""
    return contract.Tensor(name=name, dtype="float32", shape=["batch", *sides])
