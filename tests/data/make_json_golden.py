"""Makes the golden files of tests/test_tokenizer_json.c with the tokenizers, sentencepiece and transformers packages.
SPDX-License-Identifier: Apache-2.0

    python tests/data/make_json_golden.py        (made with tokenizers 0.23.3, sentencepiece 0.2.3, transformers 5.23)

corpus.gz       the lines that every model reads: texts of many scripts, damaged bytes, special tokens, two of 1 MB
json_golden.gz  models as tokenizer.json, trained here or (vocab and merges null) with Mistral's pieces, and what comes of them

corpus.gz is a list of texts. A model is its name, its file, 16 bits of the FNV-1a of each line's ids, 64 bits of all of them,
lists of ids with their text. Numbers are varints; bytes and lists are preceded by their length.
"""
import gzip
import json
import os
import random

import sentencepiece as spm
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.tokenization_utils_base import generate_merges

from make_tokenizer_golden import HERE, SENTENCES, blob, id_list, some_ids, some_text, varint

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|"
          r"\s*[\r\n]|\s+(?!\S)|\s+")
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
SPECIAL = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<image>", "<pad>", "<tool>", "<left>", "<right>", "word",
           " <both> ", "[INST]", "\u00c5", "A\u030a"]
MARKS = [chr(c) for c in (0x300, 0x301, 0x323, 0x327, 0x345, 0x5B0, 0x5B9, 0x591, 0x64B, 0x651, 0x93C, 0x9BE, 0x9D7, 0xBBE,
                          0xDCA, 0xDCF, 0x1161, 0x1175, 0x11A8, 0x11C2, 0x3099, 0x309A, 0x20D0, 0x1D165, 0x1D16E, 0x1DF9, 0x7FD)]
BASES = [chr(c) for c in (0x41, 0x61, 0x6F, 0x3C9, 0x438, 0x627, 0x915, 0x9C7, 0xBC6, 0xDD9, 0x1100, 0x1112, 0xAC00, 0xAC01,
                          0x304B, 0x212B, 0x1EBF, 0x1E69, 0x2126, 0xFB1D, 0xF900, 0x1D15E, 0x1109A, 0x11935, 0x958)]
PARTS = ["'s", "'T", "'re", "'VE", "'ll", "'\u017f", "'d", "'x", "\u2019s", " ", "  ", "\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000",
         "\x85", "\x1c", "\u200b", "1", "23", "456", "7890", "\u0663\u0664", "\u00b2", "\u2167", "\u4e94", "\U00016ff4", "\U00011de1", "a",
         "the", "Lung", "\u00e9", "\u4e2d", "\U0001f600", "_", "!", "...", "-", "\u0301", "\u2581", "\ua7cb", "\U00010d40", "\ufffd", "\0"]


def line(r, words):
    kind = r.random()
    if kind < 0.45:
        return some_text(r, words)
    if kind < 0.8:
        return "".join(r.choice(PARTS) for _ in range(r.randint(1, 14))).encode()
    if kind < 0.9:
        return "".join(r.choice(BASES) + "".join(r.choice(MARKS) for _ in range(r.randint(0, 4)))
                       for _ in range(r.randint(1, 5))).encode()
    return "".join(r.choice(SPECIAL + PARTS) for _ in range(r.randint(1, 8))).encode()


def make_corpus():
    r = random.Random(3)
    words = " ".join(SENTENCES).split(" ")
    lines = [s.encode() for s in SENTENCES + SPECIAL + PARTS] + [b""] + [line(r, words) for _ in range(10000)]
    lines.append(("\u0301" * 300 + "a" + "\u0323\u0301\u0345" * 200).encode())
    lines.append((" ".join(SENTENCES) * 1000).encode()[:1 << 20])  # its last character is cut
    lines.append(b"a" * (1 << 20))
    return lines


def fnv(ids, bits):
    prime, h = (0x01000193, 0x811C9DC5) if bits == 32 else (0x100000001B3, 0xCBF29CE484222325)
    for v in ids:
        h = (h ^ v) * prime & (1 << bits) - 1
    return h


