"""The ladder on one NVIDIA GPU: every way to run the multi-task network, in one run, beside what the device can do at most.

    python benchmarks/gpu.py --work FOLDER

What cannot run here is listed with its cause. Prints Markdown; FOLDER gets the engines and gpu.json. The compact network has
the embedded weights; the one of width 1 is untrained, which serves for speed alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import precision
import torch

from funduscope.engine import contract, engines, gpu, photo, preprocess, runners, verify
from funduscope.engine.errors import FunduscopeError
from funduscope.engine.runners.tensorrt import RUNNERS
from funduscope.engine.screener import Screener
from funduscope.export import convert, tensorrt
from funduscope.export import onnx as export

BATCHES = (1, 8, 32, 128)
PICTURE = Path(__file__).parents[1] / "examples" / "retina_cc0.jpg"
Run = Callable[[np.ndarray], Any]


def ceilings() -> dict[str, float]:
    """What the device copies and multiplies at most."""
    host, device = torch.empty(1 << 28, dtype=torch.uint8).pin_memory(), torch.empty(1 << 28, dtype=torch.uint8).cuda()
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    copy, multiply = (_seconds(run, 10) for run in (lambda: device.copy_(host, non_blocking=True), lambda: a @ b))
    return {
        "host to device, GB/s": (1 << 28) / copy / 1e9,
        "fp16 matrix product, TFLOP/s": 2 * 8192**3 / multiply / 1e12,
    }


def _seconds(run: Callable[[], Any], rounds: int) -> float:
    run()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(rounds):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / rounds


@contextmanager
def in_torch(network: torch.nn.Module, kind: str) -> Iterator[Run]:
    """torch with pinned copies both ways, as someone would write it who cares."""
    network = network.cuda().eval()
    called = torch.compile(network) if kind == "compile fp16" else network

    @torch.inference_mode()
    def run(images: np.ndarray) -> list[np.ndarray]:
        tensor = torch.from_numpy(images).pin_memory().cuda(non_blocking=True)
        with torch.autocast("cuda", torch.float16, enabled=kind != "eager fp32"):
            outputs = called(tensor)
        return [output.float().cpu().numpy() for output in outputs]

    yield run
    network.cpu()


@contextmanager
def bare(model: contract.Model) -> Iterator[Run]:
    """ONNX Runtime's CUDA provider without this project."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.data, providers=["CUDAExecutionProvider"])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise FunduscopeError(f"ONNX Runtime took {session.get_providers()}")
    yield lambda images: session.run(None, {"images": images})


@contextmanager
def engine(
    model: contract.Model, reference: contract.Model | None, library: str, graphs: bool, where: Path
) -> Iterator[Run]:
    """A TensorRT engine, built, and let through the gate where the weights are such that it can tell."""
    profile = engines.Profile(min=1, opt=BATCHES[-2], max=BATCHES[-1])
    made, _ = tensorrt.build(model, library, profile, None, where)  # type: ignore[arg-type]
    if reference is not None and not made.facts.verified:
        verify.engine(reference, made, verify.views(reference.contract.geometry.build()), verify.SELF_CHECK)
    with RUNNERS[made.facts.library](model, max_batch=BATCHES[-1], engine=made, graphs=graphs) as runner:
        yield runner


@contextmanager
def ours(model: contract.Model, backend: str) -> Iterator[Run]:
    with runners.open_runner(model, backend, max_batch=BATCHES[-1])[1] as runner:
        yield runner


def ladder(
    title: str, network: torch.nn.Module, files: dict[str, Path | str], trained: bool, where: Path
) -> list[dict[str, Any]]:
    """A row for every way: latency at batch 1, images a second at the others, or why it did not run."""
    models = {suffix: contract.read(path) for suffix, path in files.items()}
    whole = preprocess.prepare(photo.read(PICTURE), models[""].contract.geometry.build()).image
    ways: dict[str, Any] = {
        f"torch {kind}": in_torch(network, kind) for kind in ("eager fp32", "eager fp16", "compile fp16")
    }
    ways["ONNX Runtime CUDA fp32, bare"] = bare(models[""])
    for model in models.values():
        ways[f"onnxruntime-cuda {model.contract.precision}"] = ours(model, "onnxruntime-cuda")
        for library in RUNNERS:
            for graphs in (False, True):
                label = f"{library} {model.contract.precision}{', CUDA graph' if graphs else ''}"
                ways[label] = engine(model, models[""] if trained else None, library, graphs, where)
    rows = []
    for label, opening in ways.items():
        row: dict[str, Any] = {"network": title, "way": label}
        try:
            with opening as run:
                for batch in BATCHES:
                    images = np.repeat(whole[None], batch, axis=0)
                    times = _times(run, images, 200 if batch == 1 else 20)
                    if batch == 1:
                        row["p50, ms"], row["p99, ms"] = (1000 * float(np.percentile(times, q)) for q in (50, 99))
                    else:
                        row[f"images/s at {batch}"] = batch / float(np.median(times))
        except Exception as error:  # every way is tried, and its cause told
            row["not run"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        rows.append(row)
        print(row, flush=True)
    return rows


def _times(run: Run, images: np.ndarray, rounds: int) -> list[float]:
    times = []
    for turn in range(rounds + 5):
        begin = time.perf_counter()
        run(images)
        if turn >= 5:
            times.append(time.perf_counter() - begin)
    return times


def end_to_end(files: dict[str, Path | str]) -> list[dict[str, Any]]:
    """Photographs a second from JPEG bytes, through the whole engine."""
    data, rows = PICTURE.read_bytes(), []
    for backend in ("onnxruntime", *runners.AUTO[:-1]):
        for suffix, path in files.items():
            row: dict[str, Any] = {"way": f"{backend}{suffix}"}
            try:
                with ExitStack() as stack:
                    screener = stack.enter_context(Screener.open(path, backend=backend, batch=32))
                    count = 64 if backend == "onnxruntime" else 512
                    for _ in range(2):  # the first warms up
                        begin = time.perf_counter()
                        for result in screener.stream([data] * count, workers=os.cpu_count() or 1):
                            assert result.status == "ok"
                        row["photographs/s"] = count / (time.perf_counter() - begin)
            except Exception as error:
                row["not run"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    os.environ[engines.FOLDER_VARIABLE] = str(work / "engines")
    read = contract.read("multitask")
    files: dict[str, Path | str] = {"": "multitask", "-fp16": work / "multitask-fp16.onnx"}
    convert.to_fp16(read, Path(files["-fp16"]), verify.views(read.contract.geometry.build()))
    record: dict[str, Any] = {"device": gpu.first().__dict__, "torch": torch.__version__, "ceilings": ceilings()}
    print(record, flush=True)
    record["ladder"] = ladder("compact", export.from_onnx(read), files, True, work / "engines")
    record["end to end"] = end_to_end(files)
    network, wide = precision.width_1(work)
    record["ladder"] += ladder(
        "width 1", network, {k: v for k, v in wide.items() if k != "-int8"}, False, work / "engines"
    )
    (work / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")
    for part in ("ladder", "end to end"):
        titles = list(dict.fromkeys(key for row in record[part] for key in row))
        lines = [titles, ["---"] * len(titles), *([_cell(row.get(t, "")) for t in titles] for row in record[part])]
        print("\n".join("| " + " | ".join(line) + " |" for line in lines), end="\n\n")


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
