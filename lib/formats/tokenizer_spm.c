/* tokenizer_spm.c - SentencePiece BPE: reads tokenizer.model (a protobuf), turns text into ids and back. Ids are those
 * of the sentencepiece package, invalid UTF-8 and all. SPDX-License-Identifier: Apache-2.0 */
#include "tokenizer.h"
#include "unicode.h"

#define MAX_PIECE_BYTES 8000u /* as the reference */
#define SPACE_SYMBOL "\xe2\x96\x81"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

typedef struct piece {
    const char *text; /* in arena, NUL-terminated */
    uint32_t len;
    float score;
    int type;
} piece;

typedef struct spm {
    const rz_host *host;
    char *arena; /* texts of pieces */
    size_t arena_len;
    piece *pieces;
    size_t n_pieces, cap_pieces;
    int32_t *table; /* open addressing over all pieces, -1 where empty */
    size_t table_mask;
    uint64_t seed;
    rz_text_set user; /* user-defined symbols */
    int32_t byte_id[256];
    int32_t unk;
    size_t max_len; /* longest piece that merges make */
    size_t n_unused;
    bool add_dummy_prefix, remove_extra_spaces, escape_spaces, space_as_suffix, byte_fallback;
    char *unk_surface;
} spm;

/* ---- Protobuf ------------------------------------------------------------------------------ */

typedef struct pb {
    const uint8_t *p, *end, *begin;
    const char *what;
    radz_error *err;
} pb;

typedef struct pb_field {
    uint32_t number;
    int wire;
    uint64_t value;       /* wire 0, 1 and 5 */
    const uint8_t *bytes; /* wire 2 */
    size_t n;
} pb_field;

static radz_status pb_fail(const pb *c, const char *problem)
{
    return rz_fail(c->err, RADZ_E_FORMAT, "%s: offset %zu: %s in the protobuf of a tokenizer", c->what,
                   (size_t)(c->p - c->begin), problem);
}

static radz_status pb_varint(pb *c, uint64_t *out)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        uint8_t b;
        if (c->p == c->end) return pb_fail(c, "number cut short");
        b = *c->p++;
        if (shift == 63 && b > 1) break;
        v |= (uint64_t)(b & 127) << shift;
        *out = v;
        if (b < 128) return RADZ_OK;
    }
    return pb_fail(c, "number of more than 64 bits");
}

static radz_status pb_fixed(pb *c, size_t n, uint64_t *out)
{
    if ((size_t)(c->end - c->p) < n) return pb_fail(c, "field cut short");
    *out = 0;
    for (size_t i = 0; i < n; i++) *out |= (uint64_t)*c->p++ << 8 * i;
    return RADZ_OK;
}

/* The next field; call while c->p < c->end. */
static radz_status pb_next(pb *c, pb_field *f)
{
    uint64_t tag, n;
    RZ_TRY(pb_varint(c, &tag));
    if (tag >> 3 == 0 || tag >> 3 > 0x1FFFFFFF) return pb_fail(c, "invalid field number");
    *f = (pb_field){.number = (uint32_t)(tag >> 3), .wire = (int)(tag & 7)};
    switch (f->wire) {
    case 0:
        return pb_varint(c, &f->value);
    case 1:
        return pb_fixed(c, 8, &f->value);
    case 5:
        return pb_fixed(c, 4, &f->value);
    case 2:
        RZ_TRY(pb_varint(c, &n));
        if (n > (uint64_t)(c->end - c->p)) return pb_fail(c, "field longer than what holds it");
        f->bytes = c->p;
        f->n = (size_t)n;
        c->p += n;
        return RADZ_OK;
    }
    return pb_fail(c, "unknown wire type");
}

/* A field of another wire type than its number asks for. */
static radz_status pb_want(const pb *c, const pb_field *f, int wire)
{
    return f->wire == wire ? RADZ_OK : pb_fail(c, "field of the wrong type");
}

