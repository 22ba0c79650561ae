"""Whatever a run is killed by and when, it goes on to the same files, and next to nothing is computed twice."""

from __future__ import annotations

import random
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

PICTURES, KILLS, BATCH = 40, 5, 2
SCRIPT = Path(__file__).parent / "killed_run.py"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, fundus) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for k in range(PICTURES):
        cv2.imwrite(str(folder / f"eye{k:03d}.jpg"), fundus(150, 150, seed=k)[..., ::-1])
    return folder


def screened(pictures: Path, out: Path, seconds: float, log: Path) -> int:
    """The exit code of a run that goes on where it was cut."""
    return ended(pictures, out, seconds, log).returncode


def ended(pictures: Path, out: Path, seconds: float, log: Path, room: int | None = None) -> subprocess.CompletedProcess:
    """A run that goes on where it was cut. room: bytes to which any file may grow, as if the disk were full then."""

    def limit() -> None:
        if room is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    command = [sys.executable, str(SCRIPT), str(pictures), str(out), str(seconds), str(log)]
    return subprocess.run(command, check=False, timeout=120, preexec_fn=limit, capture_output=True, text=True)


def files(out: Path) -> dict[str, bytes]:
    """All that is the same in every run: without the times, the store, the lock."""
    found = (p for p in out.rglob("*") if p.is_file() and p.name not in (".run.lock", "run.json", "run.sqlite"))
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory) -> Path:
    """What a run that nothing cuts leaves."""
    folder = tmp_path_factory.mktemp("whole")
    assert screened(pictures, folder / "out", 0, folder / "log") == 0
    return folder / "out"


def test_R03_a_run_killed_at_any_moment_goes_on_to_the_same_files(pictures, whole, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    moments, kills = random.Random(0), 0
    while kills < KILLS:
        code = screened(pictures, out, moments.uniform(0.01, 0.5), log)
        assert code in (-9, 0)
        kills += code == -9
        with sqlite3.connect(out / "run.sqlite") as store:
            assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.close()
        if code == 0 and kills < KILLS:  # it has come to its end: the next kills hit the writing of files
            for name in ("screenings.csv", "report.html"):
                (out / name).unlink()
    assert screened(pictures, out, 0, log) == 0
    assert files(out) == files(whole)
    assert PICTURES <= log.stat().st_size <= PICTURES + kills * BATCH


@pytest.mark.parametrize("room", [10_000, pytest.param(60_000, marks=pytest.mark.slow), 150_000])
def test_R07_a_full_disk_is_told_and_nothing_is_lost(pictures, whole, tmp_path, room):
    out, log = tmp_path / "out", tmp_path / "log"
    full = ended(pictures, out, 0, log, room)
    assert (full.returncode, full.stderr) == (5, "")
    assert len(full.stdout.splitlines()) == 1
    assert "make room" in full.stdout
    assert screened(pictures, out, 0, log) == 0
    assert files(out) == files(whole)
