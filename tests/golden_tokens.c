/* golden_tokens.c - the files of tests/data/make_tokenizer_golden.py. SPDX-License-Identifier: Apache-2.0 */
#include "golden_tokens.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>
#include <cmocka.h>

#include "formats.h"
#include "mistral_json.h"

typedef struct reader {
    const uint8_t *p, *end;
} reader;

typedef struct blob {
    const char *p;
    size_t n;
} blob;

static uint8_t *inflate_file(const char *path, size_t *n)
{
    size_t cap = 16u << 20;
    uint8_t *bytes = malloc(cap);
    gzFile f = gzopen(path, "rb");
    if (!f || !bytes) fail_msg("cannot read %s", path);
    int k = gzread(f, bytes, (unsigned)cap);
    if (k <= 0 || (size_t)k == cap || gzclose(f) != Z_OK) fail_msg("cannot read %s", path);
    *n = (size_t)k;
    return bytes;
}

static size_t take_number(reader *r)
{
    size_t v = 0;
    for (unsigned shift = 0;; shift += 7) {
        assert_true(r->p < r->end);
        v |= (size_t)(*r->p & 127) << shift;
        if (*r->p++ < 128) return v;
    }
}

static blob take_blob(reader *r)
{
    size_t n = take_number(r);
    assert_true(n <= (size_t)(r->end - r->p));
    blob b = {(const char *)r->p, n};
    r->p += n;
    return b;
}

static int32_t *take_ids(reader *r, size_t *n)
{
    *n = take_number(r);
    int32_t *ids = malloc((*n + 1) * sizeof *ids);
    assert_non_null(ids);
    for (size_t i = 0; i < *n; i++) ids[i] = (int32_t)take_number(r);
    return ids;
}

static void check_text(const rz_tokenizer *tok, reader *r, blob model, size_t i)
{
    radz_error err;
    blob text = take_blob(r);
    int32_t *ids;
    size_t n_want, n;
    int32_t *want = take_ids(r, &n_want);
    char *copy = malloc(text.n + !text.n); /* of its exact size, for ASan */
    assert_non_null(copy);
    memcpy(copy, text.p, text.n);
    assert_int_equal(rz_tokenizer_encode(tok, copy, text.n, &ids, &n, &err), RADZ_OK);
    if (n != n_want || memcmp(ids, want, n * sizeof *ids) != 0)
        fail_msg("%.*s: text %zu \"%.*s\": other ids than sentencepiece's", (int)model.n, model.p, i, (int)text.n,
                 text.p);
    rz_free(NULL, ids);
    free(copy);
    free(want);
}

static void check_ids(const rz_tokenizer *tok, reader *r, blob model, size_t i)
{
    radz_error err;
    size_t n;
    rz_str s = {0};
    int32_t *ids = take_ids(r, &n);
    blob want = take_blob(r);
    assert_int_equal(rz_tokenizer_decode(tok, ids, n, &s, &err), RADZ_OK);
    if (s.len != want.n || (s.len && memcmp(s.data, want.p, s.len) != 0))
        fail_msg("%.*s: ids %zu: \"%.*s\", expected \"%.*s\"", (int)model.n, model.p, i, (int)s.len,
                 s.data ? s.data : "", (int)want.n, want.p);
    rz_str_free(&s);
    free(ids);
}

size_t golden_tokens_check(const char *path, const char *model_path)
{
    size_t n, checked = 0;
    uint8_t *bytes = inflate_file(path, &n);
    reader r = {bytes, bytes + n};
    while (r.p < r.end) {
        radz_error err = {RADZ_OK, ""};
        rz_tokenizer *tok;
        blob name = take_blob(&r), model = take_blob(&r);
        radz_status status = model.n ? rz_tokenizer_parse(NULL, (const uint8_t *)model.p, model.n, "golden", &tok, &err)
                                     : rz_tokenizer_open(NULL, model_path, &tok, &err);
        if (status) fail_msg("%.*s: %s", (int)name.n, name.p, err.message);
        size_t n_texts = take_number(&r);
        for (size_t i = 0; i < n_texts; i++) check_text(tok, &r, name, i);
        size_t n_lists = take_number(&r);
        for (size_t i = 0; i < n_lists; i++) check_ids(tok, &r, name, i);
        checked += n_texts + n_lists;
        rz_tokenizer_close(tok);
    }
    free(bytes);
    return checked;
}

