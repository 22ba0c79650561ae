"""A cluster, as far as it can be told without one; `benchmarks/soak` has a real one."""

from __future__ import annotations

import importlib.util
import pickle
import socket
import sys

import cv2
import pytest

from funduscope.engine import cluster
from funduscope.engine.errors import MissingExtra, SettingsError
from funduscope.engine.outputs.packing import unpacked
from funduscope.engine.screener import ScreenerSettings


def test_without_ray_the_line_that_installs_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"funduscope\[ray\]"):
        cluster.ClusterScreener(ScreenerSettings())


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed; the extra `ray` brings it")
def test_an_address_without_a_cluster_is_told():
    with pytest.raises(SettingsError, match=r"127\.0\.0\.1:1: no Ray cluster there"):
        cluster.ClusterScreener(ScreenerSettings(), "127.0.0.1:1")


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "[::1]")], ids=["IPv4", "IPv6"]
)
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_somebody_listens_is_left_to_ray(family, host, scheme):
    try:
        server = socket.create_server((host.strip("[]"), 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with server:
        address = f"{scheme}{host}:{server.getsockname()[1]}"
        cluster._expect_somebody(address)
    with pytest.raises(OSError, match="refused"):
        cluster._expect_somebody(address)


@pytest.mark.parametrize("address", ["auto", "local"])
def test_what_is_no_address_of_a_machine_is_left_to_ray(address):
    cluster._expect_somebody(address)


def test_what_an_actor_does_is_what_a_screener_does(fundus, tmp_path):
    cv2.imwrite(str(tmp_path / "eye.png"), fundus()[..., ::-1])
    paths = [str(tmp_path / "eye.png"), str(tmp_path / "\udcff.png")]
    settings = pickle.loads(pickle.dumps(ScreenerSettings(("multitask",), "onnxruntime", threads=1)))
    with settings.open() as screener:
        expected = [own.to_dict() for own in screener.stream([cluster.Listed(path, "p1", "left") for path in paths])]
        models = screener.models
    batch = {
        "path": [path.encode("utf-8", "surrogatepass") for path in paths],
        "patient": [b"p1"] * 2,
        "eye": ["left"] * 2,
        "frame": [0] * 2,
    }
    found = cluster._Actor(settings, models)(batch)["found"]
    assert [unpacked(own, models).to_dict() for own in found] == expected
    with pytest.raises(SettingsError, match="a node opens"):
        cluster._Actor(settings, ())


def test_only_paths_travel():
    with pytest.raises(TypeError, match="a cluster screens paths"):
        cluster._listed(b"bytes")
