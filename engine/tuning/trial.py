"""One way to run a model, in a process of its own: a backend that crashes there takes nothing with it.

`python -m funduscope.engine.tuning.trial` reads one JSON line that says what to run, and answers with one; then each further
line, the seconds to measure for, is answered with what was measured.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from .. import models, runners
from ..errors import FunduscopeError
from ..gate.verify import verify_model

BATCH = 8
_SIZES = (1, BATCH)


def main() -> None:
    """Answer until the input ends."""
    asked = json.loads(sys.stdin.readline())
    try:
        model, reference = models.load(asked["file"]), models.load(asked["reference"])
        runner = runners.open_runner(model, asked["backend"], max_batch=BATCH, threads=asked["threads"])
    except FunduscopeError as error:
        _answer({"error": str(error).splitlines()[0]})
        return
    with runner:
        images = np.load(Path(asked["images"]))
        report = verify_model(reference, runner, images, _SIZES)
        _answer({"precision": runner.precision, "strain": report.worst(), "passes": report.passes()})
        batch = np.ascontiguousarray(images[np.arange(BATCH) % len(images)])
        for line in sys.stdin:
            _answer({"batch_s": _fastest(runner, batch, float(line)), "one_s": _times(runner, batch[:1], float(line))})


def _fastest(runner: Any, images: Any, seconds: float) -> float:
    return min(_times(runner, images, seconds))


def _times(runner: Any, images: Any, seconds: float) -> list[float]:
    """Seconds of each call, for so long."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        runner(images)
        times.append(time.perf_counter() - begin)
    return times


def _answer(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
