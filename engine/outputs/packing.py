"""Results as bytes and back, exactly: JSON with arrays in it, compressed. Unlike a pickle, what is read runs no code."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

import numpy as np

from ...postprocess.anatomy import Anatomy
from ...postprocess.masks import DiscRegion
from ..errors import Code
from ..eyes import Eyes
from ..findings import Decision, HeatMap, Outline
from ..pictures.preprocess import Placement
from ..results import ModelName, Rejected, Result, Screening

_OF = "of"  # the key under which an object says what it is
_KINDS: dict[str, type[Any]] = {
    own.__name__: own for own in (Screening, Rejected, Eyes, Outline, Decision, HeatMap, Anatomy, DiscRegion, Placement)
}
_LEFT_OUT = frozenset({"photo", "models"})  # pixels; and names that all results of a run share


def packed(result: Result) -> bytes:
    """A result without its photo and the names of its models."""
    return zlib.compress(json.dumps(_plain(result), separators=(",", ":")).encode(), 1)


def unpacked(data: bytes, models: Sequence[ModelName]) -> Result:
    """What `packed` has made. Args: models: of the run. Raises ValueError, KeyError, TypeError, zlib.error for anything else."""
    return replace(cast(Result, _value(json.loads(zlib.decompress(data)))), models=tuple(models))


def as_bytes(name: str) -> bytes:
    """Any name, whether it is UTF-8 or not."""
    return name.encode("utf-8", "surrogatepass")


def as_text(data: bytes) -> str:
    """What `as_bytes` has made."""
    return data.decode("utf-8", "surrogatepass")


def _plain(value: Any) -> Any:
    if isinstance(value, Code):
        return {_OF: "Code", "value": str(value)}
    if isinstance(value, np.ndarray):
        own = np.packbits(value) if value.dtype == bool else value
        data = base64.b64encode(np.ascontiguousarray(own).tobytes()).decode()
        return {_OF: "array", "dtype": value.dtype.str, "shape": value.shape, "data": data}
    if is_dataclass(value):
        kept = (own.name for own in fields(value) if own.name not in _LEFT_OUT)
        return {_OF: type(value).__name__} | {name: _plain(getattr(value, name)) for name in kept}
    if isinstance(value, Mapping):
        return {name: _plain(own) for name, own in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(own) for own in value]
    return value


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return tuple(map(_value, plain))
    if not isinstance(plain, dict):
        return plain
    kind = plain.pop(_OF, None)
    if kind == "Code":
        return Code(plain["value"])
    if kind == "array":
        dtype, shape, data = np.dtype(plain["dtype"]), tuple(plain["shape"]), base64.b64decode(plain["data"])
        if dtype.kind == "b":
            return np.unpackbits(np.frombuffer(data, np.uint8), count=int(np.prod(shape))).astype(bool).reshape(shape)
        return np.frombuffer(data, dtype).reshape(shape).copy()
    values = {name: _value(own) for name, own in plain.items()}
    return values if kind is None else _KINDS[kind](**values)
