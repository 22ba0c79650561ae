"""The curves of a training run as one PNG."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

_COLUMNS = 3


def draw(metrics_file: Path, png: Path, titles: Mapping[str, str]) -> None:
    """Losses and validation figures over steps.

    Args: metrics_file: the run's metrics.jsonl; titles: of the figures to draw, by their keys there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in metrics_file.read_text().splitlines()]
    rows = math.ceil((1 + len(titles)) / _COLUMNS)
    figure = Figure(figsize=(11, 3.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for panel in panels[1 + len(titles) :]:
        panel.remove()
    panels = panels[: 1 + len(titles)]
    steps = [line["step"] for line in lines]
    for task in lines[0]["losses"]:
        panels[0].semilogy(steps, [line["losses"][task] for line in lines], marker=".", label=task)
    panels[0].set_title("training loss")
    for panel, (key, title) in zip(panels[1:], titles.items(), strict=True):
        panel.set_title(f"validation: {title}")
        for name in lines[-1]["sets"]:
            points = [(line["step"], line["sets"][name][key]) for line in lines if key in line["sets"].get(name, {})]
            if points:
                panel.plot(*zip(*points, strict=True), marker=".", label=name)
    for panel in panels:
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize=8)
    figure.savefig(png, dpi=110)
