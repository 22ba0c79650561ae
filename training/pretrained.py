"""Weights that were trained elsewhere, from a local file, in torchvision's names."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from ..engine.errors import SettingsError

_PACKAGE = "package:"
_OLD_DENSE = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def load(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .pth file as torch.save writes them, by name, in fp32.

    DenseNet's file as torchvision hosts it has `norm.1` and `conv.1` for its layers' `norm1` and `conv1`; both serve.
    Raises: SettingsError for a file that cannot be read or holds anything else.
    """
    from safetensors.torch import load_file

    find(file)
    try:
        safe = file.suffix == ".safetensors"
        stored = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
        return {_OLD_DENSE.sub(r"\1\2", name): tensor.float() for name, tensor in stored.items()}
    except Exception as error:  # either library raises whatever it meets; all of it means: not such a file
        cause = type(error).__name__
        raise SettingsError(
            f"{file}: the weights cannot be read ({cause}); give a .safetensors file, or a .pth file of tensors by name"
        ) from error


def locate(name: str, folder: Path) -> Path:
    """The file that a configuration names: relative to `folder`, or the .pth file inside an installed package.

    A package's code is not run. Raises: SettingsError where there is no such file or package.
    """
    if not name.startswith(_PACKAGE):
        find(folder / name)
        return folder / name
    package = name.removeprefix(_PACKAGE)
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise SettingsError(f"network.imagenet: {package} is not installed; pip install '.[pretrained]'") from None
    weights = [file for file in files if file.suffix == ".pth"]
    if len(weights) != 1:
        raise SettingsError(f"network.imagenet: {package} holds {len(weights)} .pth files; name the file itself")
    return Path(str(weights[0].locate()))


def find(file: Path) -> None:
    """Raises SettingsError where a configuration names a file that is not there."""
    if not file.exists():
        raise SettingsError(
            f"network.imagenet: no such file: {file}; docs/training.md says where to get it, and an empty string starts untrained"
        )