static pb pb_inside(const pb *c, const pb_field *f)
{
    return (pb){f->bytes, f->bytes + f->n, c->begin, c->what, c->err};
}

/* ---- Reading the model ------------------------------------------------------------------------ */

/* A string field of the file, valid while the file is. */
typedef struct span {
    const char *p;
    size_t n;
} span;

/* What the file says besides its pieces. */
typedef struct spec {
    uint64_t model_type;
    span bos_piece, eos_piece, unk_surface, normalizer;
    bool has_charsmap, has_denormalizer;
} spec;

static radz_status read_piece(spm *t, pb *outer, const pb_field *field)
{
    pb c = pb_inside(outer, field);
    pb_field f;
    span text = {NULL, 0};
    uint32_t bits = 0;
    piece *p;
    uint64_t type = NORMAL;
    while (c.p < c.end) {
        RZ_TRY(pb_next(&c, &f));
        if (f.number == 1) {
            RZ_TRY(pb_want(&c, &f, 2));
            text = (span){(const char *)f.bytes, f.n};
        } else if (f.number == 2) {
            RZ_TRY(pb_want(&c, &f, 5));
            bits = (uint32_t)f.value;
        } else if (f.number == 3) {
            RZ_TRY(pb_want(&c, &f, 0));
            type = f.value;
        }
    }
    if (text.n == 0 || text.n >= MAX_PIECE_BYTES || memchr(text.p, 0, text.n) || !rz_utf8_valid(text.p, text.n))
        return rz_fail(c.err, RADZ_E_FORMAT, "%s: piece %zu: expected 1 to %u bytes of UTF-8 without NUL", c.what,
                       t->n_pieces, MAX_PIECE_BYTES - 1);
    if (type < NORMAL || type > BYTE)
        return rz_fail(c.err, RADZ_E_FORMAT, "%s: piece %zu: type %llu, expected 1 to 6", c.what, t->n_pieces,
                       (unsigned long long)type);
    if (t->n_pieces == t->cap_pieces) {
        size_t cap = t->cap_pieces ? t->cap_pieces * 2 : 1024;
        if (!(p = rz_realloc(t->host, t->pieces, cap, sizeof *p))) return RZ_NO_MEMORY(c.err, c.what);
        t->pieces = p;
        t->cap_pieces = cap;
    }
    p = &t->pieces[t->n_pieces++];
    p->text = memcpy(t->arena + t->arena_len, text.p, text.n);
    t->arena[t->arena_len + text.n] = '\0';
    t->arena_len += text.n + 1; /* fits: the field's tag and length took two bytes or more of the file */
    p->len = (uint32_t)text.n;
    p->type = (int)type;
    memcpy(&p->score, &bits, sizeof p->score);
    if (isnan(p->score))
        return rz_fail(c.err, RADZ_E_FORMAT, "%s: piece %zu: its score is not a number", c.what, t->n_pieces - 1);
    return RADZ_OK;
}

static radz_status read_trainer(spm *t, pb *outer, const pb_field *field, spec *s)
{
    pb c = pb_inside(outer, field);
    pb_field f;
    while (c.p < c.end) {
        RZ_TRY(pb_next(&c, &f));
        if (f.number == 3 || f.number == 24 || f.number == 35) RZ_TRY(pb_want(&c, &f, 0));
        if (f.number == 44 || f.number == 46 || f.number == 47) RZ_TRY(pb_want(&c, &f, 2));
        if (f.number == 3) s->model_type = f.value;
        if (f.number == 24) t->space_as_suffix = f.value != 0;
        if (f.number == 35) t->byte_fallback = f.value != 0;
        if (f.number == 44) s->unk_surface = (span){(const char *)f.bytes, f.n};
        if (f.number == 46 && f.n) s->bos_piece = (span){(const char *)f.bytes, f.n};
        if (f.number == 47 && f.n) s->eos_piece = (span){(const char *)f.bytes, f.n};
    }
    return RADZ_OK;
}

