"""What each address answers."""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from funduscope import Screener, columns
from funduscope.engine import models
from funduscope.engine.outputs import patients
from funduscope.engine.runners import FakeRunner
from funduscope.postprocess import scores

pytest.importorskip("starlette")

URL = "/v1/screenings"
JPEG = {"Content-Type": "image/jpeg"}
SECRET = "0123456789abcdef"


def test_a_picture_has_the_row_that_python_gives(client, screener, jpeg):
    answer = client().post(URL, content=jpeg(), headers=JPEG)
    assert answer.status_code == 200
    assert answer.json()["screenings"] == [json.loads(screener(jpeg(), name="picture").to_json())]
    assert answer.json().keys() == {"notice", "screenings"}
    assert "not a diagnosis" in answer.json()["notice"]


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "application/dicom", "Image/JPEG; q=1"])
def test_the_bytes_say_which_format_it_is(client, jpeg, kind):
    assert client().post(URL, content=jpeg(), headers={"Content-Type": kind}).status_code == 200


@pytest.mark.parametrize(
    ("cut", "code"),
    [
        (lambda data: b"", "EMPTY_FILE"),
        (lambda data: b"not a picture", "UNKNOWN_FORMAT"),
        (lambda data: data[: len(data) // 2], "DAMAGED"),
        (lambda data: bytes(200), "UNKNOWN_FORMAT"),
    ],
    ids=["empty", "text", "half", "zeros"],
)
def test_a_bad_picture_alone_is_422_and_the_next_one_is_as_before(client, jpeg, cut, code):
    asked = client()
    before = asked.post(URL, content=jpeg(), headers=JPEG)
    bad = asked.post(URL, content=cut(jpeg()), headers=JPEG)
    assert bad.status_code == 422
    (row,) = bad.json()["screenings"]
    assert (row["status"], row["code"]) == ("error", code)
    assert row["reason"]
    assert asked.post(URL, content=jpeg(), headers=JPEG).content == before.content


def test_a_picture_without_a_retina_was_screened(client):
    black = cv2.imencode(".png", np.zeros((200, 200, 3), np.uint8))[1].tobytes()
    answer = client().post(URL, content=black, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200
    assert answer.json()["screenings"][0]["status"] == "ungradable"


def test_both_eyes_of_a_patient(client, jpeg):
    files = [("right", ("a.jpg", jpeg(1))), ("LEFT", ("b.jpg", jpeg(2))), ("picture", ("c.jpg", b"not a picture"))]
    answer = client().post(URL, files=files, data={"patient": "P-17"})
    assert answer.status_code == 200
    rows = answer.json()["screenings"]
    assert [row["name"] for row in rows] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [(row["eye"], row["eye_source"]) for row in rows] == [("right", "list"), ("left", "list"), (None, None)]
    assert [row["status"] for row in rows] == ["ok", "ok", "error"]
    (patient,) = answer.json()["patients"]
    assert list(patient) == [column.name for column in patients.columns()]
    assert (patient["patient"], patient["pictures"], patient["rejected_pictures"]) == ("P-17", 3, 1)
    assert patient["glaucoma_second_probability"] == max(row["glaucoma_second_probability"] or 0 for row in rows)


def test_pictures_that_name_no_patient_are_of_one(client, jpeg):
    files = [("right", ("a.jpg", jpeg(1))), ("left", ("b.jpg", jpeg(2)))]
    (patient,) = client().post(URL, files=files).json()["patients"]
    assert (patient["patient"], patient["pictures"]) == (None, 2)


def test_a_name_is_never_opened(client, tmp_path, jpeg):
    (tmp_path / "there.jpg").write_bytes(jpeg())
    answer = client().post(f"{URL}?overlay=1", files=[("picture", (str(tmp_path / "there.jpg"), b"x"))])
    assert answer.json()["screenings"][0]["code"] == "UNKNOWN_FORMAT"


@pytest.mark.parametrize(
    ("fields", "data", "told"),
    [
        ([("other", ("a.jpg", b"x"))], {}, "none of: picture, right, left"),
        ([("picture", ("a.jpg", b"x"))], {"name": "y"}, "none of"),
        ([("picture", ("a.jpg", b"x"))] * 3, {}, "Too many files"),
        ([("picture", ("a.jpg", b"x"))], {"patient": "x" * 5000}, "maximum size"),
    ],
)
def test_a_form_that_is_not_understood(client, fields, data, told):
    answer = client(max_pictures=2).post(URL, files=fields, data=data)
    assert answer.status_code == 400
    assert told in answer.json()["detail"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_form_without_pictures_or_boundary(client):
    asked = client()
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert asked.post(URL, content=b"--x--\r\n", headers=kind).status_code == 400
    assert asked.post(URL, content=b"", headers={"Content-Type": "multipart/form-data"}).status_code == 400
    assert asked.post(URL, content=b"nonsense", headers=kind).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [{"Content-Type": "text/plain"}, {"Content-Type": ""}, {**JPEG, "Content-Encoding": "gzip"}],
)
def test_another_type_or_a_compressed_body_is_415(client, headers):
    assert client().post(URL, content=b"x", headers=headers).status_code == 415


def test_a_body_that_is_too_large_is_413_whatever_it_says_of_its_length(client, jpeg):
    asked = client(max_bytes=100)
    assert asked.post(URL, content=bytes(101), headers=JPEG).status_code == 413
    assert asked.post(URL, content=iter([bytes(60), bytes(60)]), headers=JPEG).status_code == 413
    assert asked.post(URL, files=[("right", ("a.jpg", jpeg()))]).status_code == 413
    assert asked.post(URL, content=bytes(100), headers=JPEG).status_code == 422


# drawings


def read(answer) -> np.ndarray:
    assert answer.headers["content-type"] == "image/png"
    return cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)


def test_drawings_are_pngs_of_the_picture(client, jpeg):
    asked = client()
    plain = read(asked.post(f"{URL}?overlay=1", content=jpeg(), headers=JPEG))
    heat = read(asked.post(f"{URL}?heat=referable_dr", content=jpeg(), headers=JPEG))
    assert plain.shape == heat.shape == (200, 260, 3)
    assert (plain != heat).any()
    assert (
        "not a diagnosis" in asked.post(f"{URL}?overlay=1", content=jpeg(), headers=JPEG).headers["Funduscope-Notice"]
    )


def test_what_cannot_be_drawn(client, jpeg):
    asked = client()
    assert asked.post(f"{URL}?heat=absent", content=jpeg(), headers=JPEG).status_code == 422
    assert asked.post(f"{URL}?colour=1", content=jpeg(), headers=JPEG).status_code == 400
    bad = asked.post(f"{URL}?overlay=1", content=b"x", headers=JPEG)
    assert (bad.status_code, bad.json()["screenings"][0]["code"]) == (422, "UNKNOWN_FORMAT")
    two = [("right", ("a.jpg", jpeg(1))), ("left", ("b.jpg", jpeg(2)))]
    assert asked.post(f"{URL}?overlay=1", files=two).status_code == 400
    assert asked.post(f"{URL}?overlay=0", content=jpeg(), headers=JPEG).json()["screenings"]


def test_the_photo_as_every_browser_shows_it(client, jpeg):
    seen = cv2.imdecode(np.frombuffer(jpeg(), np.uint8), cv2.IMREAD_COLOR)
    tiff = cv2.imencode(".tif", seen)[1].tobytes()
    answer = client().post(f"{URL}?photo=1", content=tiff, headers={"Content-Type": "image/tiff"})
    assert answer.headers["content-type"] == "image/jpeg"
    shown = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == seen.shape
    assert np.abs(shown.astype(int) - seen).mean() < 3


def heat_of(layers, disease: str) -> np.ndarray:
    kind, _, data = layers["heat"][disease].partition(",")
    assert kind == "data:image/png;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)


def test_layers_are_apart_from_the_picture(client, screener, jpeg):
    asked = client()
    answer = asked.post(f"{URL}?layers=1", content=jpeg(5), headers=JPEG).json()
    assert answer["screenings"] == [json.loads(screener(jpeg(5), name="picture").to_json())]
    (layers,) = answer["layers"]
    heat = heat_of(layers, "referable_dr")
    assert heat.shape == (200, 260, 4)
    assert heat[..., 3].max() > 0
    assert not heat[0, 0].any()  # none beside the retina


def test_layers_of_each_picture_of_a_form(client, jpeg):
    files = [("right", ("a.jpg", jpeg(1))), ("left", ("b.jpg", b"not a picture"))]
    answer = client().post(f"{URL}?layers=1", files=files)
    assert answer.status_code == 200
    good, bad = answer.json()["layers"]
    assert good["heat"]
    assert bad == {"contours": {}, "fovea": None, "heat": {}}


def test_contours_are_those_of_python(cc0):
    """Over the embedded models."""
    from starlette.testclient import TestClient

    from funduscope.service import ServiceSettings, application

    with Screener.open(backend="onnxruntime") as opened:
        result = opened(cc0, name="picture")
        with TestClient(application(ServiceSettings(), opened)) as asked:
            while asked.get("/health/ready").status_code != 200:
                pass
            answer = asked.post(f"{URL}?layers=1", content=cc0.read_bytes(), headers=JPEG).json()
    (layers,) = answer["layers"]
    for name in ("disc", "cup"):
        assert layers["contours"][name] == result.contour(name).round(2).tolist()
    assert layers["fovea"] == pytest.approx(result.fovea, abs=0.01)
    assert set(layers["heat"]) == {"glaucoma", "referable_dr"}


def test_models_say_from_where_on_they_call_and_where_they_leave_open(client, screener):
    answer = client().get("/v1/models").json()
    (model,) = answer["models"]
    (contract,) = screener.contracts
    assert (model["name"], model["sha256"], model["backend"]) == ("classifier", contract.sha256, "fake")
    assert model["terms"]["notice"] == contract.terms.notice
    for verdict in model["verdicts"]:
        part = contract.decisions[verdict["disease"]]
        assert [point["name"] for point in verdict["points"]] == ["high_sensitivity", "balanced", "high_specificity"]
        for point in verdict["points"]:
            at = part.points.at(point["name"])
            assert point["threshold"] == pytest.approx(at.threshold, abs=1e-6)
            assert point["sensitivity"] == at.sensitivity.model_dump()
            band = point["uncertain"]
            for inside, value in ((True, band["low"] + 1e-4), (True, band["high"] - 1e-4), (False, band["low"] - 1e-4)):
                assert (scores.decide(value, at.threshold, at.uncertain_logit) is None) == inside


# many at once


def test_each_of_many_has_its_own_answer(client, screener, jpeg):
    asked = client()
    wanted = [json.loads(screener(jpeg(seed), name="picture").to_json()) for seed in range(12)]
    assert len({row["sha256"] for row in wanted}) == len({row["any_dr_probability"] for row in wanted}) == 12
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda seed: asked.post(URL, content=jpeg(seed % 12), headers=JPEG), range(48)))
    assert [own.status_code for own in answers] == [200] * 48
    assert [own.json()["screenings"][0] for own in answers] == wanted * 4


