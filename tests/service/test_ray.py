"""The service on Ray Serve: a cluster of this machine alone, two replicas, asked over HTTP."""

from __future__ import annotations

import json
import socket
import sys
import time

import pytest

from funduscope import Screener
from funduscope.engine.errors import MissingExtra
from funduscope.engine.screener import ScreenerSettings
from funduscope.service import ServiceSettings, deployment

pytest.importorskip("starlette")

SETTINGS = ScreenerSettings(("multitask",), backend="onnxruntime", threads=1)
KEY = "0123456789abcdef"


def test_without_ray_serve_the_line_that_installs_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.serve", None)
    with pytest.raises(MissingExtra, match=r"funduscope\[ray\]"):
        deployment(ServiceSettings(), SETTINGS)


@pytest.fixture(scope="module")
def served():
    """The address of a service on a cluster that lasts as long as these tests."""
    ray = pytest.importorskip("ray", reason="ray is not installed; the extra `ray` brings it")
    serve = pytest.importorskip(
        "ray.serve", reason="ray[serve] is not whole; the extra `ray` brings it", exc_type=ImportError
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        own = deployment(ServiceSettings(keys=(KEY,)), SETTINGS, num_replicas=2, ray_actor_options={"num_cpus": 0.5})
        serve.run(own, route_prefix="/eyes")
        yield f"http://127.0.0.1:{port}/eyes"
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_two_replicas_on_a_local_cluster_answer_as_python_does(served, cc0):
    httpx = pytest.importorskip("httpx")
    with httpx.Client(timeout=60, headers={"X-API-Key": KEY}) as client:
        for _ in range(10):  # of both replicas, whichever is asked
            until = time.monotonic() + 60
            while client.get(f"{served}/health/ready").status_code != 200 and time.monotonic() < until:
                time.sleep(0.1)
        kind = {"Content-Type": "image/jpeg"}
        answers = [client.post(f"{served}/v1/screenings", content=cc0.read_bytes(), headers=kind) for _ in range(8)]
        bundle = client.post(
            f"{served}/v1/screenings", content=cc0.read_bytes(), headers={**kind, "Accept": "application/fhir+json"}
        )
        assert client.get(f"{served}/metrics", headers={"X-API-Key": "wrong"}).status_code == 401
    with SETTINGS.open() as screener:
        assert isinstance(screener, Screener)
        row = json.loads(screener(cc0.read_bytes(), name="picture").to_json())
    assert [own.status_code for own in answers] == [200] * 8
    assert [own.json()["screenings"] for own in answers] == [[row]] * 8
    assert "not a diagnosis" in answers[0].headers["Funduscope-Notice"]
    assert bundle.json()["resourceType"] == "Bundle"
