"""The script that trains the large network in slices goes through, with tiny settings; a file of its own, so that it runs beside
the comparison."""

import shutil

import pytest


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
