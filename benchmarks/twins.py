"""The embedded networks in torch again, with the weights of their files, to be measured beside them. Needs torch."""

from __future__ import annotations

import itertools
from math import prod
from typing import get_args

import torch
from torch import nn

from funduscope.engine import contract
from funduscope.engine.errors import ModelError
from funduscope.engine.readers.classifier import Classifier
from funduscope.engine.readers.disc import Disc
from funduscope.export import onnx as export
from funduscope.training.classifier import config, networks
from funduscope.training.classifier.pooled import Pooled
from funduscope.training.classifier.quality import Quality
from funduscope.training.disc import networks as disc
from funduscope.training.multitask.deploy import from_weights, loaded, unfilled


def twin(model: contract.Model) -> nn.Module:
    """A network that gives the outputs of an fp32 file, in their order.

    Raises:
        ModelError: The file holds a network that `funduscope train` does not make.
    """
    document = model.contract
    stored = export.weights_of(model)
    if isinstance(document, Disc):
        return loaded(disc.Deployed(unfilled(stored)), stored)
    if not isinstance(document, Classifier):
        return from_weights(stored)
    cells = prod(int(size) for own in document.outputs if own.name == "glaucoma_map" for size in own.shape[1:])
    temperatures = {name: part.temperature for name, part in document.decisions.items()}

    def built(settings: config.Network) -> nn.Module:
        network = networks.Classifier(settings)
        quality = None
        if document.quality is not None and isinstance(network.network, Pooled):
            quality = Quality(network.network.width, graded=document.quality.image_quality)
        return networks.Deployed(network, temperatures, quality).folded()

    # the file does not say which network it is: the one that has these weights
    for architecture, given, severity, lesions in itertools.product(
        get_args(config.Architecture), get_args(config.Input), (False, True), (True, False)
    ):
        if lesions and not architecture.startswith("efficientnet"):
            continue
        settings = config.Network(
            architecture=architecture, input=given, hidden=0, dropout=0, severity=severity, imagenet="", lesions=lesions
        )
        with torch.device("meta"):  # shapes alone
            fits = _fitting(built(settings), stored, cells)
        if fits:
            made = built(settings)
            made.load_state_dict(_fitting(made, stored, cells))
            return made.eval()
    raise ModelError(f"{model.path}: no network that is trained here has its weights")


def _fitting(network: nn.Module, stored: dict[str, torch.Tensor], cells: int) -> dict[str, torch.Tensor]:
    """All weights of a network out of a file's; nothing where one is not there. cells: of a heat map."""
    found = {}
    for name, own in network.state_dict().items():
        if name in stored and stored[name].shape == own.shape:
            found[name] = stored[name]
        else:  # the last layers look at every cell of the heat map: exported as convolutions, under names of their own
            alike = [value for value in stored.values() if value.shape == (*own.shape, 1, 1)]
            if len(alike) != 1:
                return {}
            found[name] = alike[0][..., 0, 0] / (cells if name.endswith("evidence.weight") else 1)
    return found
