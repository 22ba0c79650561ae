#!/usr/bin/env bash
# From a clean checkout to the source's own comparison at full width, in slices that can be cut off and taken up again.
#
#   DATA=folder-of-data-sets OUT=runs/compare MINUTES=8 RESULTS=results bash training/sliced/compare.sh
#
# Each call trains for MINUTES; call it again until every row of the table has all FOLDS. CONFIG and PYTHON can be set too. A GPU
# is taken where torch sees one. Nothing is installed: the packages of the extra `train`, and weights/vgg16.pth
# (docs/training.md), must be there.
set -euo pipefail
cd "$(dirname "$0")/../.."
CONFIG=${CONFIG:-training/configs/multitask-compare-full.toml} OUT=${OUT:-runs/compare} FOLDS=${FOLDS:-5} MINUTES=${MINUTES:-8}
RESULTS=${RESULTS:-results} PYTHON=${PYTHON:-python3}
: "${DATA:?set DATA to the folder that holds the data sets}"

make --no-print-directory links
export PYTHONPATH="$PWD/.links${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$RESULTS"
"$PYTHON" -m funduscope.training.multitask.compare "$CONFIG" "$OUT" "$DATA" "$FOLDS" "$MINUTES"
cp "$OUT"/{results.json,tables.md} "$RESULTS"
