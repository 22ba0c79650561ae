"""Which runner is opened, and that none serves before the gate has let it pass. What TensorRT's own do is in test_tensorrt.py."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from example_engine import facts  # which conftest.py loads

from funduscope.engine import runners
from funduscope.engine.errors import BackendError, MissingExtra, ModelError, OutputError, SettingsError
from funduscope.engine.gate import opening
from funduscope.engine.runners import AUTO, FakeRunner
from funduscope.engine.runners.tensorrt.engines import Engine, Unverified

ENGINE = Engine(Path("x.engine"), facts())
OPTIONS = {"max_batch": 4, "threads": 3, "device": 1}


@pytest.fixture
def machine(monkeypatch):
    """What backends there are: `machine(backend=error or None)`; those that are not named work. Gives a list of all that
    happens: the backends that are opened, with what, and the engines that are verified."""

    def make(**answers):
        happened = []

        def open_runner(model, backend, **options):
            happened.append((backend, options))
            answer = answers.get(backend.replace("-", "_"))
            if isinstance(answer, list):
                answer = answer.pop(0)
            if answer is not None:
                raise answer
            return FakeRunner(lambda images: {})

        monkeypatch.setattr(runners, "open_runner", open_runner)
        monkeypatch.setattr(opening, "verify_new", lambda model, engine, device: happened.append((engine, device)))
        return happened

    return make


@pytest.mark.parametrize("backend", runners.BACKENDS)
def test_the_backend_that_is_asked_for_is_opened_with_all_that_is_said(machine, model, backend):
    happened = machine()
    name, runner = opening.open_runner(model, backend, **OPTIONS)
    assert name == backend
    assert isinstance(runner, FakeRunner)
    assert happened == [(backend, OPTIONS)]


def test_what_the_backend_says_is_passed_on(machine, model):
    for error in (BackendError("x"), ModelError("y")):
        machine(openvino=error)
        with pytest.raises(type(error)) as caught:
            opening.open_runner(model, "openvino", max_batch=1)
        assert caught.value is error


def test_an_engine_that_is_new_here_is_verified_and_then_opened(machine, model):
    happened = machine(tensorrt=[Unverified(model.path, ENGINE), None])
    name, _ = opening.open_runner(model, "tensorrt", **OPTIONS)
    assert name == "tensorrt"
    assert happened == [("tensorrt", OPTIONS), (ENGINE, 1), ("tensorrt", OPTIONS)]


def test_an_engine_that_does_not_pass_is_not_opened(machine, model, monkeypatch):
    happened = machine(tensorrt=[Unverified(model.path, ENGINE), None])

    def fails(*arguments):
        raise ModelError("deleted")

    monkeypatch.setattr(opening, "verify_new", fails)
    with pytest.raises(ModelError, match="deleted"):
        opening.open_runner(model, "tensorrt", max_batch=1)
    assert len(happened) == 1


def test_auto_takes_the_first_that_works_and_says_why_not_the_others(machine, model, caplog):
    happened = machine(
        tensorrt=MissingExtra("no tensorrt\nmore of it"), tensorrt_rtx=ModelError("no engine"), onnxruntime_cuda=None
    )
    with caplog.at_level(logging.INFO, logger="funduscope"):
        name, _ = opening.open_runner(model, "auto", **OPTIONS)
    assert name == "onnxruntime-cuda"
    assert happened == [(backend, OPTIONS) for backend in AUTO[:3]]
    assert [record.message for record in caplog.records] == [
        f"{model.contract.name}: not tensorrt: no tensorrt",
        f"{model.contract.name}: not tensorrt-rtx: no engine",
        f"{model.contract.name}: backend onnxruntime-cuda (auto)",
    ]


def test_a_backend_that_is_named_is_said_too(machine, model, caplog):
    machine()
    with caplog.at_level(logging.INFO, logger="funduscope"):
        opening.open_runner(model, "openvino", max_batch=1)
    assert [record.message for record in caplog.records] == [f"{model.contract.name}: backend openvino (named)"]


def test_auto_verifies_an_engine_that_is_new_here_too(machine, model):
    happened = machine(tensorrt=[Unverified(model.path, ENGINE), None])
    assert opening.open_runner(model, "auto", max_batch=1)[0] == "tensorrt"
    assert (ENGINE, 0) in happened


def test_auto_takes_the_next_where_an_engine_does_not_pass_or_that_cannot_be_written_down(machine, model, monkeypatch):
    for error in (ModelError("deleted"), OutputError("cannot be written")):
        machine(tensorrt=[Unverified(model.path, ENGINE)], tensorrt_rtx=None)

        def fails(*arguments, error=error):
            raise error

        monkeypatch.setattr(opening, "verify_new", fails)
        assert opening.open_runner(model, "auto", max_batch=1)[0] == "tensorrt-rtx"


def test_what_the_last_says_is_passed_on(machine, model):
    nothing = {backend.replace("-", "_"): BackendError(backend) for backend in AUTO}
    happened = machine(**nothing)
    with pytest.raises(BackendError, match=AUTO[-1]):
        opening.open_runner(model, "auto", max_batch=1)
    assert [backend for backend, _ in happened] == list(AUTO)


def test_a_programmers_mistake_is_not_passed_over(machine, model):
    for error in (AssertionError(), SettingsError("wrong")):
        machine(tensorrt=error)
        with pytest.raises(type(error)):
            opening.open_runner(model, "auto", max_batch=1)


def test_auto_opens_something_here(model, caplog):
    with caplog.at_level(logging.INFO, logger="funduscope"):
        name, runner = opening.open_runner(model, "auto", max_batch=1, threads=1)
    runner.close()
    assert name in AUTO
    assert f"{model.contract.name}: backend {name} (auto)" in caplog.text
