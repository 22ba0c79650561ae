"""Who may import whom: read off the source, and tried with the others blocked."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "postprocess": ROOT / "postprocess",
    "engine": ROOT / "engine",
    "training": ROOT / "training",
    "export": ROOT / "export",
    "face": ROOT / "src" / "funduscope",
}
MAY_IMPORT = {  # room -> other rooms; `version` is the one string of the face that results carry
    "postprocess": set(),
    "engine": {"postprocess", "version"},
    "training": {"postprocess", "engine", "version"},
    "export": {"postprocess", "engine", "version"},
    "face": {"postprocess", "engine", "training", "export", "cli", "version"},
}
CORE = {"numpy", "cv2", "onnxruntime", "simplejpeg", "PIL", "pydantic", "filelock"}
OPTIONAL = {  # by `require`
    ROOT / "engine" / "pictures" / "dicom.py": {"pydicom", "jpeg_ls"},
    ROOT / "engine" / "labelled" / "refuge.py": {"openpyxl"},
    ROOT / "engine" / "outputs" / "rows.py": {"pyarrow"},
    ROOT / "engine" / "outputs" / "dicom.py": {"pydicom", "highdicom"},
    ROOT / "engine" / "cluster.py": {"ray"},
    ROOT / "engine" / "pictures" / "lists.py": {"openpyxl"},
}
BACKENDS = {"tensorrt", "tensorrt_rtx", "pycuda", "cuda", "openvino"}


def imported(path: Path, package: str) -> set[str]:
    """Absolute names of what a file imports or `require`s, wherever in it; what is for the type checker alone does not count."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "require":
            found |= {first.value for first in node.args[:1] if isinstance(first, ast.Constant)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return found


def files() -> list[tuple[str, Path, str]]:
    """Room, file and package of each source file."""
    table = []
    for room, folder in ROOMS.items():
        for path in sorted(folder.rglob("*.py")):
            inner = path.relative_to(folder).parent.parts
            table.append((room, path, ".".join(["funduscope", *([] if room == "face" else [room]), *inner])))
    return table


FILES = files()


def trespasses(room: str, path: Path, package: str) -> set[str]:
    """What a file imports and may not."""
    names = imported(path, package)
    ours = {name.split(".")[1] for name in names if name.startswith("funduscope.")} - {room}
    others = {name.split(".")[0] for name in names} - {"funduscope"} - sys.stdlib_module_names
    is_exporter = path == ROOT / "export" / "onnx.py"
    wrong = set() if room == "face" else ours - MAY_IMPORT[room] - ({"training"} if is_exporter else set())
    if room == "postprocess":
        wrong |= others - {"numpy", "cv2"}
    if room == "engine":
        wrong |= others - CORE - OPTIONAL.get(path, set()) - (BACKENDS if "runners" in path.parts else set())
    if path.name != "dicom.py":
        wrong |= others & {"pydicom"}
    return wrong if room == "training" or is_exporter else wrong | others & {"torch"}


@pytest.mark.parametrize("room", ROOMS)
def test_the_table_of_who_may_import_whom_holds(room):
    own = [(path, package) for found, path, package in FILES if found == room]
    found = {str(path.relative_to(ROOT)): trespasses(room, path, package) for path, package in own}
    assert {path: names for path, names in found.items() if names} == {}
    assert len(found) > 5


@pytest.mark.parametrize(
    ("room", "line", "wrong"),
    [
        ("postprocess", "from ..engine import errors", "engine"),
        ("postprocess", "import onnxruntime", "onnxruntime"),
        ("engine", "def f():\n    import torch", "torch"),
        ("engine", "from ..training import train", "training"),
        ("engine", "import tensorrt", "tensorrt"),
        ("engine", "require('pydicom', 'dicom')", "pydicom"),
        ("export", "from ..training import train", "training"),
        ("face", "import torch", "torch"),
    ],
)
def test_a_trespass_is_seen(tmp_path, room, line, wrong):  # the test above can fail
    (tmp_path / "x.py").write_text(line)
    assert trespasses(room, tmp_path / "x.py", "funduscope" if room == "face" else f"funduscope.{room}") == {wrong}
    (tmp_path / "x.py").write_text("import numpy, json")
    assert trespasses(room, tmp_path / "x.py", f"funduscope.{room}") == set()


def test_the_reader_of_imports_sees_them_all(tmp_path):  # the test above can fail
    path = tmp_path / "x.py"
    path.write_text(
        "import torch.nn\ndef f():\n    from ...engine import photo\n    from . import y\n    errors.require('onnx.x', 'z')\n"
    )
    assert imported(path, "funduscope.export.inner") == {
        "torch.nn",
        "onnx.x",
        "funduscope.engine.photo",
        "funduscope.export.inner.y",
    }
    assert len(FILES) > 30


# within the engine

ORDER = (  # rooms and files, from the lowest; each imports what stands in its own row or lower
    ("eyes", "errors", "diseases", "files"),
    ("pictures",),
    ("findings", "contract"),
    ("runners", "drawing"),
    ("readers",),
    ("models", "results", "gate", "spotting", "look", "tuning", "doctor", "reading", "site"),
    ("schedule", "workers", "screener"),
    ("outputs",),
    ("cluster",),
    ("run", "tune"),
    ("watch",),
)
LABELLED = "labelled"  # above gate, screener and results; nothing else in the engine imports it
Arrows = dict[str, set[str]]  # who imports whom


def arrows_of(folder: Path, package: str) -> Arrows:
    """Who imports whom among the files below a folder, wherever in them; an `__init__.py` has its folder's name. What is in
    a package needs its `__init__.py` first, which counts for those outside it."""
    paths = sorted(folder.rglob("*.py"))

    def name_of(path: Path) -> str:
        parts = path.relative_to(folder).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    known = {name_of(path): path for path in paths}
    found: Arrows = {}
    for name, path in known.items():
        within = ".".join([package, *path.relative_to(folder).parent.parts])
        found[name] = set()
        for target in imported(path, within):
            parts = target.removeprefix(package).strip(".").split(".") if target.startswith(package) else []
            chain = [".".join(parts[:k]) for k in range(1, len(parts) + 1)]
            reached = [own for own in chain if own in known]
            own_packages = [own for own in reached[:-1] if f"{name}.".startswith(f"{own}.")]
            found[name] |= {*reached} - {*own_packages, name}
    return found


def room_of(name: str) -> str:
    return name.split(".")[0]


def between_rooms(arrows: Arrows) -> Arrows:
    """The same, of rooms: a folder, or a file that lies in none."""
    found: Arrows = {room_of(name): set() for name in arrows}
    for name, targets in arrows.items():
        found[room_of(name)] |= {room_of(target) for target in targets} - {room_of(name)}
    return found


def circles(arrows: Arrows) -> list[list[str]]:
    """Those who import one another, directly or not: groups of more than one."""
    reach: Arrows = {}
    for name in arrows:
        seen, waiting = set[str](), [name]
        while waiting:
            for target in arrows[waiting.pop()] - seen:
                seen.add(target)
                waiting.append(target)
        reach[name] = seen
    groups = {
        tuple(sorted({name, *(t for t in reach[name] if name in reach[t])})) for name in arrows if name in reach[name]
    }
    return sorted(map(list, groups))


def upward(arrows: Arrows) -> list[str]:
    """Arrows to a higher row, from deployed files to labelled data, and files that have no row."""
    row = {name: number for number, names in enumerate(ORDER) for name in names} | {LABELLED: len(ORDER)}
    wrong = [f"{name}: of no row" for name in arrows if name and room_of(name) not in row]
    for name, targets in arrows.items():
        here = row.get(room_of(name), 0)
        wrong += [f"{name} -> {target}" for target in targets if here < row.get(room_of(target), 0)]
    return sorted(wrong)


@pytest.fixture(scope="module")
def engine() -> Arrows:
    found = arrows_of(ROOMS["engine"], "funduscope.engine")
    assert len(found) > 40
    assert sum(map(len, found.values())) > 150
    return found


def test_no_files_import_one_another_in_a_circle(engine):
    for room, folder in ROOMS.items():
        arrows = engine if room == "engine" else arrows_of(folder, f"funduscope{'' if room == 'face' else f'.{room}'}")
        assert circles(arrows) == [], room


def test_no_rooms_of_the_engine_import_one_another_in_a_circle(engine):
    assert circles(between_rooms(engine)) == []


def test_no_arrow_runs_up_the_order(engine):
    assert upward(engine) == []


def test_labelled_data_is_for_those_who_make_and_judge_models():
    users = set()
    for room, path, package in FILES:
        if any(name.startswith(f"funduscope.engine.{LABELLED}") for name in imported(path, package)):
            users.add(f"{room}/{path.name}" if room in ("face", "engine") and LABELLED not in path.parts else room)
    assert users <= {"engine", "face/cli.py", "face/cli_models.py", "training", "export"}
    assert "training" in users


def test_the_tables_are_above_the_loop():
    tables = "funduscope.training.tables"
    users = {
        f"{room}/{path.name}"
        for room, path, package in FILES
        for name in imported(path, package)
        if name.startswith(tables)
    }
    assert users == {"face/cli_models.py"}


@pytest.fixture
def drawn(tmp_path):
    """A drawn package: `drawn(**{"folder/file": source})`."""

    def draw(**sources: str) -> Arrows:
        for name, source in sources.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return arrows_of(tmp_path, "funduscope.engine")

    return draw


def test_arrows_are_read_wherever_they_are(drawn):
    found = drawn(
        **{
            "errors": "import os\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import files",
            "files": "def f():\n    from .errors import require",
            "readers/__init__": "from .column import Column",
            "readers/column": "from ..files import remove",
            "readers/classifier": "from . import column\nfrom .column import Column",
            "screener": "from .readers.classifier import PointName\nfrom . import errors as e",
            "gate/opening": "import funduscope.engine.screener\nfrom ..readers import READERS",
        }
    )
    assert found == {
        "errors": set(),
        "files": {"errors"},
        "readers": {"readers.column"},
        "readers.column": {"files"},
        "readers.classifier": {"readers.column"},
        "screener": {"readers", "readers.classifier", "errors"},
        "gate.opening": {"screener", "readers"},
    }
    assert between_rooms(found)["readers"] == {"files"}
    assert (circles(found), upward(found)) == ([], ["gate.opening -> screener"])


def test_a_circle_and_an_arrow_upwards_are_seen(drawn):  # the tests above can fail
    found = drawn(
        **{
            "errors": "def f():\n    from .files import remove",
            "files": "from . import errors",
            "gate/verify": "from .. import models",
            "gate/opening": "",
            "models": "from .gate import opening",
            "readers/__init__": "from . import column",
            "readers/column": "from ..labelled import sample",
            "labelled/sample": "",
            "novel": "",
        }
    )
    assert circles(found) == [["errors", "files"]]
    assert circles(between_rooms(found)) == [["errors", "files"], ["gate", "models"]]
    assert upward(found) == ["novel: of no row", "readers.column -> labelled.sample"]


# with the others blocked


def run(script: str, *blocked: str) -> str:
    lines = ["import sys", *(f"sys.modules[{name!r}] = None" for name in blocked), script]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


TRAINING_ONLY = ("torch", "onnx", "onnxscript", "sklearn", "safetensors", "matplotlib", "openpyxl")


def test_postprocess_needs_numpy_and_opencv_alone():
    script = """
import importlib, importlib.util, pkgutil, types
spec = importlib.util.find_spec("funduscope")
parent = types.ModuleType("funduscope")  # the real one imports the engine
parent.__path__ = list(spec.submodule_search_locations)
sys.modules["funduscope"] = parent
class Gate:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        ours = top == "funduscope" and name.startswith("funduscope.postprocess")
        if not (ours or top in ("numpy", "cv2") or top in sys.stdlib_module_names):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Gate())
room = importlib.import_module("funduscope.postprocess")
for module in pkgutil.iter_modules(room.__path__):
    importlib.import_module("funduscope.postprocess." + module.name)
    print(module.name)
"""
    assert run(script).split() == ["anatomy", "masks", "measures", "metrics", "plausible", "scores"]


def test_the_engine_works_without_what_training_needs():
    script = """
import importlib, pkgutil
import numpy as np
import funduscope, funduscope.engine
for module in pkgutil.walk_packages(funduscope.engine.__path__, "funduscope.engine."):
    importlib.import_module(module.name)
pixels = np.full((200, 200, 3), 90, np.uint8)
with funduscope.Screener.open(threads=1) as screener:
    print(*(model.backend for model in screener(pixels).models))
"""
    blocked = (*TRAINING_ONLY, "pydicom", "funduscope.training", "funduscope.export")
    assert set(run(script, *blocked).split()) == {"onnxruntime"}


def test_pydicom_is_imported_by_a_dicom_file_and_nothing_else():
    script = """
import funduscope, sys
from funduscope.engine.pictures import photo
loaded = ["pydicom" in sys.modules]
for source in (sys.argv[1], b"x" * 200, bytes(128) + b"DICM"):
    try:
        photo.load(source)
    except funduscope.PhotoError:
        pass
    loaded.append("pydicom" in sys.modules)
print(loaded)
"""
    command = [sys.executable, "-c", script, str(ROOT / "examples" / "retina_cc0.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[False, False, False, True]", done.stderr


def test_stamp_and_gate_work_without_torch():
    script = "import funduscope.export.stamp, funduscope.engine.gate.comparison; print('fine')"
    assert run(script, "torch", "sklearn", "safetensors", "matplotlib", "funduscope.training").strip() == "fine"


def test_importing_funduscope_brings_nothing_heavy():
    heavy = (*TRAINING_ONLY, "pydicom", "typer", "rich", "funduscope.training", "funduscope.export")
    assert run(f"import funduscope; print([name for name in {heavy!r} if name in sys.modules])").strip() == "[]"


@pytest.mark.parametrize(
    "command",
    [["train", "x.toml", "--out", "x"], ["calibrate", "x"], ["tables", "x.toml", "--out", "x"]],
    ids=lambda command: command[0],
)
def test_training_without_torch_gives_the_pip_line_and_code_4(command):
    script = f"""
sys.argv = {["funduscope", *command]!r}
from funduscope.cli import main
try:
    main()
except SystemExit as stop:
    print(stop.code)
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.modules['torch'] = None\n{script}"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "4"
    assert "pip install 'funduscope[train]'" in " ".join(done.stderr.split())


def test_importing_funduscope_needs_no_onnx_runtime():  # the doctor has to be able to say what is wrong with it
    script = "import funduscope; from funduscope.engine import doctor; doctor.examine(); print('fine')"
    assert run(script, "onnxruntime").strip() == "fine"
