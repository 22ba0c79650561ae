"""Writes the golden vectors: what models gave, and the row that must come of it, in files that any language reads.

    python tests/goldens/make.py

A case is a JSON file. `looks`, in order: a model's contract, where its square lies in the photo (`placement`: x_square =
scale_x * x_photo + offset_x, pixel centres at integers), and its output tensors: little-endian float32, row by row, in the
file beside it. `row`: the columns that these outputs alone decide. Numbers are rounded as rows are.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from funduscope.engine import reading
from funduscope.engine.contract import FORMAT, ZEROS
from funduscope.engine.pictures.preprocess import Placement, Prepared
from funduscope.engine.readers import READERS
from funduscope.engine.results import Screening

FOLDER = Path(__file__).parent
SIZE, WIDTH, HEIGHT = 64, 640, 480
WHOLE = Placement(scale_x=0.125, scale_y=0.125, offset_x=-7.5625, offset_y=1.9375)
CLOSER = Placement(scale_x=0.16, scale_y=0.16, offset_x=-34.5, offset_y=-4.42)  # around the disc
Tensors = dict[str, NDArray[np.float32]]


def blob(x: float, y: float, width: float, height: float, peak: float = 0.98) -> NDArray[np.float32]:
    """A soft ellipse, float32 (SIZE, SIZE) in [0, 1]: `peak` within, falling over two pixels at its edge."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    distance = np.hypot((columns - x) / width, (rows - y) / height)
    return (peak / (1 + np.exp((distance - 1) * min(width, height) * 2))).astype(np.float32)


def multitask(**tensors: Any) -> tuple[dict[str, Any], Tensors]:
    """A multi-task model's contract and outputs."""
    maps = {"disc": blob(44, 30, 9, 10), "cup": blob(44, 31, 4, 5), "fovea": blob(22, 34, 4, 4), "glaucoma": 0.3}
    outputs = [{"name": name, "dtype": "float32", "shape": ["batch", SIZE, SIZE]} for name in ("disc", "cup", "fovea")]
    rules = {
        "disc_threshold": 0.5,
        "cup_threshold": 0.45,
        "fovea_mode": "robust",
        "fovea_min_peak": 0.1,
        "vcdr_coefficient": 9.0,
        "vcdr_intercept": -6.0,
    }
    document = _common("multi-task", [*outputs, {"name": "glaucoma", "dtype": "float32", "shape": ["batch"]}])
    return document | {"rules": rules, "glaucoma_threshold": 0.4}, maps | tensors


def disc(**tensors: Any) -> tuple[dict[str, Any], Tensors]:
    """A contract and outputs of a model of the second look."""
    maps = {"disc": blob(32, 32, 12, 13), "cup": blob(32, 33, 8, 9)}
    outputs = [{"name": name, "dtype": "float32", "shape": ["batch", SIZE, SIZE]} for name in maps]
    outputs.append({"name": "glaucoma", "dtype": "float32", "shape": ["batch"]})
    rules = {"disc_threshold": 0.55, "cup_threshold": 0.5, "vcdr_coefficient": 8.0, "vcdr_intercept": -5.0}
    document = _common("disc", outputs)
    document["geometry"] |= {"path": "around-disc-1", "diameters": 2.6}
    return document | {"first_share": 0.25, "rules": rules, "glaucoma_threshold": 0.45}, maps | {
        "glaucoma": 0.6
    } | tensors


def classifier(glaucoma: float, referable_dr: float, any_dr: float, **faults: float) -> tuple[dict[str, Any], Tensors]:
    """A classifier's contract and outputs, without heat maps. faults: scores of the picture's, each wrong from .6 on; with
    them it says how good the picture is, and retinopathy asks for 600 px, where the picture here has 512."""
    rate = {"value": 0.9, "low": 0.8, "high": 0.95}

    def decision(*thresholds: float) -> dict[str, Any]:
        names = ("high_sensitivity", "balanced", "high_specificity")
        points = {
            name: {"threshold": threshold, "uncertain_logit": 0.1, "sensitivity": rate, "specificity": rate}
            for name, threshold in zip(names, thresholds, strict=True)
        }
        return {"temperature": 1.0, "points": points, "map_scale": None}

    tensors: Any = {"glaucoma": glaucoma, "referable_dr": referable_dr, "any_dr": any_dr, **faults}
    if faults:
        tensors["image_quality"] = 0.7
    outputs = [{"name": name, "dtype": "float32", "shape": ["batch"]} for name in tensors]
    decisions = {
        "glaucoma": decision(0.2, 0.4, 0.6),
        "referable_dr": decision(0.3, 0.5, 0.7),
        "any_dr": decision(0.25, 0.45, 0.65),
    }
    document = _common("classifier", outputs)
    if faults:
        least = {"glaucoma": 500.0, "referable_dr": 600.0, "any_dr": 600.0}
        document["quality"] = {
            "thresholds": dict.fromkeys(faults, 0.6),
            "least_px": least,
            "image_quality": True,
        }
    return document | {"decisions": decisions, "point": "balanced", "disagreement": 0.3, "map_grid": None}, tensors