static radz_status read_normalizer(spm *t, pb *outer, const pb_field *field, spec *s)
{
    pb c = pb_inside(outer, field);
    pb_field f;
    while (c.p < c.end) {
        RZ_TRY(pb_next(&c, &f));
        if (f.number == 1 || f.number == 2) RZ_TRY(pb_want(&c, &f, 2));
        if (f.number >= 3 && f.number <= 5) RZ_TRY(pb_want(&c, &f, 0));
        if (f.number == 1) s->normalizer = (span){(const char *)f.bytes, f.n};
        if (f.number == 2) s->has_charsmap = f.n != 0;
        if (f.number == 3) t->add_dummy_prefix = f.value != 0;
        if (f.number == 4) t->remove_extra_spaces = f.value != 0;
        if (f.number == 5) t->escape_spaces = f.value != 0;
    }
    return RADZ_OK;
}

static radz_status read_denormalizer(pb *outer, const pb_field *field, spec *s)
{
    pb c = pb_inside(outer, field);
    pb_field f;
    while (c.p < c.end) {
        RZ_TRY(pb_next(&c, &f));
        if (f.number == 2 && f.wire == 2) s->has_denormalizer = f.n != 0;
    }
    return RADZ_OK;
}

static radz_status read_model(spm *t, pb *c, spec *s)
{
    pb_field f;
    while (c->p < c->end) {
        RZ_TRY(pb_next(c, &f));
        if (f.number == 1 || f.number == 2 || f.number == 3 || f.number == 5) RZ_TRY(pb_want(c, &f, 2));
        if (f.number == 1) RZ_TRY(read_piece(t, c, &f));
        if (f.number == 2) RZ_TRY(read_trainer(t, c, &f, s));
        if (f.number == 3) RZ_TRY(read_normalizer(t, c, &f, s));
        if (f.number == 5) RZ_TRY(read_denormalizer(c, &f, s));
    }
    return RADZ_OK;
}

/* ---- Pieces by text ------------------------------------------------------------------------------ */

/* Id of the piece with this text, whatever its type; -1: none. */
static int32_t find_piece(const spm *t, const char *text, size_t n)
{
    for (size_t i = rz_tokenizer_hash_text(t->seed, text, n);; i++) {
        int32_t id = t->table[i & t->table_mask];
        if (id < 0 || (t->pieces[id].len == n && memcmp(t->pieces[id].text, text, n) == 0)) return id;
    }
}

static radz_status index_pieces(spm *t, const char *what, radz_error *err)
{
    size_t size = 16;
    while (size < t->n_pieces * 2) size *= 2;
    if (!(t->table = rz_calloc(t->host, size, sizeof *t->table))) return RZ_NO_MEMORY(err, what);
    memset(t->table, 0xFF, size * sizeof *t->table);
    t->table_mask = size - 1;
    for (size_t id = 0; id < t->n_pieces; id++) {
        const piece *p = &t->pieces[id];
        size_t at = rz_tokenizer_hash_text(t->seed, p->text, p->len);
        int32_t same = find_piece(t, p->text, p->len);
        if (same >= 0)
            return rz_fail(err, RADZ_E_FORMAT, "%s: pieces %d and %zu have the same text", what, (int)same, id);
        while (t->table[at & t->table_mask] >= 0) at++;
        t->table[at & t->table_mask] = (int32_t)id;
    }
    return RADZ_OK;
}

static radz_status check_bytes(spm *t, const char *what, radz_error *err)
{
    memset(t->byte_id, 0xFF, sizeof t->byte_id);
    for (size_t id = 0; id < t->n_pieces; id++) {
        int b;
        if (t->pieces[id].type != BYTE) continue;
        b = rz_tokenizer_byte_of(t->pieces[id].text, t->pieces[id].len);
        if (!t->byte_fallback || b < 0)
            return rz_fail(err, RADZ_E_FORMAT, "%s: piece %zu: %s", what, id,
                           b < 0 ? "a byte piece that is not <0x00> to <0xFF>" : "a byte piece without byte_fallback");
        t->byte_id[b] = (int32_t)id;
    }
    for (int b = 0; b < 256 && t->byte_fallback; b++)
        if (t->byte_id[b] < 0)
            return rz_fail(err, RADZ_E_FORMAT, "%s: byte piece <0x%02X> is missing", what, (unsigned)b);
    return RADZ_OK;
}

