import platform
import sys

import pytest

from funduscope.training import memory


def test_glibc_keeps_what_is_freed():
    assert memory.keep_freed() == (platform.libc_ver()[0] == "glibc")


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_elsewhere_nothing_is_asked(system, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("asked"))
    assert not memory.keep_freed()
