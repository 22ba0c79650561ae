"""What a smaller precision costs, and what it brings: accuracy on labelled test pictures, and speed beside torch in one run.

    python benchmarks/precision.py accuracy --data DATASETS --models FOLDER
    python benchmarks/precision.py speed --models FOLDER
    python benchmarks/precision.py frontier --data DATASETS --models FOLDER

FOLDER holds what `funduscope convert` wrote: multitask-fp16.onnx, multitask-int8.onnx, and the same of the classifier.
`frontier` writes its own there: int8 with ever more layers in float, as the search for them goes. All print Markdown. Sets that a
model was not made for stay empty in its rows.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from funduscope.engine import models, runners
from funduscope.engine.gate.pictures import prepared
from funduscope.engine.labelled import dataset, evaluation, shown
from funduscope.engine.labelled.sample import Sample
from funduscope.engine.readers.difference import BOUNDS
from funduscope.engine.results import Result, Screening
from funduscope.engine.screener import Screener

if TYPE_CHECKING:
    import onnx

    from funduscope.export import int8

WAYS = (  # file, backend, what the table calls it
    ("", "onnxruntime", "fp32, ONNX Runtime"),
    ("-fp16", "onnxruntime", "fp16, ONNX Runtime"),
    ("", "openvino-bf16", "bf16, OpenVINO"),
    ("-int8", "onnxruntime", "int8, ONNX Runtime"),
    ("-int8", "openvino", "int8, OpenVINO"),
)
ROUNDS = 9
CALIBRATED_ON = ("drishti_gs1", "idrid", "odir5k", "hygd")
IN_FLOAT = (0, 1, 2, 4, 8)
EAGER = "fp32, torch eager"
NETWORKS = ("multitask", "classifier")


@dataclass
class Seen:
    """What a model said of each picture: vCDR, and the distance of each decision's probability from its threshold."""

    vcdr: dict[Path, float] = field(default_factory=dict)
    margins: dict[tuple[Path, str], float] = field(default_factory=dict)

    def __call__(self, sample: Sample, result: Result) -> None:
        if not isinstance(result, Screening):
            return
        if result.vcdr is not None:
            self.vcdr[sample.image] = result.vcdr
        for name, decision in result.decisions.items():
            if decision.probability is not None and decision.threshold is not None:
                self.margins[sample.image, name] = decision.probability - decision.threshold


def flips(reference: Seen, other: Seen, margin: float) -> int:
    """Decisions that changed although the reference was farther than `margin` from the threshold; lost ones count."""
    return sum(
        abs(own) > margin and (key not in other.margins or (other.margins[key] >= 0) != (own >= 0))
        for key, own in reference.margins.items()
    )


def accuracy(folder: Path, data: Path, sets: Sequence[str]) -> None:
    samples = test_pictures(data, sets)
    for name in NETWORKS:
        reference: Seen | None = None
        rows: list[dict[str, str]] = []
        for suffix, backend, label in WAYS:
            path = folder / f"{name}{suffix}.onnx" if suffix else name
            figures, seen, precision = looked_at(path, backend, samples)
            reference = reference or seen
            rows.append({name: label, **dict(_cells(figures)), **differences(reference, seen, precision)})
            print(f"{name}, {label}: done", file=sys.stderr)
        print(markdown(rows), end="\n\n")


def test_pictures(data: Path, sets: Sequence[str]) -> list[Sample]:
    return [s for name in sets for s in evaluation.choose(dataset.load(data / name), "test")]


def looked_at(path: Path | str, backend: str, samples: Sequence[Sample]) -> tuple[dict[str, Any], Seen, str]:
    """Figures, what was said of each picture, and the precision that said it."""
    seen = Seen()
    with Screener.open(path, backend=backend) as screener:
        return evaluation.evaluate(screener, samples, seen), seen, screener.models[0].precision


