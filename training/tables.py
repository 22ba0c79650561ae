"""The source's tables 3 to 5 on data of one's own: variants x losses x learning rates x seeds, at equal steps.

Each cell is one training run by the base configuration, measured twice: at the checkpoint that its schedule selects, as the
source does, and at its last step, which is the same for all and so fit for comparing them. Finished cells stay in
`results.jsonl`, so the command can be stopped and taken up again; the tables are made from that file alone.
"""

from __future__ import annotations

import hashlib
import json
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from rich.console import Console

from ..engine.errors import SettingsError
from ..engine.files import write_text
from ..engine.labelled.sample import Sample
from ..postprocess import metrics
from . import config as configs
from . import pretrained, train
from .classifier import batches, config, validation
from .classifier.config import Config
from .classifier.job import ClassifierJob, check_classes
from .classifier.networks import OUTPUTS
from .settings import Share, Strict

_MEASURED = ("best", "last")  # the checkpoints
_RATES = ("accuracy", "precision", "recall", "f1", "auc")


class Grid(Strict):
    """base: a configuration file, relative to this one. variants: by name, the keys in which each differs from the base,
    its network first of all; a path there is relative to the base. matched_specificity: at which recall is compared, on
    the ROC curve of each set."""

    base: str
    seeds: Annotated[list[int], Field(min_length=1)]
    rates: Annotated[list[float], Field(min_length=1)]
    matched_specificity: Share
    variants: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    losses: Annotated[dict[str, config.Loss], Field(min_length=1)]


@dataclass(frozen=True)
class Cell:
    """One run."""

    variant: str
    loss: str
    lr: float
    seed: int

    @property
    def name(self) -> str:
        """For a folder."""
        return f"{self.variant}_{self.loss}_{self.lr:g}_{self.seed}"


def load(path: Path) -> Grid:
    """Read and check a grid. Raises SettingsError that names file and key."""
    try:
        return Grid.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise SettingsError(f"{path}: {error}") from None
        raise SettingsError(f"{path}: the grid is not valid\n{configs.faults(error)}") from None


def tables(
    grid_file: Path, out: Path, *, data_root: Path | None = None, device: str = "auto", minutes: float | None = None
) -> str:
    """Run what is missing of a grid, then write and return the tables as Markdown.

    Args: out: folder of results.jsonl, tables.md, and a run's metrics per cell; minutes: start no cell after so long.
    """
    started = time.monotonic()
    grid, where, console = load(grid_file), train.device_of(device), Console(stderr=True)
    base_file = grid_file.parent / grid.base
    base = configs.load(base_file)
    root = (data_root or base_file.parent / base.data.root).resolve()
    base = train.with_root(base, root)
    if not isinstance(base, Config):
        raise SettingsError(f"{base_file}: its kind must be classifier")
    results = out / "results.jsonl"
    train.make_folder(out)
    done = load_results(results)
    settings = {cell: settings_of(base, grid, cell) for cell in cells(grid)}  # a wrong one is told before the first run
    finished = {Cell(**row["cell"]): row["settings"] for row in done}
    for cell, cell_settings in settings.items():
        if cell not in finished:
            if cell_settings.network.imagenet:
                pretrained.locate(cell_settings.network.imagenet, base_file.parent)
        elif finished[cell] != fingerprint(cell_settings):
            raise SettingsError(f"{results}: {cell.name} was run under other settings; choose another folder")
    shared: ClassifierJob | None = None
    for cell in settings:
        if cell in finished:
            continue
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            console.print(f"stopped after {len(done)} cells; call again to go on")
            break
        if shared is None:  # the same pictures serve every cell
            shared = ClassifierJob(base, root)
            test = batches.prepare_all(
                [pair for pair in shared.samples if pair[0].split == "test"],
                base.preparation(base.geometry.size).build(),
                base.data.workers,
            )
            check_classes(samples_of(test), "test")
        console.print(f"{len(done) + 1}: {cell.name}", highlight=False)
        job = ClassifierJob(settings[cell], root)
        job.pictures = shared.pictures
        folder = out / cell.name
        train.make_folder(folder)
        for name in ("last.pt", "metrics.jsonl"):
            (folder / name).unlink(missing_ok=True)  # of a run that was cut off
        train.run(job, folder, base_file.parent, resume=False, device=where)
        shared.pictures = job.pictures
        row: dict[str, Any] = {"cell": cell.__dict__, "settings": fingerprint(settings[cell])}
        for name in _MEASURED:
            state = train.load_checkpoint(folder / f"{name}.pt")[1]
            job.network.load_state_dict(state["network"])
            row[name] = {"step": state["step"]}
            for split, pictures in (("val", job.held), ("test", test)):
                logits = validation.predict(job.network, pictures, where)
                np.savez(
                    folder / f"{name}-{split}.npz", allow_pickle=False, **logits
                )  # for figures that are not in the tables
                row[name][split] = figures(samples_of(pictures), logits, grid.matched_specificity)
        done.append(row)
        write_text(results, "".join(json.dumps(row) + "\n" for row in done))
        for name in ("last.pt", "best.pt"):
            (folder / name).unlink()  # hundreds of megabytes a cell
    recall = f"Recall at specificity {grid.matched_specificity:g}"
    parts = [table(done, grid, lr, split) for split in ("val", "test") for lr in grid.rates] + [compared(done, grid)]
    parts += [by_set(done, grid, "auc", "AUC"), by_set(done, grid, "recall_matched", recall)]
    page = "\n\n".join(parts) + "\n"
    write_text(out / "tables.md", page)
    return page


