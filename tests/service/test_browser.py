"""The pages in a browser: what a person does with them, with keyboard, screen reader and telephone."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from funduscope import Run, Screener
from funduscope.engine.eyes import Listed
from funduscope.engine.readers import verdicts
from funduscope.service import ServiceSettings

pytest.importorskip("uvicorn")
playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra browser")
Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra browser").Axe
playwright.expect.set_options(timeout=20_000)

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDE, NARROW = {"width": 1200, "height": 900}, {"width": 360, "height": 740}
SECRET = "0123456789abcdef"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = os.environ.get("FUNDUSCOPE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium on the PATH; install one, or set FUNDUSCOPE_CHROMIUM to it")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def screener() -> Iterator[Screener]:
    with Screener.open(backend="onnxruntime") as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, cc0) -> dict[str, Path]:
    """One of each fate, and the other eye."""
    folder = tmp_path_factory.mktemp("pictures")
    seen = cv2.imread(str(cc0))
    made = {name: folder / name for name in ("good.jpg", "other.jpg", "black.png", "damaged.jpg", "scan.tif")}
    shutil.copy(cc0, made["good.jpg"])
    cv2.imwrite(str(made["other.jpg"]), seen[:, ::-1])
    cv2.imwrite(str(made["black.png"]), np.zeros((400, 500, 3), np.uint8))
    made["damaged.jpg"].write_bytes(cc0.read_bytes()[:20_000])
    cv2.imwrite(str(made["scan.tif"]), cv2.resize(seen, (700, 700), interpolation=cv2.INTER_AREA))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory, screener, pictures) -> Path:
    """Of a run over these."""
    out = tmp_path_factory.mktemp("run") / "out"
    eyes = ("right", "left", None, None, None)
    listed = [Listed(str(path), "P-1", eye) for path, eye in zip(pictures.values(), eyes, strict=True)]
    list(Run(screener, listed, out))
    return out


@contextmanager
def listening(screener: Screener, **settings: Any) -> Iterator[str]:
    """A service in a thread of its own; gives its address."""
    from funduscope.service import application, server

    own = ServiceSettings(**settings)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        running = server._Server(server.configured(own, application(own, screener)))
        thread = threading.Thread(target=running.run, args=([bound],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
        finally:
            running.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def address(screener, folder) -> Iterator[str]:
    with listening(screener, results=folder) as own:
        yield own


@pytest.fixture
def opened(chromium) -> Iterator[Callable[..., Any]]:
    """Opens a page: `opened(address, NARROW)`. It must ask nobody else, and its scripts must not fail."""
    contexts, complaints = [], []

    def page(address: str, size: dict[str, int] | None = None) -> Any:
        base = "/".join(address.split("/")[:3])
        context = chromium.new_context(viewport=size or WIDE, accept_downloads=True)
        contexts.append(context)
        context.set_default_timeout(20_000)
        made = context.new_page()
        made.on("pageerror", lambda error: complaints.append(str(error)))
        made.on(
            "console", lambda told: complaints.append(told.text) if "Content Security Policy" in told.text else None
        )
        made.on("request", lambda own: own.url.startswith((base, "blob:", "data:")) or complaints.append(own.url))
        made.goto(address)
        return made

    yield page
    for context in contexts:
        context.close()
    assert complaints == []


def choose(page: Any, *paths: Path) -> Any:
    """Have pictures screened, and wait for the cards, which are given."""
    before = page.locator("article").count()
    page.set_input_files("#files", [str(path) for path in paths])
    playwright.expect(page.locator("article")).to_have_count(before + len(paths))
    return page.locator("article")


def expect(locator: Any) -> Any:
    return playwright.expect(locator)


def layer(card: Any, name: str) -> Any:
    return card.get_by_role("checkbox", name=name)


def fits(page: Any) -> bool:
    return page.evaluate("document.scrollingElement.scrollWidth <= document.documentElement.clientWidth")


def findings(page: Any) -> list[str]:
    """What axe-core finds that is serious or critical."""
    found = Axe().run(page).response["violations"]
    return [f"{own['id']}: {own['nodes'][0]['html']}" for own in found if own["impact"] in ("serious", "critical")]


# screening


def test_the_numbers_are_those_of_python(opened, address, pictures, screener):
    page = opened(address)
    card = choose(page, pictures["good.jpg"])
    result = screener(pictures["good.jpg"], name="good.jpg")
    row = json.loads(result.to_json())
    with page.expect_download() as download:
        card.get_by_role("link", name="Download the row").click()
    assert download.value.suggested_filename == "good.jpg.json"
    assert json.loads(Path(download.value.path()).read_text()) == row
    lines = card.locator("tbody tr")
    assert lines.count() == len(result.decisions) == 4
    for line, verdict in zip(lines.all(), verdicts(), strict=True):
        decision = result.decisions[verdict.name]
        word = {True: "refer", False: "no", None: "open"}[decision.called]
        assert line.locator("td").first.inner_text() == word
        assert line.locator("td").nth(1).inner_text().startswith(f"{decision.probability:.3f}")
        assert f"refer from {decision.threshold:.3f}" in line.inner_text()
    told = card.inner_text()
    assert f"Vertical cup-to-disc ratio {result.vcdr:.3f}" in told
    for model in screener.models:
        assert f"SHA-256 {model.sha256[:16]}" in told
        assert f"{model.name} {model.version}" in told
    assert "not a diagnosis" in page.locator("#notice").inner_text()


def test_scores_stand_on_scales_with_their_bands_of_doubt(opened, address, pictures, screener):
    page = opened(address)
    card = choose(page, pictures["good.jpg"])
    bands = card.locator(".doubt")
    assert bands.count() == 3  # the multi-task model leaves nothing open
    card.get_by_text("What the thresholds give").click()
    at = screener.contracts[-1].decisions["any_dr"].points.balanced
    told = f"from {at.threshold:.3f}: sensitivity {at.sensitivity.value:.2f} ({at.sensitivity.low:.2f} to "
    assert told in card.inner_text()
    for line in card.locator("tr:has(.doubt)").all():
        low, high = (
            float(line.locator(".doubt").evaluate(f"own => parseFloat(own.style.{p})")) for p in ("left", "width")
        )
        assert f"open from {low / 100:.3f} to {(low + high) / 100:.3f}" in line.inner_text()


def test_layers_are_turned_on_and_off(opened, address, pictures):
    page = opened(address)
    card = choose(page, pictures["good.jpg"])
    assert [box.is_checked() for box in card.get_by_role("checkbox").all()] == [True, True, False, False]
    view = card.locator(".viewer")
    seen = {"all": view.screenshot()}
    for name, part in (("disc", "polygon.disc"), ("fovea", "g.fovea")):
        expect(card.locator(part)).to_be_visible()
        layer(card, name).uncheck()
        expect(card.locator(part)).to_be_hidden()
        seen[name] = view.screenshot()
    for name in ("heat of glaucoma", "heat of referable"):
        layer(card, name).focus()
        page.keyboard.press("Space")
        seen[name] = view.screenshot()
    assert len(set(seen.values())) == len(seen)


def test_contours_lie_on_the_picture(opened, address, pictures, screener):
    page = opened(address)
    card = choose(page, pictures["good.jpg"])
    result = screener(pictures["good.jpg"])
    stage = card.locator(".stage").bounding_box()
    x, y, height = card.locator("polygon.disc").evaluate(
        """own => { const at = own.getScreenCTM(), box = own.getBBox();
        return [at.a * box.x + at.e, at.d * box.y + at.f, at.d * box.height]; }"""
    )
    scale = stage["width"] / result.width
    contour = result.contour("disc") + 0.5
    assert (x - stage["x"], y - stage["y"]) == pytest.approx(tuple(scale * contour.min(axis=0)), abs=0.1)
    assert height == pytest.approx(scale * np.ptp(contour[:, 1]), abs=0.1)


def test_the_picture_is_zoomed_and_moved(opened, address, pictures):
    page = opened(address)
    card = choose(page, pictures["good.jpg"])
    view, stage = card.locator(".viewer"), card.locator(".stage")
    whole = stage.bounding_box()
    assert card.locator(".stage img").first.evaluate("own => own.naturalWidth") == 1411  # the full size
    view.focus()
    page.keyboard.press("+")
    assert stage.bounding_box()["width"] == pytest.approx(1.5 * whole["width"], rel=0.01)
    before = stage.bounding_box()
    page.keyboard.press("ArrowRight")
    assert stage.bounding_box()["x"] == pytest.approx(before["x"] - 60, abs=1)
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    box = view.bounding_box()
    assert stage.bounding_box()["x"] + stage.bounding_box()["width"] == pytest.approx(box["x"] + box["width"], abs=1)
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 80)
    page.mouse.up()
    assert stage.bounding_box()["x"] > box["x"] + box["width"] - stage.bounding_box()["width"] + 30
    page.mouse.wheel(0, -300)
    assert stage.bounding_box()["width"] > before["width"]
    for _ in range(20):
        card.get_by_role("button", name="Zoom in").click()
    assert stage.bounding_box()["width"] == pytest.approx(8 * 1411, rel=0.01)
    page.keyboard.press("Tab")
    card.get_by_role("button", name="Whole picture").click()
    assert stage.bounding_box()["width"] == whole["width"]
    assert stage.bounding_box()["y"] == view.bounding_box()["y"]


def test_both_eyes_of_a_patient_are_side_by_side(opened, address, pictures):
    page = opened(address)
    page.fill("#patient", "P-17")
    page.get_by_label("left", exact=True).check()
    choose(page, pictures["good.jpg"])
    page.get_by_label("right", exact=True).check()
    cards = choose(page, pictures["other.jpg"])
    assert [card.locator("h3").inner_text().split(" (")[0] for card in cards.all()] == ["Right eye", "Left eye"]
    right, left = (card.bounding_box() for card in cards.all())
    assert right["y"] == left["y"]
    assert right["x"] + right["width"] < left["x"]
    assert page.locator("h2").inner_text() == "P-17"
    page.get_by_role("button", name="Next patient").click()
    choose(page, pictures["good.jpg"])
    assert page.locator("h2").all_inner_texts() == ["Patient not named", "P-17"]


def test_a_warning_where_nothing_is_open_is_told_as_one(opened, address, cc0, screener, tmp_path):
    seen = cv2.imread(str(cc0))
    seen[screener(cc0).mask("cup"), 1] = 255
    cv2.imwrite(str(tmp_path / "burnt.png"), seen)
    row = screener(tmp_path / "burnt.png").to_dict()
    assert row["warnings"] == ["DISC_OVEREXPOSED"]
    assert (row["glaucoma"], row["any_dr"]) == (False, False)
    card = choose(opened(address), tmp_path / "burnt.png")
    assert "Nothing is called, but see the warnings" in card.locator(".advice").inner_text()
    assert "part of the disc is burnt out" in card.inner_text()
    assert f"Quality as a whole, 1 is best: {row['image_quality']:.3f}" in card.inner_text()


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [("black.png", "Ungradable", "NO_FIELD_OF_VIEW"), ("damaged.jpg", "Error", "DAMAGED")],
)
def test_why_there_is_no_result_and_what_to_do(opened, address, pictures, screener, name, status, code):
    page = opened(address)
    card = choose(page, pictures[name])
    assert f"{status}, {code}: {screener(pictures[name]).reason}" in card.inner_text()
    assert "No result:" in card.locator(".advice").inner_text()
    assert card.locator("table").count() == 0
    assert findings(page) == []


def test_a_picture_that_no_browser_shows_is_shown_all_the_same(opened, address, pictures):
    page = opened(address)
    card = choose(page, pictures["scan.tif"])
    expect(card.locator(".viewer")).to_be_visible()
    assert card.locator(".stage img").first.evaluate("own => own.naturalWidth") == 700
    expect(card.locator("polygon.disc")).to_be_visible()


def test_pictures_are_dropped(opened, address, pictures):
    page = opened(address)
    data = page.evaluate_handle(
        """bytes => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", {type: "image/jpeg"})); return data; }""",
        list(pictures["good.jpg"].read_bytes()),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    expect(page.locator("article")).to_have_count(1)
    assert "dropped.jpg" in page.locator("article").inner_text()


