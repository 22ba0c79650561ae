"""A round of MTL-IO beside four naive passes: pictures a second, by turns, and whether the update is the same.

    python benchmarks/mtl_io.py [--width 0.25] [--size 256] [--batch 8] [--turns 5]

Naive: float32, as torch lays it out; for every task the whole network forward, that task's loss, backward, one Adam of its own
over all parameters. Ours: no more of the network than the task needs, channels last, bfloat16 where autocast has it.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor

from funduscope.training import losses
from funduscope.training.multitask.mtl import MultiTaskOptimiser
from funduscope.training.multitask.networks import MAPS, TASKS, MultiTaskUNet

LR = 1e-4


def targets(batch: int, size: int) -> dict[str, Tensor]:
    drawn = {name: (torch.rand(batch, size, size) > 0.5).float() for name in MAPS}
    return {**drawn, "glaucoma": (torch.rand(batch) > 0.5).float()}


def naive(network: MultiTaskUNet, images: Tensor, truth: dict[str, Tensor]) -> Callable[[], None]:
    functions = losses.of_tasks("bce")
    adams = {task: torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=0.0) for task in TASKS}

    def step() -> None:
        for task in TASKS:
            functions[task](network(images)[task], truth[task]).mean().backward()  # type: ignore[no-untyped-call]
            adams[task].step()
            adams[task].zero_grad(set_to_none=True)

    return step


def ours(network: MultiTaskUNet, images: Tensor, truth: dict[str, Tensor], bf16: bool) -> Callable[[], None]:
    functions = losses.of_tasks("bce")
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = MultiTaskOptimiser({task: network.reach(task) for task in TASKS}, "mtl-io", LR)

    def loss(task: str) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(images, (task,))[task]
        return functions[task](logits, truth[task]).mean()

    def step() -> None:
        optimiser.step({task: partial(loss, task) for task in TASKS}, LR)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5)
    asked = parser.parse_args()
    torch.manual_seed(0)
    first = MultiTaskUNet(asked.width, dropout=0.0)
    for (
        module
    ) in first.modules():  # batches must not change what the next task's pass sees, or the two cannot be compared
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    images = torch.randint(0, 255, (asked.batch, asked.size, asked.size, 3), dtype=torch.uint8)
    truth = targets(asked.batch, asked.size)
    networks = [copy.deepcopy(first) for _ in range(3)]
    steps = {
        "naive": naive(networks[0], images, truth),
        "ours, float32": ours(networks[1], images, truth, bf16=False),
        "ours, bfloat16": ours(networks[2], images, truth, bf16=True),
    }
    for step in steps.values():
        step()
    pairs = zip(networks[0].parameters(), networks[1].parameters(), first.parameters(), strict=True)
    apart, moved = (
        max(own) for own in zip(*(((a - b).abs().max(), (a - c).abs().max()) for a, b, c in pairs), strict=True)
    )
    print(
        f"after one round: naive and ours (float32) are at most {apart:.1e} apart; the largest change was {moved:.1e}"
    )
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(asked.turns):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - begin)
    for name, own in times.items():
        print(
            f"{name:15} {asked.batch / median(own):6.1f} pictures a second  {median(times['naive']) / median(own):.2f}"
        )


if __name__ == "__main__":
    main()
