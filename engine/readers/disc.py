"""The second look at the disc, closer: disc, cup and what their ratio says of glaucoma, from a square around the disc alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import model_validator

from ...postprocess import anatomy, plausible
from ...postprocess.anatomy import Rules
from ..contract import Contract, Probability, Strict
from ..errors import Code
from ..findings import Decision, outline
from ..pictures import preprocess
from ..pictures.preprocess import Prepared, Spot
from . import measured
from .column import Column, Verdict
from .difference import Bounds, Difference
from .outputs import F, Outputs
from .point import OperatingPoint, PointPart
from .reader import Reader


class DiscRulesPart(Strict):
    """Post-processing: see `postprocess.anatomy.Rules`."""

    disc_threshold: Probability
    cup_threshold: Probability
    vcdr_coefficient: float
    vcdr_intercept: float

    def build(self) -> Rules:
        """The values as post-processing takes them; there is no map of the fovea."""
        return Rules(**self.model_dump(), fovea_mode="robust", fovea_min_peak=1.0)


class Disc(Contract):
    """What a model of the second look says beside what every model says."""

    kind: Literal["disc"]
    rules: DiscRulesPart
    glaucoma_threshold: Probability

    @model_validator(mode="after")
    def _looks_closer(self) -> Self:
        if self.geometry.diameters is None:
            raise ValueError("geometry.path must be around-disc-1: a disc model looks at a square around the disc")
        return self

    def at(self, points: Mapping[str, Mapping[str, PointPart]]) -> Self:
        """See Contract."""
        own = points.get("glaucoma")
        return self if own is None else self.model_copy(update={"glaucoma_threshold": own["balanced"].threshold})

    def needed(self) -> list[str]:
        """See Contract."""
        return ["disc", "cup"]


class DiscReader(Reader):
    """See `Reader`. Where it does not see a whole disc with a cup, what the first look found stands."""

    contract: ClassVar[type[Contract]] = Disc
    verdicts: ClassVar[tuple[Verdict, ...]] = ()  # it has the last word on the first look's
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "second_look",
            "whether disc, cup, vCDR and `glaucoma_vcdr` are of the closer look at the disc; false: it saw no whole disc and "
            "cup, and what the first look found stands",
            lambda found: found.second_look,
            kind="bool",
        ),
    )
    after: ClassVar[str | None] = "multi-task"
    point: str | None = None

    def __init__(self, document: Disc, point: str | None) -> None:  # noqa: ARG002 -- it has one threshold
        self._geometry, self._rules = document.geometry.build(), document.rules.build()
        self._threshold = document.glaucoma_threshold

    def prepare(self, seen: Spot) -> Prepared:
        """See Reader."""
        return preprocess.around(seen, self._geometry)

    def read(self, found: F, outputs: Outputs, prepared: Prepared) -> F:
        """See Reader."""
        first, network = found.anatomy, found.scores.get("glaucoma_network")
        if first is None or network is None:
            return found
        seen = anatomy.measure({**outputs, "glaucoma": np.asarray(network, np.float32)}, self._rules)
        if seen.region is None or seen.vcdr is None or not plausible.is_disc(seen, prepared.field):
            return replace(found, second_look=False)
        placement = prepared.placement
        back = placement.matrix() @ np.vstack([seen.region.to_map(), [0, 0, 1]])
        fovea = placement.to_square(*found.fovea) if found.fovea else None
        called = None if seen.glaucoma is None else seen.glaucoma >= self._threshold
        return replace(
            found,
            warnings=tuple(code for code in found.warnings if code != Code.CUP_NOT_FOUND),
            vcdr=seen.vcdr,
            disc=outline(seen.region.disc, seen.disc_px, back),
            cup=outline(seen.region.cup, seen.cup_px, back),
            decisions={**found.decisions, "glaucoma": Decision("glaucoma", seen.glaucoma, self._threshold, called)},
            scores={**found.scores, "glaucoma_vcdr": seen.glaucoma_vcdr},
            anatomy=replace(seen, fovea=fovea),
            placement=placement,
            second_look=True,
        )

    def describe(self) -> dict[str, str]:
        """See Reader."""
        return measured.described(self._rules, self._threshold, without="fovea")

    def points(self) -> Mapping[str, Sequence[OperatingPoint]]:
        """See Reader."""
        return {"glaucoma": [OperatingPoint(self._threshold)]}

    def differences(self, pairs: Sequence[tuple[Outputs, Outputs]], bounds: Bounds) -> list[Difference]:
        """See Reader; what is decided is what the vCDR alone would."""
        alone = {"glaucoma": np.asarray(self._threshold, np.float32)}  # the network's score, which the first look has
        whole = [({**a, **alone}, {**b, **alone}) for a, b in pairs]
        return measured.differences(whole, bounds, self._rules, self._threshold)
