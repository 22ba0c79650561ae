"""What was measured, as plots and tables on docs/speed.md. Needs the extra `bench`.

make bench                                          # keeps its results in .benchmarks/
python benchmarks/page.py                           # of the newest results there
python benchmarks/page.py results.json --png FOLDER   # of others; the plots as PNG, too, to be looked at
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Patch

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE = ROOT / ".benchmarks", ROOT / "docs" / "speed.md"
PARTS = ("stage", "network", "one picture", "stream", "ceiling", "memory")
PRECISIONS = {"fp32": "#0072b2", "fp16": "#56b4e9", "bf16": "#e69f00", "int8": "#009e73"}  # Okabe and Ito's
GROUPS = {True: ("#9ecae1", "#2171b5"), False: ("#d0d0d0", "#8a8a8a")}  # whether it is this engine: small, large
_STAGES = {  # what is drawn together, and its colour; networks have one each
    "hash and decode": "#0072b2",
    "field of view": "#56b4e9",
    "prepare": "#009e73",
    "read": "#cc79a7",
    "rest": "#c8c8c8",
}
_NETWORKS = ("#e69f00", "#d55e00", "#f0e442")
_LIGHT = ("#56b4e9", "#c8c8c8", "#e69f00", "#f0e442")  # on which black is read
_MARKED = re.compile(r"(<!-- measured -->\n).*?(<!-- end of measured -->)", re.DOTALL)
_STYLE = {"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "funduscope", "axes.spines.top": False}
Row = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """What one run of the benchmarks kept.

    Attributes:
        rows: Of each benchmark, its figures and what they are of.
        machine: What it ran on.
        date: When, as YYYY-MM-DD.
    """

    rows: Sequence[Row]
    machine: Row
    date: str

    def of(self, part: str, **fixed: Any) -> list[Row]:
        """The rows of a part in which these keys have these values, in the order of measurement."""
        wanted = {"part": part, **fixed}
        return [row for row in self.rows if all(row.get(key) == value for key, value in wanted.items())]


def read(path: Path) -> Results:
    """The results in a JSON file of pytest-benchmark. Raises ValueError where it is not of all the benchmarks."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    rows = [own["extra_info"] for own in kept["benchmarks"] if "part" in own["extra_info"]]
    if missing := [part for part in PARTS if not any(row["part"] == part for row in rows)]:
        raise ValueError(f"{path}: nothing on {', '.join(missing)}; it is not of a whole run of `make bench`")
    return Results(rows, kept["machine_info"]["funduscope"], kept["datetime"][:10])


