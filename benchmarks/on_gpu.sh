#!/usr/bin/env bash
# All that needs an NVIDIA GPU, from a clean checkout: the tests of the GPU, then the ladder of ways to run the network.
#
#   RESULTS=results PYTHON=python3 bash benchmarks/on_gpu.sh
#
# Nothing is installed, this package neither: benchmarks/prerequisites.py names what is needed and absent, and what is left
# out without the rest. pycuda has no wheel; it compiles, with the CUDA toolkit.
#
# Exits as the tests did, or where they passed as the ladder did.
set -euo pipefail
cd "$(dirname "$0")/.."
RESULTS=${RESULTS:-results} PYTHON=${PYTHON:-python3}

"$PYTHON" benchmarks/prerequisites.py
make --no-print-directory links
export PYTHONPATH="$PWD/.links${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
mkdir -p "$RESULTS"
"$PYTHON" -m funduscope doctor | tee "$RESULTS/doctor.txt" || true
tests=0 ladder=0
# a warning of the libraries here is told, and fails nothing
"$PYTHON" -m pytest -W default tests/engine/runners/test_gpu_device.py 2>&1 | tee "$RESULTS/tests.txt" || tests=$?
"$PYTHON" benchmarks/gpu.py --work "$RESULTS" 2>&1 | tee "$RESULTS/ladder.txt" || ladder=$?
exit "$((tests ? tests : ladder))"
