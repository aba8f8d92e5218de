#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/parity/llava_tiny: a tiny random LLaVA-RadZ and what PyTorch + transformers compute with it.

Only for making fixtures; the tests themselves need no Python. See README.md beside this file.
"""
import argparse
import io
import json
import math
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy
import safetensors
import sentencepiece
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, MistralConfig

VOCAB, PIECES, IMAGE_ID, BOS = 352, 340, 351, 1  # rows PIECES..VOCAB-1 are padding, as in llava-hf checkpoints
N_IMG, N_TXT, LAYER, DIM, GAMMA_HIDDEN, TAU, LAMBDA = 4, 8, -2, 16, 20, 0.07, 0.5
PROMPTS = {
    "image": "<image>\nWhat disease is indicated by the chest X-ray?",
    "text": "{text}\nWhat disease is described in this text?",
    "labels": "This is a chest X-ray showing {labels}.",
}
TEXTS = [
    "This is a chest X-ray showing pleural effusion.",
    "No finding.",
    "This is a chest X-ray showing cardiomegaly, edema. Größe 12 µm!",
]
DISEASES = [
    "Effusion: fluid between lung and chest wall.",
    "Pneumonia is an infection that fills the air spaces.",
    "The heart is too large.",
    "Nothing of note",
]
SENTENCES = TEXTS + DISEASES + [
    "What disease is indicated by the chest X-ray?",
    "What disease is described in this text?",
    "The lungs are clear and the heart is of normal size.",
    "There is a small pleural effusion on the left side.",
    "An opacity in the right lower lobe is consistent with pneumonia.",
    "Blunting of the angle shows fluid in the chest.",
    "No pneumothorax, no mass, no nodule is seen.",
]


def make_tokenizer(path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3), model_writer=model, model_type="bpe", vocab_size=PIECES,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        character_coverage=0.98, num_threads=1, minloglevel=2)
    with open(path, "wb") as f:
        f.write(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def make_config():
    vision = CLIPVisionConfig(hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
                              image_size=32, patch_size=8, hidden_act="quick_gelu", projection_dim=24)
    text = MistralConfig(hidden_size=24, intermediate_size=40, num_hidden_layers=4, num_attention_heads=6,
                         num_key_value_heads=2, head_dim=8, vocab_size=VOCAB, max_position_embeddings=256,
                         rms_norm_eps=1e-5, sliding_window=None, tie_word_embeddings=False,
                         rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    return LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE_ID, image_seq_length=16,
                       vision_feature_layer=-2, vision_feature_select_strategy="default", projector_hidden_act="gelu")


def randomize(module, gen):
    """Large enough that a mistake shows, small enough that fp32 rounding does not."""
    for name, p in module.named_parameters():
        x = torch.randn(p.shape, generator=gen)
        if p.dim() == 1 and name.endswith("weight"):
            x = 1 + 0.2 * x
        elif p.dim() == 1:
            x = 0.2 * x
        else:
            x = x * (0.6 if "embed" in name or "position" in name else 1.2 / math.sqrt(p[0].numel()))
        p.data.copy_(x)


class Head(nn.Module):
    """gamma: LayerNorm, Linear, GELU, Linear."""

    def __init__(self, hidden):
        super().__init__()
        self.norm = nn.LayerNorm(hidden, eps=1e-5)
        self.linear_1 = nn.Linear(hidden, GAMMA_HIDDEN)
        self.linear_2 = nn.Linear(GAMMA_HIDDEN, DIM)

    def forward(self, x):
        return self.linear_2(F.gelu(self.linear_1(self.norm(x))))


class RadZ(nn.Module):
    """The method on top of transformers' model. `llava` here has the special rows as extra embedding rows."""

    def __init__(self, llava, special, heads, log_tau):
        super().__init__()
        hidden = special.shape[1]
        self.vocab = VOCAB
        self.llava = llava
        table = llava.get_input_embeddings()
        table.weight = nn.Parameter(torch.cat([table.weight.data, special]))
        table.num_embeddings = VOCAB + len(special)
        self.heads = nn.ModuleDict({k: Head(hidden) for k in ("gamma_img", "gamma_txt", "gamma_dis")})
        self.heads.load_state_dict(heads)
        self.log_tau = nn.Parameter(log_tau.clone())

    def hidden_states(self, ids, pixels=None):
        ids = torch.tensor([[IMAGE_ID if i < 0 else i for i in ids]])
        return self.llava(input_ids=ids, pixel_values=pixels, output_hidden_states=True)

    def pooled(self, ids, pixels=None):
        h = self.hidden_states(ids, pixels).hidden_states[LAYER][0]
        special = torch.tensor([i >= self.vocab for i in ids])
        return h[special], h[~special]

    def vectors(self, kind, ids, pixels=None, mlp_then_mean=False, identity=False):
        rows_g, rows_l = self.pooled(ids, pixels)
        gamma = (lambda x: x) if identity else self.heads[kind]
        f = (lambda r: gamma(r).mean(0)) if mlp_then_mean else (lambda r: gamma(r.mean(0)))
        return f(rows_g), f(rows_l)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def soft_xent(logits, targets, keep=None):
    """Mean over the rows that have a target of -sum t log softmax; keep 0 takes a column out of the softmax."""
    if keep is not None:
        logits = logits.masked_fill(keep == 0, -math.inf)
    terms = torch.where(targets > 0, -targets * F.log_softmax(logits, -1), torch.zeros(()))
    return terms.sum() / (targets.sum(-1) > 0).sum()


