"""The public face: what it is, that it is described, and that nothing else comes out of it."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import funduscope
from funduscope.engine import contract, errors
from funduscope.engine.pictures import photo

PUBLIC = {
    *("Screener", "Screening", "Rejected", "Result", "Outline", "ModelName", "Photo", "Contract", "Code"),
    *("FunduscopeError", "PhotoError", "ModelError", "SettingsError", "DataError", "BackendError", "MissingExtra"),
    *("Classification", "Opinion", "HeatMap", "Eyes", "Listed", "OutputError", "Patient", "Patients", "__version__"),
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
        photo.read(source)
    assert caught.value.reason


@pytest.mark.parametrize("name", [*PATHS, "unknown", "multitask.onnx"], ids=lambda name: ascii(name)[:40])
def test_reading_a_model_raises_model_errors_only(name):
    with pytest.raises(funduscope.ModelError):
        contract.read(name)


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
        contract.parse(document, "label")


def test_a_rejected_photo_is_a_result_and_no_exception():
    with funduscope.Screener.open("multitask", threads=1) as screener:
        for source in BYTES + PATHS[2:4]:
            assert isinstance(screener(source), funduscope.Rejected)
        assert isinstance(screener(np.zeros((200, 200, 3), np.uint8)), funduscope.Rejected)
