"""An engine on disk, for tests: its facts, and bytes in place of a plan."""

import numpy as np

from funduscope.engine.runners.tensorrt import engines
from funduscope.engine.runners.tensorrt.engines import Facts, Profile

PLAN = np.random.default_rng(0).bytes(4096)  # nothing here reads it


def facts(**changes) -> Facts:
    """Of an engine for the machine below, but for what is changed."""
    values = {
        "format": "funduscope-engine/1",
        "library": "tensorrt-rtx",
        "library_version": "1.7.1.116",
        "compute_capability": "sm_89",
        "os": engines.this_os(),
        "model": "multitask",
        "model_sha256": "ab" * 32,
        "precision": "fp32",
        "profile": Profile(min=1, opt=8, max=32),
        "workspace_mb": 1024,
        "optimisation_level": 3,
        "engine_sha256": "0" * 64,
        "verified": False,
    }
    return Facts(**(values | changes))
