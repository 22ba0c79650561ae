"""The runner without a network: as strict as a real one, and enough for a whole screener."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from funduscope import Screener
from funduscope.engine import runners
from funduscope.engine.runners import FakeRunner

IMAGES = np.zeros((3, 8, 8, 3), np.uint8)


def counted(images):
    return {"count": np.full(len(images), len(images), np.float32)}


def test_it_answers_with_its_functions_outputs_and_counts_the_pictures_of_each_call():
    with FakeRunner(counted, max_batch=3) as runner:
        np.testing.assert_array_equal(runner(IMAGES)["count"], [3, 3, 3])
        runner(IMAGES[:1])
        assert runner.batches == [3, 1]
        assert not runner.closed
    assert runner.closed


def test_it_has_all_that_a_runner_has():
    runner = FakeRunner(counted, 5, precision="fp16", slots=2)
    assert (runner.max_batch, runner.precision, runner.slots) == (5, "fp16", 2)
    wanted = {
        *runners.Runner.__annotations__,
        *(n for n, own in vars(runners.Runner).items() if inspect.isfunction(own)),
    }
    assert not [name for name in wanted if not name.startswith("_") and not hasattr(runner, name)]
    assert wanted > {"max_batch", "precision", "slots", "close", "__call__", "__enter__", "__exit__"}
    assert inspect.signature(FakeRunner.__call__) == inspect.signature(runners.Runner.__call__)


@pytest.mark.parametrize(
    "images",
    [IMAGES[:0], np.concatenate([IMAGES, IMAGES]), IMAGES[0], IMAGES.astype(np.float32)],
    ids=["none", "too many", "no batch", "another type"],
)
def test_what_a_real_one_refuses_it_refuses(images):
    runner = FakeRunner(counted, max_batch=4)
    with pytest.raises(AssertionError):
        runner(images)
    assert runner.batches == []


def test_closed_it_refuses():
    runner = FakeRunner(counted)
    runner.close()
    runner.close()
    with pytest.raises(AssertionError, match="the runner is closed"):
        runner(IMAGES)


def test_the_example_of_its_docstring_runs(classifier, fundus):
    sizes = {own.name: own.shape[1:] for own in classifier.contract.outputs}
    runner = FakeRunner(lambda images: {n: np.full((len(images), *s), 0.9, np.float32) for n, s in sizes.items()})
    with Screener.of([classifier], [runner]) as screener:
        assert screener(fundus()).decisions["referable_dr"].called
    assert runner.batches == [1]
