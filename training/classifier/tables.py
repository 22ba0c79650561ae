"""The source's tables 3 to 5 on data of one's own: variants x losses x learning rates x seeds, at equal steps.

Each cell is one training run by the base configuration. Finished cells stay in `results.jsonl`, so the command can be
stopped and taken up again; the tables are made from that file alone.
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
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from rich.console import Console

from ...engine.errors import SettingsError
from ...engine.sample import Sample
from ...engine.sinks import write_text
from ...postprocess import metrics
from .. import config as configs
from .. import train
from ..settings import Share, Strict
from . import batches, config, validation
from .config import Config
from .job import ClassifierJob, check_classes
from .networks import OUTPUTS

_COMPARED = ("recall", "precision")
_RATES = ("accuracy", "precision", "recall", "f1", "auc")


class Grid(Strict):
    """base: a configuration file, relative to this one. variants: by name, the keys in which each differs from the base,
    its network first of all. matched_specificity: at which recall is compared as well."""

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
        lines = [f"  {configs.key(e['loc'])}: {e['msg']}" for e in error.errors()]
        raise SettingsError(f"{path}: the grid is not valid\n" + "\n".join(lines)) from None


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
    if not isinstance(base, Config):
        raise SettingsError(f"{base_file}: its kind must be classifier")
    root = (data_root or base_file.parent / base.data.root).resolve()
    base = base.model_copy(update={"data": base.data.model_copy(update={"root": str(root)})})
    results = out / "results.jsonl"
    train.make_folder(out)
    done = read_results(results)
    settings = {cell: settings_of(base, grid, cell) for cell in cells(grid)}  # a wrong one is told before the first run
    finished = {Cell(**row["cell"]): row["settings"] for row in done}
    for cell in settings:
        if cell in finished and finished[cell] != fingerprint(settings[cell]):
            raise SettingsError(f"{results}: {cell.name} was run under other settings; choose another --out")
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
                batches.geometry_of(base, base.geometry.size),
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
        best = train.load_checkpoint(folder / "best.pt")[1]
        job.network.load_state_dict(best["network"])
        predictions = {
            split: (samples_of(pictures), validation.predict(job.network, pictures, where))
            for split, pictures in (("val", job.held), ("test", test))
        }
        row = {"cell": cell.__dict__, "settings": fingerprint(settings[cell]), "step": best["step"]}
        done.append(row | figures(predictions, grid.matched_specificity))
        write_text(results, "".join(json.dumps(row) + "\n" for row in done))
        for name in ("last.pt", "best.pt"):
            (folder / name).unlink()  # hundreds of megabytes a cell
    parts = [*(table(done, grid, lr) for lr in grid.rates), matched(done, grid), areas(done, grid)]
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
    own = {"name": cell.name, "seed": cell.seed, "loss": grid.losses[cell.loss].model_dump()}
    document = _merged(document, {"schedule": {"lr": cell.lr}}) | own
    try:
        settings = Config.model_validate(document)
    except ValidationError as error:
        lines = [f"  variants.{cell.variant}.{configs.key(e['loc'])}: {e['msg']}" for e in error.errors()]
        raise SettingsError("the grid is not valid\n" + "\n".join(lines)) from None
    if (settings.geometry, settings.data.sets) != (base.geometry, base.data.sets):
        raise SettingsError(
            f"variants.{cell.variant}: geometry and data sets are the base's; all cells share its pictures"
        )
    return settings


def fingerprint(settings: Config) -> str:
    """Tells settings apart that would give other results: 16 hex digits of SHA-256."""
    document = settings.model_dump_json(exclude={"data": {"root", "workers"}})
    return hashlib.sha256(document.encode()).hexdigest()[:16]


def _merged(document: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A nested document with some of its values changed."""
    result = document | dict(changes)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(document.get(key), dict):
            result[key] = _merged(document[key], value)
    return result


Predictions = Mapping[str, tuple[Sequence[Sample], Mapping[str, NDArray[np.float64]]]]


def figures(predictions: Predictions, matched_specificity: float) -> dict[str, Any]:
    """What a results line holds: figures per split and set, and recall and precision on test at matched specificity.

    The threshold that gives the specificity comes from the validation split.
    """
    row: dict[str, Any] = {
        split: {name: {k: round(v, 4) for k, v in part.items()} for name, part in validation.measure(*both).items()}
        for split, both in predictions.items()
    }
    row["matched"] = {}
    for target in OUTPUTS:
        (held, held_logits), (test, test_logits) = predictions["val"], predictions["test"]
        has, truth = validation.known(held, target)
        threshold = metrics.threshold_of_specificity(held_logits[target][has], truth, matched_specificity)
        has, truth = validation.known(test, target)
        counts = metrics.Counts.at(threshold, test_logits[target][has], truth)
        row["matched"][target] = {
            "recall": counts.sensitivity,
            "precision": counts.precision,
            "specificity": counts.specificity,
        }
    return row


