#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/parity/methods.safetensors: what transformers says of class names behind a prompt, with llava_tiny: the
log-probability of their tokens (sum of log-softmax), and the cosine of means of hidden_states[-2] of film and class
text. tests/test_methods.c compares. Only for making the fixture.
"""
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

HERE = os.path.dirname(os.path.abspath(__file__))
DIR = HERE + "/llava_tiny"
IMAGE_ID, BOS, N_IMAGE = 351, 1, 16
LABELS = ["Pleural Effusion", "Edema", "a", "Pneumonia in the right lower lobe", "No Finding"]
PREFIX = "This is a chest X-ray showing"
FILM_TEXT = "What disease is indicated by the chest X-ray?"


def forward(model, ids, pixels=None):
    ids = torch.tensor([[IMAGE_ID if i < 0 else i for i in ids]])
    return model(input_ids=ids, pixel_values=pixels, output_hidden_states=True)


def log_probability(model, prompt, answer, pixels=None):
    logp = forward(model, prompt + answer, pixels).logits[0].double().log_softmax(-1)
    return sum(float(logp[len(prompt) + k - 1, i]) for k, i in enumerate(answer))


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    sp = sentencepiece.SentencePieceProcessor(model_file=DIR + "/tokenizer.model")
    model = LlavaForConditionalGeneration.from_pretrained(DIR, attn_implementation="eager", dtype=torch.float32).eval()
    pixels = load_file(DIR + "/expected.safetensors")["pixels"][:1]
    out = {"labels": torch.tensor(list("\n".join(LABELS).encode()), dtype=torch.uint8), "pixels": pixels}

    shared = sp.encode(PREFIX)
    names = [sp.encode(f"{PREFIX} {label}") for label in LABELS]
    assert all(n[:len(shared)] == shared for n in names)
    names = [n[len(shared):] for n in names]
    film = [BOS] + [-1] * N_IMAGE + sp.encode("\n" + FILM_TEXT) + shared
    text = [BOS] + sp.encode(FILM_TEXT) + shared
    out["prompt"] = torch.tensor(film, dtype=torch.int32)
    for i, n in enumerate(names):
        out[f"{i}.ids"] = torch.tensor(n, dtype=torch.int32)
    out["film.sum"] = torch.tensor([log_probability(model, film, n, pixels) for n in names], dtype=torch.float32)
    out["text.sum"] = torch.tensor([log_probability(model, text, n) for n in names], dtype=torch.float32)
    out["text.mean"] = out["text.sum"] / torch.tensor([len(n) for n in names])

    def mean(ids, px=None):
        h = forward(model, ids, px).hidden_states[-2][0].double().numpy().mean(0)
        return h / numpy.sqrt((h * h).sum())

    film_mean = mean([BOS] + [-1] * N_IMAGE + sp.encode("\n" + FILM_TEXT), pixels)
    texts = [f"This is a chest X-ray showing {c}.\nWhat disease is described in this text?" for c in LABELS]
    out["hidden.film"] = torch.tensor(film_mean, dtype=torch.float32)
    out["hidden.texts"] = torch.tensor(numpy.stack([mean([BOS] + sp.encode(t)) for t in texts]), dtype=torch.float32)
    out["hidden.gray"] = gray_cosines(model, mean, sp, texts)
    add_answers(model, sp, out)
    save_file(out, HERE + "/methods.safetensors", {"format": "pt"})
    os.chmod(HERE + "/methods.safetensors", 0o644)
    print(out["film.sum"], out["text.sum"], out["hidden.gray"], [len(n) for n in names])


def gray_pixels():
    """A film of one grey (128): no resampling changes it, so that the public function can be held against numpy."""
    level = torch.tensor([.48145466, .4578275, .40821073]), torch.tensor([.26862954, .26130258, .27577711])
    return ((128 / 255 - level[0]) / level[1]).view(1, 3, 1, 1).expand(1, 3, 32, 32).contiguous()


def add_answers(model, sp, out):
    """What is written about the grey film when it is asked to choose, and two words of it, which the test takes for
    names of classes: they are what an answer is searched for."""
    choices = ", ".join(LABELS)
    ask = f"Which findings does the chest X-ray show? Choose from {choices}."
    for name, text in (("options", ask), ("cot", ask + " Let's think step by step."), ("words", FILM_TEXT)):
        ids = torch.tensor([[BOS] + [IMAGE_ID] * N_IMAGE + sp.encode("\n" + text)])
        got = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=gray_pixels(),
                             do_sample=False, max_new_tokens=24, pad_token_id=0,
                             suppress_tokens=list(range(sp.vocab_size(), 352)), output_scores=True,
                             return_dict_in_generate=True)
        best = torch.stack(got.scores)[:, 0].topk(2).values
        answer = sp.decode(got.sequences[0, ids.shape[1]:].tolist())
        print(f"{name}: {answer!r}, the closest two tokens {float((best[:, 0] - best[:, 1]).min()):.2g} apart")
        out[f"{name}.answer"] = torch.tensor(list(answer.encode()), dtype=torch.uint8)


def gray_cosines(model, mean, sp, texts):
    px = gray_pixels()
    film = mean([BOS] + [-1] * N_IMAGE + sp.encode("\n" + FILM_TEXT), px)
    return torch.tensor([float(film @ mean([BOS] + sp.encode(t))) for t in texts], dtype=torch.float32)


main()
