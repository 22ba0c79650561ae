"""Which labelled pictures a candidate is shown at the gate."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from funduscope.engine.gate import pictures
from funduscope.engine.labelled import shown
from funduscope.engine.pictures.preprocess import Geometry


def test_pictures_are_drawn_from_the_whole_index_with_a_fixed_seed(clinics):
    chosen = shown.chosen(clinics, "test", 8)
    assert chosen == shown.chosen(clinics, "test", 8)
    numbers = [[int(path.stem) for path in chosen if path.parent.parent == folder] for folder in clinics]
    assert [len(own) for own in numbers] == [4, 4]
    assert numbers[0] != sorted(numbers[0])[:4] or max(numbers[0]) > 3
    assert len(shown.chosen(clinics, None, 1000)) == 60
    assert len(shown.chosen(clinics, "val", 1000)) == 20


def test_what_the_word_rests_on_is_named(clinics):
    assert shown.how(None) == "self-check"
    assert shown.how(clinics) == "verified on one, two"


@pytest.fixture
def clinics(tmp_path):
    """Two data sets of 20 test and 10 val pictures."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        (folder / "images").mkdir(parents=True)
        for k in range(30):
            (folder / "images" / f"{k}.jpg").write_bytes(b"")
        lines = [f"images/{k}.jpg,{'test' if k < 20 else 'val'},{k % 2}" for k in range(30)]
        (folder / "index.csv").write_text("image,split,glaucoma\n" + "\n".join(lines) + "\n")
    return folders


def test_a_candidate_is_shown_a_splits_pictures_or_the_views(clinics, cc0, monkeypatch):
    geometry = Geometry(64, 24)
    for k in range(20, 23):  # of the val split; all others cannot be read
        shutil.copy(cc0, clinics[0] / "images" / f"{k}.jpg")
    wanted = pictures.prepared([cc0], geometry)
    np.testing.assert_array_equal(shown.shown(clinics, "val", geometry), np.repeat(wanted, 3, axis=0))
    monkeypatch.setattr(shown, "views", lambda asked: ("views", asked))
    assert shown.shown(None, "val", geometry) == ("views", geometry)