/* One pass over the types: unk, user-defined symbols, unused pieces, longest merge. */
static radz_status check_types(spm *t, const char *what, radz_error *err)
{
    size_t n_user = 0;
    t->unk = -1;
    for (size_t id = 0; id < t->n_pieces; id++) {
        const piece *p = &t->pieces[id];
        if (p->type == UNKNOWN && t->unk >= 0)
            return rz_fail(err, RADZ_E_FORMAT, "%s: pieces %d and %zu are both the unknown piece", what, (int)t->unk,
                           id);
        if (p->type == UNKNOWN) t->unk = (int32_t)id;
        n_user += p->type == USER_DEFINED;
        t->n_unused += p->type == UNUSED;
        if ((p->type == NORMAL || p->type == UNUSED || p->type == USER_DEFINED) && p->len > t->max_len)
            t->max_len = p->len;
    }
    if (t->unk < 0) return rz_fail(err, RADZ_E_FORMAT, "%s: no piece is the unknown piece", what);
    if (!(t->user.items = rz_calloc(t->host, n_user, sizeof *t->user.items))) return RZ_NO_MEMORY(err, what);
    for (size_t id = 0; id < t->n_pieces; id++)
        if (t->pieces[id].type == USER_DEFINED)
            t->user.items[t->user.n++] = (rz_text_item){t->pieces[id].text, t->pieces[id].len, (int32_t)id};
    rz_text_set_sort(&t->user);
    return RADZ_OK;
}

static radz_status check_spec(const spec *s, const char *what, radz_error *err)
{
    static const char *const types[] = {"unknown", "unigram", "bpe", "word", "char"};
    if (s->model_type != 2)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: SentencePiece model of type %s, only bpe is supported", what,
                       types[s->model_type < RZ_COUNT(types) ? s->model_type : 0]);
    if (s->has_charsmap)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: normalizer '%.*s' is not supported, only identity is", what,
                       (int)(s->normalizer.n < 64 ? s->normalizer.n : 64), s->normalizer.n ? s->normalizer.p : "");
    if (s->has_denormalizer)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: a denormalizer with rules is not supported", what);
    return RADZ_OK;
}

static int32_t find_control(const spm *t, span name)
{
    int32_t id = find_piece(t, name.p, name.n);
    return id >= 0 && t->pieces[id].type == CONTROL ? id : -1;
}

static radz_status build(spm *t, rz_tokenizer *tok, pb *c, size_t n)
{
    spec s = {.model_type = 1, .bos_piece = {"<s>", 3}, .eos_piece = {"</s>", 4}, .unk_surface = {" \xe2\x81\x87 ", 5}};
    t->add_dummy_prefix = t->remove_extra_spaces = t->escape_spaces = true;
    if (!(t->arena = rz_malloc(t->host, n))) return RZ_NO_MEMORY(c->err, c->what);
    RZ_TRY(read_model(t, c, &s));
    if (t->n_pieces == 0)
        return rz_fail(c->err, RADZ_E_FORMAT, "%s: no pieces, expected a SentencePiece model", c->what);
    RZ_TRY(check_spec(&s, c->what, c->err));
    RZ_TRY(index_pieces(t, c->what, c->err));
    RZ_TRY(check_types(t, c->what, c->err));
    RZ_TRY(check_bytes(t, c->what, c->err));
    tok->size = t->n_pieces;
    tok->bos = find_control(t, s.bos_piece);
    tok->eos = find_control(t, s.eos_piece);
    t->unk_surface = rz_strndup(t->host, s.unk_surface.p, s.unk_surface.n);
    return t->unk_surface ? RADZ_OK : RZ_NO_MEMORY(c->err, c->what);
}

