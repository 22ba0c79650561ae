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
from funduscope.engine.contract import METADATA_KEY, ZEROS, Model
from funduscope.engine.readers.classifier import Classifier
from funduscope.engine.readers.quality import FAULTS, SCORES
from funduscope.export.stamp import stamp

Row = dict[str, Any]
MOVES = 0.005  # of a vCDR or a probability
MOVES_PX = 3.0  # of a place or length in the photo
RATIOS = ("vcdr", "glaucoma_network", "glaucoma_vcdr")
SAME = (
    "name",
    "status",
    "code",
    "warnings",
    "sha256",
    "width",
    "height",
    "eye",
    "eye_source",
    "second_look",
    "operating_point",
    "model_sha256",
)


def differences(row: Row, expected: Row) -> list[str]:
    """In what a row differs from the one that is expected, by more than it may."""
    found = [
        key for key in (*SAME, "glaucoma", "referable_dr", "any_dr", "glaucoma_second") if row[key] != expected[key]
    ]
    for key, value in expected.items():
        if isinstance(value, float) or isinstance(row.get(key), float):
            ratio = key in (*RATIOS, *SCORES) or key.endswith(("_probability", "_threshold"))
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


EMBEDDED = [models.locate(name) for name in ("multitask", "disc", "classifier")]


DISC, ACROSS = (218, 650), 193  # in the sample photograph: the disc's centre and diameter, px


def without_disc(whole: np.ndarray) -> np.ndarray:
    """The sample photograph with the disc painted over, in the colours around it."""
    mask = np.zeros(whole.shape[:2], np.uint8)
    cv2.circle(mask, DISC, int(0.85 * ACROSS), 255, -1)
    small, hole = (cv2.resize(own, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) for own in (whole, mask))
    filled = cv2.inpaint(small, (hole > 0).astype(np.uint8), 5, cv2.INPAINT_TELEA)
    return np.where(mask[..., None] > 0, cv2.resize(filled, whole.shape[1::-1]), whole)


