"""What a camera that was never seen costs a classifier: trained on all sets, and without each in turn.

`python -m funduscope.training.classifier.leave_out CONFIG OUT DATASETS [MINUTES]` writes OUT/results.jsonl, from which
OUT/tables.md is made. It can be stopped, and goes on where it was.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...engine.errors import DataError, SettingsError
from ...engine.files import write_text
from ...engine.labelled import siting
from ...engine.labelled.sample import Sample
from ...engine.readers.point import OperatingPoint
from ...postprocess import metrics, scores
from .. import config as configs
from .. import train
from ..balance import equal_weights
from . import batches, calibrate, validation
from .config import Config
from .job import ClassifierJob, prepared
from .networks import OUTPUTS

_SITE, _DRAWS = 50, 40  # pictures that a site labels, and how often they are drawn
_ALL = "all"

Labelled = tuple[NDArray[np.float64], NDArray[np.int64]]  # logits and truth


def run(config_file: Path, out: Path, root: Path, minutes: float | None = None) -> str:
    """Train what is missing, then write and return the tables as Markdown.

    A set without which a disease has no sick or no healthy picture to learn from is not left out.
    Args: minutes: stop after about so long; call again to go on.
    Raises: SettingsError where the configuration is not that of a classifier, or `out` holds another's runs.
    """
    end = None if minutes is None else time.monotonic() + 60 * minutes
    base = configs.load(config_file)
    if not isinstance(base, Config):
        raise SettingsError(f"{config_file}: its kind must be classifier")
    root = root.resolve()
    base = train.with_root(base, root)
    train.make_folder(out)
    whole = ClassifierJob(base, root)
    size = base.preparation(base.geometry.size).build()
    shared: tuple[list[batches.Picture], list[batches.Picture]] | None = None
    rest: list[batches.Picture] = []
    for left in (_ALL, *(own.path for own in base.data.sets)):
        folder = out / left
        sets = [own for own in base.data.sets if own.path != left]
        settings = base.model_copy(update={"data": base.data.model_copy(update={"sets": sets})})
        if (folder / "logits.npz").exists():
            train.expect_same(folder / "best.pt", settings)
            continue
        try:
            job = ClassifierJob(settings, root)
        except DataError:
            continue
        if end is not None and time.monotonic() > end:
            return _tables(base, whole, out)
        if shared is None:  # the same pictures serve all
            shared = prepared(base, whole.samples)
            rest = batches.prepare_all(
                [pair for pair in whole.samples if pair[0].split != "val"], size, base.data.workers
            )
        job.pictures = tuple([p for p in part if p.settings.path != left] for part in shared)  # type: ignore[assignment]
        train.make_folder(folder)
        left_s = None if end is None else max(1.0, (end - time.monotonic()) / 60)
        resume = (folder / "last.pt").exists()
        if not train.run(job, folder, config_file.parent, resume=resume, device=torch.device("cpu"), minutes=left_s):
            return _tables(base, whole, out)
        job.network.load_state_dict(train.load_checkpoint(folder / "best.pt")[1]["network"])
        seen = [*shared[1], *(p for p in rest if p.sample.split == "test" or p.settings.path == left)]
        logits = validation.predict(job.network, seen, torch.device("cpu"))
        names = np.array([_name(base, p.sample) for p in seen])
        train.save_arrays(folder / "logits.npz", pictures=names, **logits)
        (folder / "last.pt").unlink()
    return _tables(base, whole, out)


def _tables(base: Config, job: ClassifierJob, out: Path) -> str:
    rows = [row for own in base.data.sets for row in _rows(job, own.path, out)]
    write_text(out / "results.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    lines = [
        "| disease | set | n | AUC, camera seen | never seen | sensitivity / specificity, seen | never seen | with "
        f"{_SITE} pictures of the site (or so many) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        rates = [f"{row[key][0]:.2f} / {row[key][1]:.2f}" for key in ("rates_seen", "rates_unseen")]
        site = row["rates_site"]
        rates.append(f"{site[0]:.2f} / {site[1]:.2f} ({site[2]:.0f})" if site else "")
        areas = f"{row['auc_seen']:.3f} | {row['auc_unseen']:.3f}"
        lines.append(f"| {row['target']} | {row['set']} | {row['n']} | {areas} | {' | '.join(rates)} |")
    page = "\n".join(lines) + "\n"
    write_text(out / "tables.md", page)
    return page


def _rows(job: ClassifierJob, name: str, out: Path) -> list[dict[str, Any]]:
    """What is known of one set left out: nothing before both its runs are done."""
    if not all((out / own / "logits.npz").exists() for own in (_ALL, name)):
        return []
    rows = []
    for target in OUTPUTS:
        if not any(s.diseased(target) is not None for s, own in job.samples if own.path == name):
            continue
        row: dict[str, Any] = {"set": name, "target": target}
        for key, own in (("seen", _ALL), ("unseen", name)):
            point = _point(job, out / own, target, without=None if own == _ALL else name)
            z, truth = _of(job, out / own, target, name, "test")
            z, cut = z / point["temperature"], scores.logit(point["points"]["balanced"]["threshold"])
            area = metrics.auc(z, truth)
            row |= {"n": len(z), f"auc_{key}": None if area is None else round(area.value, 4)}
            row[f"rates_{key}"] = _rates(z, truth, cut)
            if own == name:
                row["rates_site"] = _at_site(job, out / own, target, name, point, (z, truth))
        if row["auc_unseen"] is not None:
            rows.append(row)
    return rows


def _at_site(
    job: ClassifierJob, folder: Path, target: str, name: str, point: dict[str, Any], test: Labelled
) -> tuple[float, ...] | None:
    """Mean rates over draws of a site's pictures, out of those of the set's train and val splits, which were not seen; and how
    many it labels in the mean: 50, and more until it has enough of each class."""
    parts = [_of(job, folder, target, name, split) for split in ("train", "val")]
    z, truth = (np.concatenate(own) for own in zip(*parts, strict=True))
    z = z / point["temperature"]
    own = [OperatingPoint(at["threshold"], n, at["uncertain_logit"]) for n, at in point["points"].items()]
    rng, rates = np.random.default_rng(0), []
    for _ in range(_DRAWS):
        order = rng.permutation(len(z))
        sick, healthy = np.cumsum(truth[order]), np.cumsum(1 - truth[order])
        enough = np.flatnonzero(np.minimum(sick, healthy) >= siting.LEAST_OF_CLASS)
        if not enough.size:
            return None
        few = order[: max(_SITE, enough[0] + 1)]
        found = siting.decision(z[few], truth[few].astype(float), own)
        cut = scores.logit(found.points["balanced"].threshold) * found.temperature
        rates.append((*_rates(*test, cut), len(few)))
    return tuple(np.mean(rates, axis=0).round(4).tolist())


def _point(job: ClassifierJob, folder: Path, target: str, without: str | None) -> dict[str, Any]:
    """How a run's output is read, by the validation pictures of the sets that it has seen."""
    parts = [_of(job, folder, target, own.path, "val") for own in job.settings.data.sets if own.path != without]
    logits, truth = (np.concatenate(own) for own in zip(*parts, strict=True))
    weights = equal_weights([(k, y) for k, (_, own) in enumerate(parts) for y in own])
    return calibrate.decision(logits, truth, weights, None, job.settings.reading)[0]


def _of(job: ClassifierJob, folder: Path, target: str, name: str, split: str) -> Labelled:
    with np.load(folder / "logits.npz") as found:
        logits = dict(zip(found["pictures"], found[target], strict=True))
    pairs = [
        (logits[key], truth)
        for sample, own in job.samples
        if own.path == name and sample.split == split and (key := _name(job.settings, sample)) in logits
        if (truth := sample.diseased(target)) is not None
    ]
    return np.array([z for z, _ in pairs], np.float64), np.array([y for _, y in pairs], np.int64)


def _name(settings: Config, sample: Sample) -> str:
    """Of a picture, from the folder of the data sets."""
    return Path(os.path.relpath(sample.image, settings.data.root)).as_posix()


def _rates(z: NDArray[np.float64], truth: NDArray[np.int64], cut: float) -> tuple[float, float]:
    counts = metrics.Counts.at(cut, z, truth)
    return counts.sensitivity or 0.0, counts.specificity or 0.0


if __name__ == "__main__":
    config, to, data = (Path(own) for own in sys.argv[1:4])
    sys.stdout.write(run(config, to, data, float(sys.argv[4]) if sys.argv[4:] else None))
