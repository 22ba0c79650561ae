"""What is refused: good pictures, pictures made worse by one step after the other, and pictures that are no retina.

    python benchmarks/quality.py idrid odir5k ... --data FOLDER [--foreign FOLDER_OF_OTHER_PICTURES]

Of each set it screens pictures of the test split, on which nothing was learned or chosen, with the embedded models.
For each fault: the share of the good pictures that are refused, and of those at the strength where decisions are lost; the area
under the curve of the fault's score between the two; and how good the pictures are said to be, on average (`image_quality`). More
light does not burn out a picture that was dim, so those that it does stand in a line of their own. For each kind of picture that
is no retina: the share that is refused; photographs and textures are other parts of the same few images that are learned from.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from funduscope import Rejected, Screener
from funduscope.engine.labelled import dataset
from funduscope.engine.pictures import photo
from funduscope.engine.readers.quality import IMAGE_QUALITY, FaultName
from funduscope.engine.results import Result
from funduscope.postprocess import metrics
from funduscope.training.classifier import foreign
from funduscope.training.classifier.degrade import DEGRADATIONS, LIT

SIDE = 700  # px that the shorter side of a picture has at the least before it is made worse
SEED = 10**9  # of pictures that are no retina; a run draws its own by its seed and the next
PER_KIND = 50
BURNT = 0.05  # of the field of view, from which on a picture counts as burnt out


def told(results: Iterable[Result]) -> str:
    """How good they are on average, the share refused, and by which codes."""
    found = list(results)
    good = [score for own in found if (score := own.scores.get(IMAGE_QUALITY)) is not None]
    average = f"{np.mean(good):.2f}" if good else "   -"
    codes = Counter(str(own.code) for own in found if isinstance(own, Rejected))
    listed = ", ".join(f"{code} {count}" for code, count in codes.most_common())
    return f"quality {average}   {sum(codes.values()) / len(found):6.1%} of {len(found)} refused   {listed}"


def area(clean: list[Result], spoilt: list[Result], fault: FaultName) -> float:
    """Under the curve of the fault's score. A picture that is refused before any network sees it has none, and counts as 1."""
    scores = [own.scores.get(fault) for own in (*clean, *spoilt)]
    values = [1.0 if score is None else score for score in scores]
    found = metrics.auc(values, [0] * len(clean) + [1] * len(spoilt))
    assert found is not None
    return found.value


def burnt_out(pixels: NDArray[np.uint8]) -> bool:
    brightest = pixels.max(axis=2)
    return bool(np.mean(brightest[brightest > LIT] >= 250) > BURNT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=60, help="of each set")
    parser.add_argument("--foreign", type=Path, nargs="*", default=[], help="folders of pictures that are no retina")
    asked = parser.parse_args()
    chances = random.Random(0)
    good: list[NDArray[np.uint8]] = []
    with Screener.open() as screener:
        clean: list[Result] = []
        for name in asked.sets:
            samples = [sample for sample in dataset.load(asked.data / name) if sample.split == "test"]
            chosen = chances.sample(samples, min(asked.pictures, len(samples)))
            found = list(screener.stream(sample.image for sample in chosen))
            print(f"{name:14}{told(found)}", flush=True)
            clean += found
            good += [photo.load(sample.image).at_least(SIDE).pixels for sample in chosen]
        print(f"{'all, as is':14}{told(clean)}\n")
        for name, how in DEGRADATIONS.items():
            for share in (0.5, 1.0, 2.0):
                spoilt = list(screener.stream(how.spoil(pixels, share * how.lost) for pixels in good))
                figure = area(clean, spoilt, how.fault)
                print(f"{name:14}{share * how.lost:6.2f}   auc {figure:.3f}   {told(spoilt)}", flush=True)
                if how.fault == "overexposed":
                    burnt = [r for r, p in zip(spoilt, good, strict=True) if burnt_out(how.spoil(p, share * how.lost))]
                    if not burnt:
                        continue
                    print(f"{'  burnt out':20}   auc {area(clean, burnt, how.fault):.3f}   {told(burnt)}", flush=True)
        print()
        kinds: dict[str, list[Result]] = {}
        made = list(foreign.pictures(good, PER_KIND, SEED))
        for (kind, _), result in zip(made, screener.stream(pixels for _, pixels in made), strict=True):
            kinds.setdefault(kind, []).append(result)
        for folder in asked.foreign:
            files = sorted(
                path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")
            )
            kinds[folder.name] = list(screener.stream(files))
        for kind, results in kinds.items():
            print(f"{kind:16}{told(results)}")


if __name__ == "__main__":
    main()