def cells(grid: Grid) -> Iterator[Cell]:
    """All cells, seed by seed, so that a grid that is stopped early has each cell once before any twice."""
    for seed, variant, lr, loss in product(grid.seeds, grid.variants, grid.rates, grid.losses):
        yield Cell(variant, loss, lr, seed)


def settings_of(base: Config, grid: Grid, cell: Cell) -> Config:
    """The base configuration with one cell's variant, loss, rate and seed. Raises SettingsError for unknown keys."""
    document = _merged(base.model_dump(), grid.variants[cell.variant])
    of_cell = {"name": cell.name, "seed": cell.seed, "loss": grid.losses[cell.loss].model_dump()}
    document = _merged(document, {"schedule": {"lr": cell.lr}}) | of_cell
    try:
        settings = Config.model_validate(document)
    except ValidationError as error:
        raise SettingsError(f"the grid is not valid\n{configs.faults(error, f'variants.{cell.variant}.')}") from None
    if (settings.geometry, settings.data.sets) != (base.geometry, base.data.sets):
        raise SettingsError(
            f"variants.{cell.variant}: geometry and data sets are the base's; all cells share its pictures"
        )
    return settings


def fingerprint(settings: Config) -> str:
    """Of all settings but where the data lie and how many threads read them: 16 hex digits of SHA-256. A key with a default
    is one that came later; at its default it changes nothing."""
    document = settings.model_dump_json(exclude={"data": {"root", "workers"}}, exclude_defaults=True)
    return hashlib.sha256(document.encode()).hexdigest()[:16]


def _merged(document: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A nested document with some of its values changed."""
    result = document | dict(changes)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(document.get(key), dict):
            result[key] = _merged(document[key], value)
    return result


def figures(
    samples: Sequence[Sample], logits: Mapping[str, NDArray[np.float64]], specificity: float
) -> dict[str, dict[str, float]]:
    """What `validation.measure` tells, and per set `TARGET_recall_matched`: at the threshold that gives this set at least
    this specificity. Four digits."""
    rows = validation.measure(samples, logits)
    names = np.array([sample.set_name for sample in samples])
    for (name, row), target in product(rows.items(), OUTPUTS):
        has, truth = validation.known(samples, target)
        inside = has & (names == name) if name != "all" else has
        truth = truth[inside[has]]
        if 0 < truth.sum() < truth.size:
            scores = logits[target][inside]
            threshold = metrics.threshold_of_specificity(scores, truth, specificity)
            row[f"{target}_recall_matched"] = float(np.mean(scores[truth == 1] >= threshold))
    return {name: {key: round(value, 4) for key, value in row.items()} for name, row in rows.items()}


def samples_of(pictures: Sequence[batches.Picture]) -> list[Sample]:
    """The samples of prepared pictures."""
    return [picture.sample for picture in pictures]


def load_results(path: Path) -> list[dict[str, Any]]:
    """The finished cells. Raises SettingsError for a damaged file."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            Cell(**row["cell"])
            row["settings"], *(row[name][split]["all"] for name in _MEASURED for split in ("val", "test"))
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError):
        raise SettingsError(f"{path}: a line is not a result; remove that line, its cell will be run again") from None
    return rows


def _by_row(done: Sequence[dict[str, Any]], grid: Grid) -> dict[tuple[str, str, float], list[dict[str, Any]]]:
    """The finished runs of each row of a table: same variant, loss and rate; only what the grid has."""
    rows: dict[tuple[str, str, float], list[dict[str, Any]]] = defaultdict(list)
    ours = set(cells(grid))
    for line in done:
        cell = Cell(**line["cell"])
        if cell in ours:
            rows[cell.variant, cell.loss, cell.lr].append(line)
    return rows


