"""What goes into a reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..findings import Findings
from ..pictures.preprocess import Prepared

Outputs = Mapping[str, NDArray[np.float32]]
"""A model's outputs by name."""
Looked = tuple[Prepared, Outputs]
"""What a network has looked at, and what it gave, by name, without the batch's dimension."""
F = TypeVar("F", bound=Findings)