def test_a_key_is_asked_for_and_taken(opened, screener, folder, pictures):
    with listening(screener, keys=(SECRET,), results=folder) as address:
        page = opened(address)
        page.set_input_files("#files", str(pictures["good.jpg"]))
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#asked")).to_be_visible()
        page.fill("#key", SECRET)
        page.keyboard.press("Enter")
        expect(page.locator("article")).to_have_count(1)
        page = opened(f"{address}results")
        page.fill("#key", SECRET)
        page.keyboard.press("Enter")
        expect(page.locator("#rows tr")).to_have_count(5)


def test_a_report_is_printed(opened, address, pictures):
    page = opened(address)
    choose(page, pictures["good.jpg"], pictures["other.jpg"])
    assert page.pdf().startswith(b"%PDF")
    page.emulate_media(media="print")
    for gone in ("#drop", ".tools >> nth=0", "details >> nth=0"):
        expect(page.locator(gone)).to_be_hidden()
    for there in ("#notice", "table >> nth=0", ".stage img >> nth=0", "polygon.disc >> nth=0"):
        expect(page.locator(there)).to_be_visible()


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_page_can_be_used_by_all_and_fits(opened, address, pictures, size):
    page = opened(address, size)
    assert findings(page) == []
    choose(page, pictures["good.jpg"], pictures["black.png"], pictures["damaged.jpg"])
    expect(page.locator(".stage img").first).to_be_visible()
    page.locator("summary").first.click()
    assert findings(page) == []
    assert fits(page)


