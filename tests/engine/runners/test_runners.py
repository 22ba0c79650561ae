"""What every backend must do: one test file, a parameter a backend."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

from funduscope.engine import runners
from funduscope.engine.errors import BackendError, ModelError
from funduscope.engine.pictures import photo, preprocess

MAX_BATCH = 4
BOUND = 1e-6  # of a probability, where a backend is not bitwise stable


@pytest.fixture(scope="module", params=sorted(runners.BACKENDS))
def runner(request, model):
    try:
        opened = runners.open_runner(model, request.param, max_batch=MAX_BATCH, threads=1)
    except (BackendError, ModelError) as error:  # an optional backend, its device, or no engine for it
        if request.param == "onnxruntime":
            raise
        pytest.skip(str(error))
    with opened:
        yield opened


@pytest.fixture(scope="module")
def images(model, fundus):
    geometry = model.contract.geometry.build()
    return np.stack([preprocess.prepare(photo.load(fundus(seed=k)), geometry).image for k in range(MAX_BATCH)])


def test_outputs_are_what_the_contract_says(runner, model, images):
    for n in range(1, MAX_BATCH + 1):
        outputs = runner(images[:n])
        assert list(outputs) == [tensor.name for tensor in model.contract.outputs]
        for tensor in model.contract.outputs:
            assert outputs[tensor.name].dtype == tensor.dtype
            assert outputs[tensor.name].shape == (n, *tensor.shape[1:])
            assert np.isfinite(outputs[tensor.name]).all()
            assert outputs[tensor.name].min() >= 0
            assert outputs[tensor.name].max() <= 1


def test_a_picture_gives_the_same_in_any_batch(runner, images):
    together = runner(images)
    for k in range(MAX_BATCH):
        alone = runner(images[k : k + 1])
        for name in together:
            np.testing.assert_allclose(alone[name][0], together[name][k], rtol=0, atol=BOUND)


def test_another_picture_gives_another_answer(runner, images):  # the test above can fail
    outputs = runner(images)
    assert np.abs(outputs["disc"][0] - outputs["disc"][1]).max() > BOUND


def test_repeating_gives_the_same(runner, images):
    first, second = runner(images), runner(images)
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=BOUND)


def test_two_threads_at_once_get_their_own_answers(runner, images):
    alone = [runner(images[k : k + 1]) for k in range(MAX_BATCH)]
    with ThreadPoolExecutor(2) as pool:
        jobs = [(k, pool.submit(runner, images[k : k + 1])) for k in list(range(MAX_BATCH)) * 2]
        for k, job in jobs:
            for name, output in job.result().items():
                np.testing.assert_allclose(output, alone[k][name], rtol=0, atol=BOUND)


def test_returned_arrays_are_the_callers(runner, images):
    first = runner(images[:1])
    kept = {name: output.copy() for name, output in first.items()}
    runner(images[1:2])
    for name in kept:
        np.testing.assert_array_equal(first[name], kept[name])


def test_more_pictures_than_promised_are_a_programmers_error(runner, images):
    with pytest.raises(AssertionError, match="1 to 4"):
        runner(np.concatenate([images, images]))
    with pytest.raises(AssertionError, match="1 to 4"):
        runner(images[:0])


@pytest.mark.parametrize("backend", sorted(runners.BACKENDS))
def test_a_closed_runner_refuses_those_who_wait_and_those_who_come(model, images, backend):
    try:
        opened = runners.open_runner(model, backend, max_batch=1, threads=1)
    except (BackendError, ModelError) as error:
        pytest.skip(str(error))
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(opened, images[:1]) for _ in range(6)]
        opened.close()
        for job in jobs:
            told = job.exception(60)
            assert told is None or (isinstance(told, AssertionError) and str(told) == "the runner is closed")
    opened.close()
    with pytest.raises(AssertionError, match="the runner is closed"):
        opened(images[:1])


def test_an_unknown_backend_is_refused_with_those_there_are(model):
    with pytest.raises(BackendError, match=r"no backend named 'abacus'; there are: auto, .*onnxruntime"):
        runners.open_runner(model, "abacus", max_batch=1)


def test_a_graph_without_the_contracts_tensors_is_refused(model):
    other = model.contract.model_copy(update={"outputs": model.contract.outputs[:2]})
    with pytest.raises(ModelError, match="its outputs are not"):
        runners.open_runner(type(model)(model.path, model.data, other), "onnxruntime", max_batch=1, threads=1)
    other = model.contract.model_copy(update={"input": model.contract.input.model_copy(update={"name": "x"})})
    with pytest.raises(ModelError, match="its input is not x"):
        runners.open_runner(type(model)(model.path, model.data, other), "onnxruntime", max_batch=1, threads=1)


def test_a_graph_that_cannot_be_loaded_is_refused(model):
    with pytest.raises(ModelError, match="ONNX Runtime refuses it"):
        runners.open_runner(type(model)(model.path, b"no graph", model.contract), "onnxruntime", max_batch=1, threads=1)


def test_onnx_runtimes_idle_threads_do_not_spin(model, monkeypatch):
    seen, real = [], onnxruntime.InferenceSession

    def session(data, options, **others):
        seen.append(options)
        return real(data, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    runners.open_runner(model, "onnxruntime", max_batch=1).close()
    (options,) = seen
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.parametrize(("stated", "computed"), [("fp32", "bf16"), ("fp16", "bf16"), ("int8", "int8")])
def test_bf16_is_said_where_the_floats_are_computed_in_it(model, stated, computed):
    own = model.contract.model_copy(update={"precision": stated})
    try:
        opened = runners.open_runner(type(model)(model.path, model.data, own), "openvino-bf16", max_batch=1)
    except BackendError as error:
        pytest.skip(str(error))
    with opened:
        assert opened.precision == computed
