"""A kind of model that nothing in the engine knows of, added by one class for its contract, one for its reader, and one line."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np
import pytest

from funduscope import Decision, Rejected, Run, Screener, columns
from funduscope.engine.contract import FORMAT, ZEROS, Contract, Probability
from funduscope.engine.gate import comparison
from funduscope.engine.labelled import dataset, evaluation
from funduscope.engine.pictures import inputs, preprocess
from funduscope.engine.readers import READERS, multitask
from funduscope.engine.readers.column import Column, Verdict
from funduscope.engine.readers.difference import FP32, Difference
from funduscope.engine.readers.point import OperatingPoint
from funduscope.engine.readers.reader import Reader

pytestmark = pytest.mark.usefixtures("any_colours")


# the third kind, whole: fewer than 40 lines
class Redness(Contract):
    kind: Literal["redness"]
    threshold: Probability

    def needed(self):
        return ["redness"]


class RednessReader(Reader):
    contract: ClassVar = Redness
    verdicts: ClassVar = (Verdict("red_dr", "referable_dr", "red DR", "whether the picture is red"),)
    columns: ClassVar = (
        Column("redness", "mean of red", lambda found: found.scores.get("redness"), digits=6, score_of="referable_dr"),
    )
    point = None

    def __init__(self, document, point):
        self.geometry, self.threshold = document.geometry.build(), document.threshold

    def prepare(self, photo):
        return preprocess.prepare(photo, self.geometry)

    def read(self, found, outputs, prepared):
        redness = float(outputs["redness"])
        decision = Decision("referable_dr", redness, self.threshold, redness >= self.threshold)
        scores, decisions = {**found.scores, "redness": redness}, {**found.decisions, "red_dr": decision}
        return replace(found, scores=scores, decisions=decisions)

    def describe(self):
        return {"referable retinopathy from": f"{self.threshold}"}

    def points(self):
        return {"red_dr": [OperatingPoint(self.threshold)]}

    def differences(self, pairs, bounds):
        seen = max(abs(float(a["redness"] - b["redness"])) for a, b in pairs)
        return [Difference("max |d redness|", seen, bounds.probability)]


# end of the third kind


@pytest.fixture
def redness(monkeypatch, tmp_path):
    """A file of this kind, and its line in the table of readers."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    from funduscope.export.stamp import stamp

    monkeypatch.setitem(READERS, "redness", RednessReader)
    document = Redness.model_validate(
        {
            "format": FORMAT,
            "sha256": ZEROS,
            "kind": "redness",
            "name": "red",
            "version": "1",
            "precision": "fp32",
            "input": {"name": "images", "dtype": "uint8", "shape": ["batch", 96, 96, 3]},
            "outputs": [{"name": "redness", "dtype": "float32", "shape": ["batch"]}],
            "geometry": {"path": "reduced-crop-pad-resize-2", "size": 96, "fov_threshold": 20},
            "training": {"network": "mean", "strategy": "", "steps": 0, "device": "CPU", "data": [], "figures": {}},
            "terms": {"licence": "none", "notice": "For tests."},
            "threshold": 0.3,
        }
    )
    nodes = [
        helper.make_node("Cast", ["images"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values", "sides"], ["mean"], keepdims=0),
        helper.make_node("Gather", ["mean", "first"], ["red"], axis=1),
        helper.make_node("Div", ["red", "white"], ["redness"]),
    ]
    constants = [
        helper.make_tensor("sides", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("first", TensorProto.INT64, [], [0]),
        helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]),
    ]
    values = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, document.input.shape),
        helper.make_tensor_value_info("redness", TensorProto.FLOAT, ["batch"]),
    ]
    graph = helper.make_graph(nodes, "red", values[:1], values[1:], constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return stamp(proto, document, tmp_path / "red.onnx")


@pytest.fixture
def clinic(tmp_path, fundus) -> Path:
    """Six labelled pictures, of which the sick are red."""
    folder, lines = tmp_path / "clinic", ["image,split,dr_grade"]
    folder.mkdir()
    for k in range(6):
        picture = fundus(seed=k)
        picture[..., 0] = picture[..., 0] // (1 if k % 2 else 3)
        cv2.imwrite(str(folder / f"{k}.png"), picture[..., ::-1])
        lines.append(f"{k}.png,test,{3 if k % 2 else 0}")
    (folder / "index.csv").write_text("\n".join(lines))
    return folder


def test_the_third_kind_is_short():
    lines = (
        Path(__file__).read_text(encoding="utf-8").split("# the third kind, whole")[1].split("# end of the third")[0]
    )
    assert len([line for line in lines.splitlines() if line.strip()]) < 40


def test_it_goes_through_a_run(redness, clinic, tmp_path):
    out = tmp_path / "out"
    pictures = inputs.expand([str(clinic), str(tmp_path / "absent.png")])
    with Screener.open("multitask", redness.path) as screener:
        results = list(Run(screener, pictures, out, overlays=True, report=True))
    rows = [json.loads(line) for line in (out / "screenings.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == [own.path for own in pictures]
    assert list(rows[0]) == [column.name for column in columns()]
    for row, result in zip(rows, results, strict=True):
        seen = not isinstance(result, Rejected)
        assert row["model"] == ["multitask", "red"]
        assert (row["redness"] is not None) == (row["red_dr_probability"] is not None) == seen
        assert not seen or row["red_dr"] == (row["redness"] >= 0.3)
    with (out / "screenings.csv").open(newline="") as file:
        assert [row["redness"] for row in csv.DictReader(file)] == [
            "" if row["redness"] is None else str(row["redness"]) for row in rows
        ]
    page = (out / "report.html").read_text()
    assert "<th><button>red DR" in page
    assert "Red DR: whether the picture is red." in page


def test_it_opens_alone_and_prints_its_decision(redness, cc0):
    with Screener.open(redness.path) as screener:
        result = screener(cc0)
    assert f"red DR {'refer' if result.decisions['red_dr'].called else 'no'} " in str(result)
    assert "vCDR" not in str(result)


def test_the_gate_reads_it(redness):
    reader = READERS["redness"](redness.contract, None)
    images = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)

    def means(batch):
        return {"redness": (batch[..., 0].mean(axis=(1, 2)) / 255).astype(np.float32)}

    def other(batch):
        return {"redness": means(batch)["redness"] + np.float32(0.1)}

    assert comparison.verify_outputs(means, means, images, reader, FP32, [1, 4]).passes()
    report = comparison.verify_outputs(means, other, images, reader, FP32, [1, 4])
    assert not report.passes()
    assert report["max |d redness|"] == pytest.approx(0.1, abs=1e-6)


def test_its_figures_are_measured(redness, clinic):
    with Screener.open(redness.path) as screener:
        figures = evaluation.evaluate(screener, evaluation.choose(dataset.load(clinic), "test"))
    assert figures["clinic"]["decisions"]["red_dr"]["auc"]["value"] == 1.0
    assert figures["clinic"]["scores"]["redness"]["value"] == 1.0
    assert "vcdr_error" not in figures["clinic"]


def test_without_its_line_it_is_refused_with_those_there_are(redness, monkeypatch):
    monkeypatch.delitem(READERS, "redness")
    with pytest.raises(Exception, match=r"kind: 'redness'; this Funduscope reads multi-task, disc, classifier"):
        Screener.open(redness.path)
    assert issubclass(multitask.MultiTask, Contract)
