#!/bin/sh
# The ablations of the paper's Tables 4 and 5 and its Figure 4, on a small model with three seeds: what L_CA pairs, DKAM
# on or off, the hidden layer, the number of special tokens. Every run starts from the first stage of
# models/train-radz-tiny.sh, as the paper's start from LLaVA-Med; what the row changes (special tokens, heads) starts
# from new random numbers in all of them, and all see a fifth of the films. So the figures compare with each other, not with
# radz-tiny. Can be stopped and gone on with; prints a Markdown table. SPDX-License-Identifier: Apache-2.0
#
#   models/ablate-radz-tiny.sh STAGE1_DIR MANIFEST.csv OUT_DIR [radz-train options]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 3 ] || { sed -n 's/^#   //p' "$0" >&2; exit 2; }
stage1=$1 manifest=$2 out=$3
shift 3
radz_train=${RADZ_TRAIN:-$here/../build/release/bin/radz-train}
seeds=${SEEDS:-1 2 3}

names() { # prefix, how many: "<P0>", "<P1>", ...
    awk -v p="$1" -v n="$2" 'BEGIN {for (i = 0; i < n; i++) printf "%s\"<%s%d>\"", i ? ", " : "", p, i}'
}

settings() { # layer, image tokens, text tokens
    sed -e "s/\"layer\": *-[0-9]*/\"layer\": $1/" -e "s/\"image\": *\[.*\]/\"image\": [$(names ImgCls "$2")]/" \
        -e "s/\"text\": *\[.*\]/\"text\": [$(names TxtCls "$3")]/" "$here/radz-tiny.init/radz.json"
}

value() { # key, file
    sed -n "s/.*\"$1\": *\([-0-9.e]*\).*/\1/p" "$2" | head -n 1
}

row() { # title, layer, image tokens, text tokens, options
    title=$1 name=$(printf %s "$1" | tr -c 'A-Za-z0-9\n' _)
    mkdir -p "$out/$name"
    settings "$2" "$3" "$4" >"$out/$name/settings.json"
    shift 4
    for seed in $seeds; do
        [ -s "$out/$name/$seed/train.json" ] || "$radz_train" --model "$out/start" --lora-rank 0 --manifest "$manifest" \
            --settings "$out/$name/settings.json" --diseases "$here/diseases.txt" --label-map "$here/label-map.csv" \
            --out "$out/$name/$seed" --seed "$seed" --epochs 1 --label-fraction 0.2 --batch 32 --lr 3e-4 --warmup 0.05 --weight-decay 0.05 \
            --no-augment --monitor Pneumonia --monitor-set kermany224 --resume --quiet "$@" </dev/null
    done
    for seed in $seeds; do
        echo "$(value monitored_auc "$out/$name/$seed/train.json") $(value macro_auc "$out/$name/$seed/train.json")"
    done | awk -v title="$title" '{a += $1; aa += $1 * $1; b += $2; bb += $2 * $2; n++}
        function sd(s, ss) {v = n > 1 ? (ss - s * s / n) / (n - 1) : 0; return sqrt(v > 0 ? v : 0)}
        END {printf "| %s | %.3f ± %.3f | %.3f ± %.3f |\n", title, a / n, sd(a, aa), b / n, sd(b, bb)}'
}

# Without what the rows change: it would favour the setting that it was trained with.
mkdir -p "$out/start"
for f in config.json preprocessor_config.json model.safetensors tokenizer.model; do cp "$stage1/$f" "$out/start/"; done

echo '| | Kermany: pneumonia or normal, AUC | mean over the labels, AUC |'
echo '|---|---|---|'
row 'as in the paper: cross, DKAM, layer -2, 4 + 8 tokens' -2 4 8 --lambda 0.5 "$@"
row 'L_CA of global vectors only' -2 4 8 --lambda 0.5 --features global "$@"
row 'L_CA of local vectors only' -2 4 8 --lambda 0.5 --features local "$@"
row 'without DKAM (L_CA alone)' -2 4 8 --lambda 1 "$@"
row 'DKAM alone (L_CG)' -2 4 8 --lambda 0 "$@"
# Layer -1 lies behind the final norm, which heads and anchors do not read.
row 'layer -3' -3 4 8 --lambda 0.5 "$@"
row 'layer -4' -4 4 8 --lambda 0.5 "$@"
row '1 + 1 tokens' -2 1 1 --lambda 0.5 "$@"
row '2 + 4 tokens' -2 2 4 --lambda 0.5 "$@"
row '8 + 16 tokens' -2 8 16 --lambda 0.5 "$@"
