/* safetensors.c - reading of safetensors files. The header is scanned in one pass into flat arrays (no
 * tree, no recursion), so that a hostile header costs no more memory than its own size times a small constant.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "safetensors.h"

#define ST_MAX_HEADER 100000000u

typedef struct st_pair {
    const char *key, *value;
} st_pair;

struct rz_st {
    const rz_host *host;
    rz_file file; /* zeroed when the bytes are the caller's */
    const uint8_t *bytes;
    size_t n_bytes;
    char *text;            /* decoded strings, NUL-terminated; never larger than the header */
    size_t text_len;       /* used part of it */
    rz_st_tensor *tensors; /* in file order once checked */
    size_t n_tensors, cap_tensors;
    uint32_t *by_name; /* indices of tensors sorted by name */
    st_pair *pairs;
    size_t n_pairs, cap_pairs;
    bool seen_metadata;
};

/* ---- Header scanner ---------------------------------------------------------------- */

typedef struct scan {
    rz_st *st;
    const char *what;
    const char *p, *end, *begin;
    uint64_t n_data;     /* bytes of the data section */
    const uint8_t *data; /* NULL: only the header is checked */
    radz_error *err;
} scan;

static radz_status fail_at(scan *c, const char *expected)
{
    return rz_fail(c->err, RADZ_E_FORMAT, "%s: header, offset %zu: expected %s", c->what, (size_t)(c->p - c->begin) + 8,
                   expected);
}

static void skip_space(scan *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r')) c->p++;
}

/* The next character that is not space, 0 at the end; not consumed. */
static char peek(scan *c)
{
    skip_space(c);
    return c->p < c->end ? *c->p : '\0';
}

static bool take(scan *c, char want)
{
    if (peek(c) != want || c->p >= c->end) return false;
    c->p++;
    return true;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Four hex digits after "\u"; -1 when they are not. */
static int32_t take_hex4(scan *c)
{
    int32_t v = 0;
    if (c->end - c->p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int h = hex_value(c->p[i]);
        if (h < 0) return -1;
        v = v * 16 + h;
    }
    c->p += 4;
    return v;
}

static size_t put_utf8(char *out, uint32_t cp)
{
    size_t n = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    if (n == 1) {
        out[0] = (char)cp;
        return 1;
    }
    for (size_t i = n - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3F));
    out[0] = (char)((0xF00u >> n & 0xF0) | cp);
    return n;
}

/* After a backslash: appends the character meant to out, returns its length or 0. */
static size_t take_escape(scan *c, char *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at;
    int32_t hi, lo;
    if (c->p >= c->end || *c->p == '\0') return 0;
    if (*c->p != 'u') {
        if (!(at = strchr(from, *c->p))) return 0;
        c->p++;
        *out = to[at - from];
        return 1;
    }
    c->p++;
    hi = take_hex4(c);
    if (hi <= 0 || (hi >= 0xDC00 && hi <= 0xDFFF)) return 0; /* NUL is refused like a bad escape */
    if (hi < 0xD800 || hi > 0xDFFF) return put_utf8(out, (uint32_t)hi);
    if (c->end - c->p < 2 || c->p[0] != '\\' || c->p[1] != 'u') return 0;
    c->p += 2;
    lo = take_hex4(c);
    if (lo < 0xDC00 || lo > 0xDFFF) return 0;
    return put_utf8(out, 0x10000 + ((uint32_t)(hi - 0xD800) << 10) + (uint32_t)(lo - 0xDC00));
}

/* A JSON string, decoded into st->text. */
static radz_status take_string(scan *c, const char **out)
{
    char *start = c->st->text + c->st->text_len, *to = start;
    if (!take(c, '"')) return fail_at(c, "a string");
    for (;;) {
        uint32_t cp;
        size_t n;
        if (c->p >= c->end) return fail_at(c, "the end of a string");
        if (*c->p == '"') break;
        if (*c->p == '\\') {
            c->p++;
            if (!(n = take_escape(c, to))) return fail_at(c, "a valid escape (NUL is not allowed)");
        } else {
            n = rz_utf8_next(c->p, (size_t)(c->end - c->p), &cp);
            if (n == 0) return fail_at(c, "valid UTF-8");
            if (cp < 0x20) return fail_at(c, "no control character in a string");
            memcpy(to, c->p, n);
            c->p += n;
        }
        to += n;
    }
    c->p++;
    *to++ = '\0';
    c->st->text_len = (size_t)(to - c->st->text);
    *out = start;
    return RADZ_OK;
}

