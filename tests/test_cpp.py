"""The example in C++ beside the engine: the same row of the same picture.

It is built here. That needs CMake, a compiler, and headers of OpenCV, nlohmann-json, OpenSSL and ONNX Runtime. Where they are in
a folder of their own, FUNDUSCOPE_CPP is what CMake takes as its prefix. ONNX Runtime's library is the one of its wheel.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest

import funduscope
from funduscope.engine import models

Row = dict[str, Any]
MOVES = 0.005  # of a vCDR or a probability
MOVES_PX = 3.0  # of a place or length in the photo
SAME = ("name", "status", "code", "sha256", "width", "height", "eye", "eye_source", "operating_point", "model_sha256")


def differences(row: Row, expected: Row) -> list[str]:
    """In what a row differs from the one that is expected, by more than it may."""
    found = [
        key for key in (*SAME, "glaucoma", "referable_dr", "any_dr", "glaucoma_second") if row[key] != expected[key]
    ]
    if sorted(row["warnings"]) != sorted(expected["warnings"]):
        found.append("warnings")
    for key, value in expected.items():
        if isinstance(value, float) or isinstance(row.get(key), float):
            ratio = key in ("vcdr", "glaucoma_network", "glaucoma_vcdr") or key.endswith(("_probability", "_threshold"))
            most = MOVES if ratio else max(MOVES_PX, 0.01 * (value or 0))
            if value is None or row.get(key) is None or abs(row[key] - value) > most:
                found.append(f"{key} {row.get(key)} for {value}")
    return found


def test_a_row_that_differs_is_seen(cc0):  # the tests below can fail
    with funduscope.Screener.open(threads=1) as screener:
        row = screener(cc0).to_dict()
    assert differences(row, dict(row)) == []
    for key, value in (("vcdr", row["vcdr"] + 0.006), ("any_dr_probability", 0.9), ("glaucoma", True), ("vcdr", None)):
        assert len(differences({**row, key: value}, row)) == 1
    assert differences({**row, "disc_x": row["disc_x"] + 4}, row)
    assert differences({**row, "warnings": ["NOT_ROUND"]}, row) == ["warnings"]


def library(folder: Path) -> list[str]:
    """What tells CMake to link ONNX Runtime's library as it is in the wheel; nothing where it is in none."""
    found = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"), None)
    if found is None:
        return []
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(found)
    return [f"-DONNXRUNTIME_LIBRARY={folder / 'libonnxruntime.so'}"]


