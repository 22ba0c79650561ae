"""What tuning found, kept and recalled."""

from __future__ import annotations

import logging

import pytest

from funduscope.engine.errors import OutputError
from funduscope.engine.tuning import record
from funduscope.engine.tuning.record import Record, Way

SHA = "a" * 64


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(record.FOLDER_VARIABLE, str(tmp_path / "tuning"))
    return tmp_path / "tuning"


def made(**changes):
    values = {
        "format": "funduscope-tuning/1",
        "machine": record.this_machine(),
        "ways": {SHA: Way(sha256=SHA, backend="onnxruntime", threads=2)},
        "slots": 1,
        "trials": [],
    }
    return Record(**values | changes)


def test_a_record_returns_as_it_was():
    kept = made()
    record.keep(kept)
    assert record.recall([SHA]) == kept


def test_there_is_none_at_first():
    assert record.recall([SHA]) is None


@pytest.mark.parametrize(
    "change",
    [{"processor": "another"}, {"cores": 99}, {"flags": []}, {"versions": {"onnxruntime": "0"}}],
    ids=lambda change: next(iter(change)),
)
def test_a_record_of_another_machine_is_not_used_and_that_is_said(change, caplog):
    other = made(machine=record.this_machine().model_copy(update=change))
    record.keep(other)
    with caplog.at_level(logging.INFO):
        assert record.recall([SHA]) is None
    assert caplog.messages == [f"tuning: {record.NOT_MEASURED}"]


def test_a_record_of_other_models_is_not_used():
    record.keep(made())
    assert record.recall([SHA, "b" * 64]) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format":"funduscope-tuning/2"}', "\0"])
def test_a_damaged_record_is_told_and_not_used(text, folder, caplog):
    path = record.keep(made())
    path.write_text(text)
    assert record.recall([SHA]) is None
    assert f"{path}: not a tuning record" in caplog.text
    assert "funduscope tune" in caplog.text


def test_a_folder_that_cannot_be_written_is_an_error(folder):
    folder.write_text("a file")
    with pytest.raises(OutputError, match="is a file, and a folder is needed"):
        record.keep(made())


def test_the_machine_tells_what_speed_depends_on():
    machine = record.this_machine()
    assert machine.cores >= 1
    assert machine.versions["onnxruntime"]
    assert machine.processor
