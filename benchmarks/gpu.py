"""The ladder on one NVIDIA GPU: every way to run the multi-task network, in one run, beside what the device can do at most.

    python benchmarks/gpu.py --work FOLDER

What cannot run here is listed with its cause. FOLDER gets the engines and gpu.json, which is written anew after each row;
Markdown is printed. Latency is that of one thread at batch 1, images a second are those of two threads that call at once.
Nothing is padded: each size of batch has an engine of its own. fp32 means fp32 everywhere, TF32 is off. The compact
network has the embedded weights; the one of width 1 is untrained, which serves for speed alone.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import precision
import torch

from funduscope.engine import contract, models, runners
from funduscope.engine.errors import FunduscopeError
from funduscope.engine.files import write_text
from funduscope.engine.gate import pictures
from funduscope.engine.gate.verify import verify_engine
from funduscope.engine.pictures import photo, preprocess
from funduscope.engine.results import Rejected
from funduscope.engine.runners import gpu
from funduscope.engine.runners.tensorrt import engines
from funduscope.engine.runners.tensorrt.engines import Profile
from funduscope.engine.runners.tensorrt.libraries import Name
from funduscope.engine.runners.tensorrt.runner import RUNNERS
from funduscope.engine.screener import Screener
from funduscope.export import convert, half, tensorrt
from funduscope.export import onnx as export
from funduscope.training.multitask.deploy import from_weights
from funduscope.training.multitask.networks import Deployed

BATCHES = (1, 8, 32, 128)
THREADS = 2  # as many as a runner on a GPU has slots
WARM_UP = 6  # calls
CALLS = 200  # of which latency is told
PICTURES = 2048  # of which images a second are told
BATCH, PHOTOGRAPHS, ON_CPU = 32, 512, 64  # end to end: at once, in all, and in all where the CPU alone computes
PICTURE = Path(__file__).parents[1] / "examples" / "retina_cc0.jpg"
Row = dict[str, Any]
Run = Callable[[np.ndarray], Any]
Way = Callable[[int], AbstractContextManager[Run]]
"""Opens a way to run the network for batches of one size."""


def attempted(measure: Callable[[], Row]) -> Row:
    """What was measured, or why it was not."""
    try:
        return measure()
    except Exception as error:  # every way is tried, and its cause told
        first, *_ = str(error).strip().splitlines() or ["no message"]
        return {"not run": f"{type(error).__name__}: {first[:200]}"}


def ceilings() -> Row:
    """What the device copies and multiplies at most."""
    host, device = torch.empty(1 << 28, dtype=torch.uint8).pin_memory(), torch.empty(1 << 28, dtype=torch.uint8).cuda()
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    return {
        "host to device, GB/s": (1 << 28) / _seconds(lambda: device.copy_(host, non_blocking=True)) / 1e9,
        "device to host, GB/s": (1 << 28) / _seconds(lambda: host.copy_(device, non_blocking=True)) / 1e9,
        "fp16 matrix product, TFLOP/s": 2 * 8192**3 / _seconds(lambda: a @ b) / 1e12,
    }


def _seconds(run: Callable[[], Any], rounds: int = 20) -> float:
    run()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(rounds):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / rounds


def halved(network: Deployed) -> Deployed:
    """A copy whose learned core is in half, as in our own fp16 file: arithmetic on pixels and sigmoids stay in float."""
    made = copy.deepcopy(network)
    for part in made.network.children():
        part.half()
    made.network.encoder.register_forward_pre_hook(lambda _, pixels: (pixels[0].half(),))
    made.network.register_forward_hook(lambda _, __, logits: {name: own.float() for name, own in logits.items()})
    return made


@contextmanager
def in_torch(network: Deployed, kind: str, _batch: int) -> Iterator[Run]:
    """torch as someone writes it who cares: pinned copies both ways, a stream for each thread, channels last."""
    made = halved(network) if kind.endswith("fp16") else copy.deepcopy(network)
    made = made.cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    called = torch.compile(made, fullgraph=True, dynamic=False) if kind.startswith("compile") else made
    torch.cuda.synchronize()
    streams = defaultdict[int, torch.cuda.Stream](torch.cuda.Stream)

    @torch.inference_mode()
    def run(images: np.ndarray) -> list[np.ndarray]:
        stream = streams[threading.get_ident()]
        with torch.cuda.stream(stream):
            outputs = called(torch.from_numpy(images).pin_memory().cuda(non_blocking=True))
            answers = [output.to("cpu", non_blocking=True) for output in outputs]  # which torch pins
        stream.synchronize()
        return [answer.numpy() for answer in answers]

    try:
        yield run
    finally:
        torch.compiler.reset()
        torch.cuda.empty_cache()


@contextmanager
def bare(model: contract.Model, _batch: int) -> Iterator[Run]:
    """ONNX Runtime's CUDA provider without this project."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.data, providers=[("CUDAExecutionProvider", {"use_tf32": 0})])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise FunduscopeError(f"ONNX Runtime took {session.get_providers()}")
    yield lambda images: session.run(None, {"images": images})


@contextmanager
def ours(model: contract.Model, backend: str, batch: int) -> Iterator[Run]:
    with runners.open_runner(model, backend, max_batch=batch) as runner:
        yield runner


