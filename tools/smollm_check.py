#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds libradz's writing against transformers' on a real language model: greedy answers to questions, in its own chat
template and without one, token for token, both in float32. Where two tokens are all but equally likely, rounding may
choose; there the answers may part, and how close they were is said: more than TIE apart is a failure. Then the model
describes the findings, to be looked at. Run by `make smollm`.

usage: smollm_check.py MODEL_DIR RADZ_BANK DISEASES
"""
import subprocess
import sys
import time

import radz
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TIE = 1e-3  # of logits that reach about 30
N_NEW = 64
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
CHAT = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
QUESTIONS = ["What is a chest X-ray?", "Describe pneumonia in two sentences.", "Name three organs of the human body.",
             "Why is the sky blue?", "Was ist ein R\u00f6ntgenbild? Antworte kurz.", "Write a haiku about the heart \u2764.",
             "17 + 25 = ?", "Translate to French: the lungs are clear."]
BEGINNINGS = ["The lungs are", "Once upon a time", "def fibonacci(n):\n", "A pleural effusion is"]


def their_answer(model, tokenizer, text):
    """New token ids, and how far the best two logits were apart at each."""
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    start = time.perf_counter()
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=N_NEW,
                         output_logits=True, return_dict_in_generate=True, pad_token_id=0)
    seconds = time.perf_counter() - start
    best = torch.stack(out.logits)[:, 0].topk(2).values
    return out.sequences[0, ids.shape[1]:].tolist(), (best[:, 0] - best[:, 1]).tolist(), seconds


def our_answer(session, text, **how):
    tokens = []
    start = time.perf_counter()
    answer = session.generate(text, max_tokens=N_NEW, on_token=lambda t: tokens.append(t.token), **how)
    return tokens, answer, time.perf_counter() - start


def compare(name, theirs, gaps, ours):
    """True where they are the same, or part at a tie."""
    same = next((i for i, (a, b) in enumerate(zip(theirs, ours)) if a != b), min(len(theirs), len(ours)))
    if theirs == ours:
        print(f"  same, {same:3} tokens: {name!r}")
        return True
    gap = gaps[min(same, len(gaps) - 1)]
    print(f"  part after {same} of {len(theirs)} tokens, where the best two are {gap:.2g} apart: {name!r}")
    return gap <= TIE


def main(folder, radz_bank, diseases):
    torch.set_num_threads(2)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with radz.Runtime(n_threads=2) as runtime, radz.Model(folder, runtime=runtime) as m, radz.Session(m) as session:
        asked = [(q, CHAT.format(SYSTEM, q), {"chat_template": "chatml", "system": SYSTEM}) for q in QUESTIONS]
        asked += [(b, b, {"chat_template": "plain"}) for b in BEGINNINGS]
        our_answer(session, "Hello", chat_template="plain")  # the weights are in memory from here on
        good, seconds, n = True, [0.0, 0.0], 0
        for name, text, how in asked:
            theirs, gaps, their_time = their_answer(model, tokenizer, text)
            ours, answer, our_time = our_answer(session, name, **how)
            good &= compare(name, theirs, gaps, ours)
            if theirs == ours and answer != tokenizer.decode(ours, skip_special_tokens=True):
                print(f"  the tokens are the same, their text is not: {answer!r}")
                good = False
            seconds[0] += their_time / len(theirs)
            seconds[1] += our_time / len(ours)
        n = len(asked)
    sys.stdout.flush()
    print(f"per token, 2 threads: transformers {1e3 * seconds[0] / n:.1f} ms, libradz {1e3 * seconds[1] / n:.1f} ms, "
          f"ratio {seconds[0] / seconds[1]:.2f}; torch {torch.__version__}")
    with open(diseases, encoding="utf-8") as f:
        names = [line.split(":")[0] for line in f if ":" in line and not line.startswith("#")]
    print("What this model has to say of the findings: to be read by somebody who knows, never used unread.")
    sys.stdout.flush()
    good &= subprocess.run([radz_bank, "describe", "--model", folder, "--max-tokens", "120", *names]).returncode == 0
    sys.exit(0 if good else "smollm: libradz and transformers do not agree")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
