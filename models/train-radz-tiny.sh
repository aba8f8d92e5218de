#!/bin/sh
# Trains radz-tiny again, as it was trained for the repository: first on the films as they are, then on varied ones.
# A vision transformer that starts from nothing learns little from varied films at first; see docs/radz-tiny.md.
# Both stages can be stopped with Ctrl-C; the same command goes on. SPDX-License-Identifier: Apache-2.0
#
#   models/train-radz-tiny.sh MANIFEST.csv OUT_DIR [radz-train options, such as --device cuda]
#
# MANIFEST.csv: columns path, patient, set, split, labels, text; paths relative to its folder.
# EPOCHS: passes of the second stage (25.74). SEED: of the second stage (2).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 2 ] || { sed -n 's/^#   //p' "$0" >&2; exit 2; }
manifest=$1 out=$2
shift 2
radz_train=${RADZ_TRAIN:-$here/../build/release/bin/radz-train}

# The last weights are kept, not the best: no figure of the validation films chooses them.
stage() { # name, start, options
    name=$1 start=$2
    shift 2
    [ -s "$out/$name/train.json" ] && return 0
    "$radz_train" --model "$start" --manifest "$manifest" --diseases "$here/diseases.txt" \
        --label-map "$here/label-map.csv" --out "$out/$name" --batch 64 --lambda 0.25 --lr 6e-4 --weight-decay 0.05 \
        --keep last --checkpoint-every 500 --resume "$@"
    [ -s "$out/$name/train.json" ] || { echo "$name has stopped early; the same command goes on" >&2; exit 1; }
}

stage stage1 "$here/radz-tiny.init" --epochs 5 --warmup 0.05 --seed 1 --no-augment "$@"
stage stage2 "$out/stage1" --lora-rank 0 --epochs "${EPOCHS:-25.74}" --warmup 0.03 --seed "${SEED:-2}" --dtype bf16 \
    --augment strong --drop-path 0.1 --ema 0.999 --set-weights nih=2 "$@"
echo "The model is in $out/stage2; leave its checkpoint/ behind when you copy it."
