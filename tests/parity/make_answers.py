#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/parity/answers: the next-token loss of transformers on three prompts of the committed variants (labels
-100 outside of the answers, mean over all answer tokens), and every gradient. tests/test_answers.c compares.

Only for making fixtures; the tests themselves need no Python.
"""
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import load_file, save_file

import make_variants as mv

# An untied Mistral with a sliding window and a tied one; prompts are longer than the window.
NAMES = ["window", "defaults_mistral"]
# film?, prompt tokens around the film, answer tokens
ITEMS = [(True, 6, 4), (True, 11, 1), (False, 9, 5)]


def load(spec):
    name, config, layout, dtype = spec[:4]
    truth = spec[4] if len(spec) > 4 else config
    model = mv.oracle(truth, torch.Generator().manual_seed(0), dtype)
    stored = load_file(os.path.join(here, "variants", name, "model.safetensors"))
    state = {k: stored[mv.renamed(k, layout)].float() for k in model.state_dict() if mv.renamed(k, layout) in stored}
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert all("position_ids" in k or "lm_head" in k for k in missing), missing
    model.tie_weights()
    return model


def batch(gen):
    rows = (mv.SIDE // mv.PATCH) ** 2
    films = torch.randn(sum(f for f, _, _ in ITEMS), 3, mv.SIDE, mv.SIDE, generator=gen)
    prompts = []
    for film, n, answer in ITEMS:
        ids = torch.randint(0, 60, (n + answer,), generator=gen)
        if film:
            ids = torch.cat([ids[:2], torch.full((rows,), mv.IMAGE_ID), ids[2:]])
        prompts.append(ids)
    return films, prompts


def answers(spec, seed):
    gen = torch.Generator().manual_seed(seed)
    model = load(spec)
    films, prompts = batch(gen)
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (p, (_, _, n)) in enumerate(zip(prompts, ITEMS)):
        ids[i, :len(p)], mask[i, :len(p)] = p, 1
        labels[i, len(p) - n:len(p)] = p[-n:]
    got = model(input_ids=ids, attention_mask=mask, pixel_values=films, labels=labels)
    got.loss.backward()
    out = {"pixels": films, "loss": got.loss.detach().reshape(1)}
    logp = got.logits.detach().log_softmax(-1)
    for i, (p, (_, _, n)) in enumerate(zip(prompts, ITEMS)):
        out[f"{i}.ids"] = torch.where(p == mv.IMAGE_ID, -1, p).int()
        out[f"{i}.answer"] = torch.tensor([n], dtype=torch.int32)
        out[f"{i}.loss"] = -sum(logp[i, len(p) - k - 1, p[len(p) - k]] for k in range(1, n + 1)).reshape(1)
    for name, p in model.named_parameters():
        if p.grad is not None:
            out["grad." + mv.renamed(name, "old")] = p.grad
    return {k: v.contiguous().clone() for k, v in out.items()}


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    torch.set_num_threads(1)
    for i, name in enumerate(NAMES):
        spec = next(v for v in mv.VARIANTS if v[0] == name)
        path = os.path.join(here, "answers", name + ".safetensors")
        save_file(answers(spec, 7 + i), path, {"format": "pt"})
        os.chmod(path, 0o644)
