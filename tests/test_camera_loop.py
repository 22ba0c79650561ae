"""The example of a camera's loop: the preview never waits, and the newest frame is the one that is screened."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

import funduscope
from funduscope.examples import camera_loop
from funduscope.examples.camera_loop import Frame, Loop, Newest, OnTerminal, Seen, advice


def frame(number: int, taken: float = 0.0) -> Frame:
    return Frame(number, np.zeros((2, 2, 3), np.uint8), taken)


def test_the_mailbox_keeps_the_newest_and_ends():
    box = Newest()
    for number in range(4):
        box.put(frame(number))
    assert box.dropped == 3
    assert box.take().number == 3
    box.put(frame(4))
    box.close()
    assert box.take().number == 4  # what was put before the end is not lost
    assert box.take() is None


def test_who_waits_at_the_mailbox_gets_what_comes():
    box, got = Newest(), []
    waiting = threading.Thread(target=lambda: got.append(box.take()))
    waiting.start()
    box.put(frame(7))
    waiting.join(10)
    assert [own.number for own in got] == [7]


class Slow:
    """A screener that holds the first frame until it is let go."""

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.names: list[str] = []

    def __call__(self, photo: funduscope.Photo) -> funduscope.Rejected:
        self.names.append(photo.name)
        self.began.set()
        assert self.go.wait(30)
        return funduscope.Rejected(photo.name, None, funduscope.Code.NO_FIELD_OF_VIEW, "too dark")


def test_the_preview_goes_on_while_a_frame_is_screened():
    slow, shown = Slow(), []

    def show(own: Frame, seen: Seen | None) -> bool:
        if len(shown) == 0:
            assert slow.began.wait(30)
        shown.append((own.number, seen))
        if len(shown) == 20:  # all are shown, and the first is not yet screened
            slow.go.set()
        return True

    loop = Loop(slow, budget_ms=1e9)
    loop.run((np.zeros((130, 130, 3), np.uint8) for _ in range(20)), show)
    assert [number for number, _ in shown] == [*range(20), 19]
    assert all(seen is None for _, seen in shown[:20])
    assert slow.names == ["frame 0", "frame 19"]  # none between was looked at
    assert (loop.in_time, loop.late, loop.mailbox.dropped) == (2, 0, 18)
    assert shown[-1][1].number == 19
    assert "too dark" in advice(shown[-1][1])


@pytest.mark.parametrize(("took", "in_time"), [(0.4, 1), (0.6, 0)])
def test_a_result_that_comes_too_late_is_not_shown(took, in_time):
    now = [0.0]

    def screen(photo: funduscope.Photo) -> funduscope.Rejected:
        now[0] += took
        return funduscope.Rejected(photo.name, None, funduscope.Code.DAMAGED, "x")

    loop = Loop(screen, budget_ms=500, clock=lambda: now[0])
    loop.run([np.zeros((130, 130, 3), np.uint8)], lambda own, seen: True)
    assert (loop.in_time, loop.late) == (in_time, 1 - in_time)
    assert (loop.latest is not None) == bool(in_time)


def test_the_preview_can_end_it_and_a_mistake_is_raised():
    pixels, shown = np.zeros((130, 130, 3), np.uint8), []
    rejected = funduscope.Rejected("x", None, funduscope.Code.DAMAGED, "x")

    def once(own: Frame, seen: Seen | None) -> bool:
        shown.append(own.number)
        return False

    Loop(lambda photo: rejected, 1e9).run((pixels for _ in range(9)), once)
    assert shown == [0, 0]

    def fail(photo: funduscope.Photo) -> funduscope.Rejected:
        raise RuntimeError("of the screener")

    with pytest.raises(RuntimeError, match="of the screener"):
        Loop(fail, 1e9).run([pixels], lambda own, seen: True)


def test_frames_of_a_video_and_of_what_is_none(tmp_path):
    import cv2

    path = str(tmp_path / "eye.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 160))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for _ in range(3):
        writer.write(np.full((160, 160, 3), 90, np.uint8))
    writer.release()
    assert [own.shape for own in camera_loop.frames_of(path, 1000)] == [(160, 160, 3)] * 3
    with pytest.raises(SystemExit, match=r"absent\.mp4"):
        list(camera_loop.frames_of("absent.mp4", 10))


def test_as_a_program_over_a_folder(root):
    command = [sys.executable, root / "examples" / "camera_loop.py", root / "examples", "--headless", "--threads", "1"]
    done = subprocess.run([*command, "--budget", "100000"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first.startswith("frame 0 of 1, ")
    assert "vCDR 0." in first
    assert last == "1 results in time, 0 late, 0 frames not looked at"


def test_the_terminal_tells_each_result_once(capsys):
    result = funduscope.Rejected("x", None, funduscope.Code.DAMAGED, "cut")
    show, seen = OnTerminal(), Seen(0, result, 12.0)
    assert show(frame(0), None)
    assert show(frame(1), seen)
    assert show(frame(2), seen)
    assert capsys.readouterr().out == "frame 0 of 2, 12 ms: take it again: cut\n"
