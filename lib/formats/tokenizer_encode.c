/* tokenizer_encode.c - text to ids and back with a tokenizer.json. Special tokens written in the text are plain text
 * (encode_special_tokens of the reference); other added tokens are found. SPDX-License-Identifier: Apache-2.0 */
#include "tokenizer_json.h"

typedef struct encoder {
    const rz_jtok *t;
    rz_bpe bpe;
    rz_ids *ids;
    radz_error *err;
} encoder;

/* ---- Words ------------------------------------------------------------------------------------------ */

static bool look(void *ctx, const rz_bpe_symbol *a, const rz_bpe_symbol *b, uint32_t *rank, int32_t *merged)
{
    const rz_merge_rule *m = rz_jtok_merge(ctx, a->id, b->id);
    *rank = m->rank;
    *merged = m->merged;
    return m->left >= 0;
}

/* Adds the bytes of a character, where the vocabulary has them all. */
static bool add_bytes(encoder *e, const char *w, size_t pos, size_t len)
{
    for (size_t k = 0; k < len; k++)
        if (e->t->byte_id[(uint8_t)w[pos + k]] < 0) return false;
    for (size_t k = 0; k < len; k++) rz_bpe_add(&e->bpe, (uint32_t)(pos + k), 1, e->t->byte_id[(uint8_t)w[pos + k]]);
    return true;
}

/* Characters to symbols. An unknown token waits for what may join it; as in the reference it then comes after bytes
 * that stood behind it. */
static void add_symbols(encoder *e, const char *w, size_t n)
{
    const rz_jtok *t = e->t;
    size_t unk_len = 0;
    for (size_t i = 0, len; i < n && !e->bpe.no_memory; i += len) {
        if (!(len = rz_utf8_next(w + i, n - i, NULL))) len = 1;
        int32_t id = rz_jtok_find(t, w + i, len);
        if (id < 0 && t->byte_fallback && add_bytes(e, w, i, len)) continue;
        if (id < 0 && t->unk < 0) continue;
        if (unk_len && (id >= 0 || !t->fuse_unk)) {
            rz_bpe_add(&e->bpe, (uint32_t)i, (uint32_t)unk_len, t->unk);
            unk_len = 0;
        }
        if (id >= 0)
            rz_bpe_add(&e->bpe, (uint32_t)i, (uint32_t)len, id);
        else
            unk_len += len;
    }
    if (unk_len) rz_bpe_add(&e->bpe, (uint32_t)n, (uint32_t)unk_len, t->unk);
}

static radz_status encode_word(encoder *e, const char *w, size_t n)
{
    int32_t id = e->t->ignore_merges ? rz_jtok_find(e->t, w, n) : -1;
    if (id >= 0) {
        rz_ids_put(e->ids, id);
        return RADZ_OK;
    }
    rz_bpe_clear(&e->bpe);
    add_symbols(e, w, n);
    if (!e->bpe.no_memory) rz_bpe_merge(&e->bpe);
    if (e->bpe.no_memory) return RZ_NO_MEMORY(e->err, "tokens");
    for (int32_t i = e->bpe.n_symbols ? 0 : -1; i >= 0; i = e->bpe.symbols[i].next)
        rz_ids_put(e->ids, e->bpe.symbols[i].id);
    return RADZ_OK;
}

static radz_status encode_words(encoder *e, const char *p, size_t n, bool first)
{
    rz_spans s = {.text = {.host = e->t->host}};
    rz_str_put(&s.text, p, n);
    rz_spans_end(&s);
    radz_status status = s.failed || s.text.failed ? RZ_NO_MEMORY(e->err, "text")
                                                   : rz_chain_run(&e->t->pre_tokenizer, &s, first, e->err);
    for (size_t i = 0; i < s.n && status == RADZ_OK; i++)
        status = encode_word(e, s.text.data + rz_spans_begin(&s, i), s.end[i] - rz_spans_begin(&s, i));
    rz_spans_free(&s);
    return status;
}

/* ---- Added tokens --------------------------------------------------------------------------------------- */

/* The character before p + at: its length, 0 at the start. */
static size_t char_before(const char *p, size_t at, uint32_t *c)
{
    size_t len = 0;
    while (len < at && len < 4 && ((uint8_t)p[at - ++len] & 0xC0) == 0x80) {}
    return len ? rz_utf8_next(p + at - len, len, c) : 0;
}

static bool is_word_at(const char *p, size_t n, size_t at)
{
    uint32_t c;
    return at < n && rz_utf8_next(p + at, n - at, &c) && rz_char_is_word(c);
}