def differences(reference: Seen, seen: Seen, precision: str) -> dict[str, str]:
    row = {}
    both = [abs(seen.vcdr[p] - v) for p, v in reference.vcdr.items() if p in seen.vcdr]
    if both:
        row["mean difference of vCDR"] = f"{np.mean(both):.4f}"
    row["decision flips"] = f"{flips(reference, seen, 0)} of {len(reference.margins)}"
    margin = BOUNDS[precision].flip_margin
    row["outside the margin"] = f"{flips(reference, seen, margin)} (±{margin:g})"
    return row


def frontier(folder: Path, data: Path, sets: Sequence[str], batch: int) -> None:
    """What int8 costs and brings with ever more layers in float, as `int8.search` takes them.

    At width 1 these are the same layers, which were searched for the embedded network: untrained weights cannot be verified.
    """
    from funduscope.export import convert, int8
    from funduscope.export import onnx as export
    from funduscope.training.multitask import deploy

    read, folders = models.load("multitask"), [data / name for name in CALIBRATED_ON]
    geometry = read.contract.geometry.build()
    calibration, images = (prepared(shown.chosen(folders, split), geometry) for split in ("train", "val"))
    quantiser = int8.Quantiser(convert.proto_of(read), calibration, signed=False)
    ranked: list[str] = []
    for step in itertools.islice(
        int8.search(
            quantiser,
            lambda made: convert.verify_converted(
                read, models.load(written(made, "int8", folder / "trial.onnx")), images
            ),
        ),
        max(IN_FLOAT) + 1,
    ):
        ranked = list(step.in_float)
        verdict = "passes" if step.report.passes() else "refused"
        print(f"{len(ranked)} in float, {verdict}, {step.report.strain():.2f}: {ranked[-1:]}", file=sys.stderr)
    (folder / "trial.onnx").unlink()

    network, _, wide = width_1()
    namesakes = dict(zip(quantiser.layers, wide.layers, strict=True))
    layers = {"compact": ranked, "width 1": [namesakes[layer] for layer in ranked]}
    columns = {"compact": (deploy.from_weights(export.weights_of(read)), quantiser), "width 1": (network, wide)}
    times = {}
    for title, (eager, own) in columns.items():
        ways = {}
        for count, backend in product(IN_FLOAT, ("onnxruntime", "openvino")):
            file = folder / f"{title.replace(' ', '-')}-int8-{count}.onnx"
            ways[f"{count}, {backend}"] = written(own.quantised(without=layers[title][:count]), "int8", file), backend
        times[title] = times_of(eager, ways, batch)
        if title == "compact":
            measured_ways = ways
    samples = test_pictures(data, sets)
    reference, rows = looked_at("multitask", "onnxruntime", samples)[1], []
    for label, (file, backend) in measured_ways.items():
        row = {"layers in float, backend": label} | differences(reference, looked_at(file, backend, samples)[1], "int8")
        for title, seconds in times.items():
            cell = f"{batch / seconds[label]:.1f} ({seconds[EAGER] / seconds[label]:.1f})"
            row[f"images/s, {title} (times torch eager, {batch / seconds[EAGER]:.1f})"] = cell
        rows.append(row)
    print(markdown(rows), end="\n\n")


def _cells(figures: dict[str, Any]) -> list[tuple[str, str]]:
    cells = []
    for name, row in figures.items():
        means = [key for key in ("disc_dice", "cup_dice", "vcdr_error") if key in row]
        cells += [(f"{key.replace('_', ' ')}, {name}", f"{row[key]['mean']:.3f}") for key in means]
        if "fovea_error_percent" in row:
            cells.append((f"fovea error, % of width, {name}", f"{row['fovea_error_percent']['mean']:.2f}"))
        for verdict, figures_of in row["decisions"].items():
            if "auc" in figures_of and figures_of["auc"]["value"] is not None:
                cells.append((f"{verdict} AUC, {name}", f"{figures_of['auc']['value']:.3f}"))
    return cells


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """Figures downwards, precisions across."""
    titles = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join([title, *(row.get(title, "") for row in rows)]) + " |" for title in titles]
    lines.insert(1, "|" + "---|" * (len(rows) + 1))
    return "\n".join(lines)


