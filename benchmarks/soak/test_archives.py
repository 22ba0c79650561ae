"""What an archive of many pictures does to a run: memory, rate, and every way in which it can be cut.

    make soak                                      # all of it: hours on two cores
    FUNDUSCOPE_SOAK=.1 make soak                   # a tenth of the pictures

Each test prints the figures that the documentation states.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from funduscope import Listed, Run, Screener
from funduscope.engine.pictures import inputs

SHARE = float(os.environ.get("FUNDUSCOPE_SOAK", "1"))
DATA = Path(os.environ.get("FUNDUSCOPE_DATA", Path(__file__).parents[3] / "shared" / "data"))
SMALL = ("airogs_light", "hygd", "origa", "odir5k")
LARGE = ("idrid", "drishti_gs1", "originals")
SLOPE = 1.0  # MB a 1,000 pictures that memory may grow by, in the second half of a run
GROWN = 100  # MB that memory may grow by in all, in the second half
RATE = 0.97  # of the first tenth that the last tenth keeps

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs the labelled fundus pictures")


def linked(folder: Path, sets: tuple[str, ...], count: int, bad: float = 0.05) -> Path:
    """A folder of so many names for the pictures of some sets; a share of them is cut, empty or no picture."""
    folder.mkdir()
    found = [path for name in sets for path in sorted((DATA / name).rglob("*.jpg"))]
    chances = random.Random(0)
    for k, path in zip(range(count), itertools.cycle(found)):
        name = folder / f"{k:06d}.jpg"
        if chances.random() < bad:
            name.write_bytes(path.read_bytes()[: chances.choice((0, 100, 5000))])
        else:
            name.symlink_to(path)
    return folder


def followed(folder: Path, out: Path, leak: int = 0) -> dict[str, float]:
    """Screen a folder: growth of memory in its second half, MB a 1,000 pictures, and rates. leak: bytes kept of each picture."""
    process, kept, seen = psutil.Process(), [], list[tuple[int, float, float]]()
    pictures = [Listed(str(path)) for path in sorted(folder.iterdir())]
    with Screener.open() as screener:
        for number, _ in enumerate(Run(screener, pictures, out), start=1):
            kept.append(bytearray(leak))
            if number % 50 == 0:
                seen.append((number, process.memory_info().rss / 1e6, time.monotonic()))
    numbers, memory, times = map(np.array, zip(*seen, strict=True))
    half, tenth = len(seen) // 2, max(2, len(seen) // 10)
    # the median growth over 200 pictures, for a leak grows with each; single steps count among `grown`
    slope = float(np.median((memory[half + 4 :] - memory[half:-4]) / (numbers[half + 4 :] - numbers[half:-4]))) * 1000

    def rate(part: slice) -> float:
        return float((numbers[part][-1] - numbers[part][0]) / (times[part][-1] - times[part][0]))

    # the first pictures wait for files and threads to come up
    return {
        "slope": slope,
        "grown": float(memory[-1] - memory[half]),
        "first": rate(slice(1, 1 + tenth)),
        "last": rate(slice(-tenth, None)),
        "peak": float(memory.max()),
    }


@pytest.mark.parametrize(("kind", "sets", "count"), [("small", SMALL, 20_000), ("camera-size", LARGE, 2_000)])
def test_R24_memory_is_flat_and_the_rate_stays(tmp_path: Path, kind: str, sets: tuple[str, ...], count: int) -> None:
    figures = followed(linked(tmp_path / "in", sets, round(count * SHARE)), tmp_path / "out")
    print(f"\n{kind}, {round(count * SHARE)} pictures: {json.dumps(figures)}")
    assert figures["slope"] < SLOPE
    assert figures["grown"] < GROWN
    assert figures["last"] > RATE * figures["first"]


def test_R24_a_leak_is_seen(tmp_path: Path) -> None:
    figures = followed(linked(tmp_path / "in", SMALL, round(4_000 * SHARE)), tmp_path / "out", leak=32_000)
    print(f"\nwith 32 kB kept of each picture: {json.dumps(figures)}")
    assert figures["slope"] > SLOPE


def test_R34_an_archive_of_tiny_files_is_found_screened_and_resumed_in_flat_memory(tmp_path: Path) -> None:
    count, folder = round(100_000 * SHARE), tmp_path / "in"
    folder.mkdir()
    data = cv2.imencode(".png", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    for k in range(count):
        (folder / f"{k:06d}.png").write_bytes(data)
    process = psutil.Process()
    with Screener.open() as screener:
        screener(np.zeros((200, 200, 3), np.uint8))
        base, start = process.memory_info().rss, time.monotonic()
        pictures = inputs.expand([str(folder)])
        scan, most, run = time.monotonic() - start, 0, Run(screener, pictures, tmp_path / "out")
        for number, _ in enumerate(run, start=1):
            if number % 1000 == 0:
                most = max(most, process.memory_info().rss)
            if number == count // 2:
                run.stop()
        start = time.monotonic()
        rest = iter(Run(screener, pictures, tmp_path / "out", onto="resume"))
        next(rest)
        resumed = time.monotonic() - start
        for number, _ in enumerate(rest):
            if number % 1000 == 0:
                most = max(most, process.memory_info().rss)
    with (tmp_path / "out" / "screenings.jsonl").open() as rows:
        assert sum(1 for _ in rows) == count
    grown = (most - base) / 1e6
    print(f"\n{count} tiny files: found in {scan:.1f} s, {grown:.0f} MB above the base, resumed in {resumed:.1f} s")
    assert grown < 300
    assert scan < 60
    assert resumed < 10


def test_the_store_costs_little(tmp_path: Path) -> None:
    """By the processor's time, which other work on the machine disturbs less than the clock; both are printed."""
    pictures = [Listed(str(path)) for path in sorted(linked(tmp_path / "in", SMALL, round(600 * SHARE)).iterdir())]
    spent: dict[str, list[tuple[float, float]]] = {"bare": [], "stored": []}
    with Screener.open() as screener:
        for turn in range(7):  # the first warms up
            for kind, own in spent.items():
                start = time.process_time(), time.perf_counter()
                for _ in screener.stream(pictures) if kind == "bare" else Run(screener, pictures, tmp_path / f"{turn}"):
                    pass
                own.append((time.process_time() - start[0], time.perf_counter() - start[1]))
    bare, stored = (np.array(own[1:]) for own in spent.values())
    busy, clock = np.median(bare / stored, axis=0)
    print(f"\nwithout a store {busy:.3f} of the processor's time with one, {clock:.3f} of the clock's, by turns")
    assert busy > RATE


