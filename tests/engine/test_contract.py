"""The model file: whole or refused, before any session is made."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funduscope.engine import contract
from funduscope.engine.contract import Contract
from funduscope.engine.errors import ModelError
from funduscope.engine.screener import Screener


def stamped(document: str) -> bytes:
    """A small file around a contract, with the digest that belongs to it."""
    blank = b"head" + document.encode() + b"tail"
    stated = json.loads(document)["sha256"].encode()
    blank = blank.replace(stated, contract.ZEROS.encode())
    return blank.replace(contract.ZEROS.encode(), hashlib.sha256(blank).hexdigest().encode())


def refusal(data: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        contract.verified(data, "eye.onnx")
    assert str(caught.value).startswith("eye.onnx: ")
    return str(caught.value)


def changed(model: contract.Model, *path: str, **values: object) -> dict:
    """The embedded contract as a dict, with `values` set at `path`."""
    document = json.loads(model.contract.to_json())
    part = document
    for key in path:
        part = part[key]
    part.update(values)
    return document


def test_a_contract_returns_from_its_json(model):
    assert contract.parse(model.contract.to_json().encode(), "x") == model.contract
    assert contract.parse(model.contract.to_json().encode() + b"\x00 and more", "x") == model.contract


probability = st.floats(0, 1)
number = st.floats(allow_nan=False, allow_infinity=False)


@given(name=st.text(), threshold=probability, slope=number, figures=st.dictionaries(st.text(), number, max_size=3))
def test_any_values_return_from_their_json(model, name, threshold, slope, figures):
    rules = model.contract.rules.model_copy(update={"disc_threshold": threshold, "vcdr_coefficient": slope})
    training = model.contract.training.model_copy(update={"figures": {"set": figures}})
    document = model.contract.model_copy(
        update={"name": name, "rules": rules, "glaucoma_threshold": threshold, "training": training}
    )
    assert contract.parse(document.to_json().encode(), "x") == document


def test_a_small_stamped_file_is_whole(model):
    read = contract.verified(stamped(model.contract.to_json()), "x")
    assert read.model_copy(update={"sha256": model.sha256}) == model.contract


def test_the_embedded_file_states_its_digest(model):
    assert model.data.count(model.sha256.encode()) == 1
    blank = model.data.replace(model.sha256.encode(), contract.ZEROS.encode())
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


@pytest.mark.parametrize("key", [key for key in Contract.model_fields if key not in ("format", "sha256")])
def test_a_missing_key_is_named(model, key):
    document = changed(model)
    del document[key]
    assert f"  {key}: Field required" in refusal(stamped(json.dumps(document, separators=(",", ":"))))


@pytest.mark.parametrize(
    ("path", "values", "named"),
    [
        ((), {"colour": 1}, "colour"),
        (("rules",), {"colour": 1}, "rules.colour"),
        (("training", "data", 0), {"colour": 1}, "training.data.0.colour"),
        ((), {"glaucoma_threshold": "0.5"}, "glaucoma_threshold"),
        ((), {"glaucoma_threshold": 1.5}, "glaucoma_threshold"),
        ((), {"glaucoma_threshold": float("nan")}, "glaucoma_threshold"),
        (("rules",), {"vcdr_intercept": float("nan")}, "rules.vcdr_intercept"),
        (("rules",), {"vcdr_coefficient": float("inf")}, "rules.vcdr_coefficient"),
        (("rules",), {"disc_threshold": None}, "rules.disc_threshold"),
        (("rules",), {"fovea_mode": "best"}, "rules.fovea_mode"),
        (("geometry",), {"size": 256.0}, "geometry.size"),
        (("geometry",), {"path": "crop-pad-resize-2"}, "geometry.path"),
        ((), {"precision": "fp8"}, "precision"),
        ((), {"kind": "classifier"}, "kind"),
        ((), {"outputs": "disc"}, "outputs"),
        (("input",), {"dtype": "float64"}, "input.dtype"),
        (("terms",), {"notice": 3}, "terms.notice"),
    ],
)
def test_a_wrong_value_is_named_with_file_and_key(model, path, values, named):
    document = json.dumps(changed(model, *path, **values), separators=(",", ":"))
    message = refusal(stamped(document))
    assert "the contract is not valid" in message
    assert f"\n  {named}: " in message


def test_a_contract_that_is_no_json_is_refused(model):
    with pytest.raises(ModelError, match=r"x: the contract is not JSON"):
        contract.parse(model.contract.to_json().encode()[:200], "x")


def test_a_contract_is_frozen(model):
    with pytest.raises(ValueError, match="frozen"):
        model.contract.glaucoma_threshold = 0.1


def test_default_and_multitask_are_the_embedded_model(model):
    assert "multitask" in contract.embedded()
    assert contract.read("default").path == model.path == contract.embedded()["multitask"]


def test_a_path_names_a_model_too(model):
    assert contract.read(model.path).sha256 == contract.read(str(model.path)).sha256 == model.sha256


@pytest.mark.parametrize("name", ["unknown", "absent/model.onnx", ".", "null\0"])
def test_an_unknown_model_is_refused_with_the_names_there_are(name):
    with pytest.raises(ModelError, match=r"Embedded are: default, .*multitask"):
        contract.read(name)


def test_values_reach_preparation_and_post_processing(model):
    assert model.contract.geometry.build().size == model.contract.geometry.size
    assert model.contract.rules.build().__dict__ == model.contract.rules.model_dump()
