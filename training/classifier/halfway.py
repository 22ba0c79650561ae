"""The mean of a run's network and of the weights that it started from, which may hold better on other cameras than either.

python -m funduscope.training.classifier.halfway RUN FILE.safetensors    RUN/best.pt -> the mean, in its place

Source: Wortsman et al., CVPR 2022, "Robust fine-tuning of zero-shot models".
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ...engine.errors import SettingsError
from .. import pretrained, train
from . import job, lesions
from .config import Config
from .efficientnet import EfficientNetLite
from .networks import Classifier

_STEPS, _RATE = 400, 3e-3  # of the layer that finds lesions
_PICTURES = 200  # augmented ones that it learns from


def halfway(run: Path, file: Path) -> Path:
    """Put the mean in the place of `run`'s best checkpoint.

    Lesions that the run alone has learned speak half as loud in it, and the layer that finds them is fitted anew, as the mean's
    features are others than the run's.

    Raises:
        SettingsError: The run is no classifier's, or the weights are another network's.
        DataError: The run's data are not to be had.
    """
    settings, state = train.load_checkpoint(run / "best.pt")
    if not isinstance(settings, Config):
        raise SettingsError(f"{run}: is a run of {settings.kind}; halfway is for classifiers")
    start, mean = pretrained.load(file), dict[str, torch.Tensor]()
    for name, tensor in state["network"].items():
        before = start.get(name)
        if before is None:
            if not any(own in name for own in ("lesions", "evidence", "num_batches_tracked")):
                raise SettingsError(f"{file}: is not where {run} started: it has no {name}")
            before = torch.zeros_like(tensor) if "evidence" in name else tensor
        if before.shape != tensor.shape:
            raise SettingsError(f"{file}: is not where {run} started: {name} is of another shape")
        mean[name] = ((tensor.double() + before.double()) / 2).to(tensor.dtype)
    network = job.from_checkpoint(settings, mean).eval()
    if settings.lesions is not None:
        fit_lesions(network, settings)
    train.save({**state, "network": network.state_dict()}, run / "best.pt")
    return run / "best.pt"


def fit_lesions(network: Classifier, settings: Config) -> None:
    """Fit the layer that finds lesions, and it alone, to a network's features of augmented training pictures."""
    own, body = settings.lesions, network.network
    assert own is not None
    assert isinstance(body, EfficientNetLite)
    assert body.lesions is not None
    root = Path(settings.data.root)
    samples = lesions.load(own, root, job.load_samples(settings, root))
    pictures = lesions.prepare_all(samples, settings.preparation(settings.geometry.cache).build())
    drawn = [lesions.Drawings(pictures, settings, body.finer_grid()).batch(k) for k in range(_PICTURES // own.batch)]
    with torch.no_grad():
        features = torch.cat([body.levels(network.pixels(images))[0] for images, _ in drawn])
    targets = torch.cat([target for _, target in drawn])
    optimiser = torch.optim.Adam(body.lesions.parameters(), lr=_RATE)
    for _ in range(_STEPS):
        optimiser.zero_grad()
        lesions.loss(body.lesions(features), targets).mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()


if __name__ == "__main__":
    sys.stdout.write(f"{halfway(Path(sys.argv[1]), Path(sys.argv[2]))}\n")
