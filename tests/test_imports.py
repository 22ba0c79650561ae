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
CORE = {"numpy", "cv2", "onnxruntime", "simplejpeg", "PIL", "pydantic"}
OPTIONAL = {  # by `require`
    ROOT / "engine" / "pictures" / "dicom.py": {"pydicom"},
    ROOT / "engine" / "labelled" / "refuge.py": {"openpyxl"},
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


@pytest.mark.parametrize(("room", "path", "package"), FILES, ids=[str(path.relative_to(ROOT)) for _, path, _ in FILES])
def test_the_table_of_who_may_import_whom_holds(room, path, package):
    names = imported(path, package)
    ours = {name.split(".")[1] for name in names if name.startswith("funduscope.")} - {room}
    others = {name.split(".")[0] for name in names} - {"funduscope"} - sys.stdlib_module_names
    is_exporter = path == ROOT / "export" / "onnx.py"
    if room != "face":
        assert ours <= MAY_IMPORT[room] | ({"training"} if is_exporter else set())
    if room == "postprocess":
        assert others <= {"numpy", "cv2"}
    if room == "engine":
        assert others <= CORE | OPTIONAL.get(path, set()) | (BACKENDS if "runners" in path.parts else set())
    assert "pydicom" not in others or path.name == "dicom.py"
    assert "torch" not in others or room == "training" or is_exporter


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
    assert run(script).split() == ["findings", "masks", "measures", "metrics", "scores"]


def test_the_engine_works_without_what_training_needs():
    script = """
import importlib, pkgutil
import numpy as np
import funduscope, funduscope.engine
for module in pkgutil.iter_modules(funduscope.engine.__path__):
    importlib.import_module("funduscope.engine." + module.name)
pixels = np.full((200, 200, 3), 90, np.uint8)
with funduscope.Screener.open(threads=1) as screener:
    print(screener(pixels).model.backend)
"""
    blocked = (*TRAINING_ONLY, "pydicom", "funduscope.training", "funduscope.export")
    assert run(script, *blocked).strip() == "onnxruntime"


def test_pydicom_is_imported_by_a_dicom_file_and_nothing_else():
    script = """
import funduscope, sys
from funduscope.engine.pictures import photo
loaded = ["pydicom" in sys.modules]
for source in (sys.argv[1], b"x" * 200, bytes(128) + b"DICM"):
    try:
        photo.read(source)
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
