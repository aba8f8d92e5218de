#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/parity/answers/head.safetensors: sigmoid cross-entropy of a linear head where not every class is known of
every film, by PyTorch; and ten steps of AdamW on the head. tests/test_classes.c compares.

Only for making fixtures; the tests themselves need no Python.
"""
import os

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

FILMS, CLASSES, DIM = 7, 3, 16

if __name__ == "__main__":
    torch.set_num_threads(1)
    gen = torch.Generator().manual_seed(5)
    x = F.normalize(torch.randn(FILMS, DIM, generator=gen)).requires_grad_()
    head = torch.nn.Linear(DIM, CLASSES)
    head.weight.data, head.bias.data = torch.randn(CLASSES, DIM, generator=gen), torch.randn(CLASSES, generator=gen)
    truth = (torch.rand(FILMS, CLASSES, generator=gen) < 0.4).float()
    keep = (torch.rand(FILMS, CLASSES, generator=gen) < 0.7).float()
    keep[2] = 0  # a film of which nothing is known
    out = {"x": x, "weight": head.weight, "bias": head.bias, "truth": truth, "keep": keep, "logits": head(x)}
    out = {k: v.detach().clone() for k, v in out.items()}
    opt = torch.optim.AdamW(head.parameters(), lr=0.05, weight_decay=0)
    losses = []
    for step in range(10):
        opt.zero_grad()
        x.grad = None
        loss = F.binary_cross_entropy_with_logits(head(x), truth, weight=keep, reduction="sum") / keep.sum()
        loss.backward()
        if not step:
            out.update({"dx": x.grad.clone(), "dweight": head.weight.grad.clone(), "dbias": head.bias.grad.clone()})
        losses.append(loss.detach())
        opt.step()
    out.update({"losses": torch.stack(losses), "after.weight": head.weight.detach(), "after.bias": head.bias.detach()})
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "answers", "head.safetensors")
    save_file({k: v.contiguous() for k, v in out.items()}, path, {"format": "pt"})
    os.chmod(path, 0o644)
