"""The multi-task model: disc, cup, fovea and glaucoma from one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import ClassVar, Literal, Self

import numpy as np

from ...postprocess import anatomy, measures, plausible
from ...postprocess.anatomy import Anatomy, Rules
from ..contract import Contract, Probability, Strict
from ..errors import Code, PhotoError
from ..findings import Decision, Outline, outline
from ..pictures import preprocess
from ..pictures.photo import Photo
from ..pictures.preprocess import Prepared, Spot
from . import measured
from .column import Column, Verdict
from .difference import Bounds, Difference
from .outputs import F, Outputs
from .point import OperatingPoint, PointPart
from .reader import Reader

_MIDDLE = (0.75, 0.6, 0.5)  # of the field of view, where no disc is seen in the whole
_TURNS = (1, 3)  # by so many quarters, where none is seen in these either; upside down is seen as it is
_USUAL = (0.07, 0.3)  # of its side: a disc's diameter, where there is no need to look again


class RulesPart(Strict):
    """Post-processing: see `postprocess.anatomy.Rules`."""

    disc_threshold: Probability
    cup_threshold: Probability
    fovea_mode: Literal["robust", "paper"]
    fovea_min_peak: Probability
    vcdr_coefficient: float
    vcdr_intercept: float

    def build(self) -> Rules:
        """The values as post-processing takes them."""
        return Rules(**self.model_dump())


class MultiTask(Contract):
    """What a multi-task model says beside what every model says."""

    kind: Literal["multi-task"]
    rules: RulesPart
    glaucoma_threshold: Probability

    def at(self, points: Mapping[str, Mapping[str, PointPart]]) -> Self:
        """See Contract."""
        own = points.get("glaucoma")
        return self if own is None else self.model_copy(update={"glaucoma_threshold": own["balanced"].threshold})

    def needed(self) -> list[str]:
        """See Contract."""
        return ["disc", "cup", "fovea", "glaucoma"]


def _outline_columns(structure: Literal["disc", "cup"]) -> tuple[Column, ...]:
    meanings = {
        "x": f"centre of the {structure}",
        "y": f"centre of the {structure}",
        "vertical_diameter_px": "height of the tallest pixel column of the mask, px",
        "box_height_px": "height of the bounding box, px",
        "area_px": "area, px²",
    }

    def column(key: str) -> Column:
        def value(found: F) -> float | None:
            seen: Outline | None = getattr(found, structure)
            return None if seen is None else getattr(seen, key)

        return Column(f"{structure}_{key}", meanings[key], value, digits=2)

    return tuple(column(own.name) for own in fields(Outline))


class MultiTaskReader(Reader):
    """See `Reader`. Without a disc there is nothing to measure."""

    contract: ClassVar[type[Contract]] = MultiTask
    verdicts: ClassVar[tuple[Verdict, ...]] = (
        Verdict(
            "glaucoma",
            "glaucoma",
            "glaucoma",
            "whether `glaucoma_probability` (the mean of the network's own score and of a regression on the vCDR) reaches its "
            "threshold",
        ),
    )
    columns: ClassVar[tuple[Column, ...]] = (
        Column("vcdr", "vertical cup-to-disc ratio, 0 to 1", lambda found: found.vcdr, digits=6),
        *_outline_columns("disc"),
        *_outline_columns("cup"),
        Column("fovea_x", "centre of the fovea", lambda found: found.fovea and found.fovea[0], digits=2),
        Column("fovea_y", "centre of the fovea", lambda found: found.fovea and found.fovea[1], digits=2),
        Column(
            "glaucoma_network",
            "the network's own score, 0 to 1; where `second_look` is true, that one's",
            lambda found: found.scores.get("glaucoma_network"),
            digits=6,
            score_of="glaucoma",
        ),
        Column(
            "glaucoma_vcdr",
            "a logistic regression on the vCDR, 0 to 1",
            lambda found: found.scores.get("glaucoma_vcdr"),
            digits=6,
            score_of="glaucoma",
        ),
    )
    point: str | None = None

    def __init__(self, document: MultiTask, point: str | None) -> None:  # noqa: ARG002 -- it has one threshold
        self._geometry, self._rules = document.geometry.build(), document.rules.build()
        self._threshold = document.glaucoma_threshold

    def prepare(self, seen: Photo) -> Prepared:
        """See Reader."""
        finer = preprocess.finer(seen, replace(self._geometry, size=2 * self._geometry.size))
        return replace(preprocess.prepare(seen, self._geometry), finer=finer)

    def again(self, outputs: Outputs, prepared: Prepared) -> list[Prepared]:
        """See Reader: ever closer at the middle, as a wide field shows the disc small; then turned, as it may lie on its side."""
        area = np.count_nonzero(outputs["disc"] > self._rules.disc_threshold)
        if prepared.finer is None or _USUAL[0] < 2 * np.sqrt(area / np.pi) / prepared.field < _USUAL[1]:
            return []
        closer = [preprocess.middle(prepared.finer, share, self._geometry.size) for share in _MIDDLE]
        return [*closer, *(preprocess.turned(prepared, turns) for turns in _TURNS)]

    def shows(self, outputs: Outputs, prepared: Prepared) -> bool:
        """See Reader: whether there is a disc."""
        seen = anatomy.measure(outputs, self._rules)
        return seen.region is not None and plausible.is_disc(seen, prepared.field)

    def spot(self, outputs: Outputs, prepared: Prepared) -> Spot | None:
        """See Reader: the disc, where what was taken for it can be one."""
        seen, finer = anatomy.measure(outputs, self._rules), prepared.finer
        if finer is None or seen.region is None or not plausible.is_disc(seen, prepared.field):
            return None
        if _is_sideways(seen, prepared):
            return None
        at = seen.region.to_map() @ (*measures.centre(seen.region.disc), 1.0)
        x, y = finer.placement.to_square(*prepared.placement.to_photo(*at))
        zoom = finer.placement.scale_y / prepared.placement.scale_y
        return Spot(finer, x, y, seen.disc_px / seen.region.zoom * zoom)

    def read(self, found: F, outputs: Outputs, prepared: Prepared) -> F:
        """See Reader."""
        seen = anatomy.measure(outputs, self._rules)
        if seen.region is None:
            reason = "no optic disc was found; take it again with the disc in the picture, and send it the right way up"
            raise PhotoError(Code.DISC_NOT_FOUND, reason)
        placement = prepared.placement
        back = placement.matrix() @ np.vstack([seen.region.to_map(), [0, 0, 1]])
        disc = outline(seen.region.disc, seen.disc_px, back)
        cup = outline(seen.region.cup, seen.cup_px, back)
        assert disc is not None
        fovea = placement.to_photo(*seen.fovea) if seen.fovea and plausible.is_fovea(seen) else None
        warnings = [Code.CUP_NOT_FOUND] * (cup is None) + [Code.FOVEA_NOT_FOUND] * (fovea is None)
        eyes, eye = found.eyes, None
        if not plausible.is_disc(seen, prepared.field):
            warnings.insert(0, Code.DISC_IMPLAUSIBLE)
            seen = replace(seen, vcdr=None, glaucoma_vcdr=None, glaucoma=None)
        elif _is_sideways(seen, prepared):
            warnings.insert(0, Code.SIDEWAYS)
            seen = replace(seen, vcdr=None, glaucoma_vcdr=None, glaucoma=None)
        else:
            if plausible.is_burnt_out(seen, np.rot90(prepared.image, -prepared.turns)):
                warnings.insert(0, Code.DISC_OVEREXPOSED)
            eye = measures.eye_of((disc.x, disc.y), fovea, disc.vertical_diameter_px) if fovea else None
        if eye and eyes.eye is None:
            eyes = replace(eyes, eye=eye, source="picture")
        elif eye and eye != eyes.eye and Code.LATERALITY_CONFLICT not in found.warnings:
            warnings.append(Code.LATERALITY_CONFLICT)
        called = None if seen.glaucoma is None else seen.glaucoma >= self._threshold
        glaucoma = Decision("glaucoma", seen.glaucoma, self._threshold, called)
        return replace(
            found,
            warnings=(*found.warnings, *warnings),
            eyes=eyes,
            vcdr=seen.vcdr,
            disc=disc,
            cup=cup,
            fovea=fovea,
            decisions={**found.decisions, "glaucoma": glaucoma},
            scores={
                **found.scores,
                "glaucoma_network": seen.glaucoma_network,
                "glaucoma_vcdr": seen.glaucoma_vcdr,
            },
            anatomy=seen,
            placement=placement,
        )

    def describe(self) -> dict[str, str]:
        """See Reader."""
        return measured.described(self._rules, self._threshold)

    def points(self) -> Mapping[str, Sequence[OperatingPoint]]:
        """See Reader."""
        return {"glaucoma": [OperatingPoint(self._threshold)]}

    def differences(self, pairs: Sequence[tuple[Outputs, Outputs]], bounds: Bounds) -> list[Difference]:
        """See Reader."""
        return measured.differences(pairs, bounds, self._rules, self._threshold)


def _is_sideways(seen: Anatomy, prepared: Prepared) -> bool:
    """Whether the picture lies on its side: what is vertical in it is not so in the eye."""
    told = plausible.is_sideways(seen)
    return prepared.turns % 2 == 1 if told is None else told
