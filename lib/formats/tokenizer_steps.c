/* tokenizer_steps.c - normalizers, pre-tokenizers and decoders of a tokenizer.json: steps from texts to texts.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tokenizer_json.h"

#define MAX_GROWN_BYTES (4 * RZ_TOKENIZER_MAX_BYTES) /* what steps may make of a text */

void rz_spans_end(rz_spans *s)
{
    if (s->failed) return;
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 16;
        size_t *end = rz_realloc(s->text.host, s->end, cap, sizeof *end);
        if (!end) {
            s->failed = true;
            return;
        }
        s->end = end;
        s->cap = cap;
    }
    s->end[s->n++] = s->text.len;
}

void rz_spans_free(rz_spans *s)
{
    rz_free(s->text.host, s->end);
    rz_str_free(&s->text);
    s->end = NULL;
    s->n = s->cap = 0;
}

/* Ends a text unless nothing was put. */
static void end_some(rz_spans *s)
{
    if (s->text.len > (s->n ? s->end[s->n - 1] : 0)) rz_spans_end(s);
}

/* ---- One text ------------------------------------------------------------------------------------ */

static const char *find(const char *p, size_t n, const rz_step *step)
{
    return n ? memmem(p, n, step->from, step->n_from) : NULL;
}

static radz_status put_replaced(rz_spans *out, const char *p, size_t n, const rz_step *step, radz_error *err)
{
    size_t count = 0, i = 0;
    for (const char *at; (at = find(p + i, n - i, step)); i = (size_t)(at - p) + step->n_from) count++;
    if (out->text.len + n + count * step->n_to > MAX_GROWN_BYTES)
        return rz_fail(err, RADZ_E_LIMIT, "text grows to more than %zu bytes when it is tokenized", MAX_GROWN_BYTES);
    i = 0;
    for (const char *at; (at = find(p + i, n - i, step)); i = (size_t)(at - p) + step->n_from) {
        rz_str_put(&out->text, p + i, (size_t)(at - p) - i);
        rz_str_put(&out->text, step->to, step->n_to);
    }
    rz_str_put(&out->text, p + i, n - i);
    return RADZ_OK;
}

static void put_split(rz_spans *out, const char *p, size_t n, const rz_split_rule *rule)
{
    for (size_t i = 0, len; i < n && !out->failed; i += len) {
        len = rz_split_next(rule, p + i, n - i);
        rz_str_put(&out->text, p + i, len);
        end_some(out);
    }
}

static void put_digits(rz_spans *out, const char *p, size_t n, bool each)
{
    bool was = false;
    for (size_t i = 0, len; i < n && !out->failed; i += len) {
        uint32_t c = 0;
        if (!(len = rz_utf8_next(p + i, n - i, &c))) len = 1;
        bool is = rz_char_is_numeric(c);
        if (is != was || (is && each)) end_some(out);
        was = is;
        rz_str_put(&out->text, p + i, len);
    }
}

static bool begins(const char *p, size_t n, const char *with, size_t n_with)
{
    return n >= n_with && memcmp(p, with, n_with) == 0;
}

static void put_meta(rz_spans *out, const char *p, size_t n, const rz_step *step, bool first)
{
    bool wanted = step->when == RZ_META_ALWAYS || (step->when == RZ_META_FIRST && first);
    if (wanted && *p != ' ' && !begins(p, n, step->to, step->n_to)) rz_str_put(&out->text, step->to, step->n_to);
    for (size_t i = 0; i < n;) {
        const char *at = memchr(p + i, ' ', n - i);
        size_t len = at ? (size_t)(at - p) - i : n - i;
        rz_str_put(&out->text, p + i, len);
        if (at) rz_str_put(&out->text, step->to, step->n_to);
        i += len + (at != NULL);
    }
}