/* A whole number in 0..2^63-1. */
static radz_status take_number(scan *c, uint64_t *out)
{
    const char *start;
    uint64_t v = 0;
    peek(c);
    start = c->p;
    while (c->p < c->end && *c->p >= '0' && *c->p <= '9') {
        v = v * 10 + (uint64_t)(*c->p++ - '0');
        if (c->p - start > 19 || v > INT64_MAX) return fail_at(c, "a number below 2^63");
    }
    if (c->p == start || (*start == '0' && c->p - start > 1) ||
        (c->p < c->end && (*c->p == '.' || *c->p == 'e' || *c->p == 'E')))
        return fail_at(c, "a whole number, 0 or more");
    *out = v;
    return RADZ_OK;
}

/* "[a, b, ...]" of at most max numbers. */
static radz_status take_numbers(scan *c, const char *key, uint64_t *out, size_t max, size_t *n)
{
    *n = 0;
    if (!take(c, '[')) return fail_at(c, "'['");
    if (take(c, ']')) return RADZ_OK;
    do {
        if (*n == max)
            return rz_fail(c->err, RADZ_E_LIMIT, "%s: header, offset %zu: '%s' has more than %zu numbers", c->what,
                           (size_t)(c->p - c->begin) + 8, key, max);
        RZ_TRY(take_number(c, &out[(*n)++]));
    } while (take(c, ','));
    return take(c, ']') ? RADZ_OK : fail_at(c, "',' or ']'");
}

/* Grows an array of items by doubling. */
static radz_status grow(rz_st *st, void **items, size_t n, size_t *cap, size_t item_size, const char *what,
                        radz_error *err)
{
    size_t want = *cap ? *cap * 2 : 64;
    void *p;
    if (n < *cap) return RADZ_OK;
    if (!(p = rz_realloc(st->host, *items, want, item_size))) return RZ_NO_MEMORY(err, what);
    *items = p;
    *cap = want;
    return RADZ_OK;
}

static radz_status take_metadata(scan *c)
{
    rz_st *st = c->st;
    if (st->seen_metadata) return rz_fail(c->err, RADZ_E_FORMAT, "%s: '__metadata__' twice in the header", c->what);
    st->seen_metadata = true;
    if (!take(c, '{')) return fail_at(c, "'{' after '__metadata__'");
    if (take(c, '}')) return RADZ_OK;
    do {
        st_pair pair;
        RZ_TRY(take_string(c, &pair.key));
        if (!take(c, ':')) return fail_at(c, "':'");
        RZ_TRY(take_string(c, &pair.value));
        RZ_TRY(grow(st, (void **)&st->pairs, st->n_pairs, &st->cap_pairs, sizeof pair, c->what, c->err));
        st->pairs[st->n_pairs++] = pair;
    } while (take(c, ','));
    return take(c, '}') ? RADZ_OK : fail_at(c, "',' or '}'");
}

/* ---- Tensors -------------------------------------------------------------------------- */

