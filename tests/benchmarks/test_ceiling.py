"""What the machine does at most is measured on work that is done right."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
import ceiling

from funduscope.engine.errors import BackendError


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in (("CHANNELS", 16), ("SIDE", 12), ("MATRIX", 64)):
        monkeypatch.setattr(ceiling, name, value)


@pytest.mark.parametrize(("library", "precision"), ceiling.CANDIDATES)
def test_each_does_what_it_should(library, precision):
    try:
        work = ceiling.work(library, precision)
    except BackendError as error:
        pytest.skip(str(error))
    least, most = {"fp32": (0, 1e-5), "bf16": (1e-5, 2e-2), "int8": (1e-3, 6e-2)}[precision]
    made = work.run()
    assert made.shape == work.exact.shape
    assert least <= work.difference(made) <= most  # a smaller precision is one
    assert work.difference(made[::-1]) > 0.1  # and another result is seen
    assert work.flops == (2 * 64**3 if library == "NumPy" else 2 * 2 * 16 * 16 * 9 * 12 * 12)


def test_the_exact_convolutions_are_those_that_are_summed_by_hand():
    drawn = ceiling.Convolutions.drawn()
    one = ceiling.Convolutions(drawn.x, drawn.weights[:1])
    window = drawn.x[:, 4:7, 6:9].astype(np.float64)
    assert one.exact()[3, 5, 7] == pytest.approx((window * drawn.weights[0][3]).sum(), abs=1e-5)
    assert one.exact()[3, 0, 0] == pytest.approx((drawn.x[:, :2, :2] * drawn.weights[0][3, :, 1:, 1:]).sum(), abs=1e-5)
    assert 0.5 < np.std(drawn.exact()) < 2


def test_all_is_copied(monkeypatch):
    monkeypatch.setattr(ceiling, "COPIED", 1001)
    with ceiling.copy() as run:
        assert np.count_nonzero(run()) == 1001
