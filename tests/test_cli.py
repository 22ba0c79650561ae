"""The command line's promises, in processes where that matters: exit codes, what goes to stdout and stderr, and the files."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from funduscope import SettingsError, __version__
from funduscope.cli import app
from funduscope.engine import models

ENVIRONMENT = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100", "NO_COLOR": "1"}


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "funduscope", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", cwd=cwd, env=ENVIRONMENT, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def message(done: subprocess.CompletedProcess[str]) -> str:
    """stderr, without the line breaks of the console."""
    return " ".join(done.stderr.split())


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "screenings.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, fundus, cc0) -> Path:
    """Good pictures under awkward names, and bad ones."""
    root = tmp_path_factory.mktemp("pictures")
    png = cv2.imencode(".png", fundus()[..., ::-1])[1].tobytes()
    shutil.copy(cc0, root / "retina_cc0.jpg")
    for name in ("é 👁️.png", "line\nbreak.png", "=cmd().png", "👁️" * 30 + ".png", os.fsdecode(b"\xff\xfe.png")):
        (root / name).write_bytes(png)
    (root / "<img src=x onerror=alert(1)>.png").write_bytes(png)
    (root / "<script>bad.png").write_bytes(png[:1000])
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.jpg").write_text("not a picture")
    (root / "grey.png").write_bytes(cv2.imencode(".png", fundus()[..., 0])[1].tobytes())
    (root / "notes.txt").write_text("not searched for")
    return root


@pytest.fixture(scope="module")
def screened(folder, tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One run over the folder and a file that is not there, with everything written."""
    out = tmp_path_factory.mktemp("run") / "new" / "out"
    return run("screen", folder, "absent.jpg", "--out", out, "--overlays", "--report", "--batch", "3"), out


def test_bad_pictures_do_not_change_the_exit_code(screened):
    assert screened[0].returncode == 0


def test_every_input_has_its_row(screened, folder):
    _, out = screened
    names = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if not name.endswith(".txt")]
    names = [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]
    assert [row["name"] for row in rows(out)] == [*names, "absent.jpg"]
    with (out / "screenings.csv").open(newline="", encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [*names, "absent.jpg"]


def test_bad_pictures_have_their_codes(screened):
    codes = {Path(row["name"]).name: row["code"] for row in rows(screened[1]) if row["status"] == "error"}
    assert codes == {
        "<script>bad.png": "DAMAGED",
        "empty.jpg": "EMPTY_FILE",
        "text.jpg": "UNKNOWN_FORMAT",
        "grey.png": "NOT_COLOUR",
        "absent.jpg": "NOT_FOUND",
    }


def test_messages_go_to_stderr_and_the_table_to_stdout(screened):
    done, _ = screened
    assert "12 pictures in" in message(done)
    assert "not a diagnosis" in message(done)
    assert "not a diagnosis" not in done.stdout
    assert "EMPTY_FILE" in done.stdout


def test_there_is_an_overlay_of_every_screened_picture(screened):
    out = screened[1]
    numbers = {f"{k:06d}" for k, row in enumerate(rows(out)) if row["status"] == "ok"}
    found = [path for path in out.rglob("*.jpg") if path.parent == out / "overlays"]
    assert {path.name[:6] for path in found} == numbers
    assert all(cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR) is not None for path in found)


def test_the_report_is_one_page_that_loads_nothing_and_runs_nothing_of_a_names(screened):
    text = (screened[1] / "report.html").read_text(encoding="utf-8")
    assert "http" not in text
    assert text.count("<script") == 1  # ours, at its end
    assert "onerror" not in text.partition("<script>")[2]
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in text
    assert all(source.startswith("data:image/jpeg;base64,") for source in re.findall(r'src="([^"]*)"', text))
    assert "not a diagnosis" in text
    assert text.count("<tr><td") == 12