@contextmanager
def engine(model: contract.Model, library: Name, graphs: bool, trained: bool, where: Path, batch: int) -> Iterator[Run]:
    """A TensorRT engine for this batch alone, let through the gate where the weights are such that it can tell."""
    made, _ = tensorrt.build(model, library, Profile(min=batch, opt=batch, max=batch), None, where)
    if trained and not made.facts.verified:
        verify_engine(model, made, pictures.views(model.contract.geometry.build()), pictures.ON_VIEWS)
    with RUNNERS[library](model, max_batch=batch, engine=made, graphs=graphs) as runner:
        yield runner


def ladder(
    title: str, network: Deployed, models: Sequence[contract.Model], trained: bool, where: Path
) -> Iterator[Row]:
    """A row for every way. models: the same network as files, fp32 first."""
    ways: dict[str, Way] = {
        f"torch {kind}": partial(in_torch, network, kind) for kind in ("eager fp32", "eager fp16", "compile fp16")
    }
    ways["ONNX Runtime CUDA fp32, bare"] = partial(bare, models[0])
    for model in models:
        ways[f"onnxruntime-cuda {model.contract.precision}"] = partial(ours, model, "onnxruntime-cuda")
        for library in RUNNERS:
            for graphs in (False, True):
                label = f"{library} {model.contract.precision}{', CUDA graph' if graphs else ''}"
                ways[label] = partial(engine, model, library, graphs, trained, where)
    whole = preprocess.prepare(photo.load(PICTURE), models[0].contract.geometry.build()).image
    for label, way in ways.items():
        row: Row = {"network": title, "way": label}
        for batch in BATCHES:
            row |= attempted(partial(figures, way, np.repeat(whole[None], batch, axis=0)))
            if "not run" in row:  # nor will a larger one
                break
        yield row


def figures(way: Way, images: np.ndarray) -> Row:
    with way(len(images)) as run:
        if len(images) == 1:
            return latency(run, images)
        return {f"images/s at {len(images)}": rate(run, images)}


def latency(run: Run, images: np.ndarray) -> Row:
    times = []
    for _ in range(WARM_UP + CALLS):
        begin = time.perf_counter()
        run(images)
        times.append(1000 * (time.perf_counter() - begin))
    return {f"p{q}, ms": float(np.percentile(times[WARM_UP:], q)) for q in (50, 95, 99)}


def rate(run: Run, images: np.ndarray) -> float:
    """Images a second: one batch is copied while another is computed, where the way allows it."""
    run(images)  # torch compiles in one thread at a time
    with ThreadPoolExecutor(THREADS) as pool:
        for calls in (WARM_UP, max(WARM_UP, PICTURES // len(images))):
            begin = time.perf_counter()
            for _ in pool.map(run, [images] * calls):
                pass
            seconds = time.perf_counter() - begin
    return calls * len(images) / seconds


def end_to_end(models: Sequence[contract.Model]) -> Iterator[Row]:
    """Photographs a second from JPEG bytes, through the whole engine."""
    for backend in reversed(runners.AUTO):
        for model in models:
            row: Row = {"way": f"{backend} {model.contract.precision}"}
            yield row | attempted(partial(photographs, model.path, backend))


def photographs(path: Path, backend: str) -> Row:
    pictures = [PICTURE.read_bytes()] * (ON_CPU if backend == "onnxruntime" else PHOTOGRAPHS)
    with Screener.open(path, backend=backend, batch=BATCH) as screener:
        for _ in range(2):  # the first warms up
            begin = time.perf_counter()
            for result in screener.stream(pictures, workers=os.cpu_count() or 1):
                if isinstance(result, Rejected):
                    raise FunduscopeError(f"{PICTURE.name} is rejected: {result.code}: {result.reason}")
            seconds = time.perf_counter() - begin
    return {"photographs/s": len(pictures) / seconds}


def rows(work: Path) -> Iterator[tuple[str, Row]]:
    """All parts, row by row as they are measured."""
    where = work / "engines"
    os.environ[engines.FOLDER_VARIABLE] = str(where)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    yield "device", asdict(gpu.device()) | _versions()
    yield "ceilings", attempted(ceilings)
    shipped = models.load("multitask")
    views = pictures.views(shipped.contract.geometry.build())
    compact = [shipped, convert.to_fp16(shipped, work / "multitask-fp16.onnx", views)[0]]
    yield from (
        ("ladder", row) for row in ladder("compact", from_weights(export.weights_of(shipped)), compact, True, where)
    )
    yield from (("end to end", row) for row in end_to_end(compact))
    network, proto, _ = precision.width_1()
    files = [
        precision.written(proto, "fp32", work / "untrained-width-1.onnx"),
        precision.written(half.to_half(proto), "fp16", work / "untrained-width-1-fp16.onnx"),
    ]
    wide = [models.load(file) for file in files]
    yield from (("ladder", row) for row in ladder("width 1", network, wide, False, where))


def _versions() -> Row:
    installed = {d.name: d.version for d in importlib.metadata.distributions() if d.name}
    wanted = re.compile(r"torch|pycuda|onnxruntime(-gpu)?|tensorrt([-_]rtx)?([-_]cu\d+)?")
    return {name: version for name, version in sorted(installed.items()) if wanted.fullmatch(name)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    record = defaultdict[str, list[Row]](list)
    try:
        for part, row in rows(work):
            record[part].append(row)
            write_text(work / "gpu.json", json.dumps(record, indent=1) + "\n")
            print(f"{part}: {row}", flush=True)
    finally:
        for own in record.values():
            print(markdown(own), end="\n\n")


def markdown(part: Sequence[Row]) -> str:
    titles = list(dict.fromkeys(key for row in part for key in row))
    lines = [titles, ["---"] * len(titles), *([_cell(row.get(title, "")) for title in titles] for row in part)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
