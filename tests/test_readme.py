"""The README's Python blocks run as they stand, one after the other, from the repository's root."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_python_blocks_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    assert len(BLOCKS) >= 3
    assert names["result"].status == "ok"  # type: ignore[attr-defined]
    assert "retina_cc0.jpg ok" in capsys.readouterr().out


def explained(table: str) -> set[str]:
    """The columns that a table explains: by name, or `stem…` with the parts that its row, or `…_part` anywhere, names."""
    anywhere, columns = set(re.findall(r"`…_([a-z]+)`", table)), set()
    for line in table.splitlines():
        _, head, meaning, *_ = line.split("|")
        names, stems = set(re.findall(r"`([a-z0-9_]+)`", head)), re.findall(r"`([a-z0-9_]+?)_?…`", head)
        told = set(re.findall(r"[a-z0-9_]+", meaning.lower().replace("-", ""))) | names | anywhere
        columns |= names | set(stems) | {f"{stem}_{part}" for stem in stems for part in told}
        columns |= {f"{name}_{part}" for name in names for part in re.findall(r"`…_([a-z]+)`", head)}
    return columns


def test_every_column_is_explained() -> None:
    from funduscope.engine.results import COLUMNS

    table = README.split("| column | meaning |\n|---|---|\n")[1].split("\n\n")[0]
    assert set(COLUMNS) <= explained(table)
    for name in re.findall(r"`([a-z0-9_]+)`", " ".join(line.split("|")[1] for line in table.splitlines())):
        assert name in COLUMNS


def test_every_column_of_a_patient_is_explained() -> None:
    from funduscope.engine.outputs.patients import COLUMNS

    table = README.split("| column of `patients.csv` | meaning |\n|---|---|\n")[1].split("\n\n")[0]
    assert set(COLUMNS) <= explained(table)
    for name in re.findall(r"`([a-z0-9_]+)`", " ".join(line.split("|")[1] for line in table.splitlines())):
        assert name in COLUMNS


def test_every_code_is_listed() -> None:
    from funduscope import Code

    assert set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", README)) >= set(Code)


def test_a_column_that_is_not_explained_is_seen() -> None:  # the test above can fail
    table = "| `a`, `…_part` | this |\n| `b…`, `c` | its name and SHA-256 |\n| `d_…` | centre `x` |"
    found = explained(table)
    assert found >= {"a", "a_part", "b", "b_name", "b_sha256", "b_c", "b_part", "c", "d_x"}
    assert not found & {"a_name", "c_part", "c_name", "d_sha256", "b_x", "part"}


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()
