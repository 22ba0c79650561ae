"""A site's own operating points: fitted to its labelled pictures by `labelled.siting`, kept in a small file beside the models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from . import files
from .contract import ZEROS, Digest, Model, Strict
from .errors import SettingsError
from .readers.point import PointPart

_SHOWN = 12  # characters of a digest


class SiteDecision(Strict):
    """How one output of a model is read at the site.

    Attributes:
        temperature: What the model's own logit is divided by.
        sick: Pictures with the disease that this rests on.
        healthy: Those without it.
        points: By name; rates are of these very pictures.
    """

    temperature: Annotated[float, Field(gt=0)]
    sick: int
    healthy: int
    points: dict[str, PointPart]


class Site(Strict):
    """A site's own operating points.

    Attributes:
        format: Of the file.
        sha256: Of its content, with these 64 characters as zeros.
        name: Of the site.
        models: By the SHA-256 of an fp32 model file, and the output that is read.

    Example:
        ```python
        with funduscope.ScreenerSettings(site="site.json").open() as screener:
            print(screener("eye.jpg").models[0].site)
        ```
    """

    format: Literal["funduscope-site/1"]
    sha256: Digest
    name: Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[^\x00-\x1f]+$")]
    models: dict[Digest, dict[str, SiteDecision]]

    def __str__(self) -> str:
        return f"{self.name} {self.sha256[:_SHOWN]}"

    def of(self, model: Model) -> Mapping[str, SiteDecision]:
        """How a model is read here. Raises SettingsError where the site knows another one alone."""
        found = self.models.get(model.contract.converted_from or model.sha256)
        if found is None:
            raise SettingsError(
                f"site {self.name}: its operating points are of another model than {model.path}; "
                "make them anew with `funduscope calibrate --site`"
            )
        return found


def made(name: str, models: Mapping[str, Mapping[str, SiteDecision]]) -> Site:
    """A site. Raises SettingsError for a name that is none."""
    try:
        blank = Site(
            format="funduscope-site/1", sha256=ZEROS, name=name, models={key: dict(own) for key, own in models.items()}
        )
    except ValidationError:
        raise SettingsError(
            f"site {name!r}: a name has 1 to 60 characters, and none that controls a terminal"
        ) from None
    return blank.model_copy(update={"sha256": _digest(blank)})


def load(path: str | Path) -> Site:
    """Read a site's file. Raises SettingsError where it is none, or was changed."""
    try:
        site = Site.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"site {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        told = str(error).splitlines()[0]
        raise SettingsError(
            f"site {path}: not a file that `funduscope calibrate --site` wrote for this version ({told})"
        ) from None
    if _digest(site) != site.sha256:
        raise SettingsError(f"site {path}: damaged or changed by hand: its SHA-256 does not match; make it anew")
    return site


def save(site: Site, path: Path) -> None:
    """Write a site's file. Raises OutputError."""
    files.write_text(path, json.dumps(site.model_dump(), indent=1) + "\n")


def _digest(site: Site) -> str:
    content: dict[str, Any] = {**site.model_dump(), "sha256": ZEROS}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
