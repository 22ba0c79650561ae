"""The script that compares the large networks in slices goes through, with tiny settings."""

import pytest


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