static void close_spm(rz_tokenizer *tok)
{
    spm *t = tok->impl;
    rz_free(t->host, t->arena);
    rz_free(t->host, t->pieces);
    rz_free(t->host, t->table);
    rz_free(t->host, t->user.items);
    rz_free(t->host, t->unk_surface);
    rz_free(t->host, t);
}

static const char *piece_of(const rz_tokenizer *tok, int32_t id)
{
    const spm *t = tok->impl;
    return t->pieces[id].text;
}

/* ---- Normalising ------------------------------------------------------------------------------------ */

/* Length of the longest user-defined symbol that s begins with, 0: none. */
static size_t match_user(const spm *t, const char *s, size_t n)
{
    const rz_text_item *item = rz_text_set_longest(&t->user, s, n);
    return item ? item->len : 0;
}

/* The unit that text begins with: a user-defined symbol, a character, or one bad byte read as U+FFFD. Returns how
 * many bytes of text it takes. */
static size_t next_unit(const spm *t, const char *text, size_t n, span *unit)
{
    uint32_t cp;
    size_t len = match_user(t, text, n);
    if (!len) len = rz_utf8_next(text, n, &cp);
    *unit = len ? (span){text, len} : (span){RZ_REPLACEMENT, 3};
    return len ? len : 1;
}

static void put_space(const spm *t, rz_str *out)
{
    rz_str_puts(out, t->escape_spaces ? SPACE_SYMBOL : " ");
}

static void put_unit(const spm *t, span unit, rz_str *out)
{
    const char *space;
    while (unit.n && (space = memchr(unit.p, ' ', unit.n))) {
        size_t before = (size_t)(space - unit.p);
        rz_str_put(out, unit.p, before);
        put_space(t, out);
        unit = (span){space + 1, unit.n - before - 1};
    }
    rz_str_put(out, unit.p, unit.n);
}

static void trim_end(const spm *t, rz_str *out)
{
    const char *space = t->escape_spaces ? SPACE_SYMBOL : " ";
    size_t n = strlen(space);
    while (out->len >= n && memcmp(out->data + out->len - n, space, n) == 0) out->len -= n;
}

static void normalize(const spm *t, const char *text, size_t n, rz_str *out)
{
    bool after_space = t->remove_extra_spaces;
    span unit;
    while (n && t->remove_extra_spaces) {
        size_t used = next_unit(t, text, n, &unit);
        if (unit.n != 1 || *unit.p != ' ') break;
        text += used;
        n -= used;
    }
    if (n == 0) return;
    if (t->add_dummy_prefix && !t->space_as_suffix) put_space(t, out);
    while (n) {
        size_t used = next_unit(t, text, n, &unit);
        while (after_space && unit.n && *unit.p == ' ') unit.p++, unit.n--;
        if (unit.n) {
            put_unit(t, unit, out);
            after_space = t->remove_extra_spaces && unit.p[unit.n - 1] == ' ';
        }
        text += used;
        n -= used;
    }
    if (t->remove_extra_spaces && !out->failed) trim_end(t, out);
    if (t->add_dummy_prefix && t->space_as_suffix) put_space(t, out);
}

/* ---- Merging ------------------------------------------------------------------------------------------ */

enum { FROZEN = -2 }; /* id of a user-defined symbol, which merges with nothing */

typedef struct merge {
    const spm *t;
    const char *text;
    size_t n;
    rz_bpe bpe;
    uint32_t *split; /* for unused pieces: bytes of the left half last merged into it; NULL without such pieces */
    rz_ids *ids;
    bool after_unk;
} merge;

/* The higher the score, the lower the rank; the same for the same score. */
static uint32_t rank_of(float score)
{
    uint32_t bits;
    score += 0.0f; /* -0 and 0 are the same score */
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? bits : 0x7FFFFFFF - bits;
}

