"""What a smaller precision costs, and what it brings: accuracy on labelled test pictures, and speed beside torch in one run.

    python benchmarks/precision.py accuracy --data DATASETS --models FOLDER
    python benchmarks/precision.py speed --models FOLDER

FOLDER holds what `funduscope convert` wrote: multitask-fp16.onnx, multitask-int8.onnx, and the same of the classifier.
Both print Markdown. Sets that a model was not made for stay empty in its rows.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from funduscope.engine import contract, dataset, evaluation, gate, runners
from funduscope.engine.results import DISEASES, Result, Screening
from funduscope.engine.sample import Sample
from funduscope.engine.screener import Screener

WAYS = (  # file, backend, what the table calls it
    ("", "onnxruntime", "fp32, ONNX Runtime"),
    ("-fp16", "onnxruntime", "fp16, ONNX Runtime"),
    ("", "openvino-bf16", "bf16, OpenVINO"),
    ("-int8", "onnxruntime", "int8, ONNX Runtime"),
    ("-int8", "openvino", "int8, OpenVINO"),
)
ROUNDS = 9


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
        if result.glaucoma_probability is not None and result.threshold is not None:
            self.margins[sample.image, "glaucoma"] = result.glaucoma_probability - result.threshold
        for disease in DISEASES if result.classification else ():
            opinion = result.classification.of(disease)
            self.margins[sample.image, f"classifier {disease}"] = opinion.probability - opinion.threshold


def flips(reference: Seen, other: Seen, margin: float) -> int:
    """Decisions that changed although the reference was farther than `margin` from the threshold; lost ones count."""
    return sum(
        abs(own) > margin and (key not in other.margins or (other.margins[key] >= 0) != (own >= 0))
        for key, own in reference.margins.items()
    )


def accuracy(models: Path, data: Path, sets: Sequence[str]) -> None:
    samples = [s for name in sets for s in evaluation.choose(dataset.read(data / name), "test")]
    for name in ("multitask", "classifier"):
        reference: Seen | None = None
        rows: list[dict[str, str]] = []
        for suffix, backend, label in WAYS:
            seen = Seen()
            path = models / f"{name}{suffix}.onnx" if suffix else name
            with Screener.open(path, backend=backend) as screener:
                figures = evaluation.evaluate(screener, samples, seen)
                precision = screener.models[0].precision
            reference = reference or seen
            row = {name: label, **dict(_cells(figures))}
            both = [abs(seen.vcdr[p] - v) for p, v in reference.vcdr.items() if p in seen.vcdr]
            if both:
                row["mean difference of vCDR"] = f"{np.mean(both):.4f}"
            row["decision flips"] = f"{flips(reference, seen, 0)} of {len(reference.margins)}"
            margin = gate.BOUNDS[precision].flip_margin
            row["outside the margin"] = f"{flips(reference, seen, margin)} (±{margin:g})"
            rows.append(row)
            print(f"{name}, {label}: done", file=sys.stderr)
        print(markdown(rows), end="\n\n")


def _cells(figures: dict[str, Any]) -> list[tuple[str, str]]:
    cells = []
    for name, row in figures.items():
        means = [key for key in ("disc_dice", "cup_dice", "vcdr_error") if key in row]
        cells += [(f"{key.replace('_', ' ')}, {name}", f"{row[key]['mean']:.3f}") for key in means]
        if "fovea_error_percent" in row:
            cells.append((f"fovea error, % of width, {name}", f"{row['fovea_error_percent']['mean']:.2f}"))
        if "auc" in row:
            cells.append((f"glaucoma AUC, {name}", f"{row['auc']['averaged']['value']:.3f}"))
        for disease, own in row.get("classifier", {}).items():
            if own.get("auc", {}).get("value") is not None:
                cells.append((f"{disease} AUC, {name}", f"{own['auc']['value']:.3f}"))
    return cells


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """Figures downwards, precisions across."""
    titles = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join([title, *(row.get(title, "") for row in rows)]) + " |" for title in titles]
    lines.insert(1, "|" + "---|" * (len(rows) + 1))
    return "\n".join(lines)


def speed(models: Path, batch: int) -> None:
    """By turns, and the best round of each: the median of torch moves by half with what ran just before it."""

    from funduscope.export import onnx as export

    twin = export.from_onnx(contract.read("multitask"))
    networks: dict[str, tuple[Any, dict[str, Path | str]]] = {
        "compact": (twin, {"": "multitask", **{s: models / f"multitask{s}.onnx" for s in ("-fp16", "-int8")}}),
        "width 1": width_1(models),
    }
    for title, (network, files) in networks.items():
        times = _times(network, files, batch)
        rows = [
            {
                f"{title}, batch {batch}": label,
                "images/s": f"{batch / seconds:.1f}",
                "times torch eager": f"{times['fp32, torch eager'] / seconds:.1f}",
            }
            for label, seconds in times.items()
        ]
        print(markdown(rows), end="\n\n")


def _times(network: Any, files: dict[str, Path | str], batch: int) -> dict[str, float]:
    """Seconds for a batch in each way, of the best round."""
    import torch

    images = np.random.default_rng(0).integers(0, 256, (batch, *_shape(files[""])), np.uint8)
    tensor = torch.from_numpy(images)
    runs: dict[str, Callable[[], Any]] = {"fp32, torch eager": lambda: network(tensor)}
    for suffix, backend, label in (*WAYS, ("", "openvino", "fp32, OpenVINO")):
        runner = runners.open_runner(contract.read(files[suffix]), backend, max_batch=batch)[1]
        runs[label] = functools.partial(runner, images)
    times: dict[str, list[float]] = {label: [] for label in runs}
    with torch.inference_mode():
        for turn in range(ROUNDS + 1):
            for label, run in runs.items():
                begin = time.perf_counter()
                run()
                if turn:  # the first warms up
                    times[label].append(time.perf_counter() - begin)
    return {label: min(own) for label, own in times.items()}


def _shape(path: Path | str) -> list[int]:
    return [int(side) for side in contract.read(path).contract.input.shape[1:]]


def width_1(models: Path) -> tuple[Any, dict[str, Path | str]]:
    """The full-size network with untrained weights: they serve for speed, and for nothing else."""
    import torch

    from funduscope.export import half, int8, onnx, stamp
    from funduscope.training.multitask.networks import OUTPUTS, Deployed, MultiTaskUNet

    document = contract.read("multitask").contract
    torch.manual_seed(0)
    network = onnx.folded(Deployed(MultiTaskUNet(1.0, 0.0)).eval())
    proto = onnx.to_onnx(network, document.geometry.size, OUTPUTS)
    images = np.random.default_rng(1).integers(0, 256, (4, *document.input.shape[1:]), np.uint8)  # type: ignore[arg-type]
    made = {
        "": (proto, "fp32"),
        "-fp16": (half.to_half(proto), "fp16"),
        "-int8": (int8.to_int8(proto, images, lambda _: gate.Report(0, ()))[0], "int8"),
    }
    files: dict[str, Path | str] = {}
    for suffix, (graph, precision) in made.items():
        files[suffix] = models / f"untrained-width-1{suffix}.onnx"
        stamp.stamp(graph, document.model_copy(update={"precision": precision}), Path(files[suffix]))
    return network, files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["accuracy", "speed"])
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
        parser.error("accuracy needs --data, the folder of the data sets")
    else:
        accuracy(options.models, options.data, options.sets)


if __name__ == "__main__":
    main()