def speed(folder: Path, batch: int) -> None:
    """By turns, and the best round of each: the median of torch moves by half with what ran just before it."""
    from funduscope.export import half
    from funduscope.export import onnx as export
    from funduscope.training.multitask import deploy

    network, proto, quantiser = width_1()
    wide: dict[str, tuple[onnx.ModelProto, Literal["fp32", "fp16", "int8"]]] = {
        "": (proto, "fp32"),
        "-fp16": (half.to_half(proto), "fp16"),
        "-int8": (quantiser.quantised(without=()), "int8"),
    }
    networks: dict[str, tuple[Any, dict[str, Path | str]]] = {
        "compact": (
            deploy.from_weights(export.weights_of(models.load("multitask"))),
            {"": "multitask", **{suffix: folder / f"multitask{suffix}.onnx" for suffix in ("-fp16", "-int8")}},
        ),
        "width 1": (
            network,
            {suffix: written(*own, folder / f"untrained-width-1{suffix}.onnx") for suffix, own in wide.items()},
        ),
    }
    for title, (eager, files) in networks.items():
        ways = {
            label: (files[suffix], backend) for suffix, backend, label in (*WAYS, ("", "openvino", "fp32, OpenVINO"))
        }
        times = times_of(eager, ways, batch)
        rows = [
            {
                f"{title}, batch {batch}": label,
                "images/s": f"{batch / seconds:.1f}",
                "times torch eager": f"{times[EAGER] / seconds:.1f}",
            }
            for label, seconds in times.items()
        ]
        print(markdown(rows), end="\n\n")


def times_of(network: Any, ways: Mapping[str, tuple[Path | str, str]], batch: int) -> dict[str, float]:
    """Seconds for a batch in torch and in each way, of the best round. Args: ways: file and backend by label."""
    import torch

    runners_of = {label: runners.open_runner(models.load(f), b, max_batch=batch) for label, (f, b) in ways.items()}
    side = models.load("multitask").contract.geometry.size
    images = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    tensor = torch.from_numpy(images)
    runs: dict[str, Callable[[], Any]] = {EAGER: lambda: network(tensor)}
    runs |= {label: functools.partial(runner, images) for label, runner in runners_of.items()}
    times: dict[str, list[float]] = {label: [] for label in runs}
    with torch.inference_mode():
        for turn in range(ROUNDS + 1):
            for label, run in runs.items():
                begin = time.perf_counter()
                run()
                if turn:  # the first warms up
                    times[label].append(time.perf_counter() - begin)
    return {label: min(own) for label, own in times.items()}


def width_1() -> tuple[Any, onnx.ModelProto, int8.Quantiser]:
    """The full-size network with untrained weights: they serve for speed, and for nothing else."""
    import torch

    from funduscope.export import int8, onnx
    from funduscope.training.multitask.networks import Deployed, MultiTaskUNet

    size = models.load("multitask").contract.geometry.size
    torch.manual_seed(0)
    network = Deployed(MultiTaskUNet(1.0, 0.0)).folded()
    proto = onnx.to_onnx(network, size)
    images = np.random.default_rng(1).integers(0, 256, (4, size, size, 3), np.uint8)
    return network, proto, int8.Quantiser(proto, images, signed=False)


def written(proto: onnx.ModelProto, precision: Literal["fp32", "fp16", "int8"], path: Path) -> Path:
    """The graph under the contract of the embedded multi-task model, which is what it computes."""
    from funduscope.export import stamp

    model = models.load("multitask")
    document = model.contract if precision == "fp32" else model.converted(precision)
    return stamp.stamp(proto, document, path).path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["accuracy", "speed", "frontier"])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument(
        "--sets", nargs="+", default=["drishti_gs1", "idrid", "hygd", "odir5k", "origa", "airogs_light"]
    )
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    if options.what == "speed":
        speed(options.models, options.batch)
    elif options.data is None:
        parser.error(f"{options.what} needs --data, the folder of the data sets")
    elif options.what == "frontier":
        frontier(options.models, options.data, options.sets, options.batch)
    else:
        accuracy(options.models, options.data, options.sets)


if __name__ == "__main__":
    main()
