"""What a warning is worth: each verdict on the test pictures that have it, and on those that do not.

    python benchmarks/warned.py DISC_OVEREXPOSED origa odir5k ... --data FOLDER

By set, and of all together, with the embedded models: how many pictures, the area under the curve with its 95 % interval, and how
many of the healthy and of the sick are called; pictures without the verdict's label or its probability do not count. And the mean
error of the vCDR, where experts gave one.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from funduscope import Code, Screener, Screening
from funduscope.engine.labelled import dataset
from funduscope.postprocess import metrics

Said = tuple[float, bool, int]  # probability, whether it was called, and the truth


def told(said: list[Said]) -> str:
    """The figures of one verdict on some pictures."""
    found = metrics.auc([own[0] for own in said], [own[2] for own in said]) if said else None
    area = "-" if found is None else f"{found.value:.3f} ({found.low or 0:.2f} to {found.high or 1:.2f})"
    shares = []
    for label, name in enumerate(("healthy", "sick")):
        called = [own[1] for own in said if own[2] == label]
        shares.append(f"{sum(called):3} of {len(called):3} {name}")
    return f"{len(said):4}   auc {area:22}  called {', '.join(shares)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warning", type=Code)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    asked = parser.parse_args()
    seen: dict[tuple[str, str, bool], list[Said]] = defaultdict(list)
    errors: dict[tuple[str, bool], list[float]] = defaultdict(list)
    with Screener.open(backend="onnxruntime") as screener:
        for name in asked.sets:
            samples = [sample for sample in dataset.load(asked.data / name) if sample.split == asked.split]
            for sample, result in zip(samples, screener.stream([s.image for s in samples]), strict=True):
                vcdr, warned = result.vcdr if isinstance(result, Screening) else None, asked.warning in result.warnings
                if vcdr is not None and sample.expert_vcdr is not None:
                    errors[name, warned].append(abs(vcdr - sample.expert_vcdr))
                for verdict, own in result.decisions.items() if isinstance(result, Screening) else ():
                    truth = sample.diseased(own.disease)
                    if truth is not None and own.probability is not None:
                        said = own.probability, own.called is True, truth
                        for row in (name, "all"):
                            seen[row, verdict, warned].append(said)
    words = {True: f"with {asked.warning}", False: "without"}
    for name in (*asked.sets, "all"):
        for verdict in sorted({own[1] for own in seen if own[0] == name}):
            for warned, told_so in words.items():
                print(f"{name:14}{verdict:17}{told_so:24}{told(seen[name, verdict, warned])}")
    for (name, warned), found in sorted(errors.items()):
        print(f"{name:14}{'vcdr':17}{words[warned]:24}{len(found):4}   mean error {sum(found) / len(found):.3f}")


if __name__ == "__main__":
    main()
