"""A run: each picture has a row, whatever happens to it and whoever stops it; what is found is never lost or found twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from funduscope import __version__
from funduscope.engine.errors import OutputError, SettingsError
from funduscope.engine.eyes import Listed
from funduscope.engine.outputs import store as stores
from funduscope.engine.outputs.folder import draw, expect, write_rows
from funduscope.engine.outputs.store import Store
from funduscope.engine.results import Screening
from funduscope.engine.run import Run
from funduscope.engine.screener import Screener

FILES = ("screenings.jsonl", "screenings.csv", "patients.csv")


@pytest.fixture
def pictures(tmp_path, fundus) -> list[Listed]:
    """Three good pictures, of which two are a patient's, and one that is not there."""
    found = []
    for k, patient in enumerate(("p1", None, "p1")):
        path = tmp_path / f"eye{k}.png"
        cv2.imwrite(str(path), fundus(seed=k)[..., ::-1])
        found.append(Listed(str(path), patient))
    return [*found[:2], Listed(str(tmp_path / "absent.jpg"), "p2"), found[2]]


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "screenings.jsonl").read_text().splitlines()]


def names(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if not path.name.startswith("."))


def contents(out: Path, *more: str) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in (*FILES, *more)}


def test_every_picture_has_its_row_and_its_result_in_order(fake, pictures, tmp_path):
    with fake(max_batch=2) as opened:
        run = Run(opened, pictures, tmp_path / "out")
        assert (len(run), run.counts, run.seconds) == (4, {}, 0)
        assert not (tmp_path / "out").exists()  # nothing is done yet
        results = list(run)
    assert [own.name for own in results] == [own.path for own in pictures]
    assert [own.to_dict() for own in results] == rows(tmp_path / "out")
    assert run.counts == {"ok": 3, "NOT_FOUND": 1}
    assert run.seconds > 0
    assert names(tmp_path / "out") == ["patients.csv", "run.json", "run.sqlite", "screenings.csv", "screenings.jsonl"]
    assert (tmp_path / "out" / "patients.csv").read_text().count("\n") == 3


def test_the_record_says_what_ran_on_what(both, pictures, tmp_path):
    with both(max_batch=3, point="high_sensitivity") as opened:
        run = Run(opened, pictures, tmp_path / "out", overlays=True, report=True, workers=1, inputs=["list.csv"])
        list(run)
        record = json.loads((tmp_path / "out" / "run.json").read_text())
        models = [(own.name, own.sha256) for own in opened.models]
        terms = [own.terms.model_dump() for own in opened.contracts]
    assert [(own["name"], own["sha256"]) for own in record["models"]] == models
    assert [own["terms"] for own in record["models"]] == terms
    assert record["funduscope"] == __version__
    assert record["inputs"] == ["list.csv"]
    assert record["pictures"] == 4
    assert record["counts"] == {"ok": 3, "NOT_FOUND": 1}
    assert record["seconds"] == round(run.seconds, 3)
    assert record["started"] <= record["finished"]
    expected = {"batch": 3, "workers": 1, "overlays": True, "report": True, "dicom": False, "point": "high_sensitivity"}
    assert record["settings"] == expected