def outcome(name, text, corpus, encode, decode, size, seed):
    checks, all_ids = b"", []
    for line_bytes in corpus:
        ids = encode(line_bytes)
        h = fnv(ids, 32)
        checks += ((h ^ h >> 16) & 0xFFFF).to_bytes(2, "little")
        all_ids += ids + [len(ids)]
    r = random.Random(seed)
    lists = [some_ids(r, size) for _ in range(60)]
    return (blob(name.encode()) + blob(text.encode()) + blob(checks) + fnv(all_ids, 64).to_bytes(8, "little")
            + varint(len(lists)) + b"".join(id_list(ids) + blob(decode(ids).encode()) for ids in lists))


def with_tokenizers(name, text, stored, corpus, seed):
    tokenizer = Tokenizer.from_str(text)
    tokenizer.encode_special_tokens = True
    return outcome(name, stored, corpus,
                   lambda b: tokenizer.encode(b.decode("utf-8", errors="replace"), add_special_tokens=False).ids,
                   tokenizer.decode, tokenizer.get_vocab_size(), seed)


# ---- Mistral's pieces -------------------------------------------------------------------------------------------


def added(i, content, special=True, normalized=False, single_word=False, lstrip=False, rstrip=False):
    return {"id": i, "content": content, "single_word": single_word, "lstrip": lstrip, "rstrip": rstrip,
            "normalized": normalized, "special": special}


def metaspace(scheme, split=False):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split}


def llama_json(normalizer, pre_tokenizer, decoder, more=()):
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                                         {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>"), *more],
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": template, "decoder": decoder,
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                      "vocab": None, "merges": None}}


PREPEND = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
                                               {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
UNPREPEND = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                                              {"type": "ByteFallback"}, {"type": "Fuse"},
                                              {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
MORE = [added(32000, "<image>", False, True), added(32001, "<tool>", False), added(32002, "<left>", False, True, lstrip=True),
        added(32003, "<right>", False, False, rstrip=True), added(32004, "word", False, False, True),
        added(32005, " <both> ", False, False, lstrip=True, rstrip=True), added(32006, "<pad>"),
        added(32007, "\n ", False, False, rstrip=True), added(32008, "Lung", False, True, True)]


def mistral(corpus):
    path = os.path.join(HERE, "mistral_v1", "tokenizer.model")
    model = spm.SentencePieceProcessor(model_file=path)
    vocab = {model.id_to_piece(i): i for i in range(model.get_piece_size())}
    plain = {p: i for p, i in vocab.items() if i >= 259}
    merges = generate_merges(vocab, {p: -i for p, i in plain.items()})
    print(len(merges), "merges")
    out = outcome("sentencepiece", "", corpus, model.encode, model.decode, model.get_piece_size(), 0)
    kinds = {"prepend": llama_json(PREPEND, None, UNPREPEND), "first": llama_json(None, metaspace("first"), metaspace("first")),
             "always": llama_json(None, metaspace("always", True), metaspace("always")),
             "never": llama_json(None, metaspace("never"), UNPREPEND, MORE), "more": llama_json(PREPEND, None, UNPREPEND, MORE),
             "more first": llama_json(None, metaspace("first"), UNPREPEND, MORE)}
    for i, (name, spec) in enumerate(kinds.items()):
        fresh = len(vocab)
        for token in spec["added_tokens"]:
            token["id"] = vocab.get(token["content"], fresh)
            fresh += token["content"] not in vocab
        stored = json.dumps(spec, separators=(",", ":"))
        spec["model"]["vocab"], spec["model"]["merges"] = vocab, merges
        out += with_tokenizers("mistral " + name, json.dumps(spec), stored, corpus, i)
    return out


# ---- Models that are trained here -----------------------------------------------------------------------------------


def split(regex, behavior="isolated", invert=False):
    return [pre_tokenizers.Split(Regex(regex), behavior, invert),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def byte_level(training, steps, normalizer=None, size=600, ignore_merges=False, special=("<|endoftext|>", "<|im_start|>")):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    t.normalizer = normalizer
    t.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.train_from_iterator(training, trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), show_progress=False,
                                                        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


def characters(training, pre_tokenizer, normalizer=None, **options):
    t = Tokenizer(models.BPE(**options))
    t.normalizer, t.pre_tokenizer = normalizer, pre_tokenizer
    alphabet = [f"<0x{b:02X}>" for b in range(256) if options.get("byte_fallback")]
    if options.get("byte_fallback") == "part":
        alphabet = alphabet[:0xE0]
    t.train_from_iterator(training, trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>", "<s>", "</s>"] + alphabet,
                                                        show_progress=False, limit_alphabet=90))
    return t


def strings(text):
    """Merges in the older form."""
    spec = json.loads(text)
    spec["model"]["merges"] = [" ".join(m) for m in spec["model"]["merges"]]
    return json.dumps(spec, ensure_ascii=False)


def without_bytes(text):
    """Some byte pieces are lost."""
    spec = json.loads(text)
    vocab, spec["model"]["merges"] = spec["model"]["vocab"], spec["model"]["merges"]
    for b in (0xE4, 0xB8, 0xF0):
        vocab[f"lost {b}"] = vocab.pop(f"<0x{b:02X}>")
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] in vocab]
    return json.dumps(spec, ensure_ascii=False)


