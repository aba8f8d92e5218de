#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Films to vectors with PyTorch, the same weights and film as image_radz -n: transformers' CLIP tower and Mistral
decoder with fused attention, read as train_torch.py builds them. Prints "KEY VALUE" lines for turns.

film_ms is all that a program does with a decoded film (pad, resize, normalise, network); net_ms the network alone."""
import argparse
import json
import logging
import os
import statistics
import sys
import time
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy
import torch
from PIL import Image
from sentencepiece import SentencePieceProcessor

from train_torch import RadZ, load, unit

warnings.filterwarnings("ignore")  # what PyTorch says about its own future, in every round
logging.disable(logging.WARNING)


class Embedder(RadZ):
    """X_g: the special tokens' mean row at the model's layer, through gamma."""

    def prepare(self, directory, radz, preprocessor):
        tokenizer = SentencePieceProcessor(os.path.join(directory, "tokenizer.model"))
        before, after = radz["prompts"]["image"].split("<image>")
        self.before = torch.tensor([[1] + tokenizer.encode(before)])
        self.after = torch.tensor([tokenizer.encode(after)])
        self.side = preprocessor["crop_size"]["height"]
        self.mean, self.std = (torch.tensor(preprocessor[k])[:, None, None] for k in ("image_mean", "image_std"))
        self.background = tuple(int(255 * m) for m in preprocessor["image_mean"])

    def pixels(self, film):
        w, h = film.size
        square = Image.new("RGB", (max(w, h),) * 2, self.background)
        square.paste(film, ((max(w, h) - w) // 2, (max(w, h) - h) // 2))
        small = square.resize((self.side, self.side), Image.Resampling.BICUBIC)
        return (torch.from_numpy(numpy.array(small)).permute(2, 0, 1) / 255 - self.mean) / self.std

    def forward(self, pixels):
        n = len(pixels)
        image = self.projector(self.tower(pixels).last_hidden_state[:, 1:])
        words = self.decoder.get_input_embeddings()
        special = self.special_tokens.weight[:self.n_img]
        rows = torch.cat([words(self.before).expand(n, -1, -1), image, words(self.after).expand(n, -1, -1),
                          special.expand(n, -1, -1)], 1)
        h = self.decoder(inputs_embeds=rows, use_cache=False).last_hidden_state
        return unit(self.gamma_img(h[:, -self.n_img:].mean(1)))


def median_ms(fn, calls):
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        fn()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("model")
    p.add_argument("film")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--calls", type=int, default=50)
    p.add_argument("--compile", action="store_true")
    p.add_argument("--dtype", choices=("f32", "bf16", "int8"), default="f32",
                   help="int8: dynamic quantisation of every linear layer")
    p.add_argument("--vector", help="a .npy with libradz's vector of this film: stops where they do not agree")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    config, radz, preprocessor = (json.load(open(os.path.join(a.model, f)))
                                  for f in ("config.json", "radz.json", "preprocessor_config.json"))
    model = Embedder(config, radz).eval()
    load(model, a.model)
    model.prepare(a.model, radz, preprocessor)
    film = Image.open(a.film).convert("RGB")
    dtype = torch.bfloat16 if a.dtype == "bf16" else torch.float32
    model.to(dtype)
    if a.dtype == "int8":
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    run = torch.compile(model) if a.compile else model
    with torch.inference_mode():
        def film_to_vector():
            return run(torch.stack([model.pixels(film) for _ in range(a.batch)]).to(dtype))

        vector = film_to_vector()[0]
        if a.vector:
            cosine = float(unit(vector[None].float())[0] @ torch.from_numpy(numpy.load(a.vector))[0])
            print(f"cosine {cosine:.7f}")
            if cosine < (.9999 if a.dtype == "f32" else .99):
                sys.exit("embed_torch: not the same vector")
        x = torch.stack([model.pixels(film)] * a.batch).to(dtype)
        median_ms(film_to_vector, 5)
        print(f"film_ms {median_ms(film_to_vector, a.calls) / a.batch:.3f}")
        print(f"net_ms {median_ms(lambda: run(x), a.calls) / a.batch:.3f}")


if __name__ == "__main__":
    main()
