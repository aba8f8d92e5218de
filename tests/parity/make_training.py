#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/parity/training: what PyTorch and peft compute when the model of llava_tiny is trained in other ways than
as a whole: LoRA, frozen parts, weights in bfloat16, a learnable temperature, gamma the identity, and as the authors' code
does it. Batch and weights are those of llava_tiny.

Only for making fixtures; the tests themselves need no Python. See README.md beside this file.
"""
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import peft
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

import make_llava as ml

HERE = os.path.dirname(os.path.abspath(__file__))
TINY, OUT = os.path.join(HERE, "llava_tiny"), os.path.join(HERE, "training")
TABLE = "language_model.model.embed_tokens.weight"
ALL = "self_attn.(q|k|v|o)_proj|mlp.(gate|up|down)_proj"
# name: LoRA (rank, alpha, rslora, modules), prefixes of the base's own trained weights, rest
CONFIGS = {
    "lora": dict(lora=(4, 8, False, ALL), own=()),
    "lora_rs_projector": dict(lora=(3, 6, True, "self_attn.(q|v)_proj"), own=("multi_modal_projector.",)),
    "lora_bf16": dict(lora=(4, 8, False, ALL), own=(), bf16=True),
    "tau_mlp_first": dict(lora=None, own=("vision_tower.", "multi_modal_projector.", "language_model."), learn_tau=True,
                          mlp_then_mean=True),
    "identity": dict(lora=None, own=("vision_tower.", "multi_modal_projector.", "language_model."), identity=True),
    "half": dict(lora=None, own=("vision_tower.", "multi_modal_projector.", "language_model."), half=True),
    "refcode": dict(lora=(4, 8, False, ALL), own=(), mlp_then_mean=True, refcode=True),
}
POSITIONS = "vision_tower.vision_model.embeddings.position_embedding.weight"


def rounded(x, on):
    return x.to(torch.bfloat16).float() if on else x


def oracle(bf16):
    llava = LlavaForConditionalGeneration.from_pretrained(TINY, attn_implementation="eager", dtype=torch.float32).eval()
    for p in llava.parameters():
        p.data = rounded(p.data, bf16)
    radz = load_file(os.path.join(TINY, "radz.safetensors"))
    heads = {k: rounded(v, bf16) for k, v in radz.items() if k.startswith("gamma_")}
    return ml.RadZ(llava, rounded(radz["special_tokens.weight"], bf16), heads, radz["log_tau"])


def our_names(radz):
    names = {n.replace(".base_layer.", ".").replace(".default.", "."): p for n, p in ml.state_names(radz.llava).items()}
    names.update(radz.heads.named_parameters())
    names["log_tau"] = radz.log_tau
    return names


def by_place(radz, kind, ids, pixels=None):
    """The authors' code: the last n rows whatever they are, gamma row by row; a disease: rows of the embedding table."""
    gamma = radz.heads[kind]
    if kind == "gamma_dis":
        d = gamma(radz.llava.get_input_embeddings().weight[torch.tensor(ids)]).mean(0)
        return d, d
    n = ml.N_IMG if kind == "gamma_img" else ml.N_TXT
    h = radz.hidden_states(ids, pixels).hidden_states[ml.LAYER][0]
    return gamma(h[-n:]).mean(0), gamma(h[:-n]).mean(0)


@torch.no_grad()
def fused_scores(radz, sp, out):
    """As the trained model scores afterwards: without special tokens, through the anchors, classes exclude each other."""
    labels = ["No Finding", "Pneumonia", "Effusion", "Mass"]
    films = load_file(os.path.join(TINY, "expected.safetensors"))["pixels"]
    bare = lambda ids: [i for i in ids if i < ml.VOCAB]
    sentences = [f"This is a chest X-ray showing {c}." for c in labels]
    x = [by_place(radz, "gamma_img", bare(ml.prompt_ids(sp, "gamma_img")), films[i:i + 1])[0] for i in range(2)]
    y = [by_place(radz, "gamma_txt", bare(ml.prompt_ids(sp, "gamma_txt", t)))[0] for t in sentences]
    d = [by_place(radz, "gamma_dis", [ml.BOS] + sp.encode(t))[0] for t in ml.DISEASES]
    x, y, d = (ml.unit(torch.stack(v)) for v in (x, y, d))
    tau = radz.log_tau.exp()
    logits = (x @ d.T / tau) @ (y @ d.T / tau).T
    out.update({"films": ml.numbers(x), "texts": ml.numbers(y), "anchors": ml.numbers(d),
                "probability": ml.numbers(logits.softmax(-1))})


