"""What a message may not say: flags are the command line's; a library's message names the parameter, or a whole command."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    path for room in ("postprocess", "engine", "training", "export") for path in sorted((ROOT / room).rglob("*.py"))
]
FLAG = re.compile(r"(?<![\w-])--[a-z]")
COMMANDS = re.compile(r"funduscope [a-z]+ |gdcmconv |pip ")


def texts(tree):
    """All texts of a file but docstrings; a formatted one as a whole, with dots for its values."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    prose = {
        id(node.value)
        for parent in ast.walk(tree)
        if isinstance(parent, documented)
        for node in parent.body[:1]
        if isinstance(node, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside | prose:
            yield node.value


def flagged(source):
    """Texts that name a flag outside a whole command; what is put behind a command begins with a space."""
    return [
        text for text in texts(ast.parse(source)) if FLAG.search(text) and not COMMANDS.search(text) and text[0] != " "
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_message_names_a_flag(path):
    assert flagged(path.read_text(encoding="utf-8")) == []


def test_a_flag_would_be_seen():
    source = '''
"""Not --this."""
def f(x):
    """Nor --that."""
    raise ValueError(f"--batch {x}: wrong", "take a smaller --size", f"run funduscope build {x} --out {x}")
'''
    assert flagged(source) == ["--batch ...: wrong", "take a smaller --size"]
