"""What OpenVINO compiled is kept, and is nothing that one depends on."""

import subprocess
import sys

import numpy as np
import pytest

from funduscope.engine import models
from funduscope.engine.runners import openvino

pytest.importorskip("openvino")
IMAGES = np.random.default_rng(0).integers(0, 255, (2, 384, 384, 3), np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(openvino.FOLDER_VARIABLE, str(tmp_path / "compiled"))
    return tmp_path / "compiled"


def answers(model, threads=1):
    with openvino.OpenVino(model, max_batch=2, threads=threads) as runner:
        return runner(np.ascontiguousarray(IMAGES[:, : model.contract.geometry.size, : model.contract.geometry.size]))


@pytest.fixture(scope="module")
def multitask():
    return models.load("multitask")


def same(a, b):
    return all((a[name] == b[name]).all() for name in a)


def test_the_second_opening_takes_what_the_first_kept(folder, multitask, monkeypatch):
    first = answers(multitask)
    (blob,) = folder.iterdir()
    before = blob.stat().st_mtime_ns
    monkeypatch.setattr("openvino.Core.read_model", lambda *_: pytest.fail("it was compiled again"))
    assert same(answers(multitask), first)
    assert blob.stat().st_mtime_ns == before


def test_what_is_compiled_otherwise_is_kept_apart(folder, multitask):
    answers(multitask)
    answers(models.variants(multitask)[0])
    answers(multitask, threads=2)
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-1], lambda data: data[:99] + b"x" + data[100:]]
)
def test_a_damaged_one_is_made_again(folder, multitask, damage):
    first = answers(multitask)
    (blob,) = folder.iterdir()
    whole = blob.read_bytes()
    blob.write_bytes(damage(whole))
    assert same(answers(multitask), first)
    assert len(blob.read_bytes()) > 1000


def test_a_folder_that_takes_no_file_is_no_error(tmp_path, multitask, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(openvino.FOLDER_VARIABLE, str(tmp_path / "file"))
    assert answers(multitask)["disc"].shape[0] == 2


def test_only_the_newest_are_kept(folder, multitask, monkeypatch):
    monkeypatch.setattr(openvino, "_KEPT", 1)
    answers(multitask)
    (old,) = folder.iterdir()
    answers(multitask, threads=2)
    (new,) = folder.iterdir()
    assert new != old


TWO_AT_ONCE = """
import sys, threading
import numpy as np
from funduscope.engine import models
from funduscope.engine.runners.openvino import OpenVino

sys.setswitchinterval(1e-6)
model = models.load("multitask")
size = model.contract.geometry.size
with OpenVino(model, max_batch=1, threads=1) as runner:
    meet, images = threading.Barrier(2), np.zeros((1, size, size, 3), np.uint8)
    def look():
        meet.wait()
        runner(images)
    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


@pytest.mark.slow
def test_the_first_pictures_of_two_threads_do_not_wait_for_one_another_for_ever(folder):
    """Without care one of ten processes or more hangs here: the library makes a table at its first look at a tensor."""
    for _ in range(25):
        subprocess.run([sys.executable, "-c", TWO_AT_ONCE], check=True, timeout=60)
