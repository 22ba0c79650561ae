"""An exponential moving average of a network's weights, which is what a run validates and keeps.

Source: Polyak and Juditsky, SIAM J. Control Optim. 1992; the decay that grows at the start is TensorFlow's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

import torch
from torch import Tensor, nn


class Average:
    """The average of a network's parameters and of its BatchNorm statistics; counters are copied.

    Inside `with`, the network has the averaged values; afterwards it has its own again, to the bit. decay: 0 keeps no
    average, and `with` changes nothing. state: what a checkpoint holds, by name.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self._own: dict[str, Tensor] = {}
        self.state = self.copy() if decay else {}

    def copy(self) -> dict[str, Tensor]:
        """The network's values as they are now."""
        return {name: value.clone() for name, value in self._network.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's `state`."""
        for name, value in self.state.items():
            value.copy_(state[name])

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the values after `step` steps. Early on the average is over fewer, or it would be of the start."""
        decay = min(self._decay, (1 + step) / (10 + step))
        own = self._network.state_dict()
        for name, value in self.state.items():
            if value.is_floating_point():
                value.lerp_(own[name], 1 - decay)
            else:
                value.copy_(own[name])

    def __enter__(self) -> None:
        if self.state:
            self._own = self.copy()
            self._network.load_state_dict(self.state)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.state:
            self._network.load_state_dict(self._own)
            self._own = {}
