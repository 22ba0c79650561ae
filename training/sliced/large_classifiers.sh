#!/usr/bin/env bash
# From a clean checkout to the tables of the large classifiers, in slices: finished runs stay, one that is cut off begins anew.
#
#   DATA=folder-of-data-sets OUT=runs/large MINUTES=8 RESULTS=results bash training/sliced/large_classifiers.sh
#
# Each call starts no run after MINUTES; call it again until it prints no "stopped". RESULTS holds the finished cells and
# the tables. GRID, DEVICE and PYTHON can be set too. Nothing is installed: the packages of the extra `train` must be there.
set -euo pipefail
cd "$(dirname "$0")/../.."
GRID=${GRID:-training/configs/tables-large.toml} OUT=${OUT:-runs/large} MINUTES=${MINUTES:-8}
RESULTS=${RESULTS:-results} DEVICE=${DEVICE:-auto} PYTHON=${PYTHON:-python3}
: "${DATA:?set DATA to the folder that holds the data sets}"

make --no-print-directory links
export PYTHONPATH="$PWD/.links${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$RESULTS"
"$PYTHON" -m funduscope tables "$GRID" --out "$OUT" --data "$DATA" --device "$DEVICE" --minutes "$MINUTES"
for file in results.jsonl tables.md; do [ ! -e "$OUT/$file" ] || cp "$OUT/$file" "$RESULTS"; done
