#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What radz-train writes, in transformers and peft: adapter_check.py RADZ_TRAIN RADZ_EMBED

Trains LoRA on the model of llava_tiny with films made here, loads base and adapter with peft, and compares the vectors of
a text with those of radz-embed; then the same with whole weights, LoRA added in. Needs torch, transformers, peft, safetensors, sentencepiece. Not part of make check.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy
import peft
import torch
from PIL import Image
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor
from transformers import LlavaForConditionalGeneration

import make_llava as ml

TINY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "llava_tiny")
TEXT = "No finding."


def films(where):
    rng = numpy.random.default_rng(1)
    with open(os.path.join(where, "films.csv"), "w") as f:
        f.write("path,labels\n")
        for i in range(8):
            Image.fromarray(rng.integers(0, 120 + 60 * (i % 2), (40, 40)).astype("uint8")).save(os.path.join(where, f"{i}.png"))
            f.write(f"{i}.png,{'Ill' if i % 2 else 'No Finding'}\n")
    with open(os.path.join(where, "diseases.txt"), "w") as f:
        f.write("No Finding: nothing to see\nIll: a bright film\n")


def their_vector(base, adapter=None):
    """From base and adapter, or from a directory of whole weights."""
    model = LlavaForConditionalGeneration.from_pretrained(base, attn_implementation="eager", dtype=torch.float32)
    if adapter:
        model = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
    model = model.eval()
    radz = load_file(os.path.join(adapter or base, "radz.safetensors"))
    heads = {k: v for k, v in radz.items() if k.startswith("gamma_")}
    net = ml.RadZ(model, radz["special_tokens.weight"], heads, radz["log_tau"])
    sp = SentencePieceProcessor(model_file=os.path.join(base, "tokenizer.model"))
    with torch.no_grad():
        return ml.unit(net.vectors("gamma_txt", ml.prompt_ids(sp, "gamma_txt", TEXT))[0]).numpy()


def our_vector(embed, base, adapter, where):
    out = os.path.join(where, "v.npy")
    with open(os.path.join(where, "texts.txt"), "w") as f:
        f.write(TEXT + "\n")
    subprocess.run([embed, "--model", adapter, "--out", out, "--texts", os.path.join(where, "texts.txt")], check=True)
    return numpy.load(out)[0]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    train, embed = sys.argv[1:]
    where = tempfile.mkdtemp()
    try:
        films(where)
        out = os.path.join(where, "out")
        command = [train, "--model", TINY, "--manifest", os.path.join(where, "films.csv"), "--diseases",
                   os.path.join(where, "diseases.txt"), "--batch", "4", "--epochs", "6", "--lr", "1e-2", "--quiet"]
        subprocess.run(command + ["--out", out], check=True)
        saved = load_file(os.path.join(out, "adapter_model.safetensors"))
        fresh = peft.PeftModel.from_pretrained(LlavaForConditionalGeneration.from_pretrained(TINY), out)
        loaded = peft.get_peft_model_state_dict(fresh)
        assert set(loaded) == set(saved), set(loaded) ^ set(saved)
        assert all(torch.equal(loaded[n], saved[n]) for n in saved)
        off = abs(their_vector(TINY, out) - our_vector(embed, TINY, out, where)).max()
        base = abs(their_vector(TINY, out) - our_vector(embed, TINY, TINY, where)).max()
        whole = os.path.join(where, "whole")
        subprocess.run(command + ["--out", whole, "--merge-lora"], check=True)
        merged = abs(their_vector(whole) - our_vector(embed, TINY, whole, where)).max()
        print(json.dumps({"tensors": len(saved), "off": float(off), "whole weights are off by": float(merged),
                          "base is off by": float(base)}))
        assert off < 1e-5 < base and merged < 1e-5
    finally:
        shutil.rmtree(where)


if __name__ == "__main__":
    main()
