"""Makes the golden files of tests/test_tokenizer.c with the sentencepiece package. SPDX-License-Identifier: Apache-2.0

    python tests/data/make_tokenizer_golden.py        (made with sentencepiece 0.2.3)

mistral_v1/golden.gz  what sentencepiece says for mistral_v1/tokenizer.model
variants.gz           small models of every setting that matters, trained here, with their cases

A file is a list of models, each: name, model (empty: the file beside), texts with their ids, ids with their text.
Numbers are varints; bytes and lists are preceded by their length.
"""
import gzip
import io
import os
import random

import sentencepiece as spm

HERE = os.path.dirname(os.path.abspath(__file__))
USER = ["<image>", "ab", " x", "  ", "the", "\u4e2d", "<im", "\u2581q"]
SENTENCES = [
    "This is a chest X-ray showing Pneumonia, Effusion.", "The heart is enlarged; no pneumothorax is seen.",
    "  Two  spaces   three    four, and a\ttab\nand a new line\r\n", "3.5 cm nodule (right upper lobe), 12/07/1999, 98 %",
    "Die Lunge ist beidseits frei, das Herz ist nicht vergr\u00f6\u00dfert.", "Aucun \u00e9panchement n\u2019est visible \u00e0 gauche.",
    "\u00bfHay una opacidad en el l\u00f3bulo inferior? S\u00ed, peque\u00f1a.", "\u041b\u0451\u0433\u043a\u0438\u0435 \u0447\u0438\u0441\u0442\u044b, \u0441\u0435\u0440\u0434\u0446\u0435 \u043d\u0435 \u0443\u0432\u0435\u043b\u0438\u0447\u0435\u043d\u043e.",
    "\u039f\u03b9 \u03c0\u03bd\u03b5\u03cd\u03bc\u03bf\u03bd\u03b5\u03c2 \u03b5\u03af\u03bd\u03b1\u03b9 \u03ba\u03b1\u03b8\u03b1\u03c1\u03bf\u03af.", "\u80ba\u90e8\u6e05\u6670\uff0c\u5fc3\u810f\u4e0d\u5927\u3002\u4e2d\u592e", "\u80ba\u306f\u304d\u308c\u3044\u3067\u3059\u3002\u30b3\u30fc\u30c9\u30fb\u30d6\u30eb\u30fc",
    "\ud3d0\ub294 \uae68\ub057\ud569\ub2c8\ub2e4.", "\u0627\u0644\u0631\u0626\u062a\u0627\u0646 \u0646\u0642\u064a\u062a\u0627\u0646.", "\u05d4\u05e8\u05d9\u05d0\u05d5\u05ea \u05e0\u05e7\u05d9\u05d5\u05ea.", "\u092b\u0947\u092b\u0921\u093c\u0947 \u0938\u093e\u092b \u0939\u0948\u0902\u0964",
    "\u0e1b\u0e2d\u0e14\u0e2a\u0e30\u0e2d\u0e32\u0e14", "\U0001fac1 lungs \U0001f9d1\u200d\u2695\ufe0f\U0001f3fd and \u2764\ufe0f hearts \U0001f600\U0001f600", "e\u0301 \u0130\u0131 \ufb01 \u00c5 \u212b \u1e9e \u01c6",
    "<s> </s> <unk> <0x0A> [INST] hello [/INST] <image>\nQ?", "int main(void) { return a[i] += b->c ? 0x1F : ~0; }",
    "\u2581leading and \u2581\u2581inner\u2581 and trailing\u2581", "zero\u200bwidth\u00a0no-break\u2028line\u2029paragraph\ufeff", "aaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbb",
    "HELLO Hello hello hELLO", "\ue000\uf8ff\U000f0000\U0010ffff\ufffd\ufffe\uffff", "the quick <im <image> ab abab q  x",
]
RANGES = [(0x20, 0x7F), (0xA0, 0x180), (0x370, 0x400), (0x400, 0x500), (0x530, 0x590), (0x590, 0x700), (0x900, 0xE00),
          (0xE00, 0x1000), (0x10A0, 0x1200), (0x1780, 0x1800), (0x2000, 0x2C00), (0x2500, 0x25FF), (0x3040, 0x3100),
          (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0xE000, 0x10000), (0x10000, 0x11000), (0x1F300, 0x1FB00), (0, 0x110000)]


def characters(r, n):
    lo, hi = r.choice(RANGES)
    out = ""
    while len(out) < n:
        c = r.randrange(lo, hi) if r.random() < 0.8 else r.choice([0x20, 0x20, 0x0A, 0x2581, 0x61])
        if not 0xD800 <= c < 0xE000:
            out += chr(c)
    return out.encode()


