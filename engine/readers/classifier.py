"""The classifier: several diseases from one network, each with an operating point, a band of doubt and a heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ...postprocess import scores
from ..contract import Contract, Probability, Strict
from ..diseases import DISEASES
from ..errors import Code
from ..findings import Decision, HeatMap
from ..pictures import preprocess
from ..pictures.photo import Photo
from ..pictures.preprocess import Prepared
from . import quality
from .column import Column, Verdict
from .difference import Bounds, Difference
from .outputs import F, Outputs
from .point import OperatingPoint, PointPart
from .quality import Grade, QualityPart
from .reader import Reader

PointName = Literal["high_sensitivity", "balanced", "high_specificity"]
VERDICT_ON = {
    "glaucoma": "glaucoma_second"
}  # a disease's verdict has its name; the multi-task model has the first word on this


class PointsPart(Strict):
    high_sensitivity: PointPart
    balanced: PointPart
    high_specificity: PointPart

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.high_sensitivity.threshold <= self.balanced.threshold <= self.high_specificity.threshold:
            raise ValueError("the thresholds must rise from high_sensitivity over balanced to high_specificity")
        return self

    def at(self, name: PointName) -> PointPart:
        """One of the three."""
        return cast(PointPart, getattr(self, name))


class DecisionPart(Strict):
    """How one output of a classifier is read.

    temperature: what the graph divides the logit by; map_scale: the logit of the heat map that is drawn as full heat, null
    without a map.
    """

    temperature: Annotated[float, Field(gt=0)]
    points: PointsPart
    map_scale: Annotated[float, Field(gt=0)] | None


class MapGridPart(Strict):
    """Where the heat maps' cells lie: cell k is centred on pixel offset_px + k * stride_px of the network's square."""

    stride_px: Annotated[float, Field(gt=0)]
    offset_px: float

    def to_square(self) -> NDArray[np.float64]:
        """Affine (3, 3) from cells to the square's pixels."""
        return np.array([[self.stride_px, 0, self.offset_px], [0, self.stride_px, self.offset_px], [0, 0, 1]])


class Classifier(Contract):
    """What a classifier says beside what every model says.

    Attributes:
        decisions: How each output is read, by disease.
        point: The operating point where none is asked for.
        disagreement: How far its probability of glaucoma may be from the multi-task model's before a result says so. Each is
            moved so that its own threshold (the classifier's balanced one) lies at .5. Contrary decisions are always said: from
            .5 on, this adds only pictures on which the classifier abstains.
        map_grid: Where heat maps lie; None without maps.
        quality: What a picture must be like to be read; None where the network does not see that.
    """

    kind: Literal["classifier"]
    decisions: Annotated[dict[str, DecisionPart], Field(min_length=1)]
    point: PointName
    disagreement: Probability
    map_grid: MapGridPart | None
    quality: QualityPart | None = None

    @model_validator(mode="after")
    def _diseases(self) -> Self:
        if unknown := self.decisions.keys() - DISEASES.keys():
            raise ValueError(f"decisions on {', '.join(sorted(unknown))}; known are {', '.join(DISEASES)}")
        least = {} if self.quality is None else self.quality.least_px
        for name in self.decisions:
            wider = DISEASES[name].within
            if wider in self.decisions and least.get(name) != least.get(wider):
                raise ValueError(f"quality.least_px of {name} and {wider} must be the same: one is part of the other")
        return self

    def at(self, points: Mapping[str, Mapping[str, PointPart]]) -> Self:
        """See Contract."""
        moved = {
            name: self.decisions[name].model_copy(update={"points": PointsPart(**own)}) for name, own in points.items()
        }
        return self.model_copy(update={"decisions": {**self.decisions, **moved}})

    def needed(self) -> list[str]:
        """See Contract; with a map for each disease where there is a grid for them, and what it says of a picture's quality."""
        judged = [] if self.quality is None else self.quality.outputs()
        return [*self.decisions, *(f"{name}_map" for name in self.decisions if self.map_grid is not None), *judged]


