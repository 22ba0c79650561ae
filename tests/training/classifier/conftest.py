"""The classifier's tests take its own plan, data sets and index, under the names that the other tests have for theirs."""

import cv2
import numpy as np
import pytest


@pytest.fixture
def plan(classifier_plan):
    """The contents of a tiny configuration of the classifier."""
    return classifier_plan


@pytest.fixture
def build(build_classifier):
    """A Config from a plan, without a file."""
    return build_classifier


@pytest.fixture
def edited(plan):
    """The plan with changed keys under one of its parts: `edited("data", batch=4)`."""
    return lambda part, **changes: plan | {part: plan[part] | changes}


@pytest.fixture
def drawn(plan, graded_root):
    """A plan that learns lesions: of the pictures of `grades`, dark spots and where they are, under other names."""
    folder = graded_root / "drawn"
    folder.mkdir()
    rng, rows = np.random.default_rng(0), ["image,lesions,split,twin"]
    for k, (split, twin) in enumerate(
        [("train", "eye0"), ("train", "eye3"), ("train", "eye20"), ("train", ""), ("train", "eye31"), ("test", "eye1")]
    ):
        image, bits = np.full((160, 160, 3), 120, np.uint8), np.zeros((160, 160), np.uint8)
        for x, y in rng.integers(20, 140, (4, 2)):
            cv2.circle(image, (int(x), int(y)), 3, (20, 30, 60), -1)
            cv2.circle(bits, (int(x), int(y)), 3, 2, -1)
        assert cv2.imwrite(str(folder / f"{k}.png"), image)
        assert cv2.imwrite(str(folder / f"{k}_bits.png"), bits)
        rows.append(f"{k}.png,{k}_bits.png,{split},{twin}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    network = plan["network"] | {"architecture": "efficientnet-lite0", "lesions": True, "dropout": 0.0}
    part = {"path": "drawn", "twins": "grades", "terms": "drawn", "batch": 3, "weight": 2.0}
    return plan | {"network": network, "lesions": part}