def _common(kind: str, outputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "sha256": ZEROS,
        "kind": kind,
        "name": kind,
        "version": "1",
        "precision": "fp32",
        "input": {"name": "images", "dtype": "uint8", "shape": ["batch", SIZE, SIZE, 3]},
        "outputs": outputs,
        "geometry": {"path": "reduced-crop-pad-resize-2", "size": SIZE, "fov_threshold": 20},
        "training": {"network": "", "strategy": "", "steps": 0, "device": "", "data": [], "figures": {}},
        "terms": {"licence": "CC0", "notice": "Drawn."},
    }


NOTHING = np.zeros((SIZE, SIZE), np.float32)
CASES = {
    "plain": [multitask()],
    "left-eye": [multitask(disc=blob(20, 30, 9, 10), cup=blob(20, 31, 7, 8), fovea=blob(44, 34, 4, 4))],
    "no-cup": [multitask(cup=NOTHING)],
    "no-disc": [multitask(disc=NOTHING)],
    "no-fovea": [multitask(fovea=blob(22, 34, 4, 4, peak=0.05))],
    "two-discs": [multitask(disc=np.maximum(blob(44, 30, 9, 10), blob(12, 50, 4, 4)))],
    "cup-beyond-disc": [multitask(cup=blob(50, 31, 6, 5))],
    "disc-at-border": [multitask(disc=blob(62, 30, 9, 10), cup=blob(62, 31, 4, 5))],
    "squeezed-disc": [multitask(disc=blob(44, 30, 12, 5), cup=blob(44, 30, 5, 2.5))],
    "classifier-calls": [classifier(0.7, 0.8, 0.2)],  # what is referable is also any
    "classifier-open": [classifier(0.41, 0.51, 0.3)],  # near thresholds it abstains
    "closer": [multitask(), disc()],
    "closer-finds-a-cup": [multitask(cup=NOTHING), disc()],
    "closer-sees-none": [multitask(), disc(disc=NOTHING)],
    "all-three": [multitask(), disc(), classifier(0.1, 0.1, 0.1)],
    "both-agree": [multitask(), classifier(0.1, 0.1, 0.1)],
    "both-disagree": [multitask(), classifier(0.9, 0.1, 0.6)],
    "both-no-disc": [multitask(disc=NOTHING), classifier(0.9, 0.1, 0.6)],
    "both-blurred": [multitask(), classifier(0.9, 0.1, 0.6, not_a_fundus=0.5, blurred=0.61)],
    "both-coarse": [multitask(), classifier(0.9, 0.1, 0.6, not_a_fundus=0.5, blurred=0.59)],
}


def placement_of(document: dict[str, Any]) -> Placement:
    """Where a model's square lies."""
    return CLOSER if document["kind"] == "disc" else WHOLE


def row_of(looks: list[tuple[dict[str, Any], Tensors]]) -> dict[str, Any]:
    """What Funduscope says of outputs: the row, without the columns that stand for file and models."""
    readers, seen, blank = [], [], np.zeros((SIZE, SIZE, 3), np.uint8)
    for document, tensors in looks:
        placement = placement_of(document)
        prepared = Prepared(blank, placement, share=WHOLE.scale_x / placement.scale_x)
        reader = READERS[document["kind"]]
        readers.append(reader(reader.contract.model_validate(document), None))
        looked = prepared, {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}
        seen.append((prepared, readers[-1].merged(looked, seen[0])) if readers[-1].after else looked)
    row = reading.result(Screening(name="golden", width=WIDTH, height=HEIGHT), readers, seen).to_dict()
    left_out = {"name", "sha256", "patient", "model", "model_version", "model_sha256", "backend", "precision"}
    return {key: value for key, value in row.items() if key not in left_out}


def write(folder: Path) -> None:
    """All cases, each a JSON file and a file of tensors."""
    for name, looks in CASES.items():
        values, described, start = b"", [], 0
        for document, tensors in looks:
            places = {}
            for key, tensor in tensors.items():
                flat = np.asarray(tensor, "<f4")
                places[key] = {"offset": start, "shape": list(flat.shape)}
                values += flat.tobytes()
                start += flat.nbytes
            described.append({"contract": document, "placement": asdict(placement_of(document)), "tensors": places})
        (folder / f"{name}.f32").write_bytes(values)
        case = {"width": WIDTH, "height": HEIGHT, "looks": described, "row": row_of(looks)}
        (folder / f"{name}.json").write_text(json.dumps(case, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cv2.setNumThreads(1)
    write(FOLDER)