# results of a run


def test_the_list_is_filtered_and_sorted(opened, address):
    page = opened(f"{address}results")
    rows = page.locator("#rows tr")
    expect(rows).to_have_count(5)
    page.select_option("[name=status]", "ok")
    expect(rows).to_have_count(3)
    page.fill("[name=search]", "other")
    page.keyboard.press("Enter")
    expect(rows).to_have_count(1)
    assert "other.jpg" in rows.inner_text()
    page.fill("[name=search]", "")
    page.select_option("[name=status]", "")
    expect(rows).to_have_count(5)
    head = page.get_by_role("columnheader", name="vCDR")
    for wanted in ("ascending", "descending"):
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", wanted)
        values = [float(own) for own in page.locator("[data-label=vCDR]").all_inner_texts() if own]
        assert len(values) == 3
        assert values == sorted(values, reverse=wanted == "descending")


def test_one_is_looked_at_and_those_beside_it(opened, address, screener, pictures):
    page = opened(f"{address}results")
    page.get_by_role("button", name="good.jpg").click()
    card = page.locator("article")
    result = screener(pictures["good.jpg"])
    expect(card).to_contain_text(f"Vertical cup-to-disc ratio {result.vcdr:.3f}")
    expect(card.locator("polygon.disc")).to_be_visible()
    assert card.locator(".stage img").first.evaluate("own => own.naturalWidth") == 1411
    assert card.locator(".doubt").count() == 3
    expect(page.get_by_role("button", name="Previous")).to_be_disabled()
    for name in list(pictures)[1:]:
        page.get_by_role("button", name="Next", exact=True).click()
        expect(card).to_have_attribute("aria-label", str(pictures[name]))
    expect(page.get_by_role("button", name="Next", exact=True)).to_be_disabled()
    page.get_by_role("button", name="Previous").click()
    expect(card).to_have_attribute("aria-label", str(pictures["damaged.jpg"]))
    page.go_back()
    expect(card).to_have_attribute("aria-label", str(pictures["scan.tif"]))
    page.get_by_role("button", name="All results").click()
    expect(page.locator("#rows tr")).to_have_count(5)
    expect(page.get_by_role("button", name="scan.tif")).to_be_focused()


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_results_can_be_used_by_all_and_fit(opened, address, size):
    page = opened(f"{address}results", size)
    expect(page.locator("#rows tr")).to_have_count(5)
    assert findings(page) == []
    assert fits(page)
    page.get_by_role("button", name="good.jpg").click()
    expect(page.locator(".stage img").first).to_be_visible()
    assert findings(page) == []
    assert fits(page)
