#!/usr/bin/env bash
# From a clean checkout to the full-width network's weights and figures, in slices that can be cut off and taken up again.
#
#   DATA=folder-of-data-sets RUN=runs/full MINUTES=8 RESULTS=results bash training/sliced/full_width.sh
#
# Each call trains for MINUTES and stops with a checkpoint; call it again until it prints "complete". Then RESULTS holds
# the fp16 weights in parts of 15 MB, the calibration, the figures per set and the curves. CONFIG, DEVICE and PYTHON can be
# set too. Nothing is installed: the packages of the extras `train` and `export`, and weights/vgg16.pth (docs/training.md), must be there.
set -euo pipefail
cd "$(dirname "$0")/../.."
CONFIG=${CONFIG:-training/configs/multitask-full.toml} RUN=${RUN:-runs/full} MINUTES=${MINUTES:-8}
RESULTS=${RESULTS:-results} DEVICE=${DEVICE:-auto} PYTHON=${PYTHON:-python3}
: "${DATA:?set DATA to the folder that holds the data sets}"

make --no-print-directory links
export PYTHONPATH="$PWD/.links${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$RESULTS"

resume=()
[ ! -e "$RUN/last.pt" ] || resume=(--resume)
"$PYTHON" -m funduscope train "$CONFIG" --out "$RUN" --data "$DATA" --device "$DEVICE" --minutes "$MINUTES" "${resume[@]}"
cp "$RUN"/{metrics.jsonl,curves.png,config.toml} "$RESULTS"
if [ ! -e "$RUN/calibration.json" ]; then
  echo "not complete yet: call again to go on"
  exit 0
fi

"$PYTHON" -m funduscope export "$RUN" --out "$RUN/model.onnx" --data "$DATA/drishti_gs1" --data "$DATA/idrid"
rm -f "$RESULTS/figures.json"
for set in drishti_gs1 idrid hygd origa airogs_light; do
  [ ! -d "$DATA/$set" ] || "$PYTHON" -m funduscope evaluate "$RUN/model.onnx" "$DATA/$set" --json >> "$RESULTS/figures.json"
done
"$PYTHON" -m funduscope.training.sliced.weights pack "$RUN" "$RESULTS"
cp "$RUN/calibration.json" "$RESULTS"
echo complete
