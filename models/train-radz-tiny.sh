#!/bin/sh
# Trains radz-tiny again, as it was trained for the repository: first on the films as they are, then on varied ones.
# A vision transformer that starts from nothing learns little from varied films at first; see docs/radz-tiny.md.
# Both stages can be stopped with Ctrl-C; the same command goes on. SPDX-License-Identifier: Apache-2.0
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
        --label-map "$here/label-map.csv" --out "$out/$name" --batch 32 --lambda 0.25 --weight-decay 0.05 \
        --monitor Pneumonia --monitor-set kermany224 --validate-every 282 --checkpoint-every 141 --resume "$@"
}

stage stage1 "$here/radz-tiny.init" --epochs 3 --lr 6e-4 --warmup 0.05 --seed 1 --no-augment "$@"
stage stage2 "$out/stage1" --lora-rank 0 --epochs 11 --lr 5e-4 --warmup 0.03 --seed 2 --dtype bf16 "$@"
echo "The model is in $out/stage2; leave its checkpoint/ behind when you copy it."