def samples_of(pictures: Sequence[batches.Picture]) -> list[Sample]:
    """The samples of prepared pictures."""
    return [picture.sample for picture in pictures]


def read_results(path: Path) -> list[dict[str, Any]]:
    """The finished cells. Raises SettingsError for a damaged file."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            Cell(**row["cell"])
            row["settings"], row["val"]["all"], row["test"]["all"], row["matched"]
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


def table(done: Sequence[dict[str, Any]], grid: Grid, lr: float) -> str:
    """One of the source's tables: validation split, all sets together, at a probability of one half; mean over seeds.

    In percent, with the standard deviation over seeds behind; counts are TP/FP/FN of the first seed.
    """
    columns = ["variant (runs)", "loss"]
    for title in ("glaucoma", "referable DR"):
        columns += [f"{title}: {name}" for name in (*_RATES, "TP/FP/FN")]
    lines = [f"## Learning rate {lr:g}", "", _line(columns), _line(["---"] * len(columns))]
    for (variant, loss, own), runs in _by_row(done, grid).items():
        if own != lr:
            continue
        row = [f"{variant} ({len(runs)})", loss]
        for target in validation.CHOSEN_BY:
            parts = [run["val"]["all"] for run in runs]
            row += [_spread([part.get(f"{target}_{name}") for part in parts]) for name in _RATES]
            row.append("/".join(str(int(parts[0][f"{target}_{name}"])) for name in ("tp", "fp", "fn")))
        lines.append(_line(row))
    return "\n".join(lines)


def matched(done: Sequence[dict[str, Any]], grid: Grid) -> str:
    """The losses compared fairly, on test: recall at one half, and at a threshold that gives all the same specificity."""
    columns = ["rate", "variant", "loss"]
    for title in ("glaucoma", "referable DR"):
        columns += [f"{title}: recall at 1/2", "precision"]
        columns += [f"{title}: recall at specificity {grid.matched_specificity:g}", "precision"]
    lines = ["## Test split, all sets together", "", _line(columns), _line(["---"] * len(columns))]
    for (variant, loss, lr), runs in _by_row(done, grid).items():
        row = [f"{lr:g}", variant, loss]
        for target in validation.CHOSEN_BY:
            at_half = [{name: run["test"]["all"].get(f"{target}_{name}") for name in _COMPARED} for run in runs]
            for parts in (at_half, [run["matched"][target] for run in runs]):
                row += [_spread([part[name] for part in parts]) for name in _COMPARED]
        lines.append(_line(row))
    return "\n".join(lines)


def areas(done: Sequence[dict[str, Any]], grid: Grid) -> str:
    """AUC on test, each set alone."""
    sets = sorted({name for line in done for name in line["test"]} - {"all"})
    keys = [(target, name) for target in OUTPUTS for name in sets]
    keys = [
        (target, name) for target, name in keys if any(f"{target}_auc" in line["test"].get(name, {}) for line in done)
    ]
    columns = ["rate", "variant", "loss", *(f"{target}: {name}" for target, name in keys)]
    lines = ["## AUC, test split", "", _line(columns), _line(["---"] * len(columns))]
    for (variant, loss, lr), runs in _by_row(done, grid).items():
        cells = [_area([run["test"].get(name, {}) for run in runs], f"{target}_auc") for target, name in keys]
        lines.append(_line([f"{lr:g}", variant, loss, *cells]))
    return "\n".join(lines)


def _spread(values: Sequence[float | None]) -> str:
    """Mean and standard deviation in percent; how many runs have no value is said."""
    present = [100 * value for value in values if value is not None]
    if not present:
        return "–"
    deviation = f" ± {np.std(present, ddof=1):.1f}" if len(present) > 1 else ""
    missing = f" ({len(values) - len(present)} none)" if len(present) < len(values) else ""
    return f"{np.mean(present):.1f}{deviation}{missing}"


def _area(parts: Sequence[Mapping[str, float]], key: str) -> str:
    """AUC over seeds, and behind it the 95 % interval of the pictures, its bounds averaged over seeds."""
    low, high = ([100 * part[key + end] for part in parts if key + end in part] for end in ("_low", "_high"))
    interval = f" ({np.mean(low):.1f} to {np.mean(high):.1f})" if low and high else ""
    return _spread([part.get(key) for part in parts]) + interval


def _line(columns: Sequence[str]) -> str:
    return "| " + " | ".join(columns) + " |"
