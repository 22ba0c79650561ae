"""Pictures in archives: the bytes that were put in, or a code that says why not; nothing is ever unpacked."""

from __future__ import annotations

import io
import os
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from funduscope.engine.errors import Code, PhotoError, SettingsError
from funduscope.engine.pictures import inputs, photo, shards

DATA = {"a/1.jpg": os.urandom(5000), "a/é 2.jpg": b"second" * 1000, "empty.jpg": b""}


def tar(path: Path, files=DATA) -> str:
    with tarfile.open(path, "w") as shard:
        for name, data in files.items():
            own = tarfile.TarInfo(name)
            own.size = len(data)
            shard.addfile(own, io.BytesIO(data))
    return str(path)


def packed(path: Path, files=DATA, method: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(path, "w", method) as shard:
        for name, data in files.items():
            shard.writestr(name, data)
    return str(path)


MAKE = {"tar": lambda folder: tar(folder / "s.tar"), "zip": lambda folder: packed(folder / "S.ZIP")}


def refusal(path: str) -> Code:
    with pytest.raises(PhotoError) as refused:
        photo.read_bytes(path)
    return refused.value.code


@pytest.mark.parametrize("kind", MAKE)
def test_members_have_the_bytes_that_were_put_in(tmp_path, kind):
    shard = MAKE[kind](tmp_path)
    assert list(shards.members(shard)) == [f"{shard}!/{name}" for name in DATA]
    assert [photo.read_bytes(path) for path in shards.members(shard)] == list(DATA.values())
    assert refusal(f"{shard}!/absent.jpg") == Code.NOT_FOUND
    assert refusal(f"{tmp_path}/absent.zip!/a.jpg") == Code.UNREADABLE


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("name", ["../1.jpg", "/etc/1.jpg", "a/../../1.jpg"])
def test_R22_a_name_that_leads_out_of_the_archive_is_refused(tmp_path, kind, name):
    shard = tar(tmp_path / "s.tar", {name: b"x"}) if kind == "tar" else packed(tmp_path / "s.zip", {name: b"x"})
    (path,) = [own.path for own in inputs.expand([shard])]
    assert refusal(path) == Code.NOT_A_FILE
    assert [own.name for own in tmp_path.iterdir()] == [Path(shard).name]


def test_links_and_devices_are_no_members(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            own = tarfile.TarInfo(f"{kind.decode()}.jpg")
            own.type, own.linkname = kind, "/etc/passwd"
            shard.addfile(own)
    assert list(shards.members(str(tmp_path / "s.tar"))) == []


def test_a_tar_that_is_cut_gives_what_comes_before_and_a_row_that_says_so(tmp_path):
    path = Path(tar(tmp_path / "s.tar", {"1.jpg": b"x" * 5000, "2.jpg": b"y" * 5000}))
    path.write_bytes(path.read_bytes()[:8000])
    found = [own.path for own in inputs.expand([str(path)])]
    assert found == [f"{path}!/1.jpg", f"{path}!/2.jpg", str(path)]
    assert photo.read_bytes(found[0]) == b"x" * 5000
    assert [refusal(own) for own in found[1:]] == [Code.DAMAGED, Code.DAMAGED]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_of_a_zip_is_one_row(tmp_path, method):
    path = Path(packed(tmp_path / "s.zip", {"1.jpg": os.urandom(5000), "2.jpg": b"good"}, method))
    data = bytearray(path.read_bytes())
    for k in range(1000, 1100):
        data[k] ^= 0x55
    path.write_bytes(data)
    assert refusal(f"{path}!/1.jpg") == Code.DAMAGED
    assert photo.read_bytes(f"{path}!/2.jpg") == b"good"


def test_R11_a_bomb_is_refused_from_the_index(tmp_path, monkeypatch):
    monkeypatch.setattr(photo, "MAX_BYTES", 10_000)
    path = packed(tmp_path / "s.zip", {"1.jpg": bytes(50_000_000)})
    start = time.perf_counter()
    assert refusal(f"{path}!/1.jpg") == Code.TOO_LARGE
    assert time.perf_counter() - start < 1  # it would be far longer if it were unpacked many times over
    lying = bytearray(Path(path).read_bytes())
    at = lying.rindex(b"PK\x01\x02") + 24
    lying[at : at + 4] = (100).to_bytes(4, "little")  # the size that the index states
    Path(path).write_bytes(lying)
    os.utime(path, (1, 1))
    assert refusal(f"{path}!/1.jpg") == Code.DAMAGED


def test_an_archive_that_has_changed_is_read_anew(tmp_path):
    path = packed(tmp_path / "s.zip", {"1.jpg": b"one"})
    assert photo.read_bytes(f"{path}!/1.jpg") == b"one"
    packed(tmp_path / "s.zip", {"1.jpg": b"another"})
    assert photo.read_bytes(f"{path}!/1.jpg") == b"another"


def test_what_is_no_archive_is_refused(tmp_path):
    for name in ("s.tar", "s.zip"):
        (tmp_path / name).write_bytes(b"x" * 3000)
        with pytest.raises(SettingsError, match=rf"{name}: the archive cannot be read"):
            list(shards.members(str(tmp_path / name)))


def test_a_picture_in_an_archive_is_screened_as_the_file(fake, tmp_path, cc0):
    path = tar(tmp_path / "s.tar", {"eye.jpg": cc0.read_bytes()})
    with fake() as opened:
        found, expected = opened(f"{path}!/eye.jpg"), opened(cc0)
    assert (found.name, found.sha256, found.vcdr) == (f"{path}!/eye.jpg", expected.sha256, expected.vcdr)
