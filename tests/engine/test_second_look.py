"""The second look in a screener: it is shown where the first one has found a disc, all of a batch at once."""

from __future__ import annotations

import numpy as np
import pytest

from funduscope.engine.errors import Code, SettingsError
from funduscope.engine.runners import FakeRunner
from funduscope.engine.screener import Screener
from funduscope.service import catalogue

pytestmark = pytest.mark.usefixtures("any_colours")


def picture(seed):
    """A picture whose colour tells whether a disc is painted for it: red from 150 on."""
    return np.full((300, 300, 3), (seed, 60, 40), np.uint8)


@pytest.fixture
def screener(model, closer, painter):
    """A screener over painted maps, and the sizes of the batches that the second look was given."""
    sizes, closed = [], []

    def first(images):
        painted = [painter.maps(disc=(150, 120, 40, 48) if own[128, 128, 0] >= 150 else None) for own in images]
        return {name: np.stack([own[name] for own in painted]) for name in painted[0]}

    def second(images):
        sizes.append(len(images))
        rows, columns = np.mgrid[:96, :96]
        distance = np.hypot(columns - 47.5, rows - 47.5)
        disc, cup = ((distance < radius).astype(np.float32) for radius in (19, 12))
        maps = {"disc": np.stack([disc] * len(images)), "cup": np.stack([cup] * len(images))}
        return {**maps, "glaucoma": np.full(len(images), 0.5, np.float32)}

    class Closed(FakeRunner):
        def close(self):
            closed.append(self)

    with Screener.of([closer, model], [Closed(second, 4), Closed(first, 4)]) as opened:
        yield opened, sizes
    assert len(closed) == 2


def test_all_discs_of_a_batch_go_at_once_and_those_without_one_are_left_out(screener):
    opened, sizes = screener
    seen = [200, 20, 180, 160]
    results = list(opened.stream([picture(own) for own in seen], workers=1))
    assert [own.status for own in results] == ["ok", "ungradable", "ok", "ok"]
    assert results[1].code == Code.DISC_NOT_FOUND
    for own in (results[0], *results[2:]):
        assert own.second_look is True
        assert own.vcdr == pytest.approx((12 / 19 + 0.5) / 2, abs=0.03)
    assert sum(sizes) == 3
    assert len(sizes) <= 2


def test_a_single_picture_is_looked_at_twice(screener):
    opened, sizes = screener
    assert opened(picture(200)).to_dict()["second_look"] is True
    assert sizes == [1]
    assert opened(picture(20)).to_dict()["second_look"] is None
    assert sizes == [1]


def test_rows_name_both_models_in_the_order_in_which_they_look(screener, model):
    opened, _ = screener
    assert [own.kind for own in opened.models] == ["multi-task", "disc"]
    assert opened(picture(200)).to_dict()["model"] == [model.contract.name, "closer"]
    assert opened(picture(200)).measured_by == "disc"
    assert [own.name for own in opened.contracts] == [model.contract.name, "closer"]
    images = np.zeros((5, 96, 96, 3), np.uint8)
    assert opened.outputs("closer", images)["disc"].shape == (5, 96, 96)


def test_those_who_show_scores_are_told_both_looks_thresholds(screener, model, closer):
    opened, _ = screener
    first, last = (own.contract.glaucoma_threshold for own in (model, closer))
    multitask, disc = catalogue.document(opened)["models"]
    points = multitask["verdicts"][0]["points"]
    assert [(own["name"], own["threshold"]) for own in points] == [(None, last), ("first_look", first)]
    assert disc["verdicts"] == []


def test_alone_it_is_refused_with_what_is_missing_and_freed(closer):
    closed = []

    class Closed(FakeRunner):
        def close(self):
            closed.append(self)

    words = r"closer.onnx: it looks where a multi-task model has found something; open one beside it"
    with pytest.raises(SettingsError, match=words):
        Screener.of([closer], [Closed(lambda images: {}, 1)])
    assert closed


def test_a_number_that_is_none_in_the_second_look_is_an_error(model, closer, painter):
    def second(images):
        maps = {name: np.ones((len(images), 96, 96), np.float32) for name in ("disc", "cup")}
        return {**maps, "glaucoma": np.full(len(images), np.nan, np.float32)}

    def first(images):
        return {name: np.stack([own] * len(images)) for name, own in painter.maps().items()}

    with Screener.of([model, closer], [FakeRunner(first, 1), FakeRunner(second, 1)]) as opened:
        assert opened(picture(200)).code == Code.MODEL_NONFINITE