static bool look(void *ctx, const rz_bpe_symbol *a, const rz_bpe_symbol *b, uint32_t *rank, int32_t *merged)
{
    merge *m = ctx;
    uint32_t len = a->len + b->len;
    if (a->id == FROZEN || b->id == FROZEN || len > m->t->max_len) return false;
    *merged = find_piece(m->t, m->text + a->pos, len);
    if (*merged < 0) return false;
    const piece *p = &m->t->pieces[*merged];
    if (p->type != NORMAL && p->type != UNUSED && p->type != USER_DEFINED) return false;
    if (p->type == UNUSED) m->split[*merged] = a->len;
    *rank = rank_of(p->score);
    return true;
}

/* One symbol per character or user-defined symbol. */
static void split_text(merge *m)
{
    for (size_t pos = 0, len; pos < m->n && !m->bpe.no_memory; pos += len) {
        bool frozen = (len = match_user(m->t, m->text + pos, m->n - pos)) > 0;
        if (!len) len = rz_utf8_next(m->text + pos, m->n - pos, NULL);
        if (!len) len = 1;
        rz_bpe_add(&m->bpe, (uint32_t)pos, (uint32_t)len, frozen ? FROZEN : -1);
    }
}

/* ---- Symbols to ids -------------------------------------------------------------------------------------- */

/* A run of unknown symbols is one unk, or the bytes of each with byte fallback. */
static void put_piece(merge *m, uint32_t pos, uint32_t len, int32_t id)
{
    bool unknown = id < 0 || id == m->t->unk;
    if (!unknown)
        rz_ids_put(m->ids, id);
    else if (m->t->byte_fallback)
        for (uint32_t i = 0; i < len; i++) rz_ids_put(m->ids, m->t->byte_id[(uint8_t)m->text[pos + i]]);
    else if (!m->after_unk)
        rz_ids_put(m->ids, m->t->unk);
    m->after_unk = unknown;
}

/* An unused piece goes back to the halves it was merged from, they likewise; a single character is unknown. The right
 * halves that wait are disjoint parts of one piece, so they fit the caller's stack of max_len + 1. */
static void put_symbol(merge *m, const rz_bpe_symbol *s, rz_bpe_symbol *stack)
{
    size_t n = 0;
    stack[n++] = (rz_bpe_symbol){.pos = s->pos, .len = s->len};
    while (n && !m->ids->failed) {
        rz_bpe_symbol w = stack[--n];
        int32_t id = find_piece(m->t, m->text + w.pos, w.len);
        bool unused = id >= 0 && m->t->pieces[id].type == UNUSED;
        uint32_t left = unused ? m->split[id] : 0;
        if (left == 0) {
            put_piece(m, w.pos, w.len, unused ? -1 : id);
            continue;
        }
        stack[n++] = (rz_bpe_symbol){.pos = w.pos + left, .len = w.len - left};
        stack[n++] = (rz_bpe_symbol){.pos = w.pos, .len = left};
    }
}

static radz_status merge_text(merge *m, radz_error *err)
{
    const rz_host *host = m->t->host;
    rz_bpe_symbol *stack = rz_calloc(host, m->t->max_len + 2, sizeof *stack);
    if (m->t->n_unused) m->split = rz_calloc(host, m->t->n_pieces, sizeof *m->split);
    bool ok = stack && (m->split || !m->t->n_unused);
    if (ok) {
        split_text(m);
        if (!m->bpe.no_memory) rz_bpe_merge(&m->bpe);
        ok = !m->bpe.no_memory;
    }
    for (int32_t i = 0; ok && i >= 0; i = m->bpe.symbols[i].next) put_symbol(m, &m->bpe.symbols[i], stack);
    rz_free(host, stack);
    rz_free(host, m->split);
    rz_bpe_free(&m->bpe);
    return ok ? RADZ_OK : RZ_NO_MEMORY(err, "tokens");
}

