/* tokenizer.h - what the two kinds of tokenizer files share behind rz_tokenizer. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_TOKENIZER_H
#define RZ_TOKENIZER_H

#include "bpe.h"
#include "formats.h"

#define RZ_TOKENIZER_MAX_BYTES ((size_t)64 << 20) /* of a file, and of a text */

struct rz_tokenizer {
    const rz_host *host;
    char hash[65];
    size_t size;
    int32_t bos, eos;
    const struct rz_tokenizer_kind *kind; /* NULL until it is built */
    void *impl;
};

/* n is at most RZ_TOKENIZER_MAX_BYTES; ids given to decode are in range. */
typedef struct rz_tokenizer_kind {
    const char *name;
    void (*close)(rz_tokenizer *t);
    radz_status (*encode)(const rz_tokenizer *t, const char *text, size_t n, rz_ids *ids, radz_error *err);
    radz_status (*decode)(const rz_tokenizer *t, const int32_t *ids, size_t n, rz_str *s, radz_error *err);
    const char *(*piece)(const rz_tokenizer *t, int32_t id);
    bool (*is_control)(const rz_tokenizer *t, int32_t id);
} rz_tokenizer_kind;

/* Fill t, whose host and hash are set. What they have put there on failure, rz_tokenizer_close frees. */
radz_status rz_tokenizer_build_spm(rz_tokenizer *t, const uint8_t *bytes, size_t n, const char *what,
                                   radz_error *err) RZ_CHECK;
radz_status rz_tokenizer_build_json(rz_tokenizer *t, const uint8_t *bytes, size_t n, const char *what,
                                    radz_error *err) RZ_CHECK;
/* What tokenizer_config.json beside a tokenizer.json says of BOS and EOS, where there is one. */
radz_status rz_tokenizer_read_config(rz_tokenizer *t, const char *path, radz_error *err) RZ_CHECK;

/* Seeded with the file's own hash, so that no file can be made to collide. */
uint64_t rz_tokenizer_seed(const rz_tokenizer *t);
size_t rz_tokenizer_hash_text(uint64_t seed, const char *text, size_t n);
/* 0..255 for "<0x00>".."<0xFF>", else -1. */
int rz_tokenizer_byte_of(const char *text, size_t n);

#endif
