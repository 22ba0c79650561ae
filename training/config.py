"""Reads a training configuration of either system: a TOML file whose `kind` says which."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from ..engine.errors import SettingsError
from .classifier.config import Config as ClassifierConfig
from .multitask.config import Config as MultiTaskConfig

Config = MultiTaskConfig | ClassifierConfig
_ANY: TypeAdapter[Config] = TypeAdapter(Annotated[Config, Field(discriminator="kind")])


def load(path: Path) -> Config:
    """Read and check a configuration. Raises SettingsError that names file and key."""
    try:
        return _ANY.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None
    except ValidationError as error:
        lines = [f"  {key(e['loc'])}: {e['msg']}" for e in error.errors()]
        raise SettingsError(f"{path}: the configuration is not valid\n" + "\n".join(lines)) from None


def key(location: tuple[int | str, ...]) -> str:
    """Where in the file: pydantic puts the kind in front."""
    inner = location[1:] if location[:1] in (("multi-task",), ("classifier",)) else location
    return ".".join(map(str, inner)) or "file"


def from_json(document: str) -> Config:
    """The configuration in a checkpoint. Raises pydantic's ValidationError."""
    return _ANY.validate_json(document)