def started(pictures: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "funduscope", "screen", str(pictures), "--out", str(out), "--resume", "--quiet"]
    return subprocess.Popen([*command, "--no-tune", "--report", "--backend", "onnxruntime"], stderr=subprocess.DEVNULL)


def files(out: Path) -> dict[str, bytes]:
    """All that is the same in every run: without the times, the store, the lock."""
    found = (p for p in out.rglob("*") if p.is_file() and p.name not in (".run.lock", "run.json", "run.sqlite"))
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


def is_whole(out: Path) -> bool:
    """Whether the store is, where there is one."""
    if not (out / "run.sqlite").exists():
        return True
    with closing(sqlite3.connect(out / "run.sqlite")) as store:
        return bool(store.execute("PRAGMA integrity_check").fetchone() == ("ok",))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_R03_R04_twenty_cuts_at_random_change_nothing(tmp_path: Path, number: signal.Signals) -> None:
    pictures, moments = linked(tmp_path / "in", SMALL, 400), random.Random(int(number))
    expected = tmp_path / "whole"
    start = time.monotonic()
    assert started(pictures, expected).wait() == 0
    lasted, longest, cuts = time.monotonic() - start, 0.0, 0
    while cuts < 20:
        process = started(pictures, tmp_path / "out")
        try:
            process.wait(moments.uniform(0.5, 0.15 * lasted))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            sent = time.monotonic()
            process.wait(60)
            longest = max(longest, time.monotonic() - sent)
            cuts += 1
        assert is_whole(tmp_path / "out")
        if (tmp_path / "out" / "run.json").exists() and cuts < 20:
            (tmp_path / "out" / "run.json").unlink()
    assert started(pictures, tmp_path / "out").wait() == 0
    assert files(tmp_path / "out") == files(expected)
    print(f"\n20 times {number.name}: the same {len(files(expected))} files; the longest took {longest:.2f} s to end")
    assert longest < 5  # on a machine that is quiet
