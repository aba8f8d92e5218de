#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/parity/greedy.txt: the tokens that transformers' generate finds most likely, one after another and with
its key-value cache, for the checkpoints in tests/parity/variants. A line: variant, prompt (a or b of its
expected.safetensors), tokens. tests/test_generate.c compares. Only for making the fixture.
"""
import glob
import os

import torch
from safetensors.torch import load_file

from make_variants import IMAGE_ID, VARIANTS, oracle, renamed

HERE = os.path.dirname(os.path.abspath(__file__))
N_NEW = 12


def load(spec):
    name, config, layout, dtype = spec[:4]
    model = oracle(spec[4] if len(spec) > 4 else config, torch.Generator().manual_seed(0), dtype)
    files = {}
    for path in glob.glob(f"{HERE}/variants/{name}/model*.safetensors"):
        files.update(load_file(path))
    state = {}
    for key in model.state_dict():
        there = key if layout in ("text", "sharded") else renamed(key, layout)
        if there in files:
            state[key] = files[there].float()
        elif key != "lm_head.weight":  # tied
            raise KeyError(f"{name}: {there}")
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    return model.eval()


@torch.no_grad()
def greedy(model, ids, pixels):
    ids = torch.where(ids == -1, IMAGE_ID, ids)[None].long()
    more = {} if pixels is None else {"pixel_values": pixels}
    model.generation_config.eos_token_id = None
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=N_NEW,
                         use_cache=True, pad_token_id=0, output_logits=True, return_dict_in_generate=True, **more)
    best = torch.stack(out.logits)[:, 0].topk(2).values
    return out.sequences[0, ids.shape[1]:].tolist(), float((best[:, 0] - best[:, 1]).min())


def main():
    torch.set_num_threads(1)
    lines, least = [], 9.0
    for spec in VARIANTS:
        if len(spec) > 5:  # a tower of its own: nothing new here
            continue
        want = load_file(f"{HERE}/variants/{spec[0]}/expected.safetensors")
        for prompt in ("a", "b"):
            tokens, margin = greedy(load(spec), want[prompt + ".ids"], want.get("pixels"))
            least = min(least, margin)
            lines.append(f"{spec[0]} {prompt} {' '.join(map(str, tokens))}\n")
    with open(f"{HERE}/greedy.txt", "w") as f:
        f.writelines(lines)
    print(f"{len(lines)} lines; the closest two tokens were {least:.2g} apart")


main()