def halves(names):
    """Matrices that are bfloat16 in the forward and backward pass, beside a float master: of the table not the special
    rows."""
    for n, p in names.items():
        if p.dim() >= 2 and not n.startswith("gamma_") and n != POSITIONS:
            yield p, p[:ml.VOCAB] if n == TABLE else p


def train(name, lora=None, own=(), bf16=False, learn_tau=False, mlp_then_mean=False, identity=False, half=False,
          refcode=False):
    gen = torch.Generator().manual_seed(len(name))
    data = load_file(os.path.join(TINY, "grads.safetensors"))
    radz = oracle(bf16)
    if lora:
        r, alpha, rslora, modules = lora
        config = peft.LoraConfig(r=r, lora_alpha=alpha, use_rslora=rslora, lora_dropout=0.0,
                                 target_modules=rf"model\.language_model\.layers\.(0|1|2)\.({modules})")
        peft.inject_adapter_in_model(config, radz.llava)
    names, out = our_names(radz), {}
    heads = () if identity else ("gamma_",)
    trained = [n for n in names if "lora_" in n or n.startswith(heads + tuple(own)) or n == TABLE and not refcode]
    trained += ["log_tau"] if learn_tau else []
    for n, p in names.items():
        p.requires_grad_(n in trained)
        if "lora_" in n:
            p.data = 0.1 * torch.randn(p.shape, generator=gen)
            out["start." + n] = ml.numbers(p)
    if TABLE in trained and "language_model." not in own:  # of the table only the special rows change
        names[TABLE].register_hook(lambda g: torch.cat([torch.zeros_like(g[:ml.VOCAB]), g[ml.VOCAB:]]))
    ids = lambda kind, n: [data[f"{kind}{i}.ids"].tolist() for i in range(n)]
    targets, keep, keep_classes = data["targets"], data["keep"], data["keep_classes"]
    batch = [ids("img", 3), ids("txt", 3), ids("dis", 4)]
    plain = radz.vectors
    if refcode:
        sp = sentencepiece.SentencePieceProcessor(model_file=os.path.join(TINY, "tokenizer.model"))
        batch[2] = [[ml.BOS] + sp.encode(t) for t in ml.DISEASES]
        targets, keep, keep_classes = torch.eye(4)[torch.arange(3) % 4], None, None
        radz.vectors = lambda kind, i, pixels=None: by_place(radz, kind, i, pixels)
    elif mlp_then_mean or identity:
        radz.vectors = lambda kind, i, pixels=None: plain(kind, i, pixels, mlp_then_mean, identity)
    opt = torch.optim.AdamW([names[n] for n in trained], lr=1e-3, weight_decay=0.0)
    trace = []

    def put(prefix, n, value):
        if n == TABLE:
            if "language_model." in own:
                out[prefix + n] = ml.numbers(value[:ml.VOCAB])
            out[prefix + "special_tokens.weight"] = ml.numbers(value[ml.VOCAB:])
        else:
            out[prefix + n] = ml.numbers(value)

    for step in range(10):
        opt.zero_grad()
        master = [(p, p.data.clone()) for p, _ in halves(names)] if half else []
        for _, part in halves(names) if half else []:
            part.data.copy_(rounded(part.data, True))
        three = ml.batch_loss(radz, batch, data["pixels"], targets, keep, keep_classes)
        three[0].backward()
        for p, floats in master:
            p.data = floats
        trace.append(torch.stack([t.detach() for t in three]))
        for n in trained if step == 0 else []:
            if names[n].grad is not None:
                put("grad.", n, names[n].grad)
        opt.step()
    out["losses"] = ml.numbers(torch.stack(trace))
    if refcode:
        fused_scores(radz, sp, out)
    for n in trained:
        if "lora_" in n or n in ("log_tau", POSITIONS) or n.endswith("linear_2.weight"):
            put("after.", n, names[n].data)
    save_file(out, os.path.join(OUT, name + ".safetensors"))
    print(name, out["losses"][[0, -1], 0].tolist())


def main():
    os.makedirs(OUT, exist_ok=True)
    torch.set_num_threads(1)
    for name, settings in CONFIGS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        train(name, **settings)
        os.chmod(os.path.join(OUT, name + ".safetensors"), 0o644)


if __name__ == "__main__":
    main()