def table(done: Sequence[dict[str, Any]], grid: Grid, lr: float, split: Literal["val", "test"]) -> str:
    """One of the source's tables: selected checkpoint, all sets together, at a probability of one half.

    Mean over seeds in percent, with their standard deviation behind; steps of all seeds; counts are TP/FP/FN of the first.
    """
    columns = ["variant (runs)", "loss", "selected steps"]
    for title in ("glaucoma", "referable DR"):
        columns += [f"{title}: {name}" for name in (*_RATES, "TP/FP/FN")]
    lines = [
        f"## Learning rate {lr:g}, {'validation' if split == 'val' else 'test'} split, selected checkpoint",
        "",
        _line(columns),
        _line(["---"] * len(columns)),
    ]
    for (variant, loss, rate), runs in _by_row(done, grid).items():
        if rate != lr:
            continue
        row = [f"{variant} ({len(runs)})", loss, "/".join(str(run["best"]["step"]) for run in runs)]
        for target in validation.CHOSEN_BY:
            parts = [run["best"][split]["all"] for run in runs]
            row += [_spread([part.get(f"{target}_{name}") for part in parts]) for name in _RATES]
            row.append("/".join(str(int(parts[0][f"{target}_{name}"])) for name in ("tp", "fp", "fn")))
        lines.append(_line(row))
    return "\n".join(lines)


def compared(done: Sequence[dict[str, Any]], grid: Grid) -> str:
    """Test split, last step: what a loss does at one half, all sets together, and what it is worth at any threshold: recall
    at the same specificity and AUC, each set alone, then their mean; at the end the mean of all AUCs, of any DR too."""
    columns = ["rate", "variant", "loss"]
    for title in ("glaucoma", "referable DR"):
        columns += [
            f"{title}: recall at 1/2",
            "precision",
            f"recall at specificity {grid.matched_specificity:g}",
            "AUC",
        ]
    columns.append("mean of all AUCs")
    lines = ["## Test split, last step", "", _line(columns), _line(["---"] * len(columns))]
    for (variant, loss, lr), runs in _by_row(done, grid).items():
        row = [f"{lr:g}", variant, loss]
        tests = [run["last"]["test"] for run in runs]
        for target in validation.CHOSEN_BY:
            row += [
                _spread([test["all"].get(f"{target}_{name}") for test in tests]) for name in ("recall", "precision")
            ]
            row += [
                _spread([_over_sets(test, f"{target}_{name}") for test in tests]) for name in ("recall_matched", "auc")
            ]
        row.append(_spread([_over_sets(test, *(f"{target}_auc" for target in OUTPUTS)) for test in tests]))
        lines.append(_line(row))
    return "\n".join(lines)


def by_set(done: Sequence[dict[str, Any]], grid: Grid, figure: str, title: str) -> str:
    """One figure of each set alone: test split, last step."""
    sets = sorted({name for line in done for name in line["last"]["test"]} - {"all"})
    keys = [
        (target, name)
        for target, name in product(OUTPUTS, sets)
        if any(f"{target}_{figure}" in line["last"]["test"].get(name, {}) for line in done)
    ]
    columns = ["rate", "variant", "loss", *(f"{target}: {name}" for target, name in keys)]
    lines = [f"## {title}, test split, last step", "", _line(columns), _line(["---"] * len(columns))]
    for (variant, loss, lr), runs in _by_row(done, grid).items():
        tests = [run["last"]["test"] for run in runs]
        cells = [_interval([test.get(name, {}) for test in tests], f"{target}_{figure}") for target, name in keys]
        lines.append(_line([f"{lr:g}", variant, loss, *cells]))
    return "\n".join(lines)


def _over_sets(figures: Mapping[str, Mapping[str, float]], *keys: str) -> float | None:
    """The mean over the sets that have the figures."""
    values = [row[key] for name, row in figures.items() if name != "all" for key in keys if key in row]
    return float(np.mean(values)) if values else None


def _spread(values: Sequence[float | None]) -> str:
    """Mean and standard deviation in percent; how many runs have no value is said."""
    present = [100 * value for value in values if value is not None]
    if not present:
        return "–"
    deviation = f" ± {np.std(present, ddof=1):.1f}" if len(present) > 1 else ""
    missing = f" ({len(values) - len(present)} none)" if len(present) < len(values) else ""
    return f"{np.mean(present):.1f}{deviation}{missing}"


def _interval(parts: Sequence[Mapping[str, float]], key: str) -> str:
    """A figure over seeds, and behind it the 95 % interval of the pictures where there is one, its bounds averaged over seeds."""
    low, high = ([100 * part[key + end] for part in parts if key + end in part] for end in ("_low", "_high"))
    interval = f" ({np.mean(low):.1f} to {np.mean(high):.1f})" if low and high else ""
    return _spread([part.get(key) for part in parts]) + interval


def _line(columns: Sequence[str]) -> str:
    return "| " + " | ".join(columns) + " |"
