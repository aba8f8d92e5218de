/* tokenizer.c - the handle over both kinds of tokenizer files, which are told apart by their content.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tokenizer.h"

static bool is_json(const uint8_t *bytes, size_t n)
{
    static const char bom[] = "\xef\xbb\xbf"; /* the JSON parser has a message for it */
    return n && (*bytes == '{' || (n > 3 && memcmp(bytes, bom, 3) == 0));
}

static radz_status build(rz_tokenizer *t, const uint8_t *bytes, size_t n, const char *what, radz_error *err)
{
    rz_sha256 sha;
    if (n == 0) return rz_fail(err, RADZ_E_FORMAT, "%s: empty, expected a tokenizer", what);
    if (n > RZ_TOKENIZER_MAX_BYTES)
        return rz_fail(err, RADZ_E_LIMIT, "%s: tokenizer of %zu bytes, at most %zu are read", what, n,
                       RZ_TOKENIZER_MAX_BYTES);
    rz_sha256_init(&sha);
    rz_sha256_put(&sha, bytes, n);
    rz_sha256_hex(&sha, t->hash);
    return is_json(bytes, n) ? rz_tokenizer_build_json(t, bytes, n, what, err)
                             : rz_tokenizer_build_spm(t, bytes, n, what, err);
}

radz_status rz_tokenizer_parse(const rz_host *host, const uint8_t *bytes, size_t n, const char *what,
                               rz_tokenizer **tok, radz_error *err)
{
    rz_tokenizer *t = rz_calloc(host, 1, sizeof *t);
    *tok = NULL;
    if (!t) return RZ_NO_MEMORY(err, what);
    t->host = host;
    t->bos = t->eos = -1;
    radz_status status = build(t, bytes, n, what, err);
    if (status == RADZ_OK)
        *tok = t;
    else
        rz_tokenizer_close(t);
    return status;
}

radz_status rz_tokenizer_open(const rz_host *host, const char *path, rz_tokenizer **tok, radz_error *err)
{
    rz_file file;
    *tok = NULL;
    RZ_TRY(rz_file_open(host, path, RZ_FILE_READ, RZ_TOKENIZER_MAX_BYTES, &file, err));
    radz_status status = rz_tokenizer_parse(host, file.data, file.size, path, tok, err);
    if (status == RADZ_OK && is_json(file.data, file.size)) status = rz_tokenizer_read_config(*tok, path, err);
    rz_file_close(&file);
    if (status != RADZ_OK) {
        rz_tokenizer_close(*tok);
        *tok = NULL;
    }
    return status;
}

void rz_tokenizer_close(rz_tokenizer *t)
{
    if (!t) return;
    if (t->kind) t->kind->close(t);
    rz_free(t->host, t);
}

size_t rz_tokenizer_size(const rz_tokenizer *t)
{
    return t->size;
}
int32_t rz_tokenizer_bos(const rz_tokenizer *t)
{
    return t->bos;
}
int32_t rz_tokenizer_eos(const rz_tokenizer *t)
{
    return t->eos;
}
const char *rz_tokenizer_name(const rz_tokenizer *t)
{
    return t->kind->name;
}

const char *rz_tokenizer_hash(const rz_tokenizer *t)
{
    return t->hash;
}

const char *rz_tokenizer_piece(const rz_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->size ? t->kind->piece(t, id) : NULL;
}

int32_t rz_tokenizer_find(const rz_tokenizer *t, const char *piece)
{
    for (size_t i = 0; i < t->size; i++) {
        const char *p = t->kind->piece(t, (int32_t)i);
        if (p && strcmp(p, piece) == 0) return (int32_t)i;
    }
    return -1;
}

bool rz_tokenizer_is_control(const rz_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->size && t->kind->is_control(t, id);
}

radz_status rz_tokenizer_encode(const rz_tokenizer *t, const char *text, size_t n, int32_t **ids, size_t *n_ids,
                                radz_error *err)
{
    rz_ids out = {.host = t->host};
    *ids = NULL;
    *n_ids = 0;
    if (n > RZ_TOKENIZER_MAX_BYTES)
        return rz_fail(err, RADZ_E_LIMIT, "text of %zu bytes, at most %zu are tokenized", n, RZ_TOKENIZER_MAX_BYTES);
    radz_status status = t->kind->encode(t, text, n, &out, err);
    if (status == RADZ_OK && !out.data && !out.failed) out.failed = !(out.data = rz_malloc(t->host, 0));
    if (status == RADZ_OK && out.failed) status = RZ_NO_MEMORY(err, "tokens");
    if (status != RADZ_OK) {
        rz_free(t->host, out.data);
        return status;
    }
    *ids = out.data;
    *n_ids = out.n;
    return RADZ_OK;
}

radz_status rz_tokenizer_decode(const rz_tokenizer *t, const int32_t *ids, size_t n, rz_str *s, radz_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= t->size)
            return rz_fail(err, RADZ_E_ARGUMENT, "token id %d, expected 0 to %zu", (int)ids[i], t->size - 1);
    RZ_TRY(t->kind->decode(t, ids, n, s, err));
    return s->failed ? RZ_NO_MEMORY(err, "text") : RADZ_OK;
}

uint64_t rz_tokenizer_seed(const rz_tokenizer *t)
{
    uint64_t seed;
    memcpy(&seed, t->hash, sizeof seed);
    return seed;
}

size_t rz_tokenizer_hash_text(uint64_t seed, const char *text, size_t n)
{
    uint64_t h = seed;
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)text[i]) * 0x100000001B3u;
    h ^= h >> 32;
    return (size_t)(h * 0x9E3779B97F4A7C15u >> 20);
}

int rz_tokenizer_byte_of(const char *text, size_t n)
{
    static const char digits[] = "0123456789ABCDEF";
    const char *hi, *lo;
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    hi = memchr(digits, text[3], 16);
    lo = memchr(digits, text[4], 16);
    return hi && lo ? (int)((hi - digits) * 16 + (lo - digits)) : -1;
}