size_t rz_st_dtype_size(const char *dtype)
{
    static const struct {
        const char *name;
        size_t size;
    } known[] = {
        {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8}, {"I64", 8},  {"I32", 4},     {"I16", 2},     {"I8", 1},
        {"U64", 8}, {"U32", 4}, {"U16", 2},  {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
    };
    for (size_t i = 0; i < RZ_COUNT(known); i++)
        if (strcmp(known[i].name, dtype) == 0) return known[i].size;
    return 0;
}

static radz_status check_tensor(scan *c, rz_st_tensor *t, const char *dtype, const uint64_t offsets[2])
{
    size_t size = rz_st_dtype_size(dtype);
    if (!size)
        return rz_fail(c->err, RADZ_E_UNSUPPORTED, "%s: tensor '%s': dtype '%.16s' is not supported", c->what, t->name,
                       dtype);
    for (size_t i = 0; i < sizeof t->dtype - 1 && dtype[i]; i++) t->dtype[i] = dtype[i];
    t->n_elements = 1;
    for (size_t i = 0; i < t->n_dims; i++)
        if (!rz_size_mul(t->n_elements, t->dims[i], &t->n_elements))
            return rz_fail(c->err, RADZ_E_FORMAT, "%s: tensor '%s': shape overflows", c->what, t->name);
    if (!rz_size_mul(t->n_elements, size, &t->n_bytes))
        return rz_fail(c->err, RADZ_E_FORMAT, "%s: tensor '%s': shape overflows", c->what, t->name);
    if (offsets[0] > offsets[1] || offsets[1] > c->n_data)
        return rz_fail(c->err, RADZ_E_FORMAT, "%s: tensor '%s': span %llu..%llu does not lie in the %llu bytes of data",
                       c->what, t->name, (unsigned long long)offsets[0], (unsigned long long)offsets[1],
                       (unsigned long long)c->n_data);
    if (offsets[1] - offsets[0] != t->n_bytes)
        return rz_fail(c->err, RADZ_E_FORMAT, "%s: tensor '%s': span of %llu bytes, expected %zu for its shape and %s",
                       c->what, t->name, (unsigned long long)(offsets[1] - offsets[0]), t->n_bytes, t->dtype);
    t->data = (const uint8_t *)(uintptr_t)offsets[0]; /* an offset until check_spans has seen them all */
    return RADZ_OK;
}

/* {"dtype":..., "shape":[...], "data_offsets":[a,b]}, each once, in any order. */
static radz_status take_tensor(scan *c, const char *name)
{
    rz_st *st = c->st;
    rz_st_tensor t = {.name = name};
    uint64_t offsets[2];
    const char *dtype = NULL, *key;
    bool shape = false;
    size_t n_offsets = 0, mark;
    if (!take(c, '{')) return fail_at(c, "'{' after a tensor's name");
    mark = st->text_len;
    do {
        RZ_TRY(take_string(c, &key));
        if (!take(c, ':')) return fail_at(c, "':'");
        if (!dtype && strcmp(key, "dtype") == 0) {
            RZ_TRY(take_string(c, &dtype));
        } else if (!shape && strcmp(key, "shape") == 0) {
            RZ_TRY(take_numbers(c, key, t.dims, RZ_COUNT(t.dims), &t.n_dims));
            shape = true;
        } else if (!n_offsets && strcmp(key, "data_offsets") == 0) {
            RZ_TRY(take_numbers(c, key, offsets, 2, &n_offsets));
            if (n_offsets != 2) return fail_at(c, "two data_offsets");
        } else {
            return rz_fail(c->err, RADZ_E_FORMAT, "%s: tensor '%s': expected dtype, shape, data_offsets once each",
                           c->what, name);
        }
    } while (take(c, ','));
    if (!take(c, '}')) return fail_at(c, "',' or '}'");
    if (!dtype || !shape || !n_offsets)
        return rz_fail(c->err, RADZ_E_FORMAT, "%s: tensor '%s': expected dtype, shape and data_offsets", c->what, name);
    RZ_TRY(check_tensor(c, &t, dtype, offsets));
    st->text_len = mark; /* the keys are not needed any more */
    RZ_TRY(grow(st, (void **)&st->tensors, st->n_tensors, &st->cap_tensors, sizeof t, c->what, c->err));
    st->tensors[st->n_tensors++] = t;
    return RADZ_OK;
}

static radz_status take_header(scan *c)
{
    if (c->p == c->end || *c->p != '{') return fail_at(c, "'{'");
    c->p++;
    if (!take(c, '}')) {
        do {
            const char *name;
            RZ_TRY(take_string(c, &name));
            if (!take(c, ':')) return fail_at(c, "':'");
            if (strcmp(name, "__metadata__") == 0)
                RZ_TRY(take_metadata(c));
            else
                RZ_TRY(take_tensor(c, name));
        } while (take(c, ','));
        if (!take(c, '}')) return fail_at(c, "',' or '}'");
    }
    peek(c);
    return c->p == c->end ? RADZ_OK : fail_at(c, "only spaces after the header");
}

/* ---- Order, holes, names ----------------------------------------------------------------- */

static int by_position(const void *a, const void *b)
{
    const rz_st_tensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    if (x->n_bytes != y->n_bytes) return x->n_bytes < y->n_bytes ? -1 : 1; /* an empty tensor comes first */
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b, void *tensors)
{
    const rz_st_tensor *t = tensors;
    return strcmp(t[*(const uint32_t *)a].name, t[*(const uint32_t *)b].name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const st_pair *const *)a)->key, (*(const st_pair *const *)b)->key);
}

