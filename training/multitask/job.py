"""What a training step of the multi-task network is: batches per task, a round of MTL-IO, validation as it ships."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...engine.errors import DataError
from ...engine.labelled import dataset
from ...engine.labelled.sample import Sample
from ...postprocess.anatomy import Rules
from .. import cases, losses
from . import batches, validation
from .config import Config, Reading, SetSettings
from .mtl import MultiTaskOptimiser
from .networks import LEARNED, Deployed, MultiTaskUNet

Pair = tuple[Sample, SetSettings]
CURVES = {
    "disc_dice": "disc Dice",
    "cup_dice": "cup Dice",
    "vcdr_error": "vCDR error",
    "fovea_error": "fovea error (of width)",
    "auc": "AUC, network alone",
}


def uncalibrated(reading: Reading) -> Rules:
    """Rules before calibration has fitted them: half is half, and the vCDR is its own logit."""
    return Rules(0.5, 0.5, reading.fovea_mode, reading.fovea_min_peak, vcdr_coefficient=1.0, vcdr_intercept=0.0)


class MultiTaskJob:
    """See `system.Job`."""

    curves = CURVES

    def __init__(self, settings: Config, root: Path, samples: Sequence[Pair] | None = None) -> None:
        """samples: in place of all that the configuration names, such as with other splits."""
        self.settings = settings
        self._samples = load_samples(settings, root) if samples is None else list(samples)

    def start(self, device: torch.device, folder: Path | None) -> None:
        settings, plan = self.settings, self.settings.schedule
        network = MultiTaskUNet(settings.network.width, settings.network.dropout)
        if settings.network.imagenet and folder is not None:
            network.load_imagenet(folder / settings.network.imagenet)
        if settings.network.start and folder is not None:
            network.load_exported(folder / settings.network.start)
        self._drawer = batches.Batches(self.prepare(), settings)
        self._device = device
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._tasks = [task for task in LEARNED if task in settings.data.batch]
        self.optimiser = MultiTaskOptimiser(
            {task: network.reach(task) for task in self._tasks},
            plan.strategy,
            plan.lr,
            plan.weight_decay,
            {str(task): weight for task, weight in plan.loss_weights.items()},
        )

    def prepare(self) -> list[batches.Cached]:
        """Prepare what is validated on, and give what is trained on."""
        settings = self.settings
        held, cached = (
            settings.preparation(side).build() for side in (settings.geometry.size, settings.geometry.cache)
        )
        self._held = [cases.prepare(sample, held) for sample in held_out(self._samples)]
        return batches.cache_all(
            [(s, set_settings) for s, set_settings in self._samples if s.split == "train"],
            cached,
            settings.data.workers,
        )

    def stream(self, first: int, last: int) -> Iterator[dict[str, batches.Batch]]:
        return self._drawer.stream(first, last)

    def step(self, batch: dict[str, batches.Batch], lr: float) -> dict[str, float]:
        return self.optimiser.step(task_losses(self.network, batch, self.settings, self._device), lr)

    def validate(self) -> tuple[dict[str, dict[str, float]], float]:
        images = [case.prepared.image for case in self._held]
        maps = list(validation.predict(Deployed(self.network), images, self._device))
        figures = validation.measure(self._held, maps, uncalibrated(self.settings.reading))
        return figures, validation.score(figures, self._tasks)


def task_losses(
    network: MultiTaskUNet, batch: dict[str, batches.Batch], settings: Config, device: torch.device
) -> dict[str, Callable[[], Tensor]]:
    """Per task, a call that runs the network through what that task needs, on its batch, and returns its loss."""
    functions = losses.of_tasks(settings.schedule.fovea_loss, settings.schedule.mask_loss)
    together = settings.schedule.strategy == "sum" and settings.data.sampler == "shared"
    joint: dict[str, Tensor] = {}  # one forward pass serves all tasks where the parameters do not move in between

    def loss(task: str) -> Tensor:
        own_batch = batch[task].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.schedule.bf16):
            if together:
                joint.update(joint or network(own_batch.images, batch.keys()))
            logits = joint[task] if together else network(own_batch.images, (task,))[task]
        return losses.labelled_mean(functions[task](logits, own_batch.targets[task]), own_batch.has[task])

    return {task: lambda task=task: loss(task) for task, part in batch.items() if part.has[task].any()}  # type: ignore[misc]


def load_samples(settings: Config, root: Path) -> list[Pair]:
    """All pictures of the configured sets that teach at least one task; refuses what cannot be trained on."""
    pairs = []
    for set_settings in settings.data.sets:
        samples = dataset.load(root / set_settings.path)
        for sample in samples:
            sample.read_masks()  # a missing file or a foreign value is an error now, not in epoch 7
        pairs += [(s, set_settings) for s in samples if any(s.labels(task) for task in set_settings.weights)]
    expect_labels(settings.data.batch, pairs)
    return pairs


def expect_labels(tasks: Iterable[str], pairs: Sequence[Pair]) -> None:
    """Raises DataError where a task has no picture to learn from, or none to be validated on."""
    for task in tasks:
        taught = [
            s for s, set_settings in pairs if task in set_settings.weights and s.labels(task) and s.split == "train"
        ]
        if not taught:
            raise DataError(f"no training picture is labelled for the task {task}")
        if task == "glaucoma" and len({s.glaucoma for s in taught}) == 1:
            raise DataError("all training pictures have the same glaucoma label; both classes are needed")
        if task == "ratio":  # validation looks at what is drawn
            continue
        held = [s for s in held_out(pairs) if s.labels(task)]
        if not held or (task == "glaucoma" and len({s.glaucoma for s in held}) == 1):
            both = " of both classes" if task == "glaucoma" else ""
            raise DataError(f"the validation split needs full pictures labelled for the task {task}{both}")


def held_out(pairs: Sequence[Pair]) -> list[Sample]:
    """The validation pictures that show the full field: no camera gives crops of the disc."""
    return [sample for sample, set_settings in pairs if sample.split == "val" and set_settings.region == "full"]


def from_checkpoint(settings: Config, weights: Mapping[str, Any]) -> MultiTaskUNet:
    """The network of a checkpoint, on the CPU."""
    network = MultiTaskUNet(settings.network.width, settings.network.dropout)
    network.load_state_dict(weights)
    return network
