#!/usr/bin/env bash
# All that needs an NVIDIA GPU, from a clean checkout: the tests marked `gpu`, then the ladder of ways to run the network.
#
#   RESULTS=results bash benchmarks/on_gpu.sh
#
# Nothing is installed: torch, the packages of the extras `export` and `cuda`, and `tensorrt-rtx` or `tensorrt` or
# onnxruntime-gpu must be there; what is absent is told and left out. PYTHON can be set too.
set -euo pipefail
cd "$(dirname "$0")/.."
RESULTS=${RESULTS:-results} PYTHON=${PYTHON:-python3}

make --no-print-directory links
export PYTHONPATH="$PWD/.links${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$RESULTS"
"$PYTHON" -m funduscope doctor | tee "$RESULTS/doctor.txt" || true
"$PYTHON" -m pytest tests -m gpu -rs 2>&1 | tee "$RESULTS/tests.txt" || true
"$PYTHON" benchmarks/gpu.py --work "$RESULTS" 2>&1 | tee "$RESULTS/ladder.txt"
