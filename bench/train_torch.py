#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The training step of bench_train.c in PyTorch: transformers' CLIP tower and Mistral decoder from the same config, the
same films and texts, AdamW. Usage: train_torch.py [-d cuda] [-l RANK] [-r] MODEL_DIR [films [threads [steps [SAVE_DIR]]]];
SAVE_DIR holds weights that bench_train has saved: the losses must then agree. -l: peft's LoRA on every linear layer of
the decoder, weights of MODEL_DIR in bfloat16 under it, tower frozen; -r: gradient checkpointing.

No padding anywhere (all films have one length, all texts another) and causal attention without a mask: the shapes that
suit PyTorch best."""
import argparse
import glob
import json
import os
import resource
import statistics
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, MistralConfig, MistralModel

WORDS, TEXT_ROWS, DISEASES = 16, 40, 15


class Head(nn.Module):
    def __init__(self, hidden, wide, dim):
        super().__init__()
        self.norm = nn.LayerNorm(hidden, eps=1e-5)
        self.linear_1 = nn.Linear(hidden, wide)
        self.linear_2 = nn.Linear(wide, dim)

    def forward(self, x):
        return self.linear_2(F.gelu(self.linear_1(self.norm(x))))


class RadZ(nn.Module):
    def __init__(self, cfg, radz):
        super().__init__()
        v, t, gamma = cfg["vision_config"], cfg["text_config"], radz["gamma"]
        self.n_img, self.n_txt = (len(radz["special_tokens"][k]) for k in ("image", "text"))
        self.vocab, c = t["vocab_size"], t["hidden_size"]
        layers = t["num_hidden_layers"] + 1 + radz["layer"]
        text = MistralConfig(**{k: x for k, x in t.items() if k not in ("model_type", "rope_theta")} |
                             {"num_hidden_layers": layers, "rope_parameters": {"rope_type": "default",
                                                                               "rope_theta": t["rope_theta"]}})
        text._attn_implementation = "sdpa"
        vision = CLIPVisionConfig(**{k: x for k, x in v.items() if k != "model_type"})
        vision._attn_implementation = "sdpa"
        self.tower, self.decoder = CLIPVisionModel(vision), MistralModel(text)
        self.decoder.norm = nn.Identity()  # the vectors are read before it
        self.special_tokens = nn.Embedding(self.n_img + self.n_txt, c)
        self.projector = nn.Sequential(nn.Linear(v["hidden_size"], c), nn.GELU(), nn.Linear(c, c))
        self.gamma_img, self.gamma_txt, self.gamma_dis = (
            nn.Identity() if gamma["type"] == "identity" else Head(c, gamma["hidden"], gamma["dim"]) for _ in range(3))
        core = getattr(self.tower, "vision_model", self.tower)
        core.post_layernorm = nn.Identity()  # of the class row, which nothing reads

    def rows(self, x, ids, first, n):
        """Rows of items that end in special tokens: x (image rows or None), words, tokens first .. first + n - 1."""
        special = self.special_tokens.weight[first:first + n].expand(len(ids), -1, -1)
        parts = [self.decoder.get_input_embeddings()(ids), special]
        h = self.decoder(inputs_embeds=torch.cat(([x] if x is not None else []) + parts, 1),
                         use_cache=False).last_hidden_state
        return h[:, -n:].mean(1), h[:, :-n].mean(1)

    def forward(self, pixels, film_ids, text_ids):
        image = self.projector(self.tower(pixels).last_hidden_state[:, 1:])
        x = self.rows(image, film_ids, 0, self.n_img)
        y = self.rows(None, text_ids, self.n_img, self.n_txt)  # texts, then diseases
        b = len(film_ids)
        xg, xl = (unit(self.gamma_img(r)) for r in x)
        yg, yl = (unit(self.gamma_txt(r[:b])) for r in y)
        return xg, xl, yg, yl, unit(self.gamma_dis(y[0][b:]))


def unit(x):
    return F.normalize(x, eps=1e-12)


def loss(xg, xl, yg, yl, d, tau, lam=0.5):
    same = torch.arange(len(xg), device=xg.device)
    classes = same % DISEASES

    def pair(a, b):
        logits = a @ b.T / tau
        return 0.5 * (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same))

    ca = 0.5 * (pair(xg, yl) + pair(xl, yg))
    cg = 0.5 * (F.cross_entropy(xg @ d.T / tau, classes) + F.cross_entropy(yg @ d.T / tau, classes))
    return lam * ca + (1 - lam) * cg


def load(model, path):
    from safetensors.torch import load_file
    stored = {}
    for file in glob.glob(os.path.join(path, "*.safetensors")):
        stored |= load_file(file)
    linears = {"0": "linear_1", "2": "linear_2"}
    for name, p in model.named_parameters():
        part, rest = name.split(".", 1)
        if part == "tower":
            name = "vision_tower.vision_model." + rest.removeprefix("vision_model.")
        elif part == "decoder":
            name = "language_model.model." + rest
        elif part == "projector":
            name = f"multi_modal_projector.{linears[rest[0]]}{rest[1:]}"
        p.data.copy_(stored[name])


def words(vocab, items, n):
    return torch.tensor([[3 + (7 * i + 13 * r) % (vocab - 8) for r in range(n)] for i in items])


def with_lora(model, path, rank):
    """Weights of the files in bfloat16, frozen but for the projector and the special rows; adapters in float."""
    from peft import LoraConfig, inject_adapter_in_model
    model.to(torch.bfloat16)
    load(model, path)
    model.requires_grad_(False)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), model.decoder)
    for name, p in model.named_parameters():
        if "lora_" in name or name.startswith(("projector", "special_tokens")):
            p.requires_grad_(True)
            if "lora_" in name:
                p.data = p.data.float()


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-d", dest="device", default="cpu")
    p.add_argument("-l", dest="rank", type=int, default=0)
    p.add_argument("-r", dest="recompute", action="store_true")
    p.add_argument("model_dir")
    p.add_argument("films", type=int, nargs="?", default=32)
    p.add_argument("threads", type=int, nargs="?", default=1)
    p.add_argument("steps", type=int, nargs="?", default=5)
    p.add_argument("weights", nargs="?", metavar="SAVE_DIR")
    a = p.parse_args()
    model_dir, films, threads, steps = a.model_dir, a.films, a.threads, a.steps
    torch.set_num_threads(threads)
    with open(os.path.join(model_dir, "config.json")) as f:
        cfg = json.load(f)
    with open(os.path.join(model_dir, "radz.json")) as f:
        radz = json.load(f)
    torch.manual_seed(1)
    with torch.device(a.device):
        model = RadZ(cfg, radz).train()
    if a.weights:
        load(model, a.weights)
    if a.rank:
        with_lora(model, model_dir, a.rank)
    if a.recompute:
        model.decoder.gradient_checkpointing_enable({"use_reentrant": False})
    side, patch = cfg["vision_config"]["image_size"], cfg["vision_config"]["patch_size"]
    i = numpy.arange(films * 3 * side * side, dtype=numpy.uint32)
    pixels = torch.from_numpy((i * numpy.uint32(2654435761) >> 8).astype(numpy.float32) * 2.0 ** -23 - 1)
    pixels = pixels.reshape(films, 3, side, side)
    pixels = pixels.to(a.device, torch.bfloat16 if a.rank else torch.float32)
    film_ids = words(model.vocab, range(films), WORDS).to(a.device)
    text_ids = words(model.vocab, range(films, 2 * films + DISEASES), TEXT_ROWS - model.n_txt).to(a.device)
    trained = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(trained, lr=1e-4, betas=(.9, .999), eps=1e-8, weight_decay=.01)

    def step():
        opt.zero_grad()
        value = loss(*model(pixels, film_ids, text_ids), radz["tau"])
        value.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        opt.step()
        return value.item()

    rows = (side // patch) ** 2
    tokens = films * (rows + 1 + rows + WORDS + model.n_img + TEXT_ROWS) + DISEASES * TEXT_ROWS
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    first = last = step()
    wall, processor = [], []
    for _ in range(steps):
        start, start_processor = time.perf_counter(), time.process_time()
        last = step()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    t, p = statistics.median_high(wall), statistics.median_high(processor)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"torch {threads} threads {1e3 * t:9.1f} ms/step {1e3 * p:9.1f} ms processor {tokens / t:8.0f} tokens/s "
          f"{films / t:7.1f} films/s {peak:6.0f} MiB  loss {first:.5f} -> {last:.5f}  "
          f"({before:.0f} MiB before the first step)")
    if a.device.startswith("cuda"):
        print(f"torch peak on the GPU: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
