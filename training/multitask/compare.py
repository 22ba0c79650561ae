"""The source's own comparison: a network for each task, the sum of the losses, alternating steps, and MTL-IO.

`python -m funduscope.training.multitask.compare CONFIG OUT DATASETS [FOLDS] [MINUTES]` trains each by k folds over the train and
val splits, with the test split fixed, and writes OUT/tables.md. It can be stopped, and goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...engine.errors import DataError, SettingsError
from ...engine.files import write_text
from ...engine.labelled.sample import Split
from ...postprocess import anatomy, metrics, scores
from .. import config as configs
from .. import train
from ..cases import Case, prepare
from . import calibrate, validation
from .config import Config
from .job import MultiTaskJob, Pair, load_samples, uncalibrated
from .networks import MAPS, TASKS, Deployed, TaskName
from .validation import Maps

STRATEGIES = ("sum", "alternating", "mtl-io")
_SINGLE = "one network a task"
COLUMNS = {  # figure: title, factor
    "disc_dice": ("disc Dice", 1.0),
    "cup_dice": ("cup Dice", 1.0),
    "vcdr_error": ("vCDR error", 1.0),
    "fovea_error": ("fovea error, % of width", 100.0),
    "auc": ("AUC, network", 1.0),
    "auc_vcdr": ("AUC, vCDR", 1.0),
    "auc_mean": ("AUC, mean of both", 1.0),
}


def run(config_file: Path, out: Path, root: Path, folds: int = 3, minutes: float | None = None) -> str:
    """Train what is missing, then write and return the table as Markdown: mean and standard deviation over the folds.

    Args: minutes: stop after about so long; call again to go on.
    Raises: SettingsError where the configuration is not that of a multi-task network with all four tasks, `folds` is less than
    2, or `out` holds another's runs.
    """
    end = None if minutes is None else time.monotonic() + 60 * minutes
    base = configs.load(config_file)
    if not isinstance(base, Config):
        raise SettingsError(f"{config_file}: its kind must be multi-task")
    if missing := [task for task in TASKS if task not in base.data.batch]:
        raise SettingsError(
            f"{config_file}: data.batch lacks {', '.join(missing)}; the comparison is of all four tasks"
        )
    if folds < 2:
        raise SettingsError(f"{folds} folds: a picture is trained on or validated on; take 2 or more")
    base = train.with_root(base, root.resolve())
    train.make_folder(out)
    pairs, ready = load_samples(base, root), dict[Path, Case]()
    for fold in range(folds):
        own = folded(pairs, fold, folds)
        for name, settings in variants(base):
            folder = _folder(out, fold, folds, name)
            if (folder / "maps.npz").exists():
                train.expect_same(folder / "best.pt", settings)
                continue
            left = None if end is None else (end - time.monotonic()) / 60
            if left is not None and left <= 0:
                return _table(base, pairs, ready, out, folds)
            taught = {one.path: one for one in settings.data.sets}
            job = MultiTaskJob(settings, root, [(s, taught[one.path]) for s, one in own if one.path in taught])
            if not trained(job, folder, config_file.parent, left):
                return _table(base, pairs, ready, out, folds)
            ready = ready or prepared(base, pairs)
            keep(job, folder, cases(ready, own))
    return _table(base, pairs, ready, out, folds)


def trained(job: MultiTaskJob, folder: Path, config_folder: Path, minutes: float | None) -> bool:
    """Train, or go on, to the end, with the best weights in the network then; False where the minutes were over before."""
    train.make_folder(folder)
    resume = (folder / "last.pt").exists()
    if not train.run(job, folder, config_folder, resume=resume, device=train.device_of("auto"), minutes=minutes):
        return False
    job.network.load_state_dict(train.load_checkpoint(folder / "best.pt")[1]["network"])
    return True


def keep(job: MultiTaskJob, folder: Path, shown: Sequence[Case]) -> None:
    """Write what the network says of pictures; its run is done then."""
    images, device = [case.prepared.image for case in shown], next(job.network.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=job.settings.schedule.bf16):  # maps are kept as bytes
        maps = list(validation.predict(Deployed(job.network), images, device))
    train.save_arrays(folder / "maps.npz", pictures=_names(shown), **_packed(maps))
    (folder / "last.pt").unlink()


def folded(pairs: Sequence[Pair], fold: int, folds: int) -> list[Pair]:
    """The pictures with the fold's part of all that are not of the test split as `val`, a patient's in one part."""

    def split(pair: Pair) -> Split:
        sample = pair[0]
        if sample.split == "test":
            return "test"
        who = f"{sample.set_name}/{sample.patient or sample.image.name}"
        return "val" if int(hashlib.sha256(who.encode()).hexdigest(), 16) % folds == fold else "train"

    return [(replace(pair[0], split=split(pair)), pair[1]) for pair in pairs]


def variants(base: Config) -> Iterator[tuple[str, Config]]:
    """Each network that is trained for a fold: one for each task alone, and all tasks by each strategy."""
    for task in TASKS:
        sets = [
            own.model_copy(update={"weights": {task: own.weights[task]}})
            for own in base.data.sets
            if task in own.weights
        ]
        data = base.data.model_copy(update={"batch": {task: base.data.batch[task]}, "sets": sets})
        yield task, base.model_copy(update={"data": data, "name": f"{base.name}-{task}"})
    for strategy in STRATEGIES:
        schedule = base.schedule.model_copy(update={"strategy": strategy})
        yield strategy, base.model_copy(update={"schedule": schedule, "name": f"{base.name}-{strategy}"})


def prepared(base: Config, pairs: Sequence[Pair]) -> dict[Path, Case]:
    """Every full picture, by its file."""
    geometry = base.preparation(base.geometry.size).build()
    return {s.image: prepare(s, geometry) for s, one in pairs if one.region == "full"}


def cases(ready: Mapping[Path, Case], pairs: Sequence[Pair]) -> list[Case]:
    """Full pictures that are not trained on, the fold's first."""
    full = [replace(ready[s.image], sample=s) for s, _ in pairs if s.image in ready]
    return [case for split in ("val", "test") for case in full if case.sample.split == split]


