/* dicom_parse.c - a DICOM file's elements, up to its pixel data: with or without preamble and meta information,
 * implicit or explicit, either byte order, deflated. SPDX-License-Identifier: Apache-2.0 */
#include <zlib.h>

#include "dicom.h"

#define UNDEFINED 0xffffffffu
#define TAG_ITEM_END RZ_TAG(0xfffe, 0xe00d)
#define TAG_SEQUENCE_END RZ_TAG(0xfffe, 0xe0dd)
#define DEFLATED "1.2.840.10008.1.2.1.99"
#define EXPLICIT_LITTLE "1.2.840.10008.1.2.1"
#define IMPLICIT_LITTLE "1.2.840.10008.1.2"
#define EXPLICIT_BIG "1.2.840.10008.1.2.2"

/* ---- Numbers of either byte order ------------------------------------------------------- */

static unsigned read_u16(const uint8_t *p, bool big)
{
    return big ? (unsigned)p[0] << 8 | p[1] : (unsigned)p[1] << 8 | p[0];
}

static uint32_t read_u32(const uint8_t *p, bool big)
{
    return big ? read_u16(p, big) << 16 | read_u16(p + 2, big) : read_u16(p + 2, big) << 16 | read_u16(p, big);
}

static uint32_t read_tag(const uint8_t *p, bool big)
{
    return RZ_TAG(read_u16(p, big), read_u16(p + 2, big));
}

static bool is_upper(uint8_t c)
{
    return c >= 'A' && c <= 'Z';
}

/* ---- One element's head -------------------------------------------------------------------- */

typedef struct head {
    uint32_t tag, length;
    char vr[2];
    size_t size; /* of the head itself */
} head;

static bool is_long(const char vr[2])
{
    static const char longs[][3] = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"};
    for (size_t i = 0; i < RZ_COUNT(longs); i++)
        if (!memcmp(longs[i], vr, 2)) return true;
    return false;
}

/* False: n bytes are too few, or no value representation stands where one must. */
static bool read_head(const uint8_t *p, size_t n, bool implicit, bool big, head *h)
{
    if (n < 8) return false;
    *h = (head){.tag = read_tag(p, big), .size = 8};
    if (implicit || h->tag >> 16 == 0xfffe) {
        h->length = read_u32(p + 4, big);
        return true;
    }
    if (!is_upper(p[4]) || !is_upper(p[5])) return false;
    memcpy(h->vr, p + 4, 2);
    if (!is_long(h->vr)) {
        h->length = read_u16(p + 6, big);
        return true;
    }
    if (n < 12) return false;
    h->length = read_u32(p + 8, big);
    h->size = 12;
    return true;
}

/* ---- What kind of file --------------------------------------------------------------------- */

static bool starts_so(const uint8_t *bytes, size_t n, bool implicit, bool big)
{
    head h;
    if (!read_head(bytes, n, implicit, big, &h)) return false;
    const uint32_t group = h.tag >> 16, element = h.tag & 0xffff;
    if ((group != 2 && group != 8) || element > 0x1155) return false;
    return h.length <= n - h.size && h.length <= 1024;
}

/* A data set with neither preamble nor meta information. */
static bool guess_syntax(const uint8_t *bytes, size_t n, const char **syntax)
{
    if (starts_so(bytes, n, false, false))
        *syntax = EXPLICIT_LITTLE;
    else if (starts_so(bytes, n, false, true))
        *syntax = EXPLICIT_BIG;
    else if (starts_so(bytes, n, true, false))
        *syntax = IMPLICIT_LITTLE;
    else
        return false;
    return true;
}

bool rz_dicom_is(const uint8_t *bytes, size_t n)
{
    const char *syntax;
    if (n >= 132 && !memcmp(bytes + 128, "DICM", 4)) return true;
    return guess_syntax(bytes, n, &syntax);
}

/* ---- The walk ------------------------------------------------------------------------------- */