/* Spans must follow each other without overlap or hole and end where the file ends. Offsets become pointers. */
static radz_status check_spans(scan *c)
{
    rz_st *st = c->st;
    uint64_t at = 0;
    if (st->n_tensors) qsort(st->tensors, st->n_tensors, sizeof *st->tensors, by_position);
    for (size_t i = 0; i < st->n_tensors; i++) {
        rz_st_tensor *t = &st->tensors[i];
        uint64_t begin = (uintptr_t)t->data;
        if (begin != at)
            return rz_fail(c->err, RADZ_E_FORMAT, "%s: tensor '%s': data begins at %llu, expected %llu (%s)", c->what,
                           t->name, (unsigned long long)begin, (unsigned long long)at, begin < at ? "overlap" : "hole");
        t->data = c->data ? c->data + begin : NULL;
        at += t->n_bytes;
    }
    if (at != c->n_data)
        return rz_fail(c->err, RADZ_E_FORMAT, "%s: %llu bytes after the last tensor", c->what,
                       (unsigned long long)(c->n_data - at));
    return RADZ_OK;
}

static radz_status index_names(scan *c)
{
    rz_st *st = c->st;
    if (!(st->by_name = rz_calloc(st->host, st->n_tensors, sizeof *st->by_name))) return RZ_NO_MEMORY(c->err, c->what);
    for (size_t i = 0; i < st->n_tensors; i++) st->by_name[i] = (uint32_t)i;
    qsort_r(st->by_name, st->n_tensors, sizeof *st->by_name, by_name, st->tensors);
    for (size_t i = 1; i < st->n_tensors; i++) {
        const char *name = st->tensors[st->by_name[i]].name;
        if (strcmp(name, st->tensors[st->by_name[i - 1]].name) == 0)
            return rz_fail(c->err, RADZ_E_FORMAT, "%s: tensor '%s' twice in the header", c->what, name);
    }
    return RADZ_OK;
}

static radz_status check_metadata_keys(scan *c)
{
    rz_st *st = c->st;
    radz_status status = RADZ_OK;
    const st_pair **sorted = rz_calloc(st->host, st->n_pairs, sizeof *sorted);
    if (!sorted) return RZ_NO_MEMORY(c->err, c->what);
    for (size_t i = 0; i < st->n_pairs; i++) sorted[i] = &st->pairs[i];
    qsort(sorted, st->n_pairs, sizeof *sorted, by_key);
    for (size_t i = 1; i < st->n_pairs && status == RADZ_OK; i++)
        if (strcmp(sorted[i]->key, sorted[i - 1]->key) == 0)
            status =
                rz_fail(c->err, RADZ_E_FORMAT, "%s: metadata key '%s' twice in the header", c->what, sorted[i]->key);
    rz_free(st->host, sorted);
    return status;
}

/* The whole check of header text against a data section of n_data bytes. */
static radz_status read_header(rz_st *st, const char *header, size_t n, const uint8_t *data, uint64_t n_data,
                               const char *what, radz_error *err)
{
    scan c = {st, what, header, header + n, header, n_data, data, err};
    if (!(st->text = rz_malloc(st->host, n + 1))) return RZ_NO_MEMORY(err, what);
    RZ_TRY(take_header(&c));
    RZ_TRY(check_spans(&c));
    RZ_TRY(index_names(&c));
    return check_metadata_keys(&c);
}

static uint64_t load_u64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

