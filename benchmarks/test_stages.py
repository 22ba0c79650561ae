"""The stages of one photograph's way, by turns at each size of picture: where its time goes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import sizes
import turns
import ways

from funduscope.engine import drawing, models, runners
from funduscope.engine.errors import FunduscopeError
from funduscope.engine.findings import Findings
from funduscope.engine.gate import verify
from funduscope.engine.pictures import photo, preprocess
from funduscope.engine.pictures.preprocess import Prepared
from funduscope.engine.readers.outputs import Looked
from funduscope.engine.readers.reader import Reader
from funduscope.engine.results import Result, Screening
from funduscope.engine.screener import Screener, in_order

SECONDS = 7  # for all stages of one size
WAYS = (("onnxruntime", "fp32"), ("openvino-bf16", "fp32"))  # of which networks and the whole are measured
NETWORKS = tuple(own.contract.name for own in in_order([models.load(name) for name in models.embedded()]))
STAGES = (
    "hash and decode",
    "field of view",
    *(f"{what} {name}" for what in ("prepare", "read") for name in NETWORKS),
    "draw",
)
OF_A_WAY = (*(f"network {name}" for name in NETWORKS), "whole")
CASES = [
    (size, stage, way)
    for size in sizes.SIDES
    for stage, way in [*((own, "") for own in STAGES), *((own, ways.label_of(*w)) for w in WAYS for own in OF_A_WAY)]
]


def drawn(result: Screening) -> dict[str, bytes]:
    """All drawings of a result, as files have them."""
    assert result.photo is not None
    made = {"": drawing.contoured(result.photo, result)}
    made |= {name: drawing.heated(result.photo, heat) for name, heat in drawing.heat_maps(result).items()}
    return {name: drawing.encoded(picture, ".jpg") for name, picture in made.items()}


def ahead_of(
    reader: Reader, read: photo.Photo, before: Mapping[str, tuple[Reader, Looked]], found: Findings
) -> tuple[Callable[[], Prepared], Callable[[Looked], Findings]]:
    """What is done before a model's network runs and after it; of a later look with what it takes of the one before."""
    if reader.after is None:
        return partial(reader.prepare, read), lambda looked: reader.read(found, looked[1], looked[0])
    first, (square, outputs) = before[reader.after]
    of_first = first.read(found, outputs, square)
    return (
        lambda: reader.prepare(first.spot(outputs, square)),
        lambda looked: reader.read(of_first, reader.merged(looked, (square, outputs)), looked[0]),
    )


@functools.cache
def measured(size: str) -> tuple[dict[tuple[str, str], turns.Times], dict[str, str]]:
    """Times by stage and way (none: the same in all), and why a way cannot be had."""
    data = sizes.jpeg(size)
    read = photo.load(data)
    seen = read.at_least(photo.SIDE).pixels
    runs: dict[tuple[str, str], Callable[[], Any]] = {("hash and decode", ""): partial(photo.load, data)}
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        result: Result | None = None
        found = Findings(width=read.width, height=read.height)
        for backend, precision in WAYS:
            label = ways.label_of(backend, precision)
            try:
                files = [ways.precisions(models.load(name))[precision] for name in NETWORKS]
                screener = stack.enter_context(Screener.open(*(own.path for own in files), backend=backend))
                opened = [stack.enter_context(runners.open_runner(own, backend, max_batch=1)) for own in files]
            except (KeyError, FunduscopeError) as error:
                absent[label] = str(error).splitlines()[0]
                continue
            result = result or screener(data)
            runs["whole", label] = partial(screener, data)
            before: dict[str, tuple[Reader, Looked]] = {}  # what a later look is shown, by kind
            for name, model, runner in zip(NETWORKS, files, opened, strict=True):
                reader, threshold = verify.reader_of(model), model.contract.geometry.fov_threshold
                prepare, read_outputs = ahead_of(reader, read, before, found)
                prepared = prepare()
                outputs = {key: value[0] for key, value in runner(prepared.image[None]).items()}
                before[model.contract.kind] = reader, (prepared, outputs)
                runs["field of view", ""] = partial(preprocess.field_of_view, seen, threshold)
                runs[f"prepare {name}", ""] = prepare  # of a photo whose field of view is found already
                runs[f"network {name}", label] = partial(runner, prepared.image[None])
                runs[f"read {name}", ""] = partial(read_outputs, (prepared, outputs))
        assert isinstance(result, Screening)
        fresh = [result]

        def read_anew() -> None:  # a photo keeps what was decoded: a second drawing of it is cheaper
            fresh[0] = replace(result, photo=photo.load(data))

        runs["draw", ""] = lambda: drawn(fresh[0])
        return turns.by_turns(runs, seconds=SECONDS, before={("draw", ""): read_anew}), absent


@pytest.mark.benchmark(timer=turns.clock)
@pytest.mark.parametrize(("size", "stage", "way"), CASES)
def test_stage(benchmark: Any, size: str, stage: str, way: str) -> None:
    found, absent = measured(size)
    if way in absent:
        pytest.skip(absent[way])
    times = found[stage, way]
    check(stage, times.result, sizes.SIDES[size])
    benchmark.group = f"stages, {size} ({sizes.SIDES[size]} px)"
    turns.hand_over(benchmark, times, part="stage", size=size, side=sizes.SIDES[size], stage=stage, way=way)


def check(stage: str, result: Any, side: int) -> None:
    """See that a stage gave what it is for."""
    what, _, name = stage.partition(" ")
    if stage == "hash and decode":
        assert (result.width, result.height, len(result.sha256)) == (side, side, 64)
    elif stage == "field of view":
        left, top, right, bottom = result
        assert 0 <= left < right
        assert 0 <= top < bottom
    elif what == "prepare":
        size = models.load(name).contract.geometry.size
        assert result.image.shape == (size, size, 3)
        assert result.image.max() > 0
    elif what == "network":
        assert all(np.isfinite(output).all() for output in result.values())
    elif what == "read":
        assert result.decisions
        assert all(0 <= own.probability <= 1 for own in result.decisions.values())
    elif what == "draw":
        assert all(data[:2] == b"\xff\xd8" for data in result.values())
    else:
        assert result.status == "ok"
