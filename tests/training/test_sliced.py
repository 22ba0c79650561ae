"""The scripts that train the large networks in slices go through, with tiny settings."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("Makefile", "src", "engine", "postprocess", "export", "training", "examples")


@pytest.fixture
def script(tmp_path):
    """Calls a script of a checkout of its own, so that the links of this one stay."""
    for room in ROOMS:
        (tmp_path / "checkout" / room).parent.mkdir(exist_ok=True)
        (tmp_path / "checkout" / room).symlink_to(ROOT / room)

    def call(name, **settings):
        path = tmp_path / "checkout/training/sliced" / name
        environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            ["bash", path],
            env=environment | {key: str(value) for key, value in settings.items()},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.mark.slow
def test_the_comparison(script, plan, write_config, pictures, tmp_path):
    path = write_config(plan | {"schedule": plan["schedule"] | {"steps": 2}})
    settings = {
        "CONFIG": path,
        "DATA": pictures,
        "OUT": tmp_path / "out",
        "FOLDS": 2,
        "RESULTS": tmp_path / "results",
    }
    assert "| mtl-io | 0 |" in script("compare.sh", **settings, MINUTES=0)
    script("compare.sh", **settings)
    page = (tmp_path / "results" / "tables.md").read_text()
    assert [line.split("|")[2].strip() for line in page.splitlines()[2:]] == ["2"] * 4


@pytest.mark.slow
def test_a_whole_training(script, plan, write_config, pictures, tmp_path):
    shutil.copytree(pictures / plan["data"]["sets"][0]["path"], pictures / "idrid")
    shutil.copytree(pictures / "idrid", pictures / "drishti_gs1")
    settings = {
        "CONFIG": write_config(plan),
        "DATA": pictures,
        "RUN": tmp_path / "run",
        "RESULTS": tmp_path / "results",
    }
    assert "call again" in script("full_width.sh", **settings, MINUTES=0)
    assert "complete" in script("full_width.sh", **settings)
    assert {"calibration.json", "figures.json"} <= {path.name for path in (tmp_path / "results").iterdir()}