/* An open data set, sequence or item. */
typedef struct level {
    size_t end; /* of an undefined length: that of what it lies in */
    bool undefined, sequence, fragments, implicit;
} level;

typedef struct walk {
    rz_dicom *d;
    const uint8_t *bytes;
    size_t at;
    level stack[RZ_DICOM_MAX_DEPTH + 1];
    size_t depth;
    radz_error *err;
} walk;

static radz_status damaged(const walk *w, const char *why)
{
    return rz_fail(w->err, RADZ_E_FORMAT, "%s: dicom: truncated or corrupt: %s at byte %zu", w->d->what, why, w->at);
}

static radz_status add(walk *w, const head *h, size_t length, bool encapsulated)
{
    rz_dicom *d = w->d;
    if (d->n == RZ_DICOM_MAX_ELEMENTS)
        return rz_fail(w->err, RADZ_E_LIMIT, "%s: dicom: more than %d elements", d->what, RZ_DICOM_MAX_ELEMENTS);
    if (d->n == d->cap) {
        const size_t cap = d->cap ? 2 * d->cap : 128;
        rz_dicom_element *more = rz_realloc(d->host, d->elements, cap, sizeof *more);
        if (!more) return RZ_NO_MEMORY(w->err, "elements of a DICOM file");
        d->elements = more;
        d->cap = cap;
    }
    d->elements[d->n++] = (rz_dicom_element){.tag = h->tag,
                                             .vr = {h->vr[0], h->vr[1]},
                                             .depth = (uint8_t)w->depth,
                                             .encapsulated = encapsulated,
                                             .value = w->bytes + w->at,
                                             .length = length};
    return RADZ_OK;
}

static radz_status enter(walk *w, uint32_t length, level inside)
{
    const level *top = &w->stack[w->depth];
    if (w->depth == RZ_DICOM_MAX_DEPTH)
        return rz_fail(w->err, RADZ_E_LIMIT, "%s: dicom: sequences nest deeper than %d", w->d->what,
                       RZ_DICOM_MAX_DEPTH);
    inside.undefined = length == UNDEFINED;
    inside.end = inside.undefined ? top->end : w->at + length;
    w->stack[++w->depth] = inside;
    return RADZ_OK;
}

/* Sequences whose items are wanted, so that they are walked even where their length lets them be skipped. */
static bool is_wanted(uint32_t tag)
{
    return tag == RZ_TAG(0x0028, 0x3000) || tag == RZ_TAG(0x0028, 0x3010) || tag == RZ_TAG(0x0054, 0x0220) ||
           tag == RZ_TAG(0x0008, 0x2218);
}

static bool is_sequence(const walk *w, const head *h)
{
    const bool undefined = h->length == UNDEFINED;
    if (h->vr[0]) return !memcmp(h->vr, "SQ", 2) ? undefined || is_wanted(h->tag) : undefined;
    return undefined || (is_wanted(h->tag) && w->depth == 0);
}

static radz_status take_element(walk *w, bool *done)
{
    const level *top = &w->stack[w->depth];
    const bool implicit = top->implicit;
    head h;
    if (!read_head(w->bytes + w->at, top->end - w->at, implicit, w->d->big, &h))
        return damaged(w, "expected an element");
    if (h.tag == TAG_ITEM_END && top->undefined && w->depth) {
        w->at += h.size;
        w->depth--;
        return RADZ_OK;
    }
    if (h.tag >> 16 == 0xfffe) return damaged(w, "a delimiter outside of a sequence");
    w->at += h.size;
    if (h.length != UNDEFINED && h.length > top->end - w->at) return damaged(w, "an element is longer than its place");
    const bool pixels = h.tag == RZ_TAG_PIXEL_DATA && !w->depth;
    if (is_sequence(w, &h)) {
        const bool plain = !h.vr[0] || !memcmp(h.vr, "SQ", 2), unknown = !memcmp(h.vr, "UN", 2);
        if (!plain && !unknown && h.tag != RZ_TAG_PIXEL_DATA) return damaged(w, "an undefined length");
        RZ_TRY(add(w, &h, 0, pixels));
        const bool fragments = h.tag == RZ_TAG_PIXEL_DATA;
        return enter(w, h.length, (level){.sequence = true, .fragments = fragments, .implicit = implicit || unknown});
    }
    RZ_TRY(add(w, &h, h.length, false));
    w->at += h.length;
    *done = pixels;
    return RADZ_OK;
}