def trained(corpus, training):
    level = pre_tokenizers.ByteLevel
    space = [AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True), AddedToken("word", single_word=True),
             AddedToken("\u00c5", normalized=True), AddedToken("<image>", special=True), AddedToken("  ", normalized=False)]
    qwen2 = byte_level(training, split(QWEN2), normalizers.NFC())
    qwen2.add_tokens(space)
    smol = byte_level(training, [pre_tokenizers.Digits(individual_digits=True), level(add_prefix_space=False)])
    sp = [("fallback", characters(training, pre_tokenizers.Metaspace(), byte_fallback=True, unk_token="<unk>").to_str()),
          ("unk", characters(training, pre_tokenizers.Metaspace(prepend_scheme="first"), unk_token="<unk>").to_str()),
          ("fused", characters(training, pre_tokenizers.Metaspace(prepend_scheme="never", split=False), unk_token="<unk>",
                               fuse_unk=True).to_str()),
          ("no unk", characters(training, None, normalizers.Replace(" ", "\u2581")).to_str())]
    sp.append(("part", without_bytes(sp[0][1])))
    kinds = [("gpt2", byte_level(training, [level(add_prefix_space=False)]).to_str()),
             ("roberta", strings(byte_level(training, [level(add_prefix_space=True)]).to_str())),
             ("gpt2 split", byte_level(training, split(GPT2)).to_str()),
             ("llama3", byte_level(training, split(LLAMA3), ignore_merges=True, size=900).to_str()),
             ("cl100k", byte_level(training, split(CL100K, "removed", True)).to_str()),
             ("qwen2", qwen2.to_str()), ("smollm", smol.to_str()),
             ("digits", byte_level(training, [pre_tokenizers.Digits(), level()], normalizers.NFC(), size=400).to_str())]
    out = b""
    for i, (name, text) in enumerate(kinds + sp):
        spec = json.loads(text)
        out += with_tokenizers(name, text, json.dumps(spec, ensure_ascii=False, separators=(",", ":")), corpus, i)
    return out


def save(path, data):
    with open(os.path.join(HERE, path), "wb") as f:
        f.write(gzip.compress(data, 9, mtime=0))
    print(path, len(data), "bytes,", os.path.getsize(os.path.join(HERE, path)), "compressed")


def main():
    corpus = make_corpus()
    save("corpus.gz", varint(len(corpus)) + b"".join(map(blob, corpus)))
    with open(os.path.join(HERE, "..", "..", "models", "diseases.txt"), encoding="utf-8") as f:
        training = [text.strip() for text in f if not text.startswith("#")] + SENTENCES
    save("json_golden.gz", mistral(corpus) + trained(corpus, training))


if __name__ == "__main__":
    main()
