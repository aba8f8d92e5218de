#!/bin/sh
# Trains radz-tiny again, as it was trained for the repository: first on the films as they are, then on varied ones, twice.
# A vision transformer that starts from nothing learns little from varied films at first; see docs/radz-tiny.md.
# All stages can be stopped with Ctrl-C; the same command goes on. SPDX-License-Identifier: Apache-2.0
#
#   models/train-radz-tiny.sh MANIFEST.csv OUT_DIR [radz-train options]
#
# MANIFEST.csv: columns path, patient, set, split, labels, text; paths relative to its folder.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 2 ] || { sed -n 's/^#   //p' "$0" >&2; exit 2; }
manifest=$1 out=$2
shift 2
radz_train=${RADZ_TRAIN:-$here/../build/release/bin/radz-train}

stage() { # name, start, options
    name=$1 start=$2
    shift 2
    [ -s "$out/$name/train.json" ] && return 0
    "$radz_train" --model "$start" --manifest "$manifest" --diseases "$here/diseases.txt" \
        --label-map "$here/label-map.csv" --out "$out/$name" --batch 32 --lambda 0.25 \
        --monitor Pneumonia --monitor-set kermany224 --checkpoint-every 141 --resume "$@"
}

stage stage1 "$here/radz-tiny.init" --epochs 3 --lr 6e-4 --warmup 0.05 --seed 1 --no-augment \
    --weight-decay 0.05 --validate-every 282 "$@"
stage stage2 "$out/stage1" --lora-rank 0 --epochs 11 --lr 5e-4 --warmup 0.03 --seed 2 --dtype bf16 \
    --weight-decay 0.05 --validate-every 282 "$@"
# Two passes of fifteen at a high learning rate: longer ones learn the few adult films by heart.
stage stage3 "$out/stage2" --lora-rank 0 --epochs 15 --lr 5e-4 --warmup 0.02 --weight-decay 0.1 --seed 3 --dtype bf16 \
    --validate-every 564 --stop-after 564 "$@"
echo "The model is in $out/stage3; leave its checkpoint/ behind when you copy it."
