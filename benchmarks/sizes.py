"""The pictures that are measured, all made of the one that comes with the package, so that the benchmarks run anywhere."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np

SAMPLE = Path(__file__).parents[1] / "examples" / "retina_cc0.jpg"
SIDES = {"packed": 1024, "sample": 1411, "camera": 4288}  # px; packed: as data sets are kept for training
_QUALITY = 92  # as cameras write


@functools.cache
def jpeg(size: str) -> bytes:
    """The sample photograph at one of `SIDES`, as the bytes of a JPEG file; the sample itself is the file as it is."""
    data = SAMPLE.read_bytes()
    if size == "sample":
        return data
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert whole is not None
    side = SIDES[size]
    how = cv2.INTER_AREA if side < whole.shape[0] else cv2.INTER_CUBIC
    made = cv2.resize(whole, (side, side), interpolation=how)
    return cv2.imencode(".jpg", made, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