static radz_status take_item(walk *w, bool *done)
{
    const level *top = &w->stack[w->depth];
    const bool fragments = top->fragments, implicit = top->implicit;
    head h;
    if (!read_head(w->bytes + w->at, top->end - w->at, true, w->d->big, &h)) return damaged(w, "expected an item");
    w->at += h.size;
    if (h.tag == TAG_SEQUENCE_END && top->undefined) {
        w->depth--;
        *done = fragments && w->depth == 0;
        return RADZ_OK;
    }
    if (h.tag != RZ_TAG_ITEM) return damaged(w, "expected an item");
    if (h.length != UNDEFINED && h.length > top->end - w->at) return damaged(w, "an item is longer than its place");
    if (!fragments) {
        RZ_TRY(add(w, &h, 0, false));
        return enter(w, h.length, (level){.implicit = implicit});
    }
    if (h.length == UNDEFINED) return damaged(w, "a fragment of undefined length");
    RZ_TRY(add(w, &h, h.length, false));
    w->at += h.length;
    return RADZ_OK;
}

/* The data set in bytes[at, n), to its end or the end of its pixel data. */
static radz_status walk_all(rz_dicom *d, const uint8_t *bytes, size_t at, size_t n, radz_error *err)
{
    walk w = {.d = d, .bytes = bytes, .at = at, .err = err};
    w.stack[0] = (level){.end = n, .implicit = d->implicit};
    for (bool done = false; !done;) {
        const level *top = &w.stack[w.depth];
        if (w.at == top->end && top->undefined) return damaged(&w, "the file ends inside of a sequence");
        if (w.at == top->end && !w.depth) return RADZ_OK;
        if (w.at == top->end) {
            w.depth--;
            continue;
        }
        RZ_TRY(top->sequence ? take_item(&w, &done) : take_element(&w, &done));
    }
    return RADZ_OK;
}

/* ---- Deflated data sets ------------------------------------------------------------------------ */

static voidpf take_memory(voidpf user, uInt n, uInt size)
{
    return rz_calloc(user, n, size);
}

static void return_memory(voidpf user, voidpf p)
{
    rz_free(user, p);
}

/* One step of room; false: the limit or no memory, said in *status. */
static bool grow(rz_dicom *d, size_t *cap, radz_status *status, radz_error *err)
{
    if (*cap == RZ_DICOM_MAX_INFLATED) {
        *status =
            rz_fail(err, RADZ_E_LIMIT, "%s: dicom: inflates to more than %d bytes", d->what, RZ_DICOM_MAX_INFLATED);
        return false;
    }
    const size_t more = *cap ? 2 * *cap : 1 << 16;
    *cap = more < RZ_DICOM_MAX_INFLATED ? more : RZ_DICOM_MAX_INFLATED;
    uint8_t *p = rz_realloc(d->host, d->inflated, *cap, 1);
    if (!p) {
        *status = RZ_NO_MEMORY(err, "a deflated DICOM file");
        return false;
    }
    d->inflated = p;
    return true;
}

