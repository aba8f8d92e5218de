"""Trains the tokenizer.model of radz-tiny with the sentencepiece package. SPDX-License-Identifier: Apache-2.0

    python models/make_tokenizer.py --manifest index.csv [--diseases models/diseases.txt] [--out DIR]

What it reads: the disease descriptions, the label combinations of the manifest (columns labels, split) as the
sentences that training shows the model, and the manifest's texts of set "vqarad" (VQA-RAD, CC0), split train only.
Needed once, to make the file that is committed; neither building nor using libradz needs Python.
"""
import argparse
import csv
import io
import json
import os

import sentencepiece as spm

HERE = os.path.dirname(os.path.abspath(__file__))
# One row of the embedding table is left for the image token, so 767 pieces for a vocabulary of 768.
PIECES = 767
# How often each source counts. Names of findings come first: they should be one piece per word.
NAMES, DESCRIPTIONS, PROMPTS, TEXTS = 60, 12, 40, 1


def read_descriptions(path):
    with open(path, encoding="utf-8") as f:
        lines = [line.strip() for line in f if line.strip() and not line.startswith("#")]
    return [tuple(part.strip() for part in line.split(":", 1)) for line in lines]


def read_map(path):
    with open(path, encoding="utf-8", newline="") as f:
        return {row["from"]: row["to"] for row in csv.DictReader(f)}


def sentences(args):
    diseases = read_descriptions(args.diseases)
    names = read_map(args.label_map)
    with open(os.path.join(args.out, "radz.json"), encoding="utf-8") as f:
        prompts = json.load(f)["prompts"]
    with open(args.manifest, encoding="utf-8", newline="") as f:
        rows = [row for row in csv.DictReader(f) if row["split"] == "train"]
    combinations = sorted({row["labels"] for row in rows if row["labels"]})
    labels = {names.get(label, label.replace("_", " ")) for c in combinations for label in c.split("|")}
    for label in sorted(labels | {label for label, _ in diseases}):
        for _ in range(NAMES):
            yield label
            yield label.lower()
    for _, description in diseases:
        for _ in range(DESCRIPTIONS):
            yield description
            yield description.lower()
    for combination in combinations:
        text = ", ".join(names.get(label, label.replace("_", " ")) for label in combination.split("|"))
        yield prompts["labels"].replace("{labels}", text)
        yield prompts["labels"].replace("{labels}", text).lower()
    for prompt in (prompts["image"], prompts["text"]):
        for _ in range(PROMPTS):
            yield from prompt.replace("<image>", "").replace("{text}", "").strip().split("\n")
    for row in rows:
        if row["set"] == "vqarad" and row["text"]:
            for _ in range(TEXTS):
                yield row["text"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--diseases", default=os.path.join(HERE, "diseases.txt"))
    parser.add_argument("--label-map", default=os.path.join(HERE, "label-map.csv"))
    parser.add_argument("--out", default=os.path.join(HERE, "radz-tiny.init"))
    args = parser.parse_args()
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=sentences(args), model_writer=model, model_type="bpe", vocab_size=PIECES,
        byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=True,
        remove_extra_whitespaces=False, split_digits=True, character_coverage=1.0, num_threads=1,
        required_chars="".join(map(chr, range(0x21, 0x7F))), unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=1)
    with open(os.path.join(args.out, "tokenizer.model"), "wb") as f:
        f.write(model.getvalue())
    tokenizer = spm.SentencePieceProcessor(model_proto=model.getvalue())
    print(tokenizer.get_piece_size(), "pieces")
    for label, description in read_descriptions(args.diseases):
        print(tokenizer.encode(label, out_type=str), tokenizer.encode(label.lower(), out_type=str),
              f"description: {len(tokenizer.encode(description))} tokens for {len(description.split())} words")


if __name__ == "__main__":
    main()
