"""Converts the stories260K model of llama2.c into a Hugging Face LLaMA directory and checks it.
SPDX-License-Identifier: Apache-2.0

    python tests/parity/convert_stories.py --weights stories260K.bin --tokenizer tok512.bin \
        --golden stories260K.greedy256.txt --out tests/data/stories260K

Weights: llama2.c's first export format, 7 ints and then float32 arrays. Its rotary embedding turns neighbouring
pairs (2i, 2i+1) of a head; LLaMA in Hugging Face turns (i, i + d/2), so the rows of wq and wk change places.
Tokenizer: a score and a text per piece, where spaces stand for U+2581.
The check: transformers, from the written directory, says the golden text greedily, 256 tokens from BOS.
"""
import argparse
import json
import os
import struct

import numpy as np
from safetensors.numpy import save_file

FIELDS = ("dim", "hidden", "layers", "heads", "kv_heads", "vocab", "positions")
UNKNOWN, CONTROL, BYTE = 2, 3, 6
STEPS = 256


def read_weights(path):
    with open(path, "rb") as f:
        raw = f.read()
    c = dict(zip(FIELDS, struct.unpack("<7i", raw[:28])))
    values = np.frombuffer(raw, "<f4", offset=28)
    head = c["dim"] // c["heads"]
    kv = c["kv_heads"] * head
    at = 0

    def take(*shape):
        nonlocal at
        n = int(np.prod(shape))
        at += n
        return values[at - n:at].reshape(shape)

    w = {"embed": take(c["vocab"], c["dim"])}
    for name, shape in (("att_norm", (c["dim"],)), ("wq", (c["dim"], c["dim"])), ("wk", (kv, c["dim"])),
                        ("wv", (kv, c["dim"])), ("wo", (c["dim"], c["dim"])), ("ffn_norm", (c["dim"],)),
                        ("w1", (c["hidden"], c["dim"])), ("w2", (c["dim"], c["hidden"])),
                        ("w3", (c["hidden"], c["dim"]))):
        w[name] = take(c["layers"], *shape)
    w["norm"] = take(c["dim"])
    take(2, c["positions"], head // 2)  # tables of sines and cosines: not needed
    assert at == len(values), "the file is longer than its header says"
    return c, w


def halves(w, heads):
    """Rows (2i, 2i+1) of every head to (i, i + d/2)."""
    d = w.shape[0] // heads
    return w.reshape(heads, d // 2, 2, -1).transpose(0, 2, 1, 3).reshape(w.shape)


def tensors(c, w):
    out = {"model.embed_tokens.weight": w["embed"], "model.norm.weight": w["norm"]}
    for i in range(c["layers"]):
        p = f"model.layers.{i}."
        out[p + "self_attn.q_proj.weight"] = halves(w["wq"][i], c["heads"])
        out[p + "self_attn.k_proj.weight"] = halves(w["wk"][i], c["kv_heads"])
        out[p + "self_attn.v_proj.weight"] = w["wv"][i]
        out[p + "self_attn.o_proj.weight"] = w["wo"][i]
        out[p + "mlp.gate_proj.weight"] = w["w1"][i]
        out[p + "mlp.down_proj.weight"] = w["w2"][i]
        out[p + "mlp.up_proj.weight"] = w["w3"][i]
        out[p + "input_layernorm.weight"] = w["att_norm"][i]
        out[p + "post_attention_layernorm.weight"] = w["ffn_norm"][i]
    return {name: np.ascontiguousarray(t) for name, t in out.items()}


def config(c):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": c["vocab"],
            "hidden_size": c["dim"], "intermediate_size": c["hidden"], "num_hidden_layers": c["layers"],
            "num_attention_heads": c["heads"], "num_key_value_heads": c["kv_heads"], "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
            "max_position_embeddings": c["positions"], "attention_bias": False, "mlp_bias": False,
            "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}


def varint(v):
    out = b""
    while v > 127:
        out, v = out + bytes([v & 127 | 128]), v >> 7
    return out + bytes([v])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tokenizer_model(path, vocab):
    with open(path, "rb") as f:
        raw = f.read()
    out, at = b"", 4
    for i in range(vocab):
        score, n = struct.unpack_from("<fi", raw, at)
        text = raw[at + 8:at + 8 + n].decode().replace(" ", "\u2581")
        at += 8 + n
        if i in (1, 2):
            text = text.strip("\n")  # llama2.c writes these two on lines of their own
        piece = field(1, text.encode()) + field(2, score)
        if i < 259:
            piece += field(3, UNKNOWN if i == 0 else CONTROL if i < 3 else BYTE)
        out += field(1, piece)
    trainer = field(3, 2) + field(4, vocab) + field(35, 1) + field(40, 0) + field(41, 1) + field(42, 2)
    normalizer = field(1, b"identity") + field(3, 1) + field(4, 0) + field(5, 1)
    return out + field(2, trainer) + field(3, normalizer)


def check(out, golden):
    import sentencepiece as spm
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    ids = [1]
    with torch.no_grad():
        while len(ids) <= STEPS:
            following = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if following == 1:
                break
            ids.append(following)
    tokenizer = spm.SentencePieceProcessor(model_file=os.path.join(out, "tokenizer.model"))
    assert tokenizer.decode(ids[1:]) == golden.rstrip("\n"), "transformers says another text"
    with open(os.path.join(out, "greedy256.ids.txt"), "w", encoding="ascii") as f:
        f.write(" ".join(map(str, ids)) + "\n")
    print(len(ids) - 1, "tokens as in the golden text")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("weights", "tokenizer", "golden", "out"):
        parser.add_argument("--" + name, required=True)
    args = parser.parse_args()
    c, w = read_weights(args.weights)
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, "config.json"), "w", encoding="ascii") as f:
        json.dump(config(c), f, indent=2)
        f.write("\n")
    save_file(tensors(c, w), os.path.join(args.out, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(args.out, "tokenizer.model"), "wb") as f:
        f.write(tokenizer_model(args.tokenizer, c["vocab"]))
    with open(args.golden, encoding="utf-8") as f:
        golden = f.read()
    with open(os.path.join(args.out, "greedy256.txt"), "w", encoding="utf-8") as f:
        f.write(golden)
    check(args.out, golden)


if __name__ == "__main__":
    main()
