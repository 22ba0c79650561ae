"""What a difference says beside its bound."""

from __future__ import annotations

import math

import pytest

from funduscope.engine.readers.difference import BOUNDS, FP32, Difference


@pytest.mark.parametrize(
    ("difference", "holds", "strain", "badness"),
    [
        (Difference("x", 0.25, 0.5), True, 0.5, 0.25),
        (Difference("x", 0.5, 0.5), True, 1.0, 0.5),
        (Difference("x", 0.75, 0.5), False, 1.5, 0.75),
        (Difference("likeness", 0.75, 0.5, at_least=True), True, 0.5, -0.75),
        (Difference("likeness", 0.25, 0.5, at_least=True), False, 1.5, -0.25),
        (Difference("count", 0, 0), True, 0, 0),
        (Difference("count", 3, 0), False, 3, 3),  # of what there must not be any, the count
        (Difference("x", math.nan, 0.5), False, math.inf, math.inf),
        (Difference("likeness", math.nan, 0.5, at_least=True), False, math.inf, math.inf),
    ],
)
def test_a_difference_beside_its_bound(difference, holds, strain, badness):
    assert (difference.holds, difference.strain, difference.badness) == (holds, strain, badness)


def test_a_dice_is_worst_where_it_is_lowest():
    assert Difference("likeness", 0.9, 0.5, at_least=True).badness > Difference("likeness", 0.95, 0.5, True).badness
    assert Difference("difference", 0.9, 0.5).badness < Difference("difference", 0.95, 0.5).badness


def test_every_precision_has_its_bounds_and_fp32_the_narrowest():
    assert BOUNDS.keys() == {"fp32", "fp16", "bf16", "int8"}
    for bounds in BOUNDS.values():
        for name, own in vars(bounds).items():
            strict = getattr(FP32, name)
            assert own <= strict if name.startswith("dice") else own >= strict, name
