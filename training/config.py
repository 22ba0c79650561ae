"""Reads a training configuration of any system: a TOML file whose `kind` says which."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from pydantic import ValidationError

from ..engine.errors import SettingsError
from .settings import BaseConfig
from .systems import SYSTEMS


def load(path: Path) -> BaseConfig:
    """Read and check a configuration. Raises SettingsError that names file and key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in SYSTEMS:
        found = f"is {kind!r}" if "kind" in document else "is missing"
        raise SettingsError(
            f"{path}: the configuration is not valid\n  file: 'kind' {found}; there are {', '.join(SYSTEMS)}"
        )
    config: type[BaseConfig] = SYSTEMS[kind].config
    try:
        return config.model_validate(document)
    except ValidationError as error:
        raise SettingsError(f"{path}: the configuration is not valid\n{faults(error)}") from None


def faults(error: ValidationError, above: str = "") -> str:
    """What is wrong, a line for each key. above: in front of each key, as `variants.large.`."""
    lines = (f"  {above}{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
    return "\n".join(lines)


def from_json(document: str) -> BaseConfig:
    """The configuration in a checkpoint. Raises whatever a foreign document leads to."""
    config: type[BaseConfig] = SYSTEMS[json.loads(document)["kind"]].config
    return config.model_validate_json(document)