static void put_meta_split(rz_spans *out, const char *p, size_t n, const rz_step *step)
{
    for (size_t i = 0; i < n && !out->failed;) {
        const char *at =
            n - i > step->n_to ? memmem(p + i + step->n_to, n - i - step->n_to, step->to, step->n_to) : NULL;
        if (!begins(p + i, n - i, step->to, step->n_to)) at = memmem(p + i, n - i, step->to, step->n_to);
        size_t len = at ? (size_t)(at - p) - i : n - i;
        rz_str_put(&out->text, p + i, len);
        end_some(out);
        i += len;
    }
}

/* Printable bytes stand for themselves, the others for U+0100 and on, in order. */
static bool is_printable(unsigned b)
{
    return (b > 32 && b < 127) || (b > 160 && b != 173);
}

static void put_bytes(rz_spans *out, const char *p, size_t n)
{
    uint32_t map[256], next = 256;
    for (unsigned b = 0; b < 256; b++) map[b] = is_printable(b) ? b : next++;
    for (size_t i = 0; i < n; i++) rz_utf8_put_char(&out->text, map[(uint8_t)p[i]]);
}

static void put_stripped(rz_spans *out, const char *p, size_t n, const rz_step *step)
{
    for (size_t k = 0; k < step->start && begins(p, n, step->to, step->n_to); k++) p += step->n_to, n -= step->n_to;
    for (size_t k = 0; k < step->stop && n >= step->n_to && begins(p + n - step->n_to, n, step->to, step->n_to); k++)
        n -= step->n_to;
    rz_str_put(&out->text, p, n);
}

static void put_unmeta(rz_spans *out, const char *p, size_t n, const rz_step *step, bool drop)
{
    for (size_t i = 0; i < n;) {
        const char *at = memmem(p + i, n - i, step->to, step->n_to);
        size_t len = at ? (size_t)(at - p) - i : n - i;
        rz_str_put(&out->text, p + i, len);
        if (at && !drop) rz_str_put(&out->text, " ", 1);
        i += len + (at ? step->n_to : 0);
    }
}

/* ---- All texts ------------------------------------------------------------------------------------ */

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* The byte that a piece like <0x41> stands for, as Rust reads two hexadecimal digits ("+7" is one too); -1: none. */
static int fallback_byte(const char *p, size_t n)
{
    if (n != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>' || hex(p[4]) < 0) return -1;
    if (p[3] == '+') return hex(p[4]);
    return hex(p[3]) < 0 ? -1 : hex(p[3]) * 16 + hex(p[4]);
}

static void end_bytes(rz_spans *out, rz_str *bytes)
{
    if (!bytes->len) return;
    if (rz_utf8_valid(bytes->data, bytes->len)) {
        rz_str_put(&out->text, bytes->data, bytes->len);
        rz_spans_end(out);
    } else {
        for (size_t i = 0; i < bytes->len; i++) {
            rz_str_puts(&out->text, RZ_REPLACEMENT);
            rz_spans_end(out);
        }
    }
    bytes->len = 0;
}

static void run_fallback(const rz_spans *in, rz_spans *out)
{
    rz_str bytes = {.host = in->text.host};
    for (size_t i = 0; i < in->n; i++) {
        const char *p = in->text.data + rz_spans_begin(in, i);
        size_t n = in->end[i] - rz_spans_begin(in, i);
        int b = fallback_byte(p, n);
        if (b >= 0) {
            char c = (char)b;
            rz_str_put(&bytes, &c, 1);
            continue;
        }
        end_bytes(out, &bytes);
        rz_str_put(&out->text, p, n);
        rz_spans_end(out);
    }
    end_bytes(out, &bytes);
    out->failed |= bytes.failed;
    rz_str_free(&bytes);
}

/* A text with a character that stands for no byte is taken as it is. */
static void put_unbytes(rz_str *out, const char *p, size_t n)
{
    size_t start = out->len;
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t c = 0;
        unsigned b = 0, k = 256;
        if (!(len = rz_utf8_next(p + i, n - i, &c))) len = 1;
        if (c < 256 && is_printable(c))
            b = c;
        else
            while (b < 256 && (is_printable(b) || k++ != c)) b++;
        if (b == 256) {
            if (!out->failed) out->len = start;
            rz_str_put(out, p, n);
            return;
        }
        rz_str_put(out, (char[]){(char)b}, 1);
    }
}

