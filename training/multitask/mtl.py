"""Three ways to step a network that several tasks share.

mtl-io       one Adam per task over the parameters that task reaches; per task in order: forward, backward, step.
             Each task's running moments see that task's gradients only (Pascal et al.: m^(k) in the update rule).
alternating  the same steps with one Adam for all tasks: the moments mix.
sum          the losses' sum, one Adam, one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter

Strategy = Literal["mtl-io", "alternating", "sum"]


class MultiTaskOptimiser:
    """Owns the Adam state or states. `reach` maps each task, in step order, to the parameters its loss reaches; `weights`: of
    its loss in the sum, 1 where it is not named."""

    def __init__(
        self,
        reach: Mapping[str, Iterable[Parameter]],
        strategy: Strategy,
        lr: float,
        weight_decay: float = 0.0,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.strategy, self._weights = strategy, weights or {}
        self.tasks = tuple(reach)
        reached = {task: list(parameters) for task, parameters in reach.items()}
        if strategy == "mtl-io":
            groups = reached
        else:
            groups = {"all": list({id(p): p for parameters in reached.values() for p in parameters}.values())}
        self._adams = {name: torch.optim.AdamW(p, lr=lr, weight_decay=weight_decay) for name, p in groups.items()}

    def step(self, losses: Mapping[str, Callable[[], Tensor]], lr: float) -> dict[str, float]:
        """One round over the tasks in `losses`; each value computes that task's loss with a fresh forward pass.

        Returns: each task's loss before its own step.
        """
        for adam in self._adams.values():
            for group in adam.param_groups:
                group["lr"] = lr
        present = [task for task in self.tasks if task in losses]
        if self.strategy == "sum":
            values = {task: losses[task]() for task in present}
            weighed = [self._weights.get(task, 1.0) * value for task, value in values.items()]
            self._descend("all", torch.stack(weighed).sum())
        else:
            values = {}
            for task in present:
                values[task] = losses[task]()
                self._descend(task if self.strategy == "mtl-io" else "all", values[task])
        return {task: float(value.detach()) for task, value in values.items()}

    def _descend(self, name: str, loss: Tensor) -> None:
        """One step of one Adam; parameters that the loss does not reach have no gradient, and stay."""
        loss.backward()  # type: ignore[no-untyped-call]
        self._adams[name].step()
        self._adams[name].zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The state of every Adam, by its name."""
        return {name: adam.state_dict() for name, adam in self._adams.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state; the strategy must be the same."""
        for name, adam in self._adams.items():
            adam.load_state_dict(state[name])