class Held:
    """A runner's outputs that come when they are let go; warming up is not held."""

    def __init__(self, outputs) -> None:
        self._outputs, self.free, self.begun = outputs, threading.Event(), threading.Event()
        self.free.set()

    def __call__(self, images):
        self.begun.set()
        self.free.wait(10)
        return self._outputs(images)

    def hold(self) -> None:
        self.begun.clear()
        self.free.clear()


@pytest.fixture
def held(outputs):
    """The runner, and a screener over it."""
    runner = Held(outputs)
    with Screener.of([models.load("classifier")], [FakeRunner(runner)]) as opened:
        yield runner, opened
        runner.free.set()


def test_more_than_may_wait_are_told_to_come_again(client, held, jpeg):
    runner, opened = held
    asked = client(opened, queue=2, max_pictures=2)
    runner.hold()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(asked.post, URL, content=jpeg(), headers=JPEG)
        assert runner.begun.wait(10)
        two = asked.post(URL, files=[("right", ("a.jpg", jpeg(1))), ("left", ("b.jpg", jpeg(2)))])
        assert (two.status_code, two.headers["Retry-After"]) == (429, "1")
        assert "funduscope_pictures_waiting 1.0" in asked.get("/metrics").text
        runner.free.set()
        assert first.result().status_code == 200
    assert asked.post(URL, files=[("right", ("a.jpg", jpeg(1))), ("left", ("b.jpg", jpeg(2)))]).status_code == 200
    assert "funduscope_pictures_waiting 0.0" in asked.get("/metrics").text


