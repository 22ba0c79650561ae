"""A run: each picture has a row, whatever happens to it and whoever stops it; all files of a run belong together."""

from __future__ import annotations

import json

import cv2
import pytest

from funduscope import __version__
from funduscope.engine.errors import OutputError
from funduscope.engine.eyes import Listed
from funduscope.engine.results import Screening
from funduscope.engine.run import Run
from funduscope.engine.screener import Screener


@pytest.fixture
def pictures(tmp_path, fundus) -> list[Listed]:
    """Three good pictures, of which two are a patient's, and one that is not there."""
    found = []
    for k, patient in enumerate(("p1", None, "p1")):
        path = tmp_path / f"eye{k}.png"
        cv2.imwrite(str(path), fundus(seed=k)[..., ::-1])
        found.append(Listed(str(path), patient))
    return [*found[:2], Listed(str(tmp_path / "absent.jpg"), "p2"), found[2]]


def rows(out, suffix="") -> list[dict]:
    return [json.loads(line) for line in (out / f"screenings.jsonl{suffix}").read_text().splitlines()]


def names(out) -> list[str]:
    return sorted(path.name for path in out.iterdir())


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
    assert names(tmp_path / "out") == ["patients.csv", "run.json", "screenings.csv", "screenings.jsonl"]
    assert (tmp_path / "out" / "patients.csv").read_text().count("\n") == 3


def test_the_record_says_what_ran_on_what(both, pictures, tmp_path):
    with both(max_batch=3, point="high_sensitivity") as opened:
        run = Run(opened, pictures, tmp_path, overlays=True, report=True, workers=1, inputs=["list.csv"])
        list(run)
        record = json.loads((tmp_path / "run.json").read_text())
        assert [(own["name"], own["sha256"]) for own in record["models"]] == [
            (own.name, own.sha256) for own in opened.models
        ]
    assert record["funduscope"] == __version__
    assert record["inputs"] == ["list.csv"]
    assert record["pictures"] == 4
    assert record["counts"] == {"ok": 3, "NOT_FOUND": 1}
    assert record["seconds"] == round(run.seconds, 3)
    assert record["settings"] == {
        "batch": 3,
        "workers": 1,
        "overlays": True,
        "report": True,
        "point": "high_sensitivity",
    }


def test_without_a_word_on_inputs_they_are_the_pictures_names(fake, pictures, tmp_path):
    with fake() as opened:
        list(Run(opened, pictures[:2], tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["inputs"] == [own.path for own in pictures[:2]]


def test_drawings_and_the_page_are_written_where_they_are_asked_for(both, pictures, tmp_path):
    with both() as opened:
        results = list(Run(opened, pictures, tmp_path / "all", overlays=True, report=True))
        list(Run(opened, pictures, tmp_path / "plain"))
    assert all(
        own.photo is None for own in results if isinstance(own, Screening)
    )  # whoever keeps results, keeps no pixels
    parts = ("", ".glaucoma", ".referable_dr")
    drawn = sorted(f"{k:06d}_{stem}{part}.jpg" for k, stem in ((0, "eye0"), (1, "eye1"), (3, "eye2")) for part in parts)
    assert names(tmp_path / "all" / "overlays") == drawn
    assert (tmp_path / "all" / "report.html").read_text().count("<tr><td") == 4
    assert not {"overlays", "report.html"} & set(names(tmp_path / "plain"))
    assert rows(tmp_path / "all") == rows(tmp_path / "plain")


def test_a_result_comes_out_when_its_row_is_on_disk(fake, pictures, tmp_path):
    with fake(max_batch=1) as opened:
        for number, result in enumerate(Run(opened, pictures, tmp_path / "out"), start=1):
            found = rows(tmp_path / "out", ".part")
            assert len(found) == number
            assert found[-1] == result.to_dict()
    assert len(rows(tmp_path / "out")) == 4


@pytest.mark.parametrize("how", ["left", "interrupted"])
def test_a_run_that_is_stopped_leaves_its_rows_and_the_last_whole_run(fake, pictures, tmp_path, how):
    out = tmp_path / "out"
    with fake(max_batch=1) as opened:
        list(Run(opened, pictures[:1], out))
        before = {name: (out / name).read_bytes() for name in ("run.json", "screenings.jsonl", "screenings.csv")}
        run = Run(opened, pictures, out, report=True)
        iterator = iter(run)
        assert [next(iterator).name for _ in range(2)] == [own.path for own in pictures[:2]]
        if how == "left":
            iterator.close()
        else:
            with pytest.raises(KeyboardInterrupt):
                iterator.throw(KeyboardInterrupt)
    assert {name: (out / name).read_bytes() for name in before} == before
    assert len(rows(out, ".part")) == 2
    assert run.counts == {"ok": 2}
    assert run.seconds == 0
    assert not (out / "report.html").exists()


def test_what_an_earlier_run_has_left_is_replaced(fake, pictures, tmp_path):
    with fake() as opened:
        list(Run(opened, pictures, tmp_path / "out", overlays=True))
        list(Run(opened, pictures[1:2], tmp_path / "out", overlays=True))
    assert len(rows(tmp_path / "out")) == 1
    assert not (tmp_path / "out" / "patients.csv").exists()  # that picture is no patient's
    assert names(tmp_path / "out" / "overlays") == ["000000_eye1.jpg"]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["pictures"] == 1


def test_the_rows_are_whole_whatever_becomes_of_the_page(fake, pictures, tmp_path):
    out = tmp_path / "out"
    (out / "report.html").mkdir(parents=True)
    with fake() as opened, pytest.raises(OutputError, match="cannot be written"):
        list(Run(opened, pictures, out, report=True))
    assert len(rows(out)) == 4
    assert not [name for name in names(out) if name.endswith(".part")]
    assert not (out / "run.json").exists()  # it did not come to its end


def test_a_folder_that_cannot_be_written_is_told_before_a_picture_is_read(fake_runner, model, pictures, tmp_path):
    (tmp_path / "file").write_text("")
    runner = fake_runner()
    with Screener.of([model], [runner]) as opened, pytest.raises(OutputError, match="choose another folder"):
        list(Run(opened, pictures, tmp_path / "file"))
    assert runner.batches == []


def test_a_run_may_be_made_twice_and_starts_anew(fake, pictures, tmp_path):
    with fake() as opened:
        run = Run(opened, pictures, tmp_path / "out")
        first, second = list(run), list(run)
    assert first == second
    assert run.counts == {"ok": 3, "NOT_FOUND": 1}


def test_no_pictures_make_an_empty_run(fake, tmp_path):
    with fake() as opened:
        assert list(Run(opened, [], tmp_path)) == []
    assert rows(tmp_path) == []
    assert (tmp_path / "screenings.csv").read_text().startswith("name,status,")
