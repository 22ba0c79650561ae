"""Where it listens, and who may ask."""

from __future__ import annotations

import pytest

from funduscope.engine.errors import SettingsError
from funduscope.service import ServiceSettings
from funduscope.service.settings import KEY, read_keys

SECRET = "0123456789abcdef"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"host": "0.0.0.0"}, "needs a key"),
        ({"host": "::"}, "needs a key"),
        ({"host": "eyes.example"}, "needs a key"),
        ({"keys": ("short",)}, "16 or more"),
        ({"keys": ("schlüssel mit umlaut",)}, "ASCII"),
        ({"port": 65536}, "65535"),
        ({"tls_cert": "absent.pem"}, "both"),
        ({"queue": 0}, "above 0"),
        ({"queue": 8}, "max_pictures 16"),
        ({"deadline_seconds": -1.0}, "above 0"),
    ],
)
def test_a_wrong_value_is_refused(values, told):
    with pytest.raises(SettingsError, match=told):
        ServiceSettings(**values)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_alone_needs_no_key(host):
    assert ServiceSettings(host=host).is_loopback


def test_a_key_opens_it_to_others_and_is_not_shown():
    settings = ServiceSettings(host="0.0.0.0", keys=(SECRET,))
    assert not settings.is_loopback
    assert SECRET not in repr(settings)


def test_a_tls_file_has_to_be_there(tmp_path):
    with pytest.raises(SettingsError, match="no such file"):
        ServiceSettings(tls_cert=tmp_path / "a", tls_key=tmp_path / "b")


def test_keys_come_from_the_environment_and_a_file(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    assert read_keys(None) == ()
    monkeypatch.setenv(KEY, SECRET)
    assert read_keys(None) == (SECRET,)
    path = tmp_path / "keys"
    path.write_text(f"# of the clinic\n{SECRET}\n\n  another key of them  \n")
    assert read_keys(path) == (SECRET, "another key of them")
    path.write_text("# none\n")
    with pytest.raises(SettingsError, match="has no key"):
        read_keys(path)
    with pytest.raises(SettingsError, match="cannot be read") as told:
        read_keys(tmp_path / "absent")
    assert SECRET not in str(told.value)


def test_the_command_refuses_to_listen_to_others_without_a_key(call, monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    ended = call("serve", "--host", "0.0.0.0")
    assert ended.returncode == 3
    assert "needs a key" in ended.stderr
    assert ended.stdout == ""
