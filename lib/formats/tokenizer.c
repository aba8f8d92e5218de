/* tokenizer.c - SentencePiece BPE: reads tokenizer.model (a protobuf), turns text into ids and back. Ids are those of
 * the sentencepiece package, invalid UTF-8 and all. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "formats.h"

#define MAX_FILE_BYTES ((size_t)64 << 20)
#define MAX_TEXT_BYTES ((size_t)64 << 20)
#define MAX_PIECE_BYTES 8000u /* as the reference */
#define SPACE_SYMBOL "\xe2\x96\x81"
#define REPLACEMENT "\xef\xbf\xbd"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

typedef struct piece {
    const char *text; /* in arena, NUL-terminated */
    uint32_t len;
    float score;
    int type;
} piece;

struct rz_tokenizer {
    const rz_host *host;
    char hash[65];
    char *arena; /* texts of pieces */
    size_t arena_len;
    piece *pieces;
    size_t n_pieces, cap_pieces;
    int32_t *table; /* open addressing over all pieces, -1 where empty */
    size_t table_mask;
    uint64_t seed;
    int32_t *user; /* user-defined symbols in order of their bytes */
    size_t n_user;
    int32_t byte_id[256];
    int32_t unk, bos, eos;
    size_t max_len; /* longest piece that merges make */
    size_t n_unused;
    bool add_dummy_prefix, remove_extra_spaces, escape_spaces, space_as_suffix, byte_fallback;
    char *unk_surface;
};

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

static radz_status read_piece(rz_tokenizer *t, pb *outer, const pb_field *field)
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

static radz_status read_trainer(rz_tokenizer *t, pb *outer, const pb_field *field, spec *s)
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

static radz_status read_normalizer(rz_tokenizer *t, pb *outer, const pb_field *field, spec *s)
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

static radz_status read_model(rz_tokenizer *t, pb *c, spec *s)
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

/* Seeded with the file's own hash, so that no file can be made to collide. */
static size_t hash_text(const rz_tokenizer *t, const char *text, size_t n)
{
    uint64_t h = t->seed;
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)text[i]) * 0x100000001B3u;
    h ^= h >> 32;
    return (size_t)(h * 0x9E3779B97F4A7C15u >> 20);
}

/* Id of the piece with this text, whatever its type; -1: none. */
static int32_t find_piece(const rz_tokenizer *t, const char *text, size_t n)
{
    for (size_t i = hash_text(t, text, n);; i++) {
        int32_t id = t->table[i & t->table_mask];
        if (id < 0 || (t->pieces[id].len == n && memcmp(t->pieces[id].text, text, n) == 0)) return id;
    }
}

static radz_status index_pieces(rz_tokenizer *t, const char *what, radz_error *err)
{
    size_t size = 16;
    while (size < t->n_pieces * 2) size *= 2;
    if (!(t->table = rz_calloc(t->host, size, sizeof *t->table))) return RZ_NO_MEMORY(err, what);
    memset(t->table, 0xFF, size * sizeof *t->table);
    t->table_mask = size - 1;
    for (size_t id = 0; id < t->n_pieces; id++) {
        const piece *p = &t->pieces[id];
        size_t at = hash_text(t, p->text, p->len);
        int32_t same = find_piece(t, p->text, p->len);
        if (same >= 0)
            return rz_fail(err, RADZ_E_FORMAT, "%s: pieces %d and %zu have the same text", what, (int)same, id);
        while (t->table[at & t->table_mask] >= 0) at++;
        t->table[at & t->table_mask] = (int32_t)id;
    }
    return RADZ_OK;
}

/* 0..255 for "<0x00>".."<0xFF>", else -1. */
static int byte_of(const piece *p)
{
    static const char digits[] = "0123456789ABCDEF";
    const char *hi, *lo;
    if (p->len != 6 || memcmp(p->text, "<0x", 3) != 0 || p->text[5] != '>') return -1;
    hi = strchr(digits, p->text[3]);
    lo = strchr(digits, p->text[4]);
    return hi && lo ? (int)((hi - digits) * 16 + (lo - digits)) : -1;
}