def test_without_a_word_on_inputs_they_are_the_pictures_names(fake, pictures, tmp_path):
    with fake() as opened:
        list(Run(opened, pictures[:2], tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["inputs"] == [own.path for own in pictures[:2]]


def test_drawings_and_the_page_are_written_where_they_are_asked_for(both, pictures, tmp_path):
    with both() as opened:
        results = list(Run(opened, pictures, tmp_path / "all", overlays=True, report=True))
        list(Run(opened, pictures, tmp_path / "plain"))
    kept = [own.photo for own in results if isinstance(own, Screening)]
    assert kept == [None] * 3  # whoever keeps results, keeps no pixels
    parts = ("", ".glaucoma", ".referable_dr")
    drawn = sorted(f"{k:06d}_{stem}{part}.jpg" for k, stem in ((0, "eye0"), (1, "eye1"), (3, "eye2")) for part in parts)
    assert names(tmp_path / "all" / "overlays") == drawn
    assert (tmp_path / "all" / "report.html").read_text().count("<tr><td") == 4
    assert not {"overlays", "report", "report.html"} & set(names(tmp_path / "plain"))
    assert rows(tmp_path / "all") == rows(tmp_path / "plain")


def test_a_result_comes_out_when_it_is_in_the_store(fake, pictures, tmp_path):
    with fake(max_batch=1) as opened:
        for number, result in enumerate(Run(opened, pictures, tmp_path / "out"), start=1):
            with Store(tmp_path / "out") as store:  # others may read while it runs
                found = list(store.rows())
            assert len(found) == number
            assert found[-1] == result.to_dict()
    assert len(rows(tmp_path / "out")) == 4


def cut(opened: Screener, pictures, out: Path, after: int, how: str = "left", **settings) -> Run:
    """A run that ends after so many results."""
    run = Run(opened, pictures, out, **settings)
    iterator = iter(run)
    for _ in range(after):
        next(iterator)
    if how == "left":
        iterator.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            iterator.throw(KeyboardInterrupt)
    return run


@pytest.mark.parametrize("how", ["left", "interrupted"])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_run_that_was_cut_goes_on_to_the_same_files(fake, fake_runner, model, pictures, tmp_path, how, after):
    whole, out = tmp_path / "whole", tmp_path / "out"
    with fake(max_batch=2) as opened:
        list(Run(opened, pictures, whole, overlays=True, report=True))
        run = cut(opened, pictures, out, after, how, overlays=True, report=True)
        assert run.seconds == 0
        assert not {*FILES, "run.json", "report.html"} & set(names(out))
    runner = fake_runner(max_batch=2)
    with Screener.of([model], [runner], backend="fake") as opened:
        run = Run(opened, pictures, out, onto="resume", overlays=True, report=True)
        rest = list(run)
    assert contents(out, "report.html") == contents(whole, "report.html")
    for folder in ("overlays", "report"):
        assert {p.name: p.read_bytes() for p in (out / folder).iterdir()} == {
            p.name: p.read_bytes() for p in (whole / folder).iterdir()
        }
    kept = 2 if after <= 2 else 4  # whole batches
    assert (run.known, len(rest)) == (kept, 4 - kept)
    assert sum(runner.batches) == (1 if kept == 2 else 0)  # of the last two, one is not there


def test_a_whole_run_is_not_touched_by_accident(fake, pictures, tmp_path):
    out = tmp_path / "out"
    with fake() as opened:
        list(Run(opened, pictures, out))
        before = contents(out, "run.json")
        with pytest.raises(SettingsError, match=r"holds a run already; resume it, overwrite it"):
            list(Run(opened, pictures[:1], out))
        with pytest.raises(SettingsError):
            expect(out)
        assert contents(out, "run.json") == before
        assert list(Run(opened, pictures, out, onto="resume")) == []
    assert contents(out) == {name: before[name] for name in FILES}


def test_overwrite_leaves_nothing_of_the_earlier_run_and_all_else(fake, pictures, tmp_path):
    out = tmp_path / "out"
    with fake() as opened:
        list(Run(opened, pictures, out, overlays=True, report=True))
        for mine in ("mine.txt", "overlays/holiday.jpg"):
            (out / mine).write_text("mine")
        list(Run(opened, pictures[1:2], out, onto="overwrite", overlays=True))
    assert len(rows(out)) == 1
    assert names(out) == [
        "mine.txt",
        "overlays",
        "report",
        "run.json",
        "run.sqlite",
        "screenings.csv",
        "screenings.jsonl",
    ]
    assert names(out / "overlays") == ["000000_eye1.jpg", "holiday.jpg"]
    assert names(out / "report") == []
    assert json.loads((out / "run.json").read_text())["pictures"] == 1


def test_what_an_older_version_has_left_is_replaced(fake, pictures, tmp_path):
    (tmp_path / "overlays").mkdir()
    for name in ("patients.csv", "report.html", "overlays/000009_old.jpg"):
        (tmp_path / name).write_text("old")
    with fake() as opened:
        list(Run(opened, pictures[1:2], tmp_path))
    assert not {"patients.csv", "report.html"} & set(names(tmp_path))
    assert names(tmp_path / "overlays") == []


def test_more_pictures_are_taken_up_where_that_is_asked_for(fake, pictures, tmp_path):
    out = tmp_path / "out"
    with fake(max_batch=2) as opened:
        list(Run(opened, pictures[:1], out))
        with pytest.raises(SettingsError, match=r"3 that it does not have \(first .*eye1\.png\).*add the new ones"):
            list(Run(opened, pictures, out, onto="resume"))
        run = Run(opened, pictures[1:], out, onto="add")
        added = list(run)
        assert [own.name for own in added] == [own.path for own in pictures[1:]]
        with pytest.raises(SettingsError, match=r"1 missing that it has \(first .*eye0\.png\)"):
            list(Run(opened, pictures[1:], out, onto="resume"))
        list(Run(opened, pictures, tmp_path / "whole"))
    assert contents(out) == contents(tmp_path / "whole")


def test_pictures_that_were_added_and_cut_go_on_to_the_same_files(fake, pictures, tmp_path):
    with fake(max_batch=2) as opened:
        for out, after in ((tmp_path / "whole", None), (tmp_path / "out", 1)):
            list(Run(opened, pictures[:1], out))
            if after:
                cut(opened, pictures, out, after, onto="add")
            list(Run(opened, pictures, out, onto="add"))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_picture_whose_bytes_have_changed_is_screened_again(both, pictures, tmp_path):
    out, path = tmp_path / "out", Path(pictures[1].path)
    with both() as opened:
        list(Run(opened, pictures, out, overlays=True))
        drawn = (out / "overlays" / "000001_eye1.jpg").read_bytes()
        shutil.copy(pictures[0].path, path)
        os.utime(pictures[3].path)  # touched, but the same
        Path(pictures[2].path).write_bytes(path.read_bytes())  # it was not there
        run = Run(opened, pictures, out, onto="resume")
        again = list(run)
        assert not (out / "overlays" / "000001_eye1.jpg").exists()  # though nothing was drawn this time
        list(Run(opened, pictures, out, onto="resume", overlays=True))
    assert [own.name for own in again] == [pictures[1].path, pictures[2].path]
    assert (run.changed, run.known, run.counts) == (2, 2, {"ok": 4})
    found = rows(out)
    assert [row["status"] for row in found] == ["ok"] * 4
    assert found[0]["sha256"] == found[1]["sha256"]
    assert (out / "overlays" / "000001_eye1.jpg").read_bytes() != drawn


def test_a_picture_that_is_gone_keeps_its_row(fake, pictures, tmp_path):
    out = tmp_path / "out"
    with fake() as opened:
        list(Run(opened, pictures, out))
        before = contents(out)
        Path(pictures[0].path).unlink()
        run = Run(opened, pictures, out, onto="resume", overlays=True)
        list(run)
    assert contents(out) == before
    assert run.missed == 1
    assert names(out / "overlays") == ["000001_eye1.jpg", "000003_eye2.jpg"]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"models": "both"}, r"models: then multitask \S+ \w{8} on fake fp32, now .*, channels 7"),
        ({"max_batch": 3}, r"batch: then 4, now 3"),
    ],
)
def test_a_run_is_not_gone_on_with_otherwise(fake, model, classifier, opinions, pictures, tmp_path, how, told):
    with fake() as opened:
        list(Run(opened, pictures, tmp_path / "out"))
    if how.get("models"):
        how = {"models": (model, classifier), "classify": lambda image: opinions()}
    with fake(**how) as opened, pytest.raises(SettingsError, match=told):
        list(Run(opened, pictures, tmp_path / "out", onto="resume"))