def in_a_wide_field(whole: np.ndarray) -> np.ndarray:
    """The same, a third as wide, in the middle of a dark field."""
    side = whole.shape[0]
    wide = np.zeros_like(whole)
    cv2.circle(wide, (side // 2, side // 2), int(0.49 * side), (20, 40, 90), -1)
    small = cv2.resize(whole, (side // 3, side // 3), interpolation=cv2.INTER_AREA)
    start, lit = (side - side // 3) // 2, small.max(axis=2, keepdims=True) > 24
    part = wide[start : start + side // 3, start : start + side // 3]
    part[:] = np.where(lit, small, part)
    return wide


def with_a_large_disc(whole: np.ndarray) -> np.ndarray:
    """The same with its disc 2.6 times as large, which reaches beyond the field."""
    half = int(0.8 * ACROSS)
    x, y = DISC
    disc = cv2.resize(whole[y - half : y + half, x - half : x + half], None, fx=2.6, fy=2.6)
    soft = np.zeros(disc.shape[:2], np.float32)
    cv2.circle(soft, (disc.shape[1] // 2, disc.shape[0] // 2), int(0.42 * disc.shape[0]), 1, -1)
    soft = cv2.GaussianBlur(soft, (0, 0), 0.05 * ACROSS)[..., None]
    margin = disc.shape[0]  # around the picture, as the disc goes beyond
    around = cv2.copyMakeBorder(without_disc(whole), *[margin] * 4, cv2.BORDER_CONSTANT)
    top, left = y + margin // 2, x + 180 + margin // 2
    part = around[top : top + margin, left : left + margin]
    part[:] = (soft * disc + (1 - soft) * part).astype(np.uint8)
    return around[margin:-margin, margin:-margin]


def on_a_screen(whole: np.ndarray, table: tuple[int, int, int], noise: float) -> np.ndarray:
    """The same on a screen with a grey frame, photographed on a table of that colour, BGR."""
    shown = cv2.copyMakeBorder(whole, 60, 60, 400, 400, cv2.BORDER_CONSTANT)
    framed = cv2.copyMakeBorder(cv2.add(shown, (18, 18, 18, 0)), *[50] * 4, cv2.BORDER_CONSTANT, value=(80, 80, 80))
    around = cv2.copyMakeBorder(framed, *[150] * 4, cv2.BORDER_CONSTANT, value=table).astype(np.float32)
    noises = np.random.default_rng(0).normal(0, noise, around.shape)
    return np.clip(around + noises, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(cc0, tmp_path_factory) -> list[Path]:
    """The sample photograph as it is, and as other files and cameras would have it."""
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
        "green.png": np.where(whole.max(axis=2, keepdims=True) < 24, np.array([64, 177, 0], np.uint8), whole),
        "screen.png": on_a_screen(whole, (230, 230, 230), 0),
        "dim_screen.jpg": on_a_screen(whole, (100, 110, 120), 6),
        "turned.jpg": np.rot90(whole),
        "turned_back.jpg": np.rot90(whole, -1),
        "black.jpg": np.zeros_like(whole),
        "blue.jpg": whole[..., ::-1],
        "near_black.jpg": cv2.convertScaleAbs(whole, alpha=0.13),
        "bright.jpg": cv2.convertScaleAbs(whole, alpha=2.5),
        "blurred.jpg": cv2.GaussianBlur(whole, (0, 0), 25),
        "thumbnail.png": cv2.resize(whole, (160, 160), interpolation=cv2.INTER_AREA),
        "no_disc.jpg": without_disc(whole),
        "wide.png": in_a_wide_field(whole),
        "swollen.png": with_a_large_disc(whole),
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
    assert rows["near_black.jpg"]["code"] == "DARK"  # there is light enough for one of the two models


def test_its_keys_are_columns(rows):
    assert set(rows["retina_cc0.jpg"]) <= {column.name for column in funduscope.columns()}
    assert all(row.keys() == rows["retina_cc0.jpg"].keys() for row in rows.values())


def test_names_come_from_standard_input_too(program, cc0, rows):
    made = screened(program, "--threads", 1, *EMBEDDED, input=f"{cc0}\nabsent.jpg\n")
    assert made[0] == rows["retina_cc0.jpg"]
    assert made[1]["code"] == "NOT_FOUND"


@pytest.mark.parametrize("name", ["multitask", "classifier"])
def test_one_model_alone(program, pictures, name):
    made = screened(program, "--threads", 1, models.locate(name), *pictures)
    with funduscope.Screener.open(name, backend="onnxruntime", threads=1) as screener:
        found = {
            path.name: differences(row, screener(path).to_dict()) for path, row in zip(pictures, made, strict=True)
        }
    assert {name: own for name, own in found.items() if own} == {}
    codes = {Path(row["name"]).name: row["code"] for row in made}
    if name == "multitask":  # it alone is asked for the disc
        assert (codes["no_disc.jpg"], codes["wide.png"], codes["swollen.png"]) == ("DISC_NOT_FOUND", None, None)
        assert codes["near_black.jpg"] == "DISC_NOT_FOUND"
    else:
        assert codes["near_black.jpg"] == "NO_FIELD_OF_VIEW"


def test_another_operating_point(program, cc0):
    with funduscope.Screener.open(backend="onnxruntime", threads=1, point="high_sensitivity") as screener:
        expected = screener(cc0).to_dict()
    assert differences(screened(program, "--point", "high_sensitivity", *EMBEDDED, cc0)[0], expected) == []


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Model:
    """A multi-task model whose maps are a picture's channels: red the disc, green the cup, blue the fovea."""
    onnx = pytest.importorskip("onnx")
    like = models.load("multitask").contract
    make, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        make.make_node("Cast", ["images"], ["values"], to=kinds.FLOAT),
        make.make_node("Div", ["values", "white"], ["shares"]),
        make.make_node("ReduceMean", ["disc", "sides"], ["glaucoma"], keepdims=0),
    ]
    numbers = [make.make_tensor("white", kinds.FLOAT, [], [255.0]), make.make_tensor("sides", kinds.INT64, [2], [1, 2])]
    for channel, name in enumerate(("disc", "cup", "fovea")):
        numbers.append(make.make_tensor(f"{name}_channel", kinds.INT64, [], [channel]))
        nodes.insert(2, make.make_node("Gather", ["shares", f"{name}_channel"], [name], axis=3))
    (images, *outputs) = [
        make.make_tensor_value_info(own.name, kinds.UINT8 if own.dtype == "uint8" else kinds.FLOAT, own.shape)
        for own in (like.input, *like.outputs)
    ]
    images.name = "images"
    document = like.model_copy(update={"input": like.input.model_copy(update={"name": "images"})})
    graph = make.make_graph(nodes, "channels", [images], outputs, numbers)
    graph = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10)
    return stamp(graph, document, tmp_path_factory.mktemp("painted") / "painted.onnx")


def paint(
    path: Path,
    disc=(350, 250, 80, 84),
    cup=40,
    fovea=(180, 260),
    line=None,
    bite=0,
    vessel=None,
    shape="ellipse",
    glare=0,
) -> Path:
    """A picture, 512 px wide, of a field of 500 px. disc: x, y, width, height; cup: its diameter; line: smears the disc to
    there; bite: diameter of what is missing at the disc's left side; vessel: something else that is taken for a disc;
    shape: of the disc; glare: diameter of what is burnt out in it."""
    red, green, blue = (np.full((512, 512), value, np.uint8) for value in (100, 60, 15))
    if disc:
        x, y, width, height = disc
        across, down = width // 2, height // 2
        if shape == "box":
            cv2.rectangle(red, (x - across, y - down), (x + across, y + down), 230, -1)
        elif shape == "diamond":
            cv2.fillConvexPoly(red, np.array([(x - across, y), (x, y - down), (x + across, y), (x, y + down)]), 230)
        else:
            cv2.ellipse(red, (x, y), (across, down), 0, 0, 360, 230, -1)
        if bite:
            cv2.circle(red, (x - width // 2, y), bite // 2, 100, -1)
        if cup:
            cv2.circle(green, (x, y), cup // 2, 170, -1)
        if glare:
            cv2.circle(green, (x, y), glare // 2, 255, -1)
        if vessel:
            cv2.ellipse(red, vessel[:2], (vessel[2] // 2, vessel[3] // 2), 0, 0, 360, 230, -1)
        if line:
            cv2.line(red, (x, y), line, 230, 22)
    if fovea:
        cv2.circle(blue, fovea, 12, 90, -1)
    lit = np.zeros((512, 512, 1), np.uint8)
    cv2.circle(lit, (256, 256), 250, 1, -1)
    cv2.imwrite(str(path), lit * np.dstack([blue, green, red]))
    return path


PAINTED = {  # what is painted, and what is to be said of it
    "plain": ({}, []),
    "closer": ({"disc": (330, 250, 26, 26), "cup": 12, "fovea": (256, 260)}, []),  # seen from 3/4 of the field on
    "nearer": ({"disc": (310, 250, 20, 20), "cup": 8, "fovea": (256, 260), "vessel": (256, 424, 72, 7)}, []),
    "nearest": ({"disc": (310, 250, 20, 20), "cup": 8, "fovea": (256, 260), "vessel": (256, 396, 72, 7)}, []),
    "bright_edge": ({"vessel": (256, 442, 220, 112)}, []),
    "burnt_out": ({"glare": 28}, ["DISC_OVEREXPOSED"]),
    "burnt_out_closer": (
        {"disc": (330, 250, 26, 26), "cup": 12, "fovea": (256, 260), "glare": 10},
        ["DISC_OVEREXPOSED"],
    ),
    "glinting": ({"glare": 12}, []),
    "burnt_out_sideways": ({"disc": (256, 330, 70, 64), "fovea": (240, 190), "glare": 28}, ["SIDEWAYS"]),
    "tiny": ({"disc": (330, 250, 14, 14), "cup": 6, "fovea": (280, 255)}, ["DISC_IMPLAUSIBLE"]),
    "beside": ({"disc": (460, 250, 26, 26), "cup": 12, "fovea": (400, 250)}, []),  # beyond what closer looks show
    "large": ({"disc": (330, 250, 190, 190)}, ["DISC_IMPLAUSIBLE"]),
    "wide": ({"disc": (350, 250, 130, 84)}, ["DISC_IMPLAUSIBLE"]),
    "narrow": ({"disc": (350, 250, 36, 92), "cup": 20}, ["DISC_IMPLAUSIBLE"]),
    "smeared": ({"line": (430, 340)}, ["DISC_IMPLAUSIBLE"]),
    "bitten": ({"bite": 70}, ["DISC_IMPLAUSIBLE"]),
    "box": ({"shape": "box"}, ["DISC_IMPLAUSIBLE"]),
    "diamond": ({"shape": "diamond"}, ["DISC_IMPLAUSIBLE"]),
    "far": ({"disc": (430, 250, 44, 44), "cup": 20, "fovea": (120, 250)}, ["DISC_IMPLAUSIBLE"]),
    "far_without_cup": (
        {"disc": (430, 250, 44, 44), "cup": 0, "fovea": (120, 250)},
        ["CUP_NOT_FOUND", "DISC_IMPLAUSIBLE"],
    ),
    "fovea_within": ({"fovea": (320, 250)}, ["FOVEA_NOT_FOUND"]),
    "fovea_beside": ({"fovea": (288, 250)}, []),
    "large_with_fovea": ({"disc": (300, 250, 190, 190), "fovea": (260, 250)}, ["DISC_IMPLAUSIBLE", "FOVEA_NOT_FOUND"]),
    "sideways": ({"disc": (256, 330, 70, 64), "fovea": (240, 190)}, ["SIDEWAYS"]),
    "slanting": ({"disc": (310, 330, 70, 64), "fovea": (210, 190)}, []),
    "no_disc": ({"disc": None}, ["DISC_NOT_FOUND"]),
    "nothing": ({"disc": None, "fovea": None}, ["DISC_NOT_FOUND"]),
}


def test_what_is_painted_is_measured_as_the_engine_does_it(program, painted, classifier, tmp_path):
    paths = [paint(tmp_path / f"{name}.png", **own) for name, (own, _) in PAINTED.items()]
    made = screened(program, painted.path, classifier.path, *paths)
    alone = screened(program, painted.path, *paths)
    files = str(painted.path), str(classifier.path)
    with (
        funduscope.Screener.open(*files, backend="onnxruntime", threads=1) as both,
        funduscope.Screener.open(files[0], backend="onnxruntime", threads=1) as single,
    ):
        for (name, (_, warnings)), path, row, other in zip(PAINTED.items(), paths, made, alone, strict=True):
            assert differences(row, both(path).to_dict()) == [], name
            assert differences(other, single(path).to_dict()) == [], name
            assert other["code"] == ("DISC_NOT_FOUND" if "DISC_NOT_FOUND" in warnings else None), name
            assert [
                own for own in sorted(row["warnings"]) if own.split("_")[0] in ("CUP", "DISC", "FOVEA", "SIDEWAYS")
            ] == warnings, name
            if {"DISC_IMPLAUSIBLE", "SIDEWAYS"} & {*warnings}:
                assert (row["vcdr"], row["glaucoma"], row["eye"]) == (None, None, None), name
                assert row["glaucoma_threshold"] is not None, name


def judging(model: Model, to: Path, quality: Row) -> Model:
    """A classifier that judges pictures; of one that does not, each fault's score is that of a disease."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_model_from_string(model.data)
    document = model.contract.model_dump(exclude_defaults=True) | {"quality": quality}
    diseases = sorted(document["decisions"])
    for k, name in enumerate(SCORES):
        if name not in (own["name"] for own in document["outputs"]):
            graph.graph.node.append(onnx.helper.make_node("Identity", [diseases[k % len(diseases)]], [name]))
            graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch"]))
            document["outputs"].append({"name": name, "dtype": "float32", "shape": ["batch"]})
    return stamp(graph, Classifier.model_validate(document), to)


@pytest.mark.parametrize(
    ("wrong", "least_px", "status", "code", "called"),
    [
        ([], {}, "ok", None, False),
        (["blurred"], {}, "ungradable", "BLURRED", None),
        (["blurred", "dark"], {}, "ungradable", "DARK", None),  # the gravest is told
        ([*reversed(FAULTS)], {"glaucoma": 2000.0}, "ungradable", "NOT_A_FUNDUS", None),
        ([], {"glaucoma": 2000.0, "referable_dr": 100.0, "any_dr": 100.0}, "ok", None, None),
        ([], {"glaucoma": 2000.0}, "ungradable", "LOW_RESOLUTION", None),
    ],
)
@pytest.mark.parametrize("beside", [[], EMBEDDED[:1]], ids=["alone", "both"])
def test_a_classifier_that_judges_pictures(
    program, classifier, cc0, tmp_path, beside, wrong, least_px, status, code, called
):
    thresholds = dict.fromkeys(wrong, 0.0) | {name: 1.0 for name in FAULTS if name not in wrong}
    model = judging(
        classifier, tmp_path / "judging.onnx", {"thresholds": thresholds, "least_px": least_px, "image_quality": True}
    )
    (row,) = screened(program, *beside, model.path, cc0)
    with funduscope.Screener.open(*map(str, beside), str(model.path), backend="onnxruntime", threads=1) as screener:
        expected = screener(cc0).to_dict()
    assert differences(row, expected) == []
    assert row["reason"] == expected["reason"]
    assert (row["status"], row["code"], row["glaucoma_second"]) == (status, code, called)
    assert all(row[name] > 0 for name in SCORES)
    assert ("LOW_RESOLUTION" in row["warnings"]) == (status == "ok" and called is None)


def later(model: Model, to: Path) -> Path:
    """A classifier's file as a later version may write it: it has an output and a key that nobody here knows."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_model_from_string(model.data)
    graph.graph.node.append(onnx.helper.make_node("Shape", ["glaucoma"], ["of_no_use"]))
    graph.graph.output.append(onnx.helper.make_tensor_value_info("of_no_use", onnx.TensorProto.INT64, [1]))
    (entry,) = (own for own in graph.metadata_props if own.key == METADATA_KEY)
    document = json.loads(entry.value) | {"sha256": ZEROS, "quality": None, "unheard_of": 1}
    entry.value = json.dumps(document, separators=(",", ":"))
    data = graph.SerializeToString()
    to.write_bytes(
        data.replace(f'"sha256":"{ZEROS}'.encode(), f'"sha256":"{hashlib.sha256(data).hexdigest()}'.encode())
    )
    return to


def test_what_a_later_model_says_beside_is_left(program, classifier, cc0, tmp_path):
    (row,) = screened(program, later(classifier, tmp_path / "later.onnx"), cc0)
    (expected,) = screened(program, classifier.path, cc0)
    assert row | {"model_sha256": None} == expected | {"model_sha256": None}


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