static void run_unbytes(const rz_spans *in, rz_spans *out)
{
    rz_str bytes = {.host = in->text.host};
    for (size_t i = 0; i < in->n; i++)
        put_unbytes(&bytes, in->text.data + rz_spans_begin(in, i), in->end[i] - rz_spans_begin(in, i));
    if (bytes.len) rz_utf8_put_lossy(&out->text, bytes.data, bytes.len);
    rz_spans_end(out);
    out->failed |= bytes.failed;
    rz_str_free(&bytes);
}

static radz_status run_each(const rz_step *step, const rz_spans *in, rz_spans *out, bool first, radz_error *err)
{
    for (size_t i = 0; i < in->n && !out->failed && !out->text.failed; i++) {
        size_t n = in->end[i] - rz_spans_begin(in, i);
        const char *p = n ? in->text.data + rz_spans_begin(in, i) : "";
        switch (step->kind) {
        case RZ_STEP_PREPEND:
            if (n) rz_str_put(&out->text, step->to, step->n_to);
            rz_str_put(&out->text, p, n);
            break;
        case RZ_STEP_REPLACE:
            RZ_TRY(put_replaced(out, p, n, step, err));
            break;
        case RZ_STEP_NFC:
            RZ_TRY(rz_nfc_put(&out->text, p, n, err));
            break;
        case RZ_STEP_SPLIT:
            put_split(out, p, n, step->rule);
            continue;
        case RZ_STEP_DIGITS:
            put_digits(out, p, n, step->each);
            end_some(out);
            continue;
        case RZ_STEP_META:
            put_meta(out, p, n, step, first && i == 0);
            break;
        case RZ_STEP_META_SPLIT:
            put_meta_split(out, p, n, step);
            continue;
        case RZ_STEP_SPACE:
            if (*p != ' ') rz_str_puts(&out->text, " ");
            rz_str_put(&out->text, p, n);
            break;
        case RZ_STEP_BYTES:
            put_bytes(out, p, n);
            break;
        case RZ_STEP_UNMETA:
            put_unmeta(out, p, n, step, i == 0 && step->when != RZ_META_NEVER);
            break;
        case RZ_STEP_STRIP:
            put_stripped(out, p, n, step);
            break;
        default:
            break;
        }
        rz_spans_end(out);
    }
    return RADZ_OK;
}

static radz_status run_step(const rz_step *step, const rz_spans *in, rz_spans *out, bool first, radz_error *err)
{
    switch (step->kind) {
    case RZ_STEP_FALLBACK:
        run_fallback(in, out);
        return RADZ_OK;
    case RZ_STEP_UNBYTES:
        run_unbytes(in, out);
        return RADZ_OK;
    case RZ_STEP_FUSE:
        if (in->text.len) rz_str_put(&out->text, in->text.data, in->text.len);
        rz_spans_end(out);
        return RADZ_OK;
    default:
        return run_each(step, in, out, first, err);
    }
}

radz_status rz_chain_run(const rz_chain *chain, rz_spans *s, bool first, radz_error *err)
{
    for (size_t i = 0; i < chain->n; i++) {
        rz_spans out = {.text = {.host = s->text.host}};
        radz_status status = run_step(&chain->steps[i], s, &out, first, err);
        rz_spans_free(s);
        *s = out;
        RZ_TRY(status);
        if (s->failed || s->text.failed) return RZ_NO_MEMORY(err, "text");
        if (s->text.len > MAX_GROWN_BYTES)
            return rz_fail(err, RADZ_E_LIMIT, "text grows to more than %zu bytes when it is tokenized",
                           MAX_GROWN_BYTES);
    }
    return RADZ_OK;
}
