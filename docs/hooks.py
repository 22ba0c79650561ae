"""What MkDocs does to the pages: their tables come from the code, and links between files of the repository hold on the site.

`python docs/hooks.py` writes the tables into the pages as well, for those who read them without the site, and draws the rooms.
"""

from __future__ import annotations

import ast
import html
import inspect
import os
import posixpath
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import funduscope
from funduscope.engine.outputs import patients
from funduscope.engine.readers.column import Column

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DRAWING = ROOT / "docs" / "rooms.svg"
SITE = {  # files of the repository outside docs/, and what the site calls them
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "LICENSE.txt",
    "src/funduscope/models/MODEL_LICENSE": "models/MODEL_LICENSE.txt",
    "src/funduscope/models/classifier.md": "models/classifier.md",
    "src/funduscope/models/disc.md": "models/disc.md",
    "src/funduscope/models/multitask.md": "models/multitask.md",
}
ROOMS = (("src/funduscope",), ("training", "export"), ("engine",), ("postprocess",))  # may import what stands below
ENGINE = (  # the same within the engine: files and rooms
    ("watch",),
    ("run", "tune", "labelled", "doctor"),
    ("cluster",),
    ("screener", "outputs"),
    ("tuning", "reading"),
    ("gate", "schedule", "workers"),
    ("spotting",),
    ("look",),
    ("results", "site"),
    ("models", "runners", "drawing"),
    ("readers",),
    ("contract", "findings"),
    ("pictures",),
    ("diseases", "files"),
    ("errors",),
    ("eyes",),
)
_KINDS = {"bool": "true, false", "float": "number", "int": "whole number", "list": "list of text", "text": "text"}
_MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
_LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")


def of_columns(columns: Sequence[Column]) -> str:
    """A table of columns. Equal lines of one structure (`disc_x`, `disc_y`) share a row."""
    lines = ["| column | values | meaning |", "|---|---|---|"]
    names: list[str] = []
    for column, after in zip(columns, [*columns[1:], None], strict=True):
        names.append(f"`{column.name}`")
        if after is None or (after.kind, after.meaning) != (column.kind, column.meaning):
            lines.append(f"| {', '.join(names)} | {_KINDS[column.kind]} | {column.meaning} |")
            names = []
    return "\n".join(lines)


def of_codes() -> str:
    """A table of all codes, by the docstring of their class."""
    lines = ["| code | meaning |", "|---|---|"]
    told = (inspect.getdoc(funduscope.Code) or "").split("Attributes:\n")[1]
    for line in re.sub(r"\n {8}", " ", told).splitlines():  # a long meaning goes on in a line further in
        name, _, meaning = line.strip().partition(": ")
        lines.append(f"| `{name}` | {meaning} |")
    return "\n".join(lines)


def of_commands() -> str:
    """What `--help` says of each command."""
    from typer.main import get_command

    from funduscope.cli import app

    parts = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        usage, rows = ["funduscope", name], ["| option | meaning |", "|---|---|"]
        for own in command.params:
            named = own.metavar or own.name.upper()
            given = (
                named if own.param_type_name == "argument" else own.opts[0] if own.is_flag else f"{own.opts[0]} {named}"
            )
            usage += [given] * (own.required or own.param_type_name == "argument")
            default = f" Default: `{own.default}`." if own.default not in (None, False) else ""
            rows.append(f"| `{given}` | {_sentence(own.help)}{default} |")
        shown = f"```text\n{' '.join([*usage, '[OPTIONS]'])}\n```"
        parts += [f"### {name}", inspect.cleandoc(command.help), shown, *["\n".join(rows)] * (len(rows) > 2)]
    return "\n\n".join(parts)


def of_rooms() -> str:
    """A table of the repository's rooms, from top to bottom, by the docstrings of their packages."""
    return _by_docstring("room", [(f"{name}/", ROOT / name / "__init__.py") for row in ROOMS for name in row])


