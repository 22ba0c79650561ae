"""Memory that a training step frees stays with the process: the next step wants the same again.

glibc maps each large block anew and gives it back when it is freed, and the kernel zeroes its pages each time. On a CPU that
took more than half of a step of EfficientNet.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of mallopt(3)


def keep_freed() -> bool:
    """Ask glibc to keep what is freed. Returns: whether it will; elsewhere there is nothing to ask."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return all(mallopt(key, value) for key, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 1 << 28)))
