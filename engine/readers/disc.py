"""The second look at the disc, closer: disc, cup and glaucoma, from a square around the disc alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import model_validator

from ...postprocess import anatomy, measures, plausible, scores
from ...postprocess.anatomy import Rules
from ..contract import Contract, Probability, Strict
from ..errors import Code
from ..findings import Decision, outline
from ..pictures import preprocess
from ..pictures.preprocess import Prepared, Spot
from . import measured
from .column import Column, Verdict
from .difference import Bounds, Difference
from .outputs import F, Looked, Outputs
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
    """What a model of the second look says beside what every model says.

    Attributes:
        first_share: Of the first look's maps in the mean of both.
    """

    kind: Literal["disc"]
    first_share: Probability
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
        return ["disc", "cup", "glaucoma"]


class DiscReader(Reader):
    """See `Reader`. Disc and cup are of the mean of both looks' maps, the vCDR is the mean of both looks', the network's
    score is this one's. Where there is no whole disc with a cup, what the first look found stands."""

    contract: ClassVar[type[Contract]] = Disc
    verdicts: ClassVar[tuple[Verdict, ...]] = ()  # it has the last word on the first look's
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "vcdr_first",
            "the first look's vCDR, where `second_look` is true and it saw a cup: `vcdr` then is the mean of this and of cup "
            "over disc",
            lambda found: found.scores.get("vcdr_first"),
            digits=6,
        ),
        Column(
            "second_look",
            "whether disc, cup and vCDR are of the closer look at the disc too; false: it saw no whole disc and cup, and what "
            "the first look found stands",
            lambda found: found.second_look,
            kind="bool",
        ),
    )
    after: ClassVar[str | None] = "multi-task"
    point: str | None = None

    def __init__(self, document: Disc, point: str | None) -> None:  # noqa: ARG002 -- it has one threshold
        self._geometry, self._rules = document.geometry.build(), document.rules.build()
        self._threshold, self._first_share = document.glaucoma_threshold, document.first_share

    def prepare(self, seen: Spot) -> Prepared:
        """See Reader."""
        return preprocess.around(seen, self._geometry)

    def merged(self, looked: Looked, before: Looked) -> Outputs:
        """See Reader."""
        return mean_of_both(looked, before, self._first_share)

    def read(self, found: F, outputs: Outputs, prepared: Prepared) -> F:
        """See Reader."""
        if found.anatomy is None:
            return found
        seen = anatomy.measure(outputs, self._rules)
        if seen.region is None or seen.vcdr is None or not plausible.is_disc(seen, prepared.field):
            return replace(found, second_look=False)
        placement = prepared.placement
        back = placement.matrix() @ np.vstack([seen.region.to_map(), [0, 0, 1]])
        fovea = placement.to_square(*found.fovea) if found.fovea else None
        vcdr = measures.of_two_looks(found.vcdr, seen.vcdr) or 0.0
        from_vcdr = scores.logistic(vcdr, self._rules.vcdr_coefficient, self._rules.vcdr_intercept)
        glaucoma = scores.average(seen.glaucoma_network, from_vcdr)
        called = None if glaucoma is None else glaucoma >= self._threshold
        return replace(
            found,
            warnings=tuple(code for code in found.warnings if code != Code.CUP_NOT_FOUND),
            vcdr=vcdr,
            disc=outline(seen.region.disc, seen.disc_px, back),
            cup=outline(seen.region.cup, seen.cup_px, back),
            decisions={**found.decisions, "glaucoma": Decision("glaucoma", glaucoma, self._threshold, called)},
            scores={
                **found.scores,
                "glaucoma_network": seen.glaucoma_network,
                "glaucoma_vcdr": from_vcdr,
                "vcdr_first": found.vcdr,
            },
            anatomy=replace(seen, vcdr=vcdr, fovea=fovea, glaucoma_vcdr=from_vcdr, glaucoma=glaucoma),
            placement=placement,
            second_look=True,
        )

    def describe(self) -> dict[str, str]:
        """See Reader."""
        share = {"the first look's share": f"{self._first_share:g}"}
        return share | measured.described(self._rules, self._threshold, without="fovea")

    def points(self) -> Mapping[str, Sequence[OperatingPoint]]:
        """See Reader."""
        return {"glaucoma": [OperatingPoint(self._threshold)]}

    def differences(self, pairs: Sequence[tuple[Outputs, Outputs]], bounds: Bounds) -> list[Difference]:
        """See Reader."""
        return measured.differences(pairs, bounds, self._rules, self._threshold)


def mean_of_both(looked: Looked, before: Looked, first_share: float) -> Outputs:
    """Maps of disc and cup, each the mean of this look's and the first one's, which lies under it; the rest is this look's.

    Args:
        looked: Of the second look.
        before: Of the first.
        first_share: Of the latter in the mean.
    """
    (square, outputs), (whole, first) = looked, before
    at, size = square.placement, square.image.shape[0]
    under = {name: at.square_map(first[name], whole.placement, size) for name in ("disc", "cup")}
    return {**outputs, **{name: (1 - first_share) * outputs[name] + first_share * own for name, own in under.items()}}