def test_what_is_late_is_504_and_keeps_its_place_until_it_is_done(client, held, jpeg):
    runner, opened = held
    asked = client(opened, queue=1, max_pictures=1, deadline_seconds=0.1)
    runner.hold()
    assert asked.post(URL, content=jpeg(), headers=JPEG).status_code == 504
    assert asked.post(URL, content=jpeg(), headers=JPEG).status_code == 429
    runner.free.set()
    while "funduscope_pictures_waiting 0.0" not in asked.get("/metrics").text:
        pass
    assert asked.post(URL, content=jpeg(), headers=JPEG).status_code in (200, 504)  # in time, or not


def test_it_is_alive_before_it_is_ready(held, jpeg):
    from starlette.testclient import TestClient

    from funduscope.service import ServiceSettings, application

    runner, opened = held
    runner.hold()
    with TestClient(application(ServiceSettings(), opened)) as asked:
        assert runner.begun.wait(10)
        assert asked.get("/health/live").status_code == 200
        assert asked.get("/health/ready").status_code == 503
        early = asked.post(URL, content=jpeg(), headers=JPEG)
        assert (early.status_code, early.headers["Retry-After"]) == (503, "1")
        runner.free.set()
        while asked.get("/health/ready").status_code != 200:
            pass
        assert asked.post(URL, content=jpeg(), headers=JPEG).status_code == 200


