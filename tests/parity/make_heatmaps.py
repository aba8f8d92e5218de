#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/parity/heatmaps.safetensors: heat maps of the films of llava_tiny as PyTorch and transformers' eager
attention (output_attentions) give them. See README.md beside this file."""
import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration
from torch import nn

from make_llava import IMAGE_ID, LAYER, VOCAB, Head, RadZ, numbers, unit

HERE = os.path.dirname(os.path.abspath(__file__))
TINY = os.path.join(HERE, "llava_tiny")


def load():
    llava = LlavaForConditionalGeneration.from_pretrained(TINY, attn_implementation="eager", dtype=torch.float32).eval()
    file = load_file(os.path.join(TINY, "radz.safetensors"))
    hidden = file["special_tokens.weight"].shape[1]
    heads = nn.ModuleDict({k: Head(hidden) for k in ("gamma_img", "gamma_txt", "gamma_dis")})
    heads.load_state_dict({n: t for n, t in file.items() if n.startswith("gamma_")})
    return RadZ(llava, file["special_tokens.weight"], heads.state_dict(), file["log_tau"])


def image_rows(radz, pixels, full):
    """Rows of the projector; full: the class row stays in front."""
    states = radz.llava.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    return radz.llava.model.multi_modal_projector(states[-2] if full else states[-2][:, 1:])[0]


def decoder_input(radz, ids, rows):
    table = radz.llava.get_input_embeddings()
    x = table(torch.tensor([max(i, 0) for i in ids])).detach().clone()
    x[torch.tensor([i < 0 for i in ids])] = rows.detach()
    return x.requires_grad_()


def run(radz, x):
    o = radz.llava.model.language_model(inputs_embeds=x[None], output_hidden_states=True, output_attentions=True)
    return [h[0] for h in o.hidden_states], [a[0].mean(0).detach().double() for a in o.attentions]


def attention_maps(attentions, special, patches, first):
    n = attentions[0].shape[0]
    rollout = torch.eye(n, dtype=torch.float64)
    for a in attentions[first:]:
        rollout = (a + torch.eye(n, dtype=torch.float64)) / 2 @ rollout
    mean = torch.stack(attentions[first:]).mean(0)
    return rollout[special][:, patches].mean(0), mean[special][:, patches].mean(0)


def maps(radz, ids, rows, anchor, reference, out, name):
    special = torch.tensor([i >= VOCAB for i in ids])
    places = [t for t, i in enumerate(ids) if i < 0]
    patches = torch.tensor(places[-16:])  # a class row comes before them
    gamma = radz.heads["gamma_img"]
    # transformers' last hidden state is after the final norm, as the library's layer -1
    for label, layer in (("", LAYER), ("last.", -1)):
        for direction, d in (("", anchor), ("contrast.", anchor - reference)):
            x = decoder_input(radz, ids, rows)
            states, attentions = run(radz, x)
            h = states[layer]
            out[f"{name}.{label}{direction}similarity"] = numbers(unit(gamma(h[patches])) @ d)
            score = unit(gamma(h[special].mean(0))) @ d
            score.backward()
            out[f"{name}.{label}{direction}gradient"] = numbers((x * x.grad).sum(-1)[patches])
        blocks = attentions[: len(states) + layer]
        for first in (0, 1):
            rollout, mean = attention_maps(blocks, special, patches, first)
            out[f"{name}.{label}rollout.{first}"] = numbers(rollout)
            out[f"{name}.{label}mean.{first}"] = numbers(mean)


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    radz = load()
    expected = load_file(os.path.join(TINY, "expected.safetensors"))
    anchor = expected["dis0.unit.mean_then_mlp"][0]
    reference = unit(torch.randn(anchor.shape, generator=torch.Generator().manual_seed(7)))
    out = {"anchor": anchor.clone(), "reference": reference}
    for i in range(2):
        ids, pixels = expected[f"img{i}.ids"].tolist(), expected["pixels"][i:i + 1]
        maps(radz, ids, image_rows(radz, pixels, False), anchor, reference, out, f"img{i}")
        at = ids.index(-1)
        maps(radz, ids[:at] + [-1] + ids[at:], image_rows(radz, pixels, True), anchor, reference, out, f"full{i}")
    assert json.load(open(os.path.join(TINY, "radz.json")))["layer"] == LAYER and IMAGE_ID < VOCAB
    path = os.path.join(HERE, "heatmaps.safetensors")
    save_file(out, path)
    os.chmod(path, 0o644)
    print({k: [round(v, 4) for v in t[:4].tolist()] for k, t in out.items() if k.startswith("img0")})


if __name__ == "__main__":
    main()
