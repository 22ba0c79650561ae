"""The public face: what it is, that it is described, and that nothing else comes out of it."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funduscope
from funduscope.engine import contract, errors, models
from funduscope.engine.pictures import decode, photo
from funduscope.engine.runners.tensorrt.engines import Engine, Facts, Profile, Unverified

PUBLIC = {
    *(
        "Screener",
        "ScreenerSettings",
        "Screening",
        "Rejected",
        "Result",
        "Run",
        "Watch",
        "columns",
        "Contract",
        "ModelName",
    ),
    *("Findings", "Decision", "HeatMap", "Outline", "Eyes", "Listed", "Photo", "Patient", "Patients"),
    *("FunduscopeError", "PhotoError", "ModelError", "SettingsError", "DataError", "BackendError", "MissingExtra"),
    *("OutputError", "Code", "__version__"),
}
CLASSES = [value for value in vars(funduscope).values() if inspect.isclass(value)]
CLASSES.append(contract.Model)


def test_all_is_the_public_surface():
    assert set(funduscope.__all__) == PUBLIC
    assert list(funduscope.__all__) == sorted(funduscope.__all__)
    named = {
        name for name, value in vars(funduscope).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert named | {"__version__"} == PUBLIC


def test_every_name_is_there():
    for name in funduscope.__all__:
        assert getattr(funduscope, name) is not None


@pytest.mark.parametrize("owner", CLASSES, ids=lambda owner: owner.__name__)
def test_every_class_and_method_is_described(owner):
    assert inspect.getdoc(owner)
    for name, member in vars(owner).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        described = function.fget if isinstance(function, property) else function
        own = inspect.isfunction(described) and described.__module__.startswith("funduscope")
        if own and not name.startswith("_") and "<locals>" not in described.__qualname__:
            assert inspect.getdoc(described), f"{owner.__name__}.{name}"


def test_every_error_is_ours_and_in_the_tree():
    own = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    for error in own:
        assert issubclass(error, funduscope.FunduscopeError)
        assert error.__name__ in errors.__doc__
    assert issubclass(funduscope.DataError, funduscope.SettingsError)
    assert issubclass(funduscope.MissingExtra, funduscope.BackendError)


def test_a_code_is_its_own_name():
    for code in funduscope.Code:
        assert code == code.name == str(code)


BYTES = [
    b"",
    b"x",
    b"\xff\xd8",
    b"\xff\xd8\xff\xe0" + bytes(100),
    b"\x89PNG\r\n\x1a\n",
    b"\x89PNG\r\n\x1a\n" + bytes(100),
    b"II*\0",
    b"II*\0\x08\0\0\0",
    b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 100,
    b"MM\0*" + bytes(100),
    b"BM",
    b"BM" + b"\xff" * 100,
    b"\0" * 1000,
]
PATHS = ["", ".", "absent.jpg", "null\0.jpg", "a" * 5000, "/dev/null", "\udcff.jpg", "\ud800.jpg", "absent/../x.jpg"]


@pytest.mark.parametrize("source", BYTES + PATHS, ids=lambda source: ascii(source)[:40])
def test_reading_a_photo_raises_photo_errors_only(source):
    with pytest.raises(funduscope.PhotoError) as caught:
        photo.load(source)
    assert caught.value.reason


@pytest.mark.parametrize("name", [*PATHS, "unknown", "multitask.onnx"], ids=lambda name: ascii(name)[:40])
def test_reading_a_model_raises_model_errors_only(name):
    with pytest.raises(funduscope.ModelError):
        models.load(name)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"format":1}',
        b"\xff\xfe",
        b'{"format":"funduscope/1"',
        b'{"format":' + b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"glaucoma_threshold":1e999}',
    ],
    ids=lambda document: ascii(document)[:30],
)
def test_parsing_a_contract_raises_model_errors_only(document):
    with pytest.raises(funduscope.ModelError, match="label"):
        models.parse(document, "label")


def test_a_rejected_photo_is_a_result_and_no_exception():
    with funduscope.Screener.open("multitask", threads=1) as screener:
        for source in BYTES + PATHS[2:4]:
            assert isinstance(screener(source), funduscope.Rejected)
        assert isinstance(screener(np.zeros((200, 200, 3), np.uint8)), funduscope.Rejected)


# everything public travels to another process and back

LIVE = {"Screener", "Run"}  # these hold threads and models


def travelled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two values differ: attributes, arrays and all."""
    if type(one) is not type(other):
        return [f"{path}: {type(one)} and {type(other)}"]
    if isinstance(one, np.ndarray):
        same = one.dtype == other.dtype and np.array_equal(one, other)
        return [] if same else [path]
    if isinstance(one, Mapping):
        if list(one) != list(other):
            return [f"{path}: {list(one)} and {list(other)}"]
        return [own for key in one for own in differences(one[key], other[key], f"{path}[{key}]")]
    if isinstance(one, tuple | list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [own for k, pair in pairs for own in differences(*pair, f"{path}[{k}]")]
    if isinstance(one, funduscope.Patients | funduscope.Photo | decode.Decoded | decode.Jpeg):
        return differences(vars(one), vars(other), path)
    if dataclasses.is_dataclass(one) or isinstance(one, Exception):
        told = [] if str(one) == str(other) else [f"{path}: {one} and {other}"]
        more = differences(one.args, other.args, f"{path}.args") if isinstance(one, Exception) else []
        return told + more + differences(vars(one), vars(other), path)
    return [] if one == other else [f"{path}: {one} and {other}"]


def photo_error() -> errors.PhotoError:
    error = errors.PhotoError(errors.Code.DAMAGED, "cut")
    error.name, error.sha256, error.patient, error.eye = "eye.dcm", "0" * 64, "p1", "left"
    error.listed = funduscope.Listed("eye.dcm", "p1", "left")
    return error


@pytest.fixture(scope="module")
def values(cc0) -> dict[str, Any]:
    """One of each public name, and of what hangs on these."""
    listed = funduscope.Listed(str(cc0), "p1", "right")
    with funduscope.Screener.open(threads=1) as screener:
        found, bare = screener(listed, keep_photo=True), screener(listed)
        rejected = screener(funduscope.Listed("absent.jpg", "p1", "left"))
        contracts = screener.contracts
    assert {name for name, own in found.decisions.items() if own.heat is not None} >= {"referable_dr"}
    patients = funduscope.Patients(Path("out"))
    for result in (bare, rejected):
        patients.write(result)
    facts = Facts(
        format="funduscope-engine/1",
        library="tensorrt",
        library_version="10",
        compute_capability="sm_89",
        os="linux",
        model="m",
        model_sha256="0" * 64,
        precision="fp16",
        profile=Profile(min=1, opt=8, max=32),
        workspace_mb=1,
        optimisation_level=3,
        engine_sha256="0" * 64,
        verified=False,
    )
    known = {
        "Contract": contracts[0],
        "Decision": found.decisions["referable_dr"],
        "Eyes": found.eyes,
        "Findings": funduscope.Findings(width=3, height=2, warnings=(errors.Code.CUP_NOT_FOUND,)),
        "HeatMap": found.decisions["referable_dr"].heat,
        "Listed": listed,
        "ModelName": found.models[0],
        "Outline": found.disc,
        "Patient": patients.patients["p1"],
        "Patients": patients,
        "Photo": found.photo,
        "PhotoError": photo_error(),
        "Rejected": rejected,
        "ScreenerSettings": funduscope.ScreenerSettings(("multitask",), batch=3, point=None, device=1),
        "Screening": found,
        "a screening without its photo": bare,
        "a classifier's contract": contracts[1],
        "a model": models.load("multitask"),
        "a photo of a list": photo.load(listed),
        "an engine that was not verified": Unverified(Path("x.onnx"), Engine(Path("x.engine"), facts)),
    }
    for name in set(funduscope.__all__) - known.keys() - LIVE:
        own = getattr(funduscope, name)
        is_error = inspect.isclass(own) and issubclass(own, funduscope.FunduscopeError)
        known[name] = own("what is wrong", "what to do") if is_error else own
    return known


def test_all_that_is_public_travels_and_comes_back_the_same(values):
    assert set(funduscope.__all__) - LIVE <= values.keys()
    assert {name: told for name, value in values.items() if (told := differences(value, travelled(value)))} == {}


def test_what_has_travelled_works_the_same(values, tmp_path):
    found, back = values["Screening"], travelled(values["Screening"])
    assert back == found
    assert back.to_json() == found.to_json()
    assert str(back) == str(found)
    np.testing.assert_array_equal(back.mask("disc"), found.mask("disc"))
    for k, own in enumerate((found, back)):
        own.draw(tmp_path / f"{k}.png")
        own.draw(tmp_path / f"{k}.heat.png", heat="referable_dr")
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()
    assert (tmp_path / "0.heat.png").read_bytes() == (tmp_path / "1.heat.png").read_bytes()
    assert travelled(values["Patient"]).to_dict() == values["Patient"].to_dict()
    with pytest.raises(funduscope.PhotoError, match="DAMAGED: cut"):
        raise travelled(values["PhotoError"])


@pytest.mark.parametrize("name", ["PhotoError", "Photo", "Screening", "HeatMap", "Patient", "Contract"])
def test_a_value_that_comes_back_changed_is_seen(values, name):  # the tests above can fail
    value = travelled(values[name])
    if name == "PhotoError":
        value.listed = None
    elif name == "Photo":
        value.pixels[3, 3, 0] ^= 1
    elif name == "HeatMap":
        value.cells[0, 0] += 0.5
    elif name == "Screening":
        value.anatomy.region.disc[0, 0] ^= True
    elif name == "Patient":
        value.seen.add("other")
    else:
        value = value.model_copy(update={"name": "other"})
    assert differences(values[name], value)


def test_settings_open_the_same_screener_in_another_process(cc0):
    settings = funduscope.ScreenerSettings(("classifier",), "onnxruntime", threads=1, point="high_sensitivity")
    script = """
import pickle, sys
settings, path = pickle.load(sys.stdin.buffer)
with settings.open() as screener:
    sys.stdout.buffer.write(pickle.dumps((screener.settings, screener(path))))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps((settings, cc0)), capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    with settings.open() as screener:
        assert differences(pickle.loads(done.stdout), (settings, screener(cc0))) == []
