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


def test_every_column_is_explained() -> None:
    from funduscope.engine.results import COLUMNS

    explained = set(re.findall(r"`([a-z0-9_]+)`", README))
    joined = {f"{structure}_{key}" for structure in ("disc", "cup") for key in explained | {"x", "y"}}
    assert set(COLUMNS) <= explained | joined


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()