def losses(xg, xl, yg, yl, d, targets, keep, keep_classes, tau, lam):
    def pair(a, b):
        eye = torch.eye(len(a))
        return 0.5 * (soft_xent(a @ b.T / tau, eye, keep) + soft_xent(b @ a.T / tau, eye, keep))

    ca = 0.5 * (pair(xg, yl) + pair(xl, yg))
    cg = 0.5 * (soft_xent(xg @ d.T / tau, targets, keep_classes) + soft_xent(yg @ d.T / tau, targets, keep_classes))
    return lam * ca + (1 - lam) * cg, ca, cg


def state_names(model):
    """Gradients are stored under the names that libradz writes (Hugging Face <= 4.51), whatever the layout of the
    transformers at hand."""
    names = {}
    for name, p in model.named_parameters():
        n = name
        if n.startswith("model.language_model."):
            n = "language_model.model." + n[len("model.language_model."):]
        elif n.startswith("lm_head."):
            n = "language_model." + n
        elif n.startswith("model.vision_tower."):
            n = n[len("model.vision_tower."):]
            n = "vision_tower." + (n if n.startswith("vision_model.") else "vision_model." + n)
        elif n.startswith("model.multi_modal_projector."):
            n = n[len("model."):]
        names[n] = p
    return names


def numbers(x):
    return x.detach().to(torch.float32).contiguous().clone()


def text_bytes(text):
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def prompt_ids(sp, kind, text=None):
    if kind == "gamma_img":
        before, after = PROMPTS["image"].split("<image>")
        ids = [BOS] + sp.encode(before) + [-1] * 16 + sp.encode(after)
        return ids + list(range(VOCAB, VOCAB + N_IMG))
    return [BOS] + sp.encode(PROMPTS["text"].replace("{text}", text)) + list(range(VOCAB + N_IMG, VOCAB + N_IMG + N_TXT))


def items_of(sp):
    """The items of expected.safetensors, then of the training batch: (name, kind, text, film)."""
    stage = [("img0", "gamma_img", None, 0), ("img1", "gamma_img", None, 1), ("txt0", "gamma_txt", TEXTS[0], None),
             ("txt1", "gamma_txt", TEXTS[1], None), ("dis0", "gamma_dis", DISEASES[0], None)]
    return [(n, k, t, i, prompt_ids(sp, k, t)) for n, k, t, i in stage]


def stages(radz, items, pixels, out):
    llava = radz.llava
    tower = llava.model.vision_tower
    seen = {}
    tower_core = getattr(tower, "vision_model", tower)
    hook = tower_core.embeddings.register_forward_hook(lambda m, a, o: seen.__setitem__("patch", o))
    states = tower(pixels, output_hidden_states=True).hidden_states
    hook.remove()
    out["tower.embeddings"] = numbers(seen["patch"])
    for i, h in enumerate(states):
        out[f"tower.hidden_states.{i}"] = numbers(h)
    out["projector"] = numbers(llava.model.multi_modal_projector(states[-2][:, 1:]))
    for name, kind, text, film, ids in items:
        px = None if film is None else pixels[film:film + 1]
        o = radz.hidden_states(ids, px)
        out[f"{name}.ids"] = torch.tensor(ids, dtype=torch.int32)
        for i, h in enumerate(o.hidden_states):
            out[f"{name}.hidden_states.{i}"] = numbers(h[0])
        out[f"{name}.logits"] = numbers(o.logits[0, -1])
        g, l = (r.mean(0) for r in radz.pooled(ids, px))
        out[f"{name}.pooled"] = numbers(torch.stack([g, l]))
        for variant, options in (("mean_then_mlp", {}), ("mlp_then_mean", {"mlp_then_mean": True}),
                                 ("identity", {"identity": True})):
            v = torch.stack(radz.vectors(kind, ids, px, **options))
            if variant != "identity":
                out[f"{name}.gamma.{variant}"] = numbers(v)
            out[f"{name}.unit.{variant}"] = numbers(unit(v))