def test_a_run_is_not_gone_on_with_for_another_patient(fake, pictures, tmp_path):
    with fake() as opened:
        list(Run(opened, pictures, tmp_path / "out"))
        other = [Listed(pictures[0].path, "p9"), *pictures[1:]]
        with pytest.raises(SettingsError, match=r"eye0\.png: its patient, eye or frame is not what it was"):
            list(Run(opened, other, tmp_path / "out", onto="resume"))


def test_a_run_that_was_killed_before_it_began_is_begun(fake, pictures, tmp_path):
    (tmp_path / "out").mkdir()
    with Store(tmp_path / "out", write=True):  # as it is before the pictures are in it
        pass
    with fake() as opened:
        assert len(list(Run(opened, pictures, tmp_path / "out"))) == 4


def test_R08_a_second_run_is_refused_and_the_first_unharmed(fake, pictures, tmp_path):
    with fake(max_batch=1) as opened:
        first = iter(Run(opened, pictures, tmp_path / "out"))
        next(first)
        for onto in ("resume", "overwrite"):
            with pytest.raises(OutputError, match="another run is writing here"):
                list(Run(opened, pictures, tmp_path / "out", onto=onto))
        assert len(list(first)) == 3
    assert len(rows(tmp_path / "out")) == 4


def test_R07_a_folder_that_is_removed_meanwhile_has_all_rows_at_the_end(fake, pictures, tmp_path):
    with fake(max_batch=1) as opened:
        run = iter(Run(opened, pictures * 3, tmp_path / "out"))
        next(run)
        shutil.rmtree(tmp_path / "out")
        list(run)
        assert names(tmp_path / "out") == ["patients.csv", "run.json", "screenings.csv", "screenings.jsonl"]
        assert len(rows(tmp_path / "out")) == 12


def test_R08_the_lock_of_a_run_that_was_killed_is_taken_over(fake, pictures, tmp_path):
    code = "import sys, os, filelock; filelock.FileLock(sys.argv[1]).acquire(); os.kill(os.getpid(), 9)"
    (tmp_path / "out").mkdir()
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out" / ".run.lock")], check=False)
    assert done.returncode == -9
    with fake() as opened:
        assert len(list(Run(opened, pictures, tmp_path / "out"))) == 4


