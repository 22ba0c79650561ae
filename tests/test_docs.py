"""The pages: what stands in them runs, exists, and is as the code has it.

A Python block runs as it stands, after those above it on its page, in a folder with the sample photograph. One that cannot
says so in its first line, `# Not run by the tests: needs ...`.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

import funduscope
from funduscope.cli import EXIT, app
from funduscope.engine.readers import READERS
from funduscope.engine.runners import BACKENDS
from funduscope.training.classifier.config import Lesions

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/CREDITS.md")),
    *sorted((ROOT / "src" / "funduscope" / "models").glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
NOT_RUN = "# Not run by the tests: needs "
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
TOPS = ("benchmarks", "docs", "engine", "examples", "export", "postprocess", "src", "tests", "training")
SHELL = {".", "apt-get", "build/screen", "cmake", "cp", "curl", "docker", "mkdir", "python3", "systemctl"}  # not ours


def module(path: Path) -> ModuleType:
    """A file as a module, wherever it is."""
    spec = importlib.util.spec_from_file_location(f"_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


hooks = module(ROOT / "docs" / "hooks.py")


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXTS[page], re.DOTALL | re.MULTILINE)


def pages_with(language: str) -> list[str]:
    return [page for page in TEXTS if blocks(page, language)]


def table(text: str, header: str) -> list[list[str]]:
    """The rows below a table's header, as cells."""
    rows = re.split(r"\n\|[-|]+\n", text.split(header)[1], maxsplit=1)[1].split("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.strip().splitlines()]


def coded(text: str) -> list[str]:
    """What stands in backticks, outside blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


# code


@pytest.fixture
def folder(tmp_path, monkeypatch, cc0) -> Path:
    """Where the blocks run: the sample photograph lies where it does in a clone, and once more as a DICOM file."""
    (tmp_path / "examples").mkdir()
    shutil.copy(cc0, tmp_path / "examples")
    with contextlib.suppress(ImportError):
        import pydicom
        from pydicom import uid
        from pydicom.encaps import encapsulate

        own = pydicom.Dataset()
        own.file_meta = pydicom.dataset.FileMetaDataset()
        own.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
        own.SOPClassUID, own.SOPInstanceUID = uid.OphthalmicPhotography8BitImageStorage, uid.generate_uid()
        own.Rows = own.Columns = 1411
        own.SamplesPerPixel, own.PhotometricInterpretation, own.PlanarConfiguration = 3, "YBR_FULL_422", 0
        own.BitsAllocated = own.BitsStored = 8
        own.HighBit, own.PixelRepresentation, own.ImageLaterality, own.PatientID = 7, 0, "L", "17"
        own.PixelData = encapsulate([cc0.read_bytes()])
        own.save_as(tmp_path / "eye.dcm", enforce_file_format=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_blocks_run(page, folder):
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        if not block.startswith(NOT_RUN):
            exec(compile(block, page, "exec"), names)
    result = names.get("result")
    assert result is None or result.status == "ok"  # type: ignore[attr-defined]


def test_the_pages_on_python_have_blocks():
    assert len(blocks("README.md", "python")) >= 2
    assert len(blocks("docs/embedding.md", "python")) >= 10
    run = [b for page in TEXTS for b in blocks(page, "python") if not b.startswith(NOT_RUN)]
    assert len(run) > len([b for page in TEXTS for b in blocks(page, "python") if b.startswith(NOT_RUN)])


def commands(block: str) -> list[list[str]]:
    """The commands of a shell block, each as its words."""
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            found.append([word for word in words[:end] if not re.fullmatch(r"[A-Z_]+=.*", word)])
            words = words[end + 1 :]
    return found


def parse(words: list[str]) -> None:
    """Have our own parser read a command of ours; raises what it raises."""
    at = next((k for k, word in enumerate(words) if not word.startswith("-")), None)
    assert set(words[:at]) <= {"-v"}
    assert at is not None
    assert words[at] in COMMANDS, f"there is no command {words[at]}"
    with COMMANDS[words[at]].make_context(words[at], words[at + 1 :]):
        pass


def check_block(block: str) -> None:
    """See that the commands of a block could run: that file, target, command, option or extra is there."""
    for program, *rest in commands(block):
        check_command(program, rest)


def check_command(program: str, rest: list[str]) -> None:
    if program == "funduscope":
        parse(rest)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(rest) <= set(targets), f"make {rest}"
    elif program in ("python", "bash"):
        assert (ROOT / rest[0]).is_file() or rest[:2] == ["-m", "pytest"], f"{program} {rest[0]}"
    elif program == "pip":
        assert rest[0] in ("install", "uninstall")
        for extra in re.findall(r"\[([\w,-]+)\]", " ".join(rest)):
            assert set(extra.split(",")) <= set(extras()), f"no extras {extra}"
    else:
        assert program in SHELL, f"unknown command {program}"


@pytest.mark.parametrize("page", pages_with("sh"))
def test_shell_blocks_could_run(page):
    for block in blocks(page, "sh"):
        check_block(block)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("funduscope screen eyes --ot results", "No such option"),
        ("funduscope screen eyes", "Missing parameter"),
        ("mkdir x && funduscope scren eyes", "there is no command scren"),
        ("make tset", "make"),
        ("python benchmarks/absent.py", "absent"),
        ("pip install '.[absent]'", "absent"),
        ("rm -r x", "unknown command rm"),
    ],
)
def test_a_command_that_could_not_run_is_seen(line, told):  # the test above can fail
    with pytest.raises(Exception, match=told):
        check_block(line)


def test_commands_options_and_files_in_the_text_exist():
    options = {name for command in COMMANDS.values() for own in command.params for name in own.opts}
    options |= {"--help", "--version", "--strict"}
    for page, text in TEXTS.items():
        for code in coded(text):
            words = code.split()
            if words[0] == "funduscope" and len(words) > 1 and words[1][0] != "-":
                assert words[1] in COMMANDS, f"{page}: {code}"
            if page != "CHANGELOG.md" and words[0] != "python":
                for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code):
                    assert option in options, f"{page}: {code}"
                if re.fullmatch(rf"(?:{'|'.join(TOPS)})/[\w./-]*", code):
                    assert (ROOT / code).exists(), f"{page}: {code}"


@pytest.mark.parametrize("page", pages_with("toml"))
def test_toml_blocks_have_keys_of_the_configurations(page):
    known: set[str] = set()

    def keys(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set().union(*map(keys, value)) if isinstance(value, list) else set()

    for path in (ROOT / "training" / "configs").glob("*.toml"):
        known |= keys(tomllib.loads(path.read_text(encoding="utf-8")))
    known |= {"lesions", *Lesions.model_fields}  # a part that no shipped configuration has
    for block in blocks(page, "toml"):
        assert keys(tomllib.loads(block)) <= known


# links


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", TEXTS[page]):
        if not target.startswith("https://"):
            path = (ROOT / page).parent / target if target else ROOT / page
            assert path.is_file(), f"{page}: {target}"
            if anchor:
                assert anchor in anchors(path.read_text(encoding="utf-8")), f"{page}: {target}#{anchor}"


def test_links_of_the_site_are_those_of_the_repository():
    relinked = hooks.relinked
    assert relinked("[a](docs/x.md#y)", "README.md", "index.md") == "[a](x.md#y)"
    assert relinked("[a](../CONTRIBUTING.md)", "docs/x.md", "x.md") == "[a](contributing.md)"
    card = "../../src/funduscope/models/classifier.md"
    assert relinked(f"[a]({card})", "docs/tables/README.md", "tables/README.md") == "[a](../models/classifier.md)"
    assert relinked("[a](https://x.org/README.md)", "README.md", "index.md") == "[a](https://x.org/README.md)"


# as the code has it


def test_tables_and_drawing_are_as_the_code_has_them():
    for page, text in TEXTS.items():
        assert hooks.filled(text) == text, f"{page}: its tables are old; run `python docs/hooks.py`"
    assert hooks.DRAWING.read_text(encoding="utf-8") == hooks.drawn_rooms(), "run `python docs/hooks.py`"


def test_an_old_table_is_seen():  # the test above can fail
    page = TEXTS["docs/columns.md"]
    assert "| `vcdr` | number |" in page
    assert hooks.filled(page.replace("| `vcdr` | number |", "| `vcdr` | text |")) == page


def test_every_column_and_code_is_explained():
    text = TEXTS["docs/columns.md"]
    for name in [column.name for column in funduscope.columns()] + list(funduscope.Code):
        assert f"`{name}`" in text
    assert [row[0] for row in table(text, "| code | meaning |")] == [f"`{code}`" for code in funduscope.Code]


def test_codes_and_columns_that_are_named_exist():
    columns = {column.name for column in funduscope.columns()}
    named = [row[0].strip("`") for row in table(TEXTS["README.md"], "| column | meaning |")]
    assert len(named) == 10
    assert set(named) <= columns
    for page in ("README.md", "docs/embedding.md", "docs/accuracy.md", "docs/columns.md"):
        for code in coded(TEXTS[page]):
            if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", code) and not code.startswith(("FUNDUSCOPE_", "MODEL_L")):
                assert code in set(funduscope.Code), f"{page}: {code}"


def test_the_api_page_has_all_that_is_public():
    documented = re.findall(r"^::: funduscope\.(\w+)$", TEXTS["docs/api.md"], re.MULTILINE)
    assert sorted(documented) == sorted(set(funduscope.__all__) - {"__version__"})


def test_the_page_on_model_files_has_every_key():
    text = TEXTS["docs/model-file.md"]
    for reader in READERS.values():
        for key in reader.contract.model_fields:
            assert f"`{key}`" in text, key


def test_the_page_on_engines_has_every_backend():
    named = {name for row in table(TEXTS["docs/engines.md"], "| `--backend` |") for name in coded(row[0])}
    assert named == set(BACKENDS)


def test_exit_codes_are_those_of_the_program():
    stated = {row[0] for row in table(TEXTS["docs/command-line.md"], "| code | meaning |")}
    assert {str(code) for code in EXIT.values()} <= stated


def extras() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["optional-dependencies"]


def test_every_extra_is_explained():
    text = TEXTS["docs/install.md"]
    rows = table(text, "| extra | what it is for |")
    assert {name for row in rows for name in coded(row[0])} == set(extras())
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]:
        assert re.match(r"[\w-]+", line)[0] in text  # type: ignore[index]


# a figure that stands in two places is the same in both


def figures(text: str) -> list[str]:
    return re.findall(r"(?<![\w.])\d*\.\d+", text)


def test_readme_is_short_and_its_figures_stand_on_their_pages():
    readme = TEXTS["README.md"]
    assert 600 <= len(readme.split()) <= 900
    for header, page in (("| what | on | figure |", "docs/accuracy.md"), ("| all models | |", "docs/speed.md")):
        own = figures(" ".join(row[-1] for row in table(readme, header)))
        assert len(own) >= 2
        assert set(own) <= set(figures(TEXTS[page])), page


def test_figures_on_accuracy_stand_in_the_model_cards():
    page = TEXTS["docs/accuracy.md"]
    for header, cards in (
        ("| | Drishti-GS1 (51) | IDRiD (103) |", ("multitask", "disc")),
        ("| | IDRiD (103) | ODIR-5K (455 for retinopathy, 504 for glaucoma) |", ("classifier",)),
    ):
        cells = [cell.split(" (")[0] for row in table(page, header) for cell in row[1:]]
        own = {cell for cell in cells if figures(cell)}
        assert len(own) >= 8
        known = {number for card in cards for number in figures(TEXTS[f"src/funduscope/models/{card}.md"])}
        assert own <= known, cards


# the architecture


def test_rooms_are_drawn_as_they_may_import():
    allowed = module(ROOT / "tests" / "test_imports.py").MAY_IMPORT
    names = {"src/funduscope": "face"}
    below: set[str] = set()
    for row in reversed(hooks.ROOMS):
        for room in row:
            assert set(allowed[names.get(room, room)]) - {"version", "cli"} == below
        below |= set(row)


def imported(path: Path) -> set[str]:
    """The engine's files and rooms that one of its files imports."""
    package = ["funduscope", *path.relative_to(ROOT).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            origin = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            names = [".".join([*origin, alias.name]).split(".") for alias in node.names]
            found |= {name[2] for name in names if name[1] == "engine" and len(name) > 2}
    return found


def test_the_engines_files_import_only_what_stands_lower():
    lower: set[str] = set()
    for row in reversed(hooks.ENGINE):
        for name in row:
            path = ROOT / "engine" / name
            for file in path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
                assert imported(file) - {name} <= lower, file
        lower |= set(row)
    there = {
        path.stem for path in (ROOT / "engine").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert lower == there - {"__init__"}


def test_the_way_of_one_photograph_is_the_one_that_is_told(cc0):
    rows = table(TEXTS["docs/architecture.md"], "| | file | what it does there |")
    told = [(row[1].strip("`"), coded(row[2])[0].split(".")[-1]) for row in rows]
    assert len(told) <= 6
    seen: list[tuple[str, str]] = []

    def watch(frame, event, argument):
        if event == "call":
            step = (frame.f_code.co_filename.replace("\\", "/"), frame.f_code.co_name)
            seen.extend(own for own in told if step[0].endswith(own[0]) and step[1] == own[1] and own not in seen)

    with funduscope.Screener.open("multitask", backend="onnxruntime", threads=1) as screener:
        before = sys.getprofile()
        sys.setprofile(watch)
        try:
            screener(cc0).to_dict()
        finally:
            sys.setprofile(before)
    assert seen == told
