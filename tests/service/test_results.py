"""A run's results to look through: filtered, sorted and paged, while the run goes on, and nothing but that run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from funduscope import Run, Screener
from funduscope.engine import models
from funduscope.engine.errors import SettingsError
from funduscope.engine.eyes import Listed
from funduscope.engine.outputs.store import FILE, Store
from funduscope.engine.results import Rejected
from funduscope.engine.runners import FakeRunner
from funduscope.service import ServiceSettings

pytest.importorskip("starlette")

URL = "/v1/results"
SECRET = "0123456789abcdef"


@pytest.fixture
def pictures(tmp_path, jpeg):
    """Seven of three patients, the last one of which is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    listed = []
    for k in range(7):
        path = folder / f"{k}_Möller & <b>.jpg"
        path.write_bytes(jpeg(k) if k < 6 else b"no picture")
        listed.append(Listed(str(path), f"P-{k // 2}", "left" if k % 2 else "right"))
    return listed


@pytest.fixture
def folder(tmp_path, screener, pictures):
    """Of their run."""
    list(Run(screener, pictures, tmp_path / "out"))
    return tmp_path / "out"


@pytest.fixture
def stored(folder):
    """Its rows."""
    with Store(folder) as store:
        return [dict(row) for row in store.rows()]


@pytest.fixture
def asked(client, folder):
    return client(results=folder)


def numbers(answer) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [row["number"] for row in answer.json()["rows"]]


def test_the_list_has_what_the_rows_have(asked, stored):
    answer = asked.get(URL).json()
    assert (answer["pictures"], answer["found"], answer["counts"]) == (7, 7, {"ok": 6, "UNKNOWN_FORMAT": 1})
    assert [own["name"] for own in answer["verdicts"]] == ["referable_dr", "any_dr", "glaucoma_second"]
    assert answer["models"][0]["name"] == "classifier"
    for number, (row, whole) in enumerate(zip(answer["rows"], stored, strict=True)):
        assert row.pop("number") == number
        assert row == {name: whole[name] for name in row}
        assert {"name", "patient", "any_dr", "any_dr_probability", "warnings"} <= row.keys()


@pytest.mark.parametrize("column", ["name", "patient", "any_dr_probability", "status"])
def test_it_is_sorted_both_ways_with_what_is_empty_last(asked, stored, column):
    def key(number):
        return stored[number][column], number

    filled = [number for number in range(7) if stored[number][column] is not None]
    empty = [number for number in range(7) if stored[number][column] is None]
    assert numbers(asked.get(URL, params={"sort": column})) == sorted(filled, key=key) + empty
    down = sorted(filled, key=lambda n: -n)
    down.sort(key=lambda n: stored[n][column], reverse=True)
    equal = numbers(asked.get(URL, params={"sort": f"-{column}"}))
    assert [stored[n][column] for n in equal] == [stored[n][column] for n in down + empty]


@pytest.mark.parametrize(
    ("asked_for", "wanted"),
    [
        ({"search": "p-1"}, [2, 3]),
        ({"search": "P-1 left"}, [3]),
        ({"search": "MÖLLER <B>"}, [0, 1, 2, 3, 4, 5, 6]),
        ({"search": "unknown_format"}, [6]),
        ({"search": "%"}, []),
        ({"search": "' OR 1=1 --"}, []),
        ({"status": "error"}, [6]),
        ({"status": "ok", "search": "right"}, [0, 2, 4]),
        ({"limit": "2", "offset": "3"}, [3, 4]),
        ({"limit": "0"}, []),
        ({"offset": "100"}, []),
    ],
)
def test_it_is_filtered_and_paged(asked, asked_for, wanted):
    assert numbers(asked.get(URL, params=asked_for)) == wanted


def test_it_is_filtered_by_what_was_decided(asked, stored):
    for word, value in (("refer", True), ("no", False), ("open", None)):
        wanted = [n for n, row in enumerate(stored) if row["any_dr"] is value and row["status"] == "ok"]
        assert numbers(asked.get(URL, params={"any_dr": word})) == wanted
    assert sum(asked.get(URL, params={"any_dr": word}).json()["found"] for word in ("refer", "no", "open")) == 6


@pytest.mark.parametrize(
    "asked_for",
    [
        {"sort": "row"},
        {"sort": "number; DROP TABLE rows"},
        {"any_dr": "1"},
        {"limit": "501"},
        {"offset": "-1"},
        {"where": "1"},
    ],
)
def test_a_parameter_that_is_not_understood(asked, asked_for):
    answer = asked.get(URL, params=asked_for)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert asked.get(URL).json()["found"] == 7


def test_one_has_its_row_its_layers_and_those_beside_it(asked, stored):
    asked_for = {"sort": "-any_dr_probability", "status": "ok"}
    order = numbers(asked.get(URL, params=asked_for))
    for place, number in enumerate(order):
        answer = asked.get(f"{URL}/{number}", params=asked_for).json()
        assert answer["screening"] == json.loads(json.dumps(stored[number]))
        assert (answer["number"], answer["place"], answer["photo"]) == (number, place, True)
        assert answer["previous"] == (order[place - 1] if place else None)
        assert answer["next"] == (order[place + 1] if place + 1 < len(order) else None)
        assert "referable_dr" in answer["layers"]["heat"]
    outside = asked.get(f"{URL}/6", params=asked_for).json()
    assert (outside["place"], outside["previous"], outside["next"], outside["photo"]) == (None, None, None, False)
    assert outside["screening"]["code"] == "UNKNOWN_FORMAT"