def test_a_run_that_is_stopped_finishes_what_it_has_read(fake_runner, model, pictures, tmp_path):
    out, many = tmp_path / "out", [*pictures[:2], pictures[3]] * 20
    many = [Listed(str(shutil.copy(own.path, tmp_path / f"copy{k}.png"))) for k, own in enumerate(many)]
    runner = fake_runner(max_batch=2)
    with Screener.of([model], [runner], backend="fake") as opened:
        run = Run(opened, many, out)
        results = []
        for result in run:
            results.append(result)
            if len(results) == 3:
                threading.Thread(target=run.stop).start()
        assert run.stopped
        assert 3 <= len(results) < 30
        assert sum(runner.batches) == len(results)  # nothing is computed for nothing
        assert names(out) == ["run.sqlite"]
        rest = Run(opened, many, out, onto="resume")
        assert len(list(rest)) == 60 - len(results)
    assert sum(runner.batches) == 60


def test_the_rows_are_whole_whatever_becomes_of_the_page(fake, pictures, tmp_path, monkeypatch):
    def refuse(*arguments) -> None:
        raise OutputError("no page")

    monkeypatch.setattr("funduscope.engine.outputs.folder.report.write", refuse)
    with fake() as opened, pytest.raises(OutputError, match="no page"):
        list(Run(opened, pictures, tmp_path / "out", report=True))
    assert len(rows(tmp_path / "out")) == 4
    assert not (tmp_path / "out" / "run.json").exists()  # it did not come to its end


@pytest.mark.parametrize("name", [*FILES, "run.json", "report.html"])
def test_what_is_in_the_way_is_told_before_a_picture_is_read(fake_runner, model, pictures, tmp_path, name):
    (tmp_path / "out" / name).mkdir(parents=True)
    runner = fake_runner()
    with (
        Screener.of([model], [runner]) as opened,
        pytest.raises(OutputError, match=r"choose another|cannot be written"),
    ):
        list(Run(opened, pictures, tmp_path / "out"))
    assert runner.batches == []


def test_a_folder_that_cannot_be_written_is_told_before_a_picture_is_read(fake_runner, model, pictures, tmp_path):
    (tmp_path / "file").write_text("")
    runner = fake_runner()
    with Screener.of([model], [runner]) as opened, pytest.raises(OutputError, match="choose another folder"):
        list(Run(opened, pictures, tmp_path / "file"))
    assert runner.batches == []


def test_no_pictures_make_an_empty_run(fake, tmp_path):
    with fake() as opened:
        assert list(Run(opened, [], tmp_path)) == []
    assert rows(tmp_path) == []
    assert (tmp_path / "screenings.csv").read_text().startswith("name,status,")


def test_rows_and_page_are_made_of_a_cut_run_too(both, pictures, tmp_path):
    out = tmp_path / "out"
    with both(max_batch=2) as opened:
        cut(opened, pictures, out, 2)
    with Store(out) as store:
        write_rows(out, store, parquet=True)
        assert draw(out, store, contours=True) == 0
    assert len(rows(out)) == 2
    assert (out / "report.html").read_text().count("<tr><td") == 2
    assert len(names(out / "overlays")) == 6
    assert "screenings.parquet" in names(out)


def test_a_store_that_is_damaged_is_told(fake, pictures, tmp_path):
    out = tmp_path / "out"
    with fake() as opened:
        list(Run(opened, pictures, out))
        (out / stores.FILE).write_bytes(b"not SQLite at all" * 100)
        with pytest.raises(SettingsError, match=r"run\.sqlite: is damaged"):
            list(Run(opened, pictures, out, onto="resume"))
        assert len(list(Run(opened, pictures, out, onto="overwrite"))) == 4


def test_reduced_and_kept_values_draw_the_same(both, pictures, tmp_path):
    """What is drawn while it runs, and what is drawn from the store later."""
    with both() as opened:
        list(Run(opened, pictures, tmp_path / "now", overlays=True, report=True))
        list(Run(opened, pictures, tmp_path / "later"))
    with Store(tmp_path / "later") as store:
        draw(tmp_path / "later", store, contours=True)
    for folder in ("overlays", "report"):
        for path in (tmp_path / "now" / folder).iterdir():
            assert np.array_equal(cv2.imread(str(path)), cv2.imread(str(tmp_path / "later" / folder / path.name)))
    assert (tmp_path / "now" / "report.html").read_text() == (tmp_path / "later" / "report.html").read_text()
