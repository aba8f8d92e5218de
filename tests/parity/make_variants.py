#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/parity/variants: tiny random checkpoints that cross the options of the LLaVA family, and what PyTorch,
transformers and peft compute with them. tests/test_variants.c reads index.tsv and compares every stage.

Only for making fixtures (and for live.py, which makes fresh ones); the tests themselves need no Python.
"""
import argparse
import contextlib
import copy
import json
import os
import shutil
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import save_file
from transformers import (AutoConfig, CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel, LlamaForCausalLM, LlavaConfig,
                          LlavaForConditionalGeneration, MistralForCausalLM)

VOCAB, IMAGE_ID, SIDE, PATCH = 64, 63, 8, 4
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}

VISION = {"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 3,
          "num_attention_heads": 4, "image_size": SIDE, "patch_size": PATCH, "projection_dim": 16}
LLAMA = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCAB, "max_position_embeddings": 128,
         "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
MISTRAL = dict(LLAMA, model_type="mistral", sliding_window=None)
# Keys whose absence means the class default; sizes must stay, the defaults are those of 7B models.
SIZES = {"model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
         "image_size", "patch_size"}


def llava(text, vision=VISION, **more):
    return {"model_type": "llava", "image_token_index": IMAGE_ID, "text_config": text, "vision_config": vision, **more}


def original(text, **more):
    """The authors' layout: text keys at the top, the tower by name."""
    return {**text, "model_type": "llava_" + text["model_type"], "mm_projector_type": "mlp2x_gelu",
            "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", **more}


def sizes(config):
    return {k: v for k, v in config.items() if k in SIZES}