def test_it_can_be_mounted(screener, jpeg):
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.testclient import TestClient

    from funduscope.service import ServiceSettings, application

    app = application(ServiceSettings(keys=(SECRET,)), screener)
    with TestClient(Starlette(routes=[Mount("/eyes", app)])) as asked:
        while asked.get("/eyes/health/ready").status_code != 200:
            pass
        assert asked.get("/eyes/metrics").status_code == 401
        assert asked.post(f"/eyes{URL}", content=jpeg(), headers={**JPEG, "X-API-Key": SECRET}).status_code == 200


def test_a_failure_of_ours_is_500_without_words_of_it(client, outputs, jpeg, caplog):
    fails, name = threading.Event(), "Jane Doe"

    def failing(images):
        if fails.is_set():
            raise RuntimeError(name)
        return outputs(images)

    with Screener.of([models.load("classifier")], [FakeRunner(failing)]) as opened:
        asked = client(opened)
        fails.set()
        answer = asked.post(URL, content=jpeg(), headers=JPEG)
        assert answer.status_code == 500
        assert answer.headers["Funduscope-Notice"]
        fails.clear()
        assert asked.post(URL, content=jpeg(), headers=JPEG).status_code == 200
    assert "RuntimeError" in caplog.text
    assert name not in answer.text + caplog.text


# keys, figures, description, page


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-API-Key": "wrong"}, 401),
        ({"Authorization": f"Basic {SECRET}"}, 401),
        ({"Authorization": f"Bearer {SECRET[:-1]}"}, 401),
        ({"X-API-Key": SECRET}, 200),
        ({"Authorization": f"Bearer {SECRET}"}, 200),
        ({"authorization": "bearer another key of them"}, 200),
    ],
)
def test_a_key_is_needed_where_there_are_any(client, jpeg, headers, status):
    asked = client(keys=(SECRET, "another key of them"))
    answer = asked.post(URL, content=jpeg(), headers={**JPEG, **headers})
    assert answer.status_code == status
    assert answer.headers["Funduscope-Notice"]
    assert asked.get("/metrics", headers=headers).status_code == status
    assert asked.get("/absent", headers=headers).status_code == (401 if status == 401 else 404)
    for path in ("/", "/health/live", "/health/ready", "/openapi.json"):
        assert asked.get(path, headers=headers).status_code == 200


def test_figures_count_and_hold_nothing_of_a_picture(client, jpeg, caplog):
    caplog.set_level(logging.DEBUG)
    asked = client()
    asked.post(URL, files=[("right", ("jane-doe.jpg", jpeg()))], data={"patient": "Jane Doe"})
    asked.post(URL, content=b"x", headers=JPEG)
    text = asked.get("/metrics").text
    assert 'funduscope_pictures_total{code="",status="ok"} 1.0' in text
    assert 'funduscope_pictures_total{code="UNKNOWN_FORMAT",status="error"} 1.0' in text
    assert 'funduscope_requests_total{status="422"} 1.0' in text
    assert "funduscope_screening_seconds_count 2.0" in text
    ours = "".join(own.getMessage() for own in caplog.records if not own.name.startswith(("httpx", "httpcore")))
    assert not re.search("jane", text + ours, re.IGNORECASE)


def test_the_description_has_what_is_answered(client, jpeg):
    asked = client(keys=(SECRET,))
    told = asked.get("/openapi.json").json()
    assert told["openapi"] == "3.1.0"
    assert told["security"]
    schemas = told["components"]["schemas"]
    assert list(schemas["Row"]["properties"]) == [column.name for column in columns()]
    for example in told["paths"][URL]["post"]["responses"]["200"]["content"]["application/json"]["examples"].values():
        assert set(example["value"]["screenings"][0]) <= set(schemas["Row"]["properties"])
    row = asked.post(URL, content=jpeg(), headers={**JPEG, "X-API-Key": SECRET}).json()["screenings"][0]
    kinds = {"string": str, "array": list, "boolean": bool, "number": float, "integer": int, "null": type(None)}
    for name, value in row.items():
        assert any(isinstance(value, kinds[kind]) for kind in schemas["Row"]["properties"][name]["type"]), name


def test_the_page_loads_nothing_and_runs_its_own_scripts_alone(client):
    answer = client().get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:,)|@import|url\(""", answer.text)
    assert not re.search(r"\son\w+\s*=|style\s*=\s*[\"']", answer.text)  # the policy would not let them
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert len(re.findall("sha256-", policy)) == len(re.findall("<(?:script|style)>", answer.text)) == 3
    for needed in ('lang="en"', 'role="status"', 'capture="environment"', "@media print", "width=device-width"):
        assert needed in answer.text


def test_no_such_page_or_method(client):
    asked = client()
    assert asked.get("/absent").status_code == 404
    assert asked.get(URL).status_code == 405
    assert asked.get("/absent").headers["content-type"] == "application/problem+json"
