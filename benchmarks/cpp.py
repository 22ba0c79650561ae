"""The example in C++ beside the engine in Python, by turns: one picture, all models, ONNX Runtime fp32, one thread each.

python benchmarks/cpp.py PROGRAM [PICTURE...]
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import cv2
import sizes
import turns

import funduscope
from funduscope.engine import models
from funduscope.engine.tuning.record import this_machine


def main() -> None:
    """Print the median of each, in ms, and how many times as fast the program is."""
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path, help="as examples/cpp builds it")
    parser.add_argument("pictures", nargs="*", type=Path, default=[sizes.SAMPLE])
    parser.add_argument("--seconds", type=float, default=30, help="for each picture")
    own = parser.parse_args()
    here = this_machine()
    print(f"{here.processor}, {here.cores} cores; {here.flags}")
    cv2.setNumThreads(1)
    files = [str(models.locate(name)) for name in models.embedded()]
    command = [str(own.program), "--threads", "1", *files]
    with (
        subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        funduscope.Screener.open(backend="onnxruntime", threads=1, batch=1) as screener,
    ):
        assert process.stdin
        assert process.stdout
        asked, answers = process.stdin, process.stdout

        def ask(picture: Path) -> str:
            asked.write(f"{picture}\n")
            asked.flush()
            return answers.readline()

        for picture in own.pictures:

            def run_cpp(picture: Path = picture) -> str:
                return ask(picture)

            def run_python(picture: Path = picture) -> str:
                return screener(picture).to_json()

            times = turns.by_turns({"C++": run_cpp, "Python": run_python}, seconds=own.seconds)
            told = ", ".join(f"{name} {one.p50_ms:.1f} ms" for name, one in times.items())
            ratio = times["C++"].faster_than(times["Python"])
            print(f"{picture.name}: {told}; C++ {ratio:.2f} times as fast, {len(times['C++'].seconds)} turns")
        process.stdin.close()


if __name__ == "__main__":
    main()
