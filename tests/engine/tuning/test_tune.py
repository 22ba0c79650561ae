"""Every way measured in a process of its own; what crashes, hangs or differs is told and not taken."""

from __future__ import annotations

import functools
import re
import sys

import pytest

from funduscope import Screener, console
from funduscope.cli import app
from funduscope.engine import runners, screener, tune
from funduscope.engine.errors import ModelError, SettingsError
from funduscope.engine.gate import pictures
from funduscope.engine.gate.verify import expected_of
from funduscope.engine.pictures import photo
from funduscope.engine.screener import ScreenerSettings
from funduscope.engine.tuning import record

ANSWERS = """
import json, sys
asked = json.loads(sys.stdin.readline())
{first}
print(json.dumps({{"precision": "fp32"}}), flush=True)
for turn, line in enumerate(sys.stdin):
    if json.loads(line) == "gate":
        {gate}
        print(json.dumps({{"strain": {strain}, "passes": ({strain}) <= 1}}), flush=True)
    else:
        print(json.dumps({{"batch_s": {seconds}, "one_s": [{seconds}]}}), flush=True)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, cc0):
    """An empty folder for the choices; few pictures, measured shortly."""
    monkeypatch.setenv(record.FOLDER_VARIABLE, str(tmp_path / "tuning"))
    monkeypatch.setattr(tune, "_PICTURES", 4)
    monkeypatch.setattr(tune, "_SECONDS", 0.05)
    monkeypatch.setattr(tune, "views", functools.partial(pictures.views_of, photo.load(cc0), count=4))


def played(monkeypatch, first="", strain="0.5", seconds="0.1 if asked['backend'] == 'openvino' else 0.14", gate=""):
    """Let a script answer in the place of each way."""
    script = ANSWERS.format(first=first, strain=strain, seconds=seconds, gate=gate)
    monkeypatch.setattr(tune, "COMMAND", [sys.executable, "-c", script])
    monkeypatch.setattr(tune, "_may_run", lambda backend: backend in ("onnxruntime", "openvino"))


def test_the_fastest_that_passes_is_taken_and_kept(monkeypatch, classifier):
    pytest.importorskip("openvino")
    played(monkeypatch)
    found = tune.tune([classifier])
    assert found.ways[classifier.sha256].backend == "openvino"
    assert record.recall([classifier.sha256]) == found
    assert [trial.pictures_per_second for trial in found.trials] == [57.14, 80.0]


def test_models_that_cannot_be_opened_together_are_refused_before_anything_is_measured(monkeypatch, closer):
    monkeypatch.setattr(tune, "_tried", None)
    with pytest.raises(SettingsError, match=r"closer\.onnx: it looks where a multi-task model has found something"):
        tune.tune([closer])


def test_what_the_gate_refuses_is_not_taken(monkeypatch, classifier):
    played(monkeypatch, strain="2.0 if asked['backend'] == 'openvino' else 0.5")
    found = tune.tune([classifier])
    assert found.ways[classifier.sha256].backend == "onnxruntime"
    assert [trial.verdict for trial in found.trials] == ["passes", "refused by the gate"]
    assert [trial.strain for trial in found.trials] == [0.5, 2.0]


SLOW = "0.1 if asked['backend'] == 'openvino' else 0.16"


def test_a_way_that_is_plainly_slower_is_not_asked_at_the_gate(monkeypatch, classifier):
    pytest.importorskip("openvino")
    played(monkeypatch, seconds=SLOW, gate="if asked['backend'] != 'openvino': sys.exit(9)")
    found = tune.tune([classifier])
    assert found.ways[classifier.sha256].backend == "openvino"
    assert [trial.verdict for trial in found.trials] == ["plainly slower", "passes"]
    assert [trial.strain for trial in found.trials] == [None, 0.5]
    assert [trial.pictures_per_second for trial in found.trials] == [50.0, 80.0]


@pytest.mark.parametrize("fails", ["'gate'", "0.05 and turn > 2"], ids=["at the gate", "after it"])
def test_a_slower_way_goes_through_the_gate_where_the_faster_fails(monkeypatch, classifier, fails):
    dies = f"(asked['backend'] == 'openvino' and json.loads(line) == {fails} and sys.exit(7))"
    played(monkeypatch, seconds=f"{dies} or ({SLOW})", gate=dies)
    found = tune.tune([classifier])
    assert found.ways[classifier.sha256].backend == "onnxruntime"
    assert [trial.verdict for trial in found.trials] == ["passes", "crashed (exit code 7)"]
    assert found.trials[0].strain == 0.5


def test_the_gate_holds_every_way_beside_what_the_model_says_which_is_computed_once(monkeypatch, classifier):
    asked = []

    def wrong(*given):
        asked.append(given)
        return {name: 1 - output for name, output in expected_of(*given).items()}

    monkeypatch.setattr(tune, "expected_of", wrong)
    monkeypatch.setattr(tune, "_may_run", lambda backend: backend == "onnxruntime")
    with pytest.raises(ModelError, match="no way to run it passes here: onnxruntime refused by the gate"):
        tune.tune([classifier])
    assert len(asked) == 1


@pytest.mark.parametrize("strain", [0.5, 2.0])
def test_half_of_the_cores_is_another_way_which_must_pass_too(monkeypatch, classifier, strain):
    given = []
    monkeypatch.setattr(tune, "_fastest", lambda opened, arrangements: given.extend(arrangements) or given[0])
    machine = record.this_machine().model_copy(update={"cores": 4})
    monkeypatch.setattr(tune, "this_machine", lambda: machine)
    played(monkeypatch, strain=f"{strain} if asked['threads'] == 2 else 0.5")
    tune.tune([classifier])
    threads = [(own.slots, own.ways[classifier.sha256].threads) for own in given]
    assert threads == ([(1, 4), (2, 2)] if strain < 1 else [(1, 4)])


@pytest.mark.parametrize(
    ("first", "verdict"),
    [
        ("import os\nif asked['backend'] == 'openvino': os.abort()", r"crashed \(exit code -6\)"),
        ("if asked['backend'] == 'openvino': sys.exit(3)", r"crashed \(exit code 3\)"),
        ("import time\nif asked['backend'] == 'openvino': time.sleep(60)", r"no answer in 2 s"),
        (
            "if asked['backend'] == 'openvino': print(json.dumps({'error': 'no such device'})); sys.exit()",
            "no such device",
        ),
    ],
    ids=["crash", "exit", "hang", "error"],
)
def test_a_way_that_fails_is_told_and_the_others_go_on(monkeypatch, classifier, first, verdict):
    monkeypatch.setattr(tune, "_PATIENCE_S", 2)
    played(monkeypatch, first=first)
    found = tune.tune([classifier])
    assert found.ways[classifier.sha256].backend == "onnxruntime"
    assert re.fullmatch(verdict, found.trials[1].verdict)


def test_a_second_process_that_tunes_the_same_is_refused(monkeypatch, classifier):
    played(monkeypatch)
    held, refused = tune._alone(record.place([classifier.sha256], record.this_machine())), pytest.raises(SettingsError)
    with held, refused as error:
        tune.tune([classifier])
    assert "another process is tuning" in str(error.value)
    assert tune.tune([classifier]).ways


def test_a_folder_that_cannot_be_written_is_told_and_the_choice_holds(monkeypatch, classifier, tmp_path, caplog):
    played(monkeypatch)
    (tmp_path / "tuning").write_text("a file")
    assert tune.tune([classifier]).ways
    assert "the tuning is not kept" in caplog.text


@pytest.mark.slow
def test_real_ways_are_measured_and_opened_again(classifier, cc0):
    found = tune.tune([classifier])
    assert found.trials[0].way.backend == "onnxruntime"
    own = {trial.verdict for trial in found.trials if trial.way.backend == "onnxruntime"}
    assert own <= {"passes", "plainly slower"}
    with Screener.open(classifier.path) as tuned, Screener.open(classifier.path, backend="onnxruntime") as plain:
        assert tuned.models[0].backend == found.ways[classifier.sha256].backend
        ours, theirs = tuned(cc0), plain(cc0)
        assert {k: d.called for k, d in ours.decisions.items()} == {k: d.called for k, d in theirs.decisions.items()}


def test_the_command_prints_every_way_and_what_it_takes(monkeypatch, classifier, capsys):
    played(monkeypatch, strain="2.0 if asked['backend'] == 'openvino' else 0.5")
    monkeypatch.setattr(console.stderr, "width", 120)
    app(["tune", "--model", str(classifier.path)], standalone_mode=False)
    told = capsys.readouterr()
    rows = [" ".join(line.split()) for line in told.err.splitlines() if line.split()[:1] == ["channels"]]
    assert rows == [
        "channels onnxruntime fp32 57.1 140.0 50% taken",
        "channels openvino fp32 80.0 100.0 200% refused by the gate",
    ]
    assert "at a time" in told.err
    assert told.out == ""


def test_a_backend_that_is_named_is_taken_whatever_was_found(monkeypatch, classifier):
    pytest.importorskip("openvino")
    played(monkeypatch)
    tune.tune([classifier])
    with Screener.open(classifier.path, backend="onnxruntime") as screener:
        assert screener.models[0].backend == "onnxruntime"
    with Screener.open(classifier.path) as screener:
        assert screener.models[0].backend == "openvino"


@pytest.mark.parametrize(("batch", "threads"), [(8, 1), (1, 6)])
def test_a_batch_of_one_has_all_cores(monkeypatch, classifier, batch, threads):
    played(monkeypatch)
    found, asked = tune.tune([classifier]), []
    way = found.ways[classifier.sha256].model_copy(update={"backend": "onnxruntime", "threads": 1})
    machine = found.machine.model_copy(update={"cores": 6})
    halved = found.model_copy(update={"ways": {classifier.sha256: way}, "slots": 2, "machine": machine})
    real = runners.open_runner
    monkeypatch.setattr(runners, "open_runner", lambda *given, **how: asked.append(how) or real(*given, **how))
    with screener.tuned(ScreenerSettings(batch=batch), [classifier], halved):
        assert [own["threads"] for own in asked] == [threads]


def test_a_choice_that_does_not_open_any_more_is_told_and_left(monkeypatch, classifier, caplog):
    played(monkeypatch)
    found = tune.tune([classifier])
    gone = found.model_copy(
        update={"ways": {classifier.sha256: record.Way(sha256="b" * 64, backend="openvino", threads=1)}}
    )
    record.keep(gone)
    with Screener.open(classifier.path) as screener:
        assert screener.models[0].backend == "onnxruntime"
    assert "what tuning found best does not open here" in caplog.text


def test_where_nothing_passes_that_is_an_error(monkeypatch, classifier):
    played(monkeypatch, strain="2.0")
    with pytest.raises(ModelError, match="no way to run it passes here: onnxruntime refused by the gate"):
        tune.tune([classifier])
