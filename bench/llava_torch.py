#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Films to vectors with transformers (bf16, sdpa), the same weights as bench_net, on a GPU or the CPU: the mean of the
last rows' hidden state at radz.json's layer. The language-model head does not run: the vector does not need it.
Usage: llava_torch.py [--device cuda] [--calls 20] [--layers-all] MODEL_DIR [FILMS...]

Prints bench_net's lines. The films are on the device beforehand, which favours PyTorch. By default only the decoder
blocks that the vector depends on run (what a careful user would write); --layers-all is what output_hidden_states on
the whole model costs."""
import argparse
import json
import os
import statistics
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import LlavaForConditionalGeneration

TEXT_ROWS_BEFORE, ROWS = 5, 621  # of the prompt that bench_net's model has: a token per byte


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("model")
    p.add_argument("films", type=int, nargs="*", default=[1, 8, 32])
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--calls", type=int, default=20)
    p.add_argument("--rows", type=int, default=ROWS)
    p.add_argument("--layers-all", action="store_true")
    a = p.parse_args()
    with open(os.path.join(a.model, "radz.json")) as f:
        layer = json.load(f)["layer"]
    start = time.perf_counter()
    model = LlavaForConditionalGeneration.from_pretrained(a.model, dtype=torch.bfloat16, attn_implementation="sdpa",
                                                          device_map=a.device).eval()
    base = model.model
    text = base.language_model
    if not a.layers_all:
        text.layers = text.layers[:len(text.layers) + 1 + layer]
        text.norm = torch.nn.Identity()
        layer = -1
    config = model.config
    side, image = config.vision_config.image_size, config.image_token_index
    n_image = (side // config.vision_config.patch_size) ** 2
    ids = torch.full((1, a.rows), 7)
    ids[0, TEXT_ROWS_BEFORE:TEXT_ROWS_BEFORE + n_image] = image
    on_gpu = a.device.startswith("cuda")

    def wait():
        if on_gpu:
            torch.cuda.synchronize()

    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if on_gpu else 'cpu'}; "
          f"loaded in {time.perf_counter() - start:.1f} s; {len(text.layers)} decoder blocks run")
    with torch.inference_mode():
        for n in a.films:
            torch.manual_seed(n)
            x = torch.randn(n, 3, side, side, dtype=torch.bfloat16, device=a.device)
            batch = ids.expand(n, -1).contiguous().to(a.device)

            def call():
                out = base(input_ids=batch, pixel_values=x, use_cache=False, output_hidden_states=a.layers_all)
                h = out.hidden_states[layer] if a.layers_all else out.last_hidden_state
                return torch.nn.functional.normalize(h[:, -4:].float().mean(1), dim=-1).cpu()

            calls = (a.calls + 1) // 2 if n > 8 else a.calls
            seconds = []
            for i in range(-2, calls):
                wait()
                begin = time.perf_counter()
                vector = call()
                wait()
                if i >= 0:
                    seconds.append(time.perf_counter() - begin)
            assert torch.isfinite(vector).all()
            t = statistics.median(seconds)
            print(f"torch bf16  batch {n:2}: {1e3 * t:9.3f} ms a call (fastest {1e3 * min(seconds):.3f}), "
                  f"{n / t:8.2f} films/s", flush=True)


if __name__ == "__main__":
    main()