def rounded(make, dtype, items, pixels, out, label):
    radz = make(dtype)
    for name, kind, text, film, ids in items:
        px = None if film is None else pixels[film:film + 1]
        out[f"{label}.{name}.unit"] = numbers(unit(torch.stack(radz.vectors(kind, ids, px))))


def batch_loss(radz, batch, pixels, targets, keep, keep_classes):
    """batch: three lists of ids: films, texts, diseases."""
    films, texts, diseases = batch
    x = [radz.vectors("gamma_img", ids, pixels[i:i + 1]) for i, ids in enumerate(films)]
    y = [radz.vectors("gamma_txt", ids) for ids in texts]
    d = [radz.vectors("gamma_dis", ids)[0] for ids in diseases]
    xg, xl = (unit(torch.stack(v)) for v in zip(*x))
    yg, yl = (unit(torch.stack(v)) for v in zip(*y))
    return losses(xg, xl, yg, yl, unit(torch.stack(d)), targets, keep, keep_classes, radz.log_tau.exp(), LAMBDA)


def training(radz, sp, gen):
    out = {}
    pixels = torch.randn(3, 3, 32, 32, generator=gen)
    targets = torch.tensor([[1, 0, 0, 0], [0, .5, .5, 0], [0, 0, 0, 1.]])
    keep = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 1.]])
    keep_classes = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1.]])
    batch = ([prompt_ids(sp, "gamma_img")] * 3, [prompt_ids(sp, "gamma_txt", t) for t in TEXTS],
             [prompt_ids(sp, "gamma_dis", t) for t in DISEASES])
    out.update({"pixels": pixels, "targets": targets, "keep": keep, "keep_classes": keep_classes})
    for kind, group in zip(("img", "txt", "dis"), batch):
        for i, ids in enumerate(group):
            out[f"{kind}{i}.ids"] = torch.tensor(ids, dtype=torch.int32)
    named = state_names(radz.llava)
    named.update({n: p for n, p in radz.heads.named_parameters()})
    named["log_tau"] = radz.log_tau
    embed = "language_model.model.embed_tokens.weight"

    def put(prefix, name, value):
        if name == embed:
            out[prefix + name], out[prefix + "special_tokens.weight"] = numbers(value[:VOCAB]), numbers(value[VOCAB:])
        else:
            out[prefix + name] = numbers(value)

    watched = [embed, "vision_tower.vision_model.embeddings.class_embedding",
               "vision_tower.vision_model.embeddings.position_embedding.weight",
               "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
               "vision_tower.vision_model.encoder.layers.1.layer_norm2.bias",
               "multi_modal_projector.linear_1.weight", "language_model.model.layers.0.self_attn.k_proj.weight",
               "language_model.model.layers.1.mlp.gate_proj.weight",
               "language_model.model.layers.2.post_attention_layernorm.weight", "gamma_img.linear_2.weight",
               "gamma_txt.norm.weight", "gamma_dis.linear_1.bias", "log_tau"]
    opt = torch.optim.AdamW(radz.parameters(), lr=1e-3, betas=(.9, .999), eps=1e-8, weight_decay=.01)
    trace = []
    for step in range(10):
        opt.zero_grad()
        three = batch_loss(radz, batch, pixels, targets, keep, keep_classes)
        three[0].backward()
        trace.append(torch.stack([t.detach() for t in three]))
        if step == 0:
            for name, p in named.items():
                if p.grad is not None:
                    put("grad.", name, p.grad)
        opt.step()
    out["losses"] = numbers(torch.stack(trace))  # (10, 3): loss, L_CA, L_CG before each step
    for name in watched:
        put("after.", name, named[name].data)
    return out


