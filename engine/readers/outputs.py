"""What goes into a reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..findings import Findings

Outputs = Mapping[str, NDArray[np.float32]]
"""A model's outputs by name."""
F = TypeVar("F", bound=Findings)
