"""The page of a run: well-formed, whole with one model or two, and every opinion on it."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from funduscope.engine.eyes import Eyes, Listed
from funduscope.engine.outputs import report
from funduscope.engine.readers import verdicts


class Page(HTMLParser):
    """The rows of a page as lists of cells' texts; an assertion where a tag is not closed in its turn."""

    VOID = ("meta", "img", "br", "wbr", "input")
    CELLS = ("td", "th")  # these need not be closed

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.pictures: list[list[str]] = []
        self.sources: list[str] = []
        self.keys: list[list[str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def leave_cell(self) -> None:
        if self.open and self.open[-1] in self.CELLS:
            self.open.pop()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
            self.pictures.append([])
            self.keys.append([])
        if tag in self.CELLS:
            self.leave_cell()
            self.rows[-1].append("")
            self.keys[-1].append(dict(attributes).get("data-key"))
        if tag == "img":
            self.pictures[-1].append(dict(attributes)["alt"])
            self.sources.append(dict(attributes)["src"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.CELLS:
            self.leave_cell()
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data
        if any(tag in self.CELLS for tag in self.open):
            self.rows[-1][-1] += data


@pytest.mark.parametrize("text", ["<p><b>x</p></b>", "<table><tr><td>x</table>", "<div>x", "x</p>"])
def test_a_page_that_is_not_well_formed_is_seen(text):  # the tests below can fail
    with pytest.raises((AssertionError, IndexError)):
        Page(text)


SOURCES = [
    Listed("a <b>&amp; \"'.png", "p1", "left"),
    np.full((200, 220, 3), 90, np.uint8),
    np.zeros((200, 200, 3), np.uint8),
]
TITLES = {"multi-task": ["glaucoma"], "classifier": ["referable DR", "any DR", "second opinion"]}


def write(opened, folder) -> Page:
    """The page of SOURCES."""
    drawings, results = report.drawings(folder), list(enumerate(opened(own, keep_photo=True) for own in SOURCES))
    for number, result in results:
        drawings.write(number, result)
    counts = Counter(str(own.code or own.status) for _, own in results)
    report.write(folder, results, counts, opened.models, [own.terms for own in opened.contracts])
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def printed(opened, tmp_path) -> Page:
    with opened:
        found = write(opened, tmp_path / "new")
    titles = [title for own in opened.models for title in TITLES[own.kind]]
    assert found.rows[0] == ["pictures", "name", "vCDR", *titles, "remarks"]
    assert {len(row) for row in found.rows} == {len(titles) + 4}
    return found


@pytest.fixture
def maps(painter):
    return lambda image: painter.maps(fovea=None, glaucoma=0.75)


def test_every_opinion_is_on_the_page(both, maps, opinions, tmp_path):
    page = printed(both(maps, classify=lambda image: opinions(0.123, 0.876, 0.6)), tmp_path)
    with both(maps) as opened:
        first = opened(SOURCES[1])
    row = page.rows[2]
    probability, threshold = first.decisions["glaucoma"].probability, first.decisions["glaucoma"].threshold
    assert row[1:] == [
        "array",
        f"{first.vcdr:.3f}",
        f"{'refer' if probability >= threshold else 'no'} {probability:.3f}from {threshold:.3f}",
        "refer 0.876from 0.500",
        "refer 0.600from 0.450",
        "no 0.123from 0.400",
        "FOVEA_NOT_FOUND",
    ]
    assert page.pictures[2] == [
        "the whole photo",
        "the optic disc",
        "heat of glaucoma",
        "heat of referable retinopathy",
    ]


def test_an_abstention_and_what_is_not_measurable_are_said(both, painter, opinions, tmp_path):
    opened = both(lambda image: painter.maps(cup=None), classify=lambda image: opinions(0.4, 0.5))
    row = printed(opened, tmp_path).rows[2]
    assert row[2:] == [
        "–",
        f"openfrom {opened.contracts[0].glaucoma_threshold:.3f}",
        "open 0.500from 0.500",
        "open 0.100from 0.450as referable DR is",
        "open 0.400from 0.400",
        "CUP_NOT_FOUND, GLAUCOMA_UNCERTAIN, DR_UNCERTAIN, ANY_DR_UNCERTAIN",
    ]


def test_a_call_below_its_threshold_says_by_what(both, opinions, tmp_path):
    row = printed(both(classify=lambda image: opinions(0.1, 0.876)), tmp_path).rows[2]
    assert row[4:6] == ["refer 0.876from 0.500", "refer 0.100from 0.450as referable DR is"]


def test_a_call_above_its_threshold_stands_alone(both, opinions, tmp_path):
    row = printed(both(classify=lambda image: opinions(0.1, 0.5, 0.9)), tmp_path).rows[2]
    assert row[4:6] == ["open 0.500from 0.500", "refer 0.900from 0.450"]


@pytest.mark.parametrize(
    ("eyes", "told"),
    [
        (Eyes("<p>1", "left", "list"), "&lt;p&gt;1, left (from the list)"),
        (Eyes(None, "right", "picture"), "right (from the picture)"),
        (Eyes("p1"), "p1"),
        (Eyes(), None),
    ],
)
def test_whose_eye_it_is_stands_under_the_name(both, tmp_path, eyes, told):
    with both() as opened:
        found = replace(opened(SOURCES[1]), eyes=eyes)
        report.write(tmp_path, [(0, found)], {"ok": 1}, opened.models, [own.terms for own in opened.contracts])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ('>array<td class="n"' in text) if told is None else (f'>array<br><span class="hint">{told}</span>' in text)


def test_the_terms_of_embedded_weights_have_a_place(both, tmp_path):
    with both() as opened:
        models, terms = opened.models, [own.terms for own in opened.contracts]
    for licence, told in (("ours alone", False), ("research use only (see MODEL_LICENSE)", True)):
        own = [each.model_copy(update={"licence": licence}) for each in terms]
        report.write(tmp_path, [], {}, models, own)
        assert ("lies in the package" in (tmp_path / "report.html").read_text(encoding="utf-8")) == told


def test_with_the_classifier_alone_its_opinions_stand_alone(fake, classifier, opinions, tmp_path):
    page = printed(fake(models=[classifier], classify=lambda image: opinions(0.7, 0.2)), tmp_path)
    assert page.rows[2][2:] == ["–", "no 0.200from 0.500", "no 0.100from 0.450", "refer 0.700from 0.400", ""]
    assert page.pictures[2] == ["the whole photo", "heat of glaucoma", "heat of referable retinopathy"]


def test_with_the_multi_task_model_alone_there_is_no_second_opinion(fake, maps, tmp_path):
    page = printed(fake(maps), tmp_path)
    assert page.rows[2][4:] == ["FOVEA_NOT_FOUND"]
    assert page.pictures[2] == ["the whole photo", "the optic disc"]


def test_a_rejected_picture_has_its_reason_and_its_name_is_text(both, tmp_path):
    page = printed(both(), tmp_path)
    assert page.rows[1][1:3] == ["a <b>&amp; \"'.pngp1, left (from the list)", "error"]
    assert page.rows[1][3:] == ["", "", "", "", "NOT_FOUND: no such file"]
    assert page.rows[3][2] == "ungradable"
    assert page.pictures[1] == page.pictures[3] == []


def test_every_verdict_is_explained(both, tmp_path):
    text = printed(both(), tmp_path).text
    for verdict in verdicts():
        title = verdict.title[0].upper() + verdict.title[1:]
        assert f"{title}: " in text
        assert verdict.meaning.split("`")[0] in text
    assert (
        "called also where referable DR is, even below any DR's threshold; never denied where referable DR is open."
        in text
    )
    assert "Glaucoma: whether glaucoma's probability (" in text
    assert not [name for name in ("any_dr", "referable_dr", "`") if name in text]


def test_the_page_counts_and_names_every_model_with_its_terms(both, model, classifier, tmp_path):
    text = printed(both(), tmp_path).text
    assert "Funduscope: 3 photographs" in text
    assert "1 NOT_FOUND, 1 NO_FIELD_OF_VIEW, 1 ok" in text
    for own in (model.contract, classifier.contract):
        assert text.count(own.sha256) == 1
        assert text.count(own.terms.notice) == 1
        assert f"Model {own.name} {own.version} (fp32, fake), SHA-256 {own.sha256}" in text


def test_the_precision_is_that_of_the_computation_and_not_of_the_file(both, tmp_path):
    with both() as opened:
        contracts, (first, second) = opened.contracts, opened.models
    models = [replace(first, backend="openvino-bf16", precision="bf16"), second]
    report.write(tmp_path, [], {}, models, [own.terms for own in contracts])
    text = (tmp_path / "report.html").read_text()
    assert contracts[0].precision == "fp32"
    assert f"{first.name} {first.version} (bf16, openvino-bf16)" in text
    assert f"{second.name} {second.version} (fp32, fake)" in text


def test_what_is_beyond_the_limit_is_counted(both, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "LIMIT", 2)
    page = printed(both(), tmp_path)
    assert len(page.rows) == 3
    assert "and 1 more, in screenings.csv" in page.text


def test_pictures_of_a_long_run_are_loaded_from_beside_the_page(both, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "EMBEDDED", 2)
    page = printed(both(), tmp_path)
    assert len(page.sources) == 4
    for source in page.sources:
        assert cv2.imread(str(tmp_path / "new" / unquote(source))) is not None


def test_of_a_short_run_the_page_is_one_file(both, tmp_path):
    page = printed(both(), tmp_path)
    shutil.rmtree(tmp_path / "new" / "report")
    assert {source[:23] for source in page.sources} == {"data:image/jpeg;base64,"}


def test_rows_are_sorted_by_numbers_and_what_has_none_comes_last(both, tmp_path):
    page = printed(both(), tmp_path)
    keys = page.keys[2]
    assert float(keys[2]) == pytest.approx(float(page.rows[2][2]))  # vCDR
    assert page.keys[1][2:5] == [None] * 3
