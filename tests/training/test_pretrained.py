import importlib

import pytest

from funduscope.engine.errors import SettingsError
from funduscope.training import pretrained


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Makes a package with the given files look installed."""

    def make(name, *files):
        folder = tmp_path / "site" / (name.replace("-", "_") + "-1.0.dist-info")
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "RECORD").write_text("".join(f"{file},,\n" for file in files))
        for file in files:
            (tmp_path / "site" / file).parent.mkdir(exist_ok=True)
            (tmp_path / "site" / file).touch()
        monkeypatch.syspath_prepend(tmp_path / "site")
        importlib.invalidate_caches()

    return make


def test_a_file_is_relative_to_the_configuration(tmp_path):
    (tmp_path / "own.pth").touch()
    assert pretrained.locate("own.pth", tmp_path) == tmp_path / "own.pth"
    with pytest.raises(SettingsError, match="no such file"):
        pretrained.locate("none.pth", tmp_path)


def test_the_weights_of_a_package_are_found_without_running_it(install, tmp_path):
    install("some-weights", "some/__init__.py", "some/net.pth")
    (tmp_path / "site" / "some" / "__init__.py").write_text("raise RuntimeError")
    assert pretrained.locate("package:some-weights", tmp_path) == tmp_path / "site" / "some" / "net.pth"


def test_a_package_that_is_not_there_is_told_with_how_to_get_it(tmp_path):
    with pytest.raises(SettingsError, match=r"surely-not-installed is not installed; pip install '\.\[pretrained\]'"):
        pretrained.locate("package:surely-not-installed", tmp_path)


def test_a_package_of_no_or_several_weights_is_refused(install, tmp_path):
    install("no-weights", "none/__init__.py")
    install("two-weights", "two/a.pth", "two/b.pth")
    for name, count in (("no-weights", 0), ("two-weights", 2)):
        with pytest.raises(SettingsError, match=rf"{name} holds {count} \.pth files"):
            pretrained.locate(f"package:{name}", tmp_path)
