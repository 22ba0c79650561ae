"""What is built: everything below the one name `funduscope`, and it works where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "src", "engine", "postprocess", "export", "training", "examples")


def run(*arguments: object, **options) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the source distribution and the wheel that was built from it."""
    pytest.importorskip("build")
    root = tmp_path_factory.mktemp("source")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, root / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, root / part)
    run("-m", "build", "--no-isolation", "--outdir", root / "dist", root, cwd=root)
    return root / "dist"


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_every_source_file_below_one_name(names):
    for room in ("engine", "postprocess", "export", "training"):
        sources = [path.relative_to(ROOT) for path in (ROOT / room).rglob("*.py")]
        assert sources
        assert {f"funduscope/{path.as_posix()}" for path in sources} <= names
    face = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    assert face <= names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"funduscope"}


def test_the_wheel_holds_what_is_no_source(names):
    assert {"funduscope/py.typed", "funduscope/models/multitask.onnx", "funduscope/models/MODEL_LICENSE"} <= names
    models = ROOT / "src" / "funduscope" / "models"
    assert {f"funduscope/models/{path.name}" for path in models.iterdir() if path.suffix in (".onnx", ".md")} <= names
    configs = {f"funduscope/training/configs/{path.name}" for path in (ROOT / "training" / "configs").glob("*.toml")}
    assert configs
    assert configs <= names
    licences = {name.split("/licenses/")[1] for name in names if ".dist-info/licenses/" in name}
    assert {"LICENSE", "src/funduscope/models/MODEL_LICENSE"} <= licences
    assert not [name for name in names if "test" in name.split("/") or "__pycache__" in name]


@pytest.mark.parametrize("path", sorted((ROOT / "src/funduscope/models").glob("*.onnx")), ids=lambda path: path.stem)
def test_an_embedded_model_is_unchanged_in_the_wheel(wheel, path):
    assert zipfile.ZipFile(wheel).read(f"funduscope/models/{path.name}") == path.read_bytes()


def test_the_wheel_brings_no_torch_unasked(wheel, names):
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    needed = [line for line in text.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert len(needed) >= 8
    assert not [line for line in needed if "torch" in line or "onnxscript" in line or "pydicom" in line]
    assert 'Requires-Dist: pydicom<4,>=3; extra == "dicom"' in text.splitlines()
    assert "License-Expression: Apache-2.0" in text


def test_the_source_distribution_holds_the_model(built):
    (found,) = built.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        assert [name for name in archive.getnames() if name.endswith("src/funduscope/models/multitask.onnx")]


def test_the_installed_wheel_screens_from_anywhere(wheel, tmp_path, cc0):
    target = tmp_path / "site"
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target", target, wheel)
    script = """
import funduscope, funduscope.engine.screener, funduscope.postprocess.masks
import sys
with funduscope.Screener.open(threads=1) as screener:
    print(screener(sys.argv[1]).models[0].name, *(own.name for own in screener.contracts))
print(funduscope.__file__)
print(funduscope.postprocess.masks.__file__)
"""
    told = run("-c", script, cc0, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(target)}).split()
    assert told[0] == "multitask"
    assert set(told[1:-2]) == {path.stem for path in (ROOT / "src/funduscope/models").glob("*.onnx")}
    assert told[-2:] == [str(target / "funduscope/__init__.py"), str(target / "funduscope/postprocess/masks.py")]
