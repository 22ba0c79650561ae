"""Model files: where they are, and the contract in each, read only after its digest was checked against the whole file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .contract import FORMAT, ZEROS, Contract, Model
from .errors import ModelError, SettingsError
from .readers import READERS

_OPENING = f'{{"format":"{FORMAT}","sha256":"'.encode()
_ANY_OPENING = b'{"format":"funduscope/'


def embedded() -> dict[str, Path]:
    """The models that come with the package, by name."""
    return {path.stem: path for path in sorted(_folder().glob("*.onnx"))}


def _folder() -> Path:
    return Path(str(resources.files("funduscope"))) / "models"


def locate(model: str | Path) -> Path:
    """The file of a model: an embedded name, or a path. Raises ModelError with the names there are."""
    names = embedded()
    if str(model) in names:
        return names[str(model)]
    path = Path(model)
    if not os.path.isfile(path):  # noqa: PTH113 -- pathlib's raises on an overlong name
        raise ModelError(
            f"{model}: no such model file, nor an embedded model. Embedded are: {', '.join(names)}; default is all of them"
        )
    return path


def chosen(names: Sequence[str]) -> list[str]:
    """The models that are meant: those named, or all that are embedded where none is, or `default` alone.

    Raises: SettingsError for `default` beside others; ModelError where none are embedded.
    """
    if not names or tuple(names) == ("default",):
        if not (found := list(embedded())):
            raise ModelError("no models are embedded in this installation; install it again, or name model files")
        return found
    if "default" in names:
        raise SettingsError("default means all embedded models; name it alone, or name each model")
    return list(names)


def variants(model: Model) -> list[Model]:
    """Conversions of an fp32 model: those that are embedded, and those beside its file. Files that are not whole are left out."""
    found: dict[str, Model] = {}
    for path in (*sorted(_folder().glob("*/*.onnx")), *sorted(model.path.parent.glob("*.onnx"))):
        try:
            other = load(path)
        except ModelError:
            continue
        if other.contract.converted_from == model.sha256:
            found.setdefault(other.sha256, other)
    return list(found.values())


def load(model: str | Path) -> Model:
    """Load and verify a model file. Raises ModelError where it is damaged, foreign or of another format."""
    path = locate(model)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None
    return Model(path, data, verified(data, str(path)))


def verified(data: bytes, label: str) -> Contract:
    """The contract inside a model file's bytes, after its digest was checked against them."""
    at = data.find(_OPENING)
    if at < 0:
        what = "its contract has another format; this Funduscope reads " + FORMAT
        missing = "no Funduscope contract in it; export models with `funduscope export`"
        raise ModelError(f"{label}: {what if _ANY_OPENING in data else missing}")
    if data.find(_OPENING, at + 1) >= 0:
        raise ModelError(f"{label}: two contracts in one file; export it again")
    digest_at = at + len(_OPENING)
    stated = data[digest_at : digest_at + 64].decode("ascii", "replace")
    digest = hashlib.sha256(data[:digest_at])
    digest.update(ZEROS.encode())
    digest.update(data[digest_at + 64 :])
    if digest.hexdigest() != stated:
        raise ModelError(f"{label}: damaged: its SHA-256 does not match its contract; copy or export it again")
    return parse(data[at:], label)


def parse(document: bytes, label: str) -> Contract:
    """The contract at the start of `document`; what follows it is ignored. Raises ModelError that names file and key."""
    try:
        value: Any = json.JSONDecoder().raw_decode(document[: 1 << 20].decode("utf-8", "replace"))[0]
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{label}: the contract is not JSON ({error})") from None
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in READERS:
        raise ModelError(
            f"{label}: the contract is not valid\n  kind: {kind!r}; this Funduscope reads {', '.join(READERS)}"
        )
    try:
        return READERS[kind].contract.model_validate(value)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'contract'}: {e['msg']}" for e in error.errors()]
        raise ModelError(f"{label}: the contract is not valid\n" + "\n".join(lines)) from None
