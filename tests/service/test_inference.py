"""The bare models, as clients of the Open Inference Protocol ask them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from funduscope.engine import models
from funduscope.engine.errors import SettingsError

pytest.importorskip("starlette")

URL = "/v2/models/classifier/infer"
LENGTH = "Inference-Header-Content-Length"
CONTRACT = models.load("classifier").contract
SIZE = CONTRACT.geometry.size


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)


def tensor(images: np.ndarray, **values: Any) -> dict[str, Any]:
    own = {"name": CONTRACT.input.name, "datatype": "UINT8", "shape": list(images.shape)}
    return own | values


def test_the_server_and_its_model_say_what_they_are(client):
    asked = client()
    assert asked.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert asked.get("/v2/health/live").status_code == asked.get("/v2/health/ready").status_code == 200
    told = asked.get("/v2/models/classifier").json()
    assert told["versions"] == [CONTRACT.version]
    assert told["inputs"] == [{"name": CONTRACT.input.name, "datatype": "UINT8", "shape": [-1, SIZE, SIZE, 3]}]
    assert [own["name"] for own in told["outputs"]] == [own.name for own in CONTRACT.outputs]
    assert asked.get("/v2/models/classifier/ready").json() == {"name": "classifier", "ready": True}
    for path in ("", "/ready"):
        assert asked.get(f"/v2/models/absent{path}").status_code == 404
    assert "classifier" in asked.post("/v2/models/absent/infer", json={}).json()["error"]


def test_json_in_and_out(client, outputs, images):
    request = {"id": "7", "inputs": [tensor(images, data=images.ravel().tolist())]}
    answer = client().post(URL, json=request).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("classifier", CONTRACT.version, "7")
    wanted = outputs(images)
    assert [own["name"] for own in answer["outputs"]] == list(wanted)
    for own in answer["outputs"]:
        assert own["datatype"] == "FP32"
        assert (np.float32(own["data"]).reshape(own["shape"]) == wanted[own["name"]]).all()


def binary(images: np.ndarray, **request: Any) -> tuple[bytes, dict[str, str]]:
    head = {"inputs": [tensor(images, parameters={"binary_data_size": images.nbytes})]} | request
    text = json.dumps(head).encode()
    return text + images.tobytes(), {LENGTH: str(len(text)), "Content-Type": "application/octet-stream"}


def test_bytes_in_and_out_and_only_what_is_asked_for(client, outputs, images):
    wanted = [
        {"name": "glaucoma", "parameters": {"binary_data": True}},
        {"name": "any_dr"},
        {"name": "any_dr_map", "parameters": {"binary_data": True}},
    ]
    content, headers = binary(images, outputs=wanted)
    answer = client().post(URL, content=content, headers=headers)
    size = int(answer.headers[LENGTH])
    told, tail = json.loads(answer.content[:size])["outputs"], answer.content[size:]
    assert [own["name"] for own in told] == ["glaucoma", "any_dr", "any_dr_map"]
    given = outputs(images)
    for own in told:
        if "data" in own:
            values = np.float32(own["data"])
        else:
            length = own["parameters"]["binary_data_size"]
            values, tail = np.frombuffer(tail[:length], "<f4"), tail[length:]
        assert (values.reshape(own["shape"]) == given[own["name"]]).all()
    assert tail == b""
    content, headers = binary(images, parameters={"binary_data_output": True})
    assert LENGTH in client().post(URL, content=content, headers=headers).headers


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"inputs": 3}',
        b"[" * 100_000,
        json.dumps({"inputs": [tensor(np.empty((1, SIZE, SIZE, 3)), data=[1, 2])]}).encode(),
        json.dumps({"inputs": [tensor(np.empty((1, 3)), data=[1, 2, 3])]}).encode(),
        json.dumps({"inputs": [tensor(np.empty((1, SIZE, SIZE, 3)), data=[[1], [2, 3]])]}).encode(),
        json.dumps({"inputs": [tensor(np.empty((0, SIZE, SIZE, 3)), data=[])]}).encode(),
        json.dumps({"inputs": [tensor(np.empty((1, SIZE, SIZE, 3)), data=[256] * SIZE * SIZE * 3)]}).encode(),
        json.dumps({"inputs": [tensor(np.empty((1, SIZE, SIZE, 3)), data=[0.5] * SIZE * SIZE * 3)]}).encode(),
        json.dumps({"inputs": [tensor(np.empty((1, SIZE, SIZE, 3)), datatype="FP32", data=[1])]}).encode(),
        json.dumps({"inputs": [tensor(np.empty((1, SIZE, SIZE, 3)), name="other", data=[1])]}).encode(),
    ],
    ids=lambda body: body[:12].decode() + str(len(body)),
)
def test_what_is_not_understood_is_400(client, body):
    answer = client().post(URL, content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize("length", ["x", "-1", "1e3", "9" * 5000, "100000000", "3"])
def test_a_length_that_is_none_is_400(client, images, length):
    content, headers = binary(images)
    assert client().post(URL, content=content, headers={**headers, LENGTH: length}).status_code == 400


def test_fewer_bytes_than_the_shape_says_and_unknown_outputs_are_400(client, images):
    asked = client()
    content, headers = binary(images)
    assert asked.post(URL, content=content[:-1], headers=headers).status_code == 400
    assert asked.post(URL, content=content + b"x", headers=headers).status_code == 400
    content, headers = binary(images, outputs=[{"name": "absent"}])
    assert "any_dr" in asked.post(URL, content=content, headers=headers).json()["error"]


def test_pictures_count_in_the_queue_and_the_body_has_its_limit(client, images):
    content, headers = binary(images)
    assert client(queue=1, max_pictures=1).post(URL, content=content, headers=headers).status_code == 429
    assert client(max_bytes=1000).post(URL, content=content, headers=headers).status_code == 413
    assert client().post(URL, content=content, headers={**headers, "Content-Encoding": "gzip"}).status_code == 415


def test_a_screener_gives_the_outputs_of_more_than_a_batch(screener, outputs):
    images = np.random.default_rng(1).integers(0, 256, (11, SIZE, SIZE, 3), np.uint8)
    given, wanted = screener.outputs("classifier", images), outputs(images)
    assert list(given) == list(wanted)
    assert all((given[name] == wanted[name]).all() for name in wanted)
    with pytest.raises(SettingsError, match="there are: classifier"):
        screener.outputs("absent", images)