def loss_cases(gen, out):
    """The losses alone, on unit vectors: masks and rows without a class."""
    b, n, dim = 5, 3, DIM
    leaves = [unit(torch.randn(r, dim, generator=gen)).requires_grad_() for r in (b, b, b, b, n)]
    log_tau = torch.tensor(math.log(.11), requires_grad=True)
    targets = torch.tensor([[1, 0, 0], [0, 0, 0], [.25, .75, 0], [0, 0, 1], [0, 1, 0.]])
    keep = torch.ones(b, b)
    keep[0, 3] = keep[3, 0] = keep[1, 2] = keep[2, 1] = 0
    keep_classes = torch.tensor([[1, 0, 1], [1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1.]])
    for name, v in zip(("xg", "xl", "yg", "yl", "d"), leaves):
        out["case." + name] = numbers(v)
    out.update({"case.targets": targets, "case.keep": keep, "case.keep_classes": keep_classes})
    for label, k, kc, lam in (("plain", None, None, .5), ("masked", keep, keep_classes, .3)):
        for v in leaves + [log_tau]:
            v.grad = None
        three = losses(*leaves, targets, k, kc, log_tau.exp(), lam)
        three[0].backward()
        out[f"case.{label}.losses"] = numbers(torch.stack(list(three)))
        out[f"case.{label}.dlog_tau"] = numbers(log_tau.grad.reshape(1))
        for name, v in zip(("xg", "xl", "yg", "yl", "d"), leaves):
            out[f"case.{label}.d{name}"] = numbers(v.grad)


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=1)
        f.write("\n")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--out", default=os.path.join(here, "llava_tiny"))
    out_dir = ap.parse_args().out
    os.makedirs(out_dir, exist_ok=True)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    gen = torch.Generator().manual_seed(20240611)

    sp = make_tokenizer(os.path.join(out_dir, "tokenizer.model"))
    llava = LlavaForConditionalGeneration._from_config(make_config(), attn_implementation="eager").eval()
    randomize(llava, gen)
    llava.save_pretrained(out_dir)
    generation = os.path.join(out_dir, "generation_config.json")
    if os.path.exists(generation):
        os.remove(generation)
    hidden = llava.config.text_config.hidden_size
    heads = nn.ModuleDict({k: Head(hidden) for k in ("gamma_img", "gamma_txt", "gamma_dis")})
    randomize(heads, gen)
    special = 0.6 * torch.randn(N_IMG + N_TXT, hidden, generator=gen)
    log_tau = torch.tensor([math.log(TAU)])
    radz_file = {n: numbers(p) for n, p in heads.named_parameters()}
    radz_file.update({"special_tokens.weight": special, "log_tau": log_tau})
    save_file(radz_file, os.path.join(out_dir, "radz.safetensors"))
    write_json(os.path.join(out_dir, "radz.json"), {
        "schema": "radz.model/1",
        "special_tokens": {"image": [f"<ImgCls{i}>" for i in range(N_IMG)],
                           "text": [f"<TxtCls{i}>" for i in range(N_TXT)]},
        "layer": LAYER, "gamma": {"type": "mlp", "hidden": GAMMA_HIDDEN, "dim": DIM}, "pool": "mean_then_mlp",
        "tau": 0.05, "lambda": LAMBDA, "prompts": PROMPTS})
    write_json(os.path.join(out_dir, "preprocessor_config.json"), {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": 32}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "do_convert_rgb": True,
        "image_mean": [.48145466, .4578275, .40821073], "image_std": [.26862954, .26130258, .27577711]})

    def make(dtype=torch.float32):
        """A fresh oracle from the directory just written; dtype rounds the checkpoint's weights, run in fp32."""
        model = LlavaForConditionalGeneration.from_pretrained(out_dir, attn_implementation="eager",
                                                              dtype=torch.float32).eval()
        for a, b in zip(model.parameters(), llava.parameters()):
            assert torch.equal(a, b)
            a.data = a.data.to(dtype).float()
        return RadZ(model, special, heads.state_dict(), log_tau)

    pixels = torch.randn(2, 3, 32, 32, generator=gen)
    expected = {"pixels": pixels}
    items = items_of(sp)
    with torch.no_grad():
        stages(make(), items, pixels, expected)
        rounded(make, torch.bfloat16, items, pixels, expected, "bf16")
        rounded(make, torch.float16, items, pixels, expected, "f16")
    expected.update({f"{n}.text": text_bytes(t) for n, k, t, i, ids in items if t is not None})
    save_file(expected, os.path.join(out_dir, "expected.safetensors"))
    grads = training(make(), sp, gen)
    loss_cases(gen, grads)
    for p, group in (("txt", TEXTS), ("dis", DISEASES)):
        grads.update({f"{p}{i}.text": text_bytes(t) for i, t in enumerate(group)})
    save_file(grads, os.path.join(out_dir, "grads.safetensors"))
    for name in os.listdir(out_dir):
        os.chmod(os.path.join(out_dir, name), 0o644)
    with open(os.path.join(here, "VERSIONS"), "w") as f:
        f.write(f"python {sys.version.split()[0]}\n")
        for m in (torch, transformers, safetensors, sentencepiece, numpy):
            f.write(f"{m.__name__} {m.__version__}\n")
    print("losses", grads["losses"][[0, -1]].tolist())


if __name__ == "__main__":
    main()