static radz_status inflate_all(rz_dicom *d, const uint8_t *bytes, size_t n, size_t *n_out, radz_error *err)
{
    z_stream z = {.zalloc = take_memory,
                  .zfree = return_memory,
                  .opaque = (voidpf)(uintptr_t)d->host,
                  .next_in = (Bytef *)(uintptr_t)bytes,
                  .avail_in = n < UINT32_MAX ? (uInt)n : UINT32_MAX};
    size_t cap = 0;
    radz_status status = RADZ_OK;
    if (inflateInit2(&z, -MAX_WBITS) != Z_OK) return RZ_NO_MEMORY(err, "a deflated DICOM file");
    for (int code = Z_OK; code != Z_STREAM_END && status == RADZ_OK;) {
        if (z.total_out == cap && !grow(d, &cap, &status, err)) break;
        z.next_out = d->inflated + z.total_out;
        z.avail_out = (uInt)(cap - z.total_out);
        code = inflate(&z, Z_NO_FLUSH);
        if (code == Z_MEM_ERROR)
            status = RZ_NO_MEMORY(err, "a deflated DICOM file");
        else if (code != Z_STREAM_END && (code != Z_OK || (!z.avail_in && z.avail_out)))
            status = rz_fail(err, RADZ_E_FORMAT, "%s: dicom: truncated or corrupt: the deflated data set", d->what);
    }
    *n_out = z.total_out;
    inflateEnd(&z);
    return status;
}

/* ---- The whole ------------------------------------------------------------------------------------ */

/* Elements of group 2, always explicit and little endian; *at moves behind them. */
static radz_status take_meta(rz_dicom *d, const uint8_t *bytes, size_t n, size_t *at, radz_error *err)
{
    while (n - *at >= 8 && read_u16(bytes + *at, false) == 2) {
        head h;
        if (!read_head(bytes + *at, n - *at, false, false, &h) || h.length > n - *at - h.size)
            return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: truncated or corrupt: meta information at byte %zu", d->what,
                           *at);
        rz_dicom_element e = {.tag = h.tag, .value = bytes + *at + h.size, .length = h.length};
        if (h.tag == RZ_TAG(0x0002, 0x0010) && !rz_dicom_text(&e, 0, d->syntax, sizeof d->syntax))
            return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: the transfer syntax is no identifier", d->what);
        *at += h.size + h.length;
    }
    for (const char *s = d->syntax; *s; s++)
        if (*s != '.' && (*s < '0' || *s > '9'))
            return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: the transfer syntax is no identifier", d->what);
    return RADZ_OK;
}

static radz_status parse(rz_dicom *d, const uint8_t *bytes, size_t n, radz_error *err)
{
    size_t at = n >= 132 && !memcmp(bytes + 128, "DICM", 4) ? 132 : 0;
    const char *guess;
    RZ_TRY(take_meta(d, bytes, n, &at, err));
    if (!d->syntax[0]) {
        if (!guess_syntax(bytes + at, n - at, &guess))
            return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: truncated or corrupt: no transfer syntax and no data set",
                           d->what);
        memcpy(d->syntax, guess, strlen(guess) + 1);
    }
    d->implicit = !strcmp(d->syntax, IMPLICIT_LITTLE);
    d->big = !strcmp(d->syntax, EXPLICIT_BIG);
    if (!strcmp(d->syntax, DEFLATED)) {
        size_t n_inflated = 0;
        RZ_TRY(inflate_all(d, bytes + at, n - at, &n_inflated, err));
        return walk_all(d, d->inflated, 0, n_inflated, err);
    }
    return walk_all(d, bytes, at, n, err);
}

radz_status rz_dicom_parse(const rz_host *host, const uint8_t *bytes, size_t n, const char *what, rz_dicom *out,
                           radz_error *err)
{
    *out = (rz_dicom){.host = host, .what = what};
    const radz_status status = parse(out, bytes, n, err);
    if (status != RADZ_OK) rz_dicom_free(out);
    return status;
}

void rz_dicom_free(rz_dicom *d)
{
    if (d->inflated) rz_free(d->host, d->inflated);
    if (d->elements) rz_free(d->host, d->elements);
    *d = (rz_dicom){0};
}