def _distinct(rows: Iterable[Row], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


# plots


def stages(results: Results) -> Figure:
    """Where the time of one picture goes, by its size and what computes."""
    wholes = results.of("stage", stage="whole")
    figure = Figure(figsize=(9, 0.62 * len(wholes) + 1.5), layout="constrained")
    axes = figure.add_subplot()
    colours = _STAGES | dict(zip((f"network {name}" for name in _networks(results)), _NETWORKS, strict=False))
    for k, whole in enumerate(wholes):
        shares, left = shares_of(results, whole), 0.0
        for name, share in shares.items():
            axes.barh(k, share, left=left, height=0.72, color=colours[name], label=name if k == 0 else None)
            if share >= 4:
                shade = "black" if colours[name] in _LIGHT else "white"
                axes.text(left + share / 2, k, f"{share:.0f}", ha="center", va="center", color=shade, fontsize=9)
            left += share
        axes.text(101, k, f"{whole['p50_ms']:.0f} ms", va="center")
    axes.set_yticks(range(len(wholes)), [f"{own['side']} px\n{own['way']}" for own in wholes])
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.set_xlabel("share of one picture's time, %")
    axes.spines["right"].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def shares_of(results: Results, whole: Row) -> dict[str, float]:
    """Of one picture's time, what each stage took, in percent; `rest` is what no stage accounts for.

    Args:
        results: All.
        whole: The row of the whole picture.
    """
    before, after = list(_STAGES)[:-2], list(_STAGES)[-2:]
    sums = dict.fromkeys([*before, *(f"network {name}" for name in _networks(results)), *after], 0.0)
    for row in results.of("stage", size=whole["size"]):
        name = row["stage"] if row["stage"] in sums else row["stage"].split()[0]
        if name in sums and row["way"] in ("", whole["way"]):
            sums[name] += row["p50_ms"]
    total = max(whole["p50_ms"], sum(sums.values()))
    sums["rest"] = total - sum(sums.values())
    return {name: 100 * value / total for name, value in sums.items()}


def throughput(results: Results) -> Figure:
    """Pictures a second: of each network by batch, and of streams from the file to the result."""
    panels = [(f"network {name}", results.of("network", network=name), "batch") for name in _networks(results)]
    panels.append(("files to results, all models", results.of("stream"), "side"))
    sides = {row["size"]: row["side"] for row in results.of("stage")}
    high = [len(_distinct(rows, "way")) for _, rows, _ in panels]
    figure = Figure(figsize=(9, 0.36 * sum(high) + 2.2), layout="constrained")
    for axes, (title, rows, by) in zip(
        figure.subplots(len(panels), gridspec_kw={"height_ratios": high}), panels, strict=True
    ):
        own = [row | {"side": sides.get(row.get("size"))} for row in rows]
        groups, labels = _distinct(own, by), _distinct(own, "way")
        thick = 0.8 / len(groups)
        for g, group in enumerate(groups):
            for k, label in enumerate(labels):
                found = next((row for row in own if (row["way"], row[by]) == (label, group)), None)
                if found is not None:
                    at, value = k + (g - (len(groups) - 1) / 2) * thick, found["pictures_per_second"]
                    axes.barh(at, value, height=0.92 * thick, color=GROUPS[found["ours"]][g % 2])
                    told = f" {value:.0f}" if value >= 10 else f" {value:.1f}"
                    axes.text(value, at, told, va="center", fontsize=8)
        named = [f"batch {group}" if by == "batch" else f"{group} px" for group in groups]
        _finish(axes, labels, f"{title}, pictures a second")
        _legend(axes, dict(zip(named, GROUPS[True], strict=False)))
    return figure


def distance(results: Results) -> Figure:
    """What each way does in a second, as a share of what the machine does at most in that precision in the same turns."""
    names, batches = _networks(results), _distinct(results.of("network"), "batch")
    rows = {name: results.of("network", network=name, batch=max(batches)) for name in names}
    figure = Figure(figsize=(9, 0.33 * sum(map(len, rows.values())) + 1.6), layout="constrained")
    for axes, name in zip(figure.subplots(len(names), squeeze=False)[:, 0], names, strict=True):
        alone = {row["way"]: row for row in results.of("network", network=name, batch=min(batches))}
        for k, row in enumerate(rows[name]):
            share = 100 * row["share_of_ceiling"]
            axes.barh(k, share, height=0.72, color=PRECISIONS[row["precision"]])
            if row["way"] in alone:
                axes.plot(100 * alone[row["way"]]["share_of_ceiling"], k, "D", color="white", markeredgecolor="black")
            told = f"{share:.0f} %  ({row['gflops']:.0f} of {row['ceiling_gflops']:.0f})"
            axes.text(1.01, k, told, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
        axes.axvline(100, color="black", linestyle="--", linewidth=1.2)
        axes.set_xlim(0, max(105, *(100 * row["share_of_ceiling"] + 2 for row in rows[name])))
        _finish(axes, [row["way"] for row in rows[name]], f"network {name}, batch {max(batches)}")
        _legend(axes, {own: PRECISIONS[own] for own in _distinct(rows[name], "precision")})
    axes.set_xlabel(f"% of the most (GFLOP/s); diamonds: batch {min(batches)}")
    return figure


def _finish(axes: Any, labels: Sequence[str], title: str) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.spines["right"].set_visible(False)


def _legend(axes: Any, colours: dict[str, str]) -> None:
    """Beside the title, where it hides no bar."""
    patches = [Patch(color=colour, label=name) for name, colour in colours.items()]
    place = {"loc": "lower right", "bbox_to_anchor": (1, 0.98), "borderaxespad": 0.2}
    axes.legend(handles=patches, ncols=len(patches), frameon=False, fontsize=9, **place)


def _networks(results: Results) -> list[str]:
    return _distinct(results.of("network"), "network")


PLOTS: dict[str, tuple[Callable[[Results], Figure], str]] = {
    "speed-stages": (stages, "Share of each stage in the time of one picture, by its size and what computes"),
    "speed-throughput": (
        throughput,
        "Pictures a second of each network by batch, and from files to results, in every way",
    ),
    "speed-ceiling": (distance, "Each way's GFLOP/s as a share of what the machine does at most in that precision"),
}


# words


def words(results: Results) -> str:
    """The machine, the plots and the tables, Markdown."""
    plots = [f"![{told}]({name}.svg)" for name, (_, told) in PLOTS.items()]
    drawing = {row["side"]: row["p50_ms"] for row in results.of("stage", stage="draw")}
    drawn = ", ".join(f"{ms:.0f} ms at {side} px" for side, ms in drawing.items())
    return "\n\n".join(
        [
            machine(results),
            "### Where the time goes",
            plots[0],
            f"Drawings are made where they are asked for, and are not in it: {drawn}.",
            "### From the file to the result",
            end_to_end(results),
            plots[1],
            "### How far it is to what the machine can do",
            top(results),
            plots[2],
        ]
    )


def machine(results: Results) -> str:
    """What it was measured on, and whether it was quiet."""
    here = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    told = (
        f"Measured on {results.date} on {here['cores']} cores of {here['processor']} "
        f"({', '.join(here['flags']) or 'no instructions that networks gain from'}); {versions}."
    )
    load = here["load"]
    if load is None:
        return told
    if load > here["cores"] / 4:
        return f"{told} Other work ran beside it (load {load} before it began): the ratios hold, the times do not."
    return f"{told} The machine was quiet (load {load} before it began)."


def end_to_end(results: Results) -> str:
    """The table of ways from files to results."""
    sides = {row["size"]: row["side"] for row in results.of("stage")}
    streams = {size: {row["way"]: row for row in results.of("stream", size=size)} for size in sides}
    streams = {size: own for size, own in streams.items() if own}
    titles = ["all models", "one picture, p50", "p99", *(f"{sides[size]} px, a second" for size in streams)]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in results.of("one picture"):
        cells = [row["way"], f"{row['p50_ms']:.1f} ms ({row['times_loop']:.1f})", f"{row['p99_ms']:.1f} ms"]
        for own in streams.values():
            found = own.get(row["way"])
            cells.append(f"{found['pictures_per_second']:.1f} ({found['times_loop']:.1f})" if found else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def top(results: Results) -> str:
    """The table of what the machine does at most."""
    lines = ["| at most | |", "|---|---|"]
    lines += [f"| {row['way']} | {row['gflops']:.0f} GFLOP/s |" for row in results.of("ceiling")]
    lines += [f"| copy of memory | {row['gb_per_second']:.1f} GB/s |" for row in results.of("memory")]
    return "\n".join(lines)


def filled(page: str, results: Results) -> str:
    """The page with what was measured between its marks. Raises ValueError where it has none."""
    if not _MARKED.search(page):
        raise ValueError("the page has no place for what was measured: <!-- measured --> to <!-- end of measured -->")
    return _MARKED.sub(lambda found: f"{found[1]}\n{words(results)}\n\n{found[2]}", page)


def write(results: Results, page: Path, png: Path | None = None) -> None:
    """Write the plots beside the page and the tables into it. Args: png: a folder for the plots as PNG."""
    page.write_text(filled(page.read_text(encoding="utf-8"), results), encoding="utf-8")
    with matplotlib.rc_context(_STYLE):
        for name, (draw, _) in PLOTS.items():
            figure = draw(results)
            figure.savefig(page.parent / f"{name}.svg", metadata={"Date": None})
            if png is not None:
                figure.savefig(png / f"{name}.png", dpi=110)


def newest(folder: Path) -> Path:
    """The newest results that were kept. Raises ValueError where there are none."""
    kept = sorted(folder.rglob("*.json"), key=lambda path: path.stat().st_mtime)
    if not kept:
        raise ValueError("no results are kept here; measure with `make bench` first")
    return kept[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    try:
        write(read(options.results or newest(KEPT)), PAGE, options.png)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
