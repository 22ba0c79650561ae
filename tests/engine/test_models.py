"""Model files: whole or refused, before any session is made."""

from __future__ import annotations

import hashlib

import numpy as np
import onnxruntime
import pytest

from funduscope.engine import models
from funduscope.engine.contract import ZEROS
from funduscope.engine.errors import ModelError, SettingsError
from funduscope.engine.readers.multitask import MultiTask
from funduscope.engine.screener import Screener


def refusal(data: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        models.verified(data, "eye.onnx")
    assert str(caught.value).startswith("eye.onnx: ")
    return str(caught.value)


def test_the_embedded_file_states_its_digest(model):
    assert model.data.count(model.sha256.encode()) == 1
    blank = model.data.replace(model.sha256.encode(), ZEROS.encode())
    assert hashlib.sha256(blank).hexdigest() == model.sha256


def test_a_flipped_byte_anywhere_is_refused(model):
    rng = np.random.default_rng(0)
    refused = 0
    for at, mask in zip(rng.integers(0, len(model.data), 200), rng.integers(1, 256, 200), strict=True):
        data = bytearray(model.data)
        data[at] ^= int(mask)
        refusal(bytes(data))
        refused += 1
    assert refused == 200


def test_a_flipped_byte_in_the_contract_is_refused(model):
    start = model.data.find(b'{"format":"funduscope/')
    for at in (*range(start, start + 110), *range(start + 110, start + 2000, 97)):
        data = bytearray(model.data)
        data[at] ^= 1
        refusal(bytes(data))


def test_no_session_is_made_of_a_damaged_file(model, tmp_path, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("a session was made")

    monkeypatch.setattr(onnxruntime, "InferenceSession", never)
    path = tmp_path / "damaged.onnx"
    path.write_bytes(model.data[:-1] + bytes([model.data[-1] ^ 1]))
    with pytest.raises(ModelError, match=r"damaged\.onnx: damaged: its SHA-256 does not match"):
        Screener.open(path)
    path.write_bytes(model.data)
    with pytest.raises((AssertionError, ModelError), match="a session was made"):  # the whole file gets as far as that
        Screener.open(path)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9999])
def test_a_truncated_file_is_refused(model, share):
    refusal(model.data[: int(share * len(model.data))])


def test_an_appended_byte_is_refused(model):
    assert "damaged" in refusal(model.data + b"\0")


def test_two_contracts_are_refused(model):
    assert "two contracts in one file" in refusal(model.data + model.data)


def test_a_file_without_a_contract_is_refused():
    assert "no Funduscope contract in it; export models with `funduscope export`" in refusal(b"\x08\x0aonnx")


def test_another_format_is_refused_with_the_one_that_is_read(model):
    other = model.data.replace(b'{"format":"funduscope/1"', b'{"format":"funduscope/9"')
    assert "another format; this Funduscope reads funduscope/1" in refusal(other)


def test_a_contract_that_is_no_json_is_refused(model):
    with pytest.raises(ModelError, match=r"x: the contract is not JSON"):
        models.parse(model.contract.to_json().encode()[:200], "x")


def test_multitask_is_an_embedded_model(model):
    assert "multitask" in models.embedded()
    assert models.load("multitask").path == model.path == models.embedded()["multitask"]
    assert type(model.contract) is MultiTask


@pytest.mark.parametrize("name", models.embedded())
def test_every_embedded_model_is_whole_and_bears_its_name(name):
    read = models.load(name)
    assert read.contract.name == name
    assert read.contract.kind == {"multitask": "multi-task"}.get(name, name)


def test_a_path_names_a_model_too(model):
    assert models.load(model.path).sha256 == models.load(str(model.path)).sha256 == model.sha256


@pytest.mark.parametrize("name", ["unknown", "absent/model.onnx", ".", "null\0"])
def test_an_unknown_model_is_refused_with_the_names_there_are(name):
    with pytest.raises(ModelError, match=r"Embedded are: .*multitask; default is all of them"):
        models.load(name)


@pytest.mark.parametrize("names", [[], ["default"], ("default",)])
def test_default_and_nothing_mean_all_embedded_models(names):
    assert models.chosen(names) == list(models.embedded())


def test_where_none_is_embedded_default_is_refused(monkeypatch):
    monkeypatch.setattr(models, "embedded", dict)
    for names in ((), ["default"]):
        with pytest.raises(ModelError, match="no models are embedded in this installation; install it again, or name"):
            models.chosen(names)
    assert models.chosen(["x.onnx"]) == ["x.onnx"]


def test_models_are_those_that_are_named_in_their_order():
    assert models.chosen(("multitask", "x.onnx", "multitask")) == ["multitask", "x.onnx", "multitask"]


def test_default_beside_others_is_refused():
    with pytest.raises(SettingsError, match="default means all embedded models; name it alone, or name each model"):
        models.chosen(["default", "x.onnx"])


def test_a_model_that_the_system_refuses_is_refused_with_its_words(tmp_path, monkeypatch):
    path = tmp_path / "secret.onnx"
    path.write_bytes(b"x")

    def refuse(own):
        raise PermissionError(13, "Permission denied", str(own))

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(ModelError, match=r"secret\.onnx: Permission denied"):
        models.load(path)