def some_text(r, words):
    kind, n = r.random(), r.randint(1, 24)
    if kind < 0.25:
        return " ".join(r.choice(words) for _ in range(n)).encode()
    if kind < 0.55:
        return characters(r, n)
    if kind < 0.65:
        return bytes(r.randrange(256) for _ in range(n))
    if kind < 0.8:  # a sentence with a few bytes hurt
        text = bytearray(r.choice(SENTENCES).encode())
        for _ in range(r.randint(1, 3)):
            text[r.randrange(len(text))] = r.randrange(256)
        return bytes(text)
    if kind < 0.9:
        return "".join(r.choice([" ", "  ", "a", "\n", "\t", "\u2581", "th", "e", "\x00"]) for _ in range(n)).encode()
    return b"".join(r.choice(SENTENCES).encode()[:r.randint(1, 20)] for _ in range(3))


def some_ids(r, size):
    return [r.randrange(size) if r.random() < 0.6 else r.randrange(min(size, 262)) for _ in range(r.randint(0, 16))]


def varint(v):
    out = b""
    while v > 127:
        out, v = out + bytes([v & 127 | 128]), v >> 7
    return out + bytes([v])


def blob(b):
    return varint(len(b)) + b


def id_list(ids):
    return varint(len(ids)) + b"".join(map(varint, ids))


def cases(name, model, model_out, n_texts, n_ids, seed, extra=()):
    r = random.Random(seed)
    tokenizer = spm.SentencePieceProcessor(model_proto=model)
    words = " ".join(SENTENCES).split(" ")
    texts = [s.encode() for s in SENTENCES] + [b""] + [some_text(r, words) for _ in range(n_texts)]
    for i, text in enumerate(texts):
        if extra and i % 3 == 0:
            at = r.randint(0, len(text))
            texts[i] = text[:at] + r.choice(extra).encode() + text[at:]
    out = blob(name.encode()) + blob(model_out) + varint(len(texts))
    out += b"".join(blob(text) + id_list(tokenizer.encode(text)) for text in texts)
    lists = [some_ids(r, tokenizer.get_piece_size()) for _ in range(n_ids)]
    return out + varint(len(lists)) + b"".join(id_list(ids) + blob(tokenizer.decode(ids).encode()) for ids in lists)


def fields(b):
    """(number, wire, value) of a protobuf message, enough for the models above."""
    def number(at):
        v = shift = 0
        while True:
            v |= (b[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if b[at - 1] < 128:
                return v, at
    at = 0
    while at < len(b):
        tag, at = number(at)
        if tag & 7 == 0:
            v, at = number(at)
        else:
            n, at = number(at) if tag & 7 == 2 else (4, at)
            v, at = b[at:at + n], at + n
        yield tag >> 3, tag & 7, v


def message(items):
    return b"".join(varint(n << 3 | w) + (varint(v) if w == 0 else blob(v) if w == 2 else v) for n, w, v in items)


def retire(model, r):
    """Every fourth plain piece becomes UNUSED, some models stop escaping spaces: no trainer makes these."""
    out = []
    for n, w, v in fields(model):
        if n == 1 and not any(m == 3 for m, _, _ in fields(v)) and r.random() < 0.25:
            v += message([(3, 0, 5)])
        if n == 3 and r.random() < 0.5:
            v += message([(5, 0, 0)])
        out.append((n, w, v))
    return message(out)


def variants(training):
    r = random.Random(7)
    out = b""
    for i in range(16):
        dummy, extra, fallback, suffix = not i & 1, bool(i & 2), bool(i & 4), bool(i & 8)
        user = USER if i % 3 == 1 else []
        buffer = io.BytesIO()
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(training), model_writer=buffer, model_type="bpe", vocab_size=520 if fallback else 260,
            byte_fallback=fallback, add_dummy_prefix=dummy, remove_extra_whitespaces=extra,
            treat_whitespace_as_suffix=suffix, user_defined_symbols=user, normalization_rule_name="identity",
            character_coverage=0.99, hard_vocab_limit=False, num_threads=1, minloglevel=2)
        model = buffer.getvalue()
        if i % 5 in (2, 3):
            model = retire(model, r)
        name = f"dummy={dummy} extra={extra} bytes={fallback} suffix={suffix} user={bool(user)} unused={i % 5 in (2, 3)}"
        out += cases(name, model, model, 60, 30, i, user + [" ", "   ", "\u2581"])
    return out


def save(path, data):
    with open(os.path.join(HERE, path), "wb") as f:
        f.write(gzip.compress(data, 9, mtime=0))
    print(path, len(data), "bytes,", os.path.getsize(os.path.join(HERE, path)), "compressed")


def main():
    with open(os.path.join(HERE, "mistral_v1", "tokenizer.model"), "rb") as f:
        model = f.read()
    save("mistral_v1/golden.gz", cases("mistral v1", model, b"", 3000, 600, 1, ["<s>", "  ", "\u2581"]))
    with open(os.path.join(HERE, "..", "..", "models", "diseases.txt"), encoding="utf-8") as f:
        training = [line.strip() for line in f if not line.startswith("#")] + SENTENCES
    save("variants.gz", variants(training))


if __name__ == "__main__":
    main()
