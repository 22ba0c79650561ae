import logging
import re
import sys
import tomllib
from types import ModuleType

import pytest
from fake_tensorrt import Severity  # which conftest.py loads

from funduscope.engine import runners
from funduscope.engine.errors import MissingExtra
from funduscope.engine.runners.tensorrt.libraries import LIBRARIES, listening, logger
from funduscope.engine.runners.tensorrt.runner import RUNNERS


@pytest.fixture(params=LIBRARIES)
def library(request):
    return LIBRARIES[request.param]


def test_each_library_is_a_backend_with_a_runner_and_an_extra_that_brings_it(library, root):
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    brought = [re.match(r"[\w-]+", line)[0] for line in extras[library.name]]
    assert library.distributions[0] in brought
    assert library.name in runners.BACKENDS
    assert RUNNERS[library.name].library is library


def test_one_that_is_absent_is_told_with_the_pip_line(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library.module, None)
    with pytest.raises(MissingExtra, match=rf"needs {library.module}, .*'funduscope\[{library.name}\]'"):
        library.load()


def test_one_that_is_there_is_loaded(library, monkeypatch):
    made = ModuleType(library.module)
    monkeypatch.setitem(sys.modules, library.module, made)
    assert library.load() is made


@pytest.fixture
def speaking():
    """A module with TensorRT's interface of a logger."""
    made = ModuleType("speaking")
    made.ILogger = type("ILogger", (), {"Severity": Severity})
    return made


def test_a_library_has_one_logger_that_hears_its_errors_and_passes_warnings_on(speaking, caplog):
    with caplog.at_level(logging.INFO, logger="funduscope"), listening(speaking) as log:
        assert log is logger(speaking)
        assert log.told() == "it does not say why"
        log.log(Severity.ERROR, "one")
        log.log(Severity.WARNING, "two")
        log.log(Severity.INTERNAL_ERROR, "three")
        assert log.heard == ["one", "three"]
        assert log.told() == "one; three"
    assert caplog.messages == ["speaking: two"]
    with listening(speaking) as again:
        assert again is log
        assert again.heard == []