static radz_status check_bytes(rz_tokenizer *t, const char *what, radz_error *err)
{
    memset(t->byte_id, 0xFF, sizeof t->byte_id);
    for (size_t id = 0; id < t->n_pieces; id++) {
        int b;
        if (t->pieces[id].type != BYTE) continue;
        b = byte_of(&t->pieces[id]);
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

static int compare_pieces(const void *a, const void *b, void *pieces)
{
    const piece *x = (const piece *)pieces + *(const int32_t *)a, *y = (const piece *)pieces + *(const int32_t *)b;
    return strcmp(x->text, y->text);
}

/* One pass over the types: unk, user-defined symbols, unused pieces, longest merge. */
static radz_status check_types(rz_tokenizer *t, const char *what, radz_error *err)
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
    if (!(t->user = rz_calloc(t->host, n_user, sizeof *t->user))) return RZ_NO_MEMORY(err, what);
    for (size_t id = 0; id < t->n_pieces; id++)
        if (t->pieces[id].type == USER_DEFINED) t->user[t->n_user++] = (int32_t)id;
    qsort_r(t->user, t->n_user, sizeof *t->user, compare_pieces, t->pieces);
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

static int32_t find_control(const rz_tokenizer *t, span name)
{
    int32_t id = find_piece(t, name.p, name.n);
    return id >= 0 && t->pieces[id].type == CONTROL ? id : -1;
}

static radz_status build(rz_tokenizer *t, const uint8_t *bytes, size_t n, const char *what, radz_error *err)
{
    pb c = {bytes, bytes + n, bytes, what, err};
    spec s = {.model_type = 1, .bos_piece = {"<s>", 3}, .eos_piece = {"</s>", 4}, .unk_surface = {" \xe2\x81\x87 ", 5}};
    rz_sha256 sha;
    if (n == 0) return rz_fail(err, RADZ_E_FORMAT, "%s: empty, expected a SentencePiece model", what);
    if (n > MAX_FILE_BYTES) return rz_fail(err, RADZ_E_LIMIT, "%s: more than %zu bytes", what, MAX_FILE_BYTES);
    rz_sha256_init(&sha);
    rz_sha256_put(&sha, bytes, n);
    rz_sha256_hex(&sha, t->hash);
    memcpy(&t->seed, t->hash, sizeof t->seed);
    t->add_dummy_prefix = t->remove_extra_spaces = t->escape_spaces = true;
    if (!(t->arena = rz_malloc(t->host, n))) return RZ_NO_MEMORY(err, what);
    RZ_TRY(read_model(t, &c, &s));
    if (t->n_pieces == 0) return rz_fail(err, RADZ_E_FORMAT, "%s: no pieces, expected a SentencePiece model", what);
    RZ_TRY(check_spec(&s, what, err));
    RZ_TRY(index_pieces(t, what, err));
    RZ_TRY(check_types(t, what, err));
    RZ_TRY(check_bytes(t, what, err));
    t->bos = find_control(t, s.bos_piece);
    t->eos = find_control(t, s.eos_piece);
    t->unk_surface = rz_strndup(t->host, s.unk_surface.p, s.unk_surface.n);
    return t->unk_surface ? RADZ_OK : RZ_NO_MEMORY(err, what);
}

radz_status rz_tokenizer_parse(const rz_host *host, const uint8_t *bytes, size_t n, const char *what,
                               rz_tokenizer **tok, radz_error *err)
{
    radz_status status;
    rz_tokenizer *t = rz_calloc(host, 1, sizeof *t);
    *tok = NULL;
    if (!t) return RZ_NO_MEMORY(err, what);
    t->host = host;
    status = build(t, bytes, n, what, err);
    if (status == RADZ_OK)
        *tok = t;
    else
        rz_tokenizer_close(t);
    return status;
}

radz_status rz_tokenizer_open(const rz_host *host, const char *path, rz_tokenizer **tok, radz_error *err)
{
    rz_file file;
    radz_status status;
    *tok = NULL;
    RZ_TRY(rz_file_open(host, path, RZ_FILE_READ, MAX_FILE_BYTES, &file, err));
    status = rz_tokenizer_parse(host, file.data, file.size, path, tok, err);
    rz_file_close(&file);
    return status;
}

void rz_tokenizer_close(rz_tokenizer *t)
{
    if (!t) return;
    rz_free(t->host, t->arena);
    rz_free(t->host, t->pieces);
    rz_free(t->host, t->table);
    rz_free(t->host, t->user);
    rz_free(t->host, t->unk_surface);
    rz_free(t->host, t);
}

size_t rz_tokenizer_size(const rz_tokenizer *t)
{
    return t->n_pieces;
}
int32_t rz_tokenizer_bos(const rz_tokenizer *t)
{
    return t->bos;
}
int32_t rz_tokenizer_eos(const rz_tokenizer *t)
{
    return t->eos;
}
int32_t rz_tokenizer_unk(const rz_tokenizer *t)
{
    return t->unk;
}
const char *rz_tokenizer_hash(const rz_tokenizer *t)
{
    return t->hash;
}

const char *rz_tokenizer_piece(const rz_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->n_pieces ? t->pieces[id].text : NULL;
}

/* ---- Normalising ------------------------------------------------------------------------------------ */

/* Length of the longest user-defined symbol that s begins with, 0: none. Narrows the sorted list byte by byte. */
static size_t match_user(const rz_tokenizer *t, const char *s, size_t n)
{
    size_t lo = 0, hi = t->n_user, longest = 0;
    for (size_t depth = 0; lo < hi; depth++) {
        if (t->pieces[t->user[lo]].len == depth) {
            longest = depth;
            if (++lo == hi) break;
        }
        if (depth == n) break;
        for (size_t end = hi; lo < end;) { /* first symbol whose byte here is not less */
            size_t mid = lo + (end - lo) / 2;
            if ((uint8_t)t->pieces[t->user[mid]].text[depth] < (uint8_t)s[depth])
                lo = mid + 1;
            else
                end = mid;
        }
        for (size_t from = lo; from < hi;) { /* first whose byte is greater */
            size_t mid = from + (hi - from) / 2;
            if ((uint8_t)t->pieces[t->user[mid]].text[depth] > (uint8_t)s[depth])
                hi = mid;
            else
                from = mid + 1;
        }
    }
    return longest;
}

/* The unit that text begins with: a user-defined symbol, a character, or one bad byte read as U+FFFD. Returns how
 * many bytes of text it takes. */
static size_t next_unit(const rz_tokenizer *t, const char *text, size_t n, span *unit)
{
    uint32_t cp;
    size_t len = match_user(t, text, n);
    if (!len) len = rz_utf8_next(text, n, &cp);
    *unit = len ? (span){text, len} : (span){REPLACEMENT, 3};
    return len ? len : 1;
}

static void put_space(const rz_tokenizer *t, rz_str *out)
{
    rz_str_puts(out, t->escape_spaces ? SPACE_SYMBOL : " ");
}

static void put_unit(const rz_tokenizer *t, span unit, rz_str *out)
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

static void trim_end(const rz_tokenizer *t, rz_str *out)
{
    const char *space = t->escape_spaces ? SPACE_SYMBOL : " ";
    size_t n = strlen(space);
    while (out->len >= n && memcmp(out->data + out->len - n, space, n) == 0) out->len -= n;
}

static void normalize(const rz_tokenizer *t, const char *text, size_t n, rz_str *out)
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

/* A run of bytes that is one piece so far; a list in order of the text. len 0: swallowed by its left neighbour. */
typedef struct symbol {
    uint32_t pos, len;
    int32_t prev, next;
    bool frozen; /* user-defined: merges with nothing */
} symbol;

/* Two neighbours whose union is a piece; stale once one of them has changed its length. */
typedef struct pair {
    float score;
    int32_t left, right;
    uint32_t len;
} pair;

typedef struct merge {
    const rz_tokenizer *t;
    const char *text;
    size_t n;
    symbol *symbols;
    size_t n_symbols;
    pair *heap; /* best first */
    size_t n_heap, cap_heap;
    uint32_t *split; /* for unused pieces: bytes of the left half last merged into it; NULL without such pieces */
    int32_t *ids;
    size_t n_ids, cap_ids;
    bool after_unk, no_memory;
} merge;

static bool better(const pair *a, const pair *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void push_pair(merge *m, pair p)
{
    size_t i = m->n_heap;
    if (i == m->cap_heap) {
        size_t cap = i ? i * 2 : 256;
        pair *heap = rz_realloc(m->t->host, m->heap, cap, sizeof *heap);
        if (!heap) {
            m->no_memory = true;
            return;
        }
        m->heap = heap;
        m->cap_heap = cap;
    }
    m->n_heap++;
    for (; i && better(&p, &m->heap[(i - 1) / 2]); i = (i - 1) / 2) m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = p;
}

static pair pop_pair(merge *m)
{
    pair top = m->heap[0], last = m->heap[--m->n_heap];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < m->n_heap) {
        if (child + 1 < m->n_heap && better(&m->heap[child + 1], &m->heap[child])) child++;
        if (!better(&m->heap[child], &last)) break;
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = last;
    return top;
}

static void offer_pair(merge *m, int32_t left, int32_t right)
{
    const symbol *a, *b;
    const piece *p;
    uint32_t len;
    int32_t id;
    if (left < 0 || right < 0) return;
    a = &m->symbols[left];
    b = &m->symbols[right];
    len = a->len + b->len;
    if (a->frozen || b->frozen || len > m->t->max_len) return;
    id = find_piece(m->t, m->text + a->pos, len);
    if (id < 0) return;
    p = &m->t->pieces[id];
    if (p->type != NORMAL && p->type != UNUSED && p->type != USER_DEFINED) return;
    if (p->type == UNUSED) m->split[id] = a->len;
    push_pair(m, (pair){p->score, left, right, len});
}

/* One symbol per character or user-defined symbol. */
static void split_text(merge *m)
{
    for (size_t pos = 0; pos < m->n;) {
        symbol *s = &m->symbols[m->n_symbols];
        uint32_t cp;
        size_t len = match_user(m->t, m->text + pos, m->n - pos);
        s->frozen = len > 0;
        if (!len) len = rz_utf8_next(m->text + pos, m->n - pos, &cp);
        if (!len) len = 1;
        s->pos = (uint32_t)pos;
        s->len = (uint32_t)len;
        s->prev = (int32_t)m->n_symbols - 1;
        pos += len;
        m->n_symbols++;
        s->next = pos < m->n ? (int32_t)m->n_symbols : -1;
    }
}

static void run_merges(merge *m)
{
    for (size_t i = 1; i < m->n_symbols; i++) offer_pair(m, (int32_t)i - 1, (int32_t)i);
    while (m->n_heap && !m->no_memory) {
        pair p = pop_pair(m);
        symbol *a = &m->symbols[p.left], *b = &m->symbols[p.right];
        if (!a->len || !b->len || a->len + b->len != p.len) continue;
        a->len = p.len;
        a->next = b->next;
        if (b->next >= 0) m->symbols[b->next].prev = p.left;
        b->len = 0;
        offer_pair(m, a->prev, p.left);
        offer_pair(m, p.left, a->next);
    }
}

/* ---- Symbols to ids -------------------------------------------------------------------------------------- */

static void put_id(merge *m, int32_t id)
{
    if (m->n_ids == m->cap_ids) {
        size_t cap = m->cap_ids ? m->cap_ids * 2 : 64;
        int32_t *ids = rz_realloc(m->t->host, m->ids, cap, sizeof *ids);
        if (!ids) {
            m->no_memory = true;
            return;
        }
        m->ids = ids;
        m->cap_ids = cap;
    }
    m->ids[m->n_ids++] = id;
}

/* A run of unknown symbols is one unk, or the bytes of each with byte fallback. */
static void put_piece(merge *m, uint32_t pos, uint32_t len, int32_t id)
{
    bool unknown = id < 0 || id == m->t->unk;
    if (!unknown)
        put_id(m, id);
    else if (m->t->byte_fallback)
        for (uint32_t i = 0; i < len; i++) put_id(m, m->t->byte_id[(uint8_t)m->text[pos + i]]);
    else if (!m->after_unk)
        put_id(m, m->t->unk);
    m->after_unk = unknown;
}

/* An unused piece goes back to the halves it was merged from, they likewise; a single character is unknown. The right
 * halves that wait are disjoint parts of one piece, so they fit the caller's stack of max_len + 1. */
static void put_symbol(merge *m, const symbol *s, symbol *stack)
{
    size_t n = 0;
    stack[n++] = (symbol){.pos = s->pos, .len = s->len};
    while (n && !m->no_memory) {
        symbol w = stack[--n];
        int32_t id = find_piece(m->t, m->text + w.pos, w.len);
        bool unused = id >= 0 && m->t->pieces[id].type == UNUSED;
        uint32_t left = unused ? m->split[id] : 0;
        if (left == 0) {
            put_piece(m, w.pos, w.len, unused ? -1 : id);
            continue;
        }
        stack[n++] = (symbol){.pos = w.pos + left, .len = w.len - left};
        stack[n++] = (symbol){.pos = w.pos, .len = left};
    }
}

static radz_status merge_text(merge *m, radz_error *err)
{
    const rz_host *host = m->t->host;
    symbol *stack = rz_calloc(host, m->t->max_len + 2, sizeof *stack);
    m->symbols = rz_calloc(host, m->n, sizeof *m->symbols);
    if (m->t->n_unused) m->split = rz_calloc(host, m->t->n_pieces, sizeof *m->split);
    m->no_memory = !stack || !m->symbols || (m->t->n_unused && !m->split);
    if (!m->no_memory) {
        split_text(m);
        run_merges(m);
        for (int32_t i = 0; i >= 0 && !m->no_memory; i = m->symbols[i].next) put_symbol(m, &m->symbols[i], stack);
    }
    rz_free(host, stack);
    rz_free(host, m->symbols);
    rz_free(host, m->split);
    rz_free(host, m->heap);
    return m->no_memory ? RZ_NO_MEMORY(err, "tokens") : RADZ_OK;
}

radz_status rz_tokenizer_encode(const rz_tokenizer *t, const char *text, size_t n, int32_t **ids, size_t *n_ids,
                                radz_error *err)
{
    merge m = {.t = t};
    rz_str normal = {.host = t->host};
    radz_status status = RADZ_OK;
    *ids = NULL;
    *n_ids = 0;
    if (n > MAX_TEXT_BYTES)
        return rz_fail(err, RADZ_E_LIMIT, "text of %zu bytes, at most %zu are tokenized", n, MAX_TEXT_BYTES);
    normalize(t, text, n, &normal);
    m.text = normal.data;
    m.n = normal.len;
    if (normal.failed)
        status = RZ_NO_MEMORY(err, "text");
    else if (normal.len)
        status = merge_text(&m, err);
    rz_str_free(&normal);
    if (status == RADZ_OK && !m.ids && !(m.ids = rz_malloc(t->host, 0))) status = RZ_NO_MEMORY(err, "tokens");
    if (status != RADZ_OK) {
        rz_free(t->host, m.ids);
        return status;
    }
    *ids = m.ids;
    *n_ids = m.n_ids;
    return RADZ_OK;
}

/* ---- Ids to text -------------------------------------------------------------------------------------------- */

/* The bytes of a run of byte pieces; each byte that is no part of valid UTF-8 becomes U+FFFD. */
static void put_bytes(const rz_tokenizer *t, const int32_t *ids, size_t n, rz_str *s)
{
    for (size_t i = 0; i < n;) {
        char window[4];
        uint32_t cp;
        size_t k = 0, len;
        for (; k < sizeof window && i + k < n; k++) window[k] = (char)byte_of(&t->pieces[ids[i + k]]);
        len = rz_utf8_next(window, k, &cp);
        if (len)
            rz_str_put(s, window, len);
        else
            rz_str_puts(s, REPLACEMENT);
        i += len ? len : 1;
    }
}

/* at_start: a leading space symbol here is the dummy prefix. Returns whether it was taken off (and counts: with
 * remove_extra_whitespaces every leading one goes). */
static bool put_decoded(const rz_tokenizer *t, int32_t id, bool at_start, rz_str *s)
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

radz_status rz_tokenizer_decode(const rz_tokenizer *t, const int32_t *ids, size_t n, rz_str *s, radz_error *err)
{
    size_t start = s->len, i = 0;
    bool at_start = true, took = false;
    for (i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= t->n_pieces)
            return rz_fail(err, RADZ_E_ARGUMENT, "token id %d, expected 0 to %zu", (int)ids[i], t->n_pieces - 1);
    for (i = 0; i < n;) {
        size_t run = i;
        while (run < n && t->pieces[ids[run]].type == BYTE) run++;
        put_bytes(t, ids + i, run - i, s);
        i = run;
        if (i == n) break;
        if (took || s->len > start) at_start = false;
        took = put_decoded(t, ids[i++], at_start, s);
    }
    return s->failed ? RZ_NO_MEMORY(err, "text") : RADZ_OK;
}
