"""Two questions on the models' opinions: are both together better on glaucoma, and what do 50 pictures of a site bring?

    python benchmarks/opinions.py idrid odir5k hygd origa airogs_light drishti_gs1 --data FOLDER

The first: both opinions are added on the scale of logits; the share of the second is the largest that lowers the area under the
curve of no set's validation pictures. The second: of a set's test pictures 50 (and 100) are drawn, as a site's labelled ones,
and the rest judges the points that are fitted to them; the mean of sensitivity and specificity, beside the model's own.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from funduscope import Screener, Screening
from funduscope.engine.labelled import dataset, siting
from funduscope.engine.readers import READERS
from funduscope.engine.readers.point import OperatingPoint
from funduscope.postprocess import metrics, scores

SITE, DRAWS = 50, 150
LEAST = 5  # sick, and healthy, that must be left over to judge by
SHARES = np.arange(0, 1.01, 0.1)
BOTH = ("glaucoma", "glaucoma_second")
Seen = dict[str, tuple[float, int]]  # by verdict: logit and truth


def opinions(screener: Screener, folder: Path, split: str) -> list[Seen]:
    """Of each picture on which anything is known and said."""
    samples = [sample for sample in dataset.load(folder) if sample.split == split]
    found = []
    for sample, result in zip(samples, screener.stream([s.image for s in samples]), strict=True):
        said = result.decisions.items() if isinstance(result, Screening) else ()
        found.append(
            {
                name: (scores.logit(own.probability), truth)
                for name, own in said
                if own.probability is not None and (truth := sample.diseased(own.disease)) is not None
            }
        )
    return found


def area(seen: list[Seen], share: float) -> float | None:
    """Under the curve of both opinions on glaucoma, on the pictures where both models give a probability."""
    both = [own for own in seen if set(BOTH) <= set(own)]
    added = [(1 - share) * own[BOTH[0]][0] + share * own[BOTH[1]][0] for own in both]
    found = metrics.auc(added, [own[BOTH[0]][1] for own in both]) if both else None
    return found.value if found else None


def judged(z: NDArray[np.float64], truth: NDArray[np.int64], cut: float) -> float:
    """The mean of sensitivity and specificity."""
    counts = metrics.Counts.at(cut, z, truth)
    return ((counts.sensitivity or 0.0) + (counts.specificity or 0.0)) / 2


def at_home(seen: list[tuple[float, int]], points: list[OperatingPoint], few: int) -> tuple[float, float] | None:
    """The model's own balanced point and the site's, each judged by the pictures that were not drawn."""
    z, truth = (np.array(own) for own in zip(*seen, strict=True))
    own = next(point for point in points if point.name in ("balanced", None))
    rng, rows = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = np.isin(np.arange(len(z)), rng.choice(len(z), min(few, len(z)), replace=False))
        counts = [int((truth[part] == k).sum()) for part in (drawn, ~drawn) for k in (0, 1)]
        if min(counts[:2]) < siting.LEAST_OF_CLASS or min(counts[2:]) < LEAST:
            continue
        fitted = siting.decision(z[drawn], truth[drawn].astype(float), points)
        cut = scores.logit(fitted.points["balanced"].threshold) * fitted.temperature
        rows.append([judged(z[~drawn], truth[~drawn], k) for k in (scores.logit(own.threshold), cut)])
    if len(rows) < DRAWS // 2:
        return None
    before, after = np.mean(rows, axis=0).tolist()
    return before, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    asked = parser.parse_args()
    seen: dict[str, dict[str, list[Seen]]] = defaultdict(dict)
    with Screener.open(backend="onnxruntime") as screener:
        for name in asked.sets:
            for split in ("val", "test"):
                seen[split][name] = opinions(screener, asked.data / name, split)
        points = {k: v for c in screener.contracts for k, v in READERS[c.kind](c, None).points().items()}
    held = {name: [area(own, share) for share in SHARES] for name, own in seen["val"].items()}
    held = {name: own for name, own in held.items() if own[0] is not None}
    never = [k for k in range(len(SHARES)) if all((own[k] or 0) >= (own[0] or 0) for own in held.values())]
    share = float(SHARES[max(never)])
    print(f"glaucoma, AUC; both: {1 - share:.1f} of the first opinion's logit and {share:.1f} of the second's")
    for split in ("val", "test"):
        for name in held:
            row = [area(seen[split][name], k) for k in (0.0, 1.0, share)]
            print(
                f"{split:5}{name:14}"
                + "   ".join(f"{k} {v:.3f}" for k, v in zip(("first", "second", "both"), row, strict=True))
            )
    print(
        f"\nmean of sensitivity and specificity at the balanced point, over up to {DRAWS} draws: the model's own, the site's"
    )
    for name, rows in seen["test"].items():
        for verdict, own in points.items():
            labelled = [row[verdict] for row in rows if verdict in row]
            for few in (SITE, 2 * SITE):
                if len(labelled) > few and (found := at_home(labelled, list(own), few)):
                    print(f"{name:14}{verdict:16}{few:4} pictures   {found[0]:.3f}   {found[1]:.3f}")


if __name__ == "__main__":
    main()
