#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Parity with fresh random checkpoints: live.py TEST_VARIANTS [SEED]

Makes a virtual environment in build/parity, installs PyTorch, transformers and peft there, makes every variant of
make_variants.py with new weights and a few with new settings, and has the test program compare. Not part of make check.

The oracle computes in float64: random models can be so ill-conditioned that two float32 results, each within 1e-5 of
the truth, lie further apart than that.
"""
import os
import random
import subprocess
import sys
import venv

HERE = os.path.dirname(os.path.abspath(__file__))
WORK = os.path.join("build", "parity")
PACKAGES = ["torch", "transformers", "peft", "safetensors", "numpy", "sentencepiece", "pillow"]


def environment():
    """Runs this script again inside the environment."""
    python = os.path.join(WORK, "venv", "bin", "python")
    if not os.path.exists(os.path.join(WORK, "venv", "installed")):
        venv.create(os.path.join(WORK, "venv"), with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        open(os.path.join(WORK, "venv", "installed"), "w").close()
    sys.exit(subprocess.run([python, __file__, *sys.argv[1:]], env=dict(os.environ, RADZ_PARITY_VENV="1")).returncode)


def random_variants(mv, rng):
    """Settings drawn anew: sizes, rope, window, layers, biases, dtype, layout."""
    made = []
    for i in range(8):
        heads = rng.choice([2, 4, 6])
        text = dict(mv.LLAMA, num_hidden_layers=rng.randint(2, 4), num_attention_heads=heads, hidden_size=heads * rng.choice([4, 8]),
                    num_key_value_heads=rng.choice([k for k in (1, 2, heads) if heads % k == 0]),
                    intermediate_size=rng.randint(8, 40), tie_word_embeddings=rng.random() < .5,
                    rope_theta=rng.choice([100.0, 1e4, 1e6]), attention_bias=rng.random() < .5, mlp_bias=rng.random() < .5)
        kind = rng.choice(["default", "linear", "dynamic", "llama3"])
        if kind != "default":
            text["rope_scaling"] = {"rope_type": kind, "factor": rng.uniform(1.5, 8)}
            text["max_position_embeddings"] = rng.choice([12, 64])
        if kind == "llama3":
            text["rope_scaling"].update(low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
        if rng.random() < .5:
            text = {k: v for k, v in text.items() if not k.endswith("_bias")} | {"model_type": "mistral",
                    "sliding_window": rng.choice([None, 3, 7])}
        layers = rng.choice([-2, -1, [rng.randint(-4, 3) for _ in range(rng.randint(1, 4))]])
        more = dict(vision_feature_layer=layers, vision_feature_select_strategy=rng.choice(["default", "full"]),
                    multimodal_projector_bias=rng.random() < .5,
                    projector_hidden_act=rng.choice(["gelu", "silu", "relu", "gelu_pytorch_tanh"]))
        vision = dict(mv.VISION, hidden_act=rng.choice(["quick_gelu", "gelu"]), intermediate_size=rng.randint(8, 40))
        made.append((f"random_{i}", mv.llava(text, vision, **more), rng.choice(["new", "old", "v5"]),
                     rng.choice(["F32", "F16", "BF16"])))
    return made


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if "RADZ_PARITY_VENV" not in os.environ:
        environment()
    sys.path.insert(0, HERE)
    import make_variants as mv
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}", flush=True)
    out = os.path.join(WORK, "variants")
    mv.make_all(out, mv.VARIANTS + random_variants(mv, random.Random(seed)), mv.ADAPTERS, seed,
                mv.exact_stages)
    sys.exit(subprocess.run([sys.argv[1], out]).returncode)


if __name__ == "__main__":
    main()
