"""The table on the terminal: a line a picture, names whole or folded from the left, decisions under their titles."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from funduscope import Code, Decision, ModelName, Rejected, Screening, console, results_table
from funduscope.results_table import folded

MULTITASK = ModelName("multi-task", "multitask", "1", "0" * 64, "fake", "fp32")
CLASSIFIER = ModelName("classifier", "channels", "7", "1" * 64, "fake", "fp32")


@pytest.fixture
def shown(monkeypatch):
    """The lines that are printed on a terminal of so many cells: `shown(results, models, more=0, width=100)`."""

    def lines(results, models, more=0, width=100) -> list[str]:
        out = io.StringIO()
        monkeypatch.setattr(console, "stdout", Console(file=out, width=width, highlight=False))
        results_table.show(results, models, more)
        return out.getvalue().splitlines()

    return lines


def screening(name="eye.jpg", **values) -> Screening:
    return Screening(name=name, width=3, height=2, models=(MULTITASK, CLASSIFIER), **values)


GLAUCOMA = Decision("glaucoma", 0.912, 0.4, True)
ANY = Decision("any_dr", 0.45, 0.45, None)


def test_each_decision_stands_under_its_title(shown):
    found = screening(vcdr=0.5123, decisions={"glaucoma": GLAUCOMA, "any_dr": ANY})
    head, line = shown([found], [MULTITASK, CLASSIFIER])
    assert head.split() == ["picture", "vCDR", "glaucoma", "referable", "DR", "any", "DR", "second", "opinion"]
    for title, words in (
        ("vCDR", "0.512"),
        ("glaucoma", "refer 0.912"),
        ("any DR", "open 0.450"),
        ("referable DR", "–"),
    ):
        assert line[head.index(title) :].startswith(words)


def test_a_model_that_is_not_open_has_no_columns(shown):
    head, line = shown([screening(decisions={"any_dr": ANY})], [CLASSIFIER])
    assert "vCDR" not in head
    assert "glaucoma" not in head
    assert line.split() == ["eye.jpg", "–", "open", "0.450", "–"]


def test_what_is_not_measurable_is_a_dash(shown):
    _, line = shown([screening(decisions={"glaucoma": Decision("glaucoma", None, 0.4, None)})], [MULTITASK])
    assert line.split() == ["eye.jpg", "–", "open"]


@pytest.mark.parametrize("width", [30, 80, 120])
def test_a_rejected_picture_has_its_whole_reason(shown, width):
    reason = " ".join(f"word{k}" for k in range(40))
    bad = Rejected("bad.jpg", None, Code.DAMAGED, reason)
    _, first, *more = shown([bad], [MULTITASK, CLASSIFIER], width=width)
    assert first.startswith("bad.jpg")
    assert " ".join([first, *more]).split() == ["bad.jpg", "error,", "DAMAGED:", *reason.split()]
    at = first.index("error")
    assert all(line[:at].isspace() and not line[at].isspace() for line in more)
    assert max(map(cell_len, (first, *more))) <= max(width, 58)


def test_how_many_more_there_are_is_told(shown):
    assert shown([screening()], [MULTITASK], more=7)[-1] == "and 7 more"
    assert len(shown([screening()], [MULTITASK])) == 2


@pytest.mark.parametrize("width", [30, 60, 100, 200])
def test_a_name_is_whole_or_its_end_is_there(shown, width):
    name = "clinic/of/many/folders/with/long/names/patient-4711-left-eye.jpg"
    lines = shown([screening(name), screening("a.jpg")], [MULTITASK, CLASSIFIER], width=width)
    assert len(lines) == 3  # no line is broken
    own = lines[1].split("  ")[0]
    assert own == name if width == 200 else own.startswith("…")
    assert name.endswith(own.removeprefix("…"))
    assert cell_len(own) >= 16
    assert lines[1].index(" –") == lines[2].index(" –")


@pytest.mark.parametrize(
    ("name", "cells", "expected"),
    [
        ("eye.jpg", 10, "eye.jpg   "),
        ("eye.jpg", 7, "eye.jpg"),
        ("long-eye.jpg", 8, "…eye.jpg"),
        ("漢字漢字.jpg", 8, "…字.jpg "),  # a sign of two cells is not cut in half
        ("line\nbreak\t.jpg", 15, "line?break?.jpg"),
        ("\udcff.jpg", 5, "?.jpg"),
    ],
)
def test_a_name_in_so_many_cells(name, cells, expected):
    assert folded(name, cells) == expected


def test_a_name_is_never_taken_for_markup(shown):
    name = "[bold red]x[/].jpg"
    assert shown([screening(name)], [MULTITASK])[1].startswith(name)