static bool is_word_before(const char *p, size_t at)
{
    uint32_t c;
    return char_before(p, at, &c) && rz_char_is_word(c);
}

static size_t skip_space_back(const char *p, size_t from, size_t at)
{
    uint32_t c;
    for (size_t len; at > from && (len = char_before(p, at, &c)) && rz_char_kind_of(c) == RZ_CHAR_SPACE;) at -= len;
    return at;
}

static size_t skip_space(const char *p, size_t n, size_t at)
{
    uint32_t c;
    for (size_t len; at < n && (len = rz_utf8_next(p + at, n - at, &c)) && rz_char_kind_of(c) == RZ_CHAR_SPACE;)
        at += len;
    return at;
}

typedef radz_status (*text_reader)(encoder *e, const char *p, size_t n, bool first);

/* Finds the set's tokens from left to right, the longest at each place; what lies between goes to `between`. White
 * space that a token takes on its right is searched all the same, as in the reference. */
static radz_status scan(encoder *e, const rz_text_set *set, const char *p, size_t n, bool first, text_reader between)
{
    size_t done = 0, space_end = 0;
    for (size_t i = 0; i < n && set->n;) {
        const rz_text_item *item = rz_text_set_longest(set, p + i, n - i);
        if (!item) {
            i++;
            continue;
        }
        const rz_added *a = &e->t->added[item->value];
        size_t start = i, stop = i + item->len;
        i = stop;
        if (a->special || (a->single_word && (is_word_before(p, start) || is_word_at(p, n, stop)))) continue;
        if (a->lstrip && start > done) start = skip_space_back(p, done, start);
        if (a->lstrip && start < done) start = done;
        if (a->rstrip) stop = space_end = stop < space_end ? space_end : skip_space(p, n, stop);
        if (done < start) RZ_TRY(between(e, p + done, start - done, first && done == 0));
        rz_ids_put(e->ids, a->id);
        done = stop;
    }
    return done < n ? between(e, p + done, n - done, first && done == 0) : RADZ_OK;
}

static radz_status encode_raw(encoder *e, const char *p, size_t n, bool first)
{
    rz_spans s = {.text = {.host = e->t->host}};
    rz_str_put(&s.text, p, n);
    rz_spans_end(&s);
    radz_status status =
        s.failed || s.text.failed ? RZ_NO_MEMORY(e->err, "text") : rz_chain_run(&e->t->normalizer, &s, first, e->err);
    if (status == RADZ_OK && s.text.len) status = scan(e, &e->t->normal, s.text.data, s.text.len, first, encode_words);
    rz_spans_free(&s);
    return status;
}

radz_status rz_jtok_encode(const rz_tokenizer *tok, const char *text, size_t n, rz_ids *ids, radz_error *err)
{
    const rz_jtok *t = tok->impl;
    encoder e = {.t = t, .ids = ids, .err = err};
    rz_str clean = {.host = t->host};
    e.bpe = (rz_bpe){.host = t->host, .look = look, .ctx = tok->impl};
    if (!rz_utf8_valid(text, n)) {
        rz_utf8_put_lossy(&clean, text, n);
        text = clean.data;
        n = clean.len;
    }
    radz_status status = clean.failed ? RZ_NO_MEMORY(err, "text") : scan(&e, &t->raw, text, n, true, encode_raw);
    rz_bpe_free(&e.bpe);
    rz_str_free(&clean);
    return status;
}

/* ---- Ids to text ------------------------------------------------------------------------------------------ */

static void put_token(const rz_jtok *t, int32_t id, rz_spans *s)
{
    const rz_added *a = t->added_at[id] >= 0 ? &t->added[t->added_at[id]] : NULL;
    if (a && a->special) return;
    if (!t->has_decoder && s->n) rz_str_puts(&s->text, " ");
    if (a && a->normal)
        rz_str_puts(&s->text, a->normal);
    else
        rz_str_put(&s->text, t->pieces[id].text, t->pieces[id].len);
    rz_spans_end(s);
}

radz_status rz_jtok_decode(const rz_tokenizer *tok, const int32_t *ids, size_t n, rz_str *s, radz_error *err)
{
    const rz_jtok *t = tok->impl;
    rz_spans spans = {.text = {.host = t->host}};
    for (size_t i = 0; i < n; i++) put_token(t, ids[i], &spans);
    radz_status status =
        spans.failed || spans.text.failed ? RZ_NO_MEMORY(err, "text") : rz_chain_run(&t->decoder, &spans, true, err);
    if (status == RADZ_OK && spans.text.len) rz_str_put(s, spans.text.data, spans.text.len);
    rz_spans_free(&spans);
    return status;
}
