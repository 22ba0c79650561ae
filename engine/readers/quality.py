"""Whether a picture can be read at all, asked before anything is decided; and for which diseases it is fine enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from ..contract import Probability, Strict
from ..diseases import DISEASES
from ..errors import Code
from ..pictures.preprocess import Prepared
from .column import Column
from .difference import Bounds, Difference
from .outputs import F, Outputs

FaultName = Literal["not_a_fundus", "dark", "overexposed", "blurred"]
ScoreName = Literal[FaultName, "image_quality"]
IMAGE_QUALITY: Final = "image_quality"  # how good a picture is as a whole; refuses nothing


class Fault(NamedTuple):
    """What can be wrong with a picture: its code, what its score means, and what to do about it."""

    code: Code
    meaning: str
    advice: str


FAULTS: Final[dict[FaultName, Fault]] = {  # by output of the network, the gravest first
    "not_a_fundus": Fault(
        Code.NOT_A_FUNDUS,
        "that it is anything but a colour photograph of a retina",
        "this does not look like a colour photograph of a retina; see that the right file was sent, and that the retina fills "
        "the picture",
    ),
    "dark": Fault(
        Code.DARK,
        "that too little light reached the retina",
        "too dark; more flash, a wider pupil, lids and lashes away",
    ),
    "overexposed": Fault(
        Code.OVEREXPOSED, "that light has burnt out what was to be seen", "overexposed; less flash, and take it again"
    ),
    "blurred": Fault(
        Code.BLURRED,
        "that it is too blurred or hazy",
        "too blurred or hazy; clean the lens, focus, hold still, and take it again",
    ),
}
SCORES: Final[tuple[ScoreName, ...]] = (*FAULTS, IMAGE_QUALITY)  # the outputs on quality that a network can have


class QualityPart(Strict):
    """What a picture must be like to be read.

    Attributes:
        thresholds: By fault, the score from which on a picture has it, and is refused.
        least_px: By disease, how many pixels of the photo the side of the field of view must have; of less, it is left open.
        image_quality: Whether the network also says how good the picture is as a whole.
    """

    thresholds: Annotated[dict[FaultName, Probability], Field(min_length=1)]
    least_px: dict[str, Annotated[float, Field(gt=0)]]
    image_quality: bool = False

    @model_validator(mode="after")
    def _known(self) -> Self:
        if unknown := self.least_px.keys() - DISEASES.keys():
            raise ValueError(f"least_px of {', '.join(sorted(unknown))}; known are {', '.join(DISEASES)}")
        return self

    def outputs(self) -> list[ScoreName]:
        """What the network says of a picture's quality."""
        return [name for name in SCORES if name in self.thresholds or (name == IMAGE_QUALITY and self.image_quality)]


@dataclass(frozen=True)
class Grade:
    """What a model says of a picture's quality.

    Attributes:
        scores: In [0, 1], by the name of their output.
        refusal: Why it is not to be read, and the same as a sentence; None where it is.
        coarse: Diseases that it is too coarse for.
    """

    scores: Mapping[ScoreName, float] = field(default_factory=dict)
    refusal: tuple[Code, str] | None = None
    coarse: frozenset[str] = frozenset()


def grade(part: QualityPart, outputs: Outputs, prepared: Prepared) -> Grade:
    """Judge a picture. Args: outputs: of the network, with those of `part`; prepared: what they are of."""
    scores = {name: float(outputs[name]) for name in part.outputs()}
    side = prepared.field / max(prepared.placement.scale_x, prepared.placement.scale_y)
    coarse = frozenset(disease for disease, least in part.least_px.items() if side < least)
    refusal = None
    found = next(
        (own for name, own in FAULTS.items() if name in part.thresholds and scores[name] >= part.thresholds[name]), None
    )
    if found is not None:
        refusal = found.code, found.advice
    elif part.least_px and len(coarse) == len(part.least_px):
        least = min(part.least_px.values())
        refusal = (
            Code.LOW_RESOLUTION,
            f"the retina is {side:.0f} px wide, too coarse for any decision; send the camera's own picture, {least:.0f} px at "
            "the least",
        )
    return Grade(scores, refusal, coarse)


def differences(part: QualityPart, pairs: Sequence[tuple[Outputs, Outputs]], bounds: Bounds) -> list[Difference]:
    """See `Reader.differences`: of the scores, and of what is refused for them."""
    score, flips = 0.0, 0
    for a, b in pairs:
        score = max(score, *(abs(float(a[name]) - float(b[name])) for name in part.outputs()))
        for name, threshold in part.thresholds.items():
            one, other = float(a[name]), float(b[name])
            clear = abs(one - threshold) > bounds.flip_margin
            flips += clear and (one >= threshold) != (other >= threshold)
    return [Difference("max |d quality|", score, bounds.quality), Difference("refusal flips", flips, 0)]


def describe(part: QualityPart) -> str:
    """For people: from which scores on a picture is refused, and how wide the retina must be."""
    refused = [f"{name} from {threshold:.4f}" for name, threshold in part.thresholds.items()]
    return "\n".join([*refused, *(f"{disease}: {least:g} px and more" for disease, least in part.least_px.items())])


def _column(name: ScoreName) -> Column:
    def value(found: F) -> float | None:
        return found.scores.get(name)

    if name == IMAGE_QUALITY:
        meaning = (
            "how good the picture is as a whole, 0 to 1, by whoever's judgement the model learned; refuses nothing"
        )
    else:
        meaning = f"how likely it is {FAULTS[name].meaning}, 0 to 1; `ungradable` from the model's threshold on"
    return Column(name, meaning, value, digits=6, of_rejected=True)


COLUMNS: Final = tuple(map(_column, SCORES))
