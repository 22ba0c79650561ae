"""What a training step of the classifier is: one batch, one loss over all labelled targets, one step of Adam."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...engine.errors import DataError
from ...engine.labelled import dataset
from ...engine.labelled.sample import Sample
from .. import losses, pretrained
from ..ahead import ahead
from . import batches, config, lesions, validation
from .config import Config, SetSettings
from .efficientnet import EfficientNetLite
from .networks import OUTPUTS, Classifier

Pair = tuple[Sample, SetSettings]


class ClassifierJob:
    """See `system.Job`. pictures: training and validation pictures that another run over the same data has prepared."""

    curves: ClassVar = {
        "glaucoma_auc": "AUC of glaucoma",
        "glaucoma_f1": "F1 of glaucoma",
        "referable_dr_auc": "AUC of referable retinopathy",
        "referable_dr_f1": "F1 of referable retinopathy",
        "any_dr_auc": "AUC of any retinopathy",
    }

    def __init__(self, settings: Config, root: Path) -> None:
        self.settings = settings
        self.samples = load_samples(settings, root)
        self.drawings = lesions.load(settings.lesions, root, self.samples) if settings.lesions is not None else []
        self.pictures: tuple[list[batches.Picture], list[batches.Picture]] | None = None

    def start(self, device: torch.device, folder: Path | None) -> None:
        settings, plan = self.settings, self.settings.schedule
        network = Classifier(settings.network)
        if settings.network.imagenet and folder is not None:
            network.load_imagenet(pretrained.locate(settings.network.imagenet, folder))
        if settings.network.start and folder is not None:
            network.load_whole(pretrained.locate(settings.network.start, folder))
        self.pictures = self.pictures or prepared(settings, self.samples)
        taught, self.held = self.pictures
        self._drawer = batches.Batches(taught, settings, network.targets)
        self._drawn = None
        if settings.lesions is not None:
            assert isinstance(network.network, EfficientNetLite)  # the configuration says so
            self._drawn = lesions.Drawings(
                lesions.prepare_all(self.drawings, settings.preparation(settings.geometry.cache).build()),
                settings,
                network.network.finer_grid(),
            )
        self._device = device
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.Adam(network.parameters(), lr=plan.lr, weight_decay=plan.weight_decay)

    def stream(self, first: int, last: int) -> Iterator[batches.Batch]:
        return ahead(self._batch, first, last, self.settings.data.workers)

    def _batch(self, step: int) -> batches.Batch:
        batch = self._drawer.of_step(step)
        return batch if self._drawn is None else self._drawn.added(batch, step)

    def step(self, batch: batches.Batch, lr: float) -> dict[str, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        images, targets, has = (
            part.to(self._device, non_blocking=True) for part in (batch.images, batch.targets, batch.has)
        )
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.settings.schedule.bf16):
            logits, found = self.network.learn(images)  # (N + M, K), (N + M, L, h, w)
        loss = (elementwise(self.settings.loss, logits[: len(targets)], targets) * has).sum()  # the source's reduction
        values: dict[str, float] = {self.settings.loss.name: float(loss.detach()) / max(1, int(has.sum()))}
        if batch.lesions is not None and found is not None and self.settings.lesions is not None:
            own = lesions.loss(found[len(targets) :], batch.lesions.to(self._device))
            values["lesions"] = float(own.detach().mean())
            loss = loss + self.settings.lesions.weight * own.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return values

    def validate(self) -> tuple[dict[str, dict[str, float]], float]:
        figures = validation.measure(
            [p.sample for p in self.held], validation.predict(self.network, self.held, self._device)
        )
        return figures, validation.score(figures, self.settings.schedule.select)


def elementwise(loss: config.Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """The configured loss, one value per element. Args: logits, targets (N, K)."""
    match loss:
        case config.ExpUwbce():
            return losses.exp_uwbce(logits, targets, loss.positive, loss.negative, loss.linear_from)
        case config.Uwbce():
            return losses.uwbce(logits, targets, loss.positive, loss.negative)
        case config.Bce():
            return losses.uwbce(logits, targets, 1.0, 1.0)
        case config.Focal():
            return losses.focal(logits, targets, loss.gamma)


def prepared(settings: Config, samples: list[Pair]) -> tuple[list[batches.Picture], list[batches.Picture]]:
    """Training pictures at the cache's size, validation pictures at the network's."""
    sides, workers = settings.geometry, settings.data.workers
    parts = (("train", sides.cache), ("val", sides.size))
    taught, held = (
        batches.prepare_all(
            [pair for pair in samples if pair[0].split == split], settings.preparation(size).build(), workers
        )
        for split, size in parts
    )
    check_classes([picture.sample for picture in taught], "train")
    check_classes([picture.sample for picture in held], "val")
    return taught, held


def load_samples(settings: Config, root: Path) -> list[Pair]:
    """All pictures of the configured sets, with only the labels that their set is meant to teach.

    Raises: DataError where a target lacks one of its classes in the training or the validation split.
    """
    pairs: list[Pair] = []
    for set_settings in settings.data.sets:
        for sample in dataset.load(root / set_settings.path):
            kept = sample.teaching(set_settings.weights)
            if kept.glaucoma is not None or kept.dr_grade is not None:
                pairs.append((kept, set_settings))
    for split in ("train", "val"):
        check_classes([sample for sample, _ in pairs if sample.split == split], split)
    return pairs


def check_classes(samples: Sequence[Sample], split: str) -> None:
    """Raises DataError where a target lacks one of its classes among the pictures of a split."""
    for target in OUTPUTS:
        classes = {sample.diseased(target) for sample in samples} - {None}
        if len(classes) < 2:
            raise DataError(
                f"the split {split} needs pictures with and without {target}; it has labels {classes or 'none'}"
            )


def from_checkpoint(settings: Config, weights: Mapping[str, Any]) -> Classifier:
    """The network of a checkpoint, on the CPU."""
    network = Classifier(settings.network)
    network.load_state_dict(weights)
    return network
