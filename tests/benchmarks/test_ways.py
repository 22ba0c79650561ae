"""What is measured beside this engine computes the same, and what cannot be had is told."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import cv2
import numpy as np
import pytest
import sizes
import ways

from funduscope.engine import models
from funduscope.engine.errors import ModelError


@pytest.fixture(params=models.embedded())
def model(request):
    return models.load(request.param)


def test_torch_gives_what_the_file_gives(model):
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    side = model.contract.geometry.size
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    with ways.plain(model) as plain, ways.in_torch(model) as in_torch:
        expected, seen = plain(images), in_torch(images)
        other = in_torch(images[::-1].copy())
    assert list(seen) == list(expected) == list(other)
    for name, values in expected.items():
        np.testing.assert_allclose(seen[name], values, rtol=0, atol=1e-3)
    assert any(np.abs(other[name] - values).max() > 1e-3 for name, values in expected.items())  # and can fail


def test_a_network_that_is_not_trained_here_is_refused(classifier):
    pytest.importorskip("torch")
    with pytest.raises(ModelError, match="no network that is trained here has its weights"), ways.in_torch(classifier):
        pass


def test_what_cannot_be_had_is_told_and_the_others_are_opened(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    with ExitStack() as stack:
        there, absent = ways.opened(stack, ways.of_network(model, 1))
    assert {"onnxruntime fp32", ways.PLAIN} <= set(there)
    assert "funduscope[openvino]" in absent["openvino fp32"]
    assert "torch" in absent[ways.EAGER]
    assert not set(there) & set(absent)


def test_every_backend_and_conversion_is_a_way():
    labels = set(ways.end_to_end())
    assert {"onnxruntime fp32", "openvino fp32", "openvino-bf16", ways.TUNED} <= labels
    for own in set.intersection(*(set(ways.precisions(models.load(name))) for name in models.embedded())):
        assert f"onnxruntime {own}" in labels


def test_a_loop_sees_what_the_engine_sees():
    paths = [models.locate(name) for name in models.embedded()]
    with ways.loop(ways.PLAIN) as loop, ways.ours(paths, "onnxruntime") as ours:
        data = sizes.jpeg("sample")
        naive, own = loop.told(loop.one(data)), ours.told(ours.one(data))
        (again,) = ours.many([sizes.SAMPLE])
        assert ours.told(again) == pytest.approx(own, abs=1e-5)
        (again,) = loop.many([sizes.SAMPLE])
        assert loop.told(again) == naive
    assert naive == pytest.approx(own, abs=0.05)
    assert naive.keys() == own.keys()


@pytest.mark.parametrize("size", sizes.SIDES)
def test_pictures_have_the_sizes_that_are_said(size):
    picture = cv2.imdecode(np.frombuffer(sizes.jpeg(size), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (sizes.SIDES[size], sizes.SIDES[size], 3)
