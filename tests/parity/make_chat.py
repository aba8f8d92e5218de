#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/parity/chat.json: prompts in the chat templates of the LLaVA family as token ids, and what transformers'
LlavaForConditionalGeneration writes after some of them about a film. tests/test_chat.c compares. Only for making the
fixture.

The templates are written down here as LLaVA's code defines them: a style of joining turns, the names of the two roles,
the separators. A prompt is cut at "<image>", each piece is tokenised by sentencepiece by itself, and the film stands
between the pieces; the prompt begins with BOS. Tokenizers: Mistral's, which LLaVA-Med's checkpoint has, and llava_tiny's.
"""
import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy
import sentencepiece
import torch
from PIL import Image
from transformers import CLIPImageProcessor, LlavaForConditionalGeneration

HERE = os.path.dirname(os.path.abspath(__file__))
TINY = HERE + "/llava_tiny"
N_IMAGE, IMAGE_ID, N_NEW = 16, 351, 12

# style, roles, separator between turns, how a system text is set apart from what follows it
TEMPLATES = {
    "plain": ("join", ("", ""), "", "\n"),
    "vicuna_v1": ("roles", ("USER", "ASSISTANT"), " ", " "),
    "llava_v1": ("roles", ("USER", "ASSISTANT"), " ", " "),
    "mistral_instruct": ("brackets", ("[INST]", "[/INST]"), " ", "\n\n"),
}
SYSTEM = "You read chest films. Be brief."
TEXTS = ["What is seen?", "Is there fluid?\nSay yes or no.", "  two spaces, \u00fcmlaut, [INST] and </s> as text  "]


def render(template, system, text):
    """One question, ready for an answer."""
    style, (user, assistant), between, after_system = TEMPLATES[template]
    lead = system + after_system if system else ""
    if style == "join":
        return lead + text
    if style == "roles":
        return lead + between.join([f"{user}: {text}", f"{assistant}:"])
    return between.join([user, lead + text, assistant])


def tokenize(sp, prompt, n_image):
    ids = [sp.bos_id()]
    for i, piece in enumerate(prompt.split("<image>")):
        ids += ([-1] * n_image if i else []) + sp.encode(piece)
    return ids


def prompts():
    """(template, system, text, whether there is a film, the text with the film in it)"""
    for template in TEMPLATES:
        for system in (None, SYSTEM):
            for k, text in enumerate(TEXTS):
                yield template, system, text, False, text
                yield template, system, text, True, "<image>\n" + text  # where no place is named
                if k == 0:
                    text = "On this film <image> what is seen?"
                    yield template, system, text, True, text


def film(width, height):
    y, x, c = numpy.meshgrid(numpy.arange(height), numpy.arange(width), numpy.arange(3), indexing="ij")
    return ((x * 7 + y * 13 + c * 29 + x * y % 11 * 5) % 256).astype(numpy.uint8)


@torch.no_grad()
def answers(sp):
    model = LlavaForConditionalGeneration.from_pretrained(TINY, attn_implementation="eager", dtype=torch.float32).eval()
    processor = CLIPImageProcessor.from_pretrained(TINY)
    least = 9.0
    for template, system, text, has_film, whole in prompts():
        if template == "llava_v1":
            continue
        for size in ((32, 32), (45, 60)) if has_film else ((0, 0),):
            ids = torch.tensor([tokenize(sp, render(template, system, whole), N_IMAGE)])
            ids = torch.where(ids == -1, IMAGE_ID, ids)
            more = {}
            if has_film:
                more["pixel_values"] = processor(Image.fromarray(film(*size)), return_tensors="pt")["pixel_values"]
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                 max_new_tokens=N_NEW, pad_token_id=0, suppress_tokens=list(range(sp.vocab_size(), 352)),
                                 output_scores=True, return_dict_in_generate=True, **more)
            best = torch.stack(out.scores)[:, 0].topk(2).values
            least = min(least, float((best[:, 0] - best[:, 1]).min()))
            tokens = out.sequences[0, ids.shape[1]:].tolist()
            yield {"template": template, "system": system, "text": text, "film": list(size), "tokens": tokens,
                   "answer": sp.decode(tokens)}
    print(f"the closest two tokens were {least:.2g} apart")


def main():
    torch.set_num_threads(1)
    spm = lambda path: sentencepiece.SentencePieceProcessor(model_file=path)
    files = {"mistral": HERE + "/../data/mistral_v1/tokenizer.model", "tiny": TINY + "/tokenizer.model"}
    out = {"image_rows": N_IMAGE, "prompts": [], "answers": list(answers(spm(files["tiny"])))}
    for name, path in files.items():
        sp = spm(path)
        for template, system, text, has_film, whole in prompts():
            out["prompts"].append({"tokenizer": name, "template": template, "system": system, "text": text,
                                   "film": has_film, "ids": tokenize(sp, render(template, system, whole), N_IMAGE)})
    with open(HERE + "/chat.json", "w", encoding="utf-8") as f:
        f.write('{"image_rows": %d,\n"prompts": [\n' % N_IMAGE + ",\n".join(map(json.dumps, out["prompts"])))
        f.write('],\n"answers": [\n' + ",\n".join(map(json.dumps, out["answers"])) + "]}\n")
    print(f"{len(out['prompts'])} prompts, {len(out['answers'])} answers")


if __name__ == "__main__":
    main()
