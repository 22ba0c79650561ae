"""A camera's loop: the preview never waits, the newest frame is screened, and the operator is told what to do.

    python examples/camera_loop.py 0                    # a camera, by its number
    python examples/camera_loop.py eye.mp4              # a recording
    python examples/camera_loop.py examples --headless  # pictures of a folder, as frames; no window

A screening aid for research, not a diagnosis and not a medical device.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import funduscope

TITLE = "Funduscope"
Pixels = NDArray[np.uint8]
Screen = Callable[[funduscope.Photo], funduscope.Screening | funduscope.Rejected]


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: its number, its pixels (uint8, BGR), and when it was taken, in seconds."""

    number: int
    pixels: Pixels
    taken: float


@dataclass(frozen=True)
class Seen:
    """What was found on a frame, and how old that was by then."""

    number: int
    result: funduscope.Screening | funduscope.Rejected
    age_ms: float


class Newest:
    """A mailbox with one slot: what is put into it takes the place of what nobody has taken yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._closed = False
        self.dropped = 0

    def put(self, frame: Frame) -> None:
        """Never waits."""
        with self._changed:
            self.dropped += self._frame is not None
            self._frame = frame
            self._changed.notify()

    def take(self) -> Frame | None:
        """Wait for a frame; None when it is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._closed)
            frame, self._frame = self._frame, None
            return frame

    def close(self) -> None:
        """No frame comes any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()


@dataclass
class Loop:
    """Screens the newest frame in a thread of its own, while frames are shown in the caller's.

    Attributes:
        screen: A screener, or what answers as one does.
        budget_ms: From taking a frame to its result. What comes later is of an eye that has moved on: it is not shown.
        latest: The last result in time.
        in_time: How many results were.
        late: How many were not.
    """

    screen: Screen
    budget_ms: float
    latest: Seen | None = None
    in_time: int = 0
    late: int = 0
    mailbox: Newest = field(default_factory=Newest)
    clock: Callable[[], float] = time.monotonic

    def run(self, frames: Iterable[Pixels], show: Callable[[Frame, Seen | None], bool]) -> None:
        """Take all frames.

        Args:
            frames: uint8 (H, W, 3) BGR each, as `cv2.VideoCapture` gives them.
            show: The preview: a frame, and the latest result; False ends the loop. The last frame is shown once more when all
                is screened.
        """
        frame: Frame | None = None
        errors: list[BaseException] = []
        worker = threading.Thread(target=self._work, args=(errors,), name="screening")
        worker.start()
        try:
            for number, pixels in enumerate(frames):
                frame = Frame(number, pixels, self.clock())
                self.mailbox.put(frame)
                if not show(frame, self.latest) or errors:
                    break
        finally:
            self.mailbox.close()
            worker.join()
        if errors:
            raise errors[0]
        if frame is not None:
            show(frame, self.latest)

    def _work(self, errors: list[BaseException]) -> None:
        try:
            while (frame := self.mailbox.take()) is not None:
                result = self.screen(funduscope.Photo.from_bgr(frame.pixels, name=f"frame {frame.number}"))
                age_ms = 1000 * (self.clock() - frame.taken)
                if age_ms <= self.budget_ms:
                    self.latest = Seen(frame.number, result, age_ms)
                    self.in_time += 1
                else:
                    self.late += 1
        except BaseException as error:
            errors.append(error)


def advice(seen: Seen | None) -> str:
    """What the operator is told."""
    if seen is None:
        return "looking"
    result = seen.result
    if isinstance(result, funduscope.Rejected):
        return f"take it again: {result.reason}"
    called = [name for name, decision in result.decisions.items() if decision.called]
    unsure = [name for name, decision in result.decisions.items() if decision.called is None]
    vcdr = "" if result.vcdr is None else f"vCDR {result.vcdr:.2f}, "
    told = ", ".join(called) or "nothing called"
    return f"{vcdr}{told}" + (f"; open: {', '.join(unsure)}" if unsure else "")


def frames_of(source: str, fps: float) -> Iterator[Pixels]:
    """Frames of a camera (its number), a video file, or a folder of pictures, at most so many a second of the last two."""
    if Path(source).is_dir():
        frames: Iterator[Pixels | None] = (_read(path) for path in sorted(Path(source).iterdir()))
        return _paced((own for own in frames if own is not None), fps)
    if source.isdecimal():
        return _captured(cv2.VideoCapture(int(source)), source)
    return _paced(_captured(cv2.VideoCapture(source), source), fps)


def _read(path: Path) -> Pixels | None:
    pixels = cv2.imread(str(path)) if path.suffix.lower() in (".jpg", ".jpeg", ".png") else None
    return None if pixels is None else np.asarray(pixels, np.uint8)


def _captured(camera: cv2.VideoCapture, source: str) -> Iterator[Pixels]:
    if not camera.isOpened():
        raise SystemExit(f"{source}: no such camera, video file or folder")
    try:
        while True:
            there, pixels = camera.read()
            if not there:
                return
            yield np.asarray(pixels, np.uint8)
    finally:
        camera.release()


def _paced(frames: Iterable[Pixels], fps: float) -> Iterator[Pixels]:
    due = time.monotonic()
    for frame in frames:
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due, time.monotonic() - 1 / fps) + 1 / fps
        yield frame


def in_window(frame: Frame, seen: Seen | None) -> bool:
    """The preview in a window; Escape ends it."""
    shown = frame.pixels.copy()
    scale = shown.shape[1] / 1000
    cv2.putText(shown, advice(seen), (10, int(40 * scale)), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 2)
    cv2.imshow(TITLE, shown)
    return cv2.waitKey(1) != 27


class OnTerminal:
    """A preview without a window: each new result is a line."""

    def __init__(self) -> None:
        self._told: Seen | None = None

    def __call__(self, frame: Frame, seen: Seen | None) -> bool:
        """Tell a result that was not told yet."""
        if seen is not None and seen is not self._told:
            print(f"frame {seen.number} of {frame.number + 1}, {seen.age_ms:.0f} ms: {advice(seen)}", flush=True)
        self._told = seen
        return True


def window() -> Callable[[Frame, Seen | None], bool]:
    """The preview in a window, where this OpenCV has some."""
    try:
        cv2.namedWindow(TITLE)
    except cv2.error:
        raise SystemExit(
            "this OpenCV opens no windows: add --headless, or install opencv-python in place of opencv-python-headless"
        ) from None
    return in_window


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Screen the newest frame of a camera while the preview goes on.")
    parser.add_argument("source", help="the number of a camera, a video file, or a folder of pictures")
    parser.add_argument(
        "--budget", type=float, default=500, help="ms from a frame to its result; later ones are not shown"
    )
    parser.add_argument("--fps", type=float, default=15, help="of a video file or folder")
    parser.add_argument("--threads", type=int, help="of the networks, so that the preview has a core of its own")
    parser.add_argument("--headless", action="store_true", help="no window: a line for each result")
    own = parser.parse_args()
    show = OnTerminal() if own.headless else window()
    with funduscope.Screener.open(batch=1, threads=own.threads) as screener:
        loop = Loop(screener, own.budget)
        loop.run(frames_of(own.source, own.fps), show)
    print(f"{loop.in_time} results in time, {loop.late} late, {loop.mailbox.dropped} frames not looked at")


if __name__ == "__main__":
    main()