def _folder(out: Path, fold: int, folds: int, name: str) -> Path:
    return out / f"{fold + 1}-of-{folds}-{name}"


def _packed(maps: Sequence[Maps]) -> dict[str, NDArray[Any]]:
    """Maps as bytes, which a table does not tell from floats; scores as they are."""
    found: dict[str, NDArray[Any]] = {
        name: np.stack([np.rint(255 * own[name]).astype(np.uint8) for own in maps]) for name in MAPS
    }
    return found | {"glaucoma": np.array([own["glaucoma"] for own in maps])}


def _names(shown: Sequence[Case]) -> NDArray[np.str_]:
    return np.array([f"{case.sample.set_name}/{case.sample.image.name}" for case in shown])


def kept(folder: Path, names: Sequence[str], shown: Sequence[Case]) -> list[dict[str, NDArray[np.float32]]]:
    """Outputs of a run, of each picture. Raises: SettingsError where it looked at others."""
    with np.load(folder / "maps.npz") as found:
        if not np.array_equal(found["pictures"], _names(shown)):
            raise SettingsError(f"{folder}: is of other pictures than there are now; choose another folder")
        own = {name: found[name].astype(np.float32) / (255 if name in MAPS else 1) for name in names}
    return [{name: values[k] for name, values in own.items()} for k in range(len(own[names[0]]))]


def _table(base: Config, pairs: Sequence[Pair], ready: Mapping[Path, Case], out: Path, folds: int) -> str:
    ways: dict[str, dict[TaskName, str]] = {_SINGLE: {task: task for task in TASKS}}
    ways |= {strategy: dict.fromkeys(TASKS, strategy) for strategy in STRATEGIES}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for fold in range(folds):
        done = {
            name: of
            for name, of in ways.items()
            if all((_folder(out, fold, folds, own) / "maps.npz").exists() for own in of.values())
        }
        if not done:
            continue
        ready = ready or prepared(base, pairs)
        shown = cases(ready, folded(pairs, fold, folds))
        for name, of in done.items():
            parts = [kept(_folder(out, fold, folds, own), [task], shown) for task, own in of.items()]
            maps = [{k: v for own in each for k, v in own.items()} for each in zip(*parts, strict=True)]
            rows[name].append(_mean_over_sets(figures(base, shown, maps)))
    write_text(out / "results.json", json.dumps(rows, indent=1) + "\n")
    lines = [
        "| | folds | " + " | ".join(title for title, _ in COLUMNS.values()) + " |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for name, found in rows.items():
        cells = []
        for key, (_, factor) in COLUMNS.items():
            values = [factor * row[key] for row in found if key in row]
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{spread}" if values else "")
        lines.append(f"| {name} | {len(found)} | {' | '.join(cells)} |")
    page = "\n".join(lines) + "\n"
    write_text(out / "tables.md", page)
    return page


def figures(base: Config, cases: Sequence[Case], maps: Sequence[Maps]) -> dict[str, dict[str, float]]:
    """Figures of the test pictures by set, read by what the validation pictures say. A picture without a vCDR counts as 0."""
    held = [k for k, case in enumerate(cases) if case.sample.split == "val"]
    rest = [k for k, case in enumerate(cases) if case.sample.split == "test"]
    rules = calibrate.best_thresholds([cases[k] for k in held], [maps[k] for k in held], uncalibrated(base.reading))
    fit = [
        (anatomy.measure(maps[k], rules).vcdr, cases[k].sample) for k in held if cases[k].sample.glaucoma is not None
    ]
    with suppress(DataError):  # nothing is measured, or of one class alone: there is no score from the vCDR then
        coefficient, intercept = calibrate.fit_logistic([(vcdr, sample) for vcdr, sample in fit if vcdr is not None])
        rules = replace(rules, vcdr_coefficient=coefficient, vcdr_intercept=intercept)
    by_set = validation.measure([cases[k] for k in rest], [maps[k] for k in rest], rules)
    told: dict[str, list[tuple[float, float, int]]] = {}
    for k in rest:
        found, sample = anatomy.measure(maps[k], rules), cases[k].sample
        if sample.glaucoma is not None:
            from_vcdr = scores.logistic(found.vcdr or 0.0, rules.vcdr_coefficient, rules.vcdr_intercept)
            mean = (found.glaucoma_network + from_vcdr) / 2
            told.setdefault(sample.set_name, []).append((from_vcdr, mean, sample.glaucoma))
    for name, own in told.items():
        vcdrs, means, truth = zip(*own, strict=True)
        for key, values in (("auc_vcdr", vcdrs), ("auc_mean", means)):
            if (area := metrics.auc(values, truth)) is not None:
                by_set[name][key] = area.value
    return by_set


def _mean_over_sets(by_set: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    keys = dict.fromkeys(key for row in by_set.values() for key in row)
    return {key: float(np.mean([row[key] for row in by_set.values() if key in row])) for key in keys}


if __name__ == "__main__":
    config, to, data = (Path(own) for own in sys.argv[1:4])
    count, stop = int(sys.argv[4]) if sys.argv[4:] else 3, float(sys.argv[5]) if sys.argv[5:] else None
    sys.stdout.write(run(config, to, data, count, stop))