static radz_status read_file(rz_st *st, const char *what, radz_error *err)
{
    uint64_t n;
    if (st->n_bytes < 8)
        return rz_fail(err, RADZ_E_FORMAT, "%s: %zu bytes, too short for a safetensors file", what, st->n_bytes);
    n = load_u64(st->bytes);
    if (n > ST_MAX_HEADER)
        return rz_fail(err, RADZ_E_LIMIT, "%s: header of %llu bytes, at most %u are read (is this a safetensors file?)",
                       what, (unsigned long long)n, ST_MAX_HEADER);
    if (n < 2 || n > st->n_bytes - 8)
        return rz_fail(err, RADZ_E_FORMAT, "%s: header of %llu bytes in a file of %zu", what, (unsigned long long)n,
                       st->n_bytes);
    return read_header(st, (const char *)st->bytes + 8, (size_t)n, st->bytes + 8 + n, st->n_bytes - 8 - n, what, err);
}

/* ---- Handle -------------------------------------------------------------------------------- */

radz_status rz_st_open(const rz_host *host, const char *path, rz_file_mode mode, rz_st **out, radz_error *err)
{
    radz_status status;
    rz_st *st = rz_calloc(host, 1, sizeof *st);
    *out = NULL;
    if (!st) return RZ_NO_MEMORY(err, path);
    st->host = host;
    status = rz_file_open(host, path, mode, SIZE_MAX, &st->file, err);
    if (status == RADZ_OK) {
        st->bytes = st->file.data;
        st->n_bytes = st->file.size;
        status = read_file(st, path, err);
    } else {
        memset(&st->file, 0, sizeof st->file);
    }
    if (status == RADZ_OK)
        *out = st;
    else
        rz_st_close(st);
    return status;
}

radz_status rz_st_parse(const rz_host *host, const uint8_t *bytes, size_t n, const char *what, rz_st **out,
                        radz_error *err)
{
    radz_status status;
    rz_st *st = rz_calloc(host, 1, sizeof *st);
    *out = NULL;
    if (!st) return RZ_NO_MEMORY(err, what);
    st->host = host;
    st->bytes = bytes;
    st->n_bytes = n;
    status = read_file(st, what, err);
    if (status == RADZ_OK)
        *out = st;
    else
        rz_st_close(st);
    return status;
}

/* What read_header made. */
static void free_header(rz_st *st)
{
    rz_free(st->host, st->text);
    rz_free(st->host, st->tensors);
    rz_free(st->host, st->by_name);
    rz_free(st->host, st->pairs);
}

radz_status rz_st_check_header(const rz_host *host, const char *header, size_t n, uint64_t n_data, radz_error *err)
{
    rz_st st = {.host = host};
    radz_status status = read_header(&st, header, n, NULL, n_data, "safetensors", err);
    free_header(&st);
    return status;
}

void rz_st_close(rz_st *st)
{
    if (!st) return;
    free_header(st);
    rz_file_close(&st->file);
    rz_free(st->host, st);
}

size_t rz_st_count(const rz_st *st)
{
    return st->n_tensors;
}

const rz_st_tensor *rz_st_at(const rz_st *st, size_t i)
{
    return i < st->n_tensors ? &st->tensors[i] : NULL;
}

const rz_st_tensor *rz_st_find(const rz_st *st, const char *name)
{
    size_t lo = 0, hi = st->n_tensors;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const rz_st_tensor *t = &st->tensors[st->by_name[mid]];
        int cmp = strcmp(t->name, name);
        if (cmp == 0) return t;
        if (cmp < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

const char *rz_st_metadata(const rz_st *st, const char *key)
{
    for (size_t i = 0; i < st->n_pairs; i++)
        if (strcmp(st->pairs[i].key, key) == 0) return st->pairs[i].value;
    return NULL;
}

size_t rz_st_metadata_count(const rz_st *st)
{
    return st->n_pairs;
}

const char *rz_st_metadata_at(const rz_st *st, size_t i, const char **value)
{
    if (value) *value = i < st->n_pairs ? st->pairs[i].value : NULL;
    return i < st->n_pairs ? st->pairs[i].key : NULL;
}

const uint8_t *rz_st_bytes(const rz_st *st, size_t *n)
{
    *n = st->n_bytes;
    return st->bytes;
}

void rz_st_soon(const rz_st *st, const uint8_t *p, size_t n)
{
    rz_file_soon(&st->file, (size_t)(p - st->bytes), n);
}

void rz_st_forget(const rz_st *st, const uint8_t *p, size_t n)
{
    rz_file_forget(&st->file, (size_t)(p - st->bytes), n);
}
