"""A round of MTL-IO leaves the network where four naive passes leave it."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
import mtl_io  # noqa: E402 -- which needs it

from funduscope.training.multitask.networks import MultiTaskUNet  # noqa: E402


def test_the_update_is_that_of_four_naive_passes():
    torch.manual_seed(0)
    first = MultiTaskUNet(0.125, dropout=0.0)
    for module in first.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    images, truth = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8), mtl_io.targets(2, 64)
    plain, own = copy.deepcopy(first), copy.deepcopy(first)
    for step in (mtl_io.naive(plain, images, truth), mtl_io.ours(own, images, truth, bf16=False)):
        step()
        step()
    moved = 0.0
    for a, b, before in zip(plain.parameters(), own.parameters(), first.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=mtl_io.LR / 100)
        moved = max(moved, float((a - before).detach().abs().max()))
    assert moved > mtl_io.LR