/* ---- Models that all read the same lines ---- */

typedef struct corpus {
    uint8_t *bytes;
    blob *lines;
    size_t n;
} corpus;

static corpus read_corpus(const char *path)
{
    corpus c;
    size_t n;
    c.bytes = inflate_file(path, &n);
    reader r = {c.bytes, c.bytes + n};
    c.n = take_number(&r);
    c.lines = malloc(c.n * sizeof *c.lines);
    assert_non_null(c.lines);
    for (size_t i = 0; i < c.n; i++) c.lines[i] = take_blob(&r);
    return c;
}

static void hash_id(uint64_t *all, int32_t id)
{
    *all = (*all ^ (uint32_t)id) * 0x100000001B3u;
}

/* checks: two bytes for the ids of each line, then eight for those of all. */
static void check_lines(const rz_tokenizer *tok, const corpus *c, const uint8_t *checks, blob name)
{
    uint64_t all = 0xCBF29CE484222325u, want = 0;
    radz_error err;
    for (size_t i = 0; i < c->n; i++) {
        int32_t *ids;
        size_t n;
        uint32_t h = 0x811C9DC5;
        if (rz_tokenizer_encode(tok, c->lines[i].p, c->lines[i].n, &ids, &n, &err)) fail_msg("%s", err.message);
        for (size_t k = 0; k < n; k++) h = (h ^ (uint32_t)ids[k]) * 0x01000193, hash_id(&all, ids[k]);
        hash_id(&all, (int32_t)n);
        rz_free(NULL, ids);
        if (((h ^ h >> 16) & 0xFFFF) != (uint32_t)(checks[2 * i] | checks[2 * i + 1] << 8))
            fail_msg("%.*s: line %zu \"%.*s\": other ids than the reference's", (int)name.n, name.p, i,
                     (int)(c->lines[i].n < 200 ? c->lines[i].n : 200), c->lines[i].p);
    }
    for (int k = 0; k < 8; k++) want |= (uint64_t)checks[2 * c->n + (size_t)k] << 8 * k;
    if (all != want) fail_msg("%.*s: some line has other ids than the reference's", (int)name.n, name.p);
}

static rz_tokenizer *open_model(blob text, const rz_tokenizer *mistral)
{
    static const char null_vocab[] = "\"vocab\":null";
    radz_error err = {RADZ_OK, ""};
    rz_tokenizer *tok;
    rz_str s = {0};
    rz_str_put(&s, text.p, text.n);
    assert_false(s.failed);
    if (strstr(s.data, null_vocab)) {
        rz_str whole = mistral_json(mistral, s.data);
        rz_str_free(&s);
        s = whole;
    }
    if (rz_tokenizer_parse(NULL, (const uint8_t *)s.data, s.len, "golden", &tok, &err)) fail_msg("%s", err.message);
    rz_str_free(&s);
    return tok;
}

size_t golden_tokens_check_corpus(const char *path, const char *corpus_path, const char *mistral_path, size_t *n_lines)
{
    size_t n, models = 0;
    uint8_t *bytes = inflate_file(path, &n);
    corpus c = read_corpus(corpus_path);
    reader r = {bytes, bytes + n};
    rz_tokenizer *mistral;
    radz_error err;
    assert_int_equal(rz_tokenizer_open(NULL, mistral_path, &mistral, &err), RADZ_OK);
    for (; r.p < r.end; models++) {
        blob name = take_blob(&r), text = take_blob(&r), checks = take_blob(&r);
        assert_int_equal(checks.n, 2 * c.n);
        rz_tokenizer *tok = text.n ? open_model(text, mistral) : mistral;
        check_lines(tok, &c, (const uint8_t *)checks.p, name);
        r.p += 8;
        size_t n_lists = take_number(&r);
        for (size_t i = 0; i < n_lists; i++) check_ids(tok, &r, name, i);
        if (tok != mistral) rz_tokenizer_close(tok);
    }
    *n_lines = c.n;
    rz_tokenizer_close(mistral);
    free(c.lines);
    free(c.bytes);
    free(bytes);
    return models;
}
