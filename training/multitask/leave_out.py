"""What a camera that was never seen costs the multi-task network: trained on all sets, and without each in turn.

`python -m funduscope.training.multitask.leave_out CONFIG OUT DATASETS [MINUTES]` writes OUT/results.json and OUT/tables.md. It
can be stopped, and goes on where it was.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ...engine.errors import DataError, SettingsError
from ...engine.files import write_text
from .. import config as configs
from .. import train
from ..cases import Case
from . import compare
from .config import Config
from .job import MultiTaskJob, Pair, expect_labels, load_samples
from .networks import OUTPUTS

_ALL = "all"


def run(config_file: Path, out: Path, root: Path, minutes: float | None = None) -> str:
    """Train what is missing, then write and return the table as Markdown.

    Args: minutes: stop after about so long; call again to go on.
    Raises: SettingsError where the configuration is not that of a multi-task network, or `out` holds another's runs.
    """
    end = None if minutes is None else time.monotonic() + 60 * minutes
    base = configs.load(config_file)
    if not isinstance(base, Config):
        raise SettingsError(f"{config_file}: its kind must be multi-task")
    base = train.with_root(base, root.resolve())
    train.make_folder(out)
    pairs = load_samples(base, root)
    ready = compare.prepared(base, pairs)
    for left in (_ALL, *_left_out(base, pairs)):
        folder = out / left
        if (folder / "maps.npz").exists():
            train.expect_same(folder / "best.pt", _without(base, left))
            continue
        rest = None if end is None else (end - time.monotonic()) / 60
        if rest is not None and rest <= 0:
            break
        job = MultiTaskJob(_without(base, left), root, [pair for pair in pairs if pair[1].path != left])
        if not compare.trained(job, folder, config_file.parent, rest):
            break
        compare.keep(job, folder, compare.cases(ready, pairs))
    return _table(_rows(base, pairs, ready, out), out)


def _without(base: Config, left: str) -> Config:
    sets = [own for own in base.data.sets if own.path != left]
    return base.model_copy(update={"data": base.data.model_copy(update={"sets": sets})})


def _rows(
    base: Config, pairs: Sequence[Pair], ready: Mapping[Path, Case], out: Path
) -> dict[str, dict[str, dict[str, float]]]:
    """Figures of the test pictures of each set that was left out, by a run that has seen the set and by one that has not."""
    shown = compare.cases(ready, pairs)
    of = {sample.image: own.path for sample, own in pairs}
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for left in _left_out(base, pairs):
        if not all((out / own / "maps.npz").exists() for own in (_ALL, left)):
            continue
        rows[left] = {}
        for key, folder in (("seen", out / _ALL), ("unseen", out / left)):
            maps = compare.kept(folder, OUTPUTS, shown)
            wanted = [  # validation pictures of what the run has seen, and the test pictures of the set
                k
                for k, case in enumerate(shown)
                if (case.sample.split == "test") == (of[case.sample.image] == left)
                or (key == "seen" and case.sample.split == "val")
            ]
            found = compare.figures(base, [shown[k] for k in wanted], [maps[k] for k in wanted])
            rows[left][key] = next(iter(found.values()))
    return rows


def _left_out(base: Config, pairs: Sequence[Pair]) -> list[str]:
    """Sets with pictures to test on, without which every task still has some to learn from."""
    tested = {own.path for sample, own in pairs if sample.split == "test" and own.region == "full"}
    found = []
    for left in (own.path for own in base.data.sets if own.path in tested):
        with suppress(DataError):
            expect_labels(base.data.batch, [pair for pair in pairs if pair[1].path != left])
            found.append(left)
    return found


def _table(rows: dict[str, dict[str, dict[str, float]]], out: Path) -> str:
    write_text(out / "results.json", json.dumps(rows, indent=1) + "\n")
    lines = ["| set | figure | camera seen | never seen |", "|---|---|---|---|"]
    for name, row in rows.items():
        for key, (title, factor) in compare.COLUMNS.items():
            if key in row["seen"] and key in row["unseen"]:
                values = " | ".join(f"{factor * row[own][key]:.3f}" for own in ("seen", "unseen"))
                lines.append(f"| {name} | {title} | {values} |")
    page = "\n".join(lines) + "\n"
    write_text(out / "tables.md", page)
    return page


if __name__ == "__main__":
    config, to, data = (Path(own) for own in sys.argv[1:4])
    sys.stdout.write(run(config, to, data, float(sys.argv[4]) if sys.argv[4:] else None))
