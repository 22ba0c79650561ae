"""A folder that is watched: each picture once, when it is whole, whatever is done to the folder meanwhile."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest

from funduscope.engine.errors import SettingsError
from funduscope.engine.watch import Watch

pytestmark = pytest.mark.usefixtures("any_colours")


@pytest.fixture
def png(fundus) -> bytes:
    return cv2.imencode(".png", fundus()[..., ::-1])[1].tobytes()


@pytest.fixture
def camera(tmp_path) -> Path:
    (tmp_path / "camera" / "today").mkdir(parents=True)
    return tmp_path / "camera"


@contextmanager
def watching(screener, camera, out, **settings):
    """A watch in a thread: what it gives, and when, by the picture's name."""
    watched, seen = Watch(screener, camera, out, **settings), []

    def follow() -> None:
        for result in watched:
            seen.append((Path(result.name).name, result.status, time.monotonic()))  # noqa: PERF401 -- as they come

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield seen
    finally:
        watched.stop()
        thread.join(20)
        assert not thread.is_alive()


def wait(seen, count: int) -> None:
    until = time.monotonic() + 20
    while len(seen) < count and time.monotonic() < until:
        time.sleep(0.01)
    assert len(seen) >= count


def test_what_comes_is_screened_within_a_second_of_being_whole_and_once(fake, camera, png, tmp_path):
    (camera / "before.png").write_bytes(png)
    with fake() as opened, watching(opened, camera, tmp_path / "out") as seen:
        wait(seen, 1)
        with (camera / "today" / "slow.png").open("wb") as file:
            for k in range(10):
                file.write(png[k * len(png) // 10 : (k + 1) * len(png) // 10])
                file.flush()
                time.sleep(0.1)
        whole = time.monotonic()
        (camera / "notes.txt").write_text("x")
        wait(seen, 2)
        assert seen[1][2] - whole < 2  # a second, on a machine that is busy
        time.sleep(0.5)
    assert [own[:2] for own in seen] == [("before.png", "ok"), ("slow.png", "ok")]
    names = [json.loads(line)["name"] for line in (tmp_path / "out" / "screenings.jsonl").read_text().splitlines()]
    assert [Path(own).name for own in names] == ["before.png", "slow.png"]


def test_what_was_screened_is_not_screened_after_a_restart_unless_it_has_changed(fake, camera, png, fundus, tmp_path):
    for name in ("a.png", "b.png"):
        (camera / name).write_bytes(png)
    out = camera / "results"  # may lie within
    with fake() as opened, watching(opened, camera, out, overlays=True) as seen:
        wait(seen, 2)
    drawn = (out / "overlays" / "000001_b.jpg").read_bytes()
    (camera / "b.png").write_bytes(cv2.imencode(".png", fundus(seed=5))[1].tobytes())
    (camera / "c.png").write_bytes(png)
    with fake() as opened, watching(opened, camera, out, overlays=True) as seen:
        wait(seen, 2)
        time.sleep(0.3)
    assert sorted(own[0] for own in seen) == ["b.png", "c.png"]
    assert (out / "overlays" / "000001_b.jpg").read_bytes() != drawn
    assert len((out / "screenings.jsonl").read_text().splitlines()) == 3


def test_a_file_that_is_renamed_into_place_is_taken_at_once(fake, camera, png, tmp_path):
    (tmp_path / "ready.png").write_bytes(png)
    time.sleep(0.6)
    with fake() as opened, watching(opened, camera, tmp_path / "out") as seen:
        time.sleep(0.3)
        start = time.monotonic()
        (tmp_path / "ready.png").rename(camera / "eye.png")
        wait(seen, 1)
        assert seen[0][2] - start < 1


def test_a_run_may_go_on_as_a_watch_and_not_with_other_models(fake, both, camera, png, tmp_path):
    (camera / "a.png").write_bytes(png)
    with fake() as opened, watching(opened, camera, tmp_path / "out") as seen:
        wait(seen, 1)
    with both() as opened, pytest.raises(SettingsError, match="was begun otherwise"):
        next(iter(Watch(opened, camera, tmp_path / "out")))


def test_what_is_no_folder_is_refused(fake, tmp_path):
    with fake() as opened, pytest.raises(SettingsError, match="is no folder to watch"):
        Watch(opened, tmp_path / "absent", tmp_path / "out")
