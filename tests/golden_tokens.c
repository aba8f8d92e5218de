/* golden_tokens.c - the files of tests/data/make_tokenizer_golden.py. SPDX-License-Identifier: Apache-2.0 */
#include "golden_tokens.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>
#include <cmocka.h>

#include "formats.h"

typedef struct reader {
    const uint8_t *p, *end;
} reader;

typedef struct blob {
    const char *p;
    size_t n;
} blob;

static uint8_t *inflate_file(const char *path, size_t *n)
{
    size_t cap = 4u << 20;
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