class ClassifierReader(Reader):
    """See `Reader`. Near a threshold it abstains."""

    contract: ClassVar[type[Contract]] = Classifier
    verdicts: ClassVar[tuple[Verdict, ...]] = (
        Verdict("referable_dr", "referable_dr", "referable DR", "diabetic retinopathy of grade 2 and more"),
        Verdict(
            "any_dr",
            "any_dr",
            "any DR",
            "diabetic retinopathy of grade 1 and more; called also where `referable_dr` is, even below `any_dr_threshold`; never "
            "denied where `referable_dr` is open",
        ),
        Verdict("glaucoma_second", "glaucoma", "second opinion", "the classifier's opinion on glaucoma"),
    )
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "operating_point",
            "`high_sensitivity`, `balanced` or `high_specificity`: where the classifier's thresholds lie",
            lambda found: found.point,
            kind="text",
        ),
        *quality.COLUMNS,
    )

    def __init__(self, document: Classifier, point: str | None) -> None:
        self._document, self._geometry = document, document.geometry.build()
        self.point: str | None = point or document.point
        # a wider disease after those within it
        self._diseases = sorted(document.decisions, key=lambda name: DISEASES[name].within is None)

    def prepare(self, seen: Photo) -> Prepared:
        """See Reader."""
        return preprocess.prepare(seen, self._geometry)

    def grade(self, outputs: Outputs, prepared: Prepared) -> Grade:
        """See Reader."""
        part = self._document.quality
        return Grade() if part is None else quality.grade(part, outputs, prepared)

    def read(self, found: F, outputs: Outputs, prepared: Prepared) -> F:
        """See Reader."""
        decisions = {name: self._decision(name, outputs, prepared) for name in self._document.decisions}
        for name in self._diseases:  # what is within a wider disease calls that as well, or leaves it open
            wider, here = DISEASES[name].within, decisions[name]
            if wider in decisions and not decisions[wider].called and here.called is not False:
                decisions[wider] = replace(decisions[wider], called=here.called)
        warnings = [DISEASES[name].uncertain for name in self._document.decisions if decisions[name].called is None]
        if Code.DISC_NOT_FOUND in found.warnings and "glaucoma" in decisions:  # it shows at the disc
            decisions["glaucoma"] = replace(decisions["glaucoma"], called=None)
        verdicts = {VERDICT_ON.get(name, name): decision for name, decision in decisions.items()}
        first, second = found.decisions.get("glaucoma"), verdicts.get("glaucoma_second")
        if first and second and self._disagree(first, second):
            warnings.append(Code.GLAUCOMA_DISAGREEMENT)
        return replace(
            found,
            warnings=(*found.warnings, *warnings),
            decisions={**found.decisions, **verdicts},
            point=self.point,
        )

    def _decision(self, name: str, outputs: Outputs, prepared: Prepared) -> Decision:
        part, grid = self._document.decisions[name], self._document.map_grid
        at, probability = part.points.at(cast(PointName, self.point)), float(outputs[name])
        heat = None
        if grid is not None and part.map_scale is not None:
            cells = np.clip(outputs[f"{name}_map"] / np.float32(part.map_scale), 0, 1)
            heat = HeatMap(cells, prepared.placement.matrix() @ grid.to_square())
        called = scores.decide(probability, at.threshold, at.uncertain_logit)
        return Decision(name, probability, at.threshold, called, heat)

    def _disagree(self, first: Decision, second: Decision) -> bool:
        """Whether two opinions on glaucoma contradict each other, or are far apart."""
        if first.probability is None or first.threshold is None or second.probability is None:
            return False
        balanced = self._document.decisions["glaucoma"].points.balanced.threshold
        seen = scores.from_threshold(first.probability, first.threshold)
        other = scores.from_threshold(second.probability, balanced)
        return second.called is (not first.called) or abs(seen - other) > self._document.disagreement

    def describe(self) -> dict[str, str]:
        """See Reader."""
        rows: dict[str, str] = {"operating point": self._document.point}
        for disease, part in self._document.decisions.items():
            lines = [f"temperature {part.temperature:g}"]
            for name, at in part.points:
                rates = (
                    f"{rate} {estimate.value:.3f} ({estimate.low:.2f} to {estimate.high:.2f})"
                    for rate, estimate in (("sensitivity", at.sensitivity), ("specificity", at.specificity))
                )
                doubt = f"uncertain within {at.uncertain_logit:.3f} of its logit"
                lines.append(f"{name} from {at.threshold:.4f}, {doubt}: {', '.join(rates)}")
            rows[disease] = "\n".join(lines)
        if "glaucoma" in self._document.decisions:
            rows["disagreement"] = (
                f"more than {self._document.disagreement:g} from the multi-task model's glaucoma, each seen from its threshold"
            )
        if self._document.quality is not None:
            rows["refused"] = quality.describe(self._document.quality)
        return rows

    def points(self) -> Mapping[str, Sequence[OperatingPoint]]:
        """See Reader."""
        return {
            VERDICT_ON.get(disease, disease): [
                OperatingPoint(at.threshold, name, at.uncertain_logit, at.sensitivity.build(), at.specificity.build())
                for name, at in part.points
            ]
            for disease, part in self._document.decisions.items()
        }

    def differences(self, pairs: Sequence[tuple[Outputs, Outputs]], bounds: Bounds) -> list[Difference]:
        """See Reader."""
        probability = heat = 0.0
        flips, judging = 0, self._document.quality
        for a, b in pairs:
            for disease, part in self._document.decisions.items():
                one, other = float(a[disease]), float(b[disease])
                probability = max(probability, abs(one - other))
                if self._document.map_grid is not None and part.map_scale is not None:
                    moved = float(np.abs(a[f"{disease}_map"] - b[f"{disease}_map"]).max())
                    heat = max(heat, moved / part.map_scale)
                for _, point in part.points:
                    clear = abs(one - point.threshold) > bounds.flip_margin
                    flips += clear and (one >= point.threshold) != (other >= point.threshold)
        return [
            Difference("max |d probability|", probability, bounds.probability),
            Difference("max |d heat| (1: full)", heat, bounds.heat),
            Difference("decision flips", flips, 0),
            *([] if judging is None else quality.differences(judging, pairs, bounds)),
        ]
