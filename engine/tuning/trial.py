"""One way to run a model, in a process of its own: a backend that crashes there takes nothing with it.

`python -m funduscope.engine.tuning.trial` reads one JSON line that says what to run, opens it and says so. Each further line is
answered too: `"gate"` with what the gate saw, the seconds to measure for with what was measured.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from .. import models, runners
from ..errors import FunduscopeError
from ..gate.verify import verify_model

BATCH = 8
SIZES = (1, BATCH)


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
        images = np.load(asked["images"])
        batch = np.ascontiguousarray(images[np.arange(BATCH) % len(images)])
        for size in SIZES:  # the first call of each takes longer
            runner(batch[:size])
        _answer({"precision": runner.precision})
        for line in sys.stdin:
            order = json.loads(line)
            if order == "gate":
                with np.load(asked["expected"]) as expected:
                    report = verify_model(reference, runner, images, SIZES, dict(expected))
                _answer({"strain": report.worst(), "passes": report.passes()})
            else:
                _answer({"batch_s": min(_times(runner, batch, order)), "one_s": _times(runner, batch[:1], order)})


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