static radz_status encode(const rz_tokenizer *tok, const char *text, size_t n, rz_ids *ids, radz_error *err)
{
    const spm *t = tok->impl;
    merge m = {.t = t, .ids = ids};
    rz_str normal = {.host = t->host};
    radz_status status = RADZ_OK;
    normalize(t, text, n, &normal);
    m.text = normal.data;
    m.n = normal.len;
    m.bpe = (rz_bpe){.host = t->host, .look = look, .ctx = &m};
    if (normal.failed)
        status = RZ_NO_MEMORY(err, "text");
    else if (normal.len)
        status = merge_text(&m, err);
    rz_str_free(&normal);
    return status;
}

/* ---- Ids to text -------------------------------------------------------------------------------------------- */

/* The bytes of a run of byte pieces; each byte that is no part of valid UTF-8 becomes U+FFFD. */
static void put_bytes(const spm *t, const int32_t *ids, size_t n, rz_str *s)
{
    for (size_t i = 0; i < n;) {
        char window[4];
        uint32_t cp;
        size_t k = 0, len;
        for (; k < sizeof window && i + k < n; k++)
            window[k] = (char)rz_tokenizer_byte_of(t->pieces[ids[i + k]].text, 6);
        len = rz_utf8_next(window, k, &cp);
        if (len)
            rz_str_put(s, window, len);
        else
            rz_str_puts(s, RZ_REPLACEMENT);
        i += len ? len : 1;
    }
}

/* at_start: a leading space symbol here is the dummy prefix. Returns whether it was taken off (and counts: with
 * remove_extra_whitespaces every leading one goes). */
static bool put_decoded(const spm *t, int32_t id, bool at_start, rz_str *s)
{
    const piece *p = &t->pieces[id];
    const char *text = p->text, *space;
    bool took = false;
    if (p->type == CONTROL) return false;
    if (p->type == UNKNOWN) {
        rz_str_puts(s, t->unk_surface);
        return false;
    }
    if (at_start && (t->add_dummy_prefix || t->remove_extra_spaces) && strncmp(text, SPACE_SYMBOL, 3) == 0) {
        text += 3;
        took = !t->remove_extra_spaces;
    }
    for (; (space = strstr(text, SPACE_SYMBOL)); text = space + 3) {
        rz_str_put(s, text, (size_t)(space - text));
        rz_str_puts(s, " ");
    }
    rz_str_puts(s, text);
    return took;
}

static radz_status decode(const rz_tokenizer *tok, const int32_t *ids, size_t n, rz_str *s, radz_error *err)
{
    const spm *t = tok->impl;
    size_t start = s->len;
    bool at_start = true, took = false;
    (void)err;
    for (size_t i = 0; i < n;) {
        size_t run = i;
        while (run < n && t->pieces[ids[run]].type == BYTE) run++;
        put_bytes(t, ids + i, run - i, s);
        i = run;
        if (i == n) break;
        if (took || s->len > start) at_start = false;
        took = put_decoded(t, ids[i++], at_start, s);
    }
    return RADZ_OK;
}

static bool is_control(const rz_tokenizer *tok, int32_t id)
{
    const spm *t = tok->impl;
    return t->pieces[id].type == CONTROL;
}

radz_status rz_tokenizer_build_spm(rz_tokenizer *tok, const uint8_t *bytes, size_t n, const char *what, radz_error *err)
{
    static const rz_tokenizer_kind kind = {"sentencepiece-bpe", close_spm, encode, decode, piece_of, is_control};
    spm *t = rz_calloc(tok->host, 1, sizeof *t);
    pb c = {bytes, bytes + n, bytes, what, err};
    if (!t) return RZ_NO_MEMORY(err, what);
    t->host = tok->host;
    t->seed = rz_tokenizer_seed(tok);
    tok->impl = t;
    tok->kind = &kind;
    return build(t, tok, &c, n);
}