@pytest.fixture(scope="module")
def program(root, tmp_path_factory) -> Path:
    """The program, built by CMake."""
    for tool in ("cmake", os.environ.get("CXX", "c++")):
        if not shutil.which(tool):
            pytest.skip(f"no {tool} here, which builds the example in C++; see docs/embedding.md")
    folder = tmp_path_factory.mktemp("cpp")
    options = library(folder)
    if prefix := os.environ.get("FUNDUSCOPE_CPP"):
        options.append(f"-DCMAKE_PREFIX_PATH={prefix}")
    build = folder / "build"
    source = root / "examples" / "cpp"
    done = subprocess.run(["cmake", "-S", source, "-B", build, *options], capture_output=True, text=True, timeout=120)
    missing = next((line.strip() for line in done.stderr.splitlines() if "Missing: " in line), None)
    if missing:
        pytest.skip(f"{missing}, without which the example in C++ is not built; see docs/embedding.md")
    assert done.returncode == 0, done.stderr
    done = subprocess.run(["cmake", "--build", build], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr
    return build / "screen"


def screened(program: Path, *arguments: object, **options: Any) -> list[Row]:
    """The rows that the program prints."""
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


EMBEDDED = [models.locate(name) for name in ("multitask", "classifier")]


@pytest.fixture(scope="module")
def pictures(cc0, tmp_path_factory) -> list[Path]:
    """The sample photograph as it is, and as other files would have it."""
    folder = tmp_path_factory.mktemp("pictures")
    whole = cv2.imread(str(cc0))
    bordered = np.where(whole.max(axis=2, keepdims=True) < 24, np.uint8(255), whole)
    variants = {
        "small.jpg": cv2.resize(whole, (700, 700), interpolation=cv2.INTER_AREA),
        "large.jpg": cv2.resize(whole, (2831, 2831), interpolation=cv2.INTER_CUBIC),
        "same.png": whole,
        "dark.jpg": cv2.convertScaleAbs(whole, alpha=0.6),
        "poor.jpg": whole,
        "cut.jpg": whole[150:1261],
        "beside.png": cv2.copyMakeBorder(whole, 0, 0, 333, 334, cv2.BORDER_CONSTANT),
        "squeezed.jpg": cv2.resize(whole, (1411, 1230), interpolation=cv2.INTER_AREA),
        "flat.jpg": cv2.resize(whole, (1411, 900), interpolation=cv2.INTER_AREA),
        "white.png": bordered,
        "black.jpg": np.zeros_like(whole),
        "blue.jpg": whole[..., ::-1],
    }
    for name, pixels in variants.items():
        cv2.imwrite(str(folder / name), pixels, [cv2.IMWRITE_JPEG_QUALITY, 40 if name == "poor.jpg" else 95])
    (folder / "broken.jpg").write_bytes(cc0.read_bytes()[:-90_000])
    (folder / "text.jpg").write_text("no picture")
    return [cc0, *sorted(folder.iterdir()), folder / "absent.jpg"]


@pytest.fixture(scope="module")
def rows(program, pictures) -> dict[str, Row]:
    """What the program says of each picture, by its name."""
    made = screened(program, "--threads", 1, *EMBEDDED, *pictures)
    assert [row["name"] for row in made] == list(map(str, pictures))
    return {Path(row["name"]).name: row for row in made}


def test_it_says_of_each_picture_what_the_engine_says(rows, pictures):
    with funduscope.Screener.open(backend="onnxruntime", threads=1) as screener:
        found = {path.name: differences(rows[path.name], screener(path).to_dict()) for path in pictures}
    assert {name: own for name, own in found.items() if own} == {}
    assert sum(row["status"] == "ok" for row in rows.values()) >= 9


def test_its_keys_are_columns(rows):
    assert set(rows["retina_cc0.jpg"]) <= {column.name for column in funduscope.columns()}
    assert all(row.keys() == rows["retina_cc0.jpg"].keys() for row in rows.values())


def test_names_come_from_standard_input_too(program, cc0, rows):
    made = screened(program, "--threads", 1, *EMBEDDED, input=f"{cc0}\nabsent.jpg\n")
    assert made[0] == rows["retina_cc0.jpg"]
    assert made[1]["code"] == "NOT_FOUND"


@pytest.mark.parametrize("name", ["multitask", "classifier"])
def test_one_model_alone(program, cc0, name):
    with funduscope.Screener.open(name, backend="onnxruntime", threads=1) as screener:
        expected = screener(cc0).to_dict()
    assert differences(screened(program, "--threads", 1, models.locate(name), cc0)[0], expected) == []


def test_another_operating_point(program, cc0):
    with funduscope.Screener.open(backend="onnxruntime", threads=1, point="high_sensitivity") as screener:
        expected = screener(cc0).to_dict()
    assert differences(screened(program, "--point", "high_sensitivity", *EMBEDDED, cc0)[0], expected) == []


def judging(model: Path, to: Path, quality: Row) -> Path:
    """A classifier's file as a later one would be: it has a score more, `blurred`, and keys more in its contract."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(model)
    graph.graph.node.append(onnx.helper.make_node("Identity", ["glaucoma"], ["blurred"]))
    graph.graph.node.append(onnx.helper.make_node("Shape", ["glaucoma"], ["of_no_use"]))
    graph.graph.output.append(onnx.helper.make_tensor_value_info("blurred", onnx.TensorProto.FLOAT, ["batch"]))
    graph.graph.output.append(onnx.helper.make_tensor_value_info("of_no_use", onnx.TensorProto.INT64, [1]))
    (entry,) = (own for own in graph.metadata_props if own.key == "funduscope")
    document = json.loads(entry.value)
    digest = document["sha256"]
    document |= {"sha256": "0" * 64, "quality": quality, "unheard_of": None}
    entry.value = json.dumps(document, separators=(",", ":"))
    data = graph.SerializeToString()
    stated = hashlib.sha256(data).hexdigest()
    assert digest not in data.decode("latin-1")
    to.write_bytes(data.replace(b'"sha256":"' + b"0" * 64, f'"sha256":"{stated}'.encode()))
    return to


@pytest.mark.parametrize(
    ("threshold", "least_px", "status", "code", "called"),
    [
        (1.0, {}, "ok", None, False),
        (0.1, {}, "ungradable", "BLURRED", None),
        (1.0, {"glaucoma": 2000.0, "any_dr": 100.0}, "ok", None, None),
        (1.0, {"glaucoma": 2000.0}, "ungradable", "LOW_RESOLUTION", None),
    ],
)
def test_a_classifier_that_judges_pictures(
    program, classifier, cc0, tmp_path, threshold, least_px, status, code, called
):
    quality = {"thresholds": {"blurred": threshold}, "least_px": least_px}
    file = judging(classifier.path, tmp_path / "judging.onnx", quality)
    (row,) = screened(program, file, cc0)
    assert (row["status"], row["code"], row["glaucoma_second"]) == (status, code, called)
    assert row["blurred"] > 0.1
    assert ("LOW_RESOLUTION" in row["warnings"]) == (status == "ok" and called is None)


def test_it_keeps_and_sends_nothing(program, cc0, tmp_path):
    """ONNX Runtime's telemetry keeps what it is to send below the home folder."""
    screened(program, *EMBEDDED, cc0, env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]})
    assert list(tmp_path.rglob("*")) == []


def test_a_damaged_model_is_refused(program, classifier, cc0, tmp_path):
    data = bytearray(classifier.path.read_bytes())
    data[40] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(data)
    done = subprocess.run([program, tmp_path / "damaged.onnx", cc0], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "damaged" in done.stderr
    assert done.stdout == ""