def of_engine() -> str:
    """A table of the engine's files and rooms, from top to bottom."""
    named = [(name, ROOT / "engine" / name) for row in ENGINE for name in row]
    files = [
        (f"{name}/", path / "__init__.py") if path.is_dir() else (f"{name}.py", path.with_suffix(".py"))
        for name, path in named
    ]
    return _by_docstring("in `engine/`", files)


def _by_docstring(title: str, files: Sequence[tuple[str, Path]]) -> str:
    lines = [f"| {title} | what it is |", "|---|---|"]
    for name, path in files:
        told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append(f"| `{name}` | {told.splitlines()[0]} |")
    return "\n".join(lines)


def drawn_rooms() -> str:
    """The rooms as a drawing, SVG: what stands lower may be imported by what stands higher."""
    parts, width, y = list[str](), 720, 10

    def box(x: float, top: float, w: float, h: float, text: str, size: int, fill: str) -> None:
        middle = top + (h / 2 if h < 60 else 16)
        parts.append(
            f'<rect x="{x:g}" y="{top:g}" width="{w:g}" height="{h:g}" rx="6" fill="{fill}" stroke="#5c6b7a"/>'
        )
        anchor, at = ("middle", x + w / 2) if h < 60 else ("start", x + 12)
        style = f'font-size="{size}" text-anchor="{anchor}" dominant-baseline="central"'
        parts.append(f'<text x="{at:g}" y="{middle:g}" {style}>{html.escape(text)}</text>')

    for row in ROOMS:
        high = 44 + 30 * len(ENGINE) if row == ("engine",) else 40
        for k, name in enumerate(row):
            wide = (width - 14 * (len(row) - 1)) / len(row)
            box(10 + k * (wide + 14), y, wide, high, f"{name}/", 15, "#e3edf7" if name != "engine" else "#f4f8fc")
        if row == ("engine",):
            for k, inner in enumerate(ENGINE):
                wide = (width - 24 - 10 * (len(inner) - 1)) / len(inner)
                for j, name in enumerate(inner):
                    box(22 + j * (wide + 10), y + 34 + 30 * k, wide, 24, name, 13, "#ffffff")
        y += high + 14
    size = f'viewBox="0 0 {width + 20} {y}" width="{width + 20}" height="{y}"'
    back = '<rect width="100%" height="100%" fill="#ffffff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" fill="#1b1f24">'
    return "\n".join([head, "<title>Who may import whom: only what stands lower</title>", back, *parts, "</svg>\n"])


def _sentence(text: str) -> str:
    return text if text.endswith(".") else text + "."


TABLES: dict[str, Callable[[], str]] = {
    "codes": of_codes,
    "columns": lambda: of_columns(funduscope.columns()),
    "commands": of_commands,
    "engine": of_engine,
    "patient-columns": lambda: of_columns(patients.columns()),
    "rooms": of_rooms,
}


def filled(text: str) -> str:
    """A page with its tables as the code has them now."""
    return _MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text)


def relinked(text: str, source: str, place: str) -> str:
    """A page's links between files of the repository as links of the site.

    Args:
        text: Markdown.
        source: The page's file, relative to the repository.
        place: The page's file, relative to the site's pages.
    """

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[2]))
        there = SITE.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        if "://" in found[2] or there is None:
            return found[0]
        return f"{found[1]}{posixpath.relpath(there, posixpath.dirname(place))}{found[3] or ''}{found[4]}"

    return _LINK.sub(link, text)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files outside docs/ take their places."""
    from mkdocs.structure.files import File

    for source, place in SITE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Tables, then links."""
    place = page.file.src_uri
    source = next((own for own, there in SITE.items() if there == place), f"docs/{place}")
    return relinked(filled(markdown), source, place)


def main() -> None:
    """Write the tables into the pages, and the drawing."""
    DRAWING.write_text(drawn_rooms(), encoding="utf-8")
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (new := filled(text)) != text:
            path.write_text(new, encoding="utf-8")
            print(f"{os.path.relpath(path)}: tables written anew")


if __name__ == "__main__":
    main()
