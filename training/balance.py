"""How pictures of several sets are weighed where one figure or threshold has to serve them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

FEW = 20  # two healthy pictures of one set must not decide like three hundred of another


def equal_weights(groups: Sequence[Hashable]) -> NDArray[np.float64]:
    """Weights under which every group of 20 and more pictures counts the same, a smaller one less; mean 1.

    Args: groups: of each picture, usually (set, label). Returns: float64 (N,).
    """
    counts = Counter(groups)
    weights = np.array([1 / max(FEW, counts[group]) for group in groups])
    return np.asarray(weights / weights.mean())
