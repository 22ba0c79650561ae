"""Results come back from the store as they were, and nothing else does."""

from __future__ import annotations

import dataclasses
import json
import zlib

import numpy as np
import pytest

from funduscope.engine.errors import Code
from funduscope.engine.eyes import Eyes
from funduscope.engine.outputs.packing import packed, unpacked
from funduscope.engine.results import Rejected


def same(a, b) -> bool:
    """Equal to the last bit, in type too."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("kept", [False, True])
def test_a_screening_comes_back(both, fundus, opinions, kept):
    heat = np.linspace(-1, 1, 144, dtype=np.float32).reshape(12, 12)
    with both(classify=lambda image: opinions(0.3, 0.7) | {"glaucoma_map": heat}) as opened:
        result = opened(fundus(), "\udcff.jpg", keep_photo=kept)
    found = unpacked(packed(result), result.models)
    assert same(found, dataclasses.replace(result, photo=None))
    assert found.to_json() == result.to_json()
    assert np.array_equal(found.mask("disc"), result.mask("disc"))
    assert found.decisions["glaucoma_second"].heat is not None


def test_a_rejected_picture_comes_back():
    result = Rejected("a", None, Code.DAMAGED, "cut", (), Eyes("p", "left", "list"), (Code.LATERALITY_CONFLICT,))
    assert same(unpacked(packed(result), ()), result)


@pytest.mark.parametrize("data", [b"", b"x", zlib.compress(b"{"), zlib.compress(json.dumps({"of": "Path"}).encode())])
def test_anything_else_is_refused(data):
    with pytest.raises((ValueError, KeyError, TypeError, zlib.error)):
        unpacked(data, ())
