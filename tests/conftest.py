"""What all tests share: where real pictures are, and pictures that are drawn."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import settings

from funduscope.engine import contract
from funduscope.engine.pictures import colours
from funduscope.engine.readers.classifier import Classifier, PointsPart

ROOT = Path(__file__).resolve().parents[1]

# torch: beside other work, threads that wait for one another take fifty times as long
os.environ["OMP_NUM_THREADS"] = "1"
for own in ("FUNDUSCOPE_TUNING", "FUNDUSCOPE_COMPILED"):
    os.environ[own] = tempfile.mkdtemp()  # whatever was found best on this machine, tests run ONNX Runtime in fp32
settings.register_profile("funduscope", deadline=None, derandomize=True, database=None)
settings.load_profile("funduscope")
cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture(scope="session")
def cc0() -> Path:
    """A real fundus photograph, 1411 x 1411, in the public domain."""
    return ROOT / "examples" / "retina_cc0.jpg"


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the labelled data sets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("FUNDUSCOPE_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no labelled pictures in {folder}; set FUNDUSCOPE_DATA to their folder")
    return folder


def draw_fundus(height: int = 200, width: int = 260, seed: int = 0) -> np.ndarray:
    """A drawn fundus photograph, uint8 (height, width, 3) RGB: a lit circle on black, a disc with a cup, and vessels."""
    rng = np.random.default_rng(seed)
    side = min(height, width)
    centre, radius = (width // 2, height // 2), int(0.47 * side)
    disc = (int(centre[0] + 0.25 * side), int(centre[1] + rng.integers(-5, 6)))
    picture = np.zeros((height, width, 3), np.uint8)
    cv2.circle(picture, centre, radius, (170, 80, 40), -1)
    for angle in rng.uniform(0, 2 * np.pi, 6):
        end = int(disc[0] + side * np.cos(angle)), int(disc[1] + side * np.sin(angle))
        cv2.line(picture, disc, end, (110, 30, 20), 2)
    cv2.circle(picture, disc, int(0.09 * side), (235, 190, 110), -1)
    cv2.circle(picture, disc, int(0.04 * side), (250, 235, 190), -1)
    picture = cv2.GaussianBlur(picture, (0, 0), 1.5)
    inside = np.zeros((height, width), np.uint8)
    cv2.circle(inside, centre, radius, 1, -1)
    return picture * inside[..., None]


@pytest.fixture
def call(monkeypatch, capsys):
    """The function (arguments) -> the command line's exit code, stdout and stderr, without a process of its own: for what does
    not depend on one."""
    from funduscope import cli

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["funduscope", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("NO_COLOR", "1")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, ended.value.code or 0, told.out, told.err)

    return run


@pytest.fixture
def any_colours(monkeypatch):
    """Pictures of one pure colour are screened, which are those of no retina."""
    monkeypatch.setattr(colours, "EXCESS", 255.0)


@pytest.fixture(scope="session")
def fundus():
    """The function `draw_fundus(height, width, seed)`."""
    return draw_fundus


CELL = 8  # pixels of the square that one cell of the drawn classifier's heat maps covers
CHANNEL = {"referable_dr": 0, "glaucoma": 1, "any_dr": 2}  # of RGB, which it takes for the disease


def classifier_document(size: int) -> dict[str, Any]:
    """The contract of the classifier below, without its digest."""

    def decision(*thresholds: float) -> dict[str, Any]:
        rate = {"value": 0.9, "low": 0.8, "high": 0.95}
        points = {
            name: {"threshold": threshold, "uncertain_logit": 0.1, "sensitivity": rate, "specificity": rate}
            for name, threshold in zip(PointsPart.model_fields, thresholds, strict=True)
        }
        return {"temperature": 1.0, "points": points, "map_scale": 1.0}

    names = ("glaucoma", "referable_dr", "any_dr")
    outputs = [{"name": name, "dtype": "float32", "shape": ["batch"]} for name in names]
    outputs += [{"name": f"{n}_map", "dtype": "float32", "shape": ["batch", *[size // CELL] * 2]} for n in names]
    return {
        "format": contract.FORMAT,
        "sha256": contract.ZEROS,
        "kind": "classifier",
        "name": "channels",
        "version": "7",
        "precision": "fp32",
        "input": {"name": "images", "dtype": "uint8", "shape": ["batch", size, size, 3]},
        "outputs": outputs,
        "geometry": {"path": "reduced-crop-pad-resize-2", "size": size, "fov_threshold": 40},
        "decisions": {
            "glaucoma": decision(0.2, 0.4, 0.6),
            "referable_dr": decision(0.3, 0.5, 0.7),
            "any_dr": decision(0.25, 0.45, 0.65),
        },
        "point": "balanced",
        "disagreement": 0.3,
        "map_grid": {"stride_px": float(CELL), "offset_px": (CELL - 1) / 2},
        "training": {"network": "means", "strategy": "none", "steps": 0, "device": "CPU", "data": [], "figures": {}},
        "terms": {"licence": "none", "notice": "Drawn for tests, not a diagnosis."},
    }


def write_classifier(path: Path, size: int = 96, maps: bool = True) -> contract.Model:
    """A classifier that can be computed by hand: a disease's probability is the mean of one channel over the square, as a
    share of 255, and its heat map the same of each cell (without `maps`: it has none)."""
    from onnx import TensorProto, helper

    from funduscope.export.stamp import stamp

    values = classifier_document(size)
    if not maps:
        values |= {"map_grid": None, "outputs": [own for own in values["outputs"] if len(own["shape"]) == 1]}
    document = Classifier.model_validate(values)
    nodes = [
        helper.make_node("Cast", ["images"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["values"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["planes", "sides"], ["mean"], keepdims=0),  # of integers: exact
        helper.make_node("Div", ["mean", "white"], ["means"]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Div", ["pooled", "white"], ["cells"]),
    ]
    initializers = [
        helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]),
        helper.make_tensor("sides", TensorProto.INT64, [2], [2, 3]),
    ]
    for name, channel in CHANNEL.items():
        initializers.append(helper.make_tensor(f"{name}_channel", TensorProto.INT64, [], [channel]))
        nodes.append(helper.make_node("Gather", ["means", f"{name}_channel"], [name], axis=1))
        nodes.append(helper.make_node("Gather", ["cells", f"{name}_channel"], [f"{name}_map"], axis=1))
    values = [
        helper.make_tensor_value_info(tensor.name, kind, tensor.shape)
        for kind, tensors in ((TensorProto.UINT8, [document.input]), (TensorProto.FLOAT, document.outputs))
        for tensor in tensors
    ]
    made = helper.make_graph(nodes, "channels", values[:1], values[1:], initializers)
    graph = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return stamp(graph, document, path)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory) -> contract.Model:
    """The file that `write_classifier` writes, verified."""
    pytest.importorskip("onnx")
    return write_classifier(tmp_path_factory.mktemp("classifier") / "channels.onnx")


@pytest.fixture(scope="session")
def mapless(tmp_path_factory) -> contract.Model:
    """The same without heat maps."""
    pytest.importorskip("onnx")
    return write_classifier(tmp_path_factory.mktemp("classifier") / "mapless.onnx", maps=False)


def compute_luma(pixels: np.ndarray) -> np.ndarray:
    """Grey as the classifier's graph must compute it, in integers: uint8 (..., 3) RGB to uint8 (...)."""
    return np.asarray((pixels @ np.array([19595, 38470, 7471], np.uint32) + 32768) >> 16, np.uint8)


@pytest.fixture(scope="session")
def luma():
    """The function `compute_luma(pixels)`."""
    return compute_luma
