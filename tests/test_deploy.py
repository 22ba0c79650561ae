"""The files that deploy the service agree with what they deploy. No container is built and no unit is started here."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib

import pytest

from funduscope.service.settings import KEY


@pytest.fixture(scope="module")
def dockerfile(root) -> str:
    return (root / "Dockerfile").read_text(encoding="utf-8")


def test_the_image_is_made_of_all_that_the_package_is_made_of(root, dockerfile):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = {place.split("/")[0] for place in project["tool"]["setuptools"]["package-dir"].values()}
    copied = set(re.findall(r"^COPY (\w+) \w+$", dockerfile, re.MULTILINE))
    assert rooms == copied
    ignored = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{room}" for room in rooms} <= set(ignored)
    for name in re.search(r"^COPY (.+) \./$", dockerfile, re.MULTILINE)[1].split():
        assert (root / name).is_file()
        assert f"!{name}" in ignored


def test_the_image_is_pinned_and_its_user_is_not_root(dockerfile):
    assert re.search(r"^ARG PYTHON=python:3\.\d+\.\d+-slim-\w+$", dockerfile, re.MULTILINE)
    assert re.search(r"^USER 10001:10001$", dockerfile, re.MULTILINE)
    assert "-c constraints.txt" in dockerfile
    assert "/health/live" in dockerfile
    assert "ORT_DISABLE_TELEMETRY=1" in dockerfile  # ONNX Runtime would send to its makers what is run
    assert KEY not in dockerfile  # keys are no part of an image


def test_the_composition_can_write_nothing(root):
    yaml = pytest.importorskip("yaml")
    own = yaml.safe_load((root / "compose.yaml").read_text(encoding="utf-8"))
    service = own["services"]["funduscope"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["secrets"]) == set(own["secrets"])
    assert f"/run/secrets/{service['secrets'][0]}" in (root / "Dockerfile").read_text(encoding="utf-8")
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_unit_is_one(root, tmp_path):
    text = (root / "deploy" / "funduscope.service").read_text(encoding="utf-8")
    assert "DynamicUser=yes" in text
    assert "ORT_DISABLE_TELEMETRY=1" in text
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here, which reads the unit")
    unit = tmp_path / "funduscope.service"
    unit.write_text(text.replace("/opt/funduscope/bin/funduscope", shutil.which("true")))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
    told = [line for line in done.stderr.splitlines() if str(unit) in line or "funduscope.service" in line]
    assert told == []