def test_the_record_says_what_ran(screened, folder):
    _, out = screened
    record = json.loads((out / "run.json").read_text())
    assert record["inputs"] == [str(folder), "absent.jpg"]
    assert record["funduscope"] == __version__
    assert record["pictures"] == sum(record["counts"].values()) == 12
    first = rows(out)[0]
    names = [models.load(name).contract.name for name in ("multitask", "disc", "classifier")]
    assert [own["name"] for own in record["models"]] == names
    assert [own["sha256"] for own in record["models"]] == first["model_sha256"]
    assert first["model"] == names
    assert all("not a diagnosis" in own["terms"]["notice"] for own in record["models"])
    assert record["settings"] == {
        "dicom": False,
        "batch": 3,
        "workers": 2,
        "overlays": True,
        "report": True,
        "point": "balanced",
    }


def test_nothing_unfinished_is_left(screened):
    assert not list(screened[1].rglob("*.part"))


def test_fail_on_bad_exits_with_1_after_all_rows(call, folder, tmp_path):
    done = call("screen", folder / "empty.jpg", folder / "text.jpg", "--out", tmp_path, "--fail-on-bad")
    assert done.returncode == 1
    assert len(rows(tmp_path)) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["screen", "x.jpg"], 2, "Missing option '--out'"),
        (["screen", "x.jpg", "--out", "o", "--batch", "0"], 2, "--batch"),
        (["screen", "x.jpg", "--out", "o", "--model", "unknown"], 3, "unknown: no such model file"),
        (["screen", "x.jpg", "--out", "o", "--model", "notes.txt"], 3, "notes.txt: no Funduscope contract in it"),
        (["screen", "empty", "--out", "o"], 3, "no pictures in empty; folders are searched for .bmp"),
        (["evaluate", "default", "absent"], 3, "absent: no such folder"),
        (
            ["screen", "x.jpg", "--out", "o", "--point", "best"],
            3,
            "operating point best: allowed are high_sensitivity, balanced, high_specificity",
        ),
        (["screen", "x.jpg", "--out", "o", *["--model", "multitask"] * 2], 3, "a second model of the kind multi-task"),
        (
            ["screen", "x.jpg", "--out", "o", "--model", "multitask", "--point", "balanced"],
            3,
            "operating point balanced: only a classifier has operating points",
        ),
        (["screen", "eyes.csv", "--out", "o"], 3, "eyes.csv: eye 'both' in the row 'x.jpg,both'"),
        (["screen", "x.jpg", "--out", "o", "--backend", "abacus"], 4, "no backend named 'abacus'; there are: auto, "),
        (["screen", "x.jpg", "--out", "notes.txt"], 5, "notes.txt: is a file, and a folder is needed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_said_in_a_line_with_its_code(call, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "eyes.csv").write_text("path,eye\nx.jpg,both\n")
    done = call(*arguments)
    assert done.returncode == code
    assert words in message(done)
    assert done.stdout == ""
    assert not (tmp_path / "o").exists()


def labelled(folder: Path, fundus) -> Path:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    lines = ["image,mask,mask_has,fovea_x,fovea_y,glaucoma,split"]
    for k in range(4):
        cv2.imwrite(str(folder / "images" / f"{k}.png"), fundus(seed=k)[..., ::-1])
        mask = cv2.circle(np.zeros((200, 260), np.uint8), (180, 100), 18, 1, -1)
        cv2.imwrite(str(folder / "masks" / f"{k}.png"), cv2.circle(mask, (180, 100), 8, 2, -1))
        lines.append(f"images/{k}.png,masks/{k}.png,disc+cup,90,100,{k % 2},{'test' if k < 3 else 'val'}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_evaluate_gives_pure_json_on_stdout(call, tmp_path, fundus):
    done = call("evaluate", "default", labelled(tmp_path / "clinic", fundus), "--json")
    assert done.returncode == 0
    figures = json.loads(done.stdout)
    assert figures["split"] == "test"
    assert figures["sets"]["clinic"]["n"] == 3
    assert figures["sets"]["clinic"]["disc_dice"]["n"] == 3
    assert figures["sets"]["clinic"]["scores"]["glaucoma_network"]["n"] == 3
    assert figures["sets"]["clinic"]["decisions"]["glaucoma"]["auc"]["n"] == 3


def test_info_shows_the_contract(model_sha256):
    done = run("info")
    assert done.returncode == 0
    assert all(models.load(name).sha256 in done.stdout for name in models.embedded())
    assert "not a diagnosis" in " ".join(done.stdout.split())
    as_json = run("info", "multitask", "--json")
    assert json.loads(as_json.stdout)["sha256"] == model_sha256
    assert as_json.stderr == ""


@pytest.fixture(scope="module")
def model_sha256() -> str:
    return models.load("multitask").sha256


# with a classifier


@pytest.fixture(scope="module")
def eyes(tmp_path_factory, fundus) -> Path:
    """A list of two patients and a nameless one; of the second patient one eye is not there, of the third all is."""
    root = tmp_path_factory.mktemp("eyes")
    picture = fundus()
    cv2.imwrite(str(root / "od.png"), picture[..., ::-1])
    cv2.imwrite(str(root / "os.png"), picture[:, ::-1, ::-1])
    shutil.copy(root / "od.png", root / "od2.png")
    shutil.copy(root / "od.png", root / "none.png")
    lines = [
        "path,patient,eye",
        "od.png,=1+1,OD",
        "os.png,=1+1,OS",
        "od2.png,p2,right",
        "absent.png,p2,left",
        "none.png,,",
    ]
    (root / "list.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def classified(eyes, classifier, tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One run over the list with both models, at a point of its own, with everything written."""
    out = tmp_path_factory.mktemp("classified")
    models = ("--model", classifier.path, "--model", "multitask", "--point", "high_sensitivity")
    return run("screen", eyes / "list.csv", "--out", out, *models, "--overlays", "--report"), out


def test_both_models_fill_their_columns(classified, classifier, model_sha256):
    done, out = classified
    assert done.returncode == 0
    found = rows(out)
    assert [row["status"] for row in found] == ["ok", "ok", "ok", "error", "ok"]
    for row in found:
        assert row["model_sha256"] == [model_sha256, classifier.sha256]
        if row["status"] == "ok":
            assert (row["operating_point"], row["referable_dr_threshold"]) == ("high_sensitivity", 0.3)
            assert row["referable_dr"] is (row["referable_dr_probability"] >= 0.3)
            assert row["glaucoma_network"] is not None
    assert [(row["patient"], row["eye"]) for row in found[:2]] == [("=1+1", "right"), ("=1+1", "left")]
    assert found[0]["eye_source"] == found[3]["eye_source"] == "list"
    assert "refer 0." in done.stdout
    assert "LATERALITY_CONFLICT" not in found[0]["warnings"]


def test_the_record_has_both_models_and_the_point(classified, classifier, model_sha256):
    record = json.loads((classified[1] / "run.json").read_text())
    assert [own["sha256"] for own in record["models"]] == [model_sha256, classifier.sha256]
    assert record["models"][1]["terms"]["notice"] == classifier.contract.terms.notice
    assert record["settings"]["point"] == "high_sensitivity"
    assert classifier.contract.terms.notice in message(classified[0])


def test_each_screened_picture_has_contours_and_heat(classified):
    names = [f"{k:06d}_{stem}" for k, stem in ((0, "od"), (1, "os"), (2, "od2"), (4, "none"))]
    found = {path.name for path in (classified[1] / "overlays").iterdir()}
    assert found == {f"{name}{part}.jpg" for name in names for part in ("", ".glaucoma", ".referable_dr")}


def test_the_report_has_the_second_opinion(classified):
    text = (classified[1] / "report.html").read_text(encoding="utf-8")
    assert text.count('alt="heat of referable retinopathy"') == text.count('alt="heat of glaucoma"') == 4
    for threshold in ("0.200", "0.300", "0.250"):
        assert text.count(f">from {threshold}<") == 4
    assert "channels 7" in text


def test_patients_have_their_rows(classified):
    with (classified[1] / "patients.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    row = rows(classified[1])[0]
    assert (first["patient"], first["pictures"], first["right_pictures"], first["left_pictures"]) == (
        "'=1+1",
        "2",
        "1",
        "1",
    )
    assert first["referable_dr"] == str(row["referable_dr"]).lower()
    assert "ONE_EYE" not in first["warnings"]
    assert (second["patient"], second["pictures"], second["rejected_pictures"]) == ("p2", "2", "1")
    assert "ONE_EYE" in second["warnings"]  # of the other there is only a rejected picture
    assert second["vcdr_difference"] == ""


def test_a_run_without_patients_removes_those_of_an_earlier_one(call, eyes, classifier, tmp_path):
    (tmp_path / "patients.csv").write_text("of an earlier run")
    assert call("screen", eyes / "none.png", "--out", tmp_path, "--model", classifier.path).returncode == 0
    assert rows(tmp_path)[0]["model"] == ["channels"]
    assert not (tmp_path / "patients.csv").exists()


def test_info_shows_a_classifiers_decisions(classifier):
    done = run("info", classifier.path)
    assert done.returncode == 0
    told = " ".join(done.stdout.split())
    assert "channels 7 (classifier, fp32)" in told
    assert "operating point balanced" in told
    for disease, threshold in (("glaucoma", "0.2000"), ("referable_dr", "0.3000"), ("any_dr", "0.2500")):
        assert f"{disease} temperature 1 high_sensitivity from" in told
        rates = "sensitivity 0.900 (0.80 to 0.95), specificity 0.900 (0.80 to 0.95)"
        assert f"high_sensitivity from {threshold}, uncertain within 0.100 of its logit: {rates}" in told
    assert "rules" not in told
    assert json.loads(run("info", classifier.path, "--json").stdout) == classifier.contract.model_dump()


def test_evaluate_measures_a_classifier(tmp_path, fundus, classifier):
    folder = labelled(tmp_path / "clinic", fundus)
    done = run("evaluate", classifier.path, folder, "--point", "high_specificity", "--json")
    assert done.returncode == 0
    figures = json.loads(done.stdout)
    assert [own["sha256"] for own in figures["models"]] == [classifier.sha256]
    found = figures["sets"]["clinic"]["decisions"]
    assert set(found) == {"glaucoma_second", "referable_dr", "any_dr"}
    assert (found["glaucoma_second"]["auc"]["n"], found["glaucoma_second"]["at_threshold"]["threshold"]) == (3, 0.6)
    assert found["any_dr"]["heat_in_disc"]["n"] == 3
    told = " ".join(run("evaluate", classifier.path, folder).stdout.split())
    assert "clinic, test: 3 pictures, 0 rejected" in told
    for words in (
        "glaucoma_second: auc",
        "glaucoma_second: from 0.400",
        "any_dr: heat at the disc",
    ):
        assert words in told
    assert f"by chance {found['any_dr']['heat_in_disc']['chance']:.3f}" in told


def test_doctor_finds_this_installation_able_to_screen():
    done = run("doctor")
    assert done.returncode == 0
    for word in ("python", "onnxruntime", "NVIDIA GPU", "extra train", "extra dicom", "model multitask"):
        assert word in done.stdout


# stdout


def printed(stdout: object, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "funduscope", *map(str, arguments)]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, errors="replace", env=ENVIRONMENT, timeout=120
    )


@pytest.fixture
def unread():
    """A pipe that nobody reads."""
    reads, writes = os.pipe()
    os.close(reads)
    yield writes
    os.close(writes)


FULL = Path("/dev/full")
COMMANDS = pytest.mark.parametrize(
    "command",
    [["--version"], pytest.param(["info"], marks=pytest.mark.slow), ["info", "--json"]],
    ids=" ".join,
)


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@COMMANDS
def test_a_full_stdout_is_said_in_a_line_with_code_5(command):
    with FULL.open("w") as full:
        done = printed(full, *command)
    assert done.returncode == 5
    told = "funduscope: stdout: cannot be written (No space left on device); make room, or send it elsewhere"
    assert done.stderr.splitlines() == [told]


@COMMANDS
def test_who_reads_no_further_is_not_told_so(unread, command):
    done = printed(unread, *command)
    assert (done.returncode, done.stderr) == (5, "")


def test_the_rows_are_whole_where_the_table_cannot_be_printed(unread, cc0, tmp_path):
    done = printed(unread, "screen", cc0, "--out", tmp_path)
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    assert [row["status"] for row in rows(tmp_path)] == ["ok"]


def test_without_a_stdout_nothing_is_printed():
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "funduscope", "info"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_and_the_help():
    assert run("--version").stdout == f"funduscope {__version__}\n"
    assert "screen" in run("--help").stdout


@pytest.mark.parametrize("stop", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_R04_a_stopped_run_keeps_what_is_finished_and_says_how_to_go_on(tmp_path, cc0, classifier, stop):
    (tmp_path / "pictures").mkdir()
    for k in range(500):
        (tmp_path / "pictures" / f"{k}.jpg").symlink_to(cc0)
    out = tmp_path / "o u t"
    arguments = ["screen", str(tmp_path / "pictures"), "--out", str(out), "--model", str(classifier.path), "--no-tune"]
    process = subprocess.Popen(
        [sys.executable, "-m", "funduscope", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(
            stop, signal.SIG_DFL
        ),  # a shell's background job inherits that SIGINT is ignored
    )
    until = time.monotonic() + 60
    while not kept(out) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(stop)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + stop
    assert b"Traceback" not in told
    assert not (out / "screenings.jsonl").exists()
    done = kept(out)
    assert f"stopped after {done} of 500 pictures" in told.decode()
    assert f"go on with: funduscope {shlex.join(arguments)} --resume" in told.decode()
    assert run("rows", out, "--format", "jsonl").returncode == 0
    assert len(rows(out)) == done


def kept(out: Path) -> int:
    """How many results a run's store has."""
    if not (out / "run.sqlite").exists():
        return 0
    try:
        with closing(sqlite3.connect(out / "run.sqlite")) as store:
            return store.execute("SELECT count(*) FROM results").fetchone()[0]
    except sqlite3.OperationalError:  # it is being made
        return 0


def test_a_run_goes_on_and_its_page_is_made_later(call, eyes, classifier, tmp_path):
    command = ["screen", eyes / "none.png", "--out", tmp_path, "--model", classifier.path]
    assert call(*command).returncode == 0
    again = call(*command)
    assert (again.returncode, "holds a run already; resume it, overwrite it" in message(again)) == (3, True)
    assert "1 picture (1 of them before)" in message(call(*command, "--resume"))
    assert call(*command, "--overwrite", "--quiet").stdout == ""
    assert call("report", tmp_path, "--overlays").returncode == 0
    assert (tmp_path / "report.html").exists()
    assert len(list((tmp_path / "overlays").iterdir())) == 2
    for form in ("csv", "jsonl", "parquet"):
        assert call("rows", tmp_path, "--format", form, "--out", tmp_path / f"own.{form}").returncode == 0
        assert (tmp_path / f"own.{form}").exists()
    assert call("rows", tmp_path, "--format", "xml").returncode == 3
    assert "holds no run" in message(call("report", eyes))


@pytest.mark.parametrize("options", [["--add"], ["--resume", "--overwrite"], ["--progress", "loud"]])
def test_options_that_do_not_go_together_are_refused(call, eyes, tmp_path, options):
    assert call("screen", eyes / "none.png", "--out", tmp_path / "out", *options).returncode == 3
    assert not (tmp_path / "out").exists()


def test_progress_for_a_program(call, eyes, classifier, tmp_path):
    command = ["screen", eyes / "none.png", "absent.jpg", "--out", tmp_path, "--model", classifier.path]
    told = call(*command, "--progress", "json").stderr.splitlines()
    last = [json.loads(line) for line in told if line.startswith("{")][-1]
    assert (last["done"], last["total"], last["counts"]) == (2, 2, {"ok": 1, "NOT_FOUND": 1})
    assert last["last_rejected"] == "absent.jpg: NOT_FOUND"


@pytest.mark.parametrize(
    ("count", "options", "tunes"), [(201, [], True), (200, [], False), (201, ["--no-tune"], False)]
)
def test_many_pictures_are_screened_the_fastest_way(tmp_path, monkeypatch, count, options, tunes):
    asked = []
    monkeypatch.setattr("funduscope.engine.tune.tune", lambda *given: asked.append(given) or stop())
    monkeypatch.setattr("funduscope.cli.Run", lambda *given, **more: stop())

    def stop():
        raise SettingsError("enough")

    names = [f"absent{k}.jpg" for k in range(count)]
    with pytest.raises(SettingsError, match="enough"):
        app(["screen", *names, "--out", str(tmp_path), *options], standalone_mode=False)
    assert bool(asked) == tunes