def test_the_picture_is_shown_while_it_is_the_one_that_was_screened(asked, pictures, jpeg):
    answer = asked.get(f"{URL}/1/photo")
    assert answer.headers["content-type"] == "image/jpeg"
    assert cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR).shape == (200, 260, 3)
    Path(pictures[1].path).write_bytes(jpeg(40))
    assert asked.get(f"{URL}/1/photo").status_code == 404
    one = asked.get(f"{URL}/1").json()
    assert (one["photo"], one["layers"]["heat"]) == (False, {})
    assert one["screening"]["status"] == "ok"


@pytest.mark.parametrize(
    "number", ["7", "99999999999999999999", "-1", "0.jpg", "..%2F..%2Fetc%2Fpasswd", "%2e%2e", "0%00"]
)
@pytest.mark.parametrize("rest", ["", "/photo", "/photo/../../../run.sqlite"])
def test_nothing_but_the_pictures_of_the_run_is_there(asked, number, rest):
    answer = asked.get(f"{URL}/{number}{rest}")
    assert answer.status_code in (400, 404)
    assert answer.headers["content-type"] == "application/problem+json"


def test_it_is_only_read(asked, folder):
    def held() -> dict[str, bytes]:  # but for what SQLite puts beside a database that it reads
        return {own.name: own.read_bytes() for own in folder.iterdir() if own.suffix != ".sqlite-shm"} | {
            f"{FILE}-wal": b""
        }

    before = held()
    for method in ("post", "put", "patch", "delete"):
        assert getattr(asked, method)(URL).status_code == 405
        assert getattr(asked, method)(f"{URL}/0").status_code == 405
    asked.get(URL)
    asked.get(f"{URL}/0")
    assert held() == before


def test_a_run_that_goes_on_is_seen_and_not_held(client, screener, folder, pictures, stored):
    asked = client(results=folder)
    assert asked.get(URL).json()["found"] == 7
    with Store(folder, write=True) as store:
        results = dict(store.results())
        store.forget([2])
        assert numbers(asked.get(URL)) == [0, 1, 3, 4, 5, 6]
        assert asked.get(f"{URL}/2").status_code == 404
        other = replace(results[2], eyes=replace(results[2].eyes, patient="P-new"))
        store.put([(2, (1, 1), other)])
        assert numbers(asked.get(URL, params={"search": "p-new"})) == [2]
        store.add([Listed("new.jpg")])
        store.put([(7, None, Rejected("new.jpg", None, results[6].code, "none"))])
        answer = asked.get(URL).json()
        assert (answer["pictures"], answer["found"]) == (8, 8)


def test_another_run_that_takes_its_place_is_seen(client, outputs, folder, pictures):
    asked = client(results=folder)
    before = asked.get(URL).json()["rows"]

    def higher(images):
        return {name: np.clip(own + 0.05, 0, 1) for name, own in outputs(images).items()}

    with Screener.of([models.load("classifier")], [FakeRunner(higher)], backend="other") as screener:
        list(Run(screener, pictures, folder, onto="overwrite"))
    after = asked.get(URL).json()["rows"]
    assert [row["name"] for row in after] == [row["name"] for row in before]
    assert all(a["any_dr_probability"] > b["any_dr_probability"] for a, b in zip(after[:6], before, strict=False))


def test_a_store_that_cannot_be_read_is_503_and_names_no_folder(client, folder):
    asked = client(results=folder)
    (folder / FILE).write_bytes(b"no database")
    answer = asked.get(URL)
    assert answer.status_code == 503
    assert str(folder) not in answer.text
    assert asked.get("/health/live").status_code == 200


def test_the_page_is_there_with_a_run_alone(client, asked):
    page = asked.get("/results")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert 'href="results"' in asked.get("/").text
    without = client()
    assert without.get("/results").status_code == without.get(URL).status_code == 404
    assert 'href="results"' not in without.get("/").text
    assert URL in asked.get("/openapi.json").json()["paths"]
    assert URL not in without.get("/openapi.json").json()["paths"]


def test_the_page_needs_no_key_and_the_results_do(client, folder):
    asked = client(results=folder, keys=(SECRET,))
    assert asked.get("/results").status_code == 200
    for path in (URL, f"{URL}/0", f"{URL}/0/photo", "/v1/models"):
        assert asked.get(path).status_code == 401
        assert asked.get(path, headers={"X-API-Key": SECRET}).status_code == 200


def test_a_folder_without_a_run_is_refused(tmp_path, call):
    with pytest.raises(SettingsError, match="holds no run"):
        ServiceSettings(results=tmp_path)
    ended = call("serve", "--results", tmp_path)
    assert ended.returncode == 3
    assert "holds no run" in ended.stderr