# name, config.json, layout, dtype, oracle's config where it is another, external tower
VARIANTS = [
    ("rope_linear", llava(dict(LLAMA, rope_scaling={"type": "linear", "factor": 3.0}, attention_bias=True, mlp_bias=True)),
     "new", "BF16"),
    ("rope_llama3", llava(dict(LLAMA, tie_word_embeddings=True, rope_theta=100.0, rope_parameters={
        "rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16}), vision_feature_select_strategy="full"), "new", "BF16"),
    ("rope_dynamic", llava(dict(LLAMA, max_position_embeddings=12, vocab_size=128,
                                rope_scaling={"rope_type": "dynamic", "factor": 2.5})), "old", "F16"),
    ("window", original(dict(MISTRAL, sliding_window=5, head_dim=6), vision_config=VISION), "original", "BF16",
     llava(dict(MISTRAL, sliding_window=5, head_dim=6))),
    ("features_list", llava(LLAMA, vision_feature_layer=[-2, 0, -1, 1], multimodal_projector_bias=False,
                            projector_hidden_act="gelu_pytorch_tanh"), "new", "BF16"),
    ("features_full", llava(MISTRAL, dict(VISION, hidden_act="gelu"), vision_feature_layer=[3, -3],
                            vision_feature_select_strategy="full", projector_hidden_act="relu"), "v5", "BF16"),
    ("feature_first", llava(MISTRAL, vision_feature_layer=-4, projector_hidden_act="silu"), "old", "BF16"),
    ("defaults", llava(sizes(LLAMA), sizes(VISION)), "new", "BF16"),
    ("defaults_mistral", llava(dict(sizes(MISTRAL), num_attention_heads=8, tie_word_embeddings=True), sizes(VISION)), "old",
     "F16"),
    ("external", original(LLAMA, mm_vision_tower="openai/clip-vit-large-patch14-336", mm_vision_select_feature="cls_patch"),
     "original", "BF16", llava(LLAMA, vision_feature_select_strategy="full"), ("vision_tower", "bare")),
    ("external_clip", original(MISTRAL, mm_vision_tower="towers/clip", mm_vision_select_layer=-1), "original", "F16",
     llava(MISTRAL, vision_feature_layer=-1), ("towers/clip", "whole")),
    ("text_llama", dict(LLAMA, num_key_value_heads=None, tie_word_embeddings=True), "sharded", "F32"),
    ("text_mistral", dict(MISTRAL, sliding_window=4, num_key_value_heads=1), "text", "F16"),
    ("lora_base", llava(dict(LLAMA, attention_bias=True)), "new", "BF16"),
    ("lora_text", dict(LLAMA, tie_word_embeddings=True), "text", "BF16"),
    ("undescribed", original(LLAMA, mm_vision_tower="some/other-clip", mm_vision_select_layer=-1), "original", "BF16",
     llava(LLAMA, dict(VISION, hidden_size=128, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2),
           vision_feature_layer=-1)),
]
# name, base, LoraConfig's arguments
ADAPTERS = [
    ("list", "lora_base", dict(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"])),
    ("patterns", "lora_base", dict(r=3, lora_alpha=5, use_rslora=True, bias="lora_only",
        target_modules=r".*\.language_model\..*(self_attn\.(q|k|o)_proj|mlp\.\w+_proj)", exclude_modules=["layers.1.mlp.up_proj"],
        rank_pattern={"o_proj": 2, r"layers\.[02]\.mlp\.gate_proj": 5}, alpha_pattern={r"mlp\.down_proj": 11})),
    ("everything", "lora_base", dict(r=2, lora_alpha=4, target_modules="all-linear", bias="all",
        modules_to_save=["multi_modal_projector", "lm_head"])),
    ("tables", "lora_base", dict(r=2, lora_alpha=3, fan_in_fan_out=True,
        target_modules=["embed_tokens", "lm_head", "patch_embedding", "linear_2"])),
    ("layers", "lora_text", dict(r=2, lora_alpha=4, target_modules=["q_proj", "up_proj"], layers_to_transform=[0, 2],
        layers_pattern="layers", trainable_token_indices=[5, 3, 40])),
    ("tied", "lora_text", dict(r=3, lora_alpha=4, target_modules=["embed_tokens", "k_proj"], exclude_modules=r".*\.1\..*")),
]


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump(value, f, indent=1)
        f.write("\n")


def randomise(model, gen, dtype):
    """Weights of some size, exactly what `dtype` can hold."""
    for name, p in model.named_parameters():
        x = torch.randn(p.shape, generator=gen)
        scale = 0.4 if p.dim() > 1 else 0.2
        base = 1.0 if p.dim() == 1 and "norm" in name and name.endswith("weight") else 0.0
        p.data = (base + scale * x).to(dtype).float()


def tower_key(key):
    return key.removeprefix("vision_model.")


def renamed(key, layout):
    """A tensor of LlavaForConditionalGeneration under the name it has in a layout."""
    parts = [("model.vision_tower.", {"new": "model.vision_tower.vision_model.", "old": "vision_tower.vision_model.",
                                      "v5": "vision_tower.", "original": "model.vision_tower.vision_tower.vision_model."}),
             ("model.multi_modal_projector.linear_1.", {"old": "multi_modal_projector.linear_1.", "v5":
              "multi_modal_projector.linear_1.", "original": "model.mm_projector.0."}),
             ("model.multi_modal_projector.linear_2.", {"old": "multi_modal_projector.linear_2.", "v5":
              "multi_modal_projector.linear_2.", "original": "model.mm_projector.2."}),
             ("model.language_model.", {"old": "language_model.model.", "v5": "language_model.model.", "original": "model."}),
             ("lm_head.", {"old": "language_model.lm_head.", "v5": "language_model.lm_head."})]
    for ours, names in parts:
        if key.startswith(ours):
            rest = key[len(ours):]
            return names.get(layout, ours) + (tower_key(rest) if "vision_tower" in ours else rest)
    return key


def store(tensors, path, dtype):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    save_file({k: v.detach().to(DTYPES[dtype]).contiguous() for k, v in tensors.items()}, path, {"format": "pt"})


def store_tower(model, out, kind, dtype, gen):
    """The tower in a directory of its own: a bare CLIP vision model, or a whole CLIP of which it is a half."""
    rows = {tower_key(k.removeprefix("model.vision_tower.")): v for k, v in model.state_dict().items() if "vision_tower" in k}
    if kind == "bare":
        write_json(os.path.join(out, "config.json"), VISION)
        return store({"vision_model." + k: v for k, v in rows.items()}, os.path.join(out, "model.safetensors"), dtype)
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 10}
    write_json(os.path.join(out, "config.json"), {"model_type": "clip", "text_config": text, "vision_config": VISION,
                                                  "projection_dim": 16})
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16))
    state = {k: v for k, v in clip.state_dict().items() if not k.startswith("vision_model.")}
    state.update({"vision_model." + k: v for k, v in rows.items()})
    store({k: v for k, v in state.items() if v.is_floating_point()}, os.path.join(out, "model.safetensors"), dtype)


def store_model(model, out, config, layout, dtype, external, gen):
    write_json(os.path.join(out, "config.json"), config)
    state = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    if model.config.get_text_config().tie_word_embeddings:
        state = {k: v for k, v in state.items() if not k.startswith("lm_head.")}
    if external:
        store_tower(model, os.path.join(out, external[0]), external[1], dtype, gen)
        state = {k: v for k, v in state.items() if "vision_tower" not in k}
    state = {renamed(k, layout): v for k, v in state.items()} if layout not in ("text", "sharded") else state
    if layout != "sharded":
        return store(state, os.path.join(out, "model.safetensors"), dtype)
    names, shards = sorted(state), ["model-0000%d-of-00003.safetensors" % i for i in (1, 2, 3)]
    for i, shard in enumerate(shards):
        store({k: state[k] for k in names[i::3]}, os.path.join(out, shard), dtype)
    write_json(os.path.join(out, "model.safetensors.index.json"),
               {"metadata": {}, "weight_map": {k: shards[i % 3] for i, k in enumerate(names)}})


def oracle(config, gen, dtype):
    config = dict(config)
    kinds = {"llava": (LlavaConfig, LlavaForConditionalGeneration), "llama": (None, LlamaForCausalLM),
             "mistral": (None, MistralForCausalLM)}
    cls, make = kinds[config["model_type"]]
    cfg = cls(**{k: v for k, v in config.items() if k != "model_type"}) if cls else \
        AutoConfig.for_model(config["model_type"], **{k: v for k, v in config.items() if k != "model_type"})
    cfg._attn_implementation = "eager"
    for part in ("vision_config", "text_config"):
        if hasattr(cfg, part):
            getattr(cfg, part)._attn_implementation = "eager"
    model = make(cfg).eval()
    randomise(model, gen, DTYPES[dtype])
    return model


class Doubled:
    """The torch module for code that insists on float32."""
    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextlib.contextmanager
def in_double():
    """transformers computes norms, softmax and rotations in float32 whatever a model's dtype is; here in float64."""
    modules = [m for n, m in sys.modules.items() if n.startswith("transformers.") and getattr(m, "torch", None) is torch]
    single = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double
    for m in modules:
        m.torch = Doubled()
    try:
        yield
    finally:
        torch.Tensor.float = single
        for m in modules:
            m.torch = torch


def exact_stages(model, has_vision, gen):
    """stages() in float64, rounded to float32 at the end: the error of the oracle's own float32 left out."""
    with in_double():
        return {k: v.to(torch.float32) if v.is_floating_point() else v for k, v in stages(model.double(), has_vision, gen).items()}


@torch.no_grad()
def stages(model, has_vision, gen):
    """Every stage for one film and two prompts; `b` is longer than the dynamic rope's training."""
    net = model.get_base_model() if hasattr(model, "get_base_model") else model
    out = {}
    image_rows = 0
    if has_vision:
        pixels = torch.randn(1, 3, SIDE, SIDE, generator=gen).to(net.dtype)
        tower = net.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        rows = net.model.get_image_features(pixels, return_dict=True).pooler_output[0]
        image_rows = rows.shape[0]
        out.update({"pixels": pixels, "image": rows, **{f"tower.{i}": h[0] for i, h in enumerate(tower)}})
    for name, n in (("a", 7), ("b", 17)):
        ids = torch.randint(0, 60, (n,), generator=gen)
        ids[1:4] = torch.tensor([5, 3, 40])  # rows that an adapter replaces
        if has_vision:
            ids = torch.cat([ids[:2], torch.full((image_rows,), IMAGE_ID), ids[2:]])
        more = {"pixel_values": pixels} if has_vision else {}
        if hasattr(net, "model") and hasattr(net.model, "rotary_emb"):
            fresh = net.model
        else:
            fresh = net.model.language_model
        fresh.rotary_emb.max_seq_len_cached = fresh.rotary_emb.original_max_seq_len  # no memory of earlier prompts
        got = model(input_ids=ids[None], output_hidden_states=True, **more)
        ids = torch.where(ids == IMAGE_ID, -1, ids) if has_vision else ids
        out[name + ".ids"] = ids.int()
        out[name + ".logits"] = got.logits[0, -1]
        for i, h in enumerate(got.hidden_states[:-1]):  # the last one is after the final norm
            out[f"{name}.h.{i}"] = h[0]
    return {k: v.contiguous().clone() for k, v in out.items()}


def make_variant(root, spec, seed, measure=stages):
    name, config, layout, dtype = spec[:4]
    truth = spec[4] if len(spec) > 4 else config
    gen = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = oracle(truth, gen, dtype)
    out = os.path.join(root, name)
    store_model(model, out, config, layout, dtype, spec[5] if len(spec) > 5 else None, gen)
    state = copy.deepcopy(model.state_dict())
    save_file(measure(model, truth["model_type"] == "llava", gen), os.path.join(out, "expected.safetensors"))
    return state


def sort_sets(path):
    """peft writes Python sets, in any order."""
    with open(path) as f:
        config = json.load(f)
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        if isinstance(config[key], list):
            config[key].sort()
    write_json(path, config)


def make_adapter(root, spec, bases, seed, measure=stages):
    from peft import LoraConfig, PeftModel, get_peft_model
    name, base, args = spec
    truth, state = bases[base]
    gen = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    fresh = oracle(truth, torch.Generator().manual_seed(0), "F32")
    fresh.load_state_dict(state)
    peft = get_peft_model(fresh, LoraConfig(init_lora_weights=True, **copy.deepcopy(args)))
    for key, p in peft.named_parameters():
        if p.requires_grad or "bias" in key and args.get("bias") == "all":
            p.data = p.data + 0.3 * torch.randn(p.shape, generator=gen)
    out = os.path.join(root, base, name)
    peft.save_pretrained(out)
    sort_sets(os.path.join(out, "adapter_config.json"))
    if os.path.exists(os.path.join(out, "README.md")):
        os.remove(os.path.join(out, "README.md"))
    again = oracle(truth, torch.Generator().manual_seed(0), "F32")
    again.load_state_dict(state)
    loaded = PeftModel.from_pretrained(again, out).eval()
    save_file(measure(loaded, truth["model_type"] == "llava", gen), os.path.join(out, "expected.safetensors"))


def make_all(root, variants, adapters, seed, measure=stages):
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root)
    torch.set_num_threads(1)
    bases, lines = {}, []
    for i, spec in enumerate(variants):
        state = make_variant(root, spec, seed + i, measure)
        if any(a[1] == spec[0] for a in adapters):
            bases[spec[0]] = (spec[4] if len(spec) > 4 else spec[1], state)
        lines.append(f"{spec[0]}\t-\n")
    for i, spec in enumerate(adapters):
        make_adapter(root, spec, bases, seed + 100 + i, measure)
        lines.append(f"{spec[1]}\t{spec[0]}\n")
    with open(os.path.join(root, "index.tsv"), "w") as f:
        f.writelines(lines)
    for folder, _, names in os.walk(root):
        for n in names:
            os.chmod(os.path.join(folder, n), 0o644)


if __name__ == "__main__":
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "variants"))
    args.add_argument("--seed", type=int, default=1)
    given = args.parse_args()
    make_all(given.out, VARIANTS, ADAPTERS, given.seed)
