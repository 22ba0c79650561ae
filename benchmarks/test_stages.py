"""Each stage of the way of one photograph alone, on the sample picture (1411 x 1411 JPEG). Each asserts its result."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from funduscope.engine import contract, models, runners
from funduscope.engine.pictures import photo, preprocess
from funduscope.engine.pictures.preprocess import Prepared
from funduscope.engine.readers.multitask import MultiTask
from funduscope.engine.screener import Screener
from funduscope.postprocess import anatomy

OUTPUTS = ("disc", "cup", "fovea", "glaucoma")
BOTH = "multitask+classifier"


def _note_rate(benchmark: Any, pictures: int) -> None:
    if benchmark.stats:  # None where timing is switched off
        benchmark.extra_info["pictures_per_second"] = round(pictures / benchmark.stats["median"], 1)


def test_decode(benchmark: Any, cc0: Path) -> None:
    data = cc0.read_bytes()
    read = benchmark(photo.load, data)
    assert read.pixels.shape == (1411, 1411, 3)


def test_prepare(benchmark: Any, cc0: Path, model: contract.Model) -> None:
    picture, geometry = photo.load(cc0), model.contract.geometry.build()
    made = benchmark(preprocess.prepare, picture, geometry)
    assert made.image.shape == (geometry.size, geometry.size, 3)


def test_postprocess(benchmark: Any, model: contract.Model, prepared: Prepared, runner: runners.Runner) -> None:
    assert isinstance(model.contract, MultiTask)
    maps = {name: output[0] for name, output in runner(prepared.image[None]).items()}
    found = benchmark(anatomy.measure, maps, model.contract.rules.build())
    assert found.vcdr is not None
    assert 0 < found.vcdr <= 1


@pytest.mark.benchmark(group="inference")
def test_inference_engine(benchmark: Any, images: np.ndarray, runner: runners.Runner) -> None:
    outputs = benchmark(runner, images)
    assert outputs["disc"].shape == images.shape[:3]
    _note_rate(benchmark, len(images))


@pytest.mark.benchmark(group="inference")
def test_inference_bare_onnxruntime(
    benchmark: Any, images: np.ndarray, bare: onnxruntime.InferenceSession, runner: runners.Runner
) -> None:
    outputs = dict(zip(OUTPUTS, benchmark(bare.run, list(OUTPUTS), {"images": images}), strict=True))
    np.testing.assert_allclose(outputs["disc"], runner(images)["disc"], atol=1e-5)
    _note_rate(benchmark, len(images))


@pytest.mark.benchmark(group="inference")
def test_inference_torch_eager(
    benchmark: Any, images: np.ndarray, model: contract.Model, runner: runners.Runner
) -> None:
    torch = pytest.importorskip("torch", reason="the torch figure needs the extra `train`")
    weights = pytest.importorskip("funduscope.export.onnx").weights_of(model)
    twin = pytest.importorskip("funduscope.training.multitask.deploy").from_weights(weights)
    batch = torch.from_numpy(images)
    with torch.inference_mode():
        outputs = dict(zip(OUTPUTS, benchmark(twin, batch), strict=True))
    np.testing.assert_allclose(outputs["disc"].numpy(), runner(images)["disc"], atol=1e-4)
    _note_rate(benchmark, len(images))


@pytest.mark.benchmark(group="classifier")
def test_classifier_engine(benchmark: Any, cc0: Path, batch: int) -> None:
    images, model = _classifier_images(cc0, batch)
    with runners.open_runner(model, "onnxruntime", max_batch=batch) as opened:
        outputs = benchmark(opened, images)
    assert outputs["referable_dr"].shape == (batch,)
    _note_rate(benchmark, batch)


@pytest.mark.benchmark(group="classifier")
def test_classifier_bare_onnxruntime(benchmark: Any, cc0: Path, batch: int) -> None:
    images, model = _classifier_images(cc0, batch)
    session = onnxruntime.InferenceSession(model.data, providers=["CPUExecutionProvider"])
    (probabilities,) = benchmark(session.run, ["referable_dr"], {"images": images})
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    _note_rate(benchmark, batch)


def _classifier_images(cc0: Path, batch: int) -> tuple[np.ndarray, contract.Model]:
    model = models.load("classifier")
    prepared = preprocess.prepare(photo.load(cc0), model.contract.geometry.build())
    return np.repeat(prepared.image[None], batch, axis=0), model


@pytest.mark.benchmark(group="end to end")
def test_one_picture(benchmark: Any, cc0: Path, screener: Screener) -> None:
    data = cc0.read_bytes()
    result = benchmark(screener, data)
    assert result.status == "ok"


@pytest.mark.benchmark(group="end to end")
def test_each_model_and_both_by_turns(benchmark: Any, cc0: Path) -> None:
    """By turns, so that what else the machine does falls on all three alike: the ratio is what holds."""
    data, times = cc0.read_bytes(), defaultdict[str, list[float]](list)
    with ExitStack() as stack:
        opened = {n: stack.enter_context(Screener.open(*n.split("+"))) for n in ("multitask", "classifier", BOTH)}

        def turn() -> None:
            for name, screener in opened.items():
                begin = time.perf_counter()
                assert screener(data).status == "ok"
                times[name].append(time.perf_counter() - begin)

        benchmark.pedantic(turn, rounds=60, warmup_rounds=3)
    median_ms = {name: 1000 * float(np.median(own)) for name, own in times.items()}
    benchmark.extra_info["median_ms"] = {name: round(value, 1) for name, value in median_ms.items()}
    benchmark.extra_info["both_to_sum"] = round(median_ms[BOTH] / (median_ms["multitask"] + median_ms["classifier"]), 2)


@pytest.mark.benchmark(group="end to end")
def test_stream_of_32(benchmark: Any, cc0: Path, screener: Screener) -> None:
    data = cc0.read_bytes()
    results = benchmark.pedantic(lambda: list(screener.stream([data] * 32)), rounds=3, warmup_rounds=1)
    assert [result.status for result in results] == ["ok"] * 32
    _note_rate(benchmark, 32)
